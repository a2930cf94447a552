//! A local folder as destination: the component writes to it the production way, by signed PUT to a local
//! store that is there for as long as the run. Reports and the manifest are written beside the tars.

use super::Destination;
use crate::host::embedded::Origin;
use crate::http_server::HttpServer;
use crate::local_store::objects::current_generation;
use crate::local_store::signature::Verifier;
use crate::local_store::{Buckets, LocalStore};
use crate::manifest::{MANIFEST_NAME, Manifest, object_name, report_name};
use crate::sign::{ServiceAccountKey, UrlSigner};
use anyhow::Context as _;
use prefix_tar::job::{Report, Upload};
use prefix_tar::prefix::Prefix;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;

/// The bucket's name in the signed URLs. The store is this process's own, so it need not mean anything.
const BUCKET: &str = "archive";

/// How much longer than an invocation a signed URL lives: it has to be sent, too.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// A folder, and the store that writes to it.
#[derive(Debug)]
pub struct FolderDestination {
    folder: PathBuf,
    signer: UrlSigner,
    expiry: Duration,
    server: HttpServer,
}

impl FolderDestination {
    /// Makes the folder if it is not there, and starts the store. A signed URL lives for `deadline` and a
    /// little longer.
    ///
    /// # Errors
    /// The folder cannot be made or written to, or there is no port for the store.
    pub async fn open(folder: &Path, deadline: Duration) -> anyhow::Result<Self> {
        let (folder, key) = {
            let folder = folder.to_owned();
            tokio::task::spawn_blocking(move || {
                check_writable(&folder)?;
                anyhow::Ok((folder, ServiceAccountKey::generate()?))
            })
            .await??
        };
        let store = LocalStore::new(
            Buckets::One {
                name: BUCKET.to_owned(),
                folder: folder.clone(),
            },
            Verifier::new(&key)?,
        );
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no port on 127.0.0.1 for the local store")?;
        let server = store.start(listener)?;
        let endpoint = format!("http://{}", server.address());
        Ok(Self {
            signer: UrlSigner::new(&key, endpoint, BUCKET.to_owned())?,
            folder,
            expiry: deadline + EXPIRY_MARGIN,
            server,
        })
    }

    /// What the component has to reach to write to it.
    pub fn origin(&self) -> Origin {
        Origin::new(false, &self.server.address().to_string())
    }

    /// Stops the store once the uploads under way have ended.
    pub async fn close(self) {
        self.server.stop().await;
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
}

impl FolderDestination {
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
    let mut temporary = crate::local_store::objects::temporary_file(folder)?;
    temporary.write_all(text)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    std::fs::File::open(folder)?.sync_all()
}
