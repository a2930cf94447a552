//! The dispatcher: one actor that owns which prefixes are waiting, in progress, stored and failed. It alone starts
//! invocations.

use super::attempts::Attempts;
use super::event::{self, RunEvent};
use super::outage::OutageDetector;
use super::outcome::Outcome;
use super::recorder::Recorder;
use super::shutdown::Shutdown;
use super::transaction::Transaction;
use crate::host::Host;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::Prefix;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

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
    /// How long to ride out an outage: nobody makes progress, and the source, the store or the host does not answer.
    pub give_up_after: Duration,
    /// Whether to ride out an outage before the source has delivered anything. If not, two attempts end the run:
    /// somebody may have mistyped its URL and is waiting for the message.
    pub waits_for_source: bool,
}

/// Runs one invocation per prefix until all are stored or failed, or the run is stopped.
///
/// One prefix goes first. The others start when the source has delivered a range. Until then, prefixes are attempted one
/// at a time, and a source that cannot be reached ends the run with one failure.
pub(super) async fn run(
    prefixes: impl Iterator<Item = Prefix>,
    host: Arc<dyn Host>,
    transaction: Arc<Transaction>,
    settings: DispatchSettings,
    shutdown: Shutdown,
    recorder: Arc<Recorder>,
    events: mpsc::Sender<RunEvent>,
) -> Outcome {
    let prefixes: Vec<Prefix> = prefixes.collect();
    let mut waiting = prefixes.iter().copied();
    let mut in_progress = JoinSet::new();
    let mut outcome = Outcome::default();
    let mut failures_in_a_row = 0;
    let outages = Arc::new(OutageDetector::new());
    let alive = outages.alive.clone();
    loop {
        let is_ending =
            shutdown.graceful.is_cancelled() || failures_in_a_row >= FAILURES_IN_A_ROW_MAX;
        let slots = match (is_ending, alive.is_cancelled()) {
            (true, _) => 0,
            (false, true) => settings.parallel,
            (false, false) => 1,
        };
        while in_progress.len() < slots
            && let Some(prefix) = waiting.next()
        {
            let attempts = Attempts {
                prefix,
                host: Arc::clone(&host),
                transaction: Arc::clone(&transaction),
                settings,
                shutdown: shutdown.graceful.clone(),
                outages: Arc::clone(&outages),
                recorder: Arc::clone(&recorder),
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
                outcome.stored.insert(stored.prefix, stored.clone());
                RunEvent::Stored(stored)
            }
            Some(Ok(Err(failed))) => {
                failures_in_a_row +=
                    if affects_every_prefix(failed.failure.kind, alive.is_cancelled()) {
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

/// Whether a failure affects every prefix: missing permissions and wrong configuration do. As long as nothing has ever
/// arrived, only an answer of the source about one range is the prefix's own.
const fn affects_every_prefix(kind: FailureKind, is_alive: bool) -> bool {
    match kind {
        FailureKind::StoreDenied
        | FailureKind::Unauthorized
        | FailureKind::Configuration
        | FailureKind::Superseded => true,
        FailureKind::SourceStatus | FailureKind::RangeInvalid | FailureKind::RangeTooLarge => false,
        _ => !is_alive,
    }
}

#[cfg(test)]
mod tests;
