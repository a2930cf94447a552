//! Tests of the run, over a host that answers from a script.

use super::*;
use crate::destination::StoredObject;
use crate::host::FailedInvocation;
use crate::manifest::Manifest;
use prefix_tar::job::{Crc32c, Job, Seconds, SignedUrl, Upload};
use std::sync::Mutex;

/// A host that answers from a script: failures first, per prefix, then success.
#[derive(Default)]
struct ScriptedHost {
    failures: Mutex<BTreeMap<Prefix, Vec<FailedInvocation>>>,
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
    ) -> Result<Report, FailedInvocation> {
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
        source: "http://127.0.0.1:1".to_owned(),
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
    reports: Mutex<Vec<Report>>,
    cannot_prepare: bool,
    /// What the store has, of every prefix.
    object: Option<StoredObject>,
    discarded: Mutex<Vec<(Prefix, String)>>,
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
        reports.push(report.clone());
        Ok(())
    }

    async fn report(&self, _prefix: Prefix) -> anyhow::Result<Option<Report>> {
        Ok(None)
    }

    async fn object(&self, _prefix: Prefix) -> anyhow::Result<Option<StoredObject>> {
        Ok(self.object.clone())
    }

    async fn discard(&self, prefix: Prefix, generation: &str) -> anyhow::Result<()> {
        let mut discarded = self.discarded.lock().expect("not poisoned");
        discarded.push((prefix, generation.to_owned()));
        Ok(())
    }

    async fn manifest(&self) -> anyhow::Result<Option<Manifest>> {
        Ok(None)
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
        let destination: Arc<dyn Destination> = Arc::<NotedDestination>::clone(&self.destination);
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
        .map(|(number, failures)| {
            let failures = failures.iter().cloned().map(FailedInvocation::from);
            (Prefix::from_number(*number), failures.collect())
        })
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
async fn a_source_that_never_was_there_is_asked_less_often() {
    let mut host = scripted(&[(
        0,
        vec![Failure::passing(FailureKind::SourceUnreachable, "refused"); 50],
    )]);
    host.is_mute = true;
    let (outcome, _) = Scene::new(host).run(1, 1).await;
    let failed = &outcome.failed[&Prefix::from_number(0)];
    assert_eq!(failed.attempts, crate::retry::ATTEMPTS_BEFORE_LIFE_MAX);
}

#[tokio::test]
async fn where_the_store_denies_one_prefix_no_other_is_begun() {
    let denied = Failure::lasting(FailureKind::StoreDenied, "403 AccessDenied");
    let scene = Scene::new(scripted(&[(3, vec![denied])]));
    let (outcome, _) = scene.run(256, 1).await;
    assert_eq!((outcome.stored.len(), outcome.failed.len()), (3, 1));
    assert_eq!(outcome.failed[&Prefix::from_number(3)].attempts, 1);
    assert_eq!(outcome.not_done.len(), 252);
}

fn sent_without_an_answer(failure: Failure, generation: Option<&str>) -> FailedInvocation {
    let sent = Report {
        generation: generation.map(str::to_owned),
        ..report(Prefix::from_number(0))
    };
    FailedInvocation {
        failure,
        sent: Some(Box::new(sent)),
    }
}

async fn run_after(
    script: Vec<FailedInvocation>,
    object: Option<StoredObject>,
) -> (Scene, Outcome) {
    let mut scene = Scene::new(ScriptedHost {
        failures: Mutex::new(BTreeMap::from([(Prefix::from_number(0), script)])),
        ..ScriptedHost::default()
    });
    scene.destination = Arc::new(NotedDestination {
        object,
        ..NotedDestination::default()
    });
    let (outcome, _) = scene.run(1, 1).await;
    (scene, outcome)
}

fn object(crc32c: u32) -> Option<StoredObject> {
    Some(StoredObject {
        content_length: 10_240,
        crc32c: Crc32c(crc32c),
        generation: "77".to_owned(),
        etag: Some("\"e\"".to_owned()),
    })
}

#[tokio::test]
async fn an_object_that_was_stored_although_the_answer_was_bad_is_not_sent_again() {
    let (scene, outcome) =
        run_after(vec![sent_without_an_answer(passing(), None)], object(3)).await;
    assert_eq!(outcome.stored[&Prefix::from_number(0)].attempts, 1);
    assert_eq!(scene.host.jobs.lock().expect("jobs").len(), 1);
    let reports = scene.destination.reports.lock().expect("reports");
    assert_eq!(reports[0].generation.as_deref(), Some("77"));
}

#[tokio::test]
async fn a_412_after_an_answer_that_was_lost_is_our_own_success_if_the_object_is_ours() {
    let precondition = || Failure::passing(FailureKind::StorePrecondition, "412");
    // The script is taken from its end.
    let lost = || sent_without_an_answer(passing(), None);
    for (crc32c, jobs) in [(3, 1), (4, 3)] {
        let script = vec![precondition().into(), lost()];
        let (scene, outcome) = run_after(script, object(crc32c)).await;
        assert_eq!(outcome.stored.len(), 1);
        assert_eq!(scene.host.jobs.lock().expect("jobs").len(), jobs);
    }
}

#[tokio::test]
async fn an_object_with_a_wrong_checksum_is_removed_by_its_generation_and_sent_again() {
    let wrong = Failure::passing(FailureKind::StoreChecksum, "other checksum");
    let script = vec![sent_without_an_answer(wrong, Some("5"))];
    let (scene, outcome) = run_after(script, object(3)).await;
    assert_eq!(outcome.stored[&Prefix::from_number(0)].attempts, 2);
    let discarded = scene.destination.discarded.lock().expect("discarded");
    assert_eq!(*discarded, [(Prefix::from_number(0), "5".to_owned())]);
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
    let attempts = outcome.failed[&Prefix::from_number(0)].attempts;
    assert_eq!(
        attempts,
        crate::retry::ATTEMPTS_MAX,
        "a bucket may be away for a moment"
    );
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
