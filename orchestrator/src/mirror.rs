//! The main job in one call: from a source to a destination, one component invocation per prefix. It puts
//! destination, host, dispatch and manifest together; each does its own part.

use crate::destination::bucket::{BucketDestination, ObjectOptions};
use crate::destination::folder::FolderDestination;
use crate::destination::{Destination, DestinationName};
use crate::dispatch::{self, Outcome, Settings, Stop, StoredPrefix, Update};
use crate::host::Host;
use crate::host::embedded::{EmbeddedHost, EmbeddedSettings, Origin};
use crate::host::remote::{ComponentUrl, RemoteHost};
use crate::manifest::Manifest;
use crate::plan::PrefixSet;
use crate::resume;
use anyhow::Context as _;
use jiff::Timestamp;
use prefix_tar::configuration::{SOURCE_ENCODING, SOURCE_URL};
use prefix_tar::prefix::Prefix;
use prefix_tar::source::{Encoding, SourceUrl};
use prefix_tar::token::Token;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What runs the component.
#[derive(Clone, Debug)]
pub enum HostChoice {
    /// wasmtime in this process.
    Embedded {
        /// A component file instead of the one that the orchestrator carries.
        component_file: Option<PathBuf>,
    },
    /// Components elsewhere.
    Remote(RemoteComponents),
}

/// Components that run elsewhere.
#[derive(Clone, Debug)]
pub struct RemoteComponents {
    /// Where they are.
    pub components: Vec<ComponentUrl>,
    /// What opens their door.
    pub token: Arc<Token>,
    /// Where the store of a folder listens for them.
    pub store: SocketAddr,
}

/// What to mirror, and how.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The source.
    pub source: SourceUrl,
    /// Where the archive goes.
    pub to: DestinationName,
    /// How objects of a bucket are stored.
    pub object_options: ObjectOptions,
    /// Which prefixes.
    pub prefixes: PrefixSet,
    /// How the run is dispatched.
    pub settings: Settings,
    /// How ranges are asked for; `None`: gzip over a network, identity on this machine.
    pub encoding: Option<Encoding>,
    /// The bound of an invocation's time.
    pub deadline: Duration,
    /// A private CA to trust besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// Whether what an earlier run has left whole is done again, too.
    pub force: bool,
    /// What runs the component.
    pub host: HostChoice,
}

/// How it ended, and how long it took.
#[derive(Debug)]
pub struct Mirrored {
    /// How each prefix ended.
    pub outcome: Outcome,
    /// From the first invocation to the manifest.
    pub elapsed: Duration,
}

impl Mirror {
    /// Mirrors. The manifest is written when, and only when, every prefix is stored.
    ///
    /// # Errors
    /// The destination, the component or the CA file is not usable, or the manifest cannot be written. That
    /// a prefix failed is in the outcome.
    pub async fn run(self, stop: Stop, updates: mpsc::Sender<Update>) -> anyhow::Result<Mirrored> {
        let deadline = self.deadline;
        match (&self.to, &self.host) {
            (DestinationName::Folder(folder), HostChoice::Embedded { .. }) => {
                // A key is generated and the component compiled at the same time.
                let (destination, host) = tokio::try_join!(
                    FolderDestination::open(folder, deadline),
                    self.embedded_host()
                )?;
                self.run_into(destination, host, stop, updates).await
            }
            (DestinationName::Folder(folder), HostChoice::Remote(remote)) => {
                let listening = FolderDestination::open_listening(folder, deadline, remote.store);
                let destination = listening.await?;
                let host = self.remote_host(remote)?;
                self.run_on(Arc::new(destination), host, stop, updates)
                    .await
            }
            (DestinationName::Bucket(path), host) => {
                let destination = BucketDestination::open(
                    path.clone(),
                    &self.object_options,
                    deadline,
                    self.ca_file.as_deref(),
                )?;
                let host: Arc<dyn Host> = match host {
                    HostChoice::Remote(remote) => self.remote_host(remote)?,
                    HostChoice::Embedded { .. } => {
                        let mut host = self.embedded_host().await?;
                        host.allow_upload(destination.origin().clone());
                        Arc::new(host)
                    }
                };
                self.run_on(Arc::new(destination), host, stop, updates)
                    .await
            }
        }
    }

    fn remote_host(&self, remote: &RemoteComponents) -> anyhow::Result<Arc<dyn Host>> {
        let host = RemoteHost::new(
            remote.components.clone(),
            &remote.token,
            self.source.clone(),
            self.deadline,
            self.ca_file.as_deref(),
        )?;
        Ok(Arc::new(host))
    }

    /// The same, into a destination that is open already, on a host that is ready.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_into(
        self,
        destination: FolderDestination,
        mut host: EmbeddedHost,
        stop: Stop,
        updates: mpsc::Sender<Update>,
    ) -> anyhow::Result<Mirrored> {
        host.allow_upload(destination.origin().clone());
        self.run_on(Arc::new(destination), Arc::new(host), stop, updates)
            .await
    }

    async fn run_on(
        &self,
        destination: Arc<dyn Destination>,
        host: Arc<dyn Host>,
        stop: Stop,
        updates: mpsc::Sender<Update>,
    ) -> anyhow::Result<Mirrored> {
        if let Some(owner) = destination.took_over_from() {
            let _ = updates.send(Update::TookOver { owner }).await;
        }
        let (began, started) = (Instant::now(), Timestamp::now());
        let kept = match self.force {
            true => Vec::new(),
            false => {
                let looked_at = self.prefixes.iter();
                tokio::select! {
                    kept = resume::kept(looked_at, &*destination, &self.source, &stop.gently) => kept?,
                    () = stop.now.cancelled() => Vec::new(),
                }
            }
        };
        // A manifest is true until something of the archive is written again.
        if kept.len() < self.prefixes.count() && !stop.gently.is_cancelled() {
            destination.begin().await?;
        }
        if !kept.is_empty() {
            let _ = updates.send(Update::Kept(kept.clone())).await;
        }
        let kept: BTreeMap<Prefix, StoredPrefix> =
            kept.into_iter().map(|kept| (kept.prefix, kept)).collect();
        let left = self.prefixes.iter();
        let mut outcome = dispatch::run(
            left.filter(|prefix| !kept.contains_key(prefix)),
            host,
            Arc::clone(&destination),
            self.settings,
            stop,
            updates,
        )
        .await;
        outcome.kept = kept;
        if outcome.is_complete() {
            let manifest = self.manifest(&outcome, started);
            // Where nothing was done, the one that is there is still true, and of when it was.
            let is_there = outcome.stored.is_empty()
                && destination
                    .manifest()
                    .await?
                    .is_some_and(|there| there.says_the_same_as(&manifest));
            if !is_there {
                destination.write_manifest(&manifest).await?;
            }
        }
        let elapsed = began.elapsed();
        destination.close().await;
        Ok(Mirrored { outcome, elapsed })
    }

    /// The embedded host as the run asks for it.
    ///
    /// # Errors
    /// The component or the CA file is not usable.
    pub async fn embedded_host(&self) -> anyhow::Result<EmbeddedHost> {
        let component_file = match &self.host {
            HostChoice::Embedded { component_file } => component_file.clone(),
            HostChoice::Remote(_) => None,
        };
        let encoding = self
            .encoding
            .unwrap_or(if self.source.authority().is_loopback() {
                Encoding::Identity
            } else {
                Encoding::Gzip
            });
        let environment = vec![
            (SOURCE_URL.to_owned(), self.source.to_string()),
            (SOURCE_ENCODING.to_owned(), encoding.as_str().to_owned()),
        ];
        let origins = vec![Origin::of_source(&self.source)];
        let mut settings = EmbeddedSettings::new(environment, origins);
        settings.deadline = self.deadline;
        settings.ca_file.clone_from(&self.ca_file);
        tokio::task::spawn_blocking(move || match component_file {
            None => EmbeddedHost::new(settings),
            Some(file) => {
                let shown = file.display();
                settings.component = std::fs::read(&file)
                    .with_context(|| format!("cannot read the component file {shown}"))?;
                EmbeddedHost::new(settings)
                    .with_context(|| format!("cannot use the component file {shown}"))
            }
        })
        .await?
    }

    fn manifest(&self, outcome: &Outcome, started: Timestamp) -> Manifest {
        let archived = outcome.archived();
        Manifest {
            tool: "prefix-tar".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: self.source.to_string(),
            started: started.to_string(),
            finished: Timestamp::now().to_string(),
            totals: archived.iter().map(|stored| stored.totals).sum(),
            objects: archived
                .iter()
                .map(|stored| stored.object.clone())
                .collect(),
        }
    }
}
