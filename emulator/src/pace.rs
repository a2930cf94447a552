//! Bounds how long a client may take to send a body.

use crate::error::StoreError;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The longest silence in a body. The component is silent while it retries the next range of the
/// tar, for up to 90 s and one more request of 60 s.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// The slowest average rate of a body. A tar of 310 MB takes a day at this rate, which is also the
/// longest that the component allows an upload.
const BYTES_PER_SECOND_MIN: u64 = 4 * 1024;

/// For how long a body may be slower than that.
const GRACE: Duration = Duration::from_secs(300);

/// How slowly a client may send a body. Only the time that the emulator waits for the client counts,
/// not the time that it takes to write.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest silence.
    pub idle_max: Duration,
    /// The slowest average rate after the grace period, in bytes per second. It is not 0.
    pub bytes_per_second_min: u64,
    /// How long a body may be slower on average.
    pub grace: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            idle_max: IDLE_MAX,
            bytes_per_second_min: BYTES_PER_SECOND_MIN,
            grace: GRACE,
        }
    }
}

/// Reads a body at a minimum pace.
#[derive(Debug)]
pub(crate) struct PacedReader {
    pace: Pace,
    received: u64,
    waited: Duration,
}

impl PacedReader {
    pub(crate) const fn new(pace: Pace) -> Self {
        Self {
            pace,
            received: 0,
            waited: Duration::ZERO,
        }
    }

    /// The bytes that have arrived so far.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    /// The next piece of a body, or `None` at its end.
    ///
    /// # Errors
    /// [`StoreError::RequestTimeout`] if the client is too slow, and [`StoreError::IncompleteBody`]
    /// if the connection broke.
    pub(crate) async fn next(
        &mut self,
        body: &mut (impl Body<Data = Bytes> + Unpin),
    ) -> Result<Option<Bytes>, StoreError> {
        loop {
            let started = Instant::now();
            let frame = timeout(self.wait_max(), body.frame())
                .await
                .map_err(|_| StoreError::RequestTimeout)?;
            self.waited += started.elapsed();
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|_| StoreError::IncompleteBody)?;
            // A trailer is nothing that an object has.
            if let Ok(bytes) = Frame::into_data(frame) {
                self.received += bytes.len() as u64;
                return Ok(Some(bytes));
            }
        }
    }

    /// How long the next piece may take.
    fn wait_max(&self) -> Duration {
        let earned = self.received / self.pace.bytes_per_second_min.max(1);
        let left = (self.pace.grace + Duration::from_secs(earned)).saturating_sub(self.waited);
        left.min(self.pace.idle_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::StreamBody;
    use std::convert::Infallible;

    /// A body of `count` pieces of `bytes` bytes, each after a pause.
    fn body(count: u32, bytes: usize, pause: Duration) -> impl Body<Data = Bytes> + Unpin {
        StreamBody::new(Box::pin(stream::unfold(0, move |sent| async move {
            if sent == count {
                return None;
            }
            tokio::time::sleep(pause).await;
            let frame = Frame::data(Bytes::from(vec![0; bytes]));
            Some((Ok::<_, Infallible>(frame), sent + 1))
        })))
    }

    async fn read(
        mut body: impl Body<Data = Bytes> + Unpin,
        pace: Pace,
    ) -> (Result<(), StoreError>, Duration) {
        let started = Instant::now();
        let mut reader = PacedReader::new(pace);
        let read = loop {
            match reader.next(&mut body).await {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (read, started.elapsed())
    }

    /// A time that no test reaches.
    const NEVER: Duration = Duration::from_secs(3600);

    /// A time that is over soon.
    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_body_that_falls_silent_is_given_up() {
        let pace = Pace {
            idle_max: SOON,
            ..Pace::default()
        };
        let (read, took) = read(body(1, 1, NEVER), pace).await;
        assert_eq!(read, Err(StoreError::RequestTimeout));
        assert!(took >= SOON, "{took:?}");
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_given_up_after_the_grace_period() {
        let pace = Pace {
            grace: SOON,
            ..Pace::default()
        };
        let (read, took) = read(body(u32::MAX, 1, Duration::from_millis(5)), pace).await;
        assert_eq!(read, Err(StoreError::RequestTimeout));
        assert!(took >= SOON, "{took:?}");
    }

    #[tokio::test]
    async fn a_body_that_is_fast_enough_may_take_longer_than_the_grace_period() {
        let pace = Pace {
            grace: SOON,
            bytes_per_second_min: 1000,
            ..Pace::default()
        };
        // Each piece earns a second.
        let (read, took) = read(body(20, 1000, Duration::from_millis(5)), pace).await;
        assert_eq!(read, Ok(()));
        assert!(took >= SOON, "{took:?}");
    }

    #[tokio::test]
    async fn the_time_that_the_emulator_takes_does_not_count() {
        let pace = Pace {
            grace: 4 * SOON,
            ..Pace::default()
        };
        let mut body = body(20, 1, Duration::ZERO);
        let mut reader = PacedReader::new(pace);
        let started = Instant::now();
        while reader.next(&mut body).await.expect("in time").is_some() {
            // The emulator writes to a slow disk.
            tokio::time::sleep(SOON / 2).await;
        }
        assert_eq!(reader.received(), 20);
        assert!(started.elapsed() > pace.grace);
    }
}
