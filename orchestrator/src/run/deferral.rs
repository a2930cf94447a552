//! [`Deferral`]: prefixes that only the source has failed. They wait until the others are stored, and then have another
//! attempt now and then: one bad range must not cost a night.

use super::outcome::FailedPrefix;
use prefix_tar::engine::retry::Backoff;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::Prefix;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest first wait, in first waits between two attempts at a prefix: 30 s. It doubles with every round.
const FIRST_WAIT_FACTOR: u32 = 30;

/// The longest wait, in the same unit: 10 min.
const WAIT_FACTOR_MAX: u32 = 600;

/// The prefixes that wait, and the rounds of attempts at them.
pub(super) struct Deferral {
    failed: BTreeMap<Prefix, FailedPrefix>,
    waits: Backoff,
    /// When the first round was planned.
    began: Option<Instant>,
    give_up_after: Duration,
}

/// A round of attempts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) wait: Duration,
    pub(super) prefixes: Vec<Prefix>,
}

impl Deferral {
    /// Nothing waits. Rounds begin until `give_up_after` after the first.
    pub(super) fn new(first_wait_max: Duration, give_up_after: Duration) -> Self {
        Self {
            failed: BTreeMap::new(),
            waits: Backoff::new(
                fastrand::Rng::new(),
                u32::MAX,
                first_wait_max * FIRST_WAIT_FACTOR,
                first_wait_max * WAIT_FACTOR_MAX,
            ),
            began: None,
            give_up_after,
        }
    }

    /// Lets a prefix wait. Returns whether it does: if only the source has failed it, and another answer is possible.
    pub(super) fn take(&mut self, failed: &FailedPrefix) -> bool {
        let is_of_source = matches!(
            failed.failure.kind,
            FailureKind::SourceStatus
                | FailureKind::SourceTimeout
                | FailureKind::SourceUnreachable
                | FailureKind::RangeInvalid
        );
        let is_deferred = is_of_source && failed.failure.retryable && !self.give_up_after.is_zero();
        if is_deferred {
            let mut failed = failed.clone();
            if let Some(earlier) = self.failed.get(&failed.prefix) {
                failed.attempts += earlier.attempts;
            }
            self.failed.insert(failed.prefix, failed);
        }
        is_deferred
    }

    /// A prefix has been stored after all, or has failed for another reason.
    pub(super) fn settle(&mut self, prefix: Prefix) {
        self.failed.remove(&prefix);
    }

    /// The next round, when nothing else is left to do; `None` if none is worth it any more.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Round> {
        if self.failed.is_empty() {
            return None;
        }
        let began = *self.began.get_or_insert(now);
        let left = self.give_up_after.checked_sub(now.duration_since(began));
        // The last round begins when the time is over.
        let left = left.filter(|left| !left.is_zero())?;
        Some(Round {
            wait: self.waits.next()?.min(left),
            prefixes: self.failed.keys().copied().collect(),
        })
    }

    /// Those that still wait, with their last failure. They wait no more.
    pub(super) fn take_failed(&mut self) -> Vec<FailedPrefix> {
        std::mem::take(&mut self.failed).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prefix_tar::protocol::failure::Failure;

    const SECOND: Duration = Duration::from_secs(1);

    fn failed(number: u8, failure: Failure) -> FailedPrefix {
        FailedPrefix {
            prefix: Prefix::from_number(number),
            failure,
            attempts: 4,
        }
    }

    fn status() -> Failure {
        Failure::transient(FailureKind::SourceStatus, "502")
    }

    #[test]
    fn only_what_the_source_may_answer_otherwise_is_deferred() {
        let mut deferral = Deferral::new(SECOND, 600 * SECOND);
        for kind in [
            FailureKind::SourceStatus,
            FailureKind::SourceTimeout,
            FailureKind::SourceUnreachable,
            FailureKind::RangeInvalid,
        ] {
            assert!(deferral.take(&failed(1, Failure::transient(kind, ""))));
            assert!(!deferral.take(&failed(1, Failure::permanent(kind, ""))));
        }
        for kind in [
            FailureKind::StoreStatus,
            FailureKind::Died,
            FailureKind::Superseded,
        ] {
            assert!(!deferral.take(&failed(1, Failure::transient(kind, ""))));
        }
        assert!(!Deferral::new(SECOND, Duration::ZERO).take(&failed(1, status())));
    }

    #[test]
    fn rounds_begin_until_the_time_is_over_and_attempts_add_up() {
        let mut deferral = Deferral::new(SECOND, 600 * SECOND);
        let now = Instant::now();
        assert_eq!(deferral.next_round(now), None);
        deferral.take(&failed(1, status()));
        deferral.take(&failed(2, status()));
        let round = deferral.next_round(now).expect("a round");
        let both = [Prefix::from_number(1), Prefix::from_number(2)];
        assert_eq!(round.prefixes, both);
        assert!(round.wait <= 30 * SECOND);
        deferral.settle(both[0]);
        deferral.take(&FailedPrefix {
            attempts: 1,
            ..failed(2, status())
        });
        let late = deferral.next_round(now + 599 * SECOND).expect("a round");
        assert!(late.wait <= SECOND && late.prefixes == both[1..]);
        assert_eq!(deferral.next_round(now + 600 * SECOND), None);
        let left = deferral.take_failed();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].prefix, left[0].attempts), (both[1], 5));
    }
}
