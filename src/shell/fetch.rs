//! One range: the request, the body within the pool's memory, decoded and checked; and all of it again where that
//! is worth it. How many are under way, and what becomes of them, is left to the invocation.

use super::incoming::BodyReader;
use super::outgoing::{
    Peer, PendingResponse, Target, Timeouts, header, request, stated_retry_after, transport_failure,
};
use super::reactor::{Moment, Sleep, within};
use crate::chunk_pool::{BodyBytes, ChunkPool};
use crate::distinct::FirstHashes;
use crate::failure::{Failure, FailureKind};
use crate::inflate;
use crate::limits::{
    BETWEEN_BYTES_TIMEOUT, CHUNK_BYTES, CONNECT_TIMEOUT, ETAG_BYTES_MAX, FIRST_BYTE_TIMEOUT,
    RANGE_ATTEMPTS_MAX, RANGE_ATTEMPTS_TIME_MAX, RANGE_BYTES_MAX, RANGE_FIRST_WAIT_MAX,
    RANGE_WAIT_MAX, RANGE_WIRE_BYTES_MAX, READ_BYTES_MAX, REQUEST_TIME_MAX, RETRY_AFTER_MAX,
};
use crate::prefix::RangeName;
use crate::range_body::RangeCheck;
use crate::retry::{Backoff, RetryBudget, with_attempts};
use crate::source::{Encoding, SourceUrl};
use crate::store_answer::is_passing_status;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};
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
    source: SourceUrl,
    headers: Fields,
    /// The beginning of what is said of a request that failed.
    tried: String,
    pool: Rc<ChunkPool>,
    requests: Cell<u64>,
    random: RefCell<fastrand::Rng>,
    budget: Cell<RetryBudget>,
    /// No request is sent before: the source asked for it with a Retry-After.
    not_before: Cell<Option<Moment>>,
    is_throttled: Cell<bool>,
    first_hashes: RefCell<FirstHashes>,
}

/// An attempt that did not bring its range.
struct FailedAttempt {
    failure: Failure,
    /// What the source's Retry-After asks for.
    retry_after: Option<Duration>,
}

impl From<Failure> for FailedAttempt {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            retry_after: None,
        }
    }
}

impl Fetcher {
    pub(super) fn new(
        source: &SourceUrl,
        encoding: Encoding,
        pool: Rc<ChunkPool>,
    ) -> Result<Rc<Self>, Failure> {
        let agent = concat!("prefix-tar/", env!("CARGO_PKG_VERSION"));
        let headers = [
            ("user-agent", agent),
            ("accept", "text/plain"),
            ("accept-encoding", encoding.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let headers = Fields::from_list(&headers).map_err(|error| {
            let message = format!("the host refused the headers of a range request: {error:?}");
            Failure::lasting(FailureKind::Configuration, message)
        })?;
        let tried = format!("GET from {source}");
        Ok(Rc::new(Self {
            source: source.clone(),
            headers,
            tried,
            pool,
            requests: Cell::new(0),
            random: RefCell::new(fastrand::Rng::new()),
            budget: Cell::new(RetryBudget::new()),
            not_before: Cell::new(None),
            is_throttled: Cell::new(false),
            first_hashes: RefCell::default(),
        }))
    }

    /// Requests sent so far.
    pub(super) const fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Whether the source said, since this was asked the last time, that it is asked too much.
    pub(super) fn take_throttled(&self) -> bool {
        self.is_throttled.take()
    }

    /// Fetches one range, with as many attempts as its bounds allow. The failure names the range.
    pub(super) async fn fetch(self: Rc<Self>, range: RangeName) -> Result<Fetched, Failure> {
        let began = Moment::now();
        let mut backoff = None;
        let mut attempts = 1;
        loop {
            self.not_too_early().await;
            let failed = match self.attempt(range).await {
                Ok(fetched) => {
                    self.change_budget(RetryBudget::earn);
                    return Ok(fetched);
                }
                Err(failed) => failed,
            };
            let now = Moment::now();
            let backoff = backoff.get_or_insert_with(|| self.backoff());
            match self.next_attempt(&failed, backoff, began, now) {
                Ok(at) => Sleep::until(at).await,
                Err(why) => {
                    let mut failure = failed.failure.at(range);
                    failure.message =
                        with_attempts(&failure.message, attempts, now.since(began)) + why;
                    failure.retry_after_seconds = failed.retry_after.map(|asked| asked.as_secs());
                    return Err(failure);
                }
            }
            attempts += 1;
        }
    }

    /// When the next attempt begins, or why there is none.
    fn next_attempt(
        &self,
        failed: &FailedAttempt,
        backoff: &mut Backoff,
        began: Moment,
        now: Moment,
    ) -> Result<Moment, &'static str> {
        if !failed.failure.retryable {
            return Err("");
        }
        let wait = backoff.next().ok_or("")?;
        let asked = failed.retry_after.unwrap_or_default();
        if asked > RETRY_AFTER_MAX {
            return Err("; it asks to be left alone for longer than an invocation waits");
        }
        let at = now.after(asked).after(wait);
        if at.since(began) > RANGE_ATTEMPTS_TIME_MAX {
            return Err("");
        }
        if !self.change_budget(RetryBudget::spend) {
            return Err("; too many requests of this invocation had to be sent again");
        }
        if !asked.is_zero() {
            let asked_for = now.after(asked);
            let longest = self
                .not_before
                .get()
                .map_or(asked_for, |at| at.max(asked_for));
            self.not_before.set(Some(longest));
        }
        Ok(at)
    }

    fn change_budget<T>(&self, change: impl FnOnce(&mut RetryBudget) -> T) -> T {
        let mut budget = self.budget.get();
        let result = change(&mut budget);
        self.budget.set(budget);
        result
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(
            self.random.borrow_mut().fork(),
            RANGE_ATTEMPTS_MAX,
            RANGE_FIRST_WAIT_MAX,
            RANGE_WAIT_MAX,
        )
    }

    /// Waits for as long as the source asked to be left alone; where several were told so, for the longest.
    async fn not_too_early(&self) {
        while let Some(at) = self.not_before.get() {
            if Moment::now() >= at {
                self.not_before.set(None);
            } else {
                Sleep::until(at).await;
            }
        }
    }

    async fn attempt(&self, range: RangeName) -> Result<Fetched, FailedAttempt> {
        match within(REQUEST_TIME_MAX, self.fetch_once(range)).await {
            Some(result) => result,
            None => {
                let message = format!(
                    "{} was not done after {} s; a body came too slowly, or not at all",
                    self.tried,
                    REQUEST_TIME_MAX.as_secs()
                );
                Err(Failure::passing(FailureKind::SourceTimeout, message).into())
            }
        }
    }

    async fn fetch_once(&self, range: RangeName) -> Result<Fetched, FailedAttempt> {
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
        self.tell_apart(range, &body)?;
        Ok(Fetched {
            range,
            body,
            hashes,
            etag: head.etag,
            modified_seconds: head.modified_seconds,
        })
    }

    async fn send(&self, range: RangeName) -> Result<IncomingResponse, Failure> {
        let source = &self.source;
        let target = Target {
            is_https: source.is_https(),
            authority: source.authority().as_str(),
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

    fn status_failure(&self, status: u16, response: &IncomingResponse) -> FailedAttempt {
        let advice = match status {
            429 | 503 => "; lower --window or try later",
            300..=399 => "; redirects are not followed",
            _ => "",
        };
        let message = format!("{} answered {status}{advice}", self.tried);
        if !is_passing_status(status) {
            return Failure::lasting(FailureKind::SourceStatus, message).into();
        }
        if matches!(status, 429 | 503) {
            self.is_throttled.set(true);
        }
        FailedAttempt {
            failure: Failure::passing(FailureKind::SourceStatus, message),
            retry_after: stated_retry_after(&response.headers()),
        }
    }

    fn read_head(&self, response: &IncomingResponse) -> Result<Head, FailedAttempt> {
        let status = response.status();
        if status != 200 {
            return Err(self.status_failure(status, response));
        }
        let headers = response.headers();
        let content_length = header(&headers, "content-length")
            .and_then(|text| text.parse::<u64>().ok())
            .map(usize::try_from);
        let content_length = match content_length {
            None => None,
            Some(Ok(bytes)) if bytes <= RANGE_WIRE_BYTES_MAX => Some(bytes),
            Some(_) => return Err(self.too_large().into()),
        };
        let is_gzip = match header(&headers, "content-encoding").as_deref() {
            None | Some("" | "identity") => false,
            Some("gzip" | "x-gzip") => true,
            Some(_) => {
                let what = "it has a content-encoding that was not asked for";
                return Err(self.range_failure(FailureKind::RangeInvalid, what).into());
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
        // The size is the last bytes of what came: of a body that was cut, it is anything.
        let failure = |error| self.range_failure(FailureKind::RangeInvalid, error);
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

    /// Checks that no other range has the same body.
    fn tell_apart(&self, range: RangeName, body: &BodyBytes) -> Result<(), Failure> {
        let first = body.pieces().next().and_then(<[u8]>::first_chunk);
        let Some(first) = first else { return Ok(()) };
        let added = self.first_hashes.borrow_mut().add(range, first);
        added.map_err(|other| {
            let what = format!("it is the body of {other}, too");
            self.range_failure(FailureKind::RangeInvalid, what)
        })
    }
}

/// What the head of a response says.
struct Head {
    content_length: Option<usize>,
    is_gzip: bool,
    etag: String,
    modified_seconds: u64,
}
