//! Stores the body of a PUT as an object if it is complete and every condition holds.

use crate::conditions;
use crate::digests::DeclaredDigests;
use crate::error::StoreError;
use crate::headers::{describe, single};
use crate::objects::{GenerationMatch, Objects, PartialObject};
use crate::pace::{Pace, PacedReader};
use crate::permissions::Permission;
use crate::{OBJECT_BYTES_MAX, StoreBody, empty, on_disk};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Response, StatusCode};
use http_body::Body;
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
    digests: DeclaredDigests,
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
        let generation = conditions::of_write(headers)?;
        if let Some(range) = single(headers, "x-goog-content-length-range")? {
            check_length_range(range, content_length)?;
        }
        Ok(Self {
            content_length,
            generation,
            digests: DeclaredDigests::of(headers)?,
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

/// What an upload may do, and what it takes.
pub(crate) struct UploadTerms {
    /// Counts the upload as in progress.
    pub(crate) permit: OwnedSemaphorePermit,
    /// Whether it may replace an existing object.
    pub(crate) may_replace: bool,
    pub(crate) pace: Pace,
}

impl UploadTerms {
    /// What the object may be that a write replaces. Replacing one deletes it, so it needs that permission, too.
    pub(crate) const fn permitted(&self, requested: GenerationMatch) -> GenerationMatch {
        match self.may_replace {
            true => requested,
            false => GenerationMatch::Absent,
        }
    }

    /// The error for a write that failed: one that may not replace anything was denied, whatever it required.
    pub(crate) fn denial(&self) -> impl Fn(StoreError) -> StoreError + Copy + Send + 'static {
        let may_replace = self.may_replace;
        move |error| match error {
            StoreError::PreconditionFailed if !may_replace => {
                StoreError::PermissionDenied(Permission::Delete.as_str())
            }
            error => error,
        }
    }
}

/// Stores a body as an object. Sets `body` to `None` once there is nothing left to read from it.
pub(crate) async fn put<RequestBody>(
    objects: Arc<Objects>,
    path: PathBuf,
    headers: &HeaderMap,
    body: &mut Option<RequestBody>,
    terms: UploadTerms,
) -> Result<Response<StoreBody>, StoreError>
where
    RequestBody: Body<Data = Bytes> + Send + Unpin,
{
    let incoming = body.as_mut().ok_or(StoreError::InternalError)?;
    let conditions = PutConditions::of(headers, incoming)?;
    let (requested, digests) = (conditions.generation, conditions.digests);
    let content_length = conditions.content_length;
    let (permitted, denied) = (terms.permitted(requested), terms.denial());
    let (objects, path, partial) = on_disk(move || {
        objects.check_generation(&path, permitted).map_err(denied)?;
        objects.check_generation(&path, requested)?;
        let mut partial = objects.begin(&path, content_length)?;
        digests.prepare(&mut partial);
        Ok((objects, path, partial))
    })
    .await?;
    let mut writer = Writer::new(partial, terms.permit);
    let received = receive(incoming, terms.pace, &mut writer).await;
    if matches!(received, Ok(_) | Err(StoreError::IncompleteBody)) {
        *body = None;
    }
    if received != Ok(content_length) {
        writer.abandon().await;
        return Err(received.err().unwrap_or(StoreError::IncompleteBody));
    }
    let (partial, upload) = writer.finish().await?;
    digests.check(&partial)?;
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
async fn receive(
    body: &mut (impl Body<Data = Bytes> + Unpin),
    pace: Pace,
    writer: &mut Writer,
) -> Result<u64, StoreError> {
    let mut reader = PacedReader::new(pace);
    while let Some(bytes) = reader.next(body).await? {
        writer.push(bytes).await?;
    }
    Ok(reader.received())
}

/// Writes an object in batches: while one is being written to disk, the next is collected.
struct Writer {
    collected: Vec<Bytes>,
    collected_bytes: usize,
    writing: Option<Writing>,
}

enum Writing {
    /// The write of the previous batch.
    ToDisk(JoinHandle<Result<PartialUpload, StoreError>>),
    /// The object is not kept: nothing is collected, since summing takes less time than passing bytes to another
    /// thread.
    Nowhere(PartialUpload),
}

/// An unfinished object, and the permit that counts its upload as in progress.
type PartialUpload = (PartialObject, OwnedSemaphorePermit);

impl Writer {
    fn new(partial: PartialObject, upload: OwnedSemaphorePermit) -> Self {
        Self {
            collected: Vec::new(),
            collected_bytes: 0,
            writing: Some(Writing::of(partial, upload)),
        }
    }

    async fn push(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if let Some(Writing::Nowhere((partial, _))) = &mut self.writing {
            return partial.append(&bytes);
        }
        self.collected_bytes += bytes.len();
        self.collected.push(bytes);
        if self.collected_bytes < WRITE_BYTES {
            return Ok(());
        }
        let (partial, upload) = self.written().await?;
        let batch = std::mem::take(&mut self.collected);
        self.collected_bytes = 0;
        let append = tokio::task::spawn_blocking(move || append(partial, upload, &batch));
        self.writing = Some(Writing::ToDisk(append));
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
        match self.writing.take().ok_or(StoreError::InternalError)? {
            Writing::ToDisk(write) => write.await.map_err(|_| StoreError::InternalError)?,
            Writing::Nowhere(upload) => Ok(upload),
        }
    }
}

impl Writing {
    fn of(partial: PartialObject, upload: OwnedSemaphorePermit) -> Self {
        if partial.is_kept() {
            Self::ToDisk(tokio::task::spawn_blocking(move || Ok((partial, upload))))
        } else {
            Self::Nowhere((partial, upload))
        }
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
