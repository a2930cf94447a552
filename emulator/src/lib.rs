//! A strict local emulator of GCS's XML API: PUT, GET, HEAD and DELETE of objects by signed URL,
//! with folders as buckets.
//!
//! It verifies every signature and stores an upload only if all of it arrives, so that a client
//! that works here also works against GCS.
//!
//! <https://cloud.google.com/storage/docs/xml-api/reference-methods>

pub mod checksum;
mod conditions;
mod copy;
mod digests;
pub mod error;
mod get;
mod headers;
pub mod key;
pub mod objects;
pub mod pace;
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
use http::header::{CONNECTION, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use objects::{GenerationMatch, Objects, Retention};
use pace::Pace;
use percent_encoding::percent_decode_str;
use permissions::{Permission, Permissions};
use put::UploadTerms;
use signature::Verifier;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// The largest object, in bytes: ten times the largest tar of a prefix, which holds 4,096 ranges of
/// at most 256 KiB, 1 KiB of tar framing for each, and 1 MiB of padding.
const OBJECT_BYTES_MAX: u64 = 10 * (4096 * (256 + 1) + 1024) * 1024;

/// GCS's limits on the length of a bucket's name, in bytes.
const BUCKET_NAME_BYTES: std::ops::RangeInclusive<usize> = 3..=222;

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

/// What an emulator permits, expects and keeps.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The permissions of the account that signs.
    pub permissions: Permissions,
    /// How slow a body may be.
    pub pace: Pace,
    /// What is kept of an object.
    pub retention: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            permissions: Permissions::ALL,
            pace: Pace::default(),
            retention: Retention::default(),
        }
    }
}

/// The emulated store.
#[derive(Debug)]
pub struct Emulator {
    buckets: Buckets,
    verifier: Verifier,
    settings: Settings,
    open: Mutex<HashMap<String, Arc<Objects>>>,
    /// One permit for each upload in progress.
    uploads: Arc<Semaphore>,
}

impl Emulator {
    /// Creates an emulator that grants the account of `verifier` every permission.
    pub fn new(buckets: Buckets, verifier: Verifier) -> Arc<Self> {
        Self::with_settings(buckets, verifier, Settings::default())
    }

    /// Creates an emulator that grants the account of `verifier` these permissions only.
    pub fn with_permissions(
        buckets: Buckets,
        verifier: Verifier,
        permissions: Permissions,
    ) -> Arc<Self> {
        let settings = Settings {
            permissions,
            ..Settings::default()
        };
        Self::with_settings(buckets, verifier, settings)
    }

    /// Creates an emulator with these settings.
    pub fn with_settings(buckets: Buckets, verifier: Verifier, settings: Settings) -> Arc<Self> {
        let emulator = Self {
            buckets,
            verifier,
            settings,
            open: Mutex::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX as usize)),
        };
        if let Buckets::One { name, .. } = &emulator.buckets {
            // Opening a bucket removes the uploads that a killed process left behind.
            let _ = emulator.objects(name);
        }
        Arc::new(emulator)
    }

    /// Answers one request. If it is refused, it is answered at once: its body has not been read, and
    /// the response says that the connection closes. The HTTP server should read on for a moment
    /// before it closes, since a client that is still sending would otherwise see a reset connection
    /// instead of the answer.
    pub async fn respond<RequestBody>(&self, request: Request<RequestBody>) -> Response<StoreBody>
    where
        RequestBody: Body<Data = Bytes> + Send + Unpin,
    {
        let (parts, body) = request.into_parts();
        let mut body = Some(body);
        let mut response = self.answer(&parts, &mut body).await;
        if body.is_some_and(|body| !body.is_end_stream()) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    /// Answers one request. Sets `body` to `None` if it was read to its end or broke off. Otherwise
    /// the caller can drop the rest.
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
                let folder = root.join(bucket);
                if !is_bucket_name(bucket) || !folder.is_dir() {
                    return Err(StoreError::NoSuchBucket);
                }
                folder
            }
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = open
            .entry(bucket.to_owned())
            .or_insert_with(|| Arc::new(self.open(folder)));
        Ok(Arc::clone(objects))
    }

    /// Opens a folder as a bucket. Nothing in it is removed for an account that may only read.
    fn open(&self, folder: PathBuf) -> Objects {
        match self.settings.permissions.has(Permission::Create) {
            true => Objects::keeping(self.settings.retention, folder),
            false => Objects::read_only(folder),
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
        let (bucket, object) = bucket_and_object(parts.uri.path())?;
        let objects = self.objects(&bucket)?;
        let path = objects.path(&object)?;
        let addressed = addressed_generation(query)?;
        match parts.method {
            Method::PUT if addressed.is_some() => Err(StoreError::InvalidArgument(
                "A generation cannot be written; use x-goog-if-generation-match.",
            )),
            Method::PUT => {
                self.require(Permission::Create)?;
                let permit = Arc::clone(&self.uploads).acquire_owned().await;
                let terms = UploadTerms {
                    permit: permit.map_err(|_| StoreError::InternalError)?,
                    may_replace: self.settings.permissions.has(Permission::Delete),
                    pace: self.settings.pace,
                };
                match headers::single(&parts.headers, copy::SOURCE)? {
                    None => put::put(objects, path, &parts.headers, body, terms).await,
                    Some(source) => {
                        self.require(Permission::Get)?;
                        let source = self.copy_source(source)?;
                        copy::copy(source, objects, path, &parts.headers, terms).await
                    }
                }
            }
            Method::GET | Method::HEAD => {
                self.require(Permission::Get)?;
                get::get(objects, path, &parts.method, &parts.headers, addressed).await
            }
            Method::DELETE => {
                self.require(Permission::Delete)?;
                delete(objects, path, &parts.headers, addressed).await
            }
            _ => Err(StoreError::MethodNotAllowed),
        }
    }

    /// The object that `x-goog-copy-source` names.
    fn copy_source(&self, name: &str) -> Result<PathBuf, StoreError> {
        let name = if name.starts_with('/') {
            name.to_owned()
        } else {
            format!("/{name}")
        };
        let (bucket, object) = bucket_and_object(&name)?;
        self.objects(&bucket)?.path(&object)
    }

    const fn require(&self, permission: Permission) -> Result<(), StoreError> {
        if self.settings.permissions.has(permission) {
            Ok(())
        } else {
            Err(StoreError::PermissionDenied(permission.as_str()))
        }
    }
}

/// Whether a bucket can have this name. In particular, it is one folder below the root, and never
/// the root itself.
///
/// <https://cloud.google.com/storage/docs/buckets#naming>
fn is_bucket_name(name: &str) -> bool {
    let is_end = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    BUCKET_NAME_BYTES.contains(&bytes.len())
        && bytes.first().is_some_and(is_end)
        && bytes.last().is_some_and(is_end)
        && bytes
            .iter()
            .all(|byte| is_end(byte) || b"-_.".contains(byte))
        && !name.contains("..")
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

/// The generation that `?generation=` names.
fn addressed_generation(query: &str) -> Result<Option<u64>, StoreError> {
    let parameters = signature::decode_query(query)?;
    match parameters
        .get("generation")
        .map(|text| headers::generation(text))
    {
        None => Ok(None),
        Some(Some(generation)) => Ok(Some(generation)),
        Some(None) => Err(StoreError::InvalidArgument(
            "The parameter generation must be a number.",
        )),
    }
}

async fn delete(
    objects: Arc<Objects>,
    path: PathBuf,
    headers: &HeaderMap,
    addressed: Option<u64>,
) -> Result<Response<StoreBody>, StoreError> {
    let required = conditions::of_write(headers)?;
    let condition = match addressed {
        None => required,
        Some(generation) if required.holds(Some(generation)) => GenerationMatch::Is(generation),
        Some(_) => return Err(StoreError::PreconditionFailed),
    };
    match on_disk(move || objects.remove(&path, condition)).await {
        Ok(true) => Ok(empty(StatusCode::NO_CONTENT)),
        Ok(false) => Err(StoreError::NoSuchKey),
        // There is no object of the generation that the URL names.
        Err(StoreError::PreconditionFailed) if addressed.is_some() => Err(StoreError::NoSuchKey),
        Err(error) => Err(error),
    }
}

fn empty(status: StatusCode) -> Response<StoreBody> {
    let mut response = Response::new(Full::default().map_err(io::Error::other).boxed_unsync());
    *response.status_mut() = status;
    response
}
