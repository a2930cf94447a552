//! Serves the range API from a folder of range files, for `orchestrator serve` and `demo`.

pub mod request;

use crate::http_server::HttpServer;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    LAST_MODIFIED, VARY,
};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use request::{RangeRequest, Refusal};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::net::TcpListener;

/// The public API's answer to an invalid range.
const BAD_RANGE: &str = "The hash prefix was not in a valid format";

/// The public API's value: 31 days, in seconds.
const CACHE: &str = "public, max-age=2678400";

/// The largest file that is served, in bytes. It exceeds the largest range, so that a test can serve
/// one that is too long.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The last second that an HTTP date can name, the end of the year 9999, since 1970.
const HTTP_DATE_MAX: u64 = 253_402_300_799;

/// Starts serving the range files in `folder`.
///
/// # Errors
/// The listener's address cannot be read.
pub fn start(listener: TcpListener, folder: PathBuf) -> io::Result<HttpServer> {
    let folder: Arc<Path> = folder.into();
    HttpServer::start(listener, move |request| {
        answer(request, Arc::clone(&folder))
    })
}

async fn answer(request: Request<Incoming>, folder: Arc<Path>) -> Response<Full<Bytes>> {
    let request =
        match RangeRequest::parse(request.method(), request.uri().path(), request.headers()) {
            Ok(request) => request,
            Err(refusal) => return refuse(refusal),
        };
    let range = request.range;
    // Reading and compressing a file blocks, and would delay other requests on this worker.
    let result = tokio::task::spawn_blocking(move || answer_range(&folder, &request)).await;
    match result {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            plain(StatusCode::NOT_FOUND, "there is no file for this range")
        }
        Ok(Err(error)) => {
            tracing::error!(%range, %error, "cannot read a range file");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the range cannot be read",
            )
        }
        Err(error) => {
            tracing::error!(%range, %error, "the task that answers a range panicked");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the range cannot be read",
            )
        }
    }
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    match refusal {
        Refusal::Method => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        Refusal::Path => plain(
            StatusCode::NOT_FOUND,
            "ranges are at /range/{five hex characters}",
        ),
        Refusal::Range => plain(StatusCode::BAD_REQUEST, BAD_RANGE),
    }
}

fn answer_range(folder: &Path, request: &RangeRequest) -> io::Result<Response<Full<Bytes>>> {
    let mut file = std::fs::File::open(folder.join(request.range.file_name()))?;
    let metadata = file.metadata()?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "the file has {} bytes; at most {FILE_BYTES_MAX} are served",
            metadata.len()
        )));
    }
    let seconds = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
        .min(HTTP_DATE_MAX);
    let modified = UNIX_EPOCH + Duration::from_secs(seconds);
    let etag = format!("\"{seconds:x}-{:x}\"", metadata.len());
    let gzip = request.accepts_gzip;
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    insert_text(headers, LAST_MODIFIED, &httpdate::fmt_http_date(modified))?;
    // The compressed body has the same content but other bytes, so its ETag is weak.
    let etag_sent = if gzip {
        format!("W/{etag}")
    } else {
        etag.clone()
    };
    insert_text(headers, ETAG, &etag_sent)?;
    if request.knows(&etag) {
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
    // For a HEAD request, hyper sends only the head, with the length of this body.
    *response.body_mut() = Full::new(Bytes::from(body));
    Ok(response)
}

fn insert_text(headers: &mut HeaderMap, name: http::HeaderName, value: &str) -> io::Result<()> {
    let value = HeaderValue::from_str(value).map_err(io::Error::other)?;
    headers.insert(name, value);
    Ok(())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
