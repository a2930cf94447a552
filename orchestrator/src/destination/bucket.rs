//! Writes an archive to a path in a bucket of Google Cloud Storage.

use super::{Destination, DestinationError, EXPIRY_MARGIN};
use crate::archive::Archive;
use crate::archive::bucket::{BucketArchive, crc32c_of};
use crate::archive::layout::{MANIFEST_NAME, report_name, tar_name};
use crate::archive::manifest::Manifest;
use crate::gcs::client::{BucketClient, RequestError};
use crate::gcs::options::ObjectOptions;
use crate::gcs::path::BucketPath;
use crate::origin::Origin;
use bytes::Bytes;
use http::{Method, StatusCode};
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::job::Upload;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The precondition on an object's generation; 0 means that it must not exist.
const GENERATION_MATCH: &str = "x-goog-if-generation-match";

/// A path in a bucket.
#[derive(Debug)]
pub struct BucketDestination {
    client: Arc<BucketClient>,
    archive: BucketArchive,
    headers: BTreeMap<String, String>,
    expiry: Duration,
}

impl BucketDestination {
    /// Opens the destination with the credentials that Google's own clients would find. A signed URL outlives
    /// `deadline` by a margin.
    ///
    /// # Errors
    /// No credentials can sign, or the endpoint or the CA file is not usable.
    pub fn open(
        path: BucketPath,
        options: &ObjectOptions,
        deadline: Duration,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let client = Arc::new(BucketClient::open(path, options, ca_file)?);
        Ok(Self {
            archive: BucketArchive::new(Arc::clone(&client)),
            client,
            headers: options.headers(),
            expiry: deadline + EXPIRY_MARGIN,
        })
    }

    async fn put_json(&self, file: &str, value: &impl Serialize) -> Result<(), DestinationError> {
        let mut text = serde_json::to_vec(value)
            .map_err(|error| DestinationError::Other(format!("cannot encode {file}: {error}")))?;
        text.push(b'\n');
        let expected = Crc32c(crc32c::crc32c(&text));
        let mut headers = self.headers.clone();
        headers.insert("content-type".to_owned(), "application/json".to_owned());
        let answer = self
            .client
            .send(Method::PUT, file, &headers, text.into())
            .await?;
        if answer.status == StatusCode::OK {
            return if crc32c_of(&answer.headers) == Some(expected) {
                Ok(())
            } else {
                Err(DestinationError::Checksum {
                    object: self.client.path().object(file),
                    expected: expected.to_string(),
                })
            };
        }
        // An earlier attempt may have succeeded although its answer was lost. An account that may only create objects
        // is denied the second one.
        match self.client.find(Method::HEAD, file, None).await {
            Ok(Some(found)) if crc32c_of(&found.headers) == Some(expected) => Ok(()),
            _ => Err(answer.into_error().into()),
        }
    }

    async fn remove(
        &self,
        file: &str,
        headers: &BTreeMap<String, String>,
    ) -> Result<(), RequestError> {
        let answer = self
            .client
            .send(Method::DELETE, file, headers, Bytes::new())
            .await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(answer.into_error()),
        }
    }
}

#[async_trait::async_trait]
impl Destination for BucketDestination {
    fn origin(&self) -> &Origin {
        self.client.origin()
    }

    fn archive(&self) -> &dyn Archive {
        &self.archive
    }

    async fn begin(&self) -> Result<(), DestinationError> {
        let manifest = self.client.find(Method::HEAD, MANIFEST_NAME, None).await?;
        if manifest.is_none() {
            return Ok(());
        }
        self.remove(MANIFEST_NAME, &BTreeMap::new())
            .await
            .map_err(|error| {
                DestinationError::Other(format!(
                    "{} holds a complete archive whose manifest cannot be removed; write to another path: {error}",
                    self.client.path()
                ))
            })
    }

    async fn prepare(&self, prefix: Prefix) -> Result<Upload, DestinationError> {
        let generation = self
            .archive
            .object(prefix)
            .await?
            .map_or_else(|| "0".to_owned(), |object| object.generation);
        let mut headers = self.headers.clone();
        headers.insert("content-type".to_owned(), "application/x-tar".to_owned());
        headers.insert(GENERATION_MATCH.to_owned(), generation);
        let url = self
            .client
            .sign_put(&tar_name(prefix), &headers, self.expiry)
            .await?;
        Ok(Upload { url, headers })
    }

    async fn discard(&self, prefix: Prefix, generation: &str) -> Result<(), DestinationError> {
        let headers = BTreeMap::from([(GENERATION_MATCH.to_owned(), generation.to_owned())]);
        Ok(self.remove(&tar_name(prefix), &headers).await?)
    }

    async fn write_report(&self, report: &Report) -> Result<(), DestinationError> {
        self.put_json(&report_name(report.prefix), report).await
    }

    async fn write_manifest(&self, manifest: &Manifest) -> Result<(), DestinationError> {
        self.put_json(MANIFEST_NAME, manifest).await
    }
}
