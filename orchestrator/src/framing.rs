//! Tells whether something other than the end of its connection ends a response's body. A body that only its connection
//! ends may have been cut off.

use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Response, Version};
use hyper::body::Body;

/// Whether a length, chunks or HTTP/2 end the response's body.
pub(crate) fn is_framed<B: Body>(response: &Response<B>) -> bool {
    // HTTP/2 ends every body with a flag. hyper knows the length of a body that states it, or that
    // cannot exist.
    response.version() >= Version::HTTP_2
        || response.body().size_hint().exact().is_some()
        || is_chunked(response.headers())
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
    use http::HeaderValue;
    use http_body_util::{Empty, Full, StreamBody};
    use hyper::body::Frame;

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
    fn only_a_body_without_length_chunks_and_http_2_is_unframed() {
        assert!(!is_framed(&response(Version::HTTP_10, &[])));
        assert!(!is_framed(&response(Version::HTTP_11, &[])));
        assert!(is_framed(&response(Version::HTTP_2, &[])));
        for encodings in [&["chunked"][..], &["gzip, Chunked"], &["gzip", " chunked "]] {
            let response = response(Version::HTTP_11, encodings);
            assert!(is_framed(&response), "{encodings:?}");
        }
        for encodings in [&["identity"][..], &["chunked, gzip"], &["chunked", "gzip"]] {
            let response = response(Version::HTTP_11, encodings);
            assert!(!is_framed(&response), "{encodings:?}");
        }
        assert!(is_framed(&Response::new(Empty::<Bytes>::new())));
        assert!(is_framed(&Response::new(Full::new(Bytes::from("body")))));
    }
}
