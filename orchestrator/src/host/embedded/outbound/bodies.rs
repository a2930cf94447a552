//! Enforces the declared length of the component's request bodies.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use wasmtime_wasi_http::{Error, WasiBody};

/// A request body that fails if it is shorter or longer than declared. When a trap tears down a
/// wasmtime store, its bodies end cleanly; the object store must not take that for the object's end.
#[derive(Debug)]
pub(super) struct DeclaredBody {
    pub(super) body: WasiBody,
    /// Declared bytes that are still to come; `None` if no length was declared.
    pub(super) remaining: Option<u64>,
}

impl DeclaredBody {
    /// An empty body without a declared length.
    pub(super) fn empty() -> Self {
        Self {
            body: Empty::new().map_err(|never| match never {}).boxed_unsync(),
            remaining: None,
        }
    }
}

impl Body for DeclaredBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(remaining) = self.remaining else {
            return Poll::Ready(frame);
        };
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(remaining) = remaining.checked_sub(bytes) else {
                    return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(bytes)))));
                };
                self.remaining = Some(remaining);
                Poll::Ready(Some(Ok(frame)))
            }
            None if remaining > 0 => {
                self.remaining = None;
                Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(remaining)))))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining.is_none_or(|remaining| remaining == 0) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use http_body_util::StreamBody;

    async fn read(chunks: &[&'static str], declared: Option<u64>) -> (usize, Option<Error>) {
        let frames: Vec<Result<Frame<Bytes>, Error>> = chunks
            .iter()
            .map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))))
            .collect();
        let body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
        let body = DeclaredBody {
            body,
            remaining: declared,
        };
        let mut stream = http_body_util::BodyStream::new(body);
        let mut bytes = 0;
        while let Some(frame) = stream.next().await {
            match frame {
                Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Err(error) => return (bytes, Some(error)),
            }
        }
        (bytes, None)
    }

    #[tokio::test]
    async fn a_body_of_another_length_than_declared_ends_with_an_error() {
        let (bytes, error) = read(&["abc", "de"], Some(9)).await;
        assert_eq!(bytes, 5);
        assert!(matches!(error, Some(Error::HttpRequestBodySize(Some(4)))));
        let (_, error) = read(&["abc", "de"], Some(4)).await;
        assert!(error.is_some(), "longer than declared");
        assert!(matches!(read(&["abc", "de"], Some(5)).await, (5, None)));
        assert!(matches!(read(&["abc", "de"], None).await, (5, None)));
        assert!(matches!(read(&[], Some(0)).await, (0, None)));
    }
}
