//! Fetches a range, with retries.

mod attempt;

use super::reactor::{Instant, Sleep, within};
use super::recorder::Recorder;
use crate::engine::chunk_pool::{BodyBytes, ChunkPool};
use crate::engine::retry::{Backoff, RetryBudget, with_attempts};
use crate::limits::{
    RANGE_ATTEMPTS_MAX, RANGE_ATTEMPTS_TIME_MAX, RANGE_FIRST_WAIT_MAX, RANGE_WAIT_MAX,
    REQUEST_TIME_MAX, RETRY_AFTER_MAX,
};
use crate::protocol::configuration::Configuration;
use crate::protocol::failure::Failure;
use crate::protocol::prefix::RangeName;
use attempt::{FailedAttempt, RangeClient};
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

/// What the range requests of an invocation share.
pub(super) struct Fetcher {
    client: RangeClient,
    random: RefCell<fastrand::Rng>,
    budget: Cell<RetryBudget>,
    /// No request is sent before this time, which the source's Retry-After sets.
    not_before: Cell<Option<Instant>>,
    recorder: Rc<Recorder>,
}

impl Fetcher {
    /// The fetcher of an invocation.
    ///
    /// # Errors
    /// The host rejects the headers of a range request.
    pub(super) fn new(
        configuration: &Configuration,
        pool: Rc<ChunkPool>,
        recorder: Rc<Recorder>,
    ) -> Result<Rc<Self>, Failure> {
        Ok(Rc::new(Self {
            client: RangeClient::new(configuration, pool)?,
            random: RefCell::new(fastrand::Rng::new()),
            budget: Cell::new(RetryBudget::new()),
            not_before: Cell::new(None),
            recorder,
        }))
    }

    /// Requests sent so far.
    pub(super) const fn requests(&self) -> u64 {
        self.client.requests()
    }

    /// Bytes of bodies received so far, before they are decoded.
    pub(super) const fn received_bytes(&self) -> u64 {
        self.client.received_bytes()
    }

    /// Whether the source answered 429 or 503 since the last call.
    pub(super) fn take_throttled(&self) -> bool {
        self.client.take_throttled()
    }

    /// Fetches one range, with as many attempts as its limits allow. The failure names the range.
    pub(super) async fn fetch(self: Rc<Self>, range: RangeName) -> Result<Fetched, Failure> {
        let started = Instant::now();
        let mut backoff = None;
        let mut attempts = 1;
        loop {
            self.wait_for_retry_after().await;
            let failed = match self.attempt(range).await {
                Ok(fetched) => {
                    self.change_budget(RetryBudget::earn);
                    return Ok(fetched);
                }
                Err(failed) => failed,
            };
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

    async fn attempt(&self, range: RangeName) -> Result<Fetched, FailedAttempt> {
        match within(REQUEST_TIME_MAX, self.client.get(range)).await {
            Some(result) => result,
            None => Err(self.client.timeout().into()),
        }
    }
}
