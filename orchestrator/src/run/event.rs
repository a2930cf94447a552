//! [`RunEvent`]: what happens in a run, and its form in JSON.

use super::outcome::{FailedPrefix, FinishedRun, StoredPrefix};
use crate::archive::manifest::Totals;
use crate::host::InvocationProgress;
use crate::resource_usage::ResourceUsage;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::failure::Failure;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::CachedError;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events that wait for the reporter. A slow reporter misses only progress.
pub const RUN_EVENTS_MAX: usize = 256;

/// Something that happened in a run.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// The run took over the lock of a run that died.
    TookOver {
        /// The dead run, as its lock describes it.
        owner: String,
    },
    /// The account may not read what it writes, so that nothing stored is read back.
    ReadDenied,
    /// An earlier run has already stored these prefixes.
    Skipped(Vec<StoredPrefix>),
    /// The base, or that of one prefix, cannot be used, so that every range is fetched.
    BaseUnusable {
        /// The prefix; `None` for the whole base.
        prefix: Option<Prefix>,
        /// Why.
        reason: String,
    },
    /// An attempt at a prefix starts.
    Began {
        /// The prefix.
        prefix: Prefix,
        /// The attempt, counted from 1.
        attempt: u32,
    },
    /// An invocation made progress. Dropped when the reporter is slow.
    Progress {
        /// The prefix.
        prefix: Prefix,
        /// What the invocation has done so far.
        progress: InvocationProgress,
    },
    /// An attempt failed, and another one follows.
    Retrying {
        /// The prefix.
        prefix: Prefix,
        /// Why the attempt failed.
        failure: Failure,
        /// The wait before the next attempt.
        wait: Duration,
    },
    /// Nobody makes progress; the run waits for the source, the store or the host to come back.
    Outage {
        /// Why the last attempt failed.
        failure: Failure,
        /// Since the last progress.
        elapsed: Duration,
        /// After this time without progress, the run gives up.
        give_up_after: Duration,
    },
    /// The outage is over.
    OutageEnded {
        /// How long it lasted.
        elapsed: Duration,
    },
    /// The run has taken over an archive in a bucket from an unfinished run, and waits until no upload of that run can
    /// arrive any more.
    Waiting {
        /// How long.
        wait: Duration,
    },
    /// Only the source has failed a prefix. It is tried again when the others are done.
    Deferred(FailedPrefix),
    /// The others are done, and a round of attempts at the deferred ones follows.
    Pausing {
        /// The wait before the round.
        wait: Duration,
        /// How many prefixes are deferred.
        prefixes: usize,
    },
    /// A prefix and its report are in the archive.
    Stored(StoredPrefix),
    /// The last attempt at a prefix failed.
    Failed(FailedPrefix),
}

/// Sends an event to the reporter. A reporter that has ended does not end the run.
pub async fn send(events: &mpsc::Sender<RunEvent>, event: RunEvent) {
    let _ = events.send(event).await;
}

/// One line of `run --json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventRecord<'run> {
    /// The run took over the lock of a run that died.
    TookOver {
        /// The dead run, as its lock describes it.
        owner: &'run str,
    },
    /// The account may not read what it writes, so that nothing stored is read back.
    ReadDenied,
    /// An earlier run has already stored these prefixes.
    Kept {
        /// The prefixes.
        prefixes: Vec<Prefix>,
    },
    /// The base, or that of one prefix, cannot be used, so that every range is fetched.
    BaseUnusable {
        /// The prefix; null for the whole base.
        prefix: Option<Prefix>,
        /// Why.
        reason: &'run str,
    },
    /// An attempt at a prefix starts.
    Began {
        /// The prefix.
        prefix: Prefix,
        /// The attempt, counted from 1.
        attempt: u32,
    },
    /// An invocation made progress.
    Progress {
        /// The prefix.
        prefix: Prefix,
        /// Ranges in the tar so far.
        ranges: u32,
        /// Their data in bytes.
        bytes: u64,
        /// The invocation's linear memory in bytes.
        linear_memory: u64,
    },
    /// An attempt failed, and another one follows.
    Retrying {
        /// The prefix.
        prefix: Prefix,
        /// The wait before the next attempt.
        wait_seconds: f64,
        /// Why the attempt failed.
        error: &'run Failure,
    },
    /// Nobody makes progress; the run waits for the source, the store or the host to come back.
    Outage {
        /// Seconds since the last progress.
        seconds: f64,
        /// After this many seconds without progress, the run gives up.
        give_up_after_seconds: f64,
        /// Why the last attempt failed.
        error: &'run Failure,
    },
    /// The outage is over.
    OutageEnded {
        /// How long it lasted.
        seconds: f64,
    },
    /// The run has taken over an archive in a bucket from an unfinished run, and waits until no upload of that run can
    /// arrive any more.
    Waiting {
        /// How long.
        seconds: f64,
    },
    /// Only the source has failed a prefix. It is tried again when the others are done.
    Deferred {
        /// The prefix.
        prefix: Prefix,
        /// Invocations.
        attempts: u32,
        /// Why the last one failed.
        error: &'run Failure,
    },
    /// The others are done, and a round of attempts at the deferred ones follows.
    Pausing {
        /// The wait before the round.
        wait_seconds: f64,
        /// How many prefixes are deferred.
        prefixes: usize,
    },
    /// A prefix and its report are in the archive.
    Stored {
        /// The prefix.
        prefix: Prefix,
        /// The tar's name.
        object: &'run str,
        /// The tar's length in bytes.
        content_length: u64,
        /// The tar's CRC32C.
        crc32c: Crc32c,
        /// The tar's generation, if the store gave one.
        generation: Option<&'run str>,
        /// Ranges in the tar.
        ranges: u64,
        /// Hashes in the tar.
        hashes: u64,
        /// The ranges' data in bytes.
        data_bytes: u64,
        /// Range requests sent.
        requests: u64,
        /// How many of them were retries.
        retries: u64,
        /// How long the last invocation took.
        seconds: f64,
        /// The last invocation's peak linear memory in bytes.
        linear_memory_peak: u64,
        /// Invocations.
        attempts: u32,
        /// Ranges that came from the base, because they have not changed.
        reused_ranges: u64,
        /// Their data in bytes.
        reused_bytes: u64,
        /// Whether the tar was uploaded; false if nothing has changed.
        uploaded: bool,
        /// Ranges for which a cache had an error, and which came under another cache key: the first ones.
        cached_errors: &'run [CachedError],
    },
    /// The last attempt at a prefix failed.
    Failed {
        /// The prefix.
        prefix: Prefix,
        /// Invocations.
        attempts: u32,
        /// Why the last one failed.
        error: &'run Failure,
    },
    /// Events are missing here, because nobody read them in time. Progress is not counted.
    Dropped {
        /// How many.
        events: u64,
    },
    /// The run ended. Always the last line.
    End {
        /// Whether every prefix of the run is in the archive.
        complete: bool,
        /// Whether a signal stopped the run.
        stopped: bool,
        /// Sums over what this run stored.
        totals: Totals,
        /// How many prefixes an earlier run had stored.
        kept: usize,
        /// Ranges that came from the base, because they have not changed.
        reused_ranges: u64,
        /// Their data in bytes.
        reused_bytes: u64,
        /// Prefixes in which nothing has changed, so that no tar was uploaded.
        unchanged: u64,
        /// Prefixes that failed.
        failed: Vec<Prefix>,
        /// Prefixes that were not attempted, or given up.
        not_done: &'run [Prefix],
        /// How long the run took.
        seconds: f64,
        /// The largest linear memory of an invocation in bytes.
        linear_memory_peak: u64,
        /// The orchestrator's peak resident memory in bytes.
        rss_peak: u64,
        /// The orchestrator's CPU time.
        cpu_seconds: f64,
    },
}

impl<'run> From<&'run RunEvent> for EventRecord<'run> {
    fn from(event: &'run RunEvent) -> Self {
        match event {
            RunEvent::TookOver { owner } => Self::TookOver { owner },
            RunEvent::ReadDenied => Self::ReadDenied,
            RunEvent::Skipped(skipped) => Self::Kept {
                prefixes: skipped.iter().map(|stored| stored.prefix).collect(),
            },
            RunEvent::BaseUnusable { prefix, reason } => Self::BaseUnusable {
                prefix: *prefix,
                reason,
            },
            RunEvent::Began { prefix, attempt } => Self::Began {
                prefix: *prefix,
                attempt: *attempt,
            },
            RunEvent::Progress { prefix, progress } => Self::Progress {
                prefix: *prefix,
                ranges: progress.ranges,
                bytes: progress.data_bytes,
                linear_memory: progress.linear_memory,
            },
            RunEvent::Retrying {
                prefix,
                failure,
                wait,
            } => Self::Retrying {
                prefix: *prefix,
                wait_seconds: wait.as_secs_f64(),
                error: failure,
            },
            RunEvent::Outage {
                failure,
                elapsed,
                give_up_after,
            } => Self::Outage {
                seconds: elapsed.as_secs_f64(),
                give_up_after_seconds: give_up_after.as_secs_f64(),
                error: failure,
            },
            RunEvent::OutageEnded { elapsed } => Self::OutageEnded {
                seconds: elapsed.as_secs_f64(),
            },
            RunEvent::Waiting { wait } => Self::Waiting {
                seconds: wait.as_secs_f64(),
            },
            RunEvent::Deferred(failed) => Self::Deferred {
                prefix: failed.prefix,
                attempts: failed.attempts,
                error: &failed.failure,
            },
            RunEvent::Pausing { wait, prefixes } => Self::Pausing {
                wait_seconds: wait.as_secs_f64(),
                prefixes: *prefixes,
            },
            RunEvent::Stored(stored) => Self::of_stored(stored),
            RunEvent::Failed(failed) => Self::Failed {
                prefix: failed.prefix,
                attempts: failed.attempts,
                error: &failed.failure,
            },
        }
    }
}

impl<'run> EventRecord<'run> {
    fn of_stored(stored: &'run StoredPrefix) -> Self {
        Self::Stored {
            prefix: stored.prefix,
            object: &stored.object.object,
            content_length: stored.object.content_length,
            crc32c: stored.object.crc32c,
            generation: stored.object.generation.as_deref(),
            ranges: stored.totals.ranges,
            hashes: stored.totals.hashes,
            data_bytes: stored.totals.data_bytes,
            requests: stored.totals.requests,
            retries: stored.totals.retries,
            seconds: stored.duration.as_secs_f64(),
            linear_memory_peak: stored.linear_memory_peak,
            attempts: stored.attempts,
            reused_ranges: stored.reused.ranges,
            reused_bytes: stored.reused.data_bytes,
            uploaded: stored.reused.unchanged_prefixes == 0,
            cached_errors: &stored.cached_errors,
        }
    }

    /// The last line, once the run has ended.
    pub fn end(run: &'run FinishedRun, is_stopped: bool, usage: ResourceUsage) -> Self {
        let outcome = &run.outcome;
        let reused = outcome.reused();
        Self::End {
            complete: outcome.is_complete(),
            stopped: is_stopped,
            totals: outcome.totals(),
            kept: outcome.skipped.len(),
            reused_ranges: reused.ranges,
            reused_bytes: reused.data_bytes,
            unchanged: reused.unchanged_prefixes,
            failed: outcome.failed.keys().copied().collect(),
            not_done: &outcome.not_done,
            seconds: run.elapsed.as_secs_f64(),
            linear_memory_peak: outcome.linear_memory_peak(),
            rss_peak: usage.rss_peak_bytes,
            cpu_seconds: usage.cpu.as_secs_f64(),
        }
    }

    /// The line, without its end.
    pub fn to_line(&self) -> String {
        // A record has string keys and finite numbers, so its serialization cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}
