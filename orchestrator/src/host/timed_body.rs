//! A body that comes in and ends with an error where nothing comes for too long.
//! What the error means is left to who reads it.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// The body. What is not asked for is not waited for.
#[derive(Debug)]
pub(super) struct TimedBody {
    body: Incoming,
    between_bytes: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why the rest of a body does not come.
#[derive(Debug)]
pub(super) enum BodyLost {
    /// Nothing came for too long.
    Silent,
    /// The connection broke.
    Broken(hyper::Error),
}

impl TimedBody {
    pub(super) const fn new(body: Incoming, between_bytes: Duration) -> Self {
        Self {
            body,
            between_bytes,
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
        let between_bytes = self.between_bytes;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(between_bytes)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Some(Err(BodyLost::Silent)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
