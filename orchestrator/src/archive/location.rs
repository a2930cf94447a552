//! [`ArchiveLocation`]: the folder or the path in a bucket that holds an archive.

use crate::gcs::path::{BucketPath, BucketPathError};
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The placeholder for the month in a typed location.
const MONTH: &str = "{month}";

/// The placeholder for the month before it.
const LAST_MONTH: &str = "{last-month}";

/// The months in which a served archive is looked for.
const RECENT_MONTHS: i32 = 12;

/// A location as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveLocation {
    /// A local folder.
    Folder(PathBuf),
    /// A path in a bucket of Google Cloud Storage.
    Bucket(BucketPath),
}

impl fmt::Display for ArchiveLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(formatter),
            Self::Bucket(path) => path.fmt(formatter),
        }
    }
}

/// Why a text is not a location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// An empty text.
    #[error("an archive is in a folder, or at gs://bucket/path")]
    Empty,
    /// Not a valid path in a bucket.
    #[error("`{0}` is not a path in a bucket: {1}")]
    Bucket(String, BucketPathError),
    /// A scheme that is not supported.
    #[error("`{0}` is not supported; name a local folder, or gs://bucket/path")]
    Scheme(String),
}

impl ArchiveLocation {
    /// Where the archive of a typed location may be, the latest first: with `{month}`, in the month of `now` or in one of
    /// the eleven before. A month's archive has no manifest before its run has ended.
    ///
    /// # Errors
    /// The text is not a location.
    pub fn recent(text: &str, now: Timestamp) -> Result<Vec<Self>, LocationError> {
        let months = if text.contains(MONTH) {
            RECENT_MONTHS
        } else {
            1
        };
        let first = now.to_zoned(TimeZone::UTC).date().first_of_month();
        (0..months)
            .map(|back| {
                let month = first.saturating_sub(back.months()).strftime("%Y-%m");
                text.replace(MONTH, &month.to_string()).parse()
            })
            .collect()
    }

    /// Parses a location and replaces `{month}` by the UTC month of `now`: `2026-11`, and `{last-month}` by the one
    /// before. With an archive per month, an
    /// account needs no permission to replace objects.
    ///
    /// # Errors
    /// The text is not a location.
    pub fn at(text: &str, now: Timestamp) -> Result<Self, LocationError> {
        let first = now.to_zoned(TimeZone::UTC).date().first_of_month();
        let month = first.strftime("%Y-%m").to_string();
        let last_month = first
            .saturating_sub(1.month())
            .strftime("%Y-%m")
            .to_string();
        text.replace(MONTH, &month)
            .replace(LAST_MONTH, &last_month)
            .parse()
    }
}

impl FromStr for ArchiveLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.is_empty() {
            Err(LocationError::Empty)
        } else if text.starts_with("gs://") {
            text.parse()
                .map(Self::Bucket)
                .map_err(|error| LocationError::Bucket(text.to_owned(), error))
        } else if text.contains("://") {
            Err(LocationError::Scheme(text.to_owned()))
        } else {
            Ok(Self::Folder(text.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_the_utc_month() {
        for (now, shown) in [
            ("2026-11-30T23:59:59Z", "gs://pwned/2026-11"),
            ("2026-12-01T00:30:00+01:00", "gs://pwned/2026-11"),
            ("2027-01-02T03:17:00Z", "gs://pwned/2027-01"),
        ] {
            let now = now.parse().expect("a time");
            let name = ArchiveLocation::at("gs://pwned/{month}", now).expect("a location");
            assert_eq!(name.to_string(), shown);
        }
        let now = "2026-02-28T12:00:00Z".parse().expect("a time");
        let recent = ArchiveLocation::recent("gs://pwned/{month}", now).expect("locations");
        let recent: Vec<String> = recent.iter().map(ToString::to_string).collect();
        assert_eq!(recent.len(), 12);
        assert_eq!(
            recent[..3],
            [
                "gs://pwned/2026-02",
                "gs://pwned/2026-01",
                "gs://pwned/2025-12"
            ]
        );
        let now = "2027-01-31T12:00:00Z".parse().expect("a time");
        let last = ArchiveLocation::at("gs://pwned/{last-month}", now).expect("a location");
        assert_eq!(last.to_string(), "gs://pwned/2026-12");
        let fixed = ArchiveLocation::recent("/srv", now).expect("locations");
        assert_eq!(fixed, [ArchiveLocation::Folder("/srv".into())]);
        let name = ArchiveLocation::at("/srv/{day}", Timestamp::UNIX_EPOCH);
        assert_eq!(name.expect("a folder").to_string(), "/srv/{day}");
    }
}
