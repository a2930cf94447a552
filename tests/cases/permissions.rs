//! Least privilege: what a run can do with each of Google's roles, and what it says where that is too little.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{output, texts};
use crate::harness::store_program::StoreProgram;
use crate::harness::{expected_tar, files_of};
use orchestrator::verify::verify;
use std::process::Output;
use tokio_util::sync::CancellationToken;

const LINES: u64 = 5;
const PATH: &str = "2026-11";

/// `run -p COUNT` into the bucket.
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
        assert!(tar == expected, "{name} is another");
    }
    let verdict = verify(&archive, &CancellationToken::new(), |_| (), || ());
    assert_eq!(verdict.damages, []);
    assert_eq!(verdict.prefixes, prefixes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_create_objects_makes_an_archive_and_cannot_touch_it_again() {
    let (store, source) = (
        StoreProgram::start_with(&["--role", "objectCreator"]),
        source().await,
    );
    let first = run(&store, &source, &["-p", "2"]).await;
    assert_eq!(first.status.code(), Some(0), "{}", texts(&first));
    assert_is_whole(&store, &["00", "01"]);

    let before = files_of(&store.archive(PATH));
    let again = run(&store, &source, &["-p", "2"]).await;
    let told = texts(&again);
    assert_eq!(again.status.code(), Some(1), "{told}");
    assert!(
        told.contains("was answered 403 AccessDenied; the account that signs needs storage.objects.create, and storage.objects.delete where it replaces an object"),
        "{told}"
    );
    assert!(
        before == files_of(&store.archive(PATH)),
        "nothing was touched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_create_and_see_objects_goes_on_where_a_run_ended() {
    let (store, source) = (
        StoreProgram::start_with(&["--role", "objectCreator", "--role", "objectViewer"]),
        source().await,
    );
    let first = run(&store, &source, &["-p", "4"]).await;
    assert_eq!(first.status.code(), Some(0), "{}", texts(&first));
    // As a run leaves it that was killed after two prefixes.
    for name in ["02.tar", "02.json", "03.tar", "03.json", "manifest.json"] {
        std::fs::remove_file(store.archive(PATH).join(name)).expect("removed");
    }
    let second = run(&store, &source, &["-p", "4"]).await;
    let told = texts(&second);
    assert_eq!(second.status.code(), Some(0), "{told}");
    assert!(told.contains("kept 2 prefixes of an earlier run"), "{told}");
    assert!(told.contains("stored 2 prefixes"), "{told}");
    assert_is_whole(&store, &["00", "01", "02", "03"]);

    let requests = source.faults().range_requests();
    let third = run(&store, &source, &["-p", "4"]).await;
    assert_eq!(third.status.code(), Some(0), "{}", texts(&third));
    assert_eq!(source.faults().range_requests(), requests, "all was done");

    let forced = run(&store, &source, &["-p", "4", "--force"]).await;
    let told = texts(&forced);
    assert_eq!(forced.status.code(), Some(1), "{told}");
    assert!(
        told.contains("gs://pwned/2026-11 has a complete archive, whose manifest cannot be removed; another path needs no such right: DELETE of 2026-11/manifest.json was answered 403 AccessDenied; the account that signs needs storage.objects.delete"),
        "{told}"
    );
    assert_is_whole(&store, &["00", "01", "02", "03"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_replace_objects_does_all_of_it_anew_in_the_same_place() {
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
async fn who_may_only_see_objects_is_told_before_anything_is_fetched_twice() {
    let (store, source) = (
        StoreProgram::start_with(&["--role", "objectViewer"]),
        source().await,
    );
    let run = run(&store, &source, &["-p", "8", "--parallel", "1"]).await;
    let told = texts(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains("needs storage.objects.create"), "{told}");
    assert!(told.contains("not done: 7 prefixes"), "{told}");
    assert!(source.faults().range_requests() <= 4096, "{told}");
    assert!(!store.archive(PATH).exists(), "nothing was stored");
}
