//! An archive in a bucket.

mod download;
#[cfg(test)]
mod tests;

use super::layout::tar_name;
use super::{Archive, Base, ReadError, StoredFile, StoredObject, TarReader};
use crate::gcs::client::{Answer, BucketClient, RequestError};
use bytes::Bytes;
use download::{Download, DownloadSettings};
use http::{HeaderMap, Method, StatusCode};
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::store_answer::crc32c_of_goog_hash;
use std::ops::Range;
use std::sync::Arc;

/// The header with an object's generation.
const GENERATION: &str = "x-goog-generation";

/// Reads an archive from a bucket.
#[derive(Debug)]
pub struct BucketArchive {
    client: Arc<BucketClient>,
    /// Whether a small file counts as missing if the account has no permission to read it.
    denied_is_missing: bool,
    download: DownloadSettings,
}

impl BucketArchive {
    /// The archive at the path of `client`. A small file that the account has no permission to
    /// read counts as missing, so that an account that may only create objects can write one.
    pub fn new(client: Arc<BucketClient>) -> Self {
        Self {
            client,
            denied_is_missing: true,
            download: DownloadSettings::default(),
        }
    }

    /// The same archive for a command that only reads it: a denied permission is an error.
    #[must_use]
    pub fn for_reading_only(self) -> Self {
        Self {
            denied_is_missing: false,
            ..self
        }
    }

    async fn find(
        &self,
        method: Method,
        file: &str,
        byte_range: Option<Range<u64>>,
    ) -> Result<Option<Answer>, ReadError> {
        let found = self.client.find(method, file, byte_range).await;
        found.map_err(|error| self.unreadable(file, &error))
    }

    fn unreadable(&self, file: &str, error: &RequestError) -> ReadError {
        ReadError::Unreadable {
            file: format!("{}/{file}", self.client.path()),
            reason: error.to_string(),
            is_transient: error.is_transient(),
        }
    }

    fn generation_in(&self, answer: &Answer, file: &str) -> Result<String, ReadError> {
        let generation = text(&answer.headers, GENERATION).map(str::to_owned);
        generation.ok_or_else(|| ReadError::Unreadable {
            file: format!("{}/{file}", self.client.path()),
            reason: "the store states no generation; is this store GCS or compatible?".to_owned(),
            is_transient: false,
        })
    }

    fn too_long(&self, file: &str, bytes_max: usize) -> ReadError {
        self.invalid(file, format!("it has more than {bytes_max} bytes"))
    }

    fn invalid(&self, file: &str, reason: String) -> ReadError {
        ReadError::Invalid {
            file: format!("{}/{file}", self.client.path()),
            reason,
        }
    }
}

#[async_trait::async_trait]
impl Archive for BucketArchive {
    async fn read(&self, file: &str, bytes_max: usize) -> Result<Option<StoredFile>, ReadError> {
        let answer = if self.denied_is_missing {
            self.client.find(Method::GET, file, None).await
        } else {
            self.client.get(file, None).await
        };
        let answer = answer.map_err(|error| match error {
            RequestError::TooLong { .. } => self.too_long(file, bytes_max),
            error => self.unreadable(file, &error),
        })?;
        let Some(answer) = answer else {
            return Ok(None);
        };
        if answer.body.len() > bytes_max {
            return Err(self.too_long(file, bytes_max));
        }
        let generation = self.generation_in(&answer, file)?;
        Ok(Some(StoredFile {
            content: answer.body.into(),
            generation,
        }))
    }

    async fn generation(&self, file: &str) -> Result<Base, ReadError> {
        let found = self.find(Method::HEAD, file, None).await?;
        found
            .map(|answer| self.generation_in(&answer, file))
            .transpose()
    }

    async fn is_denied(&self, file: &str) -> Result<bool, ReadError> {
        let denied = self.client.is_denied(file).await;
        denied.map_err(|error| self.unreadable(file, &error))
    }

    async fn object(&self, prefix: Prefix) -> Result<Option<StoredObject>, ReadError> {
        let file = tar_name(prefix);
        let Some(answer) = self.find(Method::HEAD, &file, None).await? else {
            return Ok(None);
        };
        let headers = &answer.headers;
        let length = stored_length(headers);
        let generation = text(headers, GENERATION);
        match (length, crc32c_of(headers), generation) {
            (Some(content_length), Some(crc32c), Some(generation)) => Ok(Some(StoredObject {
                content_length,
                crc32c,
                generation: generation.to_owned(),
                etag: text(headers, "etag").map(str::to_owned),
            })),
            _ => Err(ReadError::Unreadable {
                file: format!("{}/{file}", self.client.path()),
                reason: "the store's HEAD states no length, checksum or generation; is this store GCS or compatible?"
                    .to_owned(),
                is_transient: false,
            }),
        }
    }

    async fn has_tar(&self, prefix: Prefix) -> Result<bool, ReadError> {
        let found = self.find(Method::HEAD, &tar_name(prefix), None).await?;
        Ok(found.is_some())
    }

    async fn open_tar(&self, prefix: Prefix) -> Result<Option<TarReader>, ReadError> {
        let file = tar_name(prefix);
        let client = Arc::clone(&self.client);
        let download = Download::open(client, file.clone(), self.download).await;
        let download = download.map_err(|error| self.unreadable(&file, &error))?;
        Ok(download.map(|download| Box::new(download) as TarReader))
    }

    async fn read_tar_bytes(
        &self,
        prefix: Prefix,
        byte_range: Range<u64>,
    ) -> Result<Option<Bytes>, ReadError> {
        let file = tar_name(prefix);
        let length = byte_range.end.saturating_sub(byte_range.start);
        let answer = match self.client.get(&file, Some(byte_range)).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ok(None),
            Err(RequestError::Refused { status, .. })
                if status == StatusCode::RANGE_NOT_SATISFIABLE =>
            {
                return Err(self.invalid(&file, "it is shorter".to_owned()));
            }
            Err(error) => return Err(self.unreadable(&file, &error)),
        };
        if answer.body.len() as u64 != length {
            let got = answer.body.len();
            return Err(self.invalid(&file, format!("{got} bytes came of {length}")));
        }
        Ok(Some(answer.body))
    }
}

fn text<'headers>(headers: &'headers HeaderMap, name: &str) -> Option<&'headers str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The object's length, from the headers of an answer that has the whole object.
fn stored_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, "x-goog-stored-content-length")
        .or_else(|| text(headers, "content-length"))
        .and_then(|length| length.parse().ok())
}

/// The CRC32C in an answer's `x-goog-hash`, if there is one.
pub fn crc32c_of(headers: &HeaderMap) -> Option<Crc32c> {
    let values = headers.get_all("x-goog-hash").iter();
    crc32c_of_goog_hash(values.filter_map(|value| value.to_str().ok()))
}
