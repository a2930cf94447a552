//! Runs in which random requests fail: the archive is the same as without faults.

use crate::harness::faults::{
    Faults, SourceFault, StoreFault, seeded_source_fault, seeded_store_fault,
};
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::faulty_store::FaultyStore;
use crate::harness::program::measured;
use crate::harness::{expected_tar, prefix_set, run, run_behind, run_config, tars_of};
use orchestrator::host::embedded::DEADLINE_DEFAULT;
use orchestrator::origin::Origin;
use orchestrator::run::RunConfig;
use orchestrator::run::retry::FIRST_WAIT_MAX;
use prefix_tar::protocol::source::SourceUrl;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LINES: u64 = 5;

/// One request in twenty fails.
const FAULTS_PER_MILLE: u64 = 50;

/// The longest time until a run reports a peer that does not answer.
const REPORTED_WITHIN: Duration = Duration::from_secs(360);

/// Mirrors prefixes while the source and the store fail at random, by `seed`, and compares the
/// archive with the expected one.
async fn soak(seed: u64, prefixes: &str, parallel: usize) {
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        move |range, attempt| seeded_source_fault(seed, FAULTS_PER_MILLE, range, attempt),
    )
    .await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut config = run_config(source.url(), archive.path(), prefixes);
    config.dispatch.parallel = parallel;
    let faults = Arc::<Faults>::default();
    let noted = Arc::clone(&faults);
    let started = Instant::now();
    let run = run_behind(config, move |store| {
        let plan =
            move |prefix, attempt| seeded_store_fault(seed, FAULTS_PER_MILLE, prefix, attempt);
        Origin::in_process("localhost", FaultyStore::new(store, noted, plan))
    })
    .await;
    let seconds = started.elapsed().as_secs_f64();
    let outcome = &run.outcome;
    assert!(outcome.is_complete(), "seed {seed}: {:?}", outcome.failed);
    let tars = tars_of(archive.path());
    assert_eq!(tars.len(), prefix_set(prefixes).count());
    for (name, tar) in tars {
        let expected = expected_tar(&name[..2], |range| body_of(range, LINES));
        assert!(tar == expected, "seed {seed}: {name} differs");
    }
    let (range_faults, put_faults): (u64, u64) = (
        source.faults().injected().values().sum(),
        faults.injected().values().sum(),
    );
    measured(&format!(
        "seed {seed}: {} prefixes, {} requests, {range_faults} of them faulty, {put_faults} faulty PUTs, {} invocations, {seconds:.0} s",
        outcome.stored.len(),
        source.faults().range_requests(),
        outcome
            .stored
            .values()
            .map(|stored| stored.attempts)
            .sum::<u32>(),
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_prefixes_are_right_although_one_request_in_twenty_fails() {
    soak(1, "00-01", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn sixty_four_prefixes_are_right_for_five_seeds_although_one_request_in_twenty_fails() {
    for seed in seeds() {
        soak(seed, "00-3F", 32).await;
    }
}

/// The seeds of a soak: the one in `SOAK_SEED`, or five.
fn seeds() -> Vec<u64> {
    match std::env::var("SOAK_SEED") {
        Ok(seed) => vec![seed.parse().expect("a seed in SOAK_SEED")],
        Err(_) => (1..=5).collect(),
    }
}

/// Runs with the command line's defaults against a peer that does not answer; returns the time
/// until the failure is reported.
async fn time_to_report(what: &str, source: SourceUrl, store: Option<Origin>) -> Duration {
    let archive = tempfile::tempdir().expect("a folder");
    let mut config = run_config(&source, archive.path(), "00-FF");
    config.dispatch.parallel = 4;
    config.dispatch.first_wait_max = FIRST_WAIT_MAX;
    config.deadline = DEADLINE_DEFAULT;
    let started = Instant::now();
    let run = match store {
        Some(store) => run_behind(config, |_| store).await,
        None => run(config).await,
    };
    let elapsed = started.elapsed();
    let failed = run.outcome.failed.values().next().expect("a failure");
    measured(&format!(
        "| {what} | {:.1} s | {}, {} invocations |",
        elapsed.as_secs_f64(),
        failed.failure,
        failed.attempts
    ));
    assert_eq!(run.outcome.stored.len(), 0);
    elapsed
}

/// A port that neither accepts nor refuses connections, because its queue is full.
struct BlackHole {
    address: SocketAddr,
    _listener: std::net::TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let timeout = Duration::from_millis(500);
        let queue: Vec<TcpStream> =
            std::iter::from_fn(|| TcpStream::connect_timeout(&address, timeout).ok()).collect();
        Self {
            address,
            _listener: listener,
            _queue: queue,
        }
    }
}

fn url_of(address: SocketAddr) -> SourceUrl {
    format!("http://{address}").parse().expect("a source")
}

fn refusing() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn a_peer_that_does_not_answer_is_reported_within_minutes() {
    let stalling = FaultySource::start(
        |range| body_of(range, LINES),
        |_, _| Some(SourceFault::Stall),
    )
    .await;
    let dripping = FaultySource::start(
        |range| body_of(range, LINES),
        |_, _| Some(SourceFault::Drip(1_000)),
    )
    .await;
    let good = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let (hole, store_hole) = (BlackHole::new(), BlackHole::new());
    let store = |address: SocketAddr| Some(Origin::new(false, &address.to_string()));
    let times = futures::join!(
        time_to_report("source refuses connections", url_of(refusing()), None),
        time_to_report("source is a black hole", url_of(hole.address), None),
        time_to_report(
            "source accepts requests, but does not answer",
            stalling.url().clone(),
            None
        ),
        time_to_report("source sends a byte a second", dripping.url().clone(), None),
        time_to_report(
            "store refuses connections",
            good.url().clone(),
            store(refusing())
        ),
        time_to_report(
            "store is a black hole",
            good.url().clone(),
            store(store_hole.address)
        ),
    );
    let times = [times.0, times.1, times.2, times.3, times.4, times.5];
    assert!(
        times.iter().all(|time| *time < REPORTED_WITHIN),
        "{times:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn a_store_that_stops_reading_is_reported_within_minutes() {
    let good = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let archive = tempfile::tempdir().expect("a folder");
    let started = Instant::now();
    let run = run_behind(config_of(&good, archive.path()), |store| {
        let always = |_, _| Some(StoreFault::Stall);
        Origin::in_process("localhost", FaultyStore::new(store, Arc::default(), always))
    })
    .await;
    let failed = run.outcome.failed.values().next().expect("a failure");
    let seconds = started.elapsed().as_secs_f64();
    measured(&format!(
        "| store stops reading | {seconds:.1} s | {}, {} invocations |",
        failed.failure, failed.attempts
    ));
    assert!(started.elapsed() < REPORTED_WITHIN);
}

fn config_of(source: &FaultySource, folder: &std::path::Path) -> RunConfig {
    let mut config = run_config(source.url(), folder, "00");
    config.deadline = DEADLINE_DEFAULT;
    config
}
