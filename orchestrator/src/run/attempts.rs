//! Attempts one prefix until it is stored or its attempts are used up, each time with a newly
//! signed URL. If the store's answer was lost, the object itself decides whether the attempt
//! succeeded.

use super::dispatch::DispatchSettings;
use super::event::{self, RunEvent};
use super::hint::with_hint;
use super::outcome::{FailedPrefix, StoredPrefix};
use super::retry::{ATTEMPTS_BEFORE_LIFE_MAX, RETRY_AFTER_MAX, waits};
use crate::destination::Destination;
use crate::host::{FailedInvocation, Host, InvocationProgress};
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The attempts at one prefix.
pub(super) struct Attempts {
    pub(super) prefix: Prefix,
    pub(super) host: Arc<dyn Host>,
    pub(super) destination: Arc<dyn Destination>,
    pub(super) settings: DispatchSettings,
    pub(super) shutdown: CancellationToken,
    /// Cancelled as a signal that some prefix has received a range.
    pub(super) alive: CancellationToken,
    pub(super) events: mpsc::Sender<RunEvent>,
}

impl Attempts {
    pub(super) async fn run(self) -> Result<StoredPrefix, FailedPrefix> {
        let prefix = self.prefix;
        let mut waits = waits(self.settings.first_wait_max);
        let mut content_length = None;
        // The report of an earlier attempt that sent everything, but got a lost or wrong answer.
        let mut sent = None;
        let mut attempt = 1;
        loop {
            event::send(&self.events, RunEvent::Began { prefix, attempt }).await;
            let failed = match self.invoke(content_length).await {
                Ok(report) => return self.stored(report, attempt).await,
                Err(failed) => failed,
            };
            let mut failure = with_hint(failed.failure);
            sent = failed.sent.or(sent);
            if let Some(report) = &sent
                && let Some(report) = self.settle(report, &mut failure).await
            {
                return self.stored(report, attempt).await;
            }
            // After `LengthExceeded`, the next attempt declares the length that this one measured, and
            // starts at once.
            content_length = failure.content_length.or(content_length);
            let wait = match waits.next() {
                Some(_) if failure.kind == FailureKind::LengthExceeded => Duration::ZERO,
                Some(wait) if failure.retryable && !self.is_hopeless(attempt, &failure) => {
                    wait.max(requested_wait(&failure))
                }
                _ => return Err(self.failed(failure, attempt)),
            };
            let retrying = RunEvent::Retrying {
                prefix,
                failure: failure.clone(),
                wait,
            };
            event::send(&self.events, retrying).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => return Err(self.failed(failure, attempt)),
            }
            attempt += 1;
        }
    }

    /// Whether enough attempts at the source failed while no prefix has received a range yet.
    fn is_hopeless(&self, attempt: u32, failure: &Failure) -> bool {
        let is_source = matches!(
            failure.kind,
            FailureKind::SourceUnreachable | FailureKind::SourceTimeout | FailureKind::SourceStatus
        );
        is_source && attempt >= ATTEMPTS_BEFORE_LIFE_MAX && !self.alive.is_cancelled()
    }

    const fn failed(&self, failure: Failure, attempts: u32) -> FailedPrefix {
        FailedPrefix {
            prefix: self.prefix,
            failure,
            attempts,
        }
    }

    async fn invoke(&self, content_length: Option<u64>) -> Result<Report, FailedInvocation> {
        let upload = self
            .destination
            .prepare(self.prefix)
            .await
            .map_err(Failure::from)?;
        let job = Job {
            prefix: self.prefix,
            upload,
            content_length,
            window: self.settings.window,
        };
        let on_progress = |progress: InvocationProgress| {
            if progress.ranges > 0 {
                self.alive.cancel();
            }
            // Progress that the reporter has no time for is obsolete anyway.
            let _ = self.events.try_send(RunEvent::Progress {
                prefix: self.prefix,
                progress,
            });
        };
        self.host.invoke(job, &on_progress).await
    }

    /// Looks at the object after everything was sent but the answer was lost or wrong. Returns the
    /// report if the store has the object. Removes the object if the store's answer had another
    /// checksum than the data, or none.
    async fn settle(&self, sent: &Report, failure: &mut Failure) -> Option<Report> {
        let prefix = self.prefix;
        if failure.kind == FailureKind::StoreChecksum {
            let generation = sent.generation.as_deref()?;
            if let Err(error) = self.destination.discard(prefix, generation).await {
                tracing::error!(%prefix, %error, "an object with a wrong checksum could not be removed");
                failure.retryable = false;
                failure.message +=
                    &format!("; the object stays, because it could not be removed: {error}");
            }
            return None;
        }
        match self.destination.archive().object(prefix).await {
            Ok(Some(object)) if object.matches(sent) => Some(Report {
                generation: Some(object.generation),
                etag: object.etag,
                ..sent.clone()
            }),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%prefix, %error, "the object could not be inspected");
                None
            }
        }
    }

    async fn stored(&self, report: Report, attempt: u32) -> Result<StoredPrefix, FailedPrefix> {
        // The tar is stored, so its report deserves as many attempts as an invocation.
        let mut waits = waits(self.settings.first_wait_max);
        loop {
            let Err(error) = self.destination.write_report(&report).await else {
                return Ok(StoredPrefix::new(&report, attempt));
            };
            match waits.next() {
                Some(wait) if error.is_transient() && !self.shutdown.is_cancelled() => {
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(self.failed(error.into(), attempt)),
            }
        }
    }
}

/// The Retry-After of the source or the store, within its bound.
fn requested_wait(failure: &Failure) -> Duration {
    let requested = failure.retry_after_seconds.unwrap_or(0);
    Duration::from_secs(requested).min(RETRY_AFTER_MAX)
}
