//! How often an invocation is retried, and how long the waits are.

use prefix_tar::engine::retry::Backoff;
use std::time::Duration;

/// Invocations of one prefix. Each of them retries its own range requests.
pub const ATTEMPTS_MAX: u32 = 4;

/// Invocations of the first prefix while no prefix has received a range yet. The source is down
/// then, and somebody is waiting for the message.
pub const ATTEMPTS_BEFORE_LIFE_MAX: u32 = 2;

/// The longest first wait. It doubles with every attempt.
pub const FIRST_WAIT_MAX: Duration = Duration::from_secs(1);

/// The longest wait without a Retry-After.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// The longest Retry-After of a source or a store that is honored.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// How long a run rides out an outage unless it is told otherwise.
pub const GIVE_UP_AFTER_DEFAULT: Duration = Duration::from_secs(600);

/// The waits during an outage, which its duration ends; the first is at most `first_wait_max`.
pub fn outage_waits(first_wait_max: Duration) -> Backoff {
    Backoff::new(fastrand::Rng::new(), u32::MAX, first_wait_max, WAIT_MAX)
}

/// The waits between `attempts_max` attempts at one prefix; the first is at most `first_wait_max`.
pub fn waits(first_wait_max: Duration, attempts_max: u32) -> Backoff {
    Backoff::new(fastrand::Rng::new(), attempts_max, first_wait_max, WAIT_MAX)
}
