//! Marks responses whose body ends with its connection: they may have been cut off.
//!
//! wasmtime hides from the guest how a body is framed. Whether to accept such a body is the guest's
//! decision, since its encoding or its digest may show that it is complete.

use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, HeaderValue, Response, Version};
use hyper::body::Body;
use prefix_tar::protocol::configuration::UNFRAMED;

/// The response, with the header [`UNFRAMED`] if nothing but the end of its connection ends it.
pub(super) fn marked<B: Body>(mut response: Response<B>) -> Response<B> {
    // HTTP/2 ends every body with a flag. hyper knows the length of a body that states it, or that
    // cannot exist.
    let is_framed = response.version() >= Version::HTTP_2
        || response.body().size_hint().exact().is_some()
        || is_chunked(response.headers());
    if !is_framed {
        let headers = response.headers_mut();
        headers.insert(UNFRAMED, HeaderValue::from_static("1"));
    }
    response
}

/// Whether the last transfer encoding is `chunked` (RFC 9112, 6.3), as hyper decides it.
fn is_chunked(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).into_iter();
    encodings
        .next_back()
        .and_then(|encodings| encodings.to_str().ok())
        .and_then(|encodings| encodings.rsplit(',').next())
        .is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::stream;
    use http_body_util::{Empty, Full, StreamBody};
    use hyper::body::Frame;

    fn is_marked(response: Response<impl Body>) -> bool {
        marked(response).headers().contains_key(UNFRAMED)
    }

    /// A response whose body has no known length.
    fn response(version: Version, transfer_encodings: &[&str]) -> Response<impl Body> {
        let frames = stream::empty::<Result<Frame<Bytes>, std::io::Error>>();
        let mut response = Response::new(StreamBody::new(frames));
        *response.version_mut() = version;
        for encoding in transfer_encodings {
            let encoding = HeaderValue::from_str(encoding).expect("a header value");
            response.headers_mut().append(TRANSFER_ENCODING, encoding);
        }
        response
    }

    #[test]
    fn only_a_body_without_length_chunks_and_http_2_is_marked() {
        assert!(is_marked(response(Version::HTTP_10, &[])));
        assert!(is_marked(response(Version::HTTP_11, &[])));
        assert!(!is_marked(response(Version::HTTP_2, &[])));
        for encodings in [&["chunked"][..], &["gzip, Chunked"], &["gzip", " chunked "]] {
            let response = response(Version::HTTP_11, encodings);
            assert!(!is_marked(response), "{encodings:?}");
        }
        for encodings in [&["identity"][..], &["chunked, gzip"], &["chunked", "gzip"]] {
            let response = response(Version::HTTP_11, encodings);
            assert!(is_marked(response), "{encodings:?}");
        }
        assert!(!is_marked(Response::new(Empty::<Bytes>::new())));
        assert!(!is_marked(Response::new(Full::new(Bytes::from("body")))));
    }
}
