//! A bucket of Google Cloud Storage as destination. The orchestrator has nothing but the right to sign: what it reads
//! and writes itself, it does by signed URLs, too. How a request is sent and tried again is `requests`'.
//!
//! <https://cloud.google.com/storage/docs/xml-api/overview>

mod files;
mod options;
mod path;
mod requests;

pub use files::BucketFiles;
pub use options::ObjectOptions;
pub use path::{BucketPath, BucketPathError};

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
use std::path::Path;
use std::time::Duration;

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
            // Another code is about the signature, and would be the same for every object.
            StatusCode::FORBIDDEN if answer.code().is_none_or(|code| code == "AccessDenied") => {
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
            Some(_) => self.remove(MANIFEST_NAME, &BTreeMap::new()).await.with_context(|| {
                format!("{} has a complete archive, whose manifest cannot be removed; another path needs no such right", self.to)
            }),
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
