//! A store that is wrong: what it has although its answer was bad is not sent again, what it has otherwise than it
//! was sent is removed, and what it denies is denied for all.

use crate::harness::faults::{Faults, StoreFault};
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::faulty_store::{CuttingProxy, FaultyStore};
use crate::harness::program::measured;
use crate::harness::{
    DEADLINE, expected_tar, files_of, mirror, prefix, run_behind, run_into, source::listener,
    tars_of,
};
use orchestrator::destination::folder::FolderDestination;
use orchestrator::host::embedded::Origin;
use orchestrator::verify::verify;
use prefix_tar::failure::FailureKind;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const LINES: u64 = 5;

async fn good_source() -> FaultySource {
    FaultySource::start(|range| body_of(range, LINES), |_, _| None).await
}

fn assert_is_right(archive: &Path, prefixes: &[&str]) {
    let tars = tars_of(archive);
    assert_eq!(tars.len(), prefixes.len());
    for name in prefixes {
        let expected = expected_tar(name, |range| body_of(range, LINES));
        assert!(
            tars[&format!("{name}.tar")] == expected,
            "{name} is another"
        );
    }
    let verdict = verify(archive, &CancellationToken::new(), |_| (), || ());
    assert_eq!(verdict.damages, []);
}

/// Mirrors two prefixes, of which AB meets this fault at its first PUT; answers the attempts and the PUTs that AB
/// took.
async fn attempts_and_puts(fault: StoreFault) -> (u32, u32) {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let faults = Arc::<Faults>::default();
    let noted = Arc::clone(&faults);
    let mirror = mirror(source.url(), archive.path(), "AB-AC");
    let mirrored = run_behind(mirror, move |store| {
        let plan = move |of, attempt| (of == prefix("AB") && attempt == 1).then_some(fault);
        Origin::in_process("localhost", FaultyStore::new(store, noted, plan))
    })
    .await;
    let outcome = &mirrored.outcome;
    assert!(outcome.is_complete(), "{fault:?}: {:?}", outcome.failed);
    assert_is_right(archive.path(), &["AB", "AC"]);
    let attempts = outcome.stored[&prefix("AB")].attempts;
    // The next would be one more than there were.
    let puts = faults.put_attempt(prefix("AB")) - 1;
    measured(&format!(
        "| {fault:?} | once | stored, {attempts} invocations, {puts} PUTs | right |"
    ));
    (attempts, puts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_before_it_has_the_object_gets_it_again() {
    for fault in [
        StoreFault::Before(429),
        StoreFault::Before(503),
        StoreFault::Amid(500, 100_000),
        StoreFault::Amid(503, 0),
        StoreFault::CutAt(0),
        StoreFault::CutAt(1_000_000),
        StoreFault::Before(412),
    ] {
        assert_eq!(attempts_and_puts(fault).await, (2, 2), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_there_although_the_answer_was_bad_or_lost_is_not_sent_again() {
    for fault in [
        StoreFault::AfterStoring(503),
        StoreFault::AfterStoring(412),
        StoreFault::LostAfterStoring,
    ] {
        assert_eq!(attempts_and_puts(fault).await, (1, 1), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_checksum_is_said_to_be_another_is_removed_and_sent_again() {
    assert_eq!(attempts_and_puts(StoreFault::WrongHash).await, (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_checksum_is_always_another_is_not_left_there() {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let mirror = mirror(source.url(), archive.path(), "AB");
    let mirrored = run_behind(mirror, |store| {
        let always = |_, _| Some(StoreFault::WrongHash);
        Origin::in_process("localhost", FaultyStore::new(store, Arc::default(), always))
    })
    .await;
    let failed = &mirrored.outcome.failed[&prefix("AB")];
    assert_eq!(failed.failure.kind, FailureKind::StoreChecksum);
    assert_eq!(failed.attempts, orchestrator::retry::ATTEMPTS_MAX);
    assert_eq!(
        files_of(archive.path()).into_keys().collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_denies_ends_the_run_at_once_and_is_named_by_its_code_alone() {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut mirror = mirror(source.url(), archive.path(), "00-0F");
    mirror.settings.parallel = 1;
    let mirrored = run_behind(mirror, |store| {
        let third = |of, _| (of == prefix("02")).then_some(StoreFault::Before(403));
        Origin::in_process("localhost", FaultyStore::new(store, Arc::default(), third))
    })
    .await;
    let outcome = &mirrored.outcome;
    assert_eq!((outcome.stored.len(), outcome.not_done.len()), (2, 13));
    let failed = &outcome.failed[&prefix("02")];
    assert_eq!(
        (failed.failure.kind, failed.attempts),
        (FailureKind::StoreDenied, 1)
    );
    assert_eq!(
        failed.failure.to_string(),
        "PUT of /archive/02.tar to localhost was answered 403 Injected"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_redirects_is_not_followed() {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let mirrored = run_behind(mirror(source.url(), archive.path(), "AB"), |store| {
        let always = |_, _| Some(StoreFault::Before(307));
        Origin::in_process("localhost", FaultyStore::new(store, Arc::default(), always))
    })
    .await;
    let failed = &mirrored.outcome.failed[&prefix("AB")];
    assert_eq!(
        (failed.failure.kind, failed.attempts),
        (FailureKind::StoreStatus, 1)
    );
    assert!(
        failed
            .failure
            .message
            .ends_with("redirects are not followed")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_over_a_socket_that_is_cut_at_any_byte_gets_the_object_again() {
    let source = good_source().await;
    for bytes in [1, 700, 60_000, 2_000_000, 4_000_000] {
        let archive = tempfile::tempdir().expect("a folder");
        let mirror = mirror(source.url(), archive.path(), "AB");
        let (behind, front) = (listener().await, listener().await);
        let (store_address, address) = (
            behind.local_addr().expect("an address"),
            front.local_addr().expect("an address"),
        );
        let mut server = None;
        let open = FolderDestination::open_behind(archive.path(), DEADLINE, |store| {
            server = Some(store.start(behind).expect("a server"));
            Origin::new(false, &address.to_string())
        });
        let destination = open.await.expect("a destination");
        let proxy = CuttingProxy::start(front, store_address, bytes);
        let mirrored = run_into(mirror, destination).await;
        let outcome = &mirrored.outcome;
        assert!(outcome.is_complete(), "{bytes}: {:?}", outcome.failed);
        assert_eq!(outcome.stored[&prefix("AB")].attempts, 2, "cut at {bytes}");
        assert_is_right(archive.path(), &["AB"]);
        drop(proxy);
        server.expect("a server").stop().await;
    }
}
