//! Stores the body of a PUT as an object if it is complete and every condition holds.

use crate::checksum::Crc32c;
use crate::error::StoreError;
use crate::headers::{HASH, describe, generation_match, text};
use crate::objects::{GenerationMatch, Objects, PartialObject};
use crate::permissions::Permission;
use crate::{OBJECT_BYTES_MAX, StoreBody, empty, on_disk};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

/// How much of a body is collected before it is written to disk, in bytes. The last read can exceed
/// it, and a second batch of the same size can be in the middle of its write.
const WRITE_BYTES: usize = 256 * 1024;

/// The length of a PUT and the conditions in its headers.
struct PutConditions {
    content_length: u64,
    generation: GenerationMatch,
    crc32c: Option<Crc32c>,
}

impl PutConditions {
    fn of(headers: &HeaderMap, body: &impl Body) -> Result<Self, StoreError> {
        let content_length = match (headers.get(CONTENT_LENGTH), body.size_hint().exact()) {
            (Some(_), Some(exact)) => exact,
            _ => return Err(StoreError::MissingContentLength),
        };
        if content_length > OBJECT_BYTES_MAX {
            return Err(StoreError::EntityTooLarge);
        }
        let generation = generation_match(headers)?;
        if let Some(range) = text(headers, "x-goog-content-length-range") {
            check_length_range(range, content_length)?;
        }
        let hashes = headers.get_all(HASH).iter();
        let crc32c = Crc32c::of_goog_hash(hashes.filter_map(|value| value.to_str().ok()));
        Ok(Self {
            content_length,
            generation,
            crc32c,
        })
    }
}

fn check_length_range(range: &str, content_length: u64) -> Result<(), StoreError> {
    let bounds = range
        .split_once(',')
        .and_then(|(min, max)| Some((min.trim().parse().ok()?, max.trim().parse().ok()?)));
    let (min, max): (u64, u64) = bounds.ok_or(StoreError::InvalidArgument(
        "x-goog-content-length-range must be MIN,MAX.",
    ))?;
    if content_length < min {
        Err(StoreError::EntityTooSmall)
    } else if content_length > max {
        Err(StoreError::EntityTooLarge)
    } else {
        Ok(())
    }
}

/// Stores a body as an object. Without `may_replace`, it refuses to replace an existing one. Sets
/// `body` to `None` once there is nothing left to read from it.
pub(crate) async fn put<RequestBody>(
    objects: Arc<Objects>,
    path: PathBuf,
    headers: &HeaderMap,
    body: &mut Option<RequestBody>,
    upload: OwnedSemaphorePermit,
    may_replace: bool,
) -> Result<Response<StoreBody>, StoreError>
where
    RequestBody: Body<Data = Bytes> + Send + Unpin,
{
    let incoming = body.as_mut().ok_or(StoreError::InternalError)?;
    let conditions = PutConditions::of(headers, incoming)?;
    let requested = conditions.generation;
    // Replacing an object deletes the old one, so it needs that permission, too.
    let permitted = match may_replace {
        true => requested,
        false => GenerationMatch::Absent,
    };
    let denied = move |error| match error {
        StoreError::PreconditionFailed if !may_replace => {
            StoreError::PermissionDenied(Permission::Delete.as_str())
        }
        error => error,
    };
    let (objects, path, partial) = on_disk(move || {
        objects.check_generation(&path, permitted).map_err(denied)?;
        objects.check_generation(&path, requested)?;
        let partial = objects.begin(&path)?;
        Ok((objects, path, partial))
    })
    .await?;
    let mut writer = Writer::new(partial, upload);
    let received = receive(incoming, &mut writer).await;
    if matches!(received, Ok(_) | Err(StoreError::IncompleteBody)) {
        *body = None;
    }
    if received != Ok(conditions.content_length) {
        writer.abandon().await;
        return Err(received.err().unwrap_or(StoreError::IncompleteBody));
    }
    let (partial, upload) = writer.finish().await?;
    if conditions
        .crc32c
        .is_some_and(|sent| sent != partial.crc32c())
    {
        return Err(StoreError::BadDigest);
    }
    let metadata = on_disk(move || {
        let committed = objects.commit(partial, &path, permitted).map_err(denied);
        drop(upload);
        committed
    })
    .await?;
    let mut response = empty(StatusCode::OK);
    describe(response.headers_mut(), &metadata)?;
    Ok(response)
}

/// Passes a body to the writer and returns its length in bytes.
async fn receive<RequestBody>(
    body: &mut RequestBody,
    writer: &mut Writer,
) -> Result<u64, StoreError>
where
    RequestBody: Body<Data = Bytes> + Unpin,
{
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StoreError::IncompleteBody)?;
        if let Ok(bytes) = frame.into_data() {
            received += bytes.len() as u64;
            writer.push(bytes).await?;
        }
    }
    Ok(received)
}

/// Writes an object in batches: while one is being written to disk, the next is collected.
struct Writer {
    collected: Vec<Bytes>,
    collected_bytes: usize,
    /// The write of the previous batch.
    writing: Option<JoinHandle<Result<PartialUpload, StoreError>>>,
}

/// An unfinished object, and the permit that counts its upload as in progress.
type PartialUpload = (PartialObject, OwnedSemaphorePermit);

impl Writer {
    fn new(partial: PartialObject, upload: OwnedSemaphorePermit) -> Self {
        Self {
            collected: Vec::new(),
            collected_bytes: 0,
            writing: Some(tokio::task::spawn_blocking(move || Ok((partial, upload)))),
        }
    }

    async fn push(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.collected_bytes += bytes.len();
        self.collected.push(bytes);
        if self.collected_bytes < WRITE_BYTES {
            return Ok(());
        }
        let (partial, upload) = self.written().await?;
        let batch = std::mem::take(&mut self.collected);
        self.collected_bytes = 0;
        let append = tokio::task::spawn_blocking(move || append(partial, upload, &batch));
        self.writing = Some(append);
        Ok(())
    }

    /// Removes the unfinished object. It is gone when this returns.
    async fn abandon(mut self) {
        let _ = self.written().await;
    }

    /// Writes the last batch.
    async fn finish(mut self) -> Result<PartialUpload, StoreError> {
        let (partial, upload) = self.written().await?;
        let batch = std::mem::take(&mut self.collected);
        on_disk(move || append(partial, upload, &batch)).await
    }

    /// Waits until the previous batch is on disk.
    async fn written(&mut self) -> Result<PartialUpload, StoreError> {
        let writing = self.writing.take().ok_or(StoreError::InternalError)?;
        writing.await.map_err(|_| StoreError::InternalError)?
    }
}

fn append(
    mut partial: PartialObject,
    upload: OwnedSemaphorePermit,
    batch: &[Bytes],
) -> Result<PartialUpload, StoreError> {
    batch.iter().try_for_each(|bytes| partial.append(bytes))?;
    Ok((partial, upload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_outside_the_signed_length_range_is_refused() {
        assert_eq!(check_length_range("0,10", 10), Ok(()));
        assert_eq!(
            check_length_range("0,10", 11),
            Err(StoreError::EntityTooLarge)
        );
        assert_eq!(
            check_length_range("5,10", 4),
            Err(StoreError::EntityTooSmall)
        );
        assert!(check_length_range("5", 4).is_err());
    }
}
