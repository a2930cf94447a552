//! A strict local emulator of GCS's XML API: PUT, GET, HEAD and DELETE of objects by signed URL,
//! with folders as buckets.
//!
//! It verifies every signature and stores an upload only if all of it arrives, so that a client
//! that works here also works against GCS.
//!
//! <https://cloud.google.com/storage/docs/xml-api/reference-methods>

pub mod checksum;
pub mod error;
mod get;
mod headers;
pub mod key;
pub mod objects;
pub mod permissions;
mod put;
pub mod signature;
pub mod staging;
#[cfg(test)]
mod test_signer;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use error::StoreError;
use http::header::HeaderMap;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use objects::Objects;
use percent_encoding::percent_decode_str;
use permissions::{Permission, Permissions};
use signature::Verifier;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// The largest object, in bytes: ten times the largest tar of a prefix, which holds 4,096 ranges of
/// at most 256 KiB, 1 KiB of tar framing for each, and 1 MiB of padding.
const OBJECT_BYTES_MAX: u64 = 10 * (4096 * (256 + 1) + 1024) * 1024;

/// Concurrent uploads. Further ones wait.
const UPLOADS_MAX: u32 = 1024;

/// The body of a response.
pub type StoreBody = UnsyncBoxBody<Bytes, io::Error>;

/// The folders that serve as buckets.
#[derive(Clone, Debug)]
pub enum Buckets {
    /// A single bucket.
    One {
        /// The bucket's name.
        name: String,
        /// The folder that holds its objects. It exists.
        folder: PathBuf,
    },
    /// A bucket for every folder in this one, under the folder's name.
    In(PathBuf),
}

/// The emulated store.
#[derive(Debug)]
pub struct Emulator {
    buckets: Buckets,
    verifier: Verifier,
    permissions: Permissions,
    open: Mutex<HashMap<String, Arc<Objects>>>,
    /// One permit for each upload in progress.
    uploads: Arc<Semaphore>,
}

impl Emulator {
    /// Creates an emulator that grants the account of `verifier` every permission.
    pub fn new(buckets: Buckets, verifier: Verifier) -> Arc<Self> {
        Self::with_permissions(buckets, verifier, Permissions::ALL)
    }

    /// Creates an emulator that grants the account of `verifier` these permissions only.
    pub fn with_permissions(
        buckets: Buckets,
        verifier: Verifier,
        permissions: Permissions,
    ) -> Arc<Self> {
        let emulator = Self {
            buckets,
            verifier,
            permissions,
            open: Mutex::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX as usize)),
        };
        if let Buckets::One { name, .. } = &emulator.buckets {
            // Opening a bucket removes the uploads that a killed process left behind.
            let _ = emulator.objects(name);
        }
        Arc::new(emulator)
    }

    /// Answers one request and reads its body to the end, also when the request is refused:
    /// a client that is still sending would otherwise see a reset connection instead of the answer.
    pub async fn respond<RequestBody>(&self, request: Request<RequestBody>) -> Response<StoreBody>
    where
        RequestBody: Body<Data = Bytes> + Send + Unpin,
    {
        let (parts, body) = request.into_parts();
        let mut body = Some(body);
        let response = self.answer(&parts, &mut body).await;
        drain(body).await;
        response
    }

    /// Answers one request. Sets `body` to `None` if it was read to its end or broke off. Otherwise
    /// the caller can drop or drain the rest.
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
                tracing::debug!(method = %parts.method, path = parts.uri.path(), ?error, "request refused");
                let is_head = parts.method == Method::HEAD;
                error.to_document().map(|document| {
                    let document = if is_head { Bytes::new() } else { document };
                    Full::new(document).map_err(io::Error::other).boxed_unsync()
                })
            }
        }
    }

    /// Waits until every upload in progress has succeeded or failed.
    pub async fn uploads_ended(&self) {
        // The semaphore is never closed, so this returns only when all permits are free.
        let _ = self.uploads.acquire_many(UPLOADS_MAX).await;
    }

    /// Gives direct access to a bucket's objects, without signatures or permissions.
    ///
    /// # Errors
    /// [`StoreError::NoSuchBucket`] if there is no bucket of this name.
    pub fn objects(&self, bucket: &str) -> Result<Arc<Objects>, StoreError> {
        let folder = match &self.buckets {
            Buckets::One { name, folder } if name == bucket => folder.clone(),
            Buckets::One { .. } => return Err(StoreError::NoSuchBucket),
            Buckets::In(root) => {
                let is_name = bucket.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
                });
                let folder = root.join(bucket);
                if !is_name || bucket.starts_with('.') || !folder.is_dir() {
                    return Err(StoreError::NoSuchBucket);
                }
                folder
            }
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = open
            .entry(bucket.to_owned())
            .or_insert_with(|| Arc::new(Objects::open(folder)));
        Ok(Arc::clone(objects))
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
        let (bucket, object) = bucket_and_object(parts.uri.path())?;
        let objects = self.objects(&bucket)?;
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
            Err(StoreError::PermissionDenied(permission.as_str()))
        }
    }
}

/// Reads the rest of a body, up to the size of the largest object.
async fn drain(body: Option<impl Body<Data = Bytes> + Unpin>) {
    let Some(mut body) = body else { return };
    let mut left = OBJECT_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn bucket_and_object(path: &str) -> Result<(String, String), StoreError> {
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

/// Runs blocking work on a thread that may block.
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
    let condition = headers::generation_match(headers)?;
    let existed = on_disk(move || objects.remove(&path, condition)).await?;
    if existed {
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(StoreError::NoSuchKey)
    }
}

fn empty(status: StatusCode) -> Response<StoreBody> {
    let mut response = Response::new(Full::default().map_err(io::Error::other).boxed_unsync());
    *response.status_mut() = status;
    response
}
