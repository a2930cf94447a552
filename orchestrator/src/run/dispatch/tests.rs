//! Tests of the dispatcher over a host that answers from a script.

use super::*;
use crate::archive::manifest::Manifest;
use crate::archive::{Archive, ReadError, StoredObject, TarReader};
use crate::destination::DestinationError;
use crate::gcs::client::RequestError;
use crate::host::{FailedInvocation, InvocationProgress};
use crate::origin::Origin;
use crate::run::event::RUN_EVENTS_MAX;
use crate::run::retry::{ATTEMPTS_BEFORE_LIFE_MAX, ATTEMPTS_MAX};
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::failure::Failure;
use prefix_tar::protocol::job::{Job, Upload};
use prefix_tar::protocol::report::{Report, Seconds};
use prefix_tar::protocol::signed_url::SignedUrl;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

/// A host that answers from a script: the failures of a prefix, last first, then success.
#[derive(Default)]
struct ScriptedHost {
    failures: Mutex<BTreeMap<Prefix, Vec<FailedInvocation>>>,
    jobs: Mutex<Vec<(Prefix, Option<u64>)>>,
    hangs: bool,
    /// Reports no progress.
    is_mute: bool,
}

#[async_trait::async_trait]
impl Host for ScriptedHost {
    fn allow_upload(&mut self, _origin: Origin) {}

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
        run: None,
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

/// A destination that records what it is asked for.
struct RecordingDestination {
    origin: Origin,
    archive: FixedArchive,
    reports: Mutex<Vec<Report>>,
    discarded: Mutex<Vec<(Prefix, String)>>,
    /// The status of every attempt to prepare an upload, if it fails.
    prepare_status: Option<u16>,
}

impl Default for RecordingDestination {
    fn default() -> Self {
        Self {
            origin: Origin::new(false, "127.0.0.1:1"),
            archive: FixedArchive::default(),
            reports: Mutex::default(),
            discarded: Mutex::default(),
            prepare_status: None,
        }
    }
}

/// An archive that has the same object for every prefix.
#[derive(Default)]
struct FixedArchive {
    object: Option<StoredObject>,
}

#[async_trait::async_trait]
impl Archive for FixedArchive {
    async fn read(&self, _file: &str, _bytes_max: usize) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(None)
    }

    async fn object(&self, _prefix: Prefix) -> Result<Option<StoredObject>, ReadError> {
        Ok(self.object.clone())
    }

    async fn has_tar(&self, _prefix: Prefix) -> Result<bool, ReadError> {
        Ok(self.object.is_some())
    }

    async fn open_tar(&self, _prefix: Prefix) -> Result<Option<TarReader>, ReadError> {
        Ok(None)
    }

    async fn read_tar_bytes(
        &self,
        _prefix: Prefix,
        _byte_range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(None)
    }
}

#[async_trait::async_trait]
impl Destination for RecordingDestination {
    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn archive(&self) -> &dyn Archive {
        &self.archive
    }

    async fn begin(&self) -> Result<(), DestinationError> {
        Ok(())
    }

    async fn prepare(&self, _prefix: Prefix) -> Result<Upload, DestinationError> {
        if let Some(status) = self.prepare_status {
            return Err(DestinationError::Request(RequestError::Refused {
                message: format!("HEAD of AB.tar was answered {status}"),
                status: http::StatusCode::from_u16(status).expect("a status"),
            }));
        }
        Ok(Upload {
            url: SignedUrl::new("http://127.0.0.1:1/b/o?s".to_owned()).expect("a URL"),
            headers: BTreeMap::new(),
        })
    }

    async fn discard(&self, prefix: Prefix, generation: &str) -> Result<(), DestinationError> {
        let mut discarded = self.discarded.lock().expect("not poisoned");
        discarded.push((prefix, generation.to_owned()));
        Ok(())
    }

    async fn write_report(&self, report: &Report) -> Result<(), DestinationError> {
        let mut reports = self.reports.lock().expect("not poisoned");
        reports.push(report.clone());
        Ok(())
    }

    async fn write_manifest(&self, _manifest: &Manifest) -> Result<(), DestinationError> {
        Ok(())
    }
}

struct Scene {
    host: Arc<ScriptedHost>,
    destination: Arc<RecordingDestination>,
    shutdown: Shutdown,
}

impl Scene {
    fn new(host: ScriptedHost) -> Self {
        Self {
            host: Arc::new(host),
            destination: Arc::default(),
            shutdown: Shutdown::default(),
        }
    }

    async fn run(&self, prefixes: usize, parallel: usize) -> (Outcome, Vec<RunEvent>) {
        let (sender, mut receiver) = mpsc::channel(RUN_EVENTS_MAX);
        let settings = DispatchSettings {
            parallel,
            window: None,
            first_wait_max: Duration::from_millis(1),
        };
        let host: Arc<dyn Host> = Arc::<ScriptedHost>::clone(&self.host);
        let destination: Arc<dyn Destination> =
            Arc::<RecordingDestination>::clone(&self.destination);
        let events = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(event) = receiver.recv().await {
                all.push(event);
            }
            all
        });
        let outcome = run(
            Prefix::all().take(prefixes),
            host,
            destination,
            settings,
            self.shutdown.clone(),
            sender,
        )
        .await;
        (outcome, events.await.expect("events"))
    }
}

fn transient() -> Failure {
    Failure::transient(FailureKind::StoreStatus, "503")
}

fn permanent() -> Failure {
    Failure::permanent(FailureKind::SourceStatus, "404")
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
    assert_eq!(scene.destination.reports.lock().expect("reports").len(), 3);
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
    let (outcome, _) = Scene::new(host).run(1, 1).await;
    let failed = &outcome.failed[&Prefix::from_number(0)];
    assert_eq!(failed.attempts, ATTEMPTS_BEFORE_LIFE_MAX);
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
    scene.destination = Arc::new(RecordingDestination {
        archive: FixedArchive { object },
        ..RecordingDestination::default()
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
async fn an_object_that_was_stored_despite_a_bad_answer_is_not_sent_again() {
    let (scene, outcome) =
        run_after(vec![sent_without_an_answer(transient(), None)], object(3)).await;
    assert_eq!(outcome.stored[&Prefix::from_number(0)].attempts, 1);
    assert_eq!(scene.host.jobs.lock().expect("jobs").len(), 1);
    let reports = scene.destination.reports.lock().expect("reports");
    assert_eq!(reports[0].generation.as_deref(), Some("77"));
}

#[tokio::test]
async fn a_412_after_a_lost_answer_is_a_success_if_the_object_is_ours() {
    let precondition = || Failure::transient(FailureKind::StorePrecondition, "412");
    // The script runs from its end.
    let lost = || sent_without_an_answer(transient(), None);
    for (crc32c, jobs) in [(3, 1), (4, 3)] {
        let script = vec![precondition().into(), lost()];
        let (scene, outcome) = run_after(script, object(crc32c)).await;
        assert_eq!(outcome.stored.len(), 1);
        assert_eq!(scene.host.jobs.lock().expect("jobs").len(), jobs);
    }
}

#[tokio::test]
async fn an_object_with_a_wrong_checksum_is_removed_by_generation_and_sent_again() {
    let wrong = Failure::transient(FailureKind::StoreChecksum, "other checksum");
    let script = vec![sent_without_an_answer(wrong, Some("5"))];
    let (scene, outcome) = run_after(script, object(3)).await;
    assert_eq!(outcome.stored[&Prefix::from_number(0)].attempts, 2);
    let discarded = scene.destination.discarded.lock().expect("discarded");
    assert_eq!(*discarded, [(Prefix::from_number(0), "5".to_owned())]);
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
async fn only_one_prefix_is_attempted_if_nothing_works() {
    let script: Vec<(u8, Vec<Failure>)> = (0..=255)
        .map(|number| (number, vec![permanent()]))
        .collect();
    let mut host = scripted(&script);
    host.is_mute = true;
    let scene = Scene::new(host);
    let (outcome, _) = scene.run(256, 4).await;
    assert_eq!(outcome.failed.len(), 1);
    assert_eq!(outcome.not_done.len(), 255);
}

#[tokio::test]
async fn a_destination_that_fails_is_retried_only_if_the_failure_is_transient() {
    for (status, attempts) in [(503, ATTEMPTS_MAX), (403, 1)] {
        let mut scene = Scene::new(ScriptedHost::default());
        scene.destination = Arc::new(RecordingDestination {
            prepare_status: Some(status),
            ..RecordingDestination::default()
        });
        let (outcome, _) = scene.run(1, 1).await;
        let failed = &outcome.failed[&Prefix::from_number(0)];
        assert_eq!(failed.failure.kind, FailureKind::Destination);
        let message = format!("HEAD of AB.tar was answered {status}");
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
