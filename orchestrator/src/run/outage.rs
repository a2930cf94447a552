//! Distinguishes an outage of the source, the store or the host, which a run waits out, from a fault of one prefix.
//!
//! During an outage, no prefix makes progress. As long as any does, a failure is the prefix's own.

use prefix_tar::protocol::failure::{Failure, FailureKind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What an attempt that made no progress says about the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Diagnosis {
    /// Some prefix made progress meanwhile, or an outage does not cause such failures.
    OwnFault,
    /// No prefix has made progress for a while.
    Outage {
        /// Since the last progress of any prefix.
        elapsed: Duration,
    },
}

/// Watches when any prefix of a run last made progress.
#[derive(Debug)]
pub(super) struct OutageDetector {
    /// Cancelled as a signal that the source has delivered a range.
    pub(super) alive: CancellationToken,
    last_progress: Mutex<Instant>,
    /// When the present outage began, if one was diagnosed.
    outage: Mutex<Option<Instant>>,
}

impl OutageDetector {
    /// The detector of a run that begins now.
    pub(super) fn new() -> Self {
        Self {
            alive: CancellationToken::new(),
            last_progress: Mutex::new(Instant::now()),
            outage: Mutex::default(),
        }
    }

    /// Notes that a range or a tar has arrived `now`. If this ends an outage, returns how long it lasted.
    pub(super) fn progress(&self, now: Instant) -> Option<Duration> {
        self.alive.cancel();
        *lock(&self.last_progress) = now;
        let outage = lock(&self.outage).take();
        outage.map(|since| now - since)
    }

    /// Diagnoses the failure, `now`, of an attempt that began at `began`.
    pub(super) fn diagnose(&self, failure: &Failure, began: Instant, now: Instant) -> Diagnosis {
        let last = *lock(&self.last_progress);
        if !failure.retryable || !may_be_outage(failure.kind) || last > began {
            return Diagnosis::OwnFault;
        }
        lock(&self.outage).get_or_insert(last);
        Diagnosis::Outage {
            elapsed: now - last,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a failure can mean that a peer is down.
const fn may_be_outage(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::SourceUnreachable
            | FailureKind::SourceTimeout
            | FailureKind::SourceStatus
            | FailureKind::StoreUnreachable
            | FailureKind::StoreTimeout
            | FailureKind::StoreStatus
            | FailureKind::HostUnreachable
            | FailureKind::Destination
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> Failure {
        Failure::transient(FailureKind::SourceUnreachable, "refused")
    }

    #[test]
    fn an_outage_is_when_no_prefix_makes_progress() {
        let outages = OutageDetector::new();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        outages.progress(began);
        let outage = |seconds| Diagnosis::Outage {
            elapsed: Duration::from_secs(seconds),
        };
        assert_eq!(
            outages.diagnose(&unreachable(), began, after(20)),
            outage(20)
        );
        assert_eq!(
            outages.diagnose(&unreachable(), after(20), after(22)),
            outage(22)
        );
        assert_eq!(outages.progress(after(25)), Some(Duration::from_secs(25)));
        assert_eq!(outages.progress(after(26)), None);
        // The progress of another prefix makes it a fault of the one that failed.
        let diagnosis = outages.diagnose(&unreachable(), after(22), after(27));
        assert_eq!(diagnosis, Diagnosis::OwnFault);
    }

    #[test]
    fn an_invalid_range_and_a_permanent_failure_are_no_outage() {
        let outages = OutageDetector::new();
        let began = Instant::now();
        for failure in [
            Failure::transient(FailureKind::RangeInvalid, "unsorted"),
            Failure::transient(FailureKind::Died, "trap"),
            Failure::permanent(FailureKind::SourceStatus, "404"),
        ] {
            let diagnosis = outages.diagnose(&failure, began, Instant::now());
            assert_eq!(diagnosis, Diagnosis::OwnFault);
        }
    }
}
