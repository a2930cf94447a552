//! The same component file behaves alike on every host: the same bytes, the same memory cap, the same rejections, and
//! nothing left behind by an invocation that dies.

mod framing;

use crate::Test;
use crate::harness::changing_source::{ChangingSource, Etags};
use crate::harness::faults::SourceFault;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::hosts::{HostKind, RunningHost, Setup};
use crate::harness::program::measured;
use crate::harness::source::{listener, valid_body};
use crate::harness::{DEADLINE, expected_tar, files_of, prefix, signed_upload};
use framing::{
    a_body_that_is_whole_is_accepted,
    an_identity_body_without_a_length_needs_a_host_that_checks_framing,
    no_part_of_a_range_gets_into_a_tar,
};
use futures::future::LocalBoxFuture;
use orchestrator::destination::Destination;
use orchestrator::destination::folder::FolderDestination;
use orchestrator::host::FailedInvocation;
use prefix_tar::engine::tar::RECORD_BYTES;
use prefix_tar::limits::{CONTENT_LENGTH_MAX, LINEAR_MEMORY_BYTES_MAX, RANGE_BYTES_MAX};
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::{Base, Job};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::report::Report;
use std::net::SocketAddr;
use std::time::Instant;

const LINES: u64 = 5;

/// A case runs on one host.
type Case = fn(HostKind) -> LocalBoxFuture<'static, ()>;

/// The cases, with their names.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        [$((stringify!($case), (|kind| Box::pin($case(kind))) as Case)),*]
    };
}

/// The cases that every host must pass.
const CASES: [(&str, Case); 8] = cases![
    the_bytes_are_the_same_and_the_memory_stays_within_the_cap,
    ranges_of_the_largest_size_stay_within_the_cap_and_larger_ones_are_named,
    an_invocation_that_dies_in_mid_upload_leaves_no_object,
    no_part_of_a_range_gets_into_a_tar,
    a_body_that_is_whole_is_accepted,
    an_identity_body_without_a_length_needs_a_host_that_checks_framing,
    another_store_is_refused,
    what_has_not_changed_comes_from_the_base,
];

/// The embedded host makes its token itself, so it cannot have a wrong one.
const EXCEPT_EMBEDDED: [(&str, Case); 1] = cases![a_wrong_token_is_refused];

/// Only Spin has a manifest.
const ONLY_SPIN: [(&str, Case); 1] = cases![what_the_manifest_does_not_name_is_denied];

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for kind in HostKind::ALL {
        let missing = kind.missing();
        let mut cases = CASES.to_vec();
        if kind != HostKind::Embedded {
            cases.extend(EXCEPT_EMBEDDED);
        }
        if kind == HostKind::Spin {
            cases.extend(ONLY_SPIN);
        }
        for (name, case) in cases {
            let name = format!("{name}::{}", kind.name());
            tests.push(Test::new(name, missing, move || case(kind)));
        }
    }
    tests
}

/// A folder whose store is on a socket.
struct Store {
    folder: tempfile::TempDir,
    destination: FolderDestination,
    address: SocketAddr,
}

impl Store {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = listener().await.local_addr().expect("an address");
        let open = FolderDestination::open_listening(folder.path(), DEADLINE, address);
        Self {
            destination: open.await.expect("a destination"),
            folder,
            address,
        }
    }

    /// Mirrors prefix AB on a host.
    async fn invoke(
        &self,
        host: &RunningHost,
        content_length: Option<u64>,
    ) -> Result<Report, FailedInvocation> {
        let ab = prefix("AB");
        let job = Job {
            prefix: ab,
            upload: signed_upload(&self.destination, ab).await,
            content_length,
            window: None,
            base: None,
            mode: Mode::Sha1,
        };
        host.host.invoke(job, &|_| ()).await
    }

    /// Mirrors prefix AB on a host, over the tar that `report` describes and on it.
    async fn refreshed(&self, host: &RunningHost, report: &Report) -> Report {
        let ab = prefix("AB");
        let text = serde_json::to_vec(report).expect("JSON");
        std::fs::write(self.folder.path().join("AB.json"), text).expect("written");
        let download = async |file: &str| {
            let generation = self.destination.archive().generation(file).await;
            let generation = generation.expect("a readable folder").expect("a file");
            let download = self.destination.sign_download(file, &generation).await;
            download.expect("a signed URL")
        };
        let job = Job {
            prefix: ab,
            upload: signed_upload(&self.destination, ab).await,
            content_length: None,
            window: None,
            base: Some(Base {
                report: download("AB.json").await,
                tar: download("AB.tar").await,
                always_upload: false,
            }),
            mode: Mode::Sha1,
        };
        let outcome = host.host.invoke(job, &|_| ()).await;
        outcome.unwrap_or_else(|failed| panic!("{}", failed.failure))
    }

    /// Mirrors prefix AB on a host, and expects it to be stored.
    async fn stored(&self, host: &RunningHost) -> Report {
        let outcome = self.invoke(host, None).await;
        outcome.unwrap_or_else(|failed| panic!("{}", failed.failure))
    }

    /// Mirrors prefix AB on a host, and expects it to fail.
    async fn failure(&self, host: &RunningHost, content_length: Option<u64>) -> Failure {
        let outcome = self.invoke(host, content_length).await;
        outcome.expect_err("a failed invocation").failure
    }

    /// The stored tar.
    fn tar(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("AB.tar")).expect("a tar")
    }

    /// The tars and the staged files of unfinished ones.
    fn objects(&self) -> Vec<String> {
        let names = files_of(self.folder.path()).into_keys();
        names
            .filter(|name| name.contains("tar") && !name.ends_with(".lock"))
            .collect()
    }
}

async fn the_bytes_are_the_same_and_the_memory_stays_within_the_cap(kind: HostKind) {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = Store::start().await;
    let host = kind.start(&Setup::new(source.url(), store.address)).await;
    let began = Instant::now();
    let report = store.stored(&host).await;
    assert!(
        store.tar() == expected_tar("AB", |range| body_of(range, LINES)),
        "the tar differs"
    );
    assert!(report.linear_memory_peak <= LINEAR_MEMORY_BYTES_MAX as u64);
    measured(&format!(
        "| {} | 4,096 ranges in {:.2} s | {:.1} MiB of linear memory |",
        kind.name(),
        began.elapsed().as_secs_f64(),
        report.linear_memory_peak as f64 / 1_048_576.0
    ));
}

async fn ranges_of_the_largest_size_stay_within_the_cap_and_larger_ones_are_named(kind: HostKind) {
    let large = |bytes| move |range| valid_body(range, bytes).to_vec();
    let (largest, larger) = (
        FaultySource::start(large(RANGE_BYTES_MAX), |_, _| None).await,
        FaultySource::start(large(1024 * 1024), |_, _| None).await,
    );
    let store = Store::start().await;
    let host = kind.start(&Setup::new(largest.url(), store.address)).await;
    let report = store.stored(&host).await;
    assert!(report.linear_memory_peak <= LINEAR_MEMORY_BYTES_MAX as u64);
    measured(&format!(
        "| {} | ranges of 256 KiB | {:.2} MiB of linear memory |",
        kind.name(),
        report.linear_memory_peak as f64 / 1_048_576.0
    ));
    let host = kind.start(&Setup::new(larger.url(), store.address)).await;
    let failure = store.failure(&host, None).await;
    assert_eq!(failure.kind, FailureKind::RangeTooLarge, "{failure}");
}

async fn an_invocation_that_dies_in_mid_upload_leaves_no_object(kind: HostKind) {
    let refusing = FaultySource::start(
        |range| body_of(range, LINES),
        |range, _| (range.index() >= 0x400).then_some(SourceFault::Status(403)),
    )
    .await;
    // Ranges that turn large, and a memory that is too small for them: the allocator gives up, and that traps.
    let swelling = FaultySource::start(
        |range| match range.index() {
            0..0x400 => body_of(range, LINES),
            _ => valid_body(range, 250_000).to_vec(),
        },
        |_, _| None,
    )
    .await;
    let store = Store::start().await;
    let far_too_long = Some(CONTENT_LENGTH_MAX / RECORD_BYTES * RECORD_BYTES);
    let refused = Setup::new(refusing.url(), store.address);
    let trapped = Setup {
        linear_memory_bytes_max: 2 * 1024 * 1024,
        ..Setup::new(swelling.url(), store.address)
    };
    for (setup, expected) in [
        (refused, FailureKind::SourceStatus),
        (trapped, FailureKind::Died),
    ] {
        let host = kind.start(&setup).await;
        for _ in 0..3 {
            let failure = store.failure(&host, far_too_long).await;
            assert_eq!(failure.kind, expected, "{failure}");
        }
        drop(host);
        store.destination.uploads_ended().await;
        assert_eq!(store.objects(), Vec::<String>::new());
    }
}

async fn another_store_is_refused(kind: HostKind) {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let other = listener().await.local_addr().expect("an address");
    assert_refused(kind, &source, FailureKind::BadJob, |setup| Setup {
        store: other,
        store_in_manifest: other,
        ..setup
    })
    .await;
}

async fn what_has_not_changed_comes_from_the_base(kind: HostKind) {
    let source = ChangingSource::start(Etags::Strong).await;
    let store = Store::start().await;
    let host = kind.start(&Setup::new(&source.url(), store.address)).await;
    let first = store.stored(&host).await;
    source.take_counts();

    let second = store.refreshed(&host, &first).await;
    let counts = source.take_counts();
    assert_eq!((counts.requests, counts.bodies), (4096, 0));
    assert!(second.reuse.is_some_and(|reuse| !reuse.uploaded));

    source.change(50, 0, 1);
    let changed = source.changed_ranges("AB");
    let third = store.refreshed(&host, &first).await;
    assert_eq!(source.take_counts().bodies, changed);
    let reuse = third.reuse.expect("a base");
    assert_eq!(u64::from(reuse.ranges), 4096 - changed);
    assert_eq!((reuse.uploaded, reuse.fault), (true, None));
    assert!(
        store.tar() == expected_tar("AB", |range| source.body(range)),
        "the tar differs"
    );
    measured(&format!(
        "| {} | on a base | {:.1} MiB of linear memory |",
        kind.name(),
        third.linear_memory_peak as f64 / 1_048_576.0
    ));
}

async fn a_wrong_token_is_refused(kind: HostKind) {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    assert_refused(kind, &source, FailureKind::Unauthorized, |setup| Setup {
        has_wrong_token: true,
        ..setup
    })
    .await;
}

/// Expects a host with a changed setup to refuse a job before it fetches anything.
async fn assert_refused(
    kind: HostKind,
    source: &FaultySource,
    expected: FailureKind,
    change: impl FnOnce(Setup) -> Setup,
) {
    let store = Store::start().await;
    let setup = change(Setup::new(source.url(), store.address));
    let host = kind.start(&setup).await;
    let failure = store.failure(&host, None).await;
    assert_eq!(failure.kind, expected, "{failure}");
    assert_eq!(source.faults().range_requests(), 0, "nothing was fetched");
    assert_eq!(store.objects(), Vec::<String>::new());
}

async fn what_the_manifest_does_not_name_is_denied(kind: HostKind) {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = Store::start().await;
    let setup = Setup {
        store_in_manifest: listener().await.local_addr().expect("an address"),
        ..Setup::new(source.url(), store.address)
    };
    let host = kind.start(&setup).await;
    let failure = store.failure(&host, None).await;
    assert_eq!(failure.kind, FailureKind::StoreUnreachable, "{failure}");
    assert!(!failure.retryable, "{failure}");
    let advice = "check its allowed outbound hosts";
    assert!(failure.message.contains(advice), "{failure}");
    assert_eq!(store.objects(), Vec::<String>::new());
}
