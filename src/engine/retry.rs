//! Schedules retries: exponential backoff with full jitter, `Retry-After`, and a retry budget.

use crate::limits::{RETRIES_AHEAD_MAX, RETRY_EARNED_RANGES};
use std::time::{Duration, SystemTime};

/// The waits between the attempts at an operation: one fewer than there are attempts.
///
/// Each wait is a random part of an upper bound that doubles. This is full jitter: requests that
/// failed together are not repeated together.
#[derive(Clone, Debug)]
pub struct Backoff {
    random: fastrand::Rng,
    retries_left: u32,
    longest: Duration,
    longest_max: Duration,
}

impl Backoff {
    /// The waits between at most `attempts_max` attempts. The first is at most `first_max`, and
    /// none exceeds `longest_max`.
    pub fn new(
        random: fastrand::Rng,
        attempts_max: u32,
        first_max: Duration,
        longest_max: Duration,
    ) -> Self {
        Self {
            random,
            retries_left: attempts_max.saturating_sub(1),
            longest: first_max.min(longest_max),
            longest_max,
        }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.retries_left = self.retries_left.checked_sub(1)?;
        let longest = self.longest;
        self.longest = longest.saturating_mul(2).min(self.longest_max);
        Some(longest.mul_f64(self.random.f64()))
    }
}

/// The retries that an invocation may still make: [`RETRIES_AHEAD_MAX`] at the start, refilled by
/// valid ranges. So an invocation survives a source that sometimes fails, but not one that mostly
/// fails.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    /// In parts of a retry: a valid range earns one, a retry costs [`RETRY_EARNED_RANGES`].
    parts: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

impl RetryBudget {
    /// A full budget.
    pub const fn new() -> Self {
        Self {
            parts: RETRIES_AHEAD_MAX * RETRY_EARNED_RANGES,
        }
    }

    /// Adds the part that a valid range earns.
    pub fn earn(&mut self) {
        self.parts = (self.parts + 1).min(RETRIES_AHEAD_MAX * RETRY_EARNED_RANGES);
    }

    /// Takes a retry from the budget; `false` if there is none left.
    pub const fn spend(&mut self) -> bool {
        match self.parts.checked_sub(RETRY_EARNED_RANGES) {
            Some(left) => {
                self.parts = left;
                true
            }
            None => false,
        }
    }
}

/// Adds the number of attempts and their time to a failure's message. If the message has a hint
/// (after `; `), they precede it.
pub fn with_attempts(message: &str, attempts: u32, elapsed: Duration) -> String {
    if attempts <= 1 {
        return message.to_owned();
    }
    let seconds = elapsed.as_secs_f64().ceil();
    let count = format!("in {attempts} attempts over {seconds} s");
    match message.split_once("; ") {
        Some((fact, hint)) => format!("{fact} {count}; {hint}"),
        None => format!("{message} {count}"),
    }
}

/// Parses a `Retry-After` (RFC 9110, 10.2.3): a number of seconds, or a date. `None` if it is
/// neither. A past date is a wait of zero.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(8);

    proptest! {
        #[test]
        fn waits_are_one_fewer_than_attempts_and_each_is_bounded(
            seed in any::<u64>(),
            attempts_max in 0_u32..40,
        ) {
            let random = fastrand::Rng::with_seed(seed);
            let waits: Vec<Duration> =
                Backoff::new(random, attempts_max, FIRST, LONGEST).collect();
            prop_assert_eq!(waits.len(), attempts_max.saturating_sub(1) as usize);
            for (doublings, wait) in waits.iter().enumerate() {
                let bound = FIRST.saturating_mul(1 << doublings.min(20)).min(LONGEST);
                prop_assert!(*wait <= bound, "wait {doublings} is {wait:?}");
            }
        }

        #[test]
        fn parsing_a_retry_after_never_panics(text in ".*") {
            let _ = retry_after(&text, SystemTime::now());
        }
    }

    #[test]
    fn waits_are_reproducible_by_their_seed() {
        let waits = |seed| {
            Backoff::new(fastrand::Rng::with_seed(seed), 6, FIRST, LONGEST).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn a_budget_runs_out_and_valid_ranges_refill_it() {
        let mut budget = RetryBudget::new();
        budget.earn();
        for _ in 0..RETRIES_AHEAD_MAX {
            assert!(budget.spend());
        }
        assert!(!budget.spend());
        for _ in 1..RETRY_EARNED_RANGES {
            budget.earn();
            assert!(!budget.spend());
        }
        budget.earn();
        assert!(budget.spend());
    }

    #[test]
    fn the_attempts_are_added_before_the_hint() {
        let elapsed = Duration::from_millis(30_200);
        for (message, attempts, expected) in [
            ("answered 404", 1, "answered 404"),
            ("answered 500", 2, "answered 500 in 2 attempts over 31 s"),
            (
                "refused; is it running?",
                5,
                "refused in 5 attempts over 31 s; is it running?",
            ),
        ] {
            assert_eq!(with_attempts(message, attempts, elapsed), expected);
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, wait) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let wait = wait.map(Duration::from_secs);
            assert_eq!(retry_after(value, now), wait, "{value:?}");
        }
    }
}
