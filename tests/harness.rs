//! Sources, destinations, hosts and helper programs for the end-to-end tests.

pub(crate) mod broken_store;
pub(crate) mod certificates;
pub(crate) mod changing_source;
pub(crate) mod component_server;
pub(crate) mod faults;
pub(crate) mod faulty_source;
pub(crate) mod faulty_store;
pub(crate) mod google;
pub(crate) mod hosts;
pub(crate) mod latency;
pub(crate) mod mirror_program;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod refusing_store;
pub(crate) mod relay;
pub(crate) mod source;
pub(crate) mod store_program;
pub(crate) mod tls_server;

use bytes::Bytes;
use emulator::Emulator;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use orchestrator::archive::folder::FolderArchive;
use orchestrator::archive::location::ArchiveLocation;
use orchestrator::destination::Destination;
use orchestrator::destination::folder::FolderDestination;
use orchestrator::gcs::options::ObjectOptions;
use orchestrator::generate::GeneratorConfig;
use orchestrator::host::embedded::{EmbeddedHost, EmbeddedSettings};
use orchestrator::host::{Host, InvocationUpdate};
use orchestrator::origin::Origin;
use orchestrator::run::dispatch::DispatchSettings;
use orchestrator::run::event::RUN_EVENTS_MAX;
use orchestrator::run::outcome::FinishedRun;
use orchestrator::run::plan::PrefixSet;
use orchestrator::run::shutdown::Shutdown;
use orchestrator::run::{HostChoice, RunConfig};
use orchestrator::verify::{Verdict, verify};
use prefix_tar::engine::length::LengthSample;
use prefix_tar::protocol::configuration::{SOURCE_ENCODING, SOURCE_URL};
use prefix_tar::protocol::failure::Failure;
use prefix_tar::protocol::job::{Job, Upload};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::source::{Encoding, SourceUrl};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The deadline of an invocation: longer than any should take, so that only one that hangs is
/// ended.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The `Last-Modified` date that [`faulty_source`] sends, in Unix time: 2026-01-01.
const FAULTY_SOURCE_MODIFIED: u64 = 1_767_225_600;

/// Generates the ranges of `prefixes` in a temporary folder.
pub(crate) fn generated(prefixes: &str, hashes_per_range: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = GeneratorConfig {
        seed: 26,
        hashes_per_range,
        mode: Mode::Sha1,
    };
    let generator = config.generator().expect("a generator");
    for prefix in prefix_set(prefixes).iter() {
        generator
            .write_prefix(prefix, folder.path())
            .expect("generated ranges");
    }
    folder
}

pub(crate) fn prefix_set(text: &str) -> PrefixSet {
    text.parse().expect("prefixes")
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

/// The configuration of a run on the embedded host, into a folder.
pub(crate) fn run_config(source: &SourceUrl, folder: &Path, prefixes: &str) -> RunConfig {
    RunConfig {
        source: source.clone(),
        mode: Mode::Sha1,
        to: ArchiveLocation::Folder(folder.to_owned()),
        object_options: ObjectOptions::default(),
        prefixes: prefix_set(prefixes),
        dispatch: DispatchSettings {
            parallel: 2,
            window: None,
            first_wait_max: Duration::from_millis(1),
            give_up_after: Duration::from_secs(5),
            waits_for_source: false,
        },
        encoding: None,
        deadline: DEADLINE,
        ca_file: None,
        force: false,
        base: None,
        host: HostChoice::Embedded {
            component_file: None,
            profile: None,
        },
    }
}

/// Runs `config` and discards the events.
pub(crate) async fn run(config: RunConfig) -> FinishedRun {
    let destination = config.open_destination().await.expect("a destination");
    run_into(config, destination).await
}

/// Runs `config` with a server of the test's own between the component and the emulator. `front`
/// wraps the emulator.
pub(crate) async fn run_behind(
    config: RunConfig,
    front: impl FnOnce(Arc<Emulator>) -> Origin,
) -> FinishedRun {
    let ArchiveLocation::Folder(folder) = &config.to else {
        panic!("the destination {} is not a folder", config.to);
    };
    let destination = FolderDestination::open_behind(folder, config.deadline, front);
    let destination = destination.await.expect("a destination");
    run_into(config, Arc::new(destination)).await
}

/// Runs `config` into a destination that is already open.
pub(crate) async fn run_into(config: RunConfig, destination: Arc<dyn Destination>) -> FinishedRun {
    let host = config.open_host().await.expect("a host");
    run_on(config, destination, host).await
}

/// Runs `config` into a destination that is already open, on a host of the test's own.
pub(crate) async fn run_on(
    config: RunConfig,
    destination: Arc<dyn Destination>,
    host: Box<dyn Host>,
) -> FinishedRun {
    let (sender, mut events) = tokio::sync::mpsc::channel(RUN_EVENTS_MAX);
    let drained = tokio::spawn(async move { while events.recv().await.is_some() {} });
    let run = config
        .run_with(destination, host, Shutdown::default(), sender)
        .await
        .expect("a run");
    drained.await.expect("all events received");
    run
}

/// Verifies the archive in a folder.
pub(crate) fn verified(archive: &Path) -> Verdict {
    let archive = FolderArchive::new(archive.to_owned());
    // Verification blocks the thread, so it must not run on a thread of the test's runtime.
    std::thread::scope(|scope| {
        let verifying = scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let shutdown = CancellationToken::new();
            verify(&archive, runtime.handle(), &shutdown, None, |_| (), || ())
        });
        verifying.join().expect("a verdict")
    })
}

/// Runs `config` and expects every prefix to be stored.
pub(crate) async fn run_whole(config: RunConfig) -> FinishedRun {
    let run = run(config).await;
    let outcome = &run.outcome;
    assert!(outcome.is_complete(), "{:?}", outcome.failed);
    run
}

/// An embedded host and a destination folder, to run single invocations.
pub(crate) struct Fixture {
    pub(crate) destination: FolderDestination,
    pub(crate) host: EmbeddedHost,
    folder: tempfile::TempDir,
    ranges_reported: AtomicU32,
}

impl Fixture {
    /// Opens a destination and starts a host. `change` can modify the host's settings.
    pub(crate) async fn new(
        source: &SourceUrl,
        change: impl FnOnce(&mut EmbeddedSettings),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let destination = FolderDestination::open(folder.path(), DEADLINE)
            .await
            .expect("a destination");
        let mut settings = EmbeddedSettings::new(
            vec![
                (SOURCE_URL.to_owned(), source.to_string()),
                (
                    SOURCE_ENCODING.to_owned(),
                    Encoding::Identity.as_str().to_owned(),
                ),
            ],
            vec![Origin::of_source(source)],
        );
        settings.deadline = DEADLINE;
        change(&mut settings);
        let mut host = tokio::task::spawn_blocking(move || EmbeddedHost::new(settings))
            .await
            .expect("a host that started without panicking")
            .expect("a host");
        host.allow_upload(destination.origin().clone());
        Self {
            destination,
            host,
            folder,
            ranges_reported: AtomicU32::new(0),
        }
    }

    /// The job for `prefix`, with a signed upload URL.
    pub(crate) async fn job(&self, prefix: Prefix) -> Job {
        Job {
            prefix,
            upload: signed_upload(&self.destination, prefix).await,
            content_length: None,
            window: None,
            base: None,
            mode: Mode::Sha1,
        }
    }

    /// Invokes the component with `job`.
    pub(crate) async fn invoke(&self, job: Job) -> Result<Report, Failure> {
        let on_update = |update: InvocationUpdate| {
            if let InvocationUpdate::Progress(progress) = update {
                self.ranges_reported
                    .fetch_max(progress.ranges, Ordering::Relaxed);
            }
        };
        let outcome = self.host.invoke(job, &on_update).await;
        outcome.map_err(|failed| failed.failure)
    }

    /// The highest number of ranges that any progress event reported.
    pub(crate) fn ranges_reported(&self) -> u32 {
        self.ranges_reported.load(Ordering::Relaxed)
    }

    /// The stored tar of `prefix`.
    pub(crate) fn tar(&self, prefix: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(format!("{prefix}.tar"))).expect("a tar")
    }

    /// Waits until every upload has ended, then returns the names of the files at the destination.
    pub(crate) async fn into_file_names(self) -> Vec<String> {
        drop(self.host);
        self.destination.close().await;
        // This also removes the lock file.
        drop(self.destination);
        files_of(self.folder.path()).into_keys().collect()
    }
}

/// Signs an upload of a prefix over what is there now.
pub(crate) async fn signed_upload(destination: &FolderDestination, prefix: Prefix) -> Upload {
    let tar = format!("{prefix}.tar");
    let base = destination.archive().generation(&tar);
    let base = base.await.expect("a readable folder");
    let upload = destination.sign_upload(prefix, &base).await;
    upload.expect("a signed URL")
}

/// A fixture with default settings.
pub(crate) async fn default_fixture(source: &SourceUrl) -> Fixture {
    Fixture::new(source, |_| ()).await
}

/// The tar that the component must produce for the prefix `name` when its ranges have these bodies.
/// The `tar` crate builds it, and the component's estimate sets its length.
pub(crate) fn expected_tar(name: &str, body: impl Fn(RangeName) -> Vec<u8>) -> Vec<u8> {
    let mut sample = LengthSample::default();
    let mut builder = tar::Builder::new(Vec::new());
    for range in prefix(name).ranges() {
        let body = body(range);
        if !sample.is_complete() {
            sample.add(body.len() as u64);
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(FAULTY_SOURCE_MODIFIED);
        header.set_size(body.len() as u64);
        builder
            .append_data(&mut header, range.file_name(), body.as_slice())
            .expect("an appended entry");
    }
    let mut tar = builder.into_inner().expect("a tar");
    let length = usize::try_from(sample.content_length()).expect("a length");
    assert!(
        tar.len() <= length,
        "the tar is larger than its estimated length"
    );
    tar.resize(length, 0);
    tar
}

/// The contents of a folder's files, by name.
pub(crate) fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

/// The contents of an archive's tars, by name.
pub(crate) fn tars_of(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = files_of(archive);
    files.retain(|name, _| name.ends_with(".tar"));
    files
}

/// Extracts every tar of `archive` with GNU tar and expects `diff -r` to find no difference from
/// `ranges`.
pub(crate) fn assert_extracts_to(archive: &Path, ranges: &Path) {
    let extracted = tempfile::tempdir().expect("a temporary folder");
    for name in tars_of(archive).into_keys() {
        program::succeeds(
            "tar",
            &[
                "-C".as_ref(),
                extracted.path().as_os_str(),
                "-xf".as_ref(),
                archive.join(name).as_os_str(),
            ],
        );
    }
    program::succeeds(
        "diff",
        &[
            "-r".as_ref(),
            extracted.path().as_os_str(),
            ranges.as_os_str(),
        ],
    );
}

/// An HTTP client for requests that a test sends itself.
pub(crate) fn http_client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request and reads the whole response.
pub(crate) async fn fetch(request: http::Request<Full<Bytes>>) -> http::Response<Bytes> {
    let response = http_client().request(request).await.expect("a response");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    http::Response::from_parts(parts, body)
}

/// The root folder of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a repository")
        .to_owned()
}
