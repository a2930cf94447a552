//! The answer: a stream of events, a line of JSON each. What has happened is left to the invocation.
//!
//! Progress is offered and may be left out where the caller does not read; the final event is waited for.

use super::reactor::Readiness;
use crate::job::Event;
use crate::limits::PROGRESS_INTERVAL;
use spin_sdk::http::OutgoingBody;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll};
use wasi::clocks::monotonic_clock;
use wasi::io::streams::OutputStream;

/// The caller does not listen any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallerGone;

/// How far the invocation is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) ranges: Cell<u32>,
    pub(super) data_bytes: Cell<u64>,
}

/// The stream of events. Fields drop in this order: each before what it belongs to.
pub(super) struct Events {
    readiness: RefCell<Readiness>,
    stream: OutputStream,
    body: OutgoingBody,
    pub(super) progress: Progress,
}

impl Events {
    /// The events of the answer with this body; `None` where the host gives no stream for it.
    pub(super) fn of_answer(body: OutgoingBody) -> Option<Self> {
        Some(Self {
            readiness: RefCell::default(),
            stream: body.write().ok()?,
            body,
            progress: Progress::default(),
        })
    }

    /// Tells how far the invocation is, unless the caller has not read what it was told before.
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

    /// Offers progress at every interval, so that the answer is never silent for longer. Ends only when the
    /// caller is gone.
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

    /// Sends the last event and ends the answer.
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
    // An event has string keys and finite numbers, so its serialization cannot fail.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The linear memory that the instance has, in bytes. It never shrinks, so it is also the peak.
pub(super) fn linear_memory_bytes() -> u64 {
    const PAGE_BYTES: u64 = 64 * 1024;
    core::arch::wasm32::memory_size::<0>() as u64 * PAGE_BYTES
}
