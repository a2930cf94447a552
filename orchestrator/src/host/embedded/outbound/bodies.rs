//! Bodies of the component's outgoing requests: held to the length that was promised.
//! Where they come from and go to is left to the requests.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use wasmtime_wasi_http::{Error, WasiBody};

/// A request's body that ends with an error where it is shorter than declared. A store that is torn down by a
/// trap ends its bodies cleanly; the object store must not take that for the end of the object.
#[derive(Debug)]
pub(super) struct DeclaredBody {
    pub(super) body: WasiBody,
    /// Bytes that are still to come; `None` where no length was declared.
    pub(super) left: Option<u64>,
}

impl DeclaredBody {
    /// No body at all.
    pub(super) fn empty() -> Self {
        Self {
            body: Empty::new().map_err(|never| match never {}).boxed_unsync(),
            left: None,
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
        let Some(left) = self.left else {
            return Poll::Ready(frame);
        };
        match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(left) = left.checked_sub(bytes) else {
                    return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(bytes)))));
                };
                self.left = Some(left);
                Poll::Ready(Some(Ok(frame)))
            }
            None if left > 0 => {
                self.left = None;
                Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(left)))))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_none_or(|left| left == 0) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left
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
            left: declared,
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
    async fn a_body_short_of_its_declared_length_ends_with_an_error() {
        let (bytes, error) = read(&["abc", "de"], Some(9)).await;
        assert_eq!(bytes, 5);
        assert!(matches!(error, Some(Error::HttpRequestBodySize(Some(4)))));
        let (_, error) = read(&["abc", "de"], Some(4)).await;
        assert!(error.is_some(), "one that is longer, too");
        assert!(matches!(read(&["abc", "de"], Some(5)).await, (5, None)));
        assert!(matches!(read(&["abc", "de"], None).await, (5, None)));
        assert!(matches!(read(&[], Some(0)).await, (0, None)));
    }
}
