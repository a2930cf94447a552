//! The attempts at one prefix: each has a fresh job with a freshly signed URL. If the store's answer was lost, the
//! object itself decides whether the attempt succeeded.

use super::dispatch::{DispatchSettings, Shared};
use super::event::{self, RunEvent};
use super::hint::with_hint;
use super::outage::{Diagnosis, OutageDetector};
use super::outcome::{FailedPrefix, StoredPrefix};
use super::retry::{ATTEMPTS_BEFORE_LIFE_MAX, ATTEMPTS_MAX, RETRY_AFTER_MAX, outage_waits, waits};
use super::transaction::Admission;
use crate::base::{Offer, Unusable};
use crate::destination::CopySource;
use crate::host::{FailedInvocation, InvocationUpdate};
use prefix_tar::engine::retry::Backoff;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The attempts at one prefix.
pub(super) struct Attempts {
    pub(super) prefix: Prefix,
    /// Invocations while the run is alive.
    pub(super) attempts_max: u32,
    pub(super) shared: Shared,
    pub(super) settings: DispatchSettings,
    pub(super) shutdown: CancellationToken,
    pub(super) outages: Arc<OutageDetector>,
    /// Whether the base turned out to be damaged where nothing has changed.
    pub(super) skips_base: AtomicBool,
}

/// What the attempts at a prefix have learned so far.
struct Progress {
    attempt: u32,
    /// Attempts that were made while the run was alive. Only these count against the limit.
    waits: Backoff,
    outage_waits: Backoff,
    /// The length that the tar needs, once an attempt has measured it.
    content_length: Option<u64>,
}

impl Attempts {
    pub(super) async fn run(self) -> Result<StoredPrefix, FailedPrefix> {
        let outcome = self.repeat().await;
        self.shared.recorder.ended(self.prefix);
        outcome
    }

    /// Makes attempts until one succeeds or there are no more.
    async fn repeat(&self) -> Result<StoredPrefix, FailedPrefix> {
        let prefix = self.prefix;
        let mut progress = Progress {
            attempt: 1,
            waits: waits(self.settings.first_wait_max, self.attempts_max),
            outage_waits: outage_waits(self.settings.first_wait_max),
            content_length: None,
        };
        loop {
            let attempt = progress.attempt;
            event::send(&self.shared.events, RunEvent::Began { prefix, attempt }).await;
            self.shared.recorder.began(prefix);
            let began = Instant::now();
            let failure = match self.attempt(progress.content_length).await {
                Ok(report) => {
                    self.shared.recorder.stored(&report);
                    return Ok(self.stored(&report, attempt));
                }
                Err(failure) => with_hint(failure),
            };
            self.shared.recorder.failed(prefix, failure.kind);
            progress.content_length = failure.content_length.or(progress.content_length);
            let Some(wait) = self.wait_after(&failure, began, &mut progress).await else {
                return Err(self.failed(failure, attempt));
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => return Err(self.failed(failure, attempt)),
            }
            progress.attempt += 1;
        }
    }

    /// The wait before the next attempt, which it reports. `None` if there is no next attempt.
    async fn wait_after(
        &self,
        failure: &Failure,
        began: Instant,
        progress: &mut Progress,
    ) -> Option<Duration> {
        if failure.kind == FailureKind::LengthExceeded {
            // The next attempt declares what this one has measured.
            progress.waits.next()?;
            return self.report_retry(failure, Duration::ZERO).await;
        }
        if !failure.retryable {
            return None;
        }
        let requested = requested_wait(failure);
        let now = Instant::now();
        match self.outages.diagnose(failure, began, now) {
            Diagnosis::Outage { elapsed } => {
                let give_up_after = self.settings.give_up_after;
                // The last attempt begins when the time is over, so that an outage of just this
                // length is ridden out, too.
                let is_over = elapsed.saturating_sub(now - began) >= give_up_after;
                let is_before_life =
                    !self.settings.waits_for_source && !self.outages.alive.is_cancelled();
                let is_hopeless = is_before_life && progress.attempt >= ATTEMPTS_BEFORE_LIFE_MAX;
                if is_hopeless || is_over {
                    return None;
                }
                let left = give_up_after.saturating_sub(elapsed);
                let wait = progress.outage_waits.next()?.min(left).max(requested);
                if is_before_life {
                    // It is given up long before the outage would be.
                    return self.report_retry(failure, wait).await;
                }
                let outage = RunEvent::Outage {
                    failure: failure.clone(),
                    elapsed,
                    give_up_after,
                };
                event::send(&self.shared.events, outage).await;
                Some(wait)
            }
            Diagnosis::OwnFault => {
                let wait = progress.waits.next()?.max(requested);
                progress.outage_waits = outage_waits(self.settings.first_wait_max);
                self.report_retry(failure, wait).await
            }
        }
    }

    async fn report_retry(&self, failure: &Failure, wait: Duration) -> Option<Duration> {
        let retrying = RunEvent::Retrying {
            prefix: self.prefix,
            failure: failure.clone(),
            wait,
        };
        event::send(&self.shared.events, retrying).await;
        Some(wait)
    }

    fn stored(&self, report: &Report, attempt: u32) -> StoredPrefix {
        self.note_progress();
        StoredPrefix::new(report, attempt)
    }

    const fn failed(&self, failure: Failure, attempts: u32) -> FailedPrefix {
        FailedPrefix {
            prefix: self.prefix,
            failure,
            attempts,
        }
    }

    /// Makes one attempt. It succeeds when the tar and its report are stored.
    async fn attempt(&self, content_length: Option<u64>) -> Result<Report, Failure> {
        let upload = match self.shared.transaction.admit(self.prefix).await? {
            Admission::Stored(report) => return Ok(*report),
            Admission::Upload(upload) => upload,
        };
        let (files, copy) = match self.base().await? {
            Some(offer) => (Some(offer.files), offer.copy),
            None => (None, None),
        };
        let job = Job {
            prefix: self.prefix,
            upload,
            content_length,
            window: self.settings.window,
            base: files,
            mode: self.shared.transaction.mode(),
        };
        let on_update = |update: InvocationUpdate| {
            let progress = match update {
                InvocationUpdate::Progress(progress) => progress,
                InvocationUpdate::Recording(recording) => {
                    self.shared.recorder.recorded(self.prefix, *recording);
                    return;
                }
            };
            if progress.ranges > 0 {
                self.note_progress();
            }
            // Progress that the reporter has no time for is obsolete anyway.
            let _ = self.shared.events.try_send(RunEvent::Progress {
                prefix: self.prefix,
                progress,
            });
        };
        match self.shared.host.invoke(job, &on_update).await {
            Ok(report) => self.accept(report, copy).await,
            Err(FailedInvocation {
                failure,
                sent: None,
            }) => Err(failure),
            Err(FailedInvocation {
                mut failure,
                sent: Some(sent),
            }) => {
                let settled = self
                    .shared
                    .transaction
                    .settle(self.prefix, &sent, &mut failure)
                    .await;
                match settled {
                    Ok(Some(report)) => Ok(report),
                    Ok(None) => Err(failure),
                    Err(error) => {
                        tracing::debug!(prefix = %self.prefix, %error, "the object could not be inspected");
                        Err(failure)
                    }
                }
            }
        }
    }

    /// Commits what the component reports, and before that copies the base's tar if that is all that is to do.
    async fn accept(&self, report: Report, copy: Option<CopySource>) -> Result<Report, Failure> {
        let reuse = report.reuse.as_ref();
        if let Some(reason) = reuse.and_then(|reuse| reuse.fault.clone()) {
            self.report_unusable_base(reason).await;
        }
        if reuse.is_some_and(|reuse| !reuse.uploaded) {
            self.check_kept(&report).await?;
            if let Some(copy) = copy {
                self.copy(&copy).await?;
            }
        }
        self.commit(report).await
    }

    /// What the prefix can be built on. A base that cannot be used is reported, and the prefix does without.
    async fn base(&self) -> Result<Option<Offer>, Failure> {
        let is_skipped = self.skips_base.load(Ordering::Relaxed);
        let Some(base) = self.shared.base.as_ref().filter(|_| !is_skipped) else {
            return Ok(None);
        };
        let transaction = &self.shared.transaction;
        let source = transaction.source();
        let offered = base.offer(self.prefix, &source, transaction.mode());
        match offered.await {
            Ok(offer) => Ok(Some(offer)),
            Err(error) if error.is_transient() => {
                let message = format!("the base cannot be used now: {error}");
                Err(Failure::transient(FailureKind::Destination, message))
            }
            Err(error) => {
                self.report_unusable_base(error.to_string()).await;
                Ok(None)
            }
        }
    }

    /// Checks a tar that was not uploaded. If it is not what its report says, the next attempt does without the base.
    async fn check_kept(&self, report: &Report) -> Result<(), Failure> {
        let Some(base) = &self.shared.base else {
            return Ok(());
        };
        base.check(report).await.map_err(|error| {
            let is_read = matches!(error, Unusable::OtherIndex);
            self.skips_base.store(is_read, Ordering::Relaxed);
            Failure::transient(FailureKind::ReportInvalid, error.to_string())
        })
    }

    /// Copies the base's tar. If the store refuses for good, later attempts upload what has not changed.
    async fn copy(&self, from: &CopySource) -> Result<(), Failure> {
        let copied = self.shared.transaction.copy(self.prefix, from).await;
        copied.map_err(|error| {
            let mut failure = Failure::from(error);
            if !failure.retryable && failure.kind == FailureKind::Destination {
                if let Some(base) = &self.shared.base {
                    base.give_up_copying();
                }
                failure.retryable = true;
            }
            failure
        })
    }

    async fn report_unusable_base(&self, reason: String) {
        let event = RunEvent::BaseUnusable {
            prefix: Some(self.prefix),
            reason,
        };
        event::send(&self.shared.events, event).await;
    }

    /// Commits what the component reports. The tar is stored, so its report deserves as many attempts as an invocation.
    async fn commit(&self, report: Report) -> Result<Report, Failure> {
        let is_trusted = self.shared.host.is_in_process();
        let mut waits = waits(self.settings.first_wait_max, ATTEMPTS_MAX);
        loop {
            let committed = self
                .shared
                .transaction
                .commit(self.prefix, report.clone(), is_trusted)
                .await;
            let failure = match committed {
                Ok(report) => return Ok(report),
                Err(error) => Failure::from(error),
            };
            let is_retried = failure.retryable && failure.kind == FailureKind::Destination;
            match waits.next().filter(|_| is_retried) {
                Some(wait) if !self.shutdown.is_cancelled() => tokio::time::sleep(wait).await,
                _ => return Err(failure),
            }
        }
    }

    fn note_progress(&self) {
        if let Some(elapsed) = self.outages.progress(Instant::now()) {
            // If the queue is full, the next progress shows as much.
            let _ = self
                .shared
                .events
                .try_send(RunEvent::OutageEnded { elapsed });
        }
    }
}

/// The Retry-After of the source or the store, within its bound.
fn requested_wait(failure: &Failure) -> Duration {
    let requested = failure.retry_after_seconds.unwrap_or(0);
    Duration::from_secs(requested).min(RETRY_AFTER_MAX)
}
