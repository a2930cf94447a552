//! Writes the answer: a stream of events, one line of JSON each.
//!
//! A progress event is dropped if the caller does not read. The final event waits until it does.

use super::reactor::Readiness;
use crate::limits::PROGRESS_INTERVAL;
use crate::protocol::event::Event;
use spin_sdk::http::OutgoingBody;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll};
use wasi::clocks::monotonic_clock;
use wasi::io::streams::OutputStream;

/// The caller has disconnected.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallerGone;

/// The progress of an invocation.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) ranges: Cell<u32>,
    pub(super) data_bytes: Cell<u64>,
}

/// The stream of events. Fields drop in this order: WASI requires each to be dropped before its
/// parent.
pub(super) struct Events {
    readiness: RefCell<Readiness>,
    stream: OutputStream,
    body: OutgoingBody,
    pub(super) progress: Progress,
}

impl Events {
    /// Writes to the answer's body; `None` if the host provides no stream for it.
    pub(super) fn of_answer(body: OutgoingBody) -> Option<Self> {
        Some(Self {
            readiness: RefCell::default(),
            stream: body.write().ok()?,
            body,
            progress: Progress::default(),
        })
    }

    /// Sends a progress event, unless the stream is full.
    pub(super) fn offer_progress(&self) -> Result<(), CallerGone> {
        let event = Event::Progress {
            ranges: self.progress.ranges.get(),
            bytes: self.progress.data_bytes.get(),
            linear_memory: linear_memory_bytes(),
        };
        let line = to_line(&event);
        let writable = self.stream.check_write().map_err(|_| CallerGone)?;
        if writable >= line.len() as u64 {
            self.stream.write(&line).map_err(|_| CallerGone)?;
        }
        Ok(())
    }

    /// Offers progress at every interval, so that the answer is never silent for longer. Ends only
    /// when the caller has disconnected.
    pub(super) async fn keep_alive(&self) -> CallerGone {
        let interval = u64::try_from(PROGRESS_INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        loop {
            let mut readiness = Readiness::new();
            poll_fn(|context| {
                readiness.poll(context, || monotonic_clock::subscribe_duration(interval))
            })
            .await;
            if let Err(gone) = self.offer_progress() {
                return gone;
            }
        }
    }

    /// Sends the final event and ends the answer.
    pub(super) async fn finish(self, event: &Event) -> Result<(), CallerGone> {
        let line = to_line(event);
        let mut sent = 0;
        poll_fn(|context| self.poll_send(context, &line, &mut sent)).await?;
        drop(self.readiness);
        drop(self.stream);
        OutgoingBody::finish(self.body, None).map_err(|_| CallerGone)
    }

    fn poll_send(
        &self,
        context: &mut Context<'_>,
        line: &[u8],
        sent: &mut usize,
    ) -> Poll<Result<(), CallerGone>> {
        while let Some(rest) = line.get(*sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.check_write() {
                Ok(0) => {
                    let mut readiness = self.readiness.borrow_mut();
                    if readiness
                        .poll(context, || self.stream.subscribe())
                        .is_pending()
                    {
                        return Poll::Pending;
                    }
                }
                Ok(writable) => {
                    let writable = usize::try_from(writable).unwrap_or(usize::MAX);
                    let now = rest.get(..writable).unwrap_or(rest);
                    if self.stream.write(now).is_err() {
                        return Poll::Ready(Err(CallerGone));
                    }
                    *sent += now.len();
                }
                Err(_) => return Poll::Ready(Err(CallerGone)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn to_line(event: &Event) -> Vec<u8> {
    // An event has only string keys, so its serialization cannot fail.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The instance's linear memory, in bytes. It never shrinks, so this is also the peak.
pub(super) fn linear_memory_bytes() -> u64 {
    const PAGE_BYTES: u64 = 64 * 1024;
    core::arch::wasm32::memory_size::<0>() as u64 * PAGE_BYTES
}
