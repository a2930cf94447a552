//! The dispatcher: one actor that owns which prefixes are waiting, in progress, stored and failed. It alone starts
//! invocations.

use super::attempts::Attempts;
use super::deferral::Deferral;
use super::event::{self, RunEvent};
use super::outage::OutageDetector;
use super::outcome::{FailedPrefix, Outcome, StoredPrefix};
use super::recorder::Recorder;
use super::retry::ATTEMPTS_MAX;
use super::shutdown::Shutdown;
use super::transaction::Transaction;
use crate::base::BaseArchive;
use crate::host::Host;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::Prefix;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
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

/// What the attempts of a run share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) host: Arc<dyn Host>,
    pub(super) transaction: Arc<Transaction>,
    /// What the run builds on.
    pub(super) base: Option<Arc<BaseArchive>>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) events: mpsc::Sender<RunEvent>,
}

/// Runs one invocation per prefix until all are stored or failed, or the run is stopped.
///
/// One prefix goes first. The others start when the source has delivered a range. Until then, prefixes are attempted one
/// at a time, and a source that cannot be reached ends the run with one failure.
///
/// Prefixes that only the source has failed are tried again when the others are done, with longer waits.
pub(super) async fn run(
    prefixes: impl Iterator<Item = Prefix>,
    shared: Shared,
    settings: DispatchSettings,
    shutdown: Shutdown,
) -> Outcome {
    let prefixes: Vec<Prefix> = prefixes.collect();
    let mut dispatcher = Dispatcher {
        waiting: prefixes.iter().copied().collect(),
        in_progress: JoinSet::new(),
        outcome: Outcome::default(),
        failures_in_a_row: 0,
        outages: Arc::new(OutageDetector::new()),
        deferral: Deferral::new(settings.first_wait_max, settings.give_up_after),
        attempts_max: ATTEMPTS_MAX,
        shared,
        settings,
        shutdown,
    };
    loop {
        dispatcher.run_waiting().await;
        if !dispatcher.begin_round().await {
            break;
        }
    }
    dispatcher.finish(prefixes).await
}

/// The state of a run.
struct Dispatcher {
    waiting: VecDeque<Prefix>,
    in_progress: JoinSet<Result<StoredPrefix, FailedPrefix>>,
    outcome: Outcome,
    failures_in_a_row: usize,
    outages: Arc<OutageDetector>,
    deferral: Deferral,
    /// Invocations of a prefix before it fails or is deferred.
    attempts_max: u32,
    shared: Shared,
    settings: DispatchSettings,
    shutdown: Shutdown,
}

impl Dispatcher {
    /// Whether no more prefixes start.
    fn is_ending(&self) -> bool {
        self.shutdown.graceful.is_cancelled() || self.failures_in_a_row >= FAILURES_IN_A_ROW_MAX
    }

    /// Runs what waits, until nothing is in progress any more.
    async fn run_waiting(&mut self) {
        let alive = self.outages.alive.clone();
        loop {
            let slots = match (self.is_ending(), alive.is_cancelled()) {
                (true, _) => 0,
                (false, true) => self.settings.parallel,
                (false, false) => 1,
            };
            while self.in_progress.len() < slots
                && let Some(prefix) = self.waiting.pop_front()
            {
                let attempts = self.attempts_at(prefix);
                self.in_progress.spawn(attempts.run());
            }
            let ended = tokio::select! {
                biased;
                () = alive.cancelled(), if slots == 1 && self.settings.parallel > 1 => continue,
                ended = self.in_progress.join_next() => ended,
                () = self.shutdown.immediate.cancelled() => {
                    self.in_progress.shutdown().await;
                    None
                }
            };
            match ended {
                None => return,
                Some(Ok(ended)) => self.note(ended).await,
                Some(Err(error)) => {
                    tracing::error!(%error, "an invocation's task ended abnormally");
                }
            }
        }
    }

    fn attempts_at(&self, prefix: Prefix) -> Attempts {
        Attempts {
            prefix,
            attempts_max: self.attempts_max,
            shared: self.shared.clone(),
            settings: self.settings,
            shutdown: self.shutdown.graceful.clone(),
            outages: Arc::clone(&self.outages),
            skips_base: AtomicBool::new(false),
        }
    }

    /// Notes how the attempts at a prefix have ended.
    async fn note(&mut self, ended: Result<StoredPrefix, FailedPrefix>) {
        let is_alive = self.outages.alive.is_cancelled();
        let event = match ended {
            Ok(stored) => {
                self.failures_in_a_row = 0;
                self.deferral.settle(stored.prefix);
                self.outcome.stored.insert(stored.prefix, stored.clone());
                RunEvent::Stored(stored)
            }
            Err(failed) => {
                self.failures_in_a_row += if affects_every_prefix(failed.failure.kind, is_alive) {
                    FAILURES_IN_A_ROW_MAX
                } else {
                    1
                };
                if is_alive && self.deferral.take(&failed) {
                    RunEvent::Deferred(failed)
                } else {
                    self.deferral.settle(failed.prefix);
                    self.outcome.failed.insert(failed.prefix, failed.clone());
                    RunEvent::Failed(failed)
                }
            }
        };
        self.send(event).await;
    }

    /// Waits for the next round of attempts at what only the source has failed. `false` if there is none.
    async fn begin_round(&mut self) -> bool {
        if self.is_ending() || self.shutdown.immediate.is_cancelled() {
            return false;
        }
        let Some(round) = self.deferral.next_round(Instant::now()) else {
            return false;
        };
        self.send(RunEvent::Pausing {
            wait: round.wait,
            prefixes: round.prefixes.len(),
        })
        .await;
        tokio::select! {
            () = tokio::time::sleep(round.wait) => {}
            () = self.shutdown.graceful.cancelled() => return false,
        }
        // One attempt a round: the rounds are the attempts now.
        self.attempts_max = 1;
        self.failures_in_a_row = 0;
        self.waiting = round.prefixes.into();
        true
    }

    async fn finish(mut self, prefixes: Vec<Prefix>) -> Outcome {
        for failed in self.deferral.take_failed() {
            self.outcome.failed.insert(failed.prefix, failed.clone());
            self.send(RunEvent::Failed(failed)).await;
        }
        self.outcome.not_done = self.outcome.without_result(prefixes);
        self.outcome
    }

    async fn send(&self, event: RunEvent) {
        tokio::select! {
            () = event::send(&self.shared.events, event) => {}
            // The reporter may be stuck, too.
            () = self.shutdown.immediate.cancelled() => {}
        }
    }
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
