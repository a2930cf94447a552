//! Where the archive goes: what `dispatch` asks of a destination.
//! When it asks is left to dispatch; how an object is written, to the component and the store.

pub mod bucket;
pub mod folder;

use crate::manifest::Manifest;
use bucket::{BucketPath, BucketPathError};
use jiff::{Timestamp, tz::TimeZone};
use prefix_tar::job::{Crc32c, Report, Upload};
use prefix_tar::prefix::Prefix;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What stands for the month in a destination that is typed.
const MONTH: &str = "{month}";

/// How much longer than an invocation a signed URL lives: it has to be sent, too.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// An object as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its length, in bytes.
    pub content_length: u64,
    /// Its checksum.
    pub crc32c: Crc32c,
    /// Its generation.
    pub generation: String,
    /// Its ETag, where the store gives one.
    pub etag: Option<String>,
}

impl StoredObject {
    /// Whether it is what `report` says was sent.
    pub fn is_of(&self, report: &Report) -> bool {
        self.content_length == report.content_length && self.crc32c == report.crc32c
    }
}

/// Where an archive is kept. One run at a time has it.
#[async_trait::async_trait]
pub trait Destination: Send + Sync {
    /// Gets ready for a run: a manifest of an earlier one goes, because it will not be true any more.
    async fn begin(&self) -> anyhow::Result<()>;

    /// The report that is there of a prefix; `None` where there is none, or none that can be read.
    async fn report(&self, prefix: Prefix) -> anyhow::Result<Option<Report>>;

    /// The object that is there of a prefix.
    async fn object(&self, prefix: Prefix) -> anyhow::Result<Option<StoredObject>>;

    /// Gets ready for an attempt at `prefix`: the PUT is signed for what is there now. The report of an earlier one goes,
    /// or is told from a true one by its checksum.
    async fn prepare(&self, prefix: Prefix) -> anyhow::Result<Upload>;

    /// Removes the object of a prefix if it is of this generation: it is not what was sent.
    async fn discard(&self, prefix: Prefix, generation: &str) -> anyhow::Result<()>;

    /// The manifest that is there; `None` where there is none, or none that can be read.
    async fn manifest(&self) -> anyhow::Result<Option<Manifest>>;

    /// Writes a report, whole or not at all.
    async fn write_report(&self, report: &Report) -> anyhow::Result<()>;

    /// Writes the manifest, whole or not at all.
    async fn write_manifest(&self, manifest: &Manifest) -> anyhow::Result<()>;

    /// The run that had the destination and died without letting go, where there was one and that is known.
    fn took_over_from(&self) -> Option<String> {
        None
    }

    /// Ends what the destination has under way.
    async fn close(&self) {}
}

/// A destination as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationName {
    /// A local folder.
    Folder(PathBuf),
    /// A path in a bucket of Google Cloud Storage.
    Bucket(BucketPath),
}

impl fmt::Display for DestinationName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(formatter),
            Self::Bucket(path) => path.fmt(formatter),
        }
    }
}

/// Why a text names no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationNameError {
    /// Nothing at all.
    #[error("a destination is a folder, or gs://bucket/path")]
    Empty,
    /// No path in a bucket.
    #[error("`{0}` is no path in a bucket: {1}")]
    Bucket(String, BucketPathError),
    /// A scheme that is not served.
    #[error(
        "`{0}` is not a destination that this version can write to; name a local folder, or gs://bucket/path"
    )]
    Scheme(String),
}

impl DestinationName {
    /// Reads what is typed, where `{month}` stands for the month of `now` in UTC, as in `2026-11`: an archive for each
    /// month needs no right to replace the one before.
    ///
    /// # Errors
    /// It names no destination.
    pub fn at(text: &str, now: Timestamp) -> Result<Self, DestinationNameError> {
        let month = now.to_zoned(TimeZone::UTC).strftime("%Y-%m").to_string();
        text.replace(MONTH, &month).parse()
    }
}

impl FromStr for DestinationName {
    type Err = DestinationNameError;

    fn from_str(text: &str) -> Result<Self, DestinationNameError> {
        if text.is_empty() {
            Err(DestinationNameError::Empty)
        } else if text.starts_with("gs://") {
            text.parse()
                .map(Self::Bucket)
                .map_err(|error| DestinationNameError::Bucket(text.to_owned(), error))
        } else if text.contains("://") {
            Err(DestinationNameError::Scheme(text.to_owned()))
        } else {
            Ok(Self::Folder(text.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_that_of_utc() {
        for (now, shown) in [
            ("2026-11-30T23:59:59Z", "gs://pwned/2026-11"),
            ("2026-12-01T00:30:00+01:00", "gs://pwned/2026-11"),
            ("2027-01-02T03:17:00Z", "gs://pwned/2027-01"),
        ] {
            let now = now.parse().expect("a time");
            let name = DestinationName::at("gs://pwned/{month}", now).expect("a destination");
            assert_eq!(name.to_string(), shown);
        }
        let name = DestinationName::at("/srv/{day}", Timestamp::UNIX_EPOCH);
        assert_eq!(name.expect("a folder").to_string(), "/srv/{day}");
    }
}
