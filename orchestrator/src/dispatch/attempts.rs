//! The attempts at one prefix: a fresh job with a freshly signed URL for each, and what becomes of an object of
//! which the store's answer does not tell. Which prefixes there are, and how many at a time, is left to the run.

use super::{FailedPrefix, Settings, StoredPrefix, Update, tell};
use crate::destination::Destination;
use crate::host::{FailedInvocation, Host, InvocationProgress};
use crate::retry::{ATTEMPTS_BEFORE_LIFE_MAX, RETRY_AFTER_MAX, waits};
use prefix_tar::failure::{Failure, FailureKind};
use prefix_tar::job::{Job, Report};
use prefix_tar::prefix::Prefix;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The attempts at one prefix.
pub(super) struct Attempts {
    pub(super) prefix: Prefix,
    pub(super) host: Arc<dyn Host>,
    pub(super) destination: Arc<dyn Destination>,
    pub(super) settings: Settings,
    pub(super) stop: CancellationToken,
    /// Cancelled at the first sign of life of any prefix.
    pub(super) alive: CancellationToken,
    pub(super) updates: mpsc::Sender<Update>,
}

impl Attempts {
    pub(super) async fn run(self) -> Result<StoredPrefix, FailedPrefix> {
        let prefix = self.prefix;
        let mut waits = waits(self.settings.first_wait_max);
        let mut content_length = None;
        // The report of what an earlier attempt has sent, whole, without a good answer.
        let mut sent = None;
        let mut attempt = 1;
        loop {
            tell(&self.updates, Update::Began { prefix, attempt }).await;
            let failed = match self.invoke(content_length).await {
                Ok(report) => return self.stored(report, attempt).await,
                Err(failed) => failed,
            };
            let mut failure = failed.failure;
            sent = failed.sent.or(sent);
            if let Some(report) = &sent
                && let Some(report) = self.settle(report, &mut failure).await
            {
                return self.stored(report, attempt).await;
            }
            // The next attempt is made with what this one has measured, and need not wait for anything.
            content_length = failure.content_length.or(content_length);
            let wait = match waits.next() {
                Some(_) if failure.kind == FailureKind::LengthExceeded => Duration::ZERO,
                Some(wait) if failure.retryable && !self.is_hopeless(attempt, &failure) => {
                    wait.max(asked_wait(&failure))
                }
                _ => return Err(self.failed(failure, attempt)),
            };
            let retrying = Update::Retrying {
                prefix,
                failure: failure.clone(),
                wait,
            };
            tell(&self.updates, retrying).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return Err(self.failed(failure, attempt)),
            }
            attempt += 1;
        }
    }

    /// Whether the source has never been there, and was asked often enough.
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
            .map_err(|error| destination_failure(&error))?;
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
            // What is not shown in time is not worth showing.
            let _ = self.updates.try_send(Update::Progress {
                prefix: self.prefix,
                progress,
            });
        };
        self.host.invoke(job, &on_progress).await
    }

    /// Finds out what became of an object that was sent whole, but not answered as it should be: the report, where
    /// the store has it all the same. What the store says has another checksum is removed.
    async fn settle(&self, sent: &Report, failure: &mut Failure) -> Option<Report> {
        let prefix = self.prefix;
        if failure.kind == FailureKind::StoreChecksum {
            let generation = sent.generation.as_deref()?;
            if let Err(error) = self.destination.discard(prefix, generation).await {
                tracing::error!(%prefix, ?error, "an object with a wrong checksum could not be removed");
                failure.retryable = false;
                failure.message +=
                    &format!("; it stays there, because it could not be removed: {error:#}");
            }
            return None;
        }
        match self.destination.object(prefix).await {
            Ok(Some(object)) if object.is_of(sent) => Some(Report {
                generation: Some(object.generation),
                etag: object.etag,
                ..sent.clone()
            }),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%prefix, ?error, "the object could not be looked at");
                None
            }
        }
    }

    async fn stored(&self, report: Report, attempt: u32) -> Result<StoredPrefix, FailedPrefix> {
        // The object is there: its report is worth as many attempts as an invocation.
        let mut waits = waits(self.settings.first_wait_max);
        loop {
            let Err(error) = self.destination.write_report(&report).await else {
                return Ok(StoredPrefix::new(&report, attempt));
            };
            match waits.next() {
                Some(wait) if !self.stop.is_cancelled() => tokio::time::sleep(wait).await,
                _ => return Err(self.failed(destination_failure(&error), attempt)),
            }
        }
    }
}

/// What the source or the store asks for, within its bound.
fn asked_wait(failure: &Failure) -> Duration {
    let asked = failure.retry_after_seconds.unwrap_or(0);
    Duration::from_secs(asked).min(RETRY_AFTER_MAX)
}

fn destination_failure(error: &anyhow::Error) -> Failure {
    Failure::passing(FailureKind::Destination, format!("{error:#}"))
}
