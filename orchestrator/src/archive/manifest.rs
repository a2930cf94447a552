//! [`Manifest`]: what an archive holds. A run writes it last, when every report fits its tar.

use super::layout::tar_name;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::run_id::RunId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One object of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ManifestObject {
    /// The prefix.
    pub prefix: Prefix,
    /// The object's name, relative to the manifest.
    pub object: String,
    /// The length in bytes.
    pub content_length: u64,
    /// The checksum.
    pub crc32c: Crc32c,
    /// The generation, if the store gave one.
    pub generation: Option<String>,
    /// The run that stored it; unknown for objects that version 0.1.0 stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

impl ManifestObject {
    /// The manifest's entry for the object that `report` describes.
    pub fn of_report(report: &Report) -> Self {
        Self {
            prefix: report.prefix,
            object: tar_name(report.prefix),
            content_length: report.content_length,
            crc32c: report.crc32c,
            generation: report.generation.clone(),
            run: report.run.clone(),
        }
    }
}

/// Sums over all prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Prefixes.
    pub prefixes: u64,
    /// Ranges.
    pub ranges: u64,
    /// Hashes.
    pub hashes: u64,
    /// The ranges' data in bytes.
    pub data_bytes: u64,
    /// The objects' lengths in bytes.
    pub content_length: u64,
    /// Range requests that were sent.
    pub requests: u64,
    /// How many of them were retries.
    pub retries: u64,
}

impl Totals {
    /// The totals of one prefix.
    pub fn of_report(report: &Report) -> Self {
        Self {
            prefixes: 1,
            ranges: u64::from(report.ranges),
            hashes: report.hashes,
            data_bytes: report.data_bytes,
            content_length: report.content_length,
            requests: report.requests,
            retries: report.retries,
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.prefixes += other.prefixes;
        self.ranges += other.ranges;
        self.hashes += other.hashes;
        self.data_bytes += other.data_bytes;
        self.content_length += other.content_length;
        self.requests += other.requests;
        self.retries += other.retries;
    }
}

impl std::iter::Sum for Totals {
    fn sum<Parts: Iterator<Item = Self>>(parts: Parts) -> Self {
        parts.fold(Self::default(), |mut sum, part| {
            sum += part;
            sum
        })
    }
}

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Always `prefix-tar`.
    pub tool: String,
    /// The version that wrote it.
    pub version: String,
    /// The run that wrote it; unknown for manifests of version 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The source's base URL.
    pub source: String,
    /// Which hashes it holds; SHA-1 if absent.
    #[serde(default, skip_serializing_if = "Mode::is_default")]
    pub mode: Mode,
    /// When the run started, in RFC 3339.
    pub started: String,
    /// When the last object was stored, in RFC 3339.
    pub finished: String,
    /// The sums.
    pub totals: Totals,
    /// Every object, ordered by prefix.
    pub objects: Vec<ManifestObject>,
}

impl Manifest {
    /// Whether both describe the same archive, whatever their runs, times and versions.
    pub fn describes_the_same_archive_as(&self, other: &Self) -> bool {
        (&self.source, self.mode, &self.totals, &self.objects)
            == (&other.source, other.mode, &other.totals, &other.objects)
    }
}
