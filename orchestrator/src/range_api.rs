//! The range API over a folder of range files: what `serve` answers.
//! Where the files come from is left to `generate`, or to whoever extracted a tar.

use crate::http_server::HttpServer;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, VARY,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prefix_tar::prefix::RangeName;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use tokio::net::TcpListener;

/// The real API's sentence for a range that is none.
const BAD_RANGE: &str = "The hash prefix was not in a valid format";

/// As the real API: a month, in seconds.
const CACHE: &str = "public, max-age=2678400";

/// The largest file that is served, in bytes. Larger than a range may be, so that a test can serve one.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Begins to serve the range files of `folder`.
///
/// # Errors
/// The listener has no address.
pub fn start(listener: TcpListener, folder: PathBuf) -> io::Result<HttpServer> {
    let folder: Arc<Path> = folder.into();
    HttpServer::start(listener, move |request| {
        answer(request, Arc::clone(&folder))
    })
}

async fn answer(request: Request<Incoming>, folder: Arc<Path>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only");
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let Some(name) = request.uri().path().strip_prefix("/range/") else {
        return plain(StatusCode::NOT_FOUND, "ranges are at /range/{first 5 hex}");
    };
    let Ok(range) = name.to_ascii_uppercase().parse::<RangeName>() else {
        return plain(StatusCode::BAD_REQUEST, BAD_RANGE);
    };
    let wanted = Wanted::of(request.headers());
    // Reading a file and compressing it would hold up the sockets.
    let answered = tokio::task::spawn_blocking(move || answer_range(range, &folder, &wanted)).await;
    match answered {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            plain(StatusCode::NOT_FOUND, "this range is not here")
        }
        Ok(Err(error)) => {
            tracing::error!(%range, %error, "a range file could not be read");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the range cannot be read",
            )
        }
        Err(error) => {
            tracing::error!(%range, %error, "answering a range failed");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the range cannot be read",
            )
        }
    }
}

/// What a request asks for besides its range.
struct Wanted {
    accepts_gzip: bool,
    none_match: Option<String>,
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        Self {
            accepts_gzip: text(ACCEPT_ENCODING).is_some_and(accepts_gzip),
            none_match: text(IF_NONE_MATCH).map(str::to_owned),
        }
    }

    /// Weak comparison (RFC 9110, 13.1.2): whether the body is the same, however it is encoded.
    fn has(&self, etag: &str) -> bool {
        self.none_match.as_deref().is_some_and(|list| {
            list.split(',').map(str::trim).any(|candidate| {
                candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag
            })
        })
    }
}

/// Whether an `Accept-Encoding` names gzip with another weight than 0 (RFC 9110, 12.5.3).
fn accepts_gzip(value: &str) -> bool {
    value.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        is_gzip && weight > 0.0
    })
}

fn answer_range(
    range: RangeName,
    folder: &Path,
    wanted: &Wanted,
) -> io::Result<Response<Full<Bytes>>> {
    let mut file = std::fs::File::open(folder.join(range.file_name()))?;
    let metadata = file.metadata()?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "the file has {} bytes, more than {FILE_BYTES_MAX}",
            metadata.len()
        )));
    }
    let modified = metadata.modified()?;
    let seconds = modified
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let etag = format!("\"{seconds:x}-{:x}\"", metadata.len());
    let gzip = wanted.accepts_gzip;
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    insert_text(headers, LAST_MODIFIED, &httpdate::fmt_http_date(modified))?;
    // What is compressed has the same content and other bytes.
    let shown = if gzip {
        format!("W/{etag}")
    } else {
        etag.clone()
    };
    insert_text(headers, ETAG, &shown)?;
    if wanted.has(&etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let mut body = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    io::Read::read_to_end(&mut file, &mut body)?;
    if gzip {
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let compressed = Vec::with_capacity(body.len() * 2 / 3);
        let mut encoder = GzEncoder::new(compressed, Compression::fast());
        encoder.write_all(&body)?;
        body = encoder.finish()?;
    }
    // To a HEAD, the server sends the head alone, with the length of this body.
    *response.body_mut() = Full::new(Bytes::from(body));
    Ok(response)
}

fn insert_text(headers: &mut HeaderMap, name: http::HeaderName, value: &str) -> io::Result<()> {
    let value = HeaderValue::from_str(value).map_err(io::Error::other)?;
    headers.insert(name, value);
    Ok(())
}

fn plain(status: StatusCode, sentence: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(sentence.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_accepted_by_name_and_weight() {
        for (value, accepted) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("identity", false),
            ("xgzip", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(value), accepted, "{value}");
        }
    }

    #[test]
    fn an_etag_matches_weakly_and_in_a_list() {
        let wanted = |none_match: &str| Wanted {
            accepts_gzip: false,
            none_match: Some(none_match.to_owned()),
        };
        assert!(wanted("\"a-1\"").has("\"a-1\""));
        assert!(wanted("\"b-2\", W/\"a-1\"").has("\"a-1\""));
        assert!(wanted("*").has("\"a-1\""));
        assert!(!wanted("\"a-2\"").has("\"a-1\""));
    }
}
