//! The range API over a folder of range files: what `serve` answers.
//! Where the files come from is left to `generate`, or to whoever extracted a tar.

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
    let wanted =
        match RangeRequest::parse(request.method(), request.uri().path(), request.headers()) {
            Ok(wanted) => wanted,
            Err(refusal) => return refuse(refusal),
        };
    let range = wanted.range;
    // Reading a file and compressing it would hold up the sockets.
    let answered = tokio::task::spawn_blocking(move || answer_range(&folder, &wanted)).await;
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

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    match refusal {
        Refusal::Method => {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only");
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
        Refusal::Path => plain(StatusCode::NOT_FOUND, "ranges are at /range/{first 5 hex}"),
        Refusal::Range => plain(StatusCode::BAD_REQUEST, BAD_RANGE),
    }
}

fn answer_range(folder: &Path, wanted: &RangeRequest) -> io::Result<Response<Full<Bytes>>> {
    let mut file = std::fs::File::open(folder.join(wanted.range.file_name()))?;
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
    if wanted.knows(&etag) {
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
