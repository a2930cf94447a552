//! Least privilege: what a run can do with each of Google's roles, and how it reports a missing
//! permission.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{output, texts};
use crate::harness::refusing_store::RefusingStore;
use crate::harness::store_program::StoreProgram;
use crate::harness::{expected_tar, files_of, verified};
use emulator::error::StoreError;
use http::Method;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const LINES: u64 = 5;
const PATH: &str = "2026-11";

/// Runs `orchestrator run` into the bucket.
async fn run(store: &StoreProgram, source: &FaultySource, options: &[&str]) -> Output {
    let source = source.url().to_string();
    let mut run = store.command(&["run", "--source", &source, "--to"], PATH);
    run.args(options);
    output(run).await
}

async fn source() -> FaultySource {
    FaultySource::start(|range| body_of(range, LINES), |_, _| None).await
}

fn assert_is_whole(store: &StoreProgram, prefixes: &[&str]) {
    let archive = store.archive(PATH);
    for name in prefixes {
        let tar = std::fs::read(archive.join(format!("{name}.tar"))).expect("a tar");
        let expected = expected_tar(name, |range| body_of(range, LINES));
        assert!(tar == expected, "{name} differs");
    }
    let verdict = verified(&archive);
    assert_eq!(verdict.damages, []);
    assert_eq!(verdict.prefixes, prefixes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_only_create_objects_writes_an_archive_and_cannot_change_it() {
    let (store, source) = (
        StoreProgram::start_with(&["--role", "objectCreator"]),
        source().await,
    );
    let first = run(&store, &source, &["-p", "2"]).await;
    let printed = texts(&first);
    assert_eq!(first.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("warning: this account may not read what it writes"),
        "{printed}"
    );
    assert_is_whole(&store, &["00", "01"]);

    let before = files_of(&store.archive(PATH));
    let again = run(&store, &source, &["-p", "2"]).await;
    let printed = texts(&again);
    assert_eq!(again.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("was answered 403 AccessDenied; the signing account needs storage.objects.create, and storage.objects.delete to replace an object"),
        "{printed}"
    );
    assert!(
        before == files_of(&store.archive(PATH)),
        "a file has changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_create_and_read_objects_resumes_a_run() {
    let (store, source) = (
        StoreProgram::start_with(&["--role", "objectCreator", "--role", "objectViewer"]),
        source().await,
    );
    let first = run(&store, &source, &["-p", "4"]).await;
    assert_eq!(first.status.code(), Some(0), "{}", texts(&first));
    // A run that is killed after two prefixes leaves the archive like this.
    for name in ["02.tar", "02.json", "03.tar", "03.json", "manifest.json"] {
        std::fs::remove_file(store.archive(PATH).join(name)).expect("removed");
    }
    let second = run(&store, &source, &["-p", "4"]).await;
    let printed = texts(&second);
    assert_eq!(second.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("skipped 2 prefixes stored by an earlier run; --force mirrors them again"),
        "{printed}"
    );
    assert!(printed.contains("stored 2 prefixes"), "{printed}");
    assert_is_whole(&store, &["00", "01", "02", "03"]);

    let requests = source.faults().range_requests();
    let third = run(&store, &source, &["-p", "4"]).await;
    assert_eq!(third.status.code(), Some(0), "{}", texts(&third));
    assert_eq!(
        source.faults().range_requests(),
        requests,
        "the archive was complete"
    );

    let forced = run(&store, &source, &["-p", "4", "--force"]).await;
    let printed = texts(&forced);
    assert_eq!(forced.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("the archive already holds the record of another run, which this account may not replace; write to another path, or run the command that began it: PUT of 2026-11/run.json was answered 403 AccessDenied; the signing account needs storage.objects.create, and storage.objects.delete to replace an object"),
        "{printed}"
    );
    assert_is_whole(&store, &["00", "01", "02", "03"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_replace_objects_can_force_a_run_over_an_archive() {
    let (store, source) = (
        StoreProgram::start_with(&["--role", "objectUser"]),
        source().await,
    );
    for options in [["-p", "2", "--json"], ["-p", "2", "--force"]] {
        let run = run(&store, &source, &options).await;
        assert_eq!(run.status.code(), Some(0), "{}", texts(&run));
        assert_is_whole(&store, &["00", "01"]);
    }
    assert_eq!(source.faults().range_requests(), 4 * 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_only_read_objects_fails_before_it_fetches_anything() {
    let (store, source) = (
        StoreProgram::start_with(&["--role", "objectViewer"]),
        source().await,
    );
    let run = run(&store, &source, &["-p", "8", "--parallel", "1"]).await;
    let printed = texts(&run);
    assert_eq!(run.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("needs storage.objects.create"),
        "{printed}"
    );
    assert_eq!(source.faults().range_requests(), 0, "{printed}");
    assert!(!store.archive(PATH).exists(), "something was stored");
}

/// When an account loses the permission to read.
mod loss {
    pub(super) const NEVER: u64 = 0;
    pub(super) const AFTER_THE_FIRST_REPORT: u64 = 1;
    pub(super) const LOST: u64 = 2;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_may_not_read_any_more_does_not_take_an_older_tar_for_its_own() {
    let lines = Arc::new(AtomicU64::new(LINES));
    let served = Arc::clone(&lines);
    let bodies = move |range| body_of(range, served.load(Ordering::Relaxed));
    let source = FaultySource::start(bodies, |_, _| None).await;
    let state = Arc::new(AtomicU64::new(loss::NEVER));
    let watched = Arc::clone(&state);
    let store = RefusingStore::start(move |parts, _| {
        let is_report = parts.method == Method::PUT && parts.uri.path().ends_with("/00.json");
        if is_report && watched.load(Ordering::Relaxed) == loss::AFTER_THE_FIRST_REPORT {
            watched.store(loss::LOST, Ordering::Relaxed);
        }
        let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
        let is_denied = is_read && watched.load(Ordering::Relaxed) == loss::LOST;
        is_denied.then_some(StoreError::PermissionDenied("storage.objects.get"))
    })
    .await;
    let url = source.url().to_string();
    let run = async || {
        let run = ["run", "-p", "2", "--parallel", "1", "--force", "--source"];
        output(store.command(&[&run[..], &[&url, "--to"]].concat())).await
    };
    let old = run().await;
    assert_eq!(old.status.code(), Some(0), "{}", texts(&old));

    lines.store(LINES + 1, Ordering::Relaxed);
    state.store(loss::AFTER_THE_FIRST_REPORT, Ordering::Relaxed);
    let denied = run().await;
    assert_eq!(denied.status.code(), Some(1), "{}", texts(&denied));
    assert_eq!(state.load(Ordering::Relaxed), loss::LOST);

    state.store(loss::NEVER, Ordering::Relaxed);
    let resumed = run().await;
    assert_eq!(resumed.status.code(), Some(0), "{}", texts(&resumed));
    for name in ["00", "01"] {
        let tar = std::fs::read(store.archive().join(format!("{name}.tar"))).expect("a tar");
        let expected = expected_tar(name, |range| body_of(range, LINES + 1));
        assert!(tar == expected, "{name} is of the older state");
    }
}
