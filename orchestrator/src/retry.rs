//! How often an invocation is tried again, and after how long; the waits themselves are the component's crate's.
//! What is tried again, and whether it is worth it, is left to `dispatch`.

use prefix_tar::retry::Backoff;
use std::time::Duration;

/// Invocations of one prefix at the most. Inside of each, a range is asked for several times.
pub const ATTEMPTS_MAX: u32 = 4;

/// Invocations of the prefix that goes ahead, as long as nothing at all has come from the source: it is the source
/// then that is not there, and people wait for the message.
pub const ATTEMPTS_BEFORE_LIFE_MAX: u32 = 2;

/// The longest first wait. It doubles from one to the next.
pub const FIRST_WAIT_MAX: Duration = Duration::from_secs(1);

/// The longest wait that nobody asked for.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// The longest wait that a source or a store is granted which asks for one.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// The waits between the attempts at one prefix, of which the first is `first_wait_max` at the most.
pub fn waits(first_wait_max: Duration) -> Backoff {
    Backoff::new(fastrand::Rng::new(), ATTEMPTS_MAX, first_wait_max, WAIT_MAX)
}
