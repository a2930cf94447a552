//! Reads the bodies of responses and of the job's request, piece by piece.

use super::reactor::Readiness;
use std::future::poll_fn;
use std::task::Poll;
use wasi::http::types::{ErrorCode, IncomingBody, IncomingResponse, http_error_code};
use wasi::io::error::Error as IoError;
use wasi::io::streams::{InputStream, StreamError};

/// A body being read. Fields drop in this order: WASI requires each to be dropped before its
/// parent.
pub(super) struct BodyReader<Body> {
    readiness: Readiness,
    stream: InputStream,
    _body: Body,
}

impl BodyReader<IncomingBody> {
    /// The body of a response; `None` if it was taken before.
    pub(super) fn of_response(response: &IncomingResponse) -> Option<Self> {
        let body = response.consume().ok()?;
        Some(Self::new(body.stream().ok()?, body))
    }
}

impl<Body> BodyReader<Body> {
    /// Reads `stream`, and keeps `body`, its parent, alive.
    pub(super) const fn new(stream: InputStream, body: Body) -> Self {
        Self {
            readiness: Readiness::new(),
            stream,
            _body: body,
        }
    }

    /// The next piece of at most `bytes_max`, or `None` at the end.
    pub(super) async fn read(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, ErrorCode> {
        poll_fn(|context| {
            loop {
                match self.stream.read(bytes_max as u64) {
                    Ok(piece) if piece.is_empty() => {}
                    Ok(piece) => return Poll::Ready(Ok(Some(piece))),
                    Err(StreamError::Closed) => return Poll::Ready(Ok(None)),
                    Err(StreamError::LastOperationFailed(error)) => {
                        return Poll::Ready(Err(code_of(&error)));
                    }
                }
                if self
                    .readiness
                    .poll(context, || self.stream.subscribe())
                    .is_pending()
                {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

/// The code of a failed read. wasmtime 48 provides none for errors of a body, only a debug text.
fn code_of(error: &IoError) -> ErrorCode {
    http_error_code(error).unwrap_or_else(|| {
        let is_timeout = error.to_debug_string().contains("timeout");
        if is_timeout {
            ErrorCode::ConnectionReadTimeout
        } else {
            ErrorCode::ConnectionTerminated
        }
    })
}

/// The first `bytes_max` bytes of a response's body as text, as far as they can be read.
pub(super) async fn read_text(response: &IncomingResponse, bytes_max: usize) -> String {
    let mut text = Vec::new();
    if let Some(mut reader) = BodyReader::of_response(response) {
        while text.len() < bytes_max {
            match reader.read(bytes_max - text.len()).await {
                Ok(Some(piece)) => text.extend(piece),
                Ok(None) | Err(_) => break,
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
