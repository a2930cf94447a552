//! Serves the range API: from an archive, as the public one does, or from a folder of range files or a generator, for
//! a run to mirror.

mod cache;
pub mod coding;
mod compression;
pub mod current;
mod digests;
mod entry;
mod metrics;
pub mod mirror;
mod padding;
pub mod request;
mod response;
pub mod source;

use crate::http_server::tls::TlsIdentity;
use crate::http_server::{HttpServer, ServerLimits};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    LAST_MODIFIED, VARY,
};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use mirror::Mirror;
use request::{RangeRequest, Refusal};
use response::{BAD_QUERY, BAD_RANGE, NO_RANGE_PATH, for_method, other_mode, plain};
use source::RangeSource;
use std::io::{self, Write as _};
use std::sync::Arc;
use tokio::net::TcpListener;

/// The public API's value: 31 days, in seconds.
const CACHE: &str = "public, max-age=2678400";

/// Starts serving the ranges of `source`.
///
/// # Errors
/// The listener's address cannot be read.
pub fn start(listener: TcpListener, source: RangeSource) -> io::Result<HttpServer> {
    start_with(listener, None, source)
}

/// Does the same behind TLS, if there is an identity.
///
/// # Errors
/// As [`start`].
pub fn start_with(
    listener: TcpListener,
    identity: Option<Arc<TlsIdentity>>,
    source: RangeSource,
) -> io::Result<HttpServer> {
    let source = Arc::new(source);
    HttpServer::start_with(
        ServerLimits::default(),
        listener,
        identity,
        move |request| {
            let source = Arc::clone(&source);
            async move {
                let method = request.method().clone();
                for_method(&method, answer(request, source).await).0
            }
        },
    )
}

/// Starts serving an archive, behind TLS if there is an identity.
///
/// # Errors
/// The listener's address cannot be read.
pub fn start_mirror(
    listener: TcpListener,
    identity: Option<Arc<TlsIdentity>>,
    mirror: Arc<Mirror>,
) -> io::Result<HttpServer> {
    HttpServer::start_with(
        ServerLimits::default(),
        listener,
        identity,
        move |request| {
            let mirror = Arc::clone(&mirror);
            async move { mirror.answer(&request).await }
        },
    )
}

async fn answer(request: Request<Incoming>, source: Arc<RangeSource>) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query());
    let request = match RangeRequest::parse(request.method(), path, query, request.headers()) {
        Ok(request) if request.mode != source.mode() => return other_mode(source.mode()),
        Ok(request) => request,
        Err(refusal) => return refuse(refusal),
    };
    // Reading and compressing a file blocks, and would delay other requests on this worker. Making a range takes
    // about 0.1 ms.
    let result = if source.blocks() || request.codings.has_gzip() {
        tokio::task::spawn_blocking(move || answer_range(&source, &request)).await
    } else {
        Ok(answer_range(&source, &request))
    };
    match result {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            plain(StatusCode::NOT_FOUND, "there is no file for this range")
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot read a range file");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the range cannot be read",
            )
        }
        Err(error) => {
            tracing::error!(%error, "the task that answers a range panicked");
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
        Refusal::Path => plain(StatusCode::NOT_FOUND, NO_RANGE_PATH),
        Refusal::Range => plain(StatusCode::BAD_REQUEST, BAD_RANGE),
        Refusal::Query => plain(StatusCode::BAD_REQUEST, BAD_QUERY),
    }
}

fn answer_range(source: &RangeSource, request: &RangeRequest) -> io::Result<Response<Full<Bytes>>> {
    let found = source.find(request.range)?;
    let gzip = request.codings.has_gzip();
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    insert_text(
        headers,
        LAST_MODIFIED,
        &httpdate::fmt_http_date(found.modified),
    )?;
    // The compressed body has the same content but other bytes, so its ETag is weak.
    let etag_sent = if gzip {
        format!("W/{}", found.etag)
    } else {
        found.etag.clone()
    };
    insert_text(headers, ETAG, &etag_sent)?;
    if request.knows(&found.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let mut body = found.body()?;
    if gzip {
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let compressed = Vec::with_capacity(body.len() * 2 / 3);
        let mut encoder = GzEncoder::new(compressed, Compression::fast());
        encoder.write_all(&body)?;
        body = encoder.finish()?.into();
    }
    *response.body_mut() = Full::new(body);
    Ok(response)
}

fn insert_text(headers: &mut HeaderMap, name: http::HeaderName, value: &str) -> io::Result<()> {
    let value = HeaderValue::from_str(value).map_err(io::Error::other)?;
    headers.insert(name, value);
    Ok(())
}
