//! The run: one actor that owns which prefixes are waiting, under way, stored and failed.
//! It alone starts invocations, and `attempts` tries them again. What it tells is shown by `progress`; how it ends is
//! written by `manifest`.

mod attempts;

use crate::destination::Destination;
use crate::host::{Host, InvocationProgress};
use crate::manifest::{ManifestObject, Totals};
use attempts::Attempts;
use prefix_tar::failure::{Failure, FailureKind};
use prefix_tar::job::Report;
use prefix_tar::prefix::Prefix;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Invocations at the same time. Each has a window of connections.
pub const PARALLEL_MAX: usize = 64;

/// Prefixes that may fail one after the other before no more are begun: what is broken then is not a prefix.
pub const FAILURES_IN_A_ROW_MAX: usize = 8;

/// Updates on their way to whoever shows them.
pub const UPDATES_MAX: usize = 256;

/// How a run is dispatched.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Invocations at the same time.
    pub parallel: usize,
    /// Range requests in flight per invocation; the component's default where it is not said.
    pub window: Option<u16>,
    /// How long is waited before the second attempt at the most; see [`crate::retry`].
    pub first_wait_max: Duration,
}

/// How a run is stopped from outside.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Nothing new is begun; what is under way ends.
    pub gently: CancellationToken,
    /// What is under way is given up.
    pub now: CancellationToken,
}

/// What is told on the way.
#[derive(Clone, Debug)]
pub enum Update {
    /// A run that died had the destination before.
    TookOver {
        /// Who it was.
        owner: String,
    },
    /// Prefixes that an earlier run has left whole.
    Kept(Vec<StoredPrefix>),
    /// An attempt at a prefix begins.
    Began {
        /// The prefix.
        prefix: Prefix,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// An invocation is under way. Left out where it is not read fast enough.
    Progress {
        /// The prefix.
        prefix: Prefix,
        /// How far it is.
        progress: InvocationProgress,
    },
    /// An attempt failed and there will be another.
    Retrying {
        /// The prefix.
        prefix: Prefix,
        /// Why the attempt failed.
        failure: Failure,
        /// How long is waited.
        wait: Duration,
    },
    /// A prefix is in the archive, with its report.
    Stored(StoredPrefix),
    /// A prefix failed for good.
    Failed(FailedPrefix),
}

/// A prefix that is in the archive. Reports are about 300 KB each; only what is summed up is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// What the manifest will say of it.
    pub object: ManifestObject,
    /// Its part of the totals.
    pub totals: Totals,
    /// How long its last invocation took.
    pub duration: Duration,
    /// The most linear memory of its last invocation, in bytes.
    pub linear_memory_peak: u64,
    /// Invocations that it took.
    pub attempts: u32,
}

impl StoredPrefix {
    /// What is kept of a report.
    pub fn new(report: &Report, attempts: u32) -> Self {
        Self {
            prefix: report.prefix,
            object: ManifestObject::of_report(report),
            totals: Totals::of_report(report),
            duration: Duration::try_from_secs_f64(report.seconds.total).unwrap_or_default(),
            linear_memory_peak: report.linear_memory_peak,
            attempts,
        }
    }
}

/// A prefix that is not.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// Why its last invocation failed.
    pub failure: Failure,
    /// Invocations that it took.
    pub attempts: u32,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What an earlier run had left in the archive.
    pub kept: BTreeMap<Prefix, StoredPrefix>,
    /// What this run has put into it.
    pub stored: BTreeMap<Prefix, StoredPrefix>,
    /// What failed.
    pub failed: BTreeMap<Prefix, FailedPrefix>,
    /// What was not begun, or given up.
    pub not_done: Vec<Prefix>,
}

impl Outcome {
    /// Whether every prefix is in the archive.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.not_done.is_empty()
    }

    /// Everything that is in the archive, in the order of the prefixes.
    pub fn archived(&self) -> Vec<&StoredPrefix> {
        let mut archived: Vec<_> = self.kept.values().chain(self.stored.values()).collect();
        archived.sort_unstable_by_key(|stored| stored.prefix);
        archived
    }

    /// Those of `prefixes` that neither succeeded nor failed.
    fn without(&self, mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
        prefixes.retain(|prefix| {
            !self.stored.contains_key(prefix) && !self.failed.contains_key(prefix)
        });
        prefixes
    }

    /// The sums over what this run has put into the archive.
    pub fn totals(&self) -> Totals {
        self.stored.values().map(|stored| stored.totals).sum()
    }
}

/// Runs one invocation per prefix until all are stored, or failed, or the run is stopped.
///
/// There is no fan-out before the first sign of life: one prefix goes ahead, and where it fails without ever
/// having had a range, the run ends with that one failure.
pub async fn run(
    prefixes: impl Iterator<Item = Prefix>,
    host: Arc<dyn Host>,
    destination: Arc<dyn Destination>,
    settings: Settings,
    stop: Stop,
    updates: mpsc::Sender<Update>,
) -> Outcome {
    let prefixes: Vec<Prefix> = prefixes.collect();
    let mut waiting = prefixes.iter().copied();
    let mut under_way = JoinSet::new();
    let mut outcome = Outcome::default();
    let mut failures_in_a_row = 0;
    let alive = CancellationToken::new();
    loop {
        let is_over = stop.gently.is_cancelled() || failures_in_a_row >= FAILURES_IN_A_ROW_MAX;
        let places = match (is_over, alive.is_cancelled()) {
            (true, _) => 0,
            (false, true) => settings.parallel,
            (false, false) => 1_usize.saturating_sub(outcome.failed.len()),
        };
        while under_way.len() < places
            && let Some(prefix) = waiting.next()
        {
            let attempts = Attempts {
                prefix,
                host: Arc::clone(&host),
                destination: Arc::clone(&destination),
                settings,
                stop: stop.gently.clone(),
                alive: alive.clone(),
                updates: updates.clone(),
            };
            under_way.spawn(attempts.run());
        }
        let ended = tokio::select! {
            biased;
            () = alive.cancelled(), if places == 1 && settings.parallel > 1 => continue,
            ended = under_way.join_next() => ended,
            () = stop.now.cancelled() => {
                under_way.shutdown().await;
                None
            }
        };
        let update = match ended {
            None => break,
            Some(Ok(Ok(stored))) => {
                failures_in_a_row = 0;
                alive.cancel();
                outcome.stored.insert(stored.prefix, stored.clone());
                Update::Stored(stored)
            }
            Some(Ok(Err(failed))) => {
                failures_in_a_row += match ends_the_run(failed.failure.kind) {
                    true => FAILURES_IN_A_ROW_MAX,
                    false => 1,
                };
                outcome.failed.insert(failed.prefix, failed.clone());
                Update::Failed(failed)
            }
            Some(Err(error)) => {
                tracing::error!(%error, "an invocation's task ended abnormally");
                continue;
            }
        };
        tokio::select! {
            () = tell(&updates, update) => {}
            // Whoever shows updates may be stuck, too.
            () = stop.now.cancelled() => {}
        }
    }
    outcome.not_done = outcome.without(prefixes);
    outcome
}

/// Whether what failed one prefix fails them all: what is denied or set up wrongly is so for each.
const fn ends_the_run(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::StoreDenied | FailureKind::Unauthorized | FailureKind::Configuration
    )
}

/// Whoever shows updates may be gone; the run goes on.
async fn tell(updates: &mpsc::Sender<Update>, update: Update) {
    let _ = updates.send(update).await;
}

#[cfg(test)]
mod tests;
