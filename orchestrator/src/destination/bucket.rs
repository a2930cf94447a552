//! A bucket of Google Cloud Storage as destination. The orchestrator has nothing but the right to sign: what it reads
//! and writes itself, it does by signed URLs, too. How a request is sent and tried again is `requests`'.
//!
//! <https://cloud.google.com/storage/docs/xml-api/overview>

mod files;
mod requests;

pub use files::BucketFiles;

use super::{Destination, EXPIRY_MARGIN, StoredObject};
use crate::host::embedded::Origin;
use crate::manifest::{MANIFEST_NAME, Manifest, object_name, report_name};
use crate::sign::UrlSigner;
use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use prefix_tar::authority::Authority;
use prefix_tar::job::{Crc32c, Report, Upload};
use prefix_tar::prefix::Prefix;
use prefix_tar::store_answer::crc32c_of_goog_hash;
use requests::{Answer, Requests};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Where Google's store is.
pub const ENDPOINT_DEFAULT: &str = "https://storage.googleapis.com";

/// The customary environment variable for another store.
const EMULATOR_VARIABLE: &str = "STORAGE_EMULATOR_HOST";

/// A path in a bucket, in bytes: an object's name has 1,024 at the most, with `/manifest.json` behind the path.
const PATH_BYTES_MAX: usize = 1000;

/// A bucket and a path in it: `gs://bucket/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPath {
    bucket: String,
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
    fn object(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}/{name}"),
        }
    }
}

/// How objects are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectOptions {
    /// Another store than Google's, as in `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// Another storage class than the bucket's, as in `NEARLINE`.
    pub storage_class: Option<String>,
    /// A key of Cloud KMS.
    pub kms_key: Option<String>,
    /// What readers may keep in caches, as in `public, max-age=3600`.
    pub cache_control: Option<String>,
}

impl ObjectOptions {
    fn headers(&self) -> BTreeMap<String, String> {
        [
            ("x-goog-storage-class", &self.storage_class),
            ("x-goog-encryption-kms-key-name", &self.kms_key),
            ("cache-control", &self.cache_control),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
        .collect()
    }

    /// The store's URL: as asked for, or the environment's emulator, or Google's.
    fn endpoint(&self) -> String {
        let emulator = || std::env::var(EMULATOR_VARIABLE).ok();
        let endpoint = self.endpoint.clone().or_else(emulator);
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
        let endpoint = endpoint.trim_end_matches('/');
        match endpoint.contains("://") {
            true => endpoint.to_owned(),
            // The customary form of the emulator's variable has no scheme.
            false => format!("http://{endpoint}"),
        }
    }
}

/// A path in a bucket that is written to.
#[derive(Debug)]
pub struct BucketDestination {
    to: BucketPath,
    requests: Requests,
    origin: Origin,
    headers: BTreeMap<String, String>,
    expiry: Duration,
}

impl BucketDestination {
    /// Opens the destination with the credentials that Google's clients find: `GOOGLE_APPLICATION_CREDENTIALS`, the
    /// user's, or the metadata server's. A signed URL lives for `deadline` and a little longer.
    ///
    /// # Errors
    /// There are no credentials that can sign, or the endpoint or the CA file is not usable.
    pub fn open(
        to: BucketPath,
        options: &ObjectOptions,
        deadline: Duration,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let endpoint = options.endpoint();
        let uri: http::Uri = endpoint
            .parse()
            .with_context(|| format!("the store's endpoint {endpoint} is no URL"))?;
        let authority: Authority = uri
            .authority()
            .and_then(|authority| authority.as_str().parse().ok())
            .with_context(|| format!("the store's endpoint {endpoint} has no host"))?;
        let is_https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        anyhow::ensure!(
            is_https || authority.is_loopback(),
            "the store's endpoint {endpoint} is http and not on this machine; signatures would be seen on the way"
        );
        let signer = UrlSigner::of_environment(endpoint, to.bucket.clone())?;
        Ok(Self {
            requests: Requests::new(signer, ca_file)?,
            origin: Origin::new(is_https, authority.as_str()),
            headers: options.headers(),
            expiry: deadline + EXPIRY_MARGIN,
            to,
        })
    }

    /// What the component has to reach to write to it.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Asks for an object; `None` where there is none, or where whoever signs may not see whether there is.
    async fn ask(&self, method: Method, name: &str) -> anyhow::Result<Option<Answer>> {
        let object = self.to.object(name);
        let answer = self
            .requests
            .send(method, &object, &BTreeMap::new(), Bytes::new())
            .await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer)),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::FORBIDDEN => {
                tracing::debug!(object, "it may not be seen whether this object is there");
                Ok(None)
            }
            _ => Err(answer.unexpected()),
        }
    }

    async fn read_json<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let answer = self.ask(Method::GET, name).await?;
        Ok(answer.and_then(|answer| serde_json::from_slice(&answer.body).ok()))
    }

    async fn put_json(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        let expected = Crc32c(crc32c::crc32c(&text));
        let object = self.to.object(name);
        let mut headers = self.headers.clone();
        headers.insert("content-type".to_owned(), "application/json".to_owned());
        let answer = self
            .requests
            .send(Method::PUT, &object, &headers, text.into())
            .await?;
        if answer.status == StatusCode::OK {
            anyhow::ensure!(
                crc32c_of(&answer.headers) == Some(expected),
                "{object} was stored with another checksum than {expected}, or without one"
            );
            return Ok(());
        }
        // An earlier attempt may have stored it although its answer was lost, and who may only create objects is
        // denied to do it again.
        match self.ask(Method::HEAD, name).await {
            Ok(Some(there)) if crc32c_of(&there.headers) == Some(expected) => Ok(()),
            _ => Err(answer.unexpected()),
        }
    }

    async fn remove(&self, name: &str, headers: &BTreeMap<String, String>) -> anyhow::Result<()> {
        let object = self.to.object(name);
        let answer = self
            .requests
            .send(Method::DELETE, &object, headers, Bytes::new())
            .await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(answer.unexpected()),
        }
    }
}

fn text<'headers>(headers: &'headers HeaderMap, name: &str) -> Option<&'headers str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn crc32c_of(headers: &HeaderMap) -> Option<Crc32c> {
    let values = headers.get_all("x-goog-hash").iter();
    crc32c_of_goog_hash(values.filter_map(|value| value.to_str().ok()))
}

#[async_trait::async_trait]
impl Destination for BucketDestination {
    async fn begin(&self) -> anyhow::Result<()> {
        match self.ask(Method::HEAD, MANIFEST_NAME).await? {
            Some(_) => self.remove(MANIFEST_NAME, &BTreeMap::new()).await,
            None => Ok(()),
        }
    }

    async fn report(&self, prefix: Prefix) -> anyhow::Result<Option<Report>> {
        self.read_json(&report_name(prefix)).await
    }

    async fn manifest(&self) -> anyhow::Result<Option<Manifest>> {
        self.read_json(MANIFEST_NAME).await
    }

    async fn object(&self, prefix: Prefix) -> anyhow::Result<Option<StoredObject>> {
        let Some(answer) = self.ask(Method::HEAD, &object_name(prefix)).await? else {
            return Ok(None);
        };
        let headers = &answer.headers;
        let length = text(headers, "x-goog-stored-content-length")
            .or_else(|| text(headers, "content-length"))
            .and_then(|length| length.parse().ok());
        let generation = text(headers, "x-goog-generation");
        match (length, crc32c_of(headers), generation) {
            (Some(content_length), Some(crc32c), Some(generation)) => Ok(Some(StoredObject {
                content_length,
                crc32c,
                generation: generation.to_owned(),
                etag: text(headers, "etag").map(str::to_owned),
            })),
            _ => anyhow::bail!(
                "{} has no length, checksum or generation in its headers; is this store GCS or compatible?",
                object_name(prefix)
            ),
        }
    }

    async fn prepare(&self, prefix: Prefix) -> anyhow::Result<Upload> {
        let generation = self
            .object(prefix)
            .await?
            .map_or_else(|| "0".to_owned(), |object| object.generation);
        let mut headers = self.headers.clone();
        headers.insert("content-type".to_owned(), "application/x-tar".to_owned());
        headers.insert("x-goog-if-generation-match".to_owned(), generation);
        let object = self.to.object(&object_name(prefix));
        let url = self
            .requests
            .signer()
            .sign(Method::PUT, &object, &headers, self.expiry)
            .await?;
        Ok(Upload { url, headers })
    }

    async fn discard(&self, prefix: Prefix, generation: &str) -> anyhow::Result<()> {
        let condition = "x-goog-if-generation-match".to_owned();
        let headers = BTreeMap::from([(condition, generation.to_owned())]);
        self.remove(&object_name(prefix), &headers).await
    }

    async fn write_report(&self, report: &Report) -> anyhow::Result<()> {
        self.put_json(&report_name(report.prefix), report).await
    }

    async fn write_manifest(&self, manifest: &Manifest) -> anyhow::Result<()> {
        self.put_json(MANIFEST_NAME, manifest).await
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

    #[test]
    fn an_emulator_is_named_with_or_without_its_scheme() {
        for (endpoint, url) in [
            ("https://storage.example/", "https://storage.example"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ] {
            let options = ObjectOptions {
                endpoint: Some(endpoint.to_owned()),
                ..ObjectOptions::default()
            };
            assert_eq!(options.endpoint(), url);
        }
    }
}
