//! The names of an archive's files: `AB.tar`, `AB.json`, `manifest.json`, `run.json` and
//! `measurements.json` under one location.

use prefix_tar::protocol::prefix::Prefix;

/// The manifest.
pub const MANIFEST_NAME: &str = "manifest.json";

/// The record of the latest run.
pub const RUN_RECORD_NAME: &str = "run.json";

/// What the latest run measured of itself.
pub const MEASUREMENTS_NAME: &str = "measurements.json";

/// Whether a file of an archive has this name.
pub fn is_archive_name(name: &str) -> bool {
    let of_prefix = |(stem, suffix): (&str, &str)| {
        matches!(suffix, "tar" | "json") && stem.parse::<Prefix>().is_ok()
    };
    [MANIFEST_NAME, RUN_RECORD_NAME, MEASUREMENTS_NAME].contains(&name)
        || name.split_once('.').is_some_and(of_prefix)
}

/// The tar of a prefix.
pub fn tar_name(prefix: Prefix) -> String {
    format!("{prefix}.tar")
}

/// The report of a prefix.
pub fn report_name(prefix: Prefix) -> String {
    format!("{prefix}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_an_archive_are_told_from_others() {
        for name in [
            "manifest.json",
            "run.json",
            "measurements.json",
            "AB.tar",
            "00.json",
        ] {
            assert!(is_archive_name(name), "{name}");
        }
        for name in [
            "passwords.txt",
            "AB.txt",
            "ZZ.tar",
            "ABC.tar",
            "AB",
            "AB.tar.gz",
        ] {
            assert!(!is_archive_name(name), "{name}");
        }
    }
}
