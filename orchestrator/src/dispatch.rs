//! The run: one actor that owns which prefixes are waiting, under way, stored and failed.
//! It alone starts invocations and tries them again. What it tells is shown by `progress`; how it ends is
//! written by `manifest`.

use crate::destination::Destination;
use crate::host::{Host, InvocationProgress};
use crate::manifest::{ManifestObject, Totals};
use crate::retry::Waits;
use prefix_tar::failure::{Failure, FailureKind};
use prefix_tar::job::{Job, Report};
use prefix_tar::prefix::Prefix;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Invocations at the same time. Each has a window of connections.
pub const PARALLEL_MAX: usize = 64;

/// Prefixes that may fail one after the other before no more are begun: what is broken then is not a prefix.
pub const FAILURES_IN_A_ROW_MAX: usize = 8;

/// Updates on their way to whoever shows them.
pub const UPDATES_MAX: usize = 256;

/// How a run is dispatched.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Invocations at the same time.
    pub parallel: usize,
    /// Range requests in flight per invocation; the component's default where it is not said.
    pub window: Option<u16>,
    /// How long is waited before the second attempt at the most; see [`crate::retry`].
    pub first_wait_max: Duration,
}

/// How a run is stopped from outside.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Nothing new is begun; what is under way ends.
    pub gently: CancellationToken,
    /// What is under way is given up.
    pub now: CancellationToken,
}

/// What is told on the way.
#[derive(Clone, Debug)]
pub enum Update {
    /// An attempt at a prefix begins.
    Began {
        /// The prefix.
        prefix: Prefix,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// An invocation is under way. Left out where it is not read fast enough.
    Progress {
        /// The prefix.
        prefix: Prefix,
        /// How far it is.
        progress: InvocationProgress,
    },
    /// An attempt failed and there will be another.
    Retrying {
        /// The prefix.
        prefix: Prefix,
        /// Why the attempt failed.
        failure: Failure,
        /// How long is waited.
        wait: Duration,
    },
    /// A prefix is in the archive, with its report.
    Stored(StoredPrefix),
    /// A prefix failed for good.
    Failed(FailedPrefix),
}

/// A prefix that is in the archive. Reports are about 300 KB each; only what is summed up is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// What the manifest will say of it.
    pub object: ManifestObject,
    /// Its part of the totals.
    pub totals: Totals,
    /// How long its last invocation took.
    pub duration: Duration,
    /// The most linear memory of its last invocation, in bytes.
    pub linear_memory_peak: u64,
    /// Invocations that it took.
    pub attempts: u32,
}

impl StoredPrefix {
    fn new(report: &Report, attempts: u32) -> Self {
        Self {
            prefix: report.prefix,
            object: ManifestObject::of_report(report),
            totals: Totals::of_report(report),
            duration: Duration::try_from_secs_f64(report.seconds.total).unwrap_or_default(),
            linear_memory_peak: report.linear_memory_peak,
            attempts,
        }
    }
}

/// A prefix that is not.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// Why its last invocation failed.
    pub failure: Failure,
    /// Invocations that it took.
    pub attempts: u32,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What is in the archive.
    pub stored: BTreeMap<Prefix, StoredPrefix>,
    /// What failed.
    pub failed: BTreeMap<Prefix, FailedPrefix>,
    /// What was not begun, or given up.
    pub not_done: Vec<Prefix>,
}

impl Outcome {
    /// Whether every prefix is in the archive.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.not_done.is_empty()
    }

    /// The sums over what is in the archive.
    pub fn totals(&self) -> Totals {
        self.stored.values().map(|stored| stored.totals).sum()
    }
}

/// Runs one invocation per prefix until all are stored, or failed, or the run is stopped.
///
/// There is no fan-out before the first sign of life: one prefix goes ahead, and where it fails without ever
/// having had a range, the run ends with that one failure.
pub async fn run(
    prefixes: impl Iterator<Item = Prefix>,
    host: Arc<dyn Host>,
    destination: Arc<dyn Destination>,
    settings: Settings,
    stop: Stop,
    updates: mpsc::Sender<Update>,
) -> Outcome {
    let mut waiting: VecDeque<Prefix> = prefixes.collect();
    let mut under_way = JoinSet::new();
    let mut begun: Vec<Prefix> = Vec::new();
    let mut outcome = Outcome::default();
    let mut failures_in_a_row = 0;
    let alive = CancellationToken::new();
    loop {
        let places = if stop.gently.is_cancelled() || failures_in_a_row >= FAILURES_IN_A_ROW_MAX {
            0
        } else if alive.is_cancelled() {
            settings.parallel
        } else {
            1_usize.saturating_sub(outcome.failed.len())
        };
        while under_way.len() < places
            && let Some(prefix) = waiting.pop_front()
        {
            begun.push(prefix);
            let attempts = Attempts {
                prefix,
                host: Arc::clone(&host),
                destination: Arc::clone(&destination),
                settings,
                stop: stop.gently.clone(),
                alive: alive.clone(),
                updates: updates.clone(),
            };
            under_way.spawn(attempts.run());
        }
        let ended = tokio::select! {
            biased;
            () = alive.cancelled(), if places == 1 && settings.parallel > 1 => continue,
            ended = under_way.join_next() => ended,
            () = stop.now.cancelled() => {
                under_way.shutdown().await;
                None
            }
        };
        let update = match ended {
            None => break,
            Some(Ok(Ok(stored))) => {
                failures_in_a_row = 0;
                alive.cancel();
                outcome.stored.insert(stored.prefix, stored.clone());
                Update::Stored(stored)
            }
            Some(Ok(Err(failed))) => {
                failures_in_a_row += 1;
                outcome.failed.insert(failed.prefix, failed.clone());
                Update::Failed(failed)
            }
            Some(Err(error)) => {
                tracing::error!(%error, "an invocation's task ended abnormally");
                continue;
            }
        };
        tell(&updates, update).await;
    }
    waiting.extend(begun);
    outcome.not_done = waiting
        .into_iter()
        .filter(|prefix| {
            !outcome.stored.contains_key(prefix) && !outcome.failed.contains_key(prefix)
        })
        .collect();
    outcome.not_done.sort_unstable();
    outcome
}

/// Whoever shows updates may be gone; the run goes on.
async fn tell(updates: &mpsc::Sender<Update>, update: Update) {
    let _ = updates.send(update).await;
}

/// The attempts at one prefix.
struct Attempts {
    prefix: Prefix,
    host: Arc<dyn Host>,
    destination: Arc<dyn Destination>,
    settings: Settings,
    stop: CancellationToken,
    /// Cancelled at the first sign of life of any prefix.
    alive: CancellationToken,
    updates: mpsc::Sender<Update>,
}

impl Attempts {
    async fn run(self) -> Result<StoredPrefix, FailedPrefix> {
        let mut waits = Waits::new(
            ChaCha8Rng::from_rng(&mut rand::rng()),
            self.settings.first_wait_max,
        );
        let mut content_length = None;
        let mut attempt = 1;
        loop {
            let prefix = self.prefix;
            tell(&self.updates, Update::Began { prefix, attempt }).await;
            let failure = match self.attempt(content_length).await {
                Ok(report) => return Ok(StoredPrefix::new(&report, attempt)),
                Err(failure) => failure,
            };
            // The next attempt is made with what this one has measured, and need not wait for anything.
            content_length = failure.content_length.or(content_length);
            let wait = match waits.next() {
                Some(_) if failure.kind == FailureKind::LengthExceeded => Duration::ZERO,
                Some(wait) if failure.retryable => wait,
                _ => return Err(self.failed(failure, attempt)),
            };
            let retrying = Update::Retrying {
                prefix,
                failure: failure.clone(),
                wait,
            };
            tell(&self.updates, retrying).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return Err(self.failed(failure, attempt)),
            }
            attempt += 1;
        }
    }

    const fn failed(&self, failure: Failure, attempts: u32) -> FailedPrefix {
        FailedPrefix {
            prefix: self.prefix,
            failure,
            attempts,
        }
    }

    async fn attempt(&self, content_length: Option<u64>) -> Result<Report, Failure> {
        let upload = self
            .destination
            .prepare(self.prefix)
            .await
            .map_err(|error| destination_failure(&error))?;
        let job = Job {
            prefix: self.prefix,
            upload,
            content_length,
            window: self.settings.window,
        };
        let on_progress = |progress: InvocationProgress| {
            if progress.ranges > 0 {
                self.alive.cancel();
            }
            // What is not shown in time is not worth showing.
            let _ = self.updates.try_send(Update::Progress {
                prefix: self.prefix,
                progress,
            });
        };
        let report = self.host.invoke(job, &on_progress).await?;
        self.destination
            .write_report(&report)
            .await
            .map_err(|error| destination_failure(&error))?;
        Ok(report)
    }
}

fn destination_failure(error: &anyhow::Error) -> Failure {
    Failure::lasting(FailureKind::Destination, format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use prefix_tar::job::{Crc32c, Seconds, SignedUrl, Upload};
    use std::sync::Mutex;

    /// A host that answers from a script: failures first, per prefix, then success.
    #[derive(Default)]
    struct ScriptedHost {
        failures: Mutex<BTreeMap<Prefix, Vec<Failure>>>,
        jobs: Mutex<Vec<(Prefix, Option<u64>)>>,
        hangs: bool,
        /// Tells no progress.
        is_mute: bool,
    }

    #[async_trait::async_trait]
    impl Host for ScriptedHost {
        async fn invoke(
            &self,
            job: Job,
            on_progress: &(dyn Fn(InvocationProgress) + Send + Sync),
        ) -> Result<Report, Failure> {
            if !self.is_mute {
                on_progress(InvocationProgress {
                    ranges: 1,
                    data_bytes: 2,
                    linear_memory: 3,
                });
            }
            self.jobs
                .lock()
                .expect("not poisoned")
                .push((job.prefix, job.content_length));
            if self.hangs {
                std::future::pending::<()>().await;
            }
            let mut failures = self.failures.lock().expect("not poisoned");
            match failures.get_mut(&job.prefix).and_then(Vec::pop) {
                Some(failure) => Err(failure),
                None => Ok(report(job.prefix)),
            }
        }
    }

    fn report(prefix: Prefix) -> Report {
        Report {
            prefix,
            ranges: 4096,
            hashes: 1,
            data_bytes: 2,
            content_length: 10_240,
            crc32c: Crc32c(3),
            requests: 4096,
            retries: 0,
            seconds: Seconds::default(),
            linear_memory_peak: 4,
            generation: None,
            etag: None,
            range_bytes: Vec::new(),
            range_etags: Vec::new(),
        }
    }

    #[derive(Default)]
    struct NotedDestination {
        reports: Mutex<Vec<Prefix>>,
        cannot_prepare: bool,
    }

    #[async_trait::async_trait]
    impl Destination for NotedDestination {
        async fn begin(&self) -> anyhow::Result<()> {
            Ok(())
        }

        async fn prepare(&self, _prefix: Prefix) -> anyhow::Result<Upload> {
            anyhow::ensure!(!self.cannot_prepare, "no signature");
            let url = SignedUrl::new("http://127.0.0.1:1/b/o?s".to_owned())?;
            Ok(Upload {
                url,
                headers: BTreeMap::new(),
            })
        }

        async fn write_report(&self, report: &Report) -> anyhow::Result<()> {
            let mut reports = self.reports.lock().expect("not poisoned");
            reports.push(report.prefix);
            Ok(())
        }

        async fn write_manifest(&self, _manifest: &Manifest) -> anyhow::Result<()> {
            Ok(())
        }
    }

    struct Scene {
        host: Arc<ScriptedHost>,
        destination: Arc<NotedDestination>,
        stop: Stop,
    }

    impl Scene {
        fn new(host: ScriptedHost) -> Self {
            Self {
                host: Arc::new(host),
                destination: Arc::default(),
                stop: Stop::default(),
            }
        }

        async fn run(&self, prefixes: usize, parallel: usize) -> (Outcome, Vec<Update>) {
            let (sender, mut receiver) = mpsc::channel(UPDATES_MAX);
            let settings = Settings {
                parallel,
                window: None,
                first_wait_max: Duration::from_millis(1),
            };
            let host: Arc<dyn Host> = Arc::<ScriptedHost>::clone(&self.host);
            let destination: Arc<dyn Destination> =
                Arc::<NotedDestination>::clone(&self.destination);
            let updates = tokio::spawn(async move {
                let mut all = Vec::new();
                while let Some(update) = receiver.recv().await {
                    all.push(update);
                }
                all
            });
            let outcome = run(
                Prefix::all().take(prefixes),
                host,
                destination,
                settings,
                self.stop.clone(),
                sender,
            )
            .await;
            (outcome, updates.await.expect("updates"))
        }
    }

    fn passing() -> Failure {
        Failure::passing(FailureKind::StoreStatus, "503")
    }

    fn lasting() -> Failure {
        Failure::lasting(FailureKind::SourceStatus, "404")
    }

    fn scripted(script: &[(u8, Vec<Failure>)]) -> ScriptedHost {
        let failures = script
            .iter()
            .map(|(number, failures)| (Prefix::from_number(*number), failures.clone()))
            .collect();
        ScriptedHost {
            failures: Mutex::new(failures),
            ..ScriptedHost::default()
        }
    }

    #[tokio::test]
    async fn a_passing_failure_is_tried_again_and_the_others_go_on() {
        let scene = Scene::new(scripted(&[
            (1, vec![passing(), passing()]),
            (2, vec![lasting()]),
        ]));
        let (outcome, updates) = scene.run(4, 2).await;
        let stored: Vec<u8> = outcome
            .stored
            .keys()
            .map(|prefix| prefix.number())
            .collect();
        assert_eq!(stored, [0, 1, 3]);
        assert_eq!(outcome.stored[&Prefix::from_number(1)].attempts, 3);
        let failed = &outcome.failed[&Prefix::from_number(2)];
        assert_eq!((failed.attempts, &failed.failure), (1, &lasting()));
        assert!(outcome.not_done.is_empty());
        assert_eq!(scene.destination.reports.lock().expect("reports").len(), 3);
        let retries = updates
            .iter()
            .filter(|update| matches!(update, Update::Retrying { .. }))
            .count();
        assert_eq!(retries, 2);
    }

    #[tokio::test]
    async fn attempts_are_bounded() {
        let scene = Scene::new(scripted(&[(0, vec![passing(); 50])]));
        let (outcome, _) = scene.run(1, 1).await;
        let failed = &outcome.failed[&Prefix::from_number(0)];
        assert_eq!(failed.attempts, crate::retry::ATTEMPTS_MAX);
    }

    #[tokio::test]
    async fn a_length_that_was_exceeded_is_tried_again_with_the_one_that_is_needed() {
        let exceeded = Failure {
            content_length: Some(20_480),
            ..Failure::lasting(FailureKind::LengthExceeded, "too short")
        };
        let scene = Scene::new(scripted(&[(0, vec![exceeded])]));
        let (outcome, _) = scene.run(1, 1).await;
        assert_eq!(outcome.stored.len(), 1);
        let jobs = scene.host.jobs.lock().expect("jobs");
        assert_eq!(jobs[0].1, None);
        assert_eq!(jobs[1].1, Some(20_480));
    }

    #[tokio::test]
    async fn where_what_worked_at_first_fails_then_the_run_ends_early() {
        let script: Vec<(u8, Vec<Failure>)> =
            (1..=255).map(|number| (number, vec![lasting()])).collect();
        let scene = Scene::new(scripted(&script));
        let (outcome, _) = scene.run(256, 4).await;
        assert_eq!(outcome.stored.len(), 1);
        assert!(outcome.failed.len() >= FAILURES_IN_A_ROW_MAX);
        assert!(outcome.failed.len() < FAILURES_IN_A_ROW_MAX + 4);
        assert_eq!(outcome.failed.len() + outcome.not_done.len(), 255);
    }

    #[tokio::test]
    async fn where_nothing_works_at_all_one_prefix_finds_out_for_all() {
        let script: Vec<(u8, Vec<Failure>)> =
            (0..=255).map(|number| (number, vec![lasting()])).collect();
        let mut host = scripted(&script);
        host.is_mute = true;
        let scene = Scene::new(host);
        let (outcome, _) = scene.run(256, 4).await;
        assert_eq!(outcome.failed.len(), 1);
        assert_eq!(outcome.not_done.len(), 255);
    }

    #[tokio::test]
    async fn a_destination_that_cannot_be_prepared_is_said_to_be_one() {
        let mut scene = Scene::new(ScriptedHost::default());
        scene.destination = Arc::new(NotedDestination {
            cannot_prepare: true,
            ..NotedDestination::default()
        });
        let (outcome, _) = scene.run(1, 1).await;
        let failure = &outcome.failed[&Prefix::from_number(0)].failure;
        assert_eq!(failure.kind, FailureKind::Destination);
        assert_eq!(failure.message, "no signature");
    }

    #[tokio::test]
    async fn a_gentle_stop_begins_nothing_new_and_a_hard_one_gives_up_what_is_under_way() {
        let scene = Scene::new(ScriptedHost::default());
        scene.stop.gently.cancel();
        let (outcome, _) = scene.run(3, 1).await;
        assert_eq!(outcome.not_done.len(), 3);

        let scene = Scene::new(ScriptedHost {
            hangs: true,
            ..ScriptedHost::default()
        });
        let now = scene.stop.now.clone();
        let gently = scene.stop.gently.clone();
        let host = Arc::clone(&scene.host);
        tokio::spawn(async move {
            // Both that go at the same time are under way.
            while host.jobs.lock().expect("jobs").len() < 2 {
                tokio::task::yield_now().await;
            }
            gently.cancel();
            now.cancel();
        });
        let (outcome, _) = scene.run(3, 2).await;
        let given_up: Vec<u8> = outcome
            .not_done
            .iter()
            .map(|prefix| prefix.number())
            .collect();
        assert_eq!(given_up, [0, 1, 2]);
    }
}
