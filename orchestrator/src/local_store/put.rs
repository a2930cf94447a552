//! A PUT: its conditions, and its body on the way to the disk, taken whole or not at all.
//! Whether it may be, and what an object is on the disk, is left to the store and to `objects`.

use super::error::StoreError;
use super::objects::{GenerationMatch, Objects, PartialObject};
use super::permissions::Permission;
use super::{HASH, OBJECT_BYTES_MAX, StoreBody, describe, empty, generation_match, on_disk, text};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use prefix_tar::job::Crc32c;
use prefix_tar::store_answer::crc32c_of_goog_hash;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

/// What is gathered of a body before it goes to the disk, in bytes, and at most one read more. As much again
/// is on its way there.
const WRITE_BYTES: usize = 256 * 1024;

/// What a PUT asks for besides its bytes.
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
        let crc32c = crc32c_of_goog_hash(hashes.filter_map(|value| value.to_str().ok()));
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

/// Stores a body as an object, in the place of another one only where that may be replaced. What is left of the body
/// is `None` where there is nothing more to be read of it.
pub(super) async fn put<RequestBody>(
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
    let asked = conditions.generation;
    // Who replaces an object deletes one.
    let permitted = match may_replace {
        true => asked,
        false => GenerationMatch::Absent,
    };
    let denied = move |error| match error {
        StoreError::PreconditionFailed if !may_replace => {
            StoreError::PermissionDenied(Permission::Delete.name())
        }
        error => error,
    };
    let (objects, path, partial) = on_disk(move || {
        objects.check_generation(&path, permitted).map_err(denied)?;
        objects.check_generation(&path, asked)?;
        let partial = objects.begin(&path)?;
        Ok((objects, path, partial))
    })
    .await?;
    let mut writer = Writer::new(partial, upload);
    let received = receive(incoming, &mut writer).await;
    if matches!(received, Ok(_) | Err(StoreError::IncompleteBody)) {
        // Whole or broken, there is nothing more to be read of it.
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

/// Hands a body to the writer; answers how many bytes it had.
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

/// Writes an object behind the one who receives it: while one batch goes to the disk, the next is gathered.
struct Writer {
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    /// The batch before, until it is waited for.
    writing: Option<JoinHandle<Result<PartialUpload, StoreError>>>,
}

/// What is written, and what counts it as under way until it is dropped.
type PartialUpload = (PartialObject, OwnedSemaphorePermit);

impl Writer {
    fn new(partial: PartialObject, upload: OwnedSemaphorePermit) -> Self {
        Self {
            gathered: Vec::new(),
            gathered_bytes: 0,
            writing: Some(tokio::task::spawn_blocking(move || Ok((partial, upload)))),
        }
    }

    async fn push(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes);
        if self.gathered_bytes < WRITE_BYTES {
            return Ok(());
        }
        let (partial, upload) = self.written().await?;
        let batch = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let append = tokio::task::spawn_blocking(move || append(partial, upload, &batch));
        self.writing = Some(append);
        Ok(())
    }

    /// Ends when nothing of the object is left.
    async fn abandon(mut self) {
        let _ = self.written().await;
    }

    async fn finish(mut self) -> Result<PartialUpload, StoreError> {
        let (partial, upload) = self.written().await?;
        let batch = std::mem::take(&mut self.gathered);
        on_disk(move || append(partial, upload, &batch)).await
    }

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
    fn a_length_range_is_kept() {
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
