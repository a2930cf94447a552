//! When something is tried again, and after how long: exponential waits with full jitter, `Retry-After`, and the
//! budget that ends it. Whether it is worth another attempt is said by the failure; trying is left to the caller.

use crate::limits::{RETRIES_AHEAD_MAX, RETRY_EARNED_RANGES};
use std::time::{Duration, SystemTime};

/// How long is waited between the attempts at one thing: one wait fewer than there are attempts, each a random
/// part of a longest wait that doubles (full jitter, so that what failed together does not come back together).
#[derive(Clone, Debug)]
pub struct Backoff {
    random: fastrand::Rng,
    retries_left: u32,
    longest: Duration,
    longest_max: Duration,
}

impl Backoff {
    /// The waits between `attempts_max` attempts: the first is `first_max` at the most, and none is longer than
    /// `longest_max`.
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

/// The retries that an invocation may still make: a purse of [`RETRIES_AHEAD_MAX`], full at the start, that good
/// ranges fill up again. A source that fails now and then is borne; one that fails mostly ends the invocation.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    /// In parts of which [`RETRY_EARNED_RANGES`] pay for a retry.
    parts: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

impl RetryBudget {
    /// A full purse.
    pub const fn new() -> Self {
        Self {
            parts: RETRIES_AHEAD_MAX * RETRY_EARNED_RANGES,
        }
    }

    /// Takes note of a good range.
    pub fn earn(&mut self) {
        self.parts = (self.parts + 1).min(RETRIES_AHEAD_MAX * RETRY_EARNED_RANGES);
    }

    /// Pays for a retry; `false` where nothing is left to pay with.
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

/// Says of a failure how often and for how long it was tried, before the advice that its message ends with.
pub fn with_attempts(message: &str, attempts: u32, elapsed: Duration) -> String {
    if attempts <= 1 {
        return message.to_owned();
    }
    let seconds = elapsed.as_secs_f64().ceil();
    let tried = format!("in {attempts} attempts over {seconds} s");
    match message.split_once("; ") {
        Some((what, advice)) => format!("{what} {tried}; {advice}"),
        None => format!("{message} {tried}"),
    }
}

/// What a `Retry-After` asks for (RFC 9110, 10.2.3): a number of seconds, or a date. `None` where it is neither;
/// a date that has passed asks for no wait.
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
        fn no_text_makes_retry_after_panic(text in ".*") {
            let _ = retry_after(&text, SystemTime::now());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits_and_another_gives_others() {
        let waits = |seed| {
            Backoff::new(fastrand::Rng::with_seed(seed), 6, FIRST, LONGEST).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn a_budget_ends_at_its_bound_and_good_ranges_fill_it_up_to_the_bound() {
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
    fn attempts_are_said_before_the_advice() {
        let elapsed = Duration::from_millis(30_200);
        for (message, attempts, said) in [
            ("answered 404", 1, "answered 404"),
            ("answered 500", 2, "answered 500 in 2 attempts over 31 s"),
            (
                "answered 503; try later",
                5,
                "answered 503 in 5 attempts over 31 s; try later",
            ),
        ] {
            assert_eq!(with_attempts(message, attempts, elapsed), said);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
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
