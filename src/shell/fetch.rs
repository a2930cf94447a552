//! Fetches a range, with retries, or learns that the base has it.

mod attempt;

use super::reactor::{Instant, Sleep, within};
use super::recorder::Recorder;
use crate::engine::base::KnownRange;
use crate::engine::chunk_pool::{BodyBytes, ChunkPool};
use crate::engine::retry::{Backoff, RetryBudget, with_attempts};
use crate::limits::{
    CACHED_ERRORS_MAX, RANGE_ATTEMPTS_MAX, RANGE_ATTEMPTS_TIME_MAX, RANGE_FIRST_WAIT_MAX,
    RANGE_WAIT_MAX, REQUEST_TIME_MAX, RETRY_AFTER_MAX,
};
use crate::protocol::configuration::Configuration;
use crate::protocol::failure::{Failure, FailureKind};
use crate::protocol::mode::Mode;
use crate::protocol::prefix::RangeName;
use crate::protocol::report::CachedError;
use attempt::{CacheKey, FailedAttempt, NOT_MODIFIED, RangeClient};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A range that was fetched, decoded and found valid.
pub(super) struct Fetched {
    pub(super) range: RangeName,
    pub(super) body: BodyBytes,
    /// Lines of the body.
    pub(super) hashes: u64,
    /// The ETag; empty if there is none, or if it is too long for the report.
    pub(super) etag: String,
    /// Last-Modified as Unix time; 0 without one.
    pub(super) modified_seconds: u64,
}

/// What the source answered for a range.
pub(super) enum Arrival {
    /// A body.
    Fetched(Fetched),
    /// The base has it.
    Unchanged(Unchanged),
}

/// A range that is the same as in the base.
pub(super) struct Unchanged {
    pub(super) range: RangeName,
    pub(super) size_bytes: u32,
    /// The ETag that the source has for it now.
    pub(super) etag: String,
}

impl Arrival {
    pub(super) const fn range(&self) -> RangeName {
        match self {
            Self::Fetched(fetched) => fetched.range,
            Self::Unchanged(unchanged) => unchanged.range,
        }
    }

    /// The size of the range, in bytes.
    pub(super) const fn size_bytes(&self) -> usize {
        match self {
            Self::Fetched(fetched) => fetched.body.len(),
            Self::Unchanged(unchanged) => unchanged.size_bytes as usize,
        }
    }
}

/// What the range requests of an invocation share.
pub(super) struct Fetcher {
    client: RangeClient,
    random: RefCell<fastrand::Rng>,
    budget: Cell<RetryBudget>,
    /// No request is sent before this time, which the source's Retry-After sets.
    not_before: Cell<Option<Instant>>,
    /// Whether the source's answers to conditional requests make sense.
    trusts_etags: Cell<bool>,
    /// Ranges that came under another cache key.
    cached_errors: RefCell<Vec<CachedError>>,
    recorder: Rc<Recorder>,
}

impl Fetcher {
    /// The fetcher of an invocation.
    ///
    /// # Errors
    /// The host rejects the headers of a range request.
    pub(super) fn new(
        configuration: &Configuration,
        mode: Mode,
        pool: Rc<ChunkPool>,
        recorder: Rc<Recorder>,
    ) -> Result<Rc<Self>, Failure> {
        Ok(Rc::new(Self {
            client: RangeClient::new(configuration, mode, pool)?,
            random: RefCell::new(fastrand::Rng::new()),
            budget: Cell::new(RetryBudget::new()),
            not_before: Cell::new(None),
            trusts_etags: Cell::new(true),
            cached_errors: RefCell::default(),
            recorder,
        }))
    }

    /// Requests sent so far.
    pub(super) const fn requests(&self) -> u64 {
        self.client.requests()
    }

    /// Ranges for which a cache had an error, and which came under another cache key: the first ones.
    pub(super) fn cached_errors(&self) -> Vec<CachedError> {
        self.cached_errors.borrow().clone()
    }

    fn note_cached_error(&self, range: RangeName, failure: &Failure) {
        let mut errors = self.cached_errors.borrow_mut();
        if errors.len() < CACHED_ERRORS_MAX {
            errors.push(CachedError {
                range,
                status: failure.status.unwrap_or_default(),
                age_seconds: failure.cache_age_seconds.unwrap_or_default(),
            });
        }
    }

    /// Bytes of bodies received so far, before they are decoded.
    pub(super) const fn received_bytes(&self) -> u64 {
        self.client.received_bytes()
    }

    /// Whether the source answered 429 or 503 since the last call.
    pub(super) fn take_throttled(&self) -> bool {
        self.client.take_throttled()
    }

    /// Fetches one range, unless it is the `known` one, with as many attempts as its limits allow. The failure names
    /// the range.
    pub(super) async fn fetch(
        self: Rc<Self>,
        range: RangeName,
        mut known: Option<KnownRange>,
    ) -> Result<Arrival, Failure> {
        let started = Instant::now();
        let mut backoff = None;
        let mut attempts = 1;
        // The answer that made the attempt try another cache key.
        let mut cached: Option<FailedAttempt> = None;
        let mut has_other_key = self.client.has_explicit_key();
        loop {
            self.wait_for_retry_after().await;
            if let Some(known) = known.as_mut().filter(|_| !self.trusts_etags.get()) {
                known.etag.clear();
            }
            let key = match cached {
                Some(_) => CacheKey::Explicit,
                None => CacheKey::Plain,
            };
            let mut failed = match self.attempt(range, known.as_ref(), key).await {
                Ok(arrival) => {
                    if let Some(cached) = cached {
                        self.note_cached_error(range, &cached.failure);
                    }
                    self.change_budget(RetryBudget::earn);
                    return Ok(arrival);
                }
                Err(failed) => failed,
            };
            if let Some(cached) = cached.take() {
                // Not every source knows the other key.
                if !failed.failure.retryable {
                    has_other_key = false;
                    failed = cached;
                }
            } else if has_other_key && failed.failure.cache_age_seconds.is_some() {
                cached = Some(failed.clone());
            }
            if failed.failure.kind == FailureKind::RangeInvalid {
                // Whatever has confused the two, it cannot if only one of them is asked for.
                if let Some(known) = &mut known {
                    known.etag.clear();
                }
                // One 304 for another range's ETag, and there will be more.
                if failed.failure.status == Some(NOT_MODIFIED) {
                    self.trusts_etags.set(false);
                }
            }
            let now = Instant::now();
            let backoff = backoff.get_or_insert_with(|| self.backoff());
            match self.next_attempt(&failed, backoff, started, now) {
                Ok(at) => {
                    self.recorder.count_retry(failed.failure.kind);
                    Sleep::until(at).await;
                }
                Err(reason) => {
                    let mut failure = failed.failure.at(range);
                    failure.message =
                        with_attempts(&failure.message, attempts, now.since(started)) + reason;
                    failure.retry_after_seconds = failed.retry_after.map(|wait| wait.as_secs());
                    return Err(failure);
                }
            }
            attempts += 1;
        }
    }

    /// When the next attempt begins. If there is none, the text to append to the message, which
    /// says why.
    fn next_attempt(
        &self,
        failed: &FailedAttempt,
        backoff: &mut Backoff,
        started: Instant,
        now: Instant,
    ) -> Result<Instant, &'static str> {
        if !failed.failure.retryable {
            return Err("");
        }
        let wait = backoff.next().ok_or("")?;
        let retry_after = failed.retry_after.unwrap_or_default();
        if retry_after > RETRY_AFTER_MAX {
            return Err("; its Retry-After exceeds the longest wait of an invocation");
        }
        let at = now.after(retry_after).after(wait);
        if at.since(started) > RANGE_ATTEMPTS_TIME_MAX {
            return Err("");
        }
        if !self.change_budget(RetryBudget::spend) {
            return Err("; the invocation has used up its retries");
        }
        if !retry_after.is_zero() {
            let until = now.after(retry_after);
            let latest = self.not_before.get().map_or(until, |at| at.max(until));
            self.not_before.set(Some(latest));
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

    /// Waits until the latest Retry-After is over, including one that arrives during the wait.
    async fn wait_for_retry_after(&self) {
        while let Some(at) = self.not_before.get() {
            if Instant::now() >= at {
                self.not_before.set(None);
            } else {
                Sleep::until(at).await;
            }
        }
    }

    async fn attempt(
        &self,
        range: RangeName,
        known: Option<&KnownRange>,
        key: CacheKey,
    ) -> Result<Arrival, FailedAttempt> {
        match within(REQUEST_TIME_MAX, self.client.get(range, known, key)).await {
            Some(result) => result,
            None => Err(self.client.timeout().into()),
        }
    }
}
