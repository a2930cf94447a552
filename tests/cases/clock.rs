//! A run into a bucket completes although the clock steps by 20 minutes on the way.
//!
//! A URL that was signed before the step is too old afterwards, or comes from the future. If only
//! one machine's clock steps, nothing that it signs is accepted until it is set right again.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{Background, measured, output, texts};
use crate::harness::refusing_store::RefusingStore;
use crate::harness::store_program::StoreProgram;
use crate::harness::{expected_tar, tars_of};
use emulator::error::StoreError;
use emulator::signature::Verifier;
use http::Method;
use http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How far the clock steps. This is longer than an upload URL is valid, and than a signer's clock
/// may be ahead.
const STEP: SignedDuration = SignedDuration::from_mins(20);

/// The prefixes of a run. The clock steps in the second one.
const PREFIXES: &str = "00-01";

/// The least lines of a range in the older archive and in the new one.
const LINES: [u64; 2] = [5, 6];

/// Longer than any of these runs takes, even on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(180);

/// How long a clock is wrong before it is set right.
const SET_RIGHT_AFTER: Duration = Duration::from_secs(10);

/// A source that changes from one archive to the next.
struct ChangingSource {
    source: FaultySource,
    lines: Arc<AtomicU64>,
}

impl ChangingSource {
    /// `on_second_prefix` is called at each request for the first range of the second prefix.
    async fn start(on_second_prefix: impl Fn() + Send + Sync + 'static) -> Self {
        let lines = Arc::new(AtomicU64::new(LINES[0]));
        let served = Arc::clone(&lines);
        let bodies = move |range| body_of(range, served.load(Ordering::Relaxed));
        let source = FaultySource::start(bodies, move |range, _| {
            if range.prefix().number() == 1 && range.index() == 0 {
                on_second_prefix();
            }
            None
        });
        Self {
            source: source.await,
            lines,
        }
    }

    fn change(&self) {
        self.lines.store(LINES[1], Ordering::Relaxed);
    }

    /// The arguments of a run, before its destination.
    fn arguments(&self) -> Vec<String> {
        let source = self.source.url().to_string();
        let words = ["run", "--source", &source, "--prefixes", PREFIXES];
        let more = ["--parallel", "1", "--force", "--to"];
        words.iter().chain(&more).map(ToString::to_string).collect()
    }
}

fn assert_is_new(archive: &Path) {
    let tars = tars_of(archive);
    assert_eq!(tars.len(), 2);
    for (name, tar) in tars {
        let expected = expected_tar(&name[..2], |range| body_of(range, LINES[1]));
        assert!(tar == expected, "{name} is not of the new state");
    }
}

/// The clock of a store, and the requests that were refused for it.
#[derive(Default)]
struct SteppingClock {
    step: Option<Step>,
    refused: Vec<StoreError>,
}

/// A clock that is wrong until so many requests have been refused for it.
struct Step {
    offset: SignedDuration,
    refusals: usize,
    has_begun: bool,
}

impl SteppingClock {
    /// The error for a request that is not valid by the clock as it is at this moment. The clock
    /// steps at the first upload of the second prefix.
    fn refusal(&mut self, parts: &Parts, verifier: &Verifier) -> Option<StoreError> {
        let step = self.step.as_mut()?;
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        step.has_begun |= parts.method == Method::PUT && path.ends_with("/01.tar");
        if !step.has_begun {
            return None;
        }
        let now = Timestamp::now() + step.offset;
        let verified = verifier.verify(&parts.method, path, query, &parts.headers, now);
        let error = verified.err()?;
        self.refused.push(error.clone());
        if self.refused.len() == step.refusals {
            self.step = None;
        }
        Some(error)
    }
}

/// Mirrors a new state of the source over an archive of the old one, into a store whose clock is
/// wrong for so many requests.
async fn run_into_a_stepping_store(offset: SignedDuration, refusals: usize, error: StoreError) {
    let source = ChangingSource::start(|| ()).await;
    let clock = Arc::<Mutex<SteppingClock>>::default();
    let served = Arc::clone(&clock);
    let store = RefusingStore::start(move |parts, verifier| {
        let mut clock = served.lock().expect("not poisoned");
        clock.refusal(parts, verifier)
    })
    .await;
    let arguments = source.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let old = output(store.command(&arguments)).await;
    assert_eq!(old.status.code(), Some(0), "{}", texts(&old));
    source.change();
    clock.lock().expect("not poisoned").step = Some(Step {
        offset,
        refusals,
        has_begun: false,
    });
    let began = Instant::now();
    let new = tokio::time::timeout(RUN_MAX, output(store.command(&arguments))).await;
    let new = new.expect("in time");
    let refused = clock.lock().expect("not poisoned").refused.clone();
    let told = format!("{refusals} refusals: {refused:?}\n{}", texts(&new));
    assert_eq!(new.status.code(), Some(0), "{told}");
    measured(&format!(
        "{refusals} requests refused with {error:?}: exit 0 after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    assert_eq!(refused, vec![error; refusals], "{told}");
    assert_is_new(&store.archive());
    let verified = output(store.command(&["verify"])).await;
    assert_eq!(verified.status.code(), Some(0), "{}", texts(&verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_into_a_bucket_signs_again_until_the_clock_is_set_right() {
    let cases = [1, 2, 3, 4, 6].map(async |refusals| {
        run_into_a_stepping_store(STEP, refusals, StoreError::ExpiredToken).await;
        run_into_a_stepping_store(-STEP, refusals, StoreError::RequestTimeTooSkewed).await;
    });
    futures::future::join_all(cases).await;
}

/// The library that gives a process a clock of its own, which a file controls.
fn faketime_library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
}

/// A file that says how far a clock is off.
struct ClockFile(tempfile::NamedTempFile);

impl ClockFile {
    fn new() -> Self {
        let file = Self(tempfile::NamedTempFile::new().expect("a file"));
        Self::set(file.0.path(), 0);
        file
    }

    /// Replaces the file, so that it never is empty.
    fn set(path: &Path, seconds: i64) {
        let next = path.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}")).expect("written");
        std::fs::rename(&next, path).expect("renamed");
    }

    /// Gives a command this clock. Waits are not measured by it.
    fn apply<'command>(
        &self,
        command: &'command mut Command,
        library: &Path,
    ) -> &'command mut Command {
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", self.0.path())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}

/// Mirrors a new state of the source over an archive of the old one. When the second prefix begins,
/// the clock of the run steps by `seconds`. Either the store's clock steps with it, as if both
/// machines had been suspended, or the run's is set right later.
async fn run_with_a_step(library: &Path, seconds: i64, is_common: bool) {
    let (run_clock, store_clock) = (ClockFile::new(), ClockFile::new());
    let store = StoreProgram::start_changed(|command| store_clock.apply(command, library));
    let (step, mut stepped) = tokio::sync::watch::channel(false);
    let is_armed = Arc::new(AtomicU64::new(0));
    let armed = Arc::clone(&is_armed);
    let paths = [&run_clock, &store_clock].map(|clock| clock.0.path().to_owned());
    let source = ChangingSource::start(move || {
        if armed.swap(0, Ordering::Relaxed) == 1 {
            let stepping = if is_common { &paths[..] } else { &paths[..1] };
            for path in stepping {
                ClockFile::set(path, seconds);
            }
            step.send_replace(true);
        }
    })
    .await;
    let arguments = source.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let old = output(store.command(&arguments, "a")).await;
    assert_eq!(old.status.code(), Some(0), "{}", texts(&old));
    source.change();
    is_armed.store(1, Ordering::Relaxed);
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut run = store.command(&arguments, "a");
    run_clock
        .apply(&mut run, library)
        .stdout(Stdio::null())
        .stderr(log.reopen().expect("a log"));
    let run = Background(run.spawn().expect("it starts"));
    let reached = stepped.wait_for(|stepped| *stepped);
    tokio::time::timeout(RUN_MAX, reached)
        .await
        .expect("in time")
        .expect("a source");
    let began = Instant::now();
    if !is_common {
        tokio::time::sleep(SET_RIGHT_AFTER).await;
        ClockFile::set(run_clock.0.path(), 0);
    }
    let status = run.ended_within(RUN_MAX).await;
    let elapsed = began.elapsed();
    let log = std::fs::read_to_string(log.path()).expect("a log");
    assert_eq!(status.code(), Some(0), "{log}");
    measured(&format!(
        "the clock of {} steps by {seconds:+} s: exit 0 after {:.1} s\n{log}",
        if is_common { "both" } else { "the run" },
        elapsed.as_secs_f64()
    ));
    // The URL of the second prefix was signed before both clocks stepped. A run whose own clock is
    // wrong cannot end earlier.
    if is_common {
        assert!(log.contains("ExpiredToken"), "{log}");
    } else {
        assert!(elapsed > SET_RIGHT_AFTER, "{elapsed:?}");
    }
    assert_is_new(&store.archive("a"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and needs faketime; `make soak`"]
async fn a_run_into_a_bucket_survives_a_step_of_the_machine_s_clock() {
    let library = faketime_library();
    let library = library.expect("faketime is needed (Debian: apt-get install faketime)");
    let seconds = STEP.as_secs();
    run_with_a_step(&library, seconds, true).await;
    run_with_a_step(&library, seconds, false).await;
    run_with_a_step(&library, -seconds, false).await;
}
