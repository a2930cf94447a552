//! One range: the request, the body within the pool's memory, decoded and checked.
//! How many are under way, and what becomes of them, is left to the invocation.

use super::incoming::BodyReader;
use super::outgoing::{
    Peer, PendingResponse, Target, Timeouts, header, is_passing_status, request, transport_failure,
};
use crate::chunk_pool::{BodyBytes, ChunkPool};
use crate::failure::{Failure, FailureKind};
use crate::inflate;
use crate::limits::{
    BETWEEN_BYTES_TIMEOUT, CHUNK_BYTES, CONNECT_TIMEOUT, ETAG_BYTES_MAX, FIRST_BYTE_TIMEOUT,
    RANGE_BYTES_MAX, RANGE_WIRE_BYTES_MAX, READ_BYTES_MAX,
};
use crate::prefix::RangeName;
use crate::range_body::RangeCheck;
use crate::source::Configuration;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::UNIX_EPOCH;
use wasi::http::outgoing_handler;
use wasi::http::types::{ErrorCode, Fields, IncomingResponse, Method};

const TIMEOUTS: Timeouts = Timeouts {
    connect: CONNECT_TIMEOUT,
    first_byte: FIRST_BYTE_TIMEOUT,
    between_bytes: BETWEEN_BYTES_TIMEOUT,
};

/// Room made at a time for a body whose length is not stated, in bytes.
const UNSTATED_ROOM_BYTES: usize = 2 * CHUNK_BYTES;

/// A range that was fetched, decoded and found valid.
pub(super) struct Fetched {
    pub(super) range: RangeName,
    pub(super) body: BodyBytes,
    /// Lines of the body.
    pub(super) hashes: u64,
    /// The ETag, or nothing where there was none or a longer one than the report takes.
    pub(super) etag: String,
    /// Last-Modified as Unix time, 0 without one.
    pub(super) modified_seconds: u64,
}

/// What all range requests of an invocation share.
pub(super) struct Fetcher {
    configuration: Configuration,
    headers: Fields,
    /// The beginning of what is said of a request that failed.
    tried: String,
    pool: Rc<ChunkPool>,
    requests: Cell<u64>,
}

impl Fetcher {
    pub(super) fn new(
        configuration: Configuration,
        pool: Rc<ChunkPool>,
    ) -> Result<Rc<Self>, Failure> {
        let agent = concat!("prefix-tar/", env!("CARGO_PKG_VERSION"));
        let encoding = configuration.encoding.as_str();
        let headers = [
            ("user-agent", agent),
            ("accept", "text/plain"),
            ("accept-encoding", encoding),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let headers = Fields::from_list(&headers).map_err(|error| {
            let message = format!("the host refused the headers of a range request: {error:?}");
            Failure::lasting(FailureKind::Configuration, message)
        })?;
        let tried = format!("GET from {}", configuration.source);
        Ok(Rc::new(Self {
            configuration,
            headers,
            tried,
            pool,
            requests: Cell::new(0),
        }))
    }

    /// Requests sent so far.
    pub(super) const fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Fetches one range. The failure names it.
    pub(super) async fn fetch(self: Rc<Self>, range: RangeName) -> Result<Fetched, Failure> {
        self.fetch_once(range)
            .await
            .map_err(|failure| failure.at(range))
    }

    async fn fetch_once(&self, range: RangeName) -> Result<Fetched, Failure> {
        let response = self.send(range).await?;
        let head = self.read_head(&response)?;
        let received = self
            .read_body(&response, range, head.content_length)
            .await?;
        let body = if head.is_gzip {
            self.inflate(received, range).await?
        } else {
            received
        };
        let hashes = self.check(&body)?;
        Ok(Fetched {
            range,
            body,
            hashes,
            etag: head.etag,
            modified_seconds: head.modified_seconds,
        })
    }

    async fn send(&self, range: RangeName) -> Result<IncomingResponse, Failure> {
        let source = &self.configuration.source;
        let target = Target {
            is_https: source.is_https(),
            authority: source.authority(),
            path_and_query: &source.range_path(range),
        };
        let request = request(&Method::Get, &target, self.headers.clone())
            .ok_or_else(|| self.transport_failure(&ErrorCode::HttpRequestUriInvalid))?;
        self.requests.set(self.requests.get() + 1);
        let sent = outgoing_handler::handle(request, Some(TIMEOUTS.to_options()))
            .map_err(|code| self.transport_failure(&code))?;
        let mut pending = PendingResponse::new(sent);
        poll_fn(|context| pending.poll(context))
            .await
            .map_err(|code| self.transport_failure(&code))
    }

    fn transport_failure(&self, code: &ErrorCode) -> Failure {
        transport_failure(Peer::Source, &self.tried, code)
    }

    fn range_failure(&self, kind: FailureKind, what: impl std::fmt::Display) -> Failure {
        let message = format!("{} answered no valid range: {what}", self.tried);
        Failure::passing(kind, message)
    }

    fn too_large(&self) -> Failure {
        let message = format!(
            "{} answered more than {RANGE_BYTES_MAX} bytes, the most that a range may have",
            self.tried
        );
        Failure::lasting(FailureKind::RangeTooLarge, message)
    }

    fn read_head(&self, response: &IncomingResponse) -> Result<Head, Failure> {
        let status = response.status();
        if status != 200 {
            let message = format!("{} answered {status}", self.tried);
            return Err(if is_passing_status(status) {
                Failure::passing(FailureKind::SourceStatus, message)
            } else {
                Failure::lasting(FailureKind::SourceStatus, message)
            });
        }
        let headers = response.headers();
        let content_length = header(&headers, "content-length")
            .and_then(|text| text.parse::<u64>().ok())
            .map(usize::try_from);
        let content_length = match content_length {
            None => None,
            Some(Ok(bytes)) if bytes <= RANGE_WIRE_BYTES_MAX => Some(bytes),
            Some(_) => return Err(self.too_large()),
        };
        let is_gzip = match header(&headers, "content-encoding").as_deref() {
            None | Some("" | "identity") => false,
            Some("gzip" | "x-gzip") => true,
            Some(_) => {
                let what = "it has a content-encoding that was not asked for";
                return Err(self.range_failure(FailureKind::RangeInvalid, what));
            }
        };
        let etag = header(&headers, "etag")
            .filter(|etag| etag.len() <= ETAG_BYTES_MAX)
            .unwrap_or_default();
        let modified_seconds = header(&headers, "last-modified")
            .and_then(|text| httpdate::parse_http_date(&text).ok())
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_secs());
        Ok(Head {
            content_length,
            is_gzip,
            etag,
            modified_seconds,
        })
    }

    async fn read_body(
        &self,
        response: &IncomingResponse,
        range: RangeName,
        content_length: Option<usize>,
    ) -> Result<BodyBytes, Failure> {
        let mut reader = BodyReader::of_response(response)
            .ok_or_else(|| self.transport_failure(&ErrorCode::HttpResponseIncomplete))?;
        let mut body = BodyBytes::new(&self.pool, range.index());
        loop {
            let expected = match content_length {
                Some(length) => length.saturating_sub(body.len()),
                None if body.room() == 0 => UNSTATED_ROOM_BYTES,
                None => 0,
            };
            body.make_room(expected).await;
            // With a body that is whole, the one byte asked for brings its end.
            let piece = reader
                .read(body.room().clamp(1, READ_BYTES_MAX))
                .await
                .map_err(|code| self.transport_failure(&code))?;
            let Some(piece) = piece else { break };
            if body.len() + piece.len() > RANGE_WIRE_BYTES_MAX {
                return Err(self.too_large());
            }
            body.make_room(piece.len()).await;
            body.append(&piece)
                .map_err(|error| self.range_failure(FailureKind::RangeInvalid, error))?;
        }
        match content_length {
            Some(length) if length != body.len() => {
                Err(self.transport_failure(&ErrorCode::HttpResponseIncomplete))
            }
            _ => Ok(body),
        }
    }

    async fn inflate(&self, received: BodyBytes, range: RangeName) -> Result<BodyBytes, Failure> {
        let failure = |error| match error {
            inflate::InflateError::TooLarge => self.too_large(),
            inflate::InflateError::Damaged => self.range_failure(FailureKind::RangeInvalid, error),
        };
        let stated = inflate::stated_bytes(&received).map_err(failure)?;
        let mut decoded = BodyBytes::new(&self.pool, range.index());
        decoded.make_room(stated).await;
        inflate::inflate(&received, &mut decoded).map_err(failure)?;
        Ok(decoded)
    }

    fn check(&self, body: &BodyBytes) -> Result<u64, Failure> {
        let mut check = RangeCheck::new();
        body.pieces()
            .try_for_each(|piece| check.push(piece))
            .and_then(|()| check.finish())
            .map_err(|error| self.range_failure(FailureKind::RangeInvalid, error))
    }
}

/// What the head of a response says.
struct Head {
    content_length: Option<usize>,
    is_gzip: bool,
    etag: String,
    modified_seconds: u64,
}
