//! Tests of the dispatcher over a host that answers from a script.

use super::*;
use crate::host::{FailedInvocation, InvocationProgress, InvocationUpdate};
use crate::origin::Origin;
use crate::run::event::RUN_EVENTS_MAX;
use crate::run::memory_store::{Content, File, MemoryStore, Open};
use crate::run::plan::PrefixSet;
use crate::run::recorder::Recorder;
use crate::run::retry::{ATTEMPTS_BEFORE_LIFE_MAX, ATTEMPTS_MAX};
use crate::run::transaction::{Opening, Request};
use prefix_tar::protocol::failure::Failure;
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::report::Report;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

const SOURCE: &str = "http://127.0.0.1:1";

/// The generation of a tar that an earlier run has stored.
const BASE: u64 = 7;

/// What an invocation does.
#[derive(Clone)]
enum Deed {
    /// It fails and has sent nothing.
    Fails(Failure),
    /// It stores the tar, but fails.
    StoresAndFails(Failure),
    /// It fails and says that it has sent everything, but the store has nothing.
    SendsAndFails(Failure),
    /// It fails, and names the tar of an earlier run as what it has sent.
    NamesBaseAndFails(Failure),
    /// It reports what it has not stored.
    Lies(Box<Report>),
}

/// A host that acts by a script: the deeds for a prefix, last first, then success.
struct ScriptedHost {
    store: Arc<MemoryStore>,
    deeds: Mutex<BTreeMap<Prefix, Vec<Deed>>>,
    jobs: Mutex<Vec<(Prefix, Option<u64>)>>,
    /// When the latest invocation began.
    latest: Mutex<Option<Instant>>,
    /// How long every invocation takes.
    takes: Duration,
    hangs: bool,
    /// Reports no progress.
    is_mute: bool,
}

impl Default for ScriptedHost {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryStore::new(Arc::default(), Arc::new(Open))),
            deeds: Mutex::default(),
            jobs: Mutex::default(),
            latest: Mutex::default(),
            takes: Duration::ZERO,
            hangs: false,
            is_mute: false,
        }
    }
}

impl ScriptedHost {
    async fn stored(&self, job: &Job) -> Report {
        let stored = self.store.upload(job.prefix, &job.upload, "tar", SOURCE);
        let stored = stored.await.expect("answered");
        stored.expect("the base is as the job says")
    }
}

#[async_trait::async_trait]
impl Host for ScriptedHost {
    fn allow_upload(&mut self, _origin: Origin) {}

    async fn invoke(
        &self,
        job: Job,
        on_update: &(dyn Fn(InvocationUpdate) + Send + Sync),
    ) -> Result<Report, FailedInvocation> {
        if !self.is_mute {
            on_update(InvocationUpdate::Progress(InvocationProgress {
                ranges: 1,
                data_bytes: 2,
                linear_memory: 3,
            }));
        }
        self.jobs
            .lock()
            .expect("not poisoned")
            .push((job.prefix, job.content_length));
        *self.latest.lock().expect("not poisoned") = Some(Instant::now());
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        let deed = {
            let mut deeds = self.deeds.lock().expect("not poisoned");
            deeds.get_mut(&job.prefix).and_then(Vec::pop)
        };
        match deed {
            None => Ok(self.stored(&job).await),
            Some(Deed::Lies(report)) => Ok(*report),
            Some(Deed::Fails(failure)) => Err(failure.into()),
            Some(Deed::StoresAndFails(failure)) => Err(FailedInvocation {
                failure,
                sent: Some(Box::new(self.stored(&job).await)),
            }),
            Some(Deed::NamesBaseAndFails(failure)) => Err(FailedInvocation {
                failure,
                sent: Some(Box::new(Report {
                    generation: Some(BASE.to_string()),
                    ..report(job.prefix)
                })),
            }),
            Some(Deed::SendsAndFails(failure)) => Err(FailedInvocation {
                failure,
                sent: Some(Box::new(report(job.prefix))),
            }),
        }
    }
}

fn report(prefix: Prefix) -> Report {
    crate::run::memory_store::report(prefix, SOURCE, "tar")
}

struct Scene {
    host: Arc<ScriptedHost>,
    shutdown: Shutdown,
    give_up_after: Duration,
}

impl Scene {
    fn new(host: ScriptedHost) -> Self {
        Self {
            host: Arc::new(host),
            shutdown: Shutdown::default(),
            give_up_after: Duration::from_secs(10),
        }
    }

    async fn run(&self, prefixes: usize, parallel: usize) -> (Outcome, Vec<RunEvent>) {
        let (sender, mut receiver) = mpsc::channel(RUN_EVENTS_MAX);
        let settings = DispatchSettings {
            parallel,
            window: None,
            first_wait_max: Duration::from_millis(1),
            give_up_after: self.give_up_after,
            waits_for_source: false,
        };
        let host: Arc<dyn Host> = Arc::<ScriptedHost>::clone(&self.host);
        let events = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(event) = receiver.recv().await {
                all.push(event);
            }
            all
        });
        let prefixes = PrefixSet::first(&prefixes.to_string()).expect("prefixes");
        let request = Request {
            source: SOURCE,
            mode: Mode::Sha1,
            prefixes: &prefixes,
            force: false,
            now: jiff::Timestamp::UNIX_EPOCH,
            random: 1,
        };
        let destination: Arc<MemoryStore> = Arc::clone(&self.host.store);
        let opening = Transaction::open(destination, request, &CancellationToken::new()).await;
        let Ok(Opening::Begun { transaction, .. }) = opening else {
            panic!("nothing to do")
        };
        let outcome = run(
            prefixes.iter(),
            Shared {
                host,
                transaction: Arc::new(transaction),
                base: None,
                recorder: Arc::new(Recorder::start()),
                events: sender,
            },
            settings,
            self.shutdown.clone(),
        )
        .await;
        (outcome, events.await.expect("events"))
    }

    /// The reports in the store.
    fn reports(&self) -> Vec<Report> {
        let files = self.host.store.files();
        let reports = files
            .iter()
            .filter(|(name, _)| name.len() == "00.json".len());
        reports
            .map(|(name, file)| match &file.content {
                Content::Text(text) => serde_json::from_slice(text.bytes()).expect("a report"),
                _ => panic!("{name} is a tar"),
            })
            .collect()
    }
}

fn transient() -> Failure {
    Failure::transient(FailureKind::StoreStatus, "503")
}

fn permanent() -> Failure {
    Failure::permanent(FailureKind::SourceStatus, "404")
}

fn scripted(script: &[(u8, Vec<Failure>)]) -> ScriptedHost {
    let deeds = script
        .iter()
        .map(|(number, failures)| {
            let deeds = failures.iter().cloned().map(Deed::Fails);
            (Prefix::from_number(*number), deeds.collect())
        })
        .collect();
    ScriptedHost {
        deeds: Mutex::new(deeds),
        ..ScriptedHost::default()
    }
}

#[tokio::test]
async fn a_transient_failure_is_retried_while_other_prefixes_continue() {
    let scene = Scene::new(scripted(&[
        (1, vec![transient(), transient()]),
        (2, vec![permanent()]),
    ]));
    let (outcome, events) = scene.run(4, 2).await;
    let stored: Vec<u8> = outcome
        .stored
        .keys()
        .map(|prefix| prefix.number())
        .collect();
    assert_eq!(stored, [0, 1, 3]);
    assert_eq!(outcome.stored[&Prefix::from_number(1)].attempts, 3);
    let failed = &outcome.failed[&Prefix::from_number(2)];
    assert_eq!((failed.attempts, &failed.failure), (1, &permanent()));
    assert!(outcome.not_done.is_empty());
    assert_eq!(scene.reports().len(), 3);
    let retries = events
        .iter()
        .filter(|event| matches!(event, RunEvent::Retrying { .. }))
        .count();
    assert_eq!(retries, 2);
}

#[tokio::test]
async fn attempts_are_bounded() {
    let scene = Scene::new(scripted(&[(0, vec![transient(); 50])]));
    let (outcome, _) = scene.run(1, 1).await;
    let failed = &outcome.failed[&Prefix::from_number(0)];
    assert_eq!(failed.attempts, ATTEMPTS_MAX);
}

#[tokio::test]
async fn a_source_that_never_answered_gets_fewer_attempts() {
    let mut host = scripted(&[(
        0,
        vec![Failure::transient(FailureKind::SourceUnreachable, "refused"); 50],
    )]);
    host.is_mute = true;
    let (outcome, events) = Scene::new(host).run(1, 1).await;
    let failed = &outcome.failed[&Prefix::from_number(0)];
    assert_eq!(failed.attempts, ATTEMPTS_BEFORE_LIFE_MAX);
    // An outage would be said to be ridden out for `give_up_after`.
    let is_outage = |event: &RunEvent| matches!(event, RunEvent::Outage { .. });
    assert!(!events.iter().any(is_outage), "{events:?}");
}

#[tokio::test]
async fn a_denied_upload_stops_the_run() {
    let denied = Failure::permanent(FailureKind::StoreDenied, "403 AccessDenied");
    let scene = Scene::new(scripted(&[(3, vec![denied])]));
    let (outcome, _) = scene.run(256, 1).await;
    assert_eq!((outcome.stored.len(), outcome.failed.len()), (3, 1));
    assert_eq!(outcome.failed[&Prefix::from_number(3)].attempts, 1);
    assert_eq!(outcome.not_done.len(), 252);
}

fn acting(deeds: Vec<Deed>) -> Scene {
    let mut deeds = deeds;
    deeds.reverse();
    Scene::new(ScriptedHost {
        deeds: Mutex::new(BTreeMap::from([(Prefix::from_number(0), deeds)])),
        ..ScriptedHost::default()
    })
}

#[tokio::test]
async fn an_object_that_was_stored_despite_a_bad_answer_is_not_sent_again() {
    let unconfirmed = Failure::transient(FailureKind::StoreUnconfirmed, "no checksum");
    for failure in [transient(), unconfirmed] {
        let scene = acting(vec![Deed::StoresAndFails(failure)]);
        let (outcome, _) = scene.run(1, 1).await;
        assert_eq!(outcome.stored[&Prefix::from_number(0)].attempts, 1);
        assert_eq!(scene.host.jobs.lock().expect("jobs").len(), 1);
        let reports = scene.reports();
        assert_eq!(reports[0].generation.as_deref(), Some("1"));
        assert!(reports[0].run.is_some());
    }
}

#[tokio::test]
async fn a_412_after_a_lost_answer_is_a_success_if_the_object_is_ours() {
    let precondition = Failure::transient(FailureKind::StorePrecondition, "412");
    for (first, jobs) in [
        (Deed::StoresAndFails(transient()), 1),
        (Deed::SendsAndFails(transient()), 3),
    ] {
        let scene = acting(vec![first, Deed::Fails(precondition.clone())]);
        let (outcome, _) = scene.run(1, 1).await;
        assert_eq!(outcome.stored.len(), 1);
        assert_eq!(scene.host.jobs.lock().expect("jobs").len(), jobs);
    }
}

#[tokio::test]
async fn an_object_with_a_wrong_checksum_is_removed_by_generation_and_sent_again() {
    let wrong = Failure::transient(FailureKind::StoreChecksum, "other checksum");
    let scene = acting(vec![Deed::StoresAndFails(wrong)]);
    let (outcome, _) = scene.run(1, 1).await;
    assert_eq!(outcome.stored[&Prefix::from_number(0)].attempts, 2);
    assert_eq!(scene.reports().len(), 1);
}

#[tokio::test]
async fn the_tar_of_an_earlier_run_is_not_removed_whoever_blames_it() {
    let wrong = Failure::transient(FailureKind::StoreChecksum, "other checksum");
    let scene = acting(vec![Deed::NamesBaseAndFails(wrong); 8]);
    let earlier = File {
        content: Content::Tar("earlier".to_owned()),
        generation: BASE,
    };
    let name = "00.tar".to_owned();
    scene.host.store.files().insert(name.clone(), earlier);
    let (outcome, _) = scene.run(1, 1).await;
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(scene.host.store.files()[&name].generation, BASE);
}

#[tokio::test]
async fn a_report_that_is_not_true_is_not_believed() {
    type Lie = (&'static str, fn(&mut Report));
    let lies: [Lie; 6] = [
        ("nothing stored", |_| {}),
        ("one range", |report| report.ranges = 1),
        ("an empty index", |report| report.range_bytes.clear()),
        ("another prefix", |report| {
            report.prefix = Prefix::from_number(9)
        }),
        ("another source", |report| {
            report.source = "http://127.0.0.1:2".to_owned()
        }),
        ("hashes of another mode", |report| report.mode = Mode::Ntlm),
    ];
    for (lie, change) in lies {
        let mut told = report(Prefix::from_number(0));
        change(&mut told);
        let scene = acting(vec![Deed::Lies(Box::new(told)); 8]);
        let (outcome, _) = scene.run(1, 1).await;
        let failed = &outcome.failed[&Prefix::from_number(0)];
        assert_eq!(failed.failure.kind, FailureKind::ReportInvalid, "{lie}");
        assert_eq!(scene.reports(), [], "{lie}");
    }
}

#[tokio::test]
async fn an_exceeded_length_is_retried_with_the_length_needed() {
    let exceeded = Failure {
        content_length: Some(20_480),
        ..Failure::permanent(FailureKind::LengthExceeded, "too short")
    };
    let scene = Scene::new(scripted(&[(0, vec![exceeded])]));
    let (outcome, _) = scene.run(1, 1).await;
    assert_eq!(outcome.stored.len(), 1);
    let jobs = scene.host.jobs.lock().expect("jobs");
    assert_eq!(jobs[0].1, None);
    assert_eq!(jobs[1].1, Some(20_480));
}

#[tokio::test]
async fn many_failures_in_a_row_end_the_run_early() {
    let script: Vec<(u8, Vec<Failure>)> = (1..=255)
        .map(|number| (number, vec![permanent()]))
        .collect();
    let scene = Scene::new(scripted(&script));
    let (outcome, _) = scene.run(256, 4).await;
    assert_eq!(outcome.stored.len(), 1);
    assert!(outcome.failed.len() >= FAILURES_IN_A_ROW_MAX);
    assert!(outcome.failed.len() < FAILURES_IN_A_ROW_MAX + 4);
    assert_eq!(outcome.failed.len() + outcome.not_done.len(), 255);
}

#[tokio::test]
async fn only_one_prefix_is_attempted_if_the_source_cannot_be_reached() {
    let refused = Failure::transient(FailureKind::SourceUnreachable, "refused");
    let script: Vec<(u8, Vec<Failure>)> = (0..=255)
        .map(|number| (number, vec![refused.clone(); 9]))
        .collect();
    let mut host = scripted(&script);
    host.is_mute = true;
    let scene = Scene::new(host);
    let (outcome, _) = scene.run(256, 4).await;
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(outcome.not_done.len(), 255);
}

#[tokio::test]
async fn a_first_prefix_with_a_bad_range_does_not_stop_the_others() {
    let mut host = scripted(&[(0, vec![permanent()])]);
    host.is_mute = true;
    let (outcome, _) = Scene::new(host).run(8, 4).await;
    assert_eq!((outcome.failed.len(), outcome.stored.len()), (1, 7));
}

#[tokio::test]
async fn an_outage_is_ridden_out_and_its_attempts_do_not_count() {
    let refused = || Failure::transient(FailureKind::SourceUnreachable, "refused");
    let one = scripted(&[(1, vec![refused(); 7])]);
    let two = scripted(&[(1, vec![refused(); 7]), (2, vec![refused(); 7])]);
    // Of two prefixes, one may be stored while the other has failures left: then that is another outage.
    for (mut host, prefixes, ended_max) in [(one, 2, 1), (two, 3, 2)] {
        host.is_mute = true;
        let mut scene = Scene::new(host);
        scene.give_up_after = Duration::from_secs(600);
        let (outcome, events) = scene.run(prefixes, 2).await;
        assert_eq!(outcome.stored.len(), prefixes, "{:?}", outcome.failed);
        let ended = |event: &RunEvent| matches!(event, RunEvent::OutageEnded { .. });
        let ended = events.iter().filter(|event| ended(event)).count();
        assert!((1..=ended_max).contains(&ended), "{ended} outages ended");
        let retries = events
            .iter()
            .filter(|event| matches!(event, RunEvent::Retrying { .. }));
        assert_eq!(retries.count(), 0);
    }
}

#[tokio::test]
async fn an_outage_that_lasts_too_long_ends_the_run_after_a_last_attempt() {
    let refused = || Failure::transient(FailureKind::SourceUnreachable, "refused");
    let mut host = scripted(&[(1, vec![refused(); 2000])]);
    host.is_mute = true;
    // An attempt that began before the time was over fails after it.
    host.takes = Duration::from_millis(40);
    let mut scene = Scene::new(host);
    scene.give_up_after = Duration::from_millis(100);
    let began = Instant::now();
    let (outcome, _) = scene.run(2, 1).await;
    assert_eq!((outcome.stored.len(), outcome.failed.len()), (1, 1));
    let latest = scene.host.latest.lock().expect("not poisoned");
    let latest = latest.expect("an invocation") - began - scene.host.takes;
    assert!(latest >= scene.give_up_after, "{latest:?}");
}

#[tokio::test]
async fn a_destination_that_fails_is_retried_only_if_the_failure_is_transient() {
    for (status, attempts) in [(503, ATTEMPTS_BEFORE_LIFE_MAX), (403, 1)] {
        let mut store = MemoryStore::new(Arc::default(), Arc::new(Open));
        store.sign_status = Some(status);
        let scene = Scene::new(ScriptedHost {
            store: Arc::new(store),
            ..ScriptedHost::default()
        });
        let (outcome, _) = scene.run(1, 1).await;
        let failed = &outcome.failed[&Prefix::from_number(0)];
        assert_eq!(failed.failure.kind, FailureKind::Destination);
        let message = format!("PUT of AB.tar was answered {status}");
        assert_eq!(failed.failure.message, message);
        assert_eq!(failed.attempts, attempts);
    }
}

#[tokio::test]
async fn a_graceful_shutdown_starts_nothing_new_and_an_immediate_one_aborts_the_rest() {
    let scene = Scene::new(ScriptedHost::default());
    scene.shutdown.graceful.cancel();
    let (outcome, _) = scene.run(3, 1).await;
    assert_eq!(outcome.not_done.len(), 3);

    let scene = Scene::new(ScriptedHost {
        hangs: true,
        ..ScriptedHost::default()
    });
    let shutdown = scene.shutdown.clone();
    let host = Arc::clone(&scene.host);
    tokio::spawn(async move {
        // Wait until both are in progress.
        while host.jobs.lock().expect("jobs").len() < 2 {
            tokio::task::yield_now().await;
        }
        shutdown.graceful.cancel();
        shutdown.immediate.cancel();
    });
    let (outcome, _) = scene.run(3, 2).await;
    let aborted: Vec<u8> = outcome
        .not_done
        .iter()
        .map(|prefix| prefix.number())
        .collect();
    assert_eq!(aborted, [0, 1, 2]);
}
