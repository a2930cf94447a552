//! What a test needs around it: a source, a destination, a host, and programs of others.

pub(crate) mod certificates;
pub(crate) mod component_server;
pub(crate) mod distant;
pub(crate) mod faults;
pub(crate) mod faulty_source;
pub(crate) mod faulty_store;
pub(crate) mod google;
pub(crate) mod hosts;
pub(crate) mod nginx;
pub(crate) mod program;
pub(crate) mod source;
pub(crate) mod store_program;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use orchestrator::destination::bucket::ObjectOptions;
use orchestrator::destination::folder::FolderDestination;
use orchestrator::destination::{Destination as _, DestinationName};
use orchestrator::dispatch::{Settings, Stop, UPDATES_MAX};
use orchestrator::generate::Recipe;
use orchestrator::host::embedded::{EmbeddedHost, EmbeddedSettings, Origin};
use orchestrator::host::{Host as _, InvocationProgress};
use orchestrator::local_store::LocalStore;
use orchestrator::mirror::{HostChoice, Mirror, Mirrored};
use orchestrator::plan::PrefixSet;
use prefix_tar::configuration::{SOURCE_ENCODING, SOURCE_URL};
use prefix_tar::failure::Failure;
use prefix_tar::job::{Job, Report};
use prefix_tar::length::LengthSample;
use prefix_tar::prefix::{Prefix, RangeName};
use prefix_tar::source::{Encoding, SourceUrl};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longer than any test's invocation should take, so that one that hangs is ended.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The Last-Modified of [`faulty_source`], as Unix time: 2026-01-01.
const FAULTY_SOURCE_MODIFIED: u64 = 1_767_225_600;

/// Generates `prefixes` into a folder of their own.
pub(crate) fn generated(prefixes: &str, hashes_per_range: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = Recipe {
        seed: 26,
        hashes_per_range,
    };
    for prefix in prefix_set(prefixes).iter() {
        recipe
            .write_prefix(prefix, folder.path())
            .expect("generated");
    }
    folder
}

pub(crate) fn prefix_set(text: &str) -> PrefixSet {
    text.parse().expect("prefixes")
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

/// A run of the main job in this process.
pub(crate) fn mirror(source: &SourceUrl, folder: &Path, prefixes: &str) -> Mirror {
    Mirror {
        source: source.clone(),
        to: DestinationName::Folder(folder.to_owned()),
        object_options: ObjectOptions::default(),
        prefixes: prefix_set(prefixes),
        settings: Settings {
            parallel: 2,
            window: None,
            first_wait_max: Duration::from_millis(1),
        },
        encoding: None,
        deadline: DEADLINE,
        ca_file: None,
        force: false,
        host: HostChoice::Embedded {
            component_file: None,
        },
    }
}

/// Runs the main job; what is told on the way is not looked at.
pub(crate) async fn run(mirror: Mirror) -> Mirrored {
    let open = FolderDestination::open(folder_of(&mirror), mirror.deadline);
    let destination = open.await.expect("a destination");
    run_into(mirror, destination).await
}

fn folder_of(mirror: &Mirror) -> &Path {
    match &mirror.to {
        DestinationName::Folder(folder) => folder,
        DestinationName::Bucket(path) => panic!("{path} is no folder"),
    }
}

/// Runs the main job with something between the component and the store.
pub(crate) async fn run_behind(
    mirror: Mirror,
    front: impl FnOnce(Arc<LocalStore>) -> Origin,
) -> Mirrored {
    let open = FolderDestination::open_behind(folder_of(&mirror), mirror.deadline, front);
    let destination = open.await.expect("a destination");
    run_into(mirror, destination).await
}

/// Runs the main job into a destination that is open.
pub(crate) async fn run_into(mirror: Mirror, destination: FolderDestination) -> Mirrored {
    let (sender, mut updates) = tokio::sync::mpsc::channel(UPDATES_MAX);
    let drained = tokio::spawn(async move { while updates.recv().await.is_some() {} });
    let host = mirror.embedded_host().await.expect("a host");
    let mirrored = mirror
        .run_into(destination, host, Stop::default(), sender)
        .await
        .expect("a run");
    drained.await.expect("drained");
    mirrored
}

/// Runs the main job and expects every prefix to be stored.
pub(crate) async fn run_whole(mirror: Mirror) -> Mirrored {
    let mirrored = run(mirror).await;
    let outcome = &mirrored.outcome;
    assert!(outcome.is_complete(), "{:?}", outcome.failed);
    mirrored
}

/// The embedded host with a destination, for one invocation at a time.
pub(crate) struct Stage {
    pub(crate) destination: FolderDestination,
    pub(crate) host: EmbeddedHost,
    folder: tempfile::TempDir,
    progressed: AtomicU32,
}

impl Stage {
    /// A stage whose host is set up as `change` says.
    pub(crate) async fn new(
        source: &SourceUrl,
        change: impl FnOnce(&mut EmbeddedSettings),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
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
            .expect("not cancelled")
            .expect("a host");
        host.allow_upload(destination.origin().clone());
        Self {
            destination,
            host,
            folder,
            progressed: AtomicU32::new(0),
        }
    }

    /// The job for a prefix, with its PUT signed.
    pub(crate) async fn job(&self, prefix: Prefix) -> Job {
        Job {
            prefix,
            upload: self.destination.prepare(prefix).await.expect("signed"),
            content_length: None,
            window: None,
        }
    }

    pub(crate) async fn invoke(&self, job: Job) -> Result<Report, Failure> {
        let on_progress = |progress: InvocationProgress| {
            self.progressed
                .fetch_max(progress.ranges, Ordering::Relaxed);
        };
        let outcome = self.host.invoke(job, &on_progress).await;
        outcome.map_err(|failed| failed.failure)
    }

    /// The most ranges that any progress event told of.
    pub(crate) fn ranges_told(&self) -> u32 {
        self.progressed.load(Ordering::Relaxed)
    }

    /// The tar of a prefix, as it is stored.
    pub(crate) fn tar(&self, prefix: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(format!("{prefix}.tar"))).expect("a tar")
    }

    /// What lies at the destination in the end, by name: once every upload has ended, one way or the other.
    pub(crate) async fn into_files(self) -> Vec<String> {
        drop(self.host);
        self.destination.close().await;
        // The lock goes with it.
        drop(self.destination);
        files_of(self.folder.path()).into_keys().collect()
    }
}

/// A stage with nothing special.
pub(crate) async fn stage_of(source: &SourceUrl) -> Stage {
    Stage::new(source, |_| ()).await
}

/// The tar that a prefix of these ranges has: made by the `tar` crate, with the estimate that the component makes.
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
            .expect("appended");
    }
    let mut tar = builder.into_inner().expect("a tar");
    let length = usize::try_from(sample.content_length()).expect("a length");
    assert!(tar.len() <= length, "the data outgrow the estimate");
    tar.resize(length, 0);
    tar
}

/// The files of a folder with their bytes, by name.
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

/// The tars of an archive, by name.
pub(crate) fn tars_of(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = files_of(archive);
    files.retain(|name, _| name.ends_with(".tar"));
    files
}

/// Extracts every tar of `archive` with GNU tar, and has `diff -r` compare what comes out with `ranges`.
pub(crate) fn assert_extracts_to(archive: &Path, ranges: &Path) {
    let extracted = tempfile::tempdir().expect("a folder");
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

/// An HTTP client for what tests ask of servers themselves.
pub(crate) fn http_client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request and reads the whole answer.
pub(crate) async fn fetch(request: http::Request<Full<Bytes>>) -> http::Response<Bytes> {
    let response = http_client().request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    http::Response::from_parts(parts, body)
}

/// A path in the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a repository")
        .to_owned()
}
