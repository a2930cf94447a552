//! [`StatusRecord`]: the object that `status --json` prints.

use super::compare::Evidence;
use super::inventory::Inventory;
use super::verdict::{CONFIDENCE, Tally, Verdict};
use crate::verify::UnfinishedRun;
use crate::verify::text::one_line;
use jiff::Timestamp;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use prefix_tar::protocol::run_id::RunId;
use prefix_tar::protocol::source::SourceUrl;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What was found out about an archive.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StatusRecord {
    /// The archive: a folder, or gs://bucket/path.
    pub archive: String,
    /// What was found out.
    pub verdict: Verdict,
    /// The same for people, in one line.
    pub summary: String,
    /// What the archive holds; null if there is no manifest that can be read.
    pub holds: Option<Holdings>,
    /// The run that has not finished, if there is one. Until its end, the manifest describes the archive as it was
    /// before.
    pub unfinished_run: Option<UnfinishedRun>,
    /// What failed in the latest run; null if it left no measurements.
    pub failures: Option<FailedAttempts>,
    /// The comparison with the source; null if there was none.
    pub sample: Option<SampleRecord>,
}

/// What an archive holds, as its manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Holdings {
    /// The base URL of the source that it was mirrored from.
    pub source: String,
    /// Which hashes it holds: `sha1` or `ntlm`.
    pub mode: String,
    /// The version of prefix-tar, and of the component in it, that wrote the manifest.
    pub version: String,
    /// The version that reads it.
    pub this_version: String,
    /// The run that wrote the manifest; null for manifests of version 0.1.0.
    pub run: Option<RunId>,
    /// When that run started, in RFC 3339.
    pub started: String,
    /// When it stored its last object, in RFC 3339.
    pub finished: String,
    /// How long ago that was; null if the time cannot be read.
    pub age_seconds: Option<u64>,
    /// Prefixes, of 256.
    pub prefixes: u64,
    /// The prefixes of them whose tar or report is not there.
    pub missing: BTreeSet<Prefix>,
    /// Ranges.
    pub ranges: u64,
    /// Hashes.
    pub hashes: u64,
    /// The ranges' data in bytes.
    pub data_bytes: u64,
    /// The tars' lengths in bytes.
    pub tar_bytes: u64,
}

/// The attempts of a run that failed. If the run has finished, later attempts succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FailedAttempts {
    /// The run.
    pub run: RunId,
    /// How many attempts failed.
    pub attempts: u32,
    /// How many failed in each way.
    pub kinds: BTreeMap<String, u32>,
    /// The prefixes that they were about.
    pub prefixes: BTreeSet<Prefix>,
}

/// A sample of the archive's ranges, compared with the source.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SampleRecord {
    /// The base URL of the source that was asked.
    pub source: String,
    /// Ranges in the sample.
    pub ranges: u32,
    /// How many of them are the same.
    pub same: u32,
    /// How many of them are the same, by what shows it.
    pub same_by: BTreeMap<Evidence, u32>,
    /// The ranges that differ.
    pub differing: BTreeSet<RangeName>,
    /// How many could not be compared.
    pub unknown: u32,
    /// Why they could not, and how many for each reason.
    pub reasons: BTreeMap<String, u32>,
    /// The largest share of all ranges that may differ, with the probability `confidence`; null unless nothing is new.
    pub differing_share_max: Option<f64>,
    /// That probability.
    pub confidence: f64,
}

impl StatusRecord {
    /// The record of an archive of which nothing is known.
    pub fn new(archive: &str) -> Self {
        Self {
            archive: one_line(archive),
            verdict: Verdict::Unknown,
            summary: String::new(),
            holds: None,
            unfinished_run: None,
            failures: None,
            sample: None,
        }
    }
}

impl Holdings {
    /// What an inventory says at the time `now`.
    pub fn new(inventory: &Inventory, now: Timestamp) -> Self {
        let manifest = &inventory.manifest;
        let totals = &manifest.totals;
        let finished: Option<Timestamp> = manifest.finished.parse().ok();
        Self {
            source: one_line(&manifest.source),
            mode: manifest.mode.to_string(),
            version: one_line(&manifest.version),
            this_version: env!("CARGO_PKG_VERSION").to_owned(),
            run: manifest.run.clone(),
            started: one_line(&manifest.started),
            finished: one_line(&manifest.finished),
            // A clock that was set back gives no negative age.
            age_seconds: finished
                .map(|finished| u64::try_from(now.duration_since(finished).as_secs()).unwrap_or(0)),
            prefixes: inventory.prefixes().len() as u64,
            missing: inventory.missing.clone(),
            ranges: totals.ranges,
            hashes: totals.hashes,
            data_bytes: totals.data_bytes,
            tar_bytes: totals.content_length,
        }
    }
}

impl SampleRecord {
    /// The record of a comparison.
    pub fn new(source: &SourceUrl, tally: &Tally) -> Self {
        Self {
            source: source.to_string(),
            ranges: tally.ranges(),
            same: tally.same(),
            same_by: tally.same.clone(),
            differing: tally.differing.clone(),
            unknown: tally.unknown(),
            reasons: tally.unknown.clone(),
            differing_share_max: tally.differing_share_max(),
            confidence: CONFIDENCE,
        }
    }
}
