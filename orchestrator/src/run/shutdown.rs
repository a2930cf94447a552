//! [`Shutdown`]: how a run is stopped from outside, in two steps.

use tokio_util::sync::CancellationToken;

/// Stops a run. Graceful comes first; immediate follows if that takes too long.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Starts nothing new; invocations in progress end.
    pub graceful: CancellationToken,
    /// Aborts the invocations in progress.
    pub immediate: CancellationToken,
}
