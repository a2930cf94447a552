//! Marks responses whose body ends with its connection: they may have been cut off.
//!
//! wasmtime hides from the guest how a body is framed. Whether to accept such a body is the guest's
//! decision, since its encoding or its digest may show that it is complete.

use crate::framing::is_framed;
use http::{HeaderValue, Response};
use hyper::body::Body;
use prefix_tar::protocol::configuration::UNFRAMED;

/// The response, with the header [`UNFRAMED`] if nothing but the end of its connection ends it.
pub(super) fn marked<B: Body>(mut response: Response<B>) -> Response<B> {
    if !is_framed(&response) {
        let headers = response.headers_mut();
        headers.insert(UNFRAMED, HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    #[test]
    fn only_a_body_that_its_connection_ends_is_marked() {
        let is_marked =
            |response: &http::HeaderMap| response.get(UNFRAMED).is_some_and(|value| value == "1");
        let framed = marked(Response::new(Full::new(Bytes::from("body"))));
        assert!(!is_marked(framed.headers()));
        let frames = stream::empty::<Result<Frame<Bytes>, std::io::Error>>();
        let unframed = marked(Response::new(StreamBody::new(frames)));
        assert!(is_marked(unframed.headers()));
    }
}
