//! An incoming body with an idle timeout.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// An incoming body that fails when it is idle for too long. The timer runs only while a reader
/// waits for the next frame, so a slow reader causes no timeout.
#[derive(Debug)]
pub(super) struct TimedBody {
    body: Incoming,
    idle_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a body ended early.
#[derive(Debug)]
pub(super) enum BodyLost {
    /// No frame arrived within the idle timeout.
    Idle,
    /// The connection broke.
    Broken(hyper::Error),
}

impl TimedBody {
    pub(super) const fn new(body: Incoming, idle_timeout: Duration) -> Self {
        Self {
            body,
            idle_timeout,
            timer: None,
        }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BodyLost;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyLost>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyLost::Broken)));
        }
        let idle_timeout = self.idle_timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_timeout)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Some(Err(BodyLost::Idle)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
