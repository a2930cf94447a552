//! A run resumes where an earlier one stopped, and locks the archive against other runs meanwhile.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{Background, measured, orchestrator, texts};
use crate::harness::{expected_tar, files_of, prefix, run_config, run_whole, tars_of, verified};
use orchestrator::run::event::RUN_EVENTS_MAX;
use orchestrator::run::shutdown::Shutdown;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::source::SourceUrl;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LINES: u64 = 5;

async fn good_source() -> FaultySource {
    FaultySource::start(|range| body_of(range, LINES), |_, _| None).await
}

/// The manifest without its runs, its times and its generations, which are times, too.
fn manifest(archive: &Path) -> Value {
    let text = std::fs::read(archive.join("manifest.json")).expect("a manifest");
    let mut manifest: Value = serde_json::from_slice(&text).expect("JSON");
    for time in ["started", "finished"] {
        assert!(manifest[time].take().is_string());
    }
    assert!(manifest["run"].take().is_string());
    for object in manifest["objects"].as_array_mut().expect("objects") {
        assert!(object["run"].take().is_string());
        assert!(object["generation"].take().is_string());
    }
    manifest
}

fn modified(archive: &Path, name: &str) -> std::time::SystemTime {
    let metadata = std::fs::metadata(archive.join(name)).expect("a file");
    metadata.modified().expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_skips_what_is_whole_and_mirrors_the_rest() {
    let source = good_source().await;
    let (archive, undisturbed) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let run = async |folder: &Path, force| {
        let mut config = run_config(source.url(), folder, "00-07");
        config.force = force;
        run_whole(config).await.outcome
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
    let of_other_source = report.replace(&source.url().to_string(), "https://elsewhere.example");
    std::fs::write(at("06.json"), of_other_source).expect("written");

    let before = (
        modified(archive.path(), "00.tar"),
        modified(archive.path(), "07.json"),
    );
    let outcome = run(archive.path(), false).await;
    let skipped: Vec<Prefix> = outcome.skipped.into_keys().collect();
    assert_eq!(skipped, [prefix("00"), prefix("07")]);
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
    assert_eq!((outcome.skipped.len(), outcome.stored.len()), (8, 0));
    assert!(whole == files_of(archive.path()), "a file has changed");

    let outcome = run(archive.path(), true).await;
    assert_eq!((outcome.skipped.len(), outcome.stored.len()), (0, 8));
    assert!(modified(archive.path(), "00.tar") > before.0);
    assert!(tars_of(archive.path()) == tars_of(undisturbed.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_before_its_first_write_leaves_the_manifest() {
    let source = good_source().await;
    let archive = tempfile::tempdir().expect("a folder");
    run_whole(run_config(source.url(), archive.path(), "00-01")).await;
    let before = std::fs::read(archive.path().join("manifest.json")).expect("a manifest");
    let shutdown = Shutdown::default();
    shutdown.graceful.cancel();
    let (sender, _events) = tokio::sync::mpsc::channel(RUN_EVENTS_MAX);
    let run = run_config(source.url(), archive.path(), "00-01").run(shutdown, sender);
    let outcome = run.await.expect("a run").outcome;
    assert!(outcome.stored.is_empty() && outcome.failed.is_empty());
    let after = std::fs::read(archive.path().join("manifest.json")).expect("a manifest");
    assert!(
        before == after || outcome.is_complete(),
        "the manifest is gone or differs"
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

/// Waits until the condition holds, for at most a minute.
fn wait_until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the condition did not hold within 60 s"
        );
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_refused_while_the_first_one_lives_and_takes_over_when_it_died() {
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
    let printed = texts(&refused);
    assert_eq!(refused.status.code(), Some(1), "{printed}");
    let pid = format!("another run (process {} on ", first.0.id());
    assert!(
        printed.contains(&pid) && printed.contains("wait until it ends"),
        "{printed}"
    );

    let pid = format!(
        "warning: an earlier run died and left its lock (process {} on ",
        first.0.id()
    );
    drop(first);
    let requests = source.faults().range_requests();
    let mut taking_over = second();
    wait_until(|| source.faults().range_requests() > requests);
    taking_over.kill().expect("killed");
    let printed = texts(&taking_over.wait_with_output().expect("it ends"));
    assert!(printed.contains(&pid), "{printed}");
}

/// Reads the archive repeatedly in a thread, and expects every tar under its final name to be
/// whole.
struct Watcher {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    fn start(archive: &Path, expected: BTreeMap<String, Vec<u8>>) -> Self {
        let (stop, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (archive, stopped, counted) =
            (archive.to_owned(), Arc::clone(&stop), Arc::clone(&reads));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (name, expected) in &expected {
                    match std::fs::read(archive.join(name)) {
                        Ok(seen) => assert!(&seen == expected, "{name} is there, but not whole"),
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                assert!(
                    !archive.join("manifest.json").exists(),
                    "an incomplete archive has a manifest"
                );
            }
        });
        Self {
            stop,
            reads,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("running");
        thread.join().expect("every tar was whole");
        self.reads.load(Ordering::Relaxed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The generations of the prefixes that have a report, by the report's name.
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

/// Kills the run after a number of requests that a seed chooses, and starts it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_at_twenty_random_moments_finishes_and_repeats_no_prefix() {
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
        let kill_at = source.faults().range_requests() + random.u64(1..=REQUESTS_BETWEEN_MAX);
        let mut run = start(source.url(), archive.path(), "16");
        wait_until(|| {
            let has_ended = run.0.try_wait().expect("polled").is_some();
            assert!(!has_ended, "the run ended before {KILLS} kills");
            source.faults().range_requests() >= kill_at
        });
        run.0.kill().expect("killed");
        run.0.wait().expect("ended");
        let now = reported(archive.path());
        for (name, generation) in &stored {
            assert_eq!(now.get(name), Some(generation), "{name} was mirrored twice");
        }
        stored = now;
    }
    let reads = watcher.end();
    let skipped = stored.len();
    assert!(skipped > 0, "no prefix was stored between the kills");
    let outcome = run_whole(run_config(source.url(), archive.path(), "00-0F"))
        .await
        .outcome;
    assert_eq!(
        (outcome.skipped.len(), outcome.stored.len()),
        (skipped, 16 - skipped)
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
        "a hidden file was left behind"
    );
    let verdict = verified(archive.path());
    assert_eq!(verdict.damages, []);
    measured(&format!(
        "killed {KILLS} times; the last run skipped {skipped} of 16 prefixes; {} requests for 65,536 ranges, {reads} reads",
        source.faults().range_requests()
    ));
}
