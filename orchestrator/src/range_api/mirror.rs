//! [`Mirror`]: answers as the public range API does, from an archive.
//!
//! Which range a client asks for is its secret: it is in no log and no metric.

#[cfg(test)]
mod tests;

use super::cache::{RangeCache, Unavailable};
use super::coding::Coding;
use super::current::{CurrentArchive, OpenArchive, Refreshed};
use super::entry::{EVERY_ORIGIN, Entry, NOT_CACHED, shared_head};
use super::metrics::Metrics;
use super::padding::padded;
use super::request::{RANGES, RangeRequest, Refusal};
use super::response::{BAD_QUERY, BAD_RANGE, NO_RANGE_PATH, for_method, other_mode, plain};
use crate::archive::ReadError;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap,
    HeaderValue, RETRY_AFTER,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a range's path allows.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// How long a browser may remember what OPTIONS allows: 20 days in seconds, as the public API says.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("1728000");

/// When a client may try again, in seconds, if the archive cannot be read now.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// The content type of Prometheus' text format.
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// A server of one archive.
pub struct Mirror {
    current: CurrentArchive,
    cache: RangeCache,
    metrics: Arc<Metrics>,
    path_prefix: String,
}

impl Mirror {
    /// Serves an archive below `path_prefix`, with a cache of so many bytes. The prefix is empty or begins with a
    /// slash and ends without one.
    pub fn new(current: CurrentArchive, path_prefix: String, cache_bytes: u64) -> Self {
        let metrics = Arc::new(Metrics::default());
        Self {
            current,
            cache: RangeCache::new(cache_bytes, Arc::clone(&metrics)),
            metrics,
            path_prefix,
        }
    }

    /// Opens the archive if it has a manifest.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub async fn open(&self) -> Result<Refreshed, ReadError> {
        self.current.refresh().await
    }

    /// Follows the archive for as long as it is polled, with a look at its manifest at this interval.
    pub async fn follow(&self, every: Duration) {
        let on_opened = || {
            // Nobody will ask for what the old archive held.
            self.cache.clear();
            tracing::info!("a new archive is served");
        };
        self.current.follow(every, &self.metrics, on_opened).await;
    }

    /// Answers a request. Its body is ignored.
    pub async fn answer<Body>(&self, request: &Request<Body>) -> Response<Full<Bytes>> {
        let begun = Instant::now();
        let response = match request.uri().path() {
            "/healthz" => plain(StatusCode::OK, "alive"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            path => match path.strip_prefix(self.path_prefix.as_str()) {
                Some(path) if path.starts_with(RANGES) => self.range(request, path).await,
                _ => plain(StatusCode::NOT_FOUND, NO_RANGE_PATH),
            },
        };
        let (response, body_bytes) = for_method(request.method(), response);
        let time = begun.elapsed();
        self.metrics.answered(response.status(), body_bytes, time);
        response
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        match self.current.get() {
            Some(_) => plain(StatusCode::OK, "an archive is open"),
            None => not_now("no archive is open yet"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let finished = self.current.get().and_then(|archive| archive.finished);
        match self.metrics.text(finished) {
            Ok(text) => {
                let mut response = Response::new(text.into());
                response.headers_mut().insert(CONTENT_TYPE, METRICS_TYPE);
                response
            }
            Err(_) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics cannot be written",
            ),
        }
    }

    /// Answers for the path of a range, whoever asks: pages of other origins may read it, errors too.
    async fn range<Body>(&self, request: &Request<Body>, path: &str) -> Response<Full<Bytes>> {
        let method = request.method();
        if *method == Method::OPTIONS {
            return preflight();
        }
        let query = request.uri().query();
        let answer = match RangeRequest::parse(method, path, query, request.headers()) {
            Ok(request) => self.find(&request).await,
            Err(refusal) => Err(refuse(refusal)),
        };
        answer.unwrap_or_else(|mut error| {
            let headers = error.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY_ORIGIN);
            headers.insert(CACHE_CONTROL, NOT_CACHED);
            error
        })
    }

    async fn find(
        &self,
        request: &RangeRequest,
    ) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
        let archive = self.current.get();
        let archive = archive.ok_or_else(|| not_now("no archive is open yet"))?;
        if request.mode != archive.mode() {
            return Err(other_mode(archive.mode()));
        }
        let found = match request.is_padded {
            true => self.padded(&archive, request).await,
            false => self.plain(&archive, request).await,
        };
        found.map_err(unavailable)
    }

    async fn plain(
        &self,
        archive: &OpenArchive,
        request: &RangeRequest,
    ) -> Result<Response<Full<Bytes>>, Unavailable> {
        let coding = request.codings.best();
        let entry = self.cache.find(archive, request.range, coding).await?;
        Ok(if request.knows(entry.etag()) {
            let head = entry.not_modified_head();
            response(StatusCode::NOT_MODIFIED, head, Bytes::new())
        } else {
            let Entry { head, body, .. } = &*entry;
            response(StatusCode::OK, head.clone(), body.clone())
        })
    }

    async fn padded(
        &self,
        archive: &OpenArchive,
        request: &RangeRequest,
    ) -> Result<Response<Full<Bytes>>, Unavailable> {
        let coding = request.codings.best();
        let entry = self
            .cache
            .find(archive, request.range, Coding::Identity)
            .await?;
        let body = padded(&entry.body, archive.mode()).into();
        let body = RangeCache::compressed(body, coding)?;
        let mut head = shared_head();
        head.insert(CACHE_CONTROL, NOT_CACHED);
        if let Some(name) = coding.name() {
            head.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        Ok(response(StatusCode::OK, head, body))
    }
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    match refusal {
        Refusal::Method => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD and OPTIONS only");
            response.headers_mut().insert(ALLOW, METHODS);
            response
        }
        Refusal::Path => plain(StatusCode::NOT_FOUND, NO_RANGE_PATH),
        Refusal::Range => plain(StatusCode::BAD_REQUEST, BAD_RANGE),
        Refusal::Query => plain(StatusCode::BAD_REQUEST, BAD_QUERY),
    }
}

fn unavailable(reason: Unavailable) -> Response<Full<Bytes>> {
    match reason {
        // To a client, a range is never absent: this must not look as if the password were unknown.
        Unavailable::NotHeld => plain(
            StatusCode::NOT_FOUND,
            "this mirror does not hold the hashes with this prefix",
        ),
        Unavailable::Now => not_now("the archive cannot be read now"),
        Unavailable::Broken => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the range cannot be read",
        ),
    }
}

/// What a browser asks before it sends `Add-Padding` to another origin.
fn preflight() -> Response<Full<Bytes>> {
    let mut head = HeaderMap::with_capacity(8);
    head.insert(ALLOW, METHODS);
    head.insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY_ORIGIN);
    head.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    head.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Add-Padding"),
    );
    head.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response(StatusCode::NO_CONTENT, head, Bytes::new())
}

fn not_now(text: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    response
}

fn response(status: StatusCode, head: HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = head;
    response
}
