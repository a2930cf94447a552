//! The local object store: GCS's XML API for one object at a time (PUT, GET, HEAD, DELETE by signed URL) over
//! folders. It is strict, so that what works here works there: it verifies every signature and takes a body
//! only whole. Who signs, and what is stored, is left to its clients.
//!
//! <https://cloud.google.com/storage/docs/xml-api/reference-methods>

pub mod error;
pub mod objects;
pub mod signature;

use crate::http_server::HttpServer;
use crate::sign::ServiceAccountKey;
use bytes::Bytes;
use error::StoreError;
use futures::TryStreamExt as _;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, LAST_MODIFIED, RANGE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use objects::{GenerationMatch, ObjectMetadata, Objects, PartialObject, generation_of};
use percent_encoding::percent_decode_str;
use prefix_tar::job::{Crc32c, crc32c_of_goog_hash};
use signature::Verifier;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;

const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");
const HASH: HeaderName = HeaderName::from_static("x-goog-hash");
const STORED_LENGTH: HeaderName = HeaderName::from_static("x-goog-stored-content-length");

/// The largest object, in bytes: ten times the largest tar that an invocation can make.
const OBJECT_BYTES_MAX: u64 = 10 * prefix_tar::limits::CONTENT_LENGTH_MAX;

/// What is gathered of a body before it goes to the disk, in bytes, and at most one read more. As much again
/// is on its way there.
const WRITE_BYTES: usize = 256 * 1024;

/// What is read at once of an object that is sent, in bytes.
const READ_BYTES: usize = 128 * 1024;

/// Uploads at once; more wait for their turn.
const UPLOADS_MAX: u32 = 1024;

/// How often an object is opened again because another has just taken its name.
const OPENINGS_MAX: u32 = 8;

/// What is sent back.
pub type StoreBody = UnsyncBoxBody<Bytes, io::Error>;

/// Where buckets are.
#[derive(Clone, Debug)]
pub enum Buckets {
    /// One bucket of this name, in this folder.
    One {
        /// The bucket's name.
        name: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// Every folder of this folder is a bucket.
    In(PathBuf),
}

/// A verifier that trusts what is signed with `key`.
///
/// # Errors
/// The key is not usable.
pub fn trusting(key: &ServiceAccountKey) -> anyhow::Result<Verifier> {
    Ok(Verifier::new(
        key.client_email().to_owned(),
        key.public_key()?,
    ))
}

/// The store.
#[derive(Debug)]
pub struct LocalStore {
    buckets: Buckets,
    verifier: Verifier,
    open: Mutex<HashMap<String, Arc<Objects>>>,
    /// A place for each upload under way.
    uploads: Arc<Semaphore>,
}

impl LocalStore {
    /// A store over `buckets` that trusts what `verifier` verifies.
    pub fn new(buckets: Buckets, verifier: Verifier) -> Arc<Self> {
        let store = Self {
            buckets,
            verifier,
            open: Mutex::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX as usize)),
        };
        if let Buckets::One { name, .. } = &store.buckets {
            // Opened at once, so that what a killed process left behind is removed before anything begins.
            let _ = store.bucket(name);
        }
        Arc::new(store)
    }

    /// Begins to serve.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(self: Arc<Self>, listener: TcpListener) -> io::Result<HttpServer> {
        HttpServer::start(listener, move |request: Request<Incoming>| {
            let store = Arc::clone(&self);
            async move {
                let (parts, body) = request.into_parts();
                let mut body = Some(body);
                let response = store.answer(&parts, &mut body).await;
                drain(body).await;
                response
            }
        })
    }

    /// Waits until every upload under way has ended, one way or the other.
    pub async fn uploads_ended(&self) {
        // Nobody closes the semaphore, so this ends with all places free.
        let _ = self.uploads.acquire_many(UPLOADS_MAX).await;
    }

    /// The objects of a bucket, for who shares the process.
    ///
    /// # Errors
    /// There is no such bucket.
    pub fn objects(&self, bucket: &str) -> Result<Arc<Objects>, StoreError> {
        self.bucket(bucket)
    }

    fn bucket(&self, name: &str) -> Result<Arc<Objects>, StoreError> {
        let folder = match &self.buckets {
            Buckets::One { name: only, folder } if only == name => folder.clone(),
            Buckets::One { .. } => return Err(StoreError::NoSuchBucket),
            Buckets::In(root) => {
                let is_name = name.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
                });
                let folder = root.join(name);
                if !is_name || name.starts_with('.') || !folder.is_dir() {
                    return Err(StoreError::NoSuchBucket);
                }
                folder
            }
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = open
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Objects::open(folder)));
        Ok(Arc::clone(objects))
    }

    /// Answers one request. What is left of its body is not wanted.
    pub async fn answer<RequestBody>(
        &self,
        parts: &http::request::Parts,
        body: &mut Option<RequestBody>,
    ) -> Response<StoreBody>
    where
        RequestBody: Body<Data = Bytes> + Send + Unpin,
    {
        match self.route(parts, body).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(method = %parts.method, path = parts.uri.path(), ?error, "refused");
                let is_head = parts.method == Method::HEAD;
                error.to_document().map(|document| {
                    let document = if is_head { Bytes::new() } else { document };
                    Full::new(document).map_err(io::Error::other).boxed_unsync()
                })
            }
        }
    }

    async fn route<RequestBody>(
        &self,
        parts: &http::request::Parts,
        body: &mut Option<RequestBody>,
    ) -> Result<Response<StoreBody>, StoreError>
    where
        RequestBody: Body<Data = Bytes> + Send + Unpin,
    {
        let query = parts.uri.query().unwrap_or_default();
        let now = jiff::Timestamp::now();
        self.verifier
            .verify(&parts.method, parts.uri.path(), query, &parts.headers, now)?;
        let (bucket, object) = object_of_path(parts.uri.path())?;
        let objects = self.bucket(&bucket)?;
        let path = objects.path(&object)?;
        match parts.method {
            Method::PUT => {
                let upload = Arc::clone(&self.uploads).acquire_owned().await;
                let upload = upload.map_err(|_| StoreError::InternalError)?;
                put(objects, path, &parts.headers, body, upload).await
            }
            Method::GET | Method::HEAD => get(objects, path, &parts.headers).await,
            Method::DELETE => delete(objects, path, &parts.headers).await,
            _ => Err(StoreError::MethodNotAllowed),
        }
    }
}

/// Reads on what a client is still sending, so that it gets to read the answer instead of a reset.
async fn drain(body: Option<Incoming>) {
    if let Some(mut body) = body {
        let mut left = OBJECT_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}

fn object_of_path(path: &str) -> Result<(String, String), StoreError> {
    let invalid = StoreError::InvalidArgument("The path is not /BUCKET/OBJECT.");
    let (bucket, object) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .ok_or_else(|| invalid.clone())?;
    let object = percent_decode_str(object)
        .decode_utf8()
        .map_err(|_| invalid)?;
    Ok((bucket.to_owned(), object.into_owned()))
}

fn text<'headers>(headers: &'headers HeaderMap, name: &str) -> Option<&'headers str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

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

fn generation_match(headers: &HeaderMap) -> Result<GenerationMatch, StoreError> {
    match text(headers, "x-goog-if-generation-match").map(str::parse) {
        None => Ok(GenerationMatch::Any),
        Some(Ok(0)) => Ok(GenerationMatch::Absent),
        Some(Ok(generation)) => Ok(GenerationMatch::Is(generation)),
        Some(Err(_)) => Err(StoreError::InvalidArgument(
            "x-goog-if-generation-match must be a generation.",
        )),
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

async fn put<RequestBody>(
    objects: Arc<Objects>,
    path: PathBuf,
    headers: &HeaderMap,
    body: &mut Option<RequestBody>,
    upload: OwnedSemaphorePermit,
) -> Result<Response<StoreBody>, StoreError>
where
    RequestBody: Body<Data = Bytes> + Send + Unpin,
{
    let incoming = body.as_mut().ok_or(StoreError::InternalError)?;
    let conditions = PutConditions::of(headers, incoming)?;
    let generation = conditions.generation;
    let (objects, path, partial) = on_disk(move || {
        objects.check_generation(&path, generation)?;
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
        let committed = objects.commit(partial, &path, generation);
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

/// Does work that waits for the disk where it holds up nobody.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::InternalError)?
}

fn read_error(error: &io::Error) -> StoreError {
    tracing::error!(%error, "an object could not be read");
    StoreError::InternalError
}

async fn look_up(objects: Arc<Objects>, path: &Path) -> Result<ObjectMetadata, StoreError> {
    let path = path.to_owned();
    on_disk(move || {
        objects
            .metadata(&path)
            .map_err(|error| read_error(&error))?
            .ok_or(StoreError::NoSuchKey)
    })
    .await
}

/// An object's metadata, and the file that they are of: another may have taken its name in between.
async fn open_known(
    objects: Arc<Objects>,
    path: &Path,
) -> Result<(ObjectMetadata, tokio::fs::File), StoreError> {
    for _ in 0..OPENINGS_MAX {
        let metadata = look_up(Arc::clone(&objects), path).await?;
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|error| read_error(&error))?;
        let opened = file.metadata().await.map_err(|error| read_error(&error))?;
        let generation = generation_of(&opened).map_err(|error| read_error(&error))?;
        if generation == metadata.generation {
            return Ok((metadata, file));
        }
    }
    Err(StoreError::InternalError)
}

async fn get(
    objects: Arc<Objects>,
    path: PathBuf,
    headers: &HeaderMap,
) -> Result<Response<StoreBody>, StoreError> {
    let (metadata, mut file) = open_known(objects, &path).await?;
    let whole = 0..metadata.content_length;
    let wanted = match text(headers, RANGE.as_str()) {
        Some(range) => byte_range(range, metadata.content_length)?,
        None => None,
    };
    let status = match wanted {
        Some(_) => StatusCode::PARTIAL_CONTENT,
        None => StatusCode::OK,
    };
    let bytes = wanted.clone().unwrap_or(whole);
    file.seek(io::SeekFrom::Start(bytes.start))
        .await
        .map_err(|error| read_error(&error))?;
    let length = bytes.end - bytes.start;
    let stream = ReaderStream::with_capacity(file.take(length), READ_BYTES).map_ok(Frame::data);
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    describe(headers, &metadata)?;
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    let modified = UNIX_EPOCH + Duration::from_micros(metadata.generation);
    insert(headers, LAST_MODIFIED, &httpdate::fmt_http_date(modified))?;
    if let Some(wanted) = wanted {
        let (first, last) = (wanted.start, wanted.end - 1);
        let total = metadata.content_length;
        insert(
            headers,
            CONTENT_RANGE,
            &format!("bytes {first}-{last}/{total}"),
        )?;
    }
    Ok(response)
}

/// The bytes that a `Range` asks for: `None` where it asks for several ranges, which are not served, or is
/// malformed, and the whole object is sent (RFC 9110, 14.2).
fn byte_range(value: &str, length: u64) -> Result<Option<std::ops::Range<u64>>, StoreError> {
    let parsed = value.strip_prefix("bytes=").and_then(|range| {
        let (first, last) = range.trim().split_once('-')?;
        match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
            (Some(first), Some(last)) if first <= last => {
                Some(first..last.saturating_add(1).min(length))
            }
            (Some(first), None) if last.is_empty() => Some(first..length),
            (None, Some(count)) if first.is_empty() => Some(length.saturating_sub(count)..length),
            _ => None,
        }
    });
    match parsed {
        Some(range) if range.start < range.end => Ok(Some(range)),
        Some(_) => Err(StoreError::InvalidRange),
        None => Ok(None),
    }
}

async fn delete(
    objects: Arc<Objects>,
    path: PathBuf,
    headers: &HeaderMap,
) -> Result<Response<StoreBody>, StoreError> {
    let condition = generation_match(headers)?;
    let was_there = on_disk(move || objects.remove(&path, condition)).await?;
    if was_there {
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(StoreError::NoSuchKey)
    }
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(std::ffi::OsStr::to_str) {
        Some("tar") => "application/x-tar",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

fn describe(headers: &mut HeaderMap, metadata: &ObjectMetadata) -> Result<(), StoreError> {
    let generation = metadata.generation;
    headers.insert(GENERATION, generation.into());
    headers.insert(STORED_LENGTH, metadata.content_length.into());
    insert(headers, HASH, &format!("crc32c={}", metadata.crc32c))?;
    insert(headers, ETAG, &metadata.etag())
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), StoreError> {
    let value = HeaderValue::from_str(value).map_err(|_| StoreError::InternalError)?;
    headers.insert(name, value);
    Ok(())
}

fn empty(status: StatusCode) -> Response<StoreBody> {
    let mut response = Response::new(Full::default().map_err(io::Error::other).boxed_unsync());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_ranges_are_what_rfc_9110_says() {
        for (value, range) in [
            ("bytes=0-0", Ok(Some(0..1))),
            ("bytes=5-", Ok(Some(5..10))),
            ("bytes=-3", Ok(Some(7..10))),
            ("bytes=-30", Ok(Some(0..10))),
            ("bytes=8-99", Ok(Some(8..10))),
            ("bytes=10-", Err(StoreError::InvalidRange)),
            ("bytes=-0", Err(StoreError::InvalidRange)),
            ("bytes=5-2", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("lines=0-1", Ok(None)),
        ] {
            assert_eq!(byte_range(value, 10), range, "{value}");
        }
    }

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
