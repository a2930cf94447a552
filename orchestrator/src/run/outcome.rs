//! How a run ended, prefix by prefix.

use crate::archive::manifest::{ManifestObject, Totals};
use crate::archive::measurements::Measurements;
use prefix_tar::protocol::failure::Failure;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::{CachedError, Report};
use std::collections::BTreeMap;
use std::time::Duration;

/// What came from the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reused {
    /// Ranges that have not changed.
    pub ranges: u64,
    /// Their data in bytes.
    pub data_bytes: u64,
    /// Prefixes in which nothing has changed, so that no tar was uploaded.
    pub unchanged_prefixes: u64,
}

impl Reused {
    fn of_report(report: &Report) -> Self {
        report
            .reuse
            .as_ref()
            .map_or_else(Self::default, |reuse| Self {
                ranges: u64::from(reuse.ranges),
                data_bytes: reuse.data_bytes,
                unchanged_prefixes: u64::from(!reuse.uploaded),
            })
    }
}

impl std::iter::Sum for Reused {
    fn sum<Parts: Iterator<Item = Self>>(parts: Parts) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            ranges: sum.ranges + part.ranges,
            data_bytes: sum.data_bytes + part.data_bytes,
            unchanged_prefixes: sum.unchanged_prefixes + part.unchanged_prefixes,
        })
    }
}

/// A prefix that is in the archive. Reports have about 300 KB each, so only this summary stays in
/// memory.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// The manifest's entry for it.
    pub object: ManifestObject,
    /// Its part of the totals.
    pub totals: Totals,
    /// How long its last invocation took.
    pub duration: Duration,
    /// The peak linear memory of its last invocation in bytes.
    pub linear_memory_peak: u64,
    /// The number of invocations.
    pub attempts: u32,
    /// What came from the base.
    pub reused: Reused,
    /// Ranges for which a cache had an error: the first ones.
    pub cached_errors: Vec<CachedError>,
}

impl StoredPrefix {
    /// The summary of a report.
    pub fn new(report: &Report, attempts: u32) -> Self {
        Self {
            prefix: report.prefix,
            object: ManifestObject::of_report(report),
            totals: Totals::of_report(report),
            duration: Duration::try_from_secs_f64(report.seconds.total).unwrap_or_default(),
            linear_memory_peak: report.linear_memory_peak,
            attempts,
            reused: Reused::of_report(report),
            cached_errors: report.cached_errors.clone(),
        }
    }
}

/// A prefix that could not be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// Why its last invocation failed.
    pub failure: Failure,
    /// The number of invocations.
    pub attempts: u32,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Prefixes that an earlier run had stored.
    pub skipped: BTreeMap<Prefix, StoredPrefix>,
    /// Prefixes that this run stored.
    pub stored: BTreeMap<Prefix, StoredPrefix>,
    /// Prefixes that failed.
    pub failed: BTreeMap<Prefix, FailedPrefix>,
    /// Prefixes that were not attempted, or given up.
    pub not_done: Vec<Prefix>,
}

impl Outcome {
    /// The outcome of a run that has stored nothing itself so far.
    pub(super) fn of_skipped(skipped: Vec<StoredPrefix>) -> Self {
        Self {
            skipped: skipped
                .into_iter()
                .map(|stored| (stored.prefix, stored))
                .collect(),
            ..Self::default()
        }
    }

    /// Whether every prefix is in the archive.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.not_done.is_empty()
    }

    /// Everything that is in the archive, ordered by prefix.
    pub fn archived(&self) -> Vec<&StoredPrefix> {
        let mut archived: Vec<_> = self.skipped.values().chain(self.stored.values()).collect();
        archived.sort_unstable_by_key(|stored| stored.prefix);
        archived
    }

    /// Those of `prefixes` that neither succeeded nor failed.
    pub(super) fn without_result(&self, mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
        prefixes.retain(|prefix| {
            !self.stored.contains_key(prefix) && !self.failed.contains_key(prefix)
        });
        prefixes
    }

    /// The sums over what this run stored.
    pub fn totals(&self) -> Totals {
        self.stored.values().map(|stored| stored.totals).sum()
    }

    /// What this run took from the base.
    pub fn reused(&self) -> Reused {
        self.stored.values().map(|stored| stored.reused).sum()
    }

    /// The largest linear memory of this run's invocations in bytes.
    pub fn linear_memory_peak(&self) -> u64 {
        let peaks = self.stored.values().map(|stored| stored.linear_memory_peak);
        peaks.max().unwrap_or(0)
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct FinishedRun {
    /// How each prefix ended.
    pub outcome: Outcome,
    /// From the first invocation to the manifest.
    pub elapsed: Duration,
    /// What this process measured; `None` if it had nothing to do.
    pub measurements: Option<Measurements>,
}
