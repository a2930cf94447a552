//! The local object store: GCS's XML API for one object at a time (PUT, GET, HEAD, DELETE by signed URL) over
//! folders. It is strict, so that what works here works there: it verifies every signature and takes a body
//! only whole. Here is who is let in, and where to: how a body comes in is `put`'s, how it goes out `get`'s, how it
//! lies on the disk `objects`'. Who signs, and what is stored, is left to its clients.
//!
//! <https://cloud.google.com/storage/docs/xml-api/reference-methods>

pub mod error;
mod get;
pub mod objects;
pub mod permissions;
mod put;
pub mod signature;
pub mod temporary;

use crate::http_server::HttpServer;
use crate::sign::ServiceAccountKey;
use bytes::Bytes;
use error::StoreError;
use http::header::{ETAG, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Incoming};
use objects::{GenerationMatch, ObjectMetadata, Objects};
use percent_encoding::percent_decode_str;
use permissions::{Permission, Permissions};
use signature::Verifier;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");
const HASH: HeaderName = HeaderName::from_static("x-goog-hash");
const STORED_LENGTH: HeaderName = HeaderName::from_static("x-goog-stored-content-length");

/// The largest object, in bytes: ten times the largest tar that an invocation can make.
const OBJECT_BYTES_MAX: u64 = 10 * prefix_tar::limits::CONTENT_LENGTH_MAX;

/// Uploads at once; more wait for their turn.
const UPLOADS_MAX: u32 = 1024;

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
    permissions: Permissions,
    open: Mutex<HashMap<String, Arc<Objects>>>,
    /// A place for each upload under way.
    uploads: Arc<Semaphore>,
}

impl LocalStore {
    /// A store over `buckets` that trusts what `verifier` verifies, and permits it everything.
    pub fn new(buckets: Buckets, verifier: Verifier) -> Arc<Self> {
        Self::permitting(buckets, verifier, Permissions::ALL)
    }

    /// A store over `buckets` that trusts what `verifier` verifies, and permits it `permissions`.
    pub fn permitting(buckets: Buckets, verifier: Verifier, permissions: Permissions) -> Arc<Self> {
        let store = Self {
            buckets,
            verifier,
            permissions,
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
                self.require(Permission::Create)?;
                let upload = Arc::clone(&self.uploads).acquire_owned().await;
                let upload = upload.map_err(|_| StoreError::InternalError)?;
                let may_replace = self.permissions.has(Permission::Delete);
                put::put(objects, path, &parts.headers, body, upload, may_replace).await
            }
            Method::GET | Method::HEAD => {
                self.require(Permission::Get)?;
                get::get(objects, path, &parts.headers).await
            }
            Method::DELETE => {
                self.require(Permission::Delete)?;
                delete(objects, path, &parts.headers).await
            }
            _ => Err(StoreError::MethodNotAllowed),
        }
    }

    const fn require(&self, permission: Permission) -> Result<(), StoreError> {
        if self.permissions.has(permission) {
            Ok(())
        } else {
            Err(StoreError::PermissionDenied(permission.name()))
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

/// Does work that waits for the disk where it holds up nobody.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::InternalError)?
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
