//! [`BucketPath`]: a parsed `gs://bucket/path`.

use std::fmt;
use std::str::FromStr;

/// The longest path, in bytes. An object's name has at most 1,024, including `/manifest.json`.
const PATH_BYTES_MAX: usize = 1000;

/// A bucket and a path in it: `gs://bucket/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPath {
    bucket: String,
    path: String,
}

/// Why a text is not a [`BucketPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketPathError {
    /// It does not begin with `gs://`.
    #[error("it does not begin with gs://")]
    Scheme,
    /// The bucket's name is invalid: <https://cloud.google.com/storage/docs/buckets#naming>
    #[error(
        "a bucket's name has 3 to 222 characters of a-z, 0-9, `-`, `_` and `.`, and begins and ends with a letter or digit"
    )]
    Bucket,
    /// The path cannot be part of an object's name, or is too long.
    #[error(
        "the path in the bucket has an empty part, a part `.` or `..`, a control character, or more than {PATH_BYTES_MAX} bytes"
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
    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The name of the object for one of the archive's files.
    pub fn object(&self, file: &str) -> String {
        match self.path.as_str() {
            "" => file.to_owned(),
            path => format!("{path}/{file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_bucket_paths_are_parsed_and_others_refused() {
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
