//! The dispatcher: one actor that owns which prefixes are waiting, in progress, stored and failed. It alone starts
//! invocations.

use super::attempts::Attempts;
use super::event::{self, RunEvent};
use super::outcome::Outcome;
use super::shutdown::Shutdown;
use crate::destination::Destination;
use crate::host::Host;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::Prefix;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Concurrent invocations. Each has a window of connections.
pub const PARALLEL_MAX: usize = 64;

/// Consecutive failures after which no more prefixes start: the fault is probably not in one
/// prefix.
pub const FAILURES_IN_A_ROW_MAX: usize = 8;

/// How invocations are dispatched.
#[derive(Clone, Copy, Debug)]
pub struct DispatchSettings {
    /// Concurrent invocations.
    pub parallel: usize,
    /// Range requests in flight per invocation; `None` selects the component's default.
    pub window: Option<u16>,
    /// The longest wait before the second attempt; see [`super::retry`].
    pub first_wait_max: Duration,
}

/// Runs one invocation per prefix until all are stored or failed, or the run is stopped.
///
/// One prefix goes first. The others start when the source has delivered a range; if the first prefix fails before
/// that, the run ends with this one failure.
pub async fn run(
    prefixes: impl Iterator<Item = Prefix>,
    host: Arc<dyn Host>,
    destination: Arc<dyn Destination>,
    settings: DispatchSettings,
    shutdown: Shutdown,
    events: mpsc::Sender<RunEvent>,
) -> Outcome {
    let prefixes: Vec<Prefix> = prefixes.collect();
    let mut waiting = prefixes.iter().copied();
    let mut in_progress = JoinSet::new();
    let mut outcome = Outcome::default();
    let mut failures_in_a_row = 0;
    let alive = CancellationToken::new();
    loop {
        let is_ending =
            shutdown.graceful.is_cancelled() || failures_in_a_row >= FAILURES_IN_A_ROW_MAX;
        let slots = match (is_ending, alive.is_cancelled()) {
            (true, _) => 0,
            (false, true) => settings.parallel,
            (false, false) => 1_usize.saturating_sub(outcome.failed.len()),
        };
        while in_progress.len() < slots
            && let Some(prefix) = waiting.next()
        {
            let attempts = Attempts {
                prefix,
                host: Arc::clone(&host),
                destination: Arc::clone(&destination),
                settings,
                shutdown: shutdown.graceful.clone(),
                alive: alive.clone(),
                events: events.clone(),
            };
            in_progress.spawn(attempts.run());
        }
        let ended = tokio::select! {
            biased;
            () = alive.cancelled(), if slots == 1 && settings.parallel > 1 => continue,
            ended = in_progress.join_next() => ended,
            () = shutdown.immediate.cancelled() => {
                in_progress.shutdown().await;
                None
            }
        };
        let event = match ended {
            None => break,
            Some(Ok(Ok(stored))) => {
                failures_in_a_row = 0;
                alive.cancel();
                outcome.stored.insert(stored.prefix, stored.clone());
                RunEvent::Stored(stored)
            }
            Some(Ok(Err(failed))) => {
                failures_in_a_row += if affects_every_prefix(failed.failure.kind) {
                    FAILURES_IN_A_ROW_MAX
                } else {
                    1
                };
                outcome.failed.insert(failed.prefix, failed.clone());
                RunEvent::Failed(failed)
            }
            Some(Err(error)) => {
                tracing::error!(%error, "an invocation's task ended abnormally");
                continue;
            }
        };
        tokio::select! {
            () = event::send(&events, event) => {}
            // The reporter may be stuck, too.
            () = shutdown.immediate.cancelled() => {}
        }
    }
    outcome.not_done = outcome.without_result(prefixes);
    outcome
}

/// Whether a failure affects every prefix: missing permissions and wrong configuration do.
const fn affects_every_prefix(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::StoreDenied | FailureKind::Unauthorized | FailureKind::Configuration
    )
}

#[cfg(test)]
mod tests;
