//! Completes a run: writes its manifest, and rides out an outage of the store at that moment as `dispatch` does before.

use super::event::{self, RunEvent};
use super::outcome::StoredPrefix;
use super::retry::outage_waits;
use super::transaction::{Transaction, TransactionError};
use jiff::Timestamp;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long an outage is ridden out, and the first wait in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) give_up_after: Duration,
    pub(super) first_wait_max: Duration,
}

/// Writes the manifest for `stored`, all prefixes of the run.
///
/// # Errors
/// As [`Transaction::finish`]. A transient error of the store is returned once `patience` is at its end or the run is
/// shut down.
pub(super) async fn complete(
    transaction: &Transaction,
    stored: &[&StoredPrefix],
    patience: Patience,
    shutdown: &CancellationToken,
    events: &mpsc::Sender<RunEvent>,
) -> Result<(), TransactionError> {
    let Patience {
        give_up_after,
        first_wait_max,
    } = patience;
    let mut waits = outage_waits(first_wait_max);
    let mut outage: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let finished = Timestamp::now().to_string();
        let Err(error) = transaction.finish(stored, &finished).await else {
            break;
        };
        let since = *outage.get_or_insert(began);
        let elapsed = since.elapsed();
        // The last attempt begins when the time is over.
        let is_over = began.duration_since(since) >= give_up_after;
        let left = give_up_after.saturating_sub(elapsed);
        let wait = waits.next().map(|wait| wait.min(left));
        let wait = wait.filter(|_| is_outage(&error) && !is_over);
        let Some(wait) = wait else {
            return Err(error);
        };
        let outage = RunEvent::Outage {
            failure: describe(&error),
            elapsed,
            give_up_after,
        };
        event::send(events, outage).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return Err(error),
        }
    }
    if let Some(since) = outage {
        let elapsed = since.elapsed();
        event::send(events, RunEvent::OutageEnded { elapsed }).await;
    }
    Ok(())
}

/// Whether an error can mean that the store is down.
fn is_outage(error: &TransactionError) -> bool {
    matches!(error, TransactionError::Destination(error) if error.is_transient())
}

/// What the event says about an error that a later attempt may not meet.
fn describe(error: &TransactionError) -> Failure {
    Failure::transient(FailureKind::Destination, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::layout::MANIFEST_NAME;
    use crate::run::event::RUN_EVENTS_MAX;
    use crate::run::memory_store::{Fate, Gate, MemoryStore, Operation};
    use crate::run::plan::PrefixSet;
    use crate::run::transaction::{Admission, Opening, Request};
    use prefix_tar::protocol::mode::Mode;
    use prefix_tar::protocol::prefix::Prefix;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SOURCE: &str = "http://127.0.0.1:1";
    const AB: Prefix = Prefix::from_number(0xAB);

    /// Gives so many writes of the manifest this fate.
    struct Refusals(AtomicU32, Fate);

    impl Gate for Refusals {
        fn pass(&self, operation: Operation) -> Pin<Box<dyn Future<Output = Fate> + Send + '_>> {
            let is_manifest =
                matches!(operation, Operation::Write(file, _, _) if file == MANIFEST_NAME);
            let left = |left: u32| left.checked_sub(1);
            let is_refused = is_manifest
                && self
                    .0
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
                    .is_ok();
            let fate = if is_refused { self.1 } else { Fate::Answered };
            Box::pin(std::future::ready(fate))
        }
    }

    /// Completes a run of one prefix in a store that refuses so many writes of the manifest.
    async fn completed(
        refusals: u32,
        give_up_after: Duration,
        shutdown: &CancellationToken,
    ) -> (Result<(), TransactionError>, Vec<RunEvent>, bool) {
        completed_with(Fate::Expired, refusals, give_up_after, shutdown).await
    }

    /// Does the same in a store that gives those writes another fate.
    async fn completed_with(
        fate: Fate,
        refusals: u32,
        give_up_after: Duration,
        shutdown: &CancellationToken,
    ) -> (Result<(), TransactionError>, Vec<RunEvent>, bool) {
        let gate = Arc::new(Refusals(AtomicU32::new(refusals), fate));
        let store = Arc::new(MemoryStore::new(Arc::default(), gate));
        let prefixes: PrefixSet = "AB".parse().expect("prefixes");
        let request = Request {
            source: SOURCE,
            mode: Mode::Sha1,
            prefixes: &prefixes,
            force: false,
            now: Timestamp::UNIX_EPOCH,
            random: 1,
        };
        let destination = Arc::<MemoryStore>::clone(&store);
        let opening = Transaction::open(destination, request, &CancellationToken::new()).await;
        let Ok(Opening::Begun { transaction, .. }) = opening else {
            panic!("nothing to do")
        };
        let Ok(Admission::Upload(upload)) = transaction.admit(AB).await else {
            panic!("no upload")
        };
        let report = store.upload(AB, &upload, "tar", SOURCE).await;
        let report = report.expect("an answer").expect("stored");
        let report = transaction.commit(AB, report, false).await;
        let stored = StoredPrefix::new(&report.expect("a report"), 1);

        let (events, mut receiver) = mpsc::channel(RUN_EVENTS_MAX);
        let patience = Patience {
            give_up_after,
            first_wait_max: Duration::from_millis(1),
        };
        let result = complete(&transaction, &[&stored], patience, shutdown, &events).await;
        drop(events);
        let mut all = Vec::new();
        while let Some(event) = receiver.recv().await {
            all.push(event);
        }
        let has_manifest = store.files().contains_key(MANIFEST_NAME);
        (result, all, has_manifest)
    }

    #[tokio::test]
    async fn an_outage_at_the_last_step_is_ridden_out_and_reported() {
        let patient = Duration::from_secs(600);
        let (result, events, has_manifest) = completed(5, patient, &CancellationToken::new()).await;
        result.expect("completed");
        assert!(has_manifest);
        let (last, outages) = events.split_last().expect("events");
        assert!(matches!(last, RunEvent::OutageEnded { .. }), "{last:?}");
        assert_eq!(outages.len(), 5);
        for outage in outages {
            assert!(matches!(outage, RunEvent::Outage { .. }), "{outage:?}");
        }
    }

    #[tokio::test]
    async fn an_undisturbed_completion_reports_nothing() {
        let (result, events, has_manifest) =
            completed(0, Duration::ZERO, &CancellationToken::new()).await;
        result.expect("completed");
        assert!(has_manifest && events.is_empty(), "{events:?}");
    }

    #[tokio::test]
    async fn a_manifest_that_is_confirmed_but_not_kept_completes_nothing() {
        let shutdown = CancellationToken::new();
        let completed = completed_with(Fate::Forgotten, 1, Duration::ZERO, &shutdown);
        let (result, _, has_manifest) = completed.await;
        let error = result.expect_err("no manifest").to_string();
        assert!(error.contains("does not have it"), "{error}");
        assert!(!has_manifest);
    }

    #[tokio::test]
    async fn patience_and_a_shutdown_end_the_wait() {
        let stopped = CancellationToken::new();
        stopped.cancel();
        for (give_up_after, shutdown) in [
            (Duration::ZERO, CancellationToken::new()),
            (Duration::from_secs(600), stopped),
        ] {
            let (result, _, has_manifest) = completed(u32::MAX, give_up_after, &shutdown).await;
            let error = result.expect_err("no manifest").to_string();
            assert!(error.contains("ExpiredToken"), "{error}");
            assert!(!has_manifest);
        }
    }
}
