//! The names of an archive's files: `AB.tar`, `AB.json`, `manifest.json`, `run.json` and
//! `measurements.json` under one location.

use prefix_tar::protocol::prefix::Prefix;

/// The manifest.
pub const MANIFEST_NAME: &str = "manifest.json";

/// The record of the latest run.
pub const RUN_RECORD_NAME: &str = "run.json";

/// What the latest run measured of itself.
pub const MEASUREMENTS_NAME: &str = "measurements.json";

/// The tar of a prefix.
pub fn tar_name(prefix: Prefix) -> String {
    format!("{prefix}.tar")
}

/// The report of a prefix.
pub fn report_name(prefix: Prefix) -> String {
    format!("{prefix}.json")
}
