//! A local folder as destination: the component writes to it the production way, by signed PUT to a local
//! store of this process, which the host calls without a socket. Reports and the manifest are written beside the tars.

mod lock;

use super::{Destination, EXPIRY_MARGIN, StoredObject};
use crate::host::embedded::{InProcess, Origin};
use crate::http_server::HttpServer;
use crate::local_store::objects::{GenerationMatch, Objects, current_generation};
use crate::local_store::{Buckets, LocalStore, trusting};
use crate::manifest::{MANIFEST_NAME, Manifest, object_name, report_name};
use crate::sign::{ServiceAccountKey, UrlSigner};
use anyhow::Context as _;
use http_body_util::BodyExt as _;
use lock::FolderLock;
use prefix_tar::job::{Report, Upload};
use prefix_tar::limits::REPORT_BYTES_MAX;
use prefix_tar::prefix::Prefix;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, WasiBody};

/// The bucket's name in the signed URLs. The store is this process's own, so it need not mean anything.
const BUCKET: &str = "archive";

/// The authority in the signed URLs. Nothing listens there: the host of the component calls the store.
const AUTHORITY: &str = "localhost";

/// How long the end of uploads that were given up is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A folder, and the store that writes to it.
#[derive(Debug)]
pub struct FolderDestination {
    folder: PathBuf,
    signer: UrlSigner,
    expiry: Duration,
    origin: Origin,
    store: Arc<LocalStore>,
    objects: Arc<Objects>,
    /// Where the store is on a socket.
    server: Mutex<Option<HttpServer>>,
    lock: FolderLock,
}

impl FolderDestination {
    /// Makes the folder if it is not there, and opens the store. A signed URL lives for `deadline` and a
    /// little longer.
    ///
    /// # Errors
    /// The folder cannot be made or written to, or another run has it.
    pub async fn open(folder: &Path, deadline: Duration) -> anyhow::Result<Self> {
        Self::open_behind(folder, deadline, |store| {
            Origin::in_process(AUTHORITY, store)
        })
        .await
    }

    /// The same, with the store on a socket, for a component that is not in this process.
    ///
    /// # Errors
    /// As [`Self::open`], or the address is taken.
    pub async fn open_listening(
        folder: &Path,
        deadline: Duration,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(
            address.ip().is_loopback(),
            "the store of a folder listens on loopback only, and {} is not",
            address.ip()
        );
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the store cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let mut server = None;
        let mut destination = Self::open_behind(folder, deadline, |store| {
            server = Some(store.start(listener));
            Origin::new(false, &address.to_string())
        })
        .await?;
        destination.server = Mutex::new(server.transpose()?);
        Ok(destination)
    }

    /// The same, where something stands between the component and the store: `front` says where the component
    /// finds it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_behind(
        folder: &Path,
        deadline: Duration,
        front: impl FnOnce(Arc<LocalStore>) -> Origin,
    ) -> anyhow::Result<Self> {
        let (folder, lock, key) = {
            let folder = folder.to_owned();
            tokio::task::spawn_blocking(move || {
                check_writable(&folder)?;
                let lock = FolderLock::take(&folder)?;
                anyhow::Ok((folder, lock, ServiceAccountKey::generate()?))
            })
            .await??
        };
        let store = LocalStore::new(
            Buckets::One {
                name: BUCKET.to_owned(),
                folder: folder.clone(),
            },
            trusting(&key)?,
        );
        let objects = store.objects(BUCKET).context("the store has no bucket")?;
        let origin = front(Arc::clone(&store));
        Ok(Self {
            signer: UrlSigner::new(&key, origin.to_string(), BUCKET.to_owned())?,
            origin,
            folder,
            expiry: deadline + EXPIRY_MARGIN,
            store,
            objects,
            server: Mutex::default(),
            lock,
        })
    }

    /// What the component has to reach to write to it.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Waits until the uploads under way have ended, one way or the other.
    pub async fn uploads_ended(&self) {
        if timeout(CLOSE_TIMEOUT, self.store.uploads_ended())
            .await
            .is_err()
        {
            tracing::warn!("uploads are still under way after a while");
        }
    }
}

#[async_trait::async_trait]
impl InProcess for LocalStore {
    async fn answer(
        &self,
        request: http::Request<WasiBody>,
    ) -> Result<http::Response<WasiBody>, Error> {
        let (parts, body) = request.into_parts();
        let response = self.answer(&parts, &mut Some(body)).await;
        Ok(response.map(|body| {
            body.map_err(|_| Error::HttpResponseIncomplete)
                .boxed_unsync()
        }))
    }
}

fn check_writable(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the destination {shown}"))?;
    tempfile::tempfile_in(folder)
        .map(drop)
        .with_context(|| format!("cannot write to the destination {shown}"))
}

#[async_trait::async_trait]
impl Destination for FolderDestination {
    async fn begin(&self) -> anyhow::Result<()> {
        remove(self.folder.join(MANIFEST_NAME)).await
    }

    async fn report(&self, prefix: Prefix) -> anyhow::Result<Option<Report>> {
        self.read_json(&report_name(prefix)).await
    }

    async fn manifest(&self) -> anyhow::Result<Option<Manifest>> {
        self.read_json(MANIFEST_NAME).await
    }

    async fn object(&self, prefix: Prefix) -> anyhow::Result<Option<StoredObject>> {
        let path = self.folder.join(object_name(prefix));
        let objects = Arc::clone(&self.objects);
        let metadata = tokio::task::spawn_blocking(move || {
            objects
                .metadata(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        })
        .await??;
        Ok(metadata.map(|metadata| StoredObject {
            content_length: metadata.content_length,
            crc32c: metadata.crc32c,
            generation: metadata.generation.to_string(),
            etag: Some(metadata.etag()),
        }))
    }

    async fn discard(&self, prefix: Prefix, generation: &str) -> anyhow::Result<()> {
        let path = self.folder.join(object_name(prefix));
        let objects = Arc::clone(&self.objects);
        let generation = GenerationMatch::Is(generation.parse()?);
        tokio::task::spawn_blocking(move || {
            objects
                .remove(&path, generation)
                .map(drop)
                .with_context(|| format!("cannot remove {}", path.display()))
        })
        .await?
    }

    async fn prepare(&self, prefix: Prefix) -> anyhow::Result<Upload> {
        remove(self.folder.join(report_name(prefix))).await?;
        let object = object_name(prefix);
        let path = self.folder.join(&object);
        let generation = tokio::task::spawn_blocking(move || {
            current_generation(&path).with_context(|| format!("cannot look at {}", path.display()))
        })
        .await??
        .unwrap_or(0);
        let headers = BTreeMap::from([
            ("content-type".to_owned(), "application/x-tar".to_owned()),
            (
                "x-goog-if-generation-match".to_owned(),
                generation.to_string(),
            ),
        ]);
        let url = self
            .signer
            .sign(http::Method::PUT, &object, &headers, self.expiry)
            .await?;
        Ok(Upload { url, headers })
    }

    async fn write_report(&self, report: &Report) -> anyhow::Result<()> {
        self.write_json(&report_name(report.prefix), report).await
    }

    async fn write_manifest(&self, manifest: &Manifest) -> anyhow::Result<()> {
        self.write_json(MANIFEST_NAME, manifest).await
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

impl FolderDestination {
    /// What a file has; `None` where it is not there, or cannot be understood.
    async fn read_json<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let path = self.folder.join(name);
        let text = match tokio::fs::File::open(&path).await {
            Ok(file) => {
                let mut text = Vec::new();
                file.take(REPORT_BYTES_MAX as u64)
                    .read_to_end(&mut text)
                    .await
                    .with_context(|| format!("cannot read {}", path.display()))?;
                text
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(serde_json::from_slice(&text).ok())
    }

    async fn write_json(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        tokio::task::spawn_blocking(move || {
            write_whole(&path, &text).with_context(|| format!("cannot write {}", path.display()))
        })
        .await?
    }
}

async fn remove(path: PathBuf) -> anyhow::Result<()> {
    match tokio::fs::remove_file(&path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut temporary = crate::local_store::temporary::file(folder)?;
    temporary.write_all(text)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    std::fs::File::open(folder)?.sync_all()
}
