//! One run, from a source to a destination: opens a transaction, dispatches what is not stored, writes the manifest.

mod attempts;
mod completion;
mod deferral;
pub mod dispatch;
pub mod event;
pub mod hint;
#[cfg(test)]
mod memory_store;
mod outage;
pub mod outcome;
pub mod plan;
mod recorder;
mod resume;
pub mod retry;
pub mod shutdown;
pub mod transaction;

use crate::archive::location::ArchiveLocation;
use crate::archive::measurements::Measurements;
use crate::base::bucket::BucketStore;
use crate::base::folder::FolderStore;
use crate::base::{BaseArchive, NoBase, is_same_place};
use crate::destination::bucket::BucketDestination;
use crate::destination::folder::FolderDestination;
use crate::destination::{Destination, EXPIRY_MARGIN};
use crate::gcs::client::BucketClient;
use crate::gcs::options::ObjectOptions;
use crate::host::Host;
use crate::host::embedded::{EmbeddedHost, EmbeddedSettings, GuestProfile, connections_of};
use crate::host::remote::{ComponentUrl, RemoteHost};
use crate::origin::Origin;
use anyhow::Context as _;
use completion::Patience;
use dispatch::{DispatchSettings, Shared};
use event::RunEvent;
use jiff::Timestamp;
use outcome::{FinishedRun, Outcome, StoredPrefix};
use plan::PrefixSet;
use prefix_tar::limits::WINDOW_DEFAULT;
use prefix_tar::protocol::configuration::{SOURCE_ENCODING, SOURCE_URL};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::source::{Encoding, SourceUrl};
use prefix_tar::protocol::token::Token;
use recorder::{ProcessSettings, Recorder};
use shutdown::Shutdown;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use transaction::{Opening, Request, Transaction, TransactionError};

/// What runs the component.
#[derive(Clone, Debug)]
pub enum HostChoice {
    /// wasmtime in this process.
    Embedded {
        /// A component file to run instead of the bundled component.
        component_file: Option<PathBuf>,
        /// Where the profile of the first invocation's guest goes, if it is wanted.
        profile: Option<GuestProfile>,
    },
    /// Components that run elsewhere.
    Remote(RemoteComponents),
}

/// Components that run elsewhere.
#[derive(Clone, Debug)]
pub struct RemoteComponents {
    /// Their URLs.
    pub components: Vec<ComponentUrl>,
    /// Their bearer token.
    pub token: Arc<Token>,
    /// Where the emulator of a folder listens for them.
    pub store: SocketAddr,
}

/// What to mirror, and how.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The source.
    pub source: SourceUrl,
    /// Which of its hashes to mirror.
    pub mode: Mode,
    /// Where the archive goes.
    pub to: ArchiveLocation,
    /// How objects are stored in a bucket.
    pub object_options: ObjectOptions,
    /// The prefixes to mirror.
    pub prefixes: PrefixSet,
    /// How invocations are dispatched.
    pub dispatch: DispatchSettings,
    /// The encoding of range requests. `None` selects gzip over a network and identity on this machine.
    pub encoding: Option<Encoding>,
    /// The deadline of an invocation.
    pub deadline: Duration,
    /// A PEM file with CA certificates to trust besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// Whether to mirror every prefix again, even if an earlier run has stored it.
    pub force: bool,
    /// An earlier archive to build on: only what has changed since is fetched. If it is the one at `to`, every prefix is
    /// visited again, as with `force`.
    pub base: Option<ArchiveLocation>,
    /// What runs the component.
    pub host: HostChoice,
}

impl RunConfig {
    /// Mirrors the prefixes. The manifest is written if and only if every prefix is stored.
    ///
    /// # Errors
    /// The destination, the component or the CA file is not usable, or the manifest cannot be written. A failed
    /// prefix is not an error; it is in the outcome.
    pub async fn run(
        self,
        shutdown: Shutdown,
        events: mpsc::Sender<RunEvent>,
    ) -> anyhow::Result<FinishedRun> {
        // Generating a key and compiling the component both take a while, on different threads.
        // If one fails, the other is awaited, too: a destination that opens later would leave its lock behind.
        let (destination, host) = tokio::join!(self.open_destination(), self.open_host());
        let (destination, host) = (destination?, host?);
        self.run_with(destination, host, shutdown, events).await
    }

    /// Like [`Self::run`], with a destination that is open and a host that is ready.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_with(
        &self,
        destination: Arc<dyn Destination>,
        mut host: Box<dyn Host>,
        shutdown: Shutdown,
        events: mpsc::Sender<RunEvent>,
    ) -> anyhow::Result<FinishedRun> {
        host.allow_upload(destination.origin().clone());
        let base = self.open_base(&destination, &events).await?;
        if let Some(base) = &base {
            host.allow_upload(base.origin().clone());
        }
        if let Some(owner) = destination.took_over_from() {
            event::send(&events, RunEvent::TookOver { owner }).await;
        }
        let began = Instant::now();
        let mut measurements = None;
        let opening = self.open(&destination, &shutdown, &events).await?;
        let outcome = match opening {
            Opening::Complete(stored) => {
                report_skipped(&stored, &events).await;
                Outcome::of_skipped(stored)
            }
            Opening::Begun {
                transaction,
                stored,
            } => {
                if transaction.is_blind() {
                    event::send(&events, RunEvent::ReadDenied).await;
                }
                report_skipped(&stored, &events).await;
                let skipped = Outcome::of_skipped(stored);
                let (outcome, measured) = self
                    .run_open(transaction, base, skipped, host, shutdown, events)
                    .await?;
                measurements = Some(measured);
                outcome
            }
            Opening::Stopped | Opening::Wait { .. } => Outcome {
                not_done: self.prefixes.iter().collect(),
                ..Outcome::default()
            },
        };
        let elapsed = began.elapsed();
        destination.close().await;
        Ok(FinishedRun {
            outcome,
            elapsed,
            measurements,
        })
    }

    /// Opens the transaction, and waits if it has to.
    async fn open(
        &self,
        destination: &Arc<dyn Destination>,
        shutdown: &Shutdown,
        events: &mpsc::Sender<RunEvent>,
    ) -> anyhow::Result<Opening> {
        let source = self.source.to_string();
        loop {
            let request = Request {
                source: &source,
                mode: self.mode,
                prefixes: &self.prefixes,
                force: self.force || self.refreshes_in_place(),
                now: Timestamp::now(),
                random: fastrand::u32(..),
            };
            let opened = Transaction::open(Arc::clone(destination), request, &shutdown.graceful);
            let opening = tokio::select! {
                opening = opened => opening?,
                () = shutdown.immediate.cancelled() => Opening::Stopped,
            };
            let Opening::Wait { until } = opening else {
                return Ok(opening);
            };
            let wait = until.duration_since(Timestamp::now());
            let wait = Duration::try_from(wait).unwrap_or_default();
            event::send(events, RunEvent::Waiting { wait }).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.graceful.cancelled() => return Ok(Opening::Stopped),
            }
        }
    }

    /// Runs what is not stored yet. The manifest is written if everything is stored then; if not, the same command
    /// resumes the run.
    async fn run_open(
        &self,
        transaction: Transaction,
        base: Option<Arc<BaseArchive>>,
        skipped: Outcome,
        host: Box<dyn Host>,
        shutdown: Shutdown,
        events: mpsc::Sender<RunEvent>,
    ) -> anyhow::Result<(Outcome, Measurements)> {
        let transaction = Arc::new(transaction);
        let recorder = Arc::new(Recorder::start());
        // Dropping the set ends the task.
        let mut measuring = JoinSet::new();
        measuring.spawn(Arc::clone(&recorder).measure_process());
        let process = ProcessSettings {
            is_in_process: host.is_in_process(),
            parallel: self.dispatch.parallel,
            window: self.dispatch.window,
        };
        let mut settings = self.dispatch;
        // The source has delivered to an earlier process of this run.
        settings.waits_for_source |= !skipped.skipped.is_empty();
        let remaining = self.prefixes.iter();
        let remaining = remaining.filter(|prefix| !skipped.skipped.contains_key(prefix));
        let outcome = dispatch::run(
            remaining,
            Shared {
                host: Arc::from(host),
                transaction: Arc::clone(&transaction),
                base,
                recorder: Arc::clone(&recorder),
                events: events.clone(),
            },
            settings,
            shutdown.clone(),
        )
        .await;
        let source = self.source.to_string();
        let measurements = recorder.measurements(transaction.run(), source, &process);
        // A run that stored nothing must not replace what one that did has measured.
        if !outcome.stored.is_empty() {
            tokio::select! {
                () = transaction.note_measurements(&measurements) => {}
                () = shutdown.immediate.cancelled() => {}
            }
        }
        let outcome = Outcome {
            skipped: skipped.skipped,
            ..outcome
        };
        if outcome.is_complete() {
            let patience = Patience {
                give_up_after: settings.give_up_after,
                first_wait_max: settings.first_wait_max,
            };
            let stored = outcome.archived();
            let shutdown = &shutdown.graceful;
            completion::complete(&transaction, &stored, patience, shutdown, &events).await?;
        } else if !shutdown.immediate.is_cancelled() {
            transaction.close().await;
        }
        Ok((outcome, measurements))
    }

    /// Whether the base is the archive that the run replaces.
    fn refreshes_in_place(&self) -> bool {
        let base = self.base.as_ref();
        base.is_some_and(|base| is_same_place(base, &self.to))
    }

    /// Opens the base, if there is one and it can be used.
    ///
    /// # Errors
    /// It cannot be read, or not by a component that runs elsewhere.
    async fn open_base(
        &self,
        destination: &Arc<dyn Destination>,
        events: &mpsc::Sender<RunEvent>,
    ) -> anyhow::Result<Option<Arc<BaseArchive>>> {
        let expiry = self.deadline + EXPIRY_MARGIN;
        let base = match &self.base {
            None => return Ok(None),
            Some(_) if self.refreshes_in_place() => BaseArchive::in_place(Arc::clone(destination)),
            Some(ArchiveLocation::Folder(folder)) => {
                anyhow::ensure!(
                    matches!(self.host, HostChoice::Embedded { .. }),
                    "a component that runs elsewhere cannot read a base in the folder {}; name the destination as the base, or a bucket",
                    folder.display()
                );
                let store = Arc::new(FolderStore::open(folder, expiry).await?);
                BaseArchive::elsewhere(store, Arc::clone(destination))
            }
            Some(ArchiveLocation::Bucket(path)) => {
                let ca_file = self.ca_file.as_deref();
                let client = BucketClient::open(path.clone(), &self.object_options, ca_file)?;
                let store = Arc::new(BucketStore::new(client, expiry));
                BaseArchive::elsewhere(store, Arc::clone(destination))
            }
        };
        let source = self.source.to_string();
        let unusable = base.unusable_because(&source, self.mode).await;
        match unusable.context("cannot read the base")? {
            None => Ok(Some(Arc::new(base))),
            // Only --force replaces the archive of another source.
            Some(NoBase::OtherSource(archived)) if self.refreshes_in_place() && !self.force => {
                let requested = source;
                Err(TransactionError::OtherSource {
                    archived,
                    requested,
                }
                .into())
            }
            Some(reason) => {
                let base = self.base.as_ref().map(ToString::to_string);
                let reason = format!("{}: {reason}", base.unwrap_or_default());
                let prefix = None;
                event::send(events, RunEvent::BaseUnusable { prefix, reason }).await;
                Ok(None)
            }
        }
    }

    /// Opens the destination as the run is configured.
    ///
    /// # Errors
    /// The folder is locked or not writable, or the bucket's endpoint or credentials are not usable.
    pub async fn open_destination(&self) -> anyhow::Result<Arc<dyn Destination>> {
        let deadline = self.deadline;
        Ok(match (&self.to, &self.host) {
            (ArchiveLocation::Folder(folder), HostChoice::Embedded { .. }) => {
                Arc::new(FolderDestination::open(folder, deadline).await?)
            }
            (ArchiveLocation::Folder(folder), HostChoice::Remote(remote)) => {
                Arc::new(FolderDestination::open_listening(folder, deadline, remote.store).await?)
            }
            (ArchiveLocation::Bucket(path), _) => Arc::new(BucketDestination::open(
                path.clone(),
                &self.object_options,
                deadline,
                self.ca_file.as_deref(),
            )?),
        })
    }

    /// Opens the host as the run is configured.
    ///
    /// # Errors
    /// The component or the CA file is not usable.
    pub async fn open_host(&self) -> anyhow::Result<Box<dyn Host>> {
        match &self.host {
            HostChoice::Embedded {
                component_file,
                profile,
            } => {
                let host = self.embedded_host(component_file.clone(), profile.clone());
                Ok(Box::new(host.await?))
            }
            HostChoice::Remote(remote) => Ok(Box::new(RemoteHost::new(
                remote.components.clone(),
                &remote.token,
                self.source.clone(),
                self.deadline,
                self.ca_file.as_deref(),
            )?)),
        }
    }

    async fn embedded_host(
        &self,
        component_file: Option<PathBuf>,
        profile: Option<GuestProfile>,
    ) -> anyhow::Result<EmbeddedHost> {
        let is_local = self.source.authority().is_loopback();
        let encoding = self.encoding.unwrap_or(if is_local {
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
        settings.profile = profile;
        let window = self.dispatch.window.unwrap_or(WINDOW_DEFAULT);
        settings.connections = connections_of(self.dispatch.parallel, window);
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
}

async fn report_skipped(stored: &[StoredPrefix], events: &mpsc::Sender<RunEvent>) {
    if !stored.is_empty() {
        event::send(events, RunEvent::Skipped(stored.to_vec())).await;
    }
}
