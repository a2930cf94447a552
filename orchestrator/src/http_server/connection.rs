//! Tracks whether a connection waits for a request or answers one.

use super::admission::{IdleKey, Seat};
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    seat: Seat,
    /// Set while it waits for a request.
    waits: Mutex<Option<IdleKey>>,
    close: CancellationToken,
}

impl Connection {
    /// A connection that waits for its first request.
    pub(super) fn new(seat: Seat) -> Arc<Self> {
        let connection = Self {
            seat,
            waits: Mutex::default(),
            close: CancellationToken::new(),
        };
        connection.wait();
        Arc::new(connection)
    }

    /// Returns when the connection has to make room for another one.
    pub(super) async fn closed(&self) {
        self.close.cancelled().await;
    }

    /// Begins to answer a request.
    pub(super) fn begin(self: &Arc<Self>) -> Answering {
        self.end_wait();
        Answering(Arc::clone(self))
    }

    /// Ends the connection's last wait, since it closes by itself. Returns a permit to linger, if
    /// not too many connections of the peer do.
    pub(super) fn leave(&self) -> Option<OwnedSemaphorePermit> {
        self.end_wait();
        self.seat.linger()
    }

    fn wait(&self) {
        let key = self.seat.wait_for_request(&self.close);
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }

    fn end_wait(&self) {
        let key = {
            let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            waits.take()
        };
        if let Some(key) = key {
            self.seat.end_wait(key);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end_wait();
    }
}

/// Exists while a request is being answered. Then its connection waits for the next one.
#[derive(Debug)]
pub(super) struct Answering(Arc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.wait();
    }
}

impl Answering {
    /// A response that ends the answer when its body has been written or given up.
    pub(super) fn with<ResponseBody>(
        self,
        response: Response<ResponseBody>,
    ) -> Response<AnswerBody<ResponseBody>> {
        response.map(|body| AnswerBody {
            body: Box::pin(body),
            _answering: self,
        })
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct AnswerBody<ResponseBody> {
    body: Pin<Box<ResponseBody>>,
    _answering: Answering,
}

impl<ResponseBody: Body> Body for AnswerBody<ResponseBody> {
    type Data = ResponseBody::Data;
    type Error = ResponseBody::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.body.as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
