//! A run goes on where another ended: what is whole is kept, the rest is done, and nobody else does it meanwhile.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{Background, measured, orchestrator, texts};
use crate::harness::{expected_tar, files_of, mirror, prefix, run_whole, tars_of};
use orchestrator::dispatch::{Stop, UPDATES_MAX};
use orchestrator::verify::verify;
use prefix_tar::prefix::Prefix;
use prefix_tar::source::SourceUrl;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LINES: u64 = 5;

async fn good_source() -> FaultySource {
    FaultySource::start(|range| body_of(range, LINES), |_, _| None).await
}

/// The manifest without its times, generations (which are times, too) and requests.
fn manifest(archive: &Path) -> Value {
    let text = std::fs::read(archive.join("manifest.json")).expect("a manifest");
    let mut manifest: Value = serde_json::from_slice(&text).expect("JSON");
    for time in ["started", "finished"] {
        assert!(manifest[time].take().is_string());
    }
    for object in manifest["objects"].as_array_mut().expect("objects") {
        assert!(object["generation"].take().is_string());
    }
    manifest
}

fn modified(archive: &Path, name: &str) -> std::time::SystemTime {
    let metadata = std::fs::metadata(archive.join(name)).expect("a file");
    metadata.modified().expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_is_kept_and_the_rest_is_done() {
    let source = good_source().await;
    let (archive, undisturbed) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let run = async |folder: &Path, force| {
        let mut mirror = mirror(source.url(), folder, "00-07");
        mirror.force = force;
        run_whole(mirror).await.outcome
    };
    run(undisturbed.path(), false).await;
    run(archive.path(), false).await;
    let at = |name: &str| archive.path().join(name);
    std::fs::remove_file(at("manifest.json")).expect("removed");
    std::fs::remove_file(at("01.json")).expect("removed");
    std::fs::remove_file(at("02.tar")).expect("removed");
    std::fs::write(at("03.json"), b"{").expect("written");
    let mut tar = std::fs::read(at("04.tar")).expect("read");
    tar[1000] ^= 1;
    std::fs::write(at("04.tar"), &tar).expect("written");
    std::fs::write(at("05.tar"), &tar[..tar.len() - 1]).expect("written");
    let report = std::fs::read_to_string(at("06.json")).expect("read");
    let elsewhere = report.replace(&source.url().to_string(), "https://elsewhere.example");
    std::fs::write(at("06.json"), elsewhere).expect("written");

    let before = (
        modified(archive.path(), "00.tar"),
        modified(archive.path(), "07.json"),
    );
    let outcome = run(archive.path(), false).await;
    let kept: Vec<Prefix> = outcome.kept.into_keys().collect();
    assert_eq!(kept, [prefix("00"), prefix("07")]);
    assert_eq!(outcome.stored.len(), 6);
    let after = (
        modified(archive.path(), "00.tar"),
        modified(archive.path(), "07.json"),
    );
    assert_eq!(after, before);
    assert!(tars_of(archive.path()) == tars_of(undisturbed.path()));
    assert_eq!(manifest(archive.path()), manifest(undisturbed.path()));

    let whole = files_of(archive.path());
    let outcome = run(archive.path(), false).await;
    assert_eq!((outcome.kept.len(), outcome.stored.len()), (8, 0));
    assert!(whole == files_of(archive.path()), "nothing was written");

    let outcome = run(archive.path(), true).await;
    assert_eq!((outcome.kept.len(), outcome.stored.len()), (0, 8));
    assert!(modified(archive.path(), "00.tar") > before.0);
    assert!(tars_of(archive.path()) == tars_of(undisturbed.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_before_it_does_anything_leaves_the_manifest() {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    run_whole(mirror(source.url(), archive.path(), "00-01")).await;
    let before = std::fs::read(archive.path().join("manifest.json")).expect("a manifest");
    let stop = Stop::default();
    stop.gently.cancel();
    let (sender, _updates) = tokio::sync::mpsc::channel(UPDATES_MAX);
    let run = mirror(source.url(), archive.path(), "00-01").run(stop, sender);
    let outcome = run.await.expect("a run").outcome;
    assert!(outcome.stored.is_empty() && outcome.failed.is_empty());
    let after = std::fs::read(archive.path().join("manifest.json")).expect("a manifest");
    assert!(
        before == after || outcome.is_complete(),
        "the manifest is gone or another"
    );
}

fn start(source: &SourceUrl, archive: &Path, prefixes: &str) -> Background {
    let child = orchestrator()
        .args(["run", "--parallel", "2", "-p", prefixes, "--source"])
        .arg(source.to_string())
        .arg("--to")
        .arg(archive)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    Background(child)
}

/// Waits until `is_so`; for a minute at the most.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_refused_while_the_first_one_lives_and_told_when_it_died() {
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        |range, _| (range.index() == 0x800).then_some(crate::harness::faults::SourceFault::Stall),
    )
    .await;
    let archive = tempfile::tempdir().expect("a folder");
    let first = start(source.url(), archive.path(), "1");
    wait_until(|| source.faults().injected().len() == 1);

    let second = || {
        orchestrator()
            .args([
                "run",
                "-p",
                "1",
                "--source",
                &source.url().to_string(),
                "--to",
            ])
            .arg(archive.path())
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let refused = second().wait_with_output().expect("it ends");
    let told = texts(&refused);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    let pid = format!("another run (process {} on ", first.0.id());
    assert!(
        told.contains(&pid) && told.contains("wait for its end"),
        "{told}"
    );

    let pid = format!(
        "a run that died had this archive (process {} on ",
        first.0.id()
    );
    drop(first);
    let requests = source.faults().range_requests();
    let mut taking_over = second();
    wait_until(|| source.faults().range_requests() > requests);
    taking_over.kill().expect("killed");
    let told = texts(&taking_over.wait_with_output().expect("it ends"));
    assert!(told.contains(&pid), "{told}");
}

/// Looks at the archive for as long as the runs are killed and started again: whatever has its name is whole.
struct Watcher {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    fn start(archive: &Path, expected: BTreeMap<String, Vec<u8>>) -> Self {
        let (stop, looks) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (archive, stopped, counted) =
            (archive.to_owned(), Arc::clone(&stop), Arc::clone(&looks));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (name, expected) in &expected {
                    match std::fs::read(archive.join(name)) {
                        Ok(seen) => assert!(&seen == expected, "{name} was there and not whole"),
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                assert!(
                    !archive.join("manifest.json").exists(),
                    "a manifest of half an archive"
                );
            }
        });
        Self {
            stop,
            looks,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("running");
        thread.join().expect("nothing but whole tars was seen");
        self.looks.load(Ordering::Relaxed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The generations of the prefixes whose report is there.
fn reported(archive: &Path) -> BTreeMap<String, Value> {
    let mut reports = files_of(archive);
    reports.retain(|name, _| name.len() == "00.json".len() && name.ends_with(".json"));
    reports
        .into_iter()
        .map(|(name, text)| {
            let report: Value = serde_json::from_slice(&text).expect("a whole report");
            (name, report["generation"].clone())
        })
        .collect()
}

/// Twenty times, at a moment that a seed chooses: after so many requests have come to the source.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_a_run_that_is_started_again_finishes_and_does_nothing_twice() {
    const KILLS: usize = 20;
    const REQUESTS_BETWEEN_MAX: u64 = 10_000;
    let mut random = fastrand::Rng::with_seed(7);
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    let expected: BTreeMap<String, Vec<u8>> = Prefix::all()
        .take(16)
        .map(|prefix| {
            let name = prefix.to_string();
            let tar = expected_tar(&name, |range| body_of(range, LINES));
            (format!("{name}.tar"), tar)
        })
        .collect();
    let watcher = Watcher::start(archive.path(), expected.clone());
    let mut stored = BTreeMap::new();
    for _ in 0..KILLS {
        let moment = source.faults().range_requests() + random.u64(1..=REQUESTS_BETWEEN_MAX);
        let mut run = start(source.url(), archive.path(), "16");
        wait_until(|| {
            let has_ended = run.0.try_wait().expect("looked at").is_some();
            assert!(!has_ended, "it was done before it was killed {KILLS} times");
            source.faults().range_requests() >= moment
        });
        run.0.kill().expect("killed");
        run.0.wait().expect("ended");
        let now = reported(archive.path());
        for (name, generation) in &stored {
            assert_eq!(now.get(name), Some(generation), "{name} was done twice");
        }
        stored = now;
    }
    let looks = watcher.end();
    let kept = stored.len();
    assert!(kept > 0, "no prefix was done between the kills");
    let outcome = run_whole(mirror(source.url(), archive.path(), "00-0F"))
        .await
        .outcome;
    assert_eq!(
        (outcome.kept.len(), outcome.stored.len()),
        (kept, 16 - kept)
    );
    let last = reported(archive.path());
    assert!(
        stored
            .iter()
            .all(|(name, generation)| last.get(name) == Some(generation))
    );
    assert!(tars_of(archive.path()) == expected);
    let names = files_of(archive.path())
        .into_keys()
        .filter(|name| name.starts_with('.'));
    assert_eq!(
        names.collect::<Vec<_>>(),
        Vec::<String>::new(),
        "something was left behind"
    );
    let verdict = verify(archive.path(), &CancellationToken::new(), |_| (), || ());
    assert_eq!(verdict.damages, []);
    measured(&format!(
        "killed {KILLS} times; {kept} of 16 prefixes were whole by then, {} requests for 65,536 ranges, {looks} looks",
        source.faults().range_requests()
    ));
}
