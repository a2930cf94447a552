//! Writes an archive to a local folder. The component uploads to it as it would to a bucket: by signed PUT to an
//! emulator in this process, which the embedded host calls without a socket.

mod lock;

use super::{
    CopySource, Destination, DestinationError, EXPIRY_MARGIN, WritePermit, Written, cannot_copy,
};
use crate::archive::folder::FolderArchive;
use crate::archive::layout::tar_name;
use crate::archive::{Archive, Base};
use crate::http_server::{HttpServer, ServerLimits};
use crate::origin::{InProcessBody, InProcessServer, Origin};
use crate::sign::{GENERATION_MATCH, UrlSigner};
use anyhow::Context as _;
use emulator::error::StoreError;
use emulator::key::ServiceAccountKey;
use emulator::objects::{GenerationMatch, Objects};
use emulator::signature::Verifier;
use emulator::{Buckets, Emulator};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use lock::FolderLock;
use prefix_tar::protocol::job::{Download, Upload};
use prefix_tar::protocol::prefix::Prefix;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// The bucket in the signed URLs. Only this process's emulator sees it.
const BUCKET: &str = "archive";

/// The authority in the signed URLs. Nothing listens there: the embedded host calls the emulator.
const AUTHORITY: &str = "localhost";

/// The longest wait for abandoned uploads to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A folder, and the emulator that writes to it.
#[derive(Debug)]
pub struct FolderDestination {
    folder: PathBuf,
    signer: UrlSigner,
    expiry: Duration,
    origin: Origin,
    emulator: Arc<Emulator>,
    objects: Arc<Objects>,
    archive: FolderArchive,
    /// The emulator on a socket, if the component is in another process.
    server: Mutex<Option<HttpServer>>,
    lock: FolderLock,
}

impl FolderDestination {
    /// Locks the folder, creating it if necessary, and opens the emulator. A signed URL outlives `deadline` by a
    /// margin.
    ///
    /// # Errors
    /// The folder cannot be created or written to, or another run holds its lock.
    pub async fn open(folder: &Path, deadline: Duration) -> anyhow::Result<Self> {
        Self::open_behind(folder, deadline, |emulator| {
            Origin::in_process(AUTHORITY, emulator)
        })
        .await
    }

    /// Like [`Self::open`], with the emulator on a socket for a component in another process.
    ///
    /// # Errors
    /// As [`Self::open`], or the address is in use or not on loopback.
    pub async fn open_listening(
        folder: &Path,
        deadline: Duration,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            address.ip().is_loopback(),
            "the store of a folder listens on loopback only, and {} is not loopback",
            address.ip()
        );
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the store cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let mut server = None;
        let mut destination = Self::open_behind(folder, deadline, |emulator| {
            server = Some(serve(listener, emulator));
            Origin::new(false, &address.to_string())
        })
        .await?;
        destination.server = Mutex::new(server.transpose()?);
        Ok(destination)
    }

    /// Like [`Self::open`], with something in front of the emulator: `front` returns the origin
    /// where the component finds it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_behind(
        folder: &Path,
        deadline: Duration,
        front: impl FnOnce(Arc<Emulator>) -> Origin,
    ) -> anyhow::Result<Self> {
        let (folder, lock, key) = {
            let folder = folder.to_owned();
            tokio::task::spawn_blocking(move || {
                check_writable(&folder)?;
                let lock = FolderLock::acquire(&folder)?;
                anyhow::Ok((folder, lock, ServiceAccountKey::generate()?))
            })
            .await??
        };
        let buckets = Buckets::One {
            name: BUCKET.to_owned(),
            folder: folder.clone(),
        };
        let emulator = Emulator::new(buckets, Verifier::trusting(&key)?);
        let objects = emulator.objects(BUCKET)?;
        let origin = front(Arc::clone(&emulator));
        Ok(Self {
            signer: UrlSigner::new(&key, origin.to_string(), BUCKET.to_owned())?,
            origin,
            archive: FolderArchive::with_objects(folder.clone(), Arc::clone(&objects)),
            folder,
            expiry: deadline + EXPIRY_MARGIN,
            emulator,
            objects,
            server: Mutex::default(),
            lock,
        })
    }

    /// Runs blocking work on a file of the archive. `operation` names it in the error.
    async fn on_disk<T: Send + 'static>(
        &self,
        operation: &'static str,
        file: &str,
        work: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DestinationError> {
        let path = self.folder.join(file);
        let task = tokio::task::spawn_blocking(move || {
            work(&path).map_err(|cause| DestinationError::File {
                operation,
                file: path.display().to_string(),
                cause,
            })
        });
        task.await
            .unwrap_or_else(|error| Err(DestinationError::Other(error.to_string())))
    }

    /// Waits until every upload has ended, or gives up after ten seconds.
    pub async fn uploads_ended(&self) {
        let ended = timeout(CLOSE_TIMEOUT, self.emulator.uploads_ended()).await;
        if ended.is_err() {
            let seconds = CLOSE_TIMEOUT.as_secs();
            tracing::warn!("uploads have not ended after {seconds} s");
        }
    }
}

/// Serves an emulator on a socket.
///
/// # Errors
/// The listener has no address.
pub fn serve(listener: TcpListener, emulator: Arc<Emulator>) -> io::Result<HttpServer> {
    HttpServer::start_with(ServerLimits::of_store(), listener, None, move |request| {
        let emulator = Arc::clone(&emulator);
        async move { emulator.respond(request).await }
    })
}

#[async_trait::async_trait]
impl InProcessServer for Emulator {
    async fn answer(&self, request: Request<InProcessBody>) -> io::Result<Response<InProcessBody>> {
        let (parts, body) = request.into_parts();
        let response = self.answer(&parts, &mut Some(body)).await;
        Ok(response.map(|body| body.boxed_unsync()))
    }
}

#[async_trait::async_trait]
impl Destination for FolderDestination {
    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn archive(&self) -> &dyn Archive {
        &self.archive
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn upload_life(&self) -> Duration {
        self.expiry
    }

    async fn sign_upload(&self, prefix: Prefix, base: &Base) -> Result<Upload, DestinationError> {
        let headers = BTreeMap::from([
            ("content-type".to_owned(), "application/x-tar".to_owned()),
            (
                GENERATION_MATCH.to_owned(),
                base.clone().unwrap_or_else(|| "0".to_owned()),
            ),
        ]);
        let url = self
            .signer
            .sign(Method::PUT, &tar_name(prefix), &headers, self.expiry)
            .await?;
        Ok(Upload { url, headers })
    }

    async fn sign_download(
        &self,
        file: &str,
        generation: &str,
    ) -> Result<Download, DestinationError> {
        let download = self.signer.sign_download(file, generation, self.expiry);
        Ok(download.await?)
    }

    fn can_copy(&self, from: &CopySource) -> bool {
        matches!(from, CopySource::File { .. })
    }

    async fn permit_copy(
        &self,
        prefix: Prefix,
        _from: &CopySource,
        base: Base,
    ) -> Result<WritePermit, DestinationError> {
        self.permit_write(&tar_name(prefix), base).await
    }

    async fn copy(
        &self,
        permit: WritePermit,
        from: &CopySource,
    ) -> Result<Written, DestinationError> {
        let CopySource::File { path, generation } = from else {
            return Err(cannot_copy(&permit.file));
        };
        let condition = condition_on(&permit.base)?;
        let wanted = condition_on(&Some(generation.clone()))?;
        let (objects, from) = (Arc::clone(&self.objects), path.clone());
        self.on_disk("copy", &permit.file, move |path| {
            match objects.copy_from(&from, wanted, path, condition) {
                Ok(metadata) => Ok(Written::Done {
                    generation: metadata.generation.to_string(),
                }),
                Err(StoreError::PreconditionFailed) => Ok(Written::Conflict),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn discard(&self, prefix: Prefix, generation: &str) -> Result<(), DestinationError> {
        let condition = condition_on(&Some(generation.to_owned()))?;
        let objects = Arc::clone(&self.objects);
        self.on_disk("remove", &tar_name(prefix), move |path| {
            objects.remove(path, condition).map(drop)
        })
        .await
    }

    async fn permit_write(&self, file: &str, base: Base) -> Result<WritePermit, DestinationError> {
        Ok(WritePermit {
            file: file.to_owned(),
            base,
            signed: None,
        })
    }

    async fn write(
        &self,
        permit: WritePermit,
        content: Vec<u8>,
    ) -> Result<Written, DestinationError> {
        let condition = condition_on(&permit.base)?;
        let objects = Arc::clone(&self.objects);
        self.on_disk("write", &permit.file, move |path| {
            match objects.put(path, &content, condition) {
                Ok(metadata) => Ok(Written::Done {
                    generation: metadata.generation.to_string(),
                }),
                Err(StoreError::PreconditionFailed) => Ok(Written::Conflict),
                Err(error) => Err(error),
            }
        })
        .await
    }

    fn took_over_from(&self) -> Option<String> {
        self.lock.took_over_from().map(ToString::to_string)
    }

    async fn close(&self) {
        let server = {
            let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
            server.take()
        };
        if let Some(server) = server {
            server.stop().await;
        }
        self.uploads_ended().await;
    }
}

fn check_writable(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the destination {shown}"))?;
    tempfile::tempfile_in(folder)
        .map(drop)
        .with_context(|| format!("cannot write to the destination {shown}"))
}

/// The condition that a file is in the state `base`.
fn condition_on(base: &Base) -> Result<GenerationMatch, DestinationError> {
    match base {
        None => Ok(GenerationMatch::Absent),
        Some(generation) => generation
            .parse()
            .map(GenerationMatch::Is)
            .map_err(|_| DestinationError::Other(format!("`{generation}` is not a generation"))),
    }
}
