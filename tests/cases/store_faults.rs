//! A faulty store: an object that is stored despite a bad answer is not sent again, an object with
//! another checksum is removed, and a refusal ends the run.

use crate::harness::faults::{Faults, StoreFault};
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::faulty_store::{CuttingProxy, FaultyStore};
use crate::harness::program::measured;
use crate::harness::{
    DEADLINE, expected_tar, files_of, prefix, run_behind, run_config, run_into, source::listener,
    tars_of, verified,
};
use orchestrator::destination::folder::FolderDestination;
use orchestrator::destination::folder::serve;
use orchestrator::origin::Origin;
use prefix_tar::protocol::failure::FailureKind;
use std::path::Path;
use std::sync::Arc;

const LINES: u64 = 5;

async fn good_source() -> FaultySource {
    FaultySource::start(|range| body_of(range, LINES), |_, _| None).await
}

fn assert_is_right(archive: &Path, prefixes: &[&str]) {
    let tars = tars_of(archive);
    assert_eq!(tars.len(), prefixes.len());
    for name in prefixes {
        let expected = expected_tar(name, |range| body_of(range, LINES));
        assert!(tars[&format!("{name}.tar")] == expected, "{name} differs");
    }
    let verdict = verified(archive);
    assert_eq!(verdict.damages, []);
}

/// Mirrors AB and AC while AB's first PUT meets this fault; returns the attempts and the PUTs that AB
/// took.
async fn attempts_and_puts(fault: StoreFault) -> (u32, u32) {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let faults = Arc::<Faults>::default();
    let noted = Arc::clone(&faults);
    let config = run_config(source.url(), archive.path(), "AB-AC");
    let run = run_behind(config, move |store| {
        let plan = move |of, attempt| (of == prefix("AB") && attempt == 1).then_some(fault);
        Origin::in_process("localhost", FaultyStore::new(store, noted, plan))
    })
    .await;
    let outcome = &run.outcome;
    assert!(outcome.is_complete(), "{fault:?}: {:?}", outcome.failed);
    assert_is_right(archive.path(), &["AB", "AC"]);
    let attempts = outcome.stored[&prefix("AB")].attempts;
    // This counts one more PUT.
    let puts = faults.put_attempt(prefix("AB")) - 1;
    measured(&format!(
        "| {fault:?} | once | stored, {attempts} invocations, {puts} PUTs | right |"
    ));
    (attempts, puts)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_sent_again_if_the_store_fails_before_storing_it() {
    for fault in [
        StoreFault::Before(429),
        StoreFault::Before(503),
        StoreFault::Midway(500, 100_000),
        StoreFault::Midway(503, 0),
        StoreFault::CutAt(0),
        StoreFault::CutAt(1_000_000),
        StoreFault::Before(412),
    ] {
        assert_eq!(attempts_and_puts(fault).await, (2, 2), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_stored_despite_a_bad_or_lost_answer_is_not_sent_again() {
    for fault in [
        StoreFault::AfterStoring(503),
        StoreFault::AfterStoring(412),
        StoreFault::LostAfterStoring,
    ] {
        assert_eq!(attempts_and_puts(fault).await, (1, 1), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_stored_with_another_checksum_is_removed_and_sent_again() {
    assert_eq!(attempts_and_puts(StoreFault::WrongHash).await, (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_always_stored_with_another_checksum_is_not_left_behind() {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let config = run_config(source.url(), archive.path(), "AB");
    let run = run_behind(config, |store| {
        let always = |_, _| Some(StoreFault::WrongHash);
        Origin::in_process("localhost", FaultyStore::new(store, Arc::default(), always))
    })
    .await;
    let failed = &run.outcome.failed[&prefix("AB")];
    assert_eq!(failed.failure.kind, FailureKind::StoreChecksum);
    assert_eq!(failed.attempts, orchestrator::run::retry::ATTEMPTS_MAX);
    assert_eq!(
        files_of(archive.path()).into_keys().collect::<Vec<_>>(),
        ["run.json"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_the_store_ends_the_run_and_only_its_code_is_quoted() {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut config = run_config(source.url(), archive.path(), "00-0F");
    config.dispatch.parallel = 1;
    let run = run_behind(config, |store| {
        let third = |of, _| (of == prefix("02")).then_some(StoreFault::Before(403));
        Origin::in_process("localhost", FaultyStore::new(store, Arc::default(), third))
    })
    .await;
    let outcome = &run.outcome;
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
async fn a_redirect_by_the_store_is_not_followed() {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let run = run_behind(run_config(source.url(), archive.path(), "AB"), |store| {
        let always = |_, _| Some(StoreFault::Before(307));
        Origin::in_process("localhost", FaultyStore::new(store, Arc::default(), always))
    })
    .await;
    let failed = &run.outcome.failed[&prefix("AB")];
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
async fn an_object_is_sent_again_if_its_connection_is_cut_at_any_byte() {
    let source = good_source().await;
    for bytes in [1, 700, 60_000, 2_000_000, 4_000_000] {
        let archive = tempfile::tempdir().expect("a folder");
        let config = run_config(source.url(), archive.path(), "AB");
        let (behind, front) = (listener().await, listener().await);
        let (store_address, address) = (
            behind.local_addr().expect("an address"),
            front.local_addr().expect("an address"),
        );
        let mut server = None;
        let open = FolderDestination::open_behind(archive.path(), DEADLINE, |store| {
            server = Some(serve(behind, store).expect("a server"));
            Origin::new(false, &address.to_string())
        });
        let destination = open.await.expect("a destination");
        let proxy = CuttingProxy::start(front, store_address, bytes);
        let run = run_into(config, Arc::new(destination)).await;
        let outcome = &run.outcome;
        assert!(outcome.is_complete(), "{bytes}: {:?}", outcome.failed);
        assert_eq!(outcome.stored[&prefix("AB")].attempts, 2, "cut at {bytes}");
        assert_is_right(archive.path(), &["AB"]);
        drop(proxy);
        server.expect("a server").stop().await;
    }
}
