//! [`Liveness`]: tells an outage, which a run rides out, from a fault in one prefix.
//!
//! During an outage, nobody makes progress. As long as anybody does, a failure is the prefix's own.

use prefix_tar::protocol::failure::{Failure, FailureKind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What an attempt that made no progress says about the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Diagnosis {
    /// Somebody made progress meanwhile, or the failure is not one of an outage.
    OwnFault,
    /// Nobody has made progress for this long.
    Outage {
        /// Since the last progress of anybody.
        elapsed: Duration,
    },
}

/// When anybody in a run last made progress.
#[derive(Debug)]
pub(super) struct Liveness {
    /// Cancelled as a signal that the source has delivered a range.
    pub(super) alive: CancellationToken,
    last_progress: Mutex<Instant>,
    /// Since when the present outage lasts, if it was reported.
    outage: Mutex<Option<Instant>>,
}

impl Liveness {
    /// A run that begins now.
    pub(super) fn new() -> Self {
        Self {
            alive: CancellationToken::new(),
            last_progress: Mutex::new(Instant::now()),
            outage: Mutex::default(),
        }
    }

    /// Notes that a range or a tar has arrived `now`. Returns how long the outage lasted that this ends.
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
    fn an_outage_is_when_nobody_makes_progress() {
        let liveness = Liveness::new();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        liveness.progress(began);
        let outage = |seconds| Diagnosis::Outage {
            elapsed: Duration::from_secs(seconds),
        };
        assert_eq!(
            liveness.diagnose(&unreachable(), began, after(20)),
            outage(20)
        );
        assert_eq!(
            liveness.diagnose(&unreachable(), after(20), after(22)),
            outage(22)
        );
        assert_eq!(liveness.progress(after(25)), Some(Duration::from_secs(25)));
        assert_eq!(liveness.progress(after(26)), None);
        // Somebody else's progress makes it a fault of the prefix that failed.
        let diagnosis = liveness.diagnose(&unreachable(), after(22), after(27));
        assert_eq!(diagnosis, Diagnosis::OwnFault);
    }

    #[test]
    fn an_invalid_range_and_a_permanent_failure_are_no_outage() {
        let liveness = Liveness::new();
        let began = Instant::now();
        for failure in [
            Failure::transient(FailureKind::RangeInvalid, "unsorted"),
            Failure::transient(FailureKind::Died, "trap"),
            Failure::permanent(FailureKind::SourceStatus, "404"),
        ] {
            let diagnosis = liveness.diagnose(&failure, began, Instant::now());
            assert_eq!(diagnosis, Diagnosis::OwnFault);
        }
    }
}
