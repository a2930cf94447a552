//! Makes one attempt at a range: sends the request, then reads, decodes and validates the body.

use super::{Arrival, Fetched, Unchanged};
use crate::engine::base::KnownRange;
use crate::engine::chunk_pool::{BodyBytes, ChunkPool};
use crate::engine::content_md5::{ContentMd5, Md5Check};
use crate::engine::duplicate_detector::DuplicateDetector;
use crate::engine::head::{BodyEnd, Head, HeadFault};
use crate::engine::inflate::{Members, inflate};
use crate::engine::range_body::RangeCheck;
use crate::limits::{
    BETWEEN_BYTES_TIMEOUT, CHUNK_BYTES, CONNECT_TIMEOUT, FIRST_BYTE_TIMEOUT, RANGE_BYTES_MAX,
    RANGE_WIRE_BYTES_MAX, READ_BYTES_MAX, REQUEST_TIME_MAX,
};
use crate::protocol::configuration::{Configuration, UNFRAMED};
use crate::protocol::failure::{Failure, FailureKind};
use crate::protocol::mode::Mode;
use crate::protocol::phase::Phase;
use crate::protocol::prefix::RangeName;
use crate::protocol::source::{Encoding, SourceUrl};
use crate::protocol::store_answer::{cache_age_seconds, is_transient_source_status};
use crate::shell::heap;
use crate::shell::incoming::BodyReader;
use crate::shell::outgoing::{
    Peer, PendingResponse, Target, Timeouts, header, parsed_retry_after, request, transport_failure,
};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;
use wasi::http::outgoing_handler;
use wasi::http::types::{ErrorCode, Fields, IncomingResponse, Method};

const TIMEOUTS: Timeouts = Timeouts {
    connect: CONNECT_TIMEOUT,
    first_byte: FIRST_BYTE_TIMEOUT,
    between_bytes: BETWEEN_BYTES_TIMEOUT,
};

/// The only status that carries a range.
const OK: u16 = 200;

/// The answer to If-None-Match if nothing has changed.
pub(super) const NOT_MODIFIED: u16 = 304;

/// How much room is made at a time for a body of unknown length, in bytes.
const UNKNOWN_LENGTH_ROOM_BYTES: usize = 2 * CHUNK_BYTES;

/// Requests ranges from the source.
pub(super) struct RangeClient {
    source: SourceUrl,
    mode: Mode,
    encoding: Encoding,
    host_checks_framing: bool,
    headers: Fields,
    /// What each failure message begins with.
    operation: String,
    pool: Rc<ChunkPool>,
    requests: Cell<u64>,
    received_bytes: Cell<u64>,
    is_throttled: Cell<bool>,
    duplicate_detector: RefCell<DuplicateDetector>,
}

/// How a range is named to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheKey {
    /// As clients name it, so that a cache has it.
    Plain,
    /// In another way, which a cache takes for another range.
    Explicit,
}

/// An attempt that failed.
#[derive(Clone)]
pub(super) struct FailedAttempt {
    pub(super) failure: Failure,
    /// The source's Retry-After.
    pub(super) retry_after: Option<Duration>,
}

impl From<Failure> for FailedAttempt {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            retry_after: None,
        }
    }
}

impl RangeClient {
    pub(super) fn new(
        configuration: &Configuration,
        mode: Mode,
        pool: Rc<ChunkPool>,
    ) -> Result<Self, Failure> {
        let (source, encoding) = (&configuration.source, configuration.encoding);
        let agent = concat!("prefix-tar/", env!("CARGO_PKG_VERSION"));
        let headers = [
            ("user-agent", agent),
            ("accept", "text/plain"),
            ("accept-encoding", encoding.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let headers = Fields::from_list(&headers).map_err(|error| {
            let message = format!("the host rejected the headers of a range request: {error:?}");
            Failure::permanent(FailureKind::Configuration, message)
        })?;
        Ok(Self {
            source: source.clone(),
            mode,
            encoding,
            host_checks_framing: configuration.host_checks_framing,
            headers,
            operation: match mode.query() {
                None => format!("GET from {source}"),
                Some(query) => format!("GET from {source} with ?{query}"),
            },
            pool,
            requests: Cell::new(0),
            received_bytes: Cell::new(0),
            is_throttled: Cell::new(false),
            duplicate_detector: RefCell::default(),
        })
    }

    /// Whether ranges have another cache key.
    pub(super) const fn has_explicit_key(&self) -> bool {
        matches!(self.mode, Mode::Sha1)
    }

    pub(super) const fn requests(&self) -> u64 {
        self.requests.get()
    }

    pub(super) const fn received_bytes(&self) -> u64 {
        self.received_bytes.get()
    }

    pub(super) fn take_throttled(&self) -> bool {
        self.is_throttled.take()
    }

    /// Fetches one range with a single request, unless the source still has what is `known`.
    pub(super) async fn get(
        &self,
        range: RangeName,
        known: Option<&KnownRange>,
        key: CacheKey,
    ) -> Result<Arrival, FailedAttempt> {
        let etag = known.and_then(KnownRange::if_none_match);
        let response = self.send(range, etag, key).await?;
        if let Some(known) = known.filter(|_| etag.is_some())
            && response.status() == NOT_MODIFIED
        {
            self.check_not_modified(&response, known)?;
            return Ok(unchanged(range, known, known.etag.clone()));
        }
        let fetched = self.receive(range, &response).await?;
        // A source without ETags sends the same body again.
        Ok(match known {
            Some(known) if known.is(fetched.body.len(), fetched.body.pieces()) => {
                unchanged(range, known, fetched.etag)
            }
            _ => Arrival::Fetched(fetched),
        })
    }

    /// Reads, decodes and validates the body of a response.
    async fn receive(
        &self,
        range: RangeName,
        response: &IncomingResponse,
    ) -> Result<Fetched, FailedAttempt> {
        let head = self.read_head(response)?;
        if !head.is_gzip {
            self.check_framing(&head, response)?;
        }
        let received = self.read_body(response, range, head.content_length).await?;
        let body = if head.is_gzip {
            let decoded = self.inflate(received, range);
            let (decoded, members) = heap::during(Phase::Inflate, decoded).await?;
            // The trailer of a single member shows that it is complete.
            if members == Members::Several {
                self.check_framing(&head, response)?;
            }
            decoded
        } else {
            received
        };
        let hashes = heap::within(Phase::Check, || {
            let hashes = self.check(&body, head.content_md5)?;
            self.check_not_duplicate(range, &body)?;
            Ok::<u64, Failure>(hashes)
        })?;
        Ok(Fetched {
            range,
            body,
            hashes,
            etag: head.etag,
            modified_seconds: head.modified_seconds,
        })
    }

    /// Checks that a 304 is about what is known. Without an ETag it can only be taken at its word.
    fn check_not_modified(
        &self,
        response: &IncomingResponse,
        known: &KnownRange,
    ) -> Result<(), Failure> {
        match header(&response.headers(), "etag") {
            Some(etag) if !known.has_etag(&etag) => {
                let message = format!("{} answered 304 for another ETag", self.operation);
                let failure = Failure::transient(FailureKind::RangeInvalid, message);
                Err(failure.with_status(NOT_MODIFIED))
            }
            _ => Ok(()),
        }
    }

    /// The headers of a request.
    fn headers(&self, etag: Option<&str>) -> Result<Fields, Failure> {
        let headers = self.headers.clone();
        let Some(etag) = etag else {
            return Ok(headers);
        };
        let values = [etag.as_bytes().to_vec()];
        match headers.set(&"if-none-match".to_owned(), &values) {
            Ok(()) => Ok(headers),
            Err(error) => {
                let message = format!("the host rejected the header if-none-match: {error:?}");
                Err(Failure::permanent(FailureKind::Configuration, message))
            }
        }
    }

    async fn send(
        &self,
        range: RangeName,
        etag: Option<&str>,
        key: CacheKey,
    ) -> Result<IncomingResponse, Failure> {
        let source = &self.source;
        let path = match key {
            CacheKey::Plain => None,
            CacheKey::Explicit => source.explicit_range_path(range, self.mode),
        };
        let path = path.unwrap_or_else(|| source.range_path(range, self.mode));
        let target = Target {
            is_https: source.is_https(),
            authority: source.authority().as_str(),
            path_and_query: &path,
        };
        let request = request(&Method::Get, &target, self.headers(etag)?)
            .ok_or_else(|| self.transport_failure(&ErrorCode::HttpRequestUriInvalid))?;
        self.requests.set(self.requests.get() + 1);
        let sent = outgoing_handler::handle(request, Some(TIMEOUTS.to_options()))
            .map_err(|code| self.transport_failure(&code))?;
        let mut pending = PendingResponse::new(sent);
        poll_fn(|context| pending.poll(context))
            .await
            .map_err(|code| self.transport_failure(&code))
    }

    fn read_head(&self, response: &IncomingResponse) -> Result<Head, FailedAttempt> {
        let status = response.status();
        if status != OK {
            return Err(self.status_failure(status, response));
        }
        let headers = response.headers();
        Head::read(|name| headers.get(&name.to_owned())).map_err(|fault| match fault {
            HeadFault::TooLarge => self.too_large().into(),
            fault => self.invalid_range(fault).into(),
        })
    }

    /// Checks that something shows whether a body is complete, apart from its encoding.
    fn check_framing(&self, head: &Head, response: &IncomingResponse) -> Result<(), Failure> {
        let end = || match self.host_checks_framing {
            false => BodyEnd::Unknown,
            true if response.headers().has(&UNFRAMED.to_owned()) => BodyEnd::Connection,
            true => BodyEnd::Marked,
        };
        head.check_framing(end).map_err(|fault| {
            let hint = match self.encoding {
                Encoding::Identity if !head.is_gzip => "; request gzip (SOURCE_ENCODING=gzip)",
                _ => "",
            };
            self.invalid_range(format_args!("{fault}{hint}"))
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
                None if body.room() == 0 => {
                    UNKNOWN_LENGTH_ROOM_BYTES.min(RANGE_WIRE_BYTES_MAX - body.len())
                }
                None => 0,
            };
            body.make_room(expected).await;
            // A complete body has no room left: reading one byte more finds its end.
            let piece = reader
                .read(body.room().clamp(1, READ_BYTES_MAX))
                .await
                .map_err(|code| self.transport_failure(&code))?;
            let Some(piece) = piece else { break };
            let received_bytes = self.received_bytes.get() + piece.len() as u64;
            self.received_bytes.set(received_bytes);
            if body.len() + piece.len() > RANGE_WIRE_BYTES_MAX {
                return Err(self.too_large());
            }
            body.make_room(piece.len()).await;
            body.append(&piece)
                .map_err(|error| self.invalid_range(error))?;
        }
        match content_length {
            Some(length) if length != body.len() => {
                Err(self.transport_failure(&ErrorCode::HttpResponseIncomplete))
            }
            _ => Ok(body),
        }
    }

    async fn inflate(
        &self,
        received: BodyBytes,
        range: RangeName,
    ) -> Result<(BodyBytes, Members), Failure> {
        let mut decoded = BodyBytes::new(&self.pool, range.index());
        let members = inflate(&received, &mut decoded).await;
        let members = members.map_err(|error| self.invalid_range(error))?;
        Ok((decoded, members))
    }

    /// Validates the body, compares it with its MD5 if there is one, and counts its lines.
    fn check(&self, body: &BodyBytes, stated: Option<ContentMd5>) -> Result<u64, Failure> {
        let mut lines = RangeCheck::new(self.mode);
        let mut md5 = stated.map(Md5Check::new);
        for piece in body.pieces() {
            lines
                .push(piece)
                .map_err(|error| self.invalid_range(error))?;
            if let Some(md5) = &mut md5 {
                md5.push(piece);
            }
        }
        let hashes = lines.finish().map_err(|error| self.invalid_range(error))?;
        match md5.is_none_or(Md5Check::matches) {
            true => Ok(hashes),
            false => Err(self.invalid_range("its body does not match its Content-MD5")),
        }
    }

    fn check_not_duplicate(&self, range: RangeName, body: &BodyBytes) -> Result<(), Failure> {
        let suffix_bytes = self.mode.suffix_characters();
        let first = body.pieces().next();
        let first = first.and_then(|piece| piece.get(..suffix_bytes));
        let Some(first) = first else { return Ok(()) };
        let added = self.duplicate_detector.borrow_mut().add(range, first);
        added.map_err(|other| self.invalid_range(format_args!("it is the body of {other}")))
    }

    /// The attempt did not finish within [`REQUEST_TIME_MAX`].
    pub(super) fn timeout(&self) -> Failure {
        let message = format!(
            "{} did not finish within {} s",
            self.operation,
            REQUEST_TIME_MAX.as_secs()
        );
        Failure::transient(FailureKind::SourceTimeout, message)
    }

    fn transport_failure(&self, code: &ErrorCode) -> Failure {
        transport_failure(Peer::Source, &self.operation, code)
    }

    fn status_failure(&self, status: u16, response: &IncomingResponse) -> FailedAttempt {
        let redirect = match status {
            300..=303 | 305..=399 => "; redirects are not followed",
            _ => "",
        };
        let headers = response.headers();
        let cache_age_seconds = cache_age_seconds(status, |name| header(&headers, name));
        let from_cache = match cache_age_seconds {
            None => String::new(),
            Some(0) => ", from a cache".to_owned(),
            Some(age) => format!(", from a cache that has had it for {age} s"),
        };
        let message = format!("{} answered {status}{redirect}{from_cache}", self.operation);
        if !is_transient_source_status(status) {
            let failure = Failure::permanent(FailureKind::SourceStatus, message);
            return failure.with_status(status).into();
        }
        if matches!(status, 429 | 503) {
            self.is_throttled.set(true);
        }
        FailedAttempt {
            failure: Failure {
                cache_age_seconds,
                ..Failure::transient(FailureKind::SourceStatus, message).with_status(status)
            },
            retry_after: parsed_retry_after(&headers),
        }
    }

    /// Transient, since a cache or a proxy on the way may have damaged the body.
    fn invalid_range(&self, fault: impl std::fmt::Display) -> Failure {
        let message = format!("{} answered with an invalid range: {fault}", self.operation);
        Failure::transient(FailureKind::RangeInvalid, message).with_status(OK)
    }

    fn too_large(&self) -> Failure {
        let message = format!(
            "{} answered with more than {RANGE_BYTES_MAX} bytes, the limit for a range",
            self.operation
        );
        Failure::permanent(FailureKind::RangeTooLarge, message).with_status(OK)
    }
}

const fn unchanged(range: RangeName, known: &KnownRange, etag: String) -> Arrival {
    Arrival::Unchanged(Unchanged {
        range,
        size_bytes: known.size_bytes,
        etag,
    })
}
