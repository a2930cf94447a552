//! Tracks what a connection is doing: it waits for a request, works on answers, or sends them.

use super::ServerLimits;
use super::admission::{IdleKey, Seat};
use bytes::{Buf, Bytes};
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// One connection. With HTTP/2, it has several requests at once.
#[derive(Debug)]
pub(super) struct Connection {
    seat: Seat,
    state: Mutex<State>,
    /// Grows whenever a request begins, an answer ends, or the peer takes some of an answer.
    progress: AtomicU64,
    close: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Requests whose response is not there yet.
    working: usize,
    /// Responses that the peer has not taken to their end.
    sending: usize,
    /// Set while the connection waits for a request.
    waits: Option<IdleKey>,
}

impl Connection {
    /// A connection that waits for its first request.
    pub(super) fn new(seat: Seat) -> Arc<Self> {
        let connection = Self {
            seat,
            state: Mutex::default(),
            progress: AtomicU64::new(0),
            close: CancellationToken::new(),
        };
        connection.wait(&mut connection.state());
        Arc::new(connection)
    }

    /// Returns when the connection has to make room for another one.
    pub(super) async fn closed(&self) {
        self.close.cancelled().await;
    }

    /// Returns when nothing has happened for too long: no request has arrived, or the peer takes nothing of its
    /// answers. HTTP/1.1 has timeouts of its own, which are stricter; a peer of HTTP/2 could answer pings for ever.
    /// It takes at most both times together.
    pub(super) async fn stalled(&self, limits: &ServerLimits) {
        loop {
            let before = self.progress.load(Ordering::Relaxed);
            let is_sending = self.state().sending > 0;
            sleep(match is_sending {
                true => limits.write_stall_max,
                false => limits.head_timeout,
            })
            .await;
            let is_working = self.state().working > 0;
            if !is_working && self.progress.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Waits until the peer may have another answer in progress. Connections of HTTP/1.1 have one each.
    pub(super) async fn answer_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.seat.answer_permit().await
    }

    /// Begins to answer a request. The permit is returned when the answer has ended.
    pub(super) fn begin(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>) -> Answering {
        let mut state = self.state();
        state.working += 1;
        self.end_wait(&mut state);
        Answering {
            connection: Arc::clone(self),
            permit,
        }
    }

    /// Ends the connection's last wait, since it closes by itself. Returns a permit to linger, if
    /// not too many connections of the peer do.
    pub(super) fn leave(&self) -> Option<OwnedSemaphorePermit> {
        self.end_wait(&mut self.state());
        self.seat.linger()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, state: &mut State) {
        if state.working + state.sending == 0 {
            state.waits = Some(self.seat.wait_for_request(&self.close));
        }
    }

    fn end_wait(&self, state: &mut State) {
        self.moves();
        if let Some(key) = state.waits.take() {
            self.seat.end_wait(key);
        }
    }

    fn moves(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end_wait(&mut self.state());
    }
}

/// Exists while a response is being made.
#[derive(Debug)]
pub(super) struct Answering {
    connection: Arc<Connection>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.connection.state();
        state.working -= 1;
        self.connection.wait(&mut state);
    }
}

impl Answering {
    /// A response that ends the answer when its body has been taken by the peer or given up.
    pub(super) fn with<ResponseBody: Body>(
        mut self,
        response: Response<ResponseBody>,
    ) -> Response<AnswerBody<ResponseBody>> {
        self.connection.state().sending += 1;
        let sending = Arc::new(Sending {
            connection: Arc::clone(&self.connection),
            _permit: self.permit.take(),
        });
        response.map(|body| AnswerBody {
            body: Box::pin(body),
            sending,
        })
    }
}

/// Exists until the peer has taken a response. Then the connection waits for the next request.
#[derive(Debug)]
struct Sending {
    connection: Arc<Connection>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut state = self.connection.state();
        state.sending -= 1;
        self.connection.moves();
        self.connection.wait(&mut state);
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct AnswerBody<ResponseBody> {
    body: Pin<Box<ResponseBody>>,
    sending: Arc<Sending>,
}

impl<ResponseBody: Body> Body for AnswerBody<ResponseBody> {
    type Data = SentData<ResponseBody::Data>;
    type Error = ResponseBody::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = self.body.as_mut().poll_frame(context);
        frame.map_ok(|frame| {
            frame.map_data(|data| SentData {
                data,
                sending: Arc::clone(&self.sending),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of a body. HTTP/2 takes pieces long before the peer does, so the answer lasts as long as they.
#[derive(Debug)]
pub(super) struct SentData<Data> {
    data: Data,
    sending: Arc<Sending>,
}

impl<Data: Buf> Buf for SentData<Data> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'data>(&'data self, slices: &mut [IoSlice<'data>]) -> usize {
        self.data.chunks_vectored(slices)
    }

    fn advance(&mut self, bytes: usize) {
        self.sending.connection.moves();
        self.data.advance(bytes);
    }

    fn copy_to_bytes(&mut self, bytes: usize) -> Bytes {
        self.sending.connection.moves();
        self.data.copy_to_bytes(bytes)
    }
}
