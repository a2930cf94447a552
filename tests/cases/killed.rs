//! A run that is killed at any moment and started again ends as if it had not been killed.
//!
//! The moments are random: the seed is printed, and a failed test shows it. They spread over the
//! whole time of a run, and some of them follow the write of a file, because the steps between the
//! last tar and the manifest take only a few milliseconds.

mod snapshot;

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{Background, measured, orchestrator, texts};
use crate::harness::store_program::StoreProgram;
use crate::harness::{expected_tar, prefix_set};
use prefix_tar::protocol::prefix::RangeName;
use snapshot::{Snapshot, Tars, written_names};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs over a complete archive of an older state of the source, of 100. The others begin with an
/// empty archive.
const FORCED_PER_CENT: u32 = 70;

/// Kills at a time that was drawn, of 100. The others follow the write of a file.
const TIMED_PER_CENT: u32 = 60;

/// The longest wait after the write of a file. The next step follows within a few milliseconds.
const AFTER_WRITE_MAX: Duration = Duration::from_millis(8);

/// Longer than any run takes, even on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(120);

/// How often a run that is to be killed is looked at.
const POLL: Duration = Duration::from_micros(200);

/// How many runs may be completed for each kill. On average there are fewer runs than kills.
const RUNS_PER_KILL_MAX: usize = 8;

/// Where the archives are.
enum Site {
    Folder(tempfile::TempDir),
    Bucket(StoreProgram),
}

impl Site {
    /// The folder that holds the archive at `path`.
    fn folder(&self, path: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.path().join(path),
            Self::Bucket(store) => store.archive(path),
        }
    }

    /// A command whose last argument is the archive at `path`.
    fn command(&self, arguments: &[&str], path: &str) -> Command {
        match self {
            Self::Folder(_) => {
                let mut command = orchestrator();
                command.args(arguments).arg(self.folder(path));
                command
            }
            Self::Bucket(store) => store.command(arguments, path),
        }
    }

    /// The archive at `path`, as it is typed.
    fn location(&self, path: &str) -> String {
        match self {
            Self::Folder(_) => self.folder(path).display().to_string(),
            Self::Bucket(store) => store.location(path),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Folder(_) => "folder",
            Self::Bucket(_) => "bucket",
        }
    }
}

/// How a run over a complete archive goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// It fetches everything.
    Force,
    /// It builds on the archive.
    Base,
}

/// When a process is killed.
#[derive(Debug)]
enum Moment {
    /// This long after its start.
    Elapsed(Duration),
    /// This long after it has written the file.
    Written(String, Duration),
}

/// A source whose ranges change from one state to the next, and the archives of it.
struct Scene {
    site: Site,
    over: Over,
    prefixes: &'static str,
    source: FaultySource,
    state: Arc<AtomicU64>,
    random: fastrand::Rng,
    /// How long a run takes that nobody disturbs.
    undisturbed: Duration,
    /// Kills, by what had been written before.
    kills: BTreeMap<&'static str, usize>,
    /// Kills after a tar and before its report.
    between_tar_and_report: usize,
    log: tempfile::NamedTempFile,
}

impl Scene {
    async fn new(site: Site, over: Over, prefixes: &'static str) -> Self {
        let seed = fastrand::u64(..);
        measured(&format!("{}, {over:?}: seed {seed}", site.name()));
        let state = Arc::<AtomicU64>::default();
        let served = Arc::clone(&state);
        let bodies = move |range| body(over, range, served.load(Ordering::Relaxed));
        Self {
            site,
            over,
            prefixes,
            source: FaultySource::start(bodies, |_, _| None).await,
            state,
            random: fastrand::Rng::with_seed(seed),
            undisturbed: RUN_MAX,
            kills: BTreeMap::new(),
            between_tar_and_report: 0,
            log: tempfile::NamedTempFile::new().expect("a file"),
        }
    }

    /// Starts a run that writes its messages to the log.
    fn start(&self, path: &str, is_forced: bool) -> Background {
        let log = File::create(self.log.path()).expect("a log");
        let source = self.source.url().to_string();
        let mut arguments = vec!["run", "--source", &source, "--prefixes", self.prefixes];
        let location = self.site.location(path);
        match self.over {
            Over::Force if is_forced => arguments.push("--force"),
            Over::Base if is_forced => arguments.extend(["--base", &location]),
            _ => {}
        }
        arguments.extend(["--parallel", "2", "--to"]);
        let run = self
            .site
            .command(&arguments, path)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Background(run.expect("it starts"))
    }

    /// What the runs have said so far, for messages.
    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("a log")
    }

    /// The tars of the source's present state.
    fn tars(&self) -> Tars {
        let (over, state) = (self.over, self.state.load(Ordering::Relaxed));
        let names = prefix_set(self.prefixes);
        let tars = names.iter().map(|prefix| {
            let tar = expected_tar(&prefix.to_string(), |range| body(over, range, state));
            (format!("{prefix}.tar"), tar)
        });
        tars.collect()
    }

    /// Draws the moment of the next kill.
    fn moment(&mut self, before: &Snapshot, now: &Snapshot) -> Moment {
        let is_timed = self.random.u32(..100) < TIMED_PER_CENT;
        let name = self.random.choice(written_names(self.prefixes));
        match name.filter(|name| !is_timed && now.generation(name) == before.generation(name)) {
            Some(name) => Moment::Written(name, AFTER_WRITE_MAX.mul_f64(self.random.f64())),
            None => Moment::Elapsed(self.undisturbed.mul_f64(self.random.f64())),
        }
    }

    /// Kills the run at its moment. Returns the status of one that ends earlier.
    fn kill_at(
        &self,
        mut run: Background,
        moment: &Moment,
        folder: &std::path::Path,
        now: &Snapshot,
    ) -> Option<ExitStatus> {
        let began = Instant::now();
        let mut written: Option<Instant> = None;
        loop {
            if let Some(status) = run.0.try_wait().expect("polled") {
                return Some(status);
            }
            let is_reached = match moment {
                Moment::Elapsed(time) => began.elapsed() >= *time,
                Moment::Written(name, wait) => {
                    if written.is_none() && now.is_replaced(folder, name) {
                        written = Some(Instant::now());
                    }
                    written.is_some_and(|written| written.elapsed() >= *wait)
                }
            };
            if is_reached {
                run.0.kill().expect("killed");
                let status = run.0.wait().expect("ended");
                // It may have ended just before.
                return status.signal().is_none().then_some(status);
            }
            assert!(began.elapsed() < RUN_MAX, "the run hangs: {}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Mirrors the next state of the source, over the archive at `path` or anew. The run is killed
    /// and started again until it completes, and never after `kills_max` kills. Returns the number
    /// of kills.
    fn run(&mut self, path: &str, is_forced: bool, kills_max: usize) -> usize {
        let old = is_forced.then(|| self.tars());
        self.state.fetch_add(1, Ordering::Relaxed);
        let new = self.tars();
        let folder = self.site.folder(path);
        let before = Snapshot::of(&folder);
        let mut now = before.clone();
        let mut kills = 0;
        let began = Instant::now();
        loop {
            let moment = if kills < kills_max {
                self.moment(&before, &now)
            } else {
                Moment::Elapsed(RUN_MAX)
            };
            let run = self.start(path, is_forced);
            let ended = self.kill_at(run, &moment, &folder, &now);
            let next = Snapshot::of(&folder);
            next.check_after(&now, old.as_ref(), &new);
            now = next;
            if let Some(status) = ended {
                assert_eq!(status.code(), Some(0), "{}", self.log());
                break;
            }
            kills += 1;
            *self.kills.entry(now.phase_since(&before)).or_default() += 1;
            self.between_tar_and_report += usize::from(now.has_tar_without_report());
        }
        if kills == 0 {
            self.undisturbed = began.elapsed();
        }
        now.check_complete(&new);
        let verified = self.site.command(&["verify"], path).output();
        let verified = verified.expect("the program to run");
        assert_eq!(verified.status.code(), Some(0), "{}", texts(&verified));
        kills
    }

    /// Mirrors states of the source until there have been so many kills.
    fn run_with_kills(mut self, kills: usize) {
        let (mut path, mut forced, mut runs) = ("0".to_owned(), 0, 0);
        // These take their time. The archive exists in the second one, so that it is the longer one.
        for is_forced in [false, true] {
            self.run(&path, is_forced, 0);
        }
        let mut left = kills;
        while left > 0 {
            runs += 1;
            assert!(
                runs <= kills * RUNS_PER_KILL_MAX,
                "most runs end before they are killed"
            );
            let is_forced = self.random.u32(..100) < FORCED_PER_CENT;
            if is_forced {
                forced += 1;
            } else {
                std::fs::remove_dir_all(self.site.folder(&path)).expect("removed");
                path = runs.to_string();
            }
            left -= self.run(&path, is_forced, left);
        }
        measured(&format!(
            "{}: {kills} kills in {runs} runs, {forced} of them over an older archive; {:.1} s undisturbed; killed {:?}; {} of them between a tar and its report",
            self.site.name(),
            self.undisturbed.as_secs_f64(),
            self.kills,
            self.between_tar_and_report
        ));
    }
}

/// A range in a state of the source. If everything is fetched, each state differs from the one before in every range;
/// if not, in one of 20 ranges of every other prefix.
fn body(over: Over, range: RangeName, state: u64) -> Vec<u8> {
    let changes = |state: &u64| {
        let number = u64::from(range.prefix().number());
        let spread = u64::from(range.index()) * 7 + state * 130;
        (number + state).is_multiple_of(2) && spread % 1000 < 50
    };
    let changed = match over {
        Over::Force => state,
        Over::Base => (1..=state).filter(changes).count() as u64,
    };
    body_of(range, 1 + changed % 8)
}

async fn in_a_folder(over: Over, prefixes: &'static str, kills: usize) {
    let site = Site::Folder(tempfile::tempdir().expect("a folder"));
    let scene = Scene::new(site, over, prefixes).await;
    scene.run_with_kills(kills);
}

async fn in_a_bucket(over: Over, prefixes: &'static str, kills: usize) {
    let site = Site::Bucket(StoreProgram::start());
    let scene = Scene::new(site, over, prefixes).await;
    scene.run_with_kills(kills);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_a_base_in_a_folder_that_is_killed_ten_times_ends_as_if_it_had_not_been() {
    in_a_folder(Over::Base, "00-01", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_a_base_in_a_bucket_that_is_killed_ten_times_ends_as_if_it_had_not_been() {
    in_a_bucket(Over::Base, "00-01", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_into_a_folder_that_is_killed_ten_times_ends_as_if_it_had_not_been() {
    in_a_folder(Over::Force, "00-01", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_into_a_bucket_that_is_killed_ten_times_ends_as_if_it_had_not_been() {
    in_a_bucket(Over::Force, "00-01", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn a_run_into_a_folder_that_is_killed_a_hundred_times_ends_as_if_it_had_not_been() {
    in_a_folder(Over::Force, "00-03", 100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn a_run_into_a_bucket_that_is_killed_a_hundred_times_ends_as_if_it_had_not_been() {
    in_a_bucket(Over::Force, "00-03", 100).await;
}
