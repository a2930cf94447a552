//! Makes responses that the folder of range files and the archive share.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body as _;
use prefix_tar::protocol::mode::Mode;

pub(super) const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// The public API's answer to an invalid range.
pub(super) const BAD_RANGE: &str = "The hash prefix was not in a valid format";

/// The answer to a path that is not a range's.
pub(super) const NO_RANGE_PATH: &str = "ranges are at /range/{five hex characters}";

/// The answer to a query that is not known.
pub(super) const BAD_QUERY: &str = "the only queries are ?mode=sha1 and ?mode=ntlm";

/// The answer to a request for hashes of another mode than those that are `held`. To a client, a hash that is not in an
/// answer is not in the corpus, so it must not get any of the wrong mode.
pub(super) fn other_mode(held: Mode) -> Response<Full<Bytes>> {
    let text = match held {
        Mode::Sha1 => "this server holds SHA-1 hashes; the only query is ?mode=sha1",
        Mode::Ntlm => "this server holds NTLM hashes; ask for them with ?mode=ntlm",
    };
    plain(StatusCode::BAD_REQUEST, text)
}

/// A response with a sentence.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN_TEXT);
    response
}

/// The response to this method, and how many bytes its body has. For HEAD, only the body's length is left: with
/// HTTP/2, hyper would send the body all the same.
pub(super) fn for_method(
    method: &Method,
    mut response: Response<Full<Bytes>>,
) -> (Response<Full<Bytes>>, u64) {
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    if *method != Method::HEAD {
        return (response, bytes);
    }
    if bytes > 0 {
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        *response.body_mut() = Full::default();
    }
    (response, 0)
}
