//! `gs://bucket/path`: which bucket, and which names objects have in it.

use std::fmt;
use std::str::FromStr;

/// A path in a bucket, in bytes: an object's name has 1,024 at the most, with `/manifest.json` behind the path.
const PATH_BYTES_MAX: usize = 1000;

/// A bucket and a path in it: `gs://bucket/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPath {
    pub(super) bucket: String,
    path: String,
}

/// Why a text is no path in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketPathError {
    /// Not `gs://`.
    #[error("it does not begin with gs://")]
    Scheme,
    /// Not a bucket's name: <https://cloud.google.com/storage/docs/buckets#naming>
    #[error(
        "a bucket's name has 3 to 222 of a-z, 0-9, `-`, `_` and `.`, and begins and ends with a letter or digit"
    )]
    Bucket,
    /// Not a path that objects can have.
    #[error(
        "the path in the bucket has empty or dotted parts, control characters, or more than {PATH_BYTES_MAX} bytes"
    )]
    Path,
}

impl FromStr for BucketPath {
    type Err = BucketPathError;

    fn from_str(text: &str) -> Result<Self, BucketPathError> {
        let text = text.strip_prefix("gs://").ok_or(BucketPathError::Scheme)?;
        let (bucket, path) = text.split_once('/').unwrap_or((text, ""));
        let is_outer = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let bytes = bucket.as_bytes();
        let is_bucket = (3..=222).contains(&bytes.len())
            && is_outer(bytes.first())
            && is_outer(bytes.last())
            && bytes.iter().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(byte)
            });
        if !is_bucket {
            return Err(BucketPathError::Bucket);
        }
        let path = path.trim_end_matches('/');
        let is_path = path.is_empty()
            || path.len() <= PATH_BYTES_MAX
                && !path.chars().any(char::is_control)
                && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_path {
            return Err(BucketPathError::Path);
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for BucketPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "gs://{}", self.bucket)?;
        match self.path.as_str() {
            "" => Ok(()),
            path => write!(formatter, "/{path}"),
        }
    }
}

impl BucketPath {
    pub(super) fn object(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_bucket_is_told_from_what_is_none() {
        for (text, shown, object) in [
            ("gs://pwned", "gs://pwned", "AB.tar"),
            ("gs://pwned/", "gs://pwned", "AB.tar"),
            (
                "gs://my-bucket.example/a b/c+d%",
                "gs://my-bucket.example/a b/c+d%",
                "a b/c+d%/AB.tar",
            ),
        ] {
            let path: BucketPath = text.parse().expect("a path");
            assert_eq!(path.to_string(), shown);
            assert_eq!(path.object("AB.tar"), object);
        }
        let long = format!("gs://pwned/{}", "a".repeat(PATH_BYTES_MAX));
        assert!(long.parse::<BucketPath>().is_ok(), "at the bound");
        let longer = format!("{long}a");
        for (text, error) in [
            ("s3://pwned", BucketPathError::Scheme),
            ("gs://", BucketPathError::Bucket),
            ("gs://ab", BucketPathError::Bucket),
            ("gs://Pwned", BucketPathError::Bucket),
            ("gs://-pwned", BucketPathError::Bucket),
            ("gs://pwned//a", BucketPathError::Path),
            ("gs://pwned/a/../b", BucketPathError::Path),
            ("gs://pwned/a\n", BucketPathError::Path),
            (longer.as_str(), BucketPathError::Path),
        ] {
            assert_eq!(text.parse::<BucketPath>(), Err(error), "{text:?}");
        }
    }
}
