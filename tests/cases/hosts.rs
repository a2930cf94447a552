//! The same component file behaves alike on every host: the same bytes, the same memory cap, the
//! same rejections, and nothing left behind by an invocation that dies.

use crate::harness::faults::{SourceFault, SourceForm};
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::hosts::{RunningHost, Setup, every_host, spin_up};
use crate::harness::program::measured;
use crate::harness::source::{listener, valid_body};
use crate::harness::{DEADLINE, expected_tar, files_of, prefix, signed_upload};
use orchestrator::destination::folder::FolderDestination;
use orchestrator::host::FailedInvocation;
use prefix_tar::engine::tar::RECORD_BYTES;
use prefix_tar::limits::{CONTENT_LENGTH_MAX, LINEAR_MEMORY_BYTES_MAX, RANGE_BYTES_MAX};
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::prefix::RangeName;
use prefix_tar::protocol::report::Report;
use std::net::SocketAddr;
use std::time::Instant;

const LINES: u64 = 5;

/// Lines of a range whose last count has two digits, so that it can be cut inside.
const COUNTS_OF_TWO_DIGITS: u64 = 12;

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
        };
        host.host.invoke(job, &|_| ()).await
    }

    /// The tars and the staged files of unfinished ones.
    fn objects(&self) -> Vec<String> {
        let names = files_of(self.folder.path()).into_keys();
        names
            .filter(|name| name.contains("tar") && !name.ends_with(".lock"))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_stores_the_same_bytes_within_the_cap() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = Store::start().await;
    let expected = expected_tar("AB", |range| body_of(range, LINES));
    for host in every_host(&Setup::new(source.url(), store.address)).await {
        let began = Instant::now();
        let report = store.invoke(&host, None).await;
        let report = report.unwrap_or_else(|failed| panic!("{}: {}", host.name, failed.failure));
        let tar = std::fs::read(store.folder.path().join("AB.tar")).expect("a tar");
        assert!(tar == expected, "{}: the tar is another", host.name);
        assert!(report.linear_memory_peak <= LINEAR_MEMORY_BYTES_MAX as u64);
        measured(&format!(
            "| {} | 4,096 ranges in {:.2} s | {:.1} MiB of linear memory |",
            host.name,
            began.elapsed().as_secs_f64(),
            report.linear_memory_peak as f64 / 1_048_576.0
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_host_ranges_of_the_largest_size_stay_within_the_cap_and_larger_ones_are_named() {
    let large = |bytes| move |range| valid_body(range, bytes).to_vec();
    let (largest, larger) = (
        FaultySource::start(large(RANGE_BYTES_MAX), |_, _| None).await,
        FaultySource::start(large(1024 * 1024), |_, _| None).await,
    );
    let store = Store::start().await;
    for host in every_host(&Setup::new(largest.url(), store.address)).await {
        let report = store.invoke(&host, None).await;
        let report = report.unwrap_or_else(|failed| panic!("{}: {}", host.name, failed.failure));
        assert!(report.linear_memory_peak <= LINEAR_MEMORY_BYTES_MAX as u64);
        measured(&format!(
            "| {} | ranges of 256 KiB | {:.2} MiB of linear memory |",
            host.name,
            report.linear_memory_peak as f64 / 1_048_576.0
        ));
    }
    for host in every_host(&Setup::new(larger.url(), store.address)).await {
        let failed = store.invoke(&host, None).await.expect_err("too large");
        assert_eq!(
            failed.failure.kind,
            FailureKind::RangeTooLarge,
            "{}",
            host.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_host_an_invocation_that_dies_in_mid_upload_leaves_no_object() {
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
    for (setup, kind) in [
        (refused, FailureKind::SourceStatus),
        (trapped, FailureKind::Died),
    ] {
        for host in every_host(&setup).await {
            for _ in 0..3 {
                let failed = store
                    .invoke(&host, far_too_long)
                    .await
                    .expect_err("it dies");
                assert_eq!(
                    failed.failure.kind, kind,
                    "{}: {}",
                    host.name, failed.failure
                );
            }
            drop(host);
            store.destination.uploads_ended().await;
            assert_eq!(store.objects(), Vec::<String>::new());
        }
    }
}

/// Answers that carry a part of a range, or a whole range that nothing shows to be whole.
const PARTS: [SourceFault; 9] = [
    SourceFault::UnframedAfterLine,
    SourceFault::UnframedInsideCount,
    SourceFault::Unframed,
    SourceFault::UnframedHttp10,
    SourceFault::UnframedGzipCut,
    SourceFault::UnframedGzipMembers,
    SourceFault::UnframedMd5,
    SourceFault::ContentRange,
    SourceFault::Md5Wrong,
];

/// Three of eight first requests meet one, which costs all the retries that an invocation has.
fn parts(range: RangeName, attempt: u32) -> Option<SourceFault> {
    let index = usize::from(range.index());
    let is_hit = attempt == 1 && matches!(index % 8, 1 | 4 | 6);
    is_hit.then_some(PARTS[index / 8 % PARTS.len()])
}

/// Mirrors a prefix of which many ranges are answered in part, and expects the right tar or a message
/// that names such an answer.
async fn assert_no_part_is_stored(ignores_framing: bool) {
    let bodies = |range| body_of(range, COUNTS_OF_TWO_DIGITS);
    let source = FaultySource::start(bodies, parts).await;
    let store = Store::start().await;
    let expected = expected_tar("AB", bodies);
    let setup = Setup {
        ignores_framing,
        ..Setup::new(source.url(), store.address)
    };
    for host in every_host(&setup).await {
        source.faults().forget_range_attempts();
        let name = host.name;
        match store.invoke(&host, None).await {
            Ok(report) => {
                let tar = std::fs::read(store.folder.path().join("AB.tar")).expect("a tar");
                assert!(tar == expected, "{name}: the tar differs");
                assert!(report.retries >= 3 * 4096 / 8, "{name}: {}", report.retries);
            }
            Err(FailedInvocation { failure, .. }) => {
                let named = [
                    "answered with an invalid range: ",
                    "the connection was lost",
                ];
                let is_named = named.iter().any(|text| failure.message.contains(text));
                assert!(is_named && failure.retryable, "{name}: {failure}");
            }
        }
    }
    let injected = source.faults().injected();
    assert_eq!(injected.len(), PARTS.len(), "{injected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_host_no_part_of_a_range_gets_into_a_tar() {
    futures::join!(
        assert_no_part_is_stored(false),
        assert_no_part_is_stored(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_host_a_body_that_is_whole_is_accepted() {
    const FORMS: [SourceForm; 8] = [
        SourceForm::Gzip("GZIP"),
        SourceForm::GzipChunked,
        SourceForm::GzipUnframed,
        SourceForm::GzipMembers,
        SourceForm::Md5Chunked,
        SourceForm::Md5Unframed,
        SourceForm::Md5Gzip,
        SourceForm::Md5GzipMembersUnframed,
    ];
    let form_of = |range: RangeName| FORMS[usize::from(range.index()) % FORMS.len()];
    let bodies = |range| body_of(range, COUNTS_OF_TWO_DIGITS);
    let source = FaultySource::in_forms(bodies, form_of).await;
    let store = Store::start().await;
    let expected = expected_tar("AB", bodies);
    for ignores_framing in [false, true] {
        let setup = Setup {
            ignores_framing,
            ..Setup::new(source.url(), store.address)
        };
        for host in every_host(&setup).await {
            let report = store.invoke(&host, None).await;
            report.unwrap_or_else(|failed| panic!("{}: {}", host.name, failed.failure));
            let tar = std::fs::read(store.folder.path().join("AB.tar")).expect("a tar");
            assert!(tar == expected, "{}: the tar is another", host.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_says_nothing_about_framing_gets_no_identity_body_without_a_length() {
    let store = Store::start().await;
    for form in [SourceForm::Chunked, SourceForm::GzipMembersChunked] {
        let source = FaultySource::in_forms(|range| body_of(range, LINES), move |_| form).await;
        let setup = Setup {
            ignores_framing: true,
            ..Setup::new(source.url(), store.address)
        };
        for host in every_host(&setup).await {
            let failed = store.invoke(&host, None).await.expect_err("refused");
            let failure = failed.failure;
            assert_eq!(failure.kind, FailureKind::RangeInvalid, "{failure}");
            assert!(failure.retryable, "{failure}");
            let unknown =
                "its body has no Content-Length, so this host cannot tell whether it is complete";
            assert!(failure.message.contains(unknown), "{failure}");
            let hint = "; request gzip (SOURCE_ENCODING=gzip)";
            let has_hint = failure.message.contains(hint);
            assert_eq!(has_hint, form == SourceForm::Chunked, "{failure}");
        }
        let source = FaultySource::in_forms(|range| body_of(range, LINES), move |_| form).await;
        let setup = Setup::new(source.url(), store.address);
        for host in every_host(&setup).await {
            if host.checks_framing() {
                store.invoke(&host, None).await.expect("stored");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_lets_a_wrong_token_or_another_store_in() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = Store::start().await;
    let wrong_token = Setup {
        has_wrong_token: true,
        ..Setup::new(source.url(), store.address)
    };
    let other_store = Setup::new(
        source.url(),
        listener().await.local_addr().expect("an address"),
    );
    for (setup, kind) in [
        (wrong_token, FailureKind::Unauthorized),
        (other_store, FailureKind::BadJob),
    ] {
        for host in every_host(&setup).await {
            let failed = store.invoke(&host, None).await.expect_err("refused");
            assert_eq!(
                failed.failure.kind, kind,
                "{}: {}",
                host.name, failed.failure
            );
        }
    }
    assert_eq!(source.faults().range_requests(), 0, "nothing was fetched");
    assert_eq!(store.objects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn spin_denies_what_its_manifest_does_not_name() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = Store::start().await;
    let setup = Setup {
        store_in_manifest: listener().await.local_addr().expect("an address"),
        ..Setup::new(source.url(), store.address)
    };
    if let Some(host) = spin_up(&setup).await {
        let failed = store.invoke(&host, None).await.expect_err("denied");
        let failure = failed.failure;
        assert_eq!(failure.kind, FailureKind::StoreUnreachable, "{failure}");
        assert!(!failure.retryable, "{failure}");
        assert!(
            failure.message.contains("check its allowed outbound hosts"),
            "{failure}"
        );
        assert_eq!(store.objects(), Vec::<String>::new());
    }
}
