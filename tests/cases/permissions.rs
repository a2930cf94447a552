//! Least privilege: what a run can do with each of Google's roles, and how it reports a missing
//! permission.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{output, texts};
use crate::harness::store_program::StoreProgram;
use crate::harness::{expected_tar, files_of, verified};
use std::process::Output;

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
    assert_eq!(first.status.code(), Some(0), "{}", texts(&first));
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
