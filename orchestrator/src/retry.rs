//! How long is waited before another attempt: exponential, with full jitter, a finite number of times.
//! What is tried again, and whether it is worth it, is left to `dispatch`.

use rand::{Rng, RngExt as _};
use std::time::Duration;

/// Invocations of one prefix at the most.
pub const ATTEMPTS_MAX: u32 = 4;

/// The longest first wait. It doubles from one to the next.
pub const FIRST_WAIT_MAX: Duration = Duration::from_secs(1);

/// The longest wait of all.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The waits between the attempts of one prefix: one fewer than the attempts.
#[derive(Debug)]
pub struct Waits<Random> {
    random: Random,
    left: u32,
    longest: Duration,
}

impl<Random: Rng> Waits<Random> {
    /// The waits for [`ATTEMPTS_MAX`] attempts, of which the first is `first_wait_max` at the most.
    pub const fn new(random: Random, first_wait_max: Duration) -> Self {
        Self {
            random,
            left: ATTEMPTS_MAX - 1,
            longest: first_wait_max,
        }
    }
}

impl<Random: Rng> Iterator for Waits<Random> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let longest = self.longest;
        self.longest = (longest * 2).min(WAIT_MAX);
        Some(longest.mul_f64(self.random.random()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    proptest! {
        #[test]
        fn waits_are_as_many_as_there_are_retries_and_each_is_bounded(seed in any::<u64>()) {
            let random = ChaCha8Rng::seed_from_u64(seed);
            let waits: Vec<Duration> = Waits::new(random, FIRST_WAIT_MAX).collect();
            prop_assert_eq!(waits.len(), ATTEMPTS_MAX as usize - 1);
            for (doublings, wait) in waits.iter().enumerate() {
                prop_assert!(*wait <= FIRST_WAIT_MAX * 2_u32.pow(doublings as u32));
                prop_assert!(*wait <= WAIT_MAX);
            }
        }
    }
}
