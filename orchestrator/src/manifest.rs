//! `manifest.json`: what an archive holds, written last, so that it is there only when all of it is.
//! Where it is written is left to `destination`; whether it is true, to `verify`.

use prefix_tar::job::{Crc32c, Report};
use prefix_tar::prefix::Prefix;
use serde::{Deserialize, Serialize};

/// The manifest's name in the archive.
pub const MANIFEST_NAME: &str = "manifest.json";

/// The tar of a prefix in the archive.
pub fn object_name(prefix: Prefix) -> String {
    format!("{prefix}.tar")
}

/// The report of a prefix in the archive.
pub fn report_name(prefix: Prefix) -> String {
    format!("{prefix}.json")
}

/// One object of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestObject {
    /// The prefix.
    pub prefix: Prefix,
    /// The object's name, relative to the manifest.
    pub object: String,
    /// Its length, in bytes.
    pub content_length: u64,
    /// Its checksum.
    pub crc32c: Crc32c,
    /// Its generation, where the store gave one.
    pub generation: Option<String>,
}

impl ManifestObject {
    /// What the manifest says of the object that `report` is about.
    pub fn of_report(report: &Report) -> Self {
        Self {
            prefix: report.prefix,
            object: object_name(report.prefix),
            content_length: report.content_length,
            crc32c: report.crc32c,
            generation: report.generation.clone(),
        }
    }
}

/// Sums over all prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Prefixes.
    pub prefixes: u64,
    /// Ranges.
    pub ranges: u64,
    /// Hashes.
    pub hashes: u64,
    /// The ranges' data, in bytes.
    pub data_bytes: u64,
    /// The objects' lengths, in bytes.
    pub content_length: u64,
    /// Range requests that were sent.
    pub requests: u64,
    /// Those of them that repeated another.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `prefix-tar`.
    pub tool: String,
    /// The version that wrote it.
    pub version: String,
    /// The source that it was mirrored from.
    pub source: String,
    /// When the run began, in RFC 3339.
    pub started: String,
    /// When the last object was stored, in RFC 3339.
    pub finished: String,
    /// The sums.
    pub totals: Totals,
    /// Every object, in the order of the prefixes.
    pub objects: Vec<ManifestObject>,
}

impl Manifest {
    /// Whether both say the same of an archive, whenever and by whichever version they were written.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        (&self.source, &self.totals, &self.objects)
            == (&other.source, &other.totals, &other.objects)
    }
}
