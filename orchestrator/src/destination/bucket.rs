//! Writes an archive to a path in a bucket of Google Cloud Storage.

use super::{
    CopySource, Destination, DestinationError, EXPIRY_MARGIN, WritePermit, Written, cannot_copy,
};
use crate::archive::bucket::{BucketArchive, crc32c_of};
use crate::archive::layout::tar_name;
use crate::archive::{Archive, Base};
use crate::gcs::client::{BucketClient, RequestError};
use crate::gcs::options::ObjectOptions;
use crate::gcs::path::BucketPath;
use crate::origin::Origin;
use crate::sign::{GENERATION_MATCH, PATH_ESCAPED, only_generation};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::utf8_percent_encode;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::job::{Download, Upload};
use prefix_tar::protocol::prefix::Prefix;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a signed write of a small file is valid. Short, because a later run waits for its end.
const WRITE_EXPIRY: Duration = Duration::from_secs(300);

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

    fn headers_for(&self, content_type: &str, base: &Base) -> BTreeMap<String, String> {
        let mut headers = self.headers.clone();
        headers.insert("content-type".to_owned(), content_type.to_owned());
        let generation = base.clone().unwrap_or_else(|| "0".to_owned());
        headers.insert(GENERATION_MATCH.to_owned(), generation);
        headers
    }

    /// What the file is now, if its content is the expected one: its generation.
    async fn generation_if(
        &self,
        file: &str,
        expected: Crc32c,
    ) -> Result<Option<String>, DestinationError> {
        let found = self.client.find(Method::HEAD, file, None).await?;
        let found = found.filter(|found| crc32c_of(&found.headers) == Some(expected));
        Ok(found.and_then(|found| generation_in(&found.headers)))
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

    fn is_shared(&self) -> bool {
        true
    }

    fn upload_life(&self) -> Duration {
        self.expiry
    }

    async fn sign_upload(&self, prefix: Prefix, base: &Base) -> Result<Upload, DestinationError> {
        let headers = self.headers_for("application/x-tar", base);
        let url = self
            .client
            .sign_put(&tar_name(prefix), &headers, self.expiry)
            .await?;
        Ok(Upload { url, headers })
    }

    async fn sign_download(
        &self,
        file: &str,
        generation: &str,
    ) -> Result<Download, DestinationError> {
        let download = self.client.sign_download(file, generation, self.expiry);
        Ok(download.await?)
    }

    fn can_copy(&self, from: &CopySource) -> bool {
        matches!(from, CopySource::Object { origin, .. } if *origin == self.origin().to_string())
    }

    async fn permit_copy(
        &self,
        prefix: Prefix,
        from: &CopySource,
        base: Base,
    ) -> Result<WritePermit, DestinationError> {
        let CopySource::Object {
            path, generation, ..
        } = from
        else {
            return Err(cannot_copy(&tar_name(prefix)));
        };
        let mut headers = self.headers_for("application/x-tar", &base);
        let path = utf8_percent_encode(path, PATH_ESCAPED).to_string();
        headers.insert("x-goog-copy-source".to_owned(), format!("/{path}"));
        let source_generation = "x-goog-copy-source-generation".to_owned();
        headers.insert(source_generation, generation.clone());
        // The object gets its own headers, as if it were uploaded.
        let directive = "x-goog-metadata-directive".to_owned();
        headers.insert(directive, "REPLACE".to_owned());
        let file = tar_name(prefix);
        let url = self.client.sign_put(&file, &headers, self.expiry).await?;
        Ok(WritePermit {
            file,
            base,
            signed: Some((url, headers)),
        })
    }

    async fn copy(
        &self,
        permit: WritePermit,
        _from: &CopySource,
    ) -> Result<Written, DestinationError> {
        let file = permit.file.as_str();
        let (url, headers) = permit
            .signed
            .ok_or_else(|| DestinationError::Other(format!("the copy of {file} is not signed")))?;
        let answer = self
            .client
            .put_signed(&url, file, &headers, Bytes::new())
            .await?;
        match answer.status {
            StatusCode::OK => {
                let found = self.client.find(Method::HEAD, file, None).await?;
                let generation = found.and_then(|found| generation_in(&found.headers));
                generation
                    .map(|generation| Written::Done { generation })
                    .ok_or_else(|| {
                        DestinationError::Other(format!(
                            "the store confirmed a copy to {file}, but has none"
                        ))
                    })
            }
            // Perhaps an earlier attempt, whose answer was lost. Whoever commits looks at what is there.
            StatusCode::PRECONDITION_FAILED => Ok(Written::Conflict),
            _ => Err(answer.into_error().into()),
        }
    }

    async fn discard(&self, prefix: Prefix, generation: &str) -> Result<(), DestinationError> {
        let headers = only_generation(generation);
        Ok(self.remove(&tar_name(prefix), &headers).await?)
    }

    async fn permit_write(&self, file: &str, base: Base) -> Result<WritePermit, DestinationError> {
        let headers = self.headers_for("application/json", &base);
        let url = self.client.sign_put(file, &headers, WRITE_EXPIRY).await?;
        Ok(WritePermit {
            file: file.to_owned(),
            base,
            signed: Some((url, headers)),
        })
    }

    async fn write(
        &self,
        permit: WritePermit,
        content: Vec<u8>,
    ) -> Result<Written, DestinationError> {
        let file = permit.file.as_str();
        let (url, headers) = permit
            .signed
            .ok_or_else(|| DestinationError::Other(format!("the write of {file} is not signed")))?;
        let expected = Crc32c(crc32c::crc32c(&content));
        let answer = self
            .client
            .put_signed(&url, file, &headers, content.into())
            .await?;
        if answer.status == StatusCode::OK {
            let generation = generation_in(&answer.headers);
            if let (Some(stored), Some(generation)) = (crc32c_of(&answer.headers), generation)
                && stored == expected
            {
                return Ok(Written::Done { generation });
            }
            // Not every store states its checksum with the answer to a PUT.
            return match self.generation_if(file, expected).await? {
                Some(generation) => Ok(Written::Done { generation }),
                None => Err(DestinationError::Checksum {
                    object: self.client.path().object(file),
                    expected: expected.to_string(),
                }),
            };
        }
        // An earlier attempt may have succeeded although its answer was lost. An account that may only create objects
        // is denied the second one.
        match self.generation_if(file, expected).await {
            Ok(Some(generation)) => Ok(Written::Done { generation }),
            _ if answer.status == StatusCode::PRECONDITION_FAILED => Ok(Written::Conflict),
            _ => Err(answer.into_error().into()),
        }
    }
}

fn generation_in(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-goog-generation")?;
    value.to_str().ok().map(str::to_owned)
}
