//! Long runs: everything fails now and then, and the archive is the one that it would have been.

use crate::harness::faults::{
    Faults, SourceFault, StoreFault, seeded_source_fault, seeded_store_fault,
};
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::faulty_store::FaultyStore;
use crate::harness::program::measured;
use crate::harness::{expected_tar, mirror, prefix_set, run, run_behind, tars_of};
use orchestrator::host::embedded::{DEADLINE_DEFAULT, Origin};
use orchestrator::mirror::Mirror;
use orchestrator::retry::FIRST_WAIT_MAX;
use prefix_tar::source::SourceUrl;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LINES: u64 = 5;

/// One request of twenty fails.
const PER_MILLE: u64 = 50;

/// Nothing that is not there takes longer than this to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(360);

/// Mirrors prefixes while the source and the store fail as `seed` says, and compares the archive with the one of
/// an undisturbed run.
async fn soak(seed: u64, prefixes: &str, parallel: usize) {
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        move |range, attempt| seeded_source_fault(seed, PER_MILLE, range, attempt),
    )
    .await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut mirror = mirror(source.url(), archive.path(), prefixes);
    mirror.settings.parallel = parallel;
    let faults = Arc::<Faults>::default();
    let noted = Arc::clone(&faults);
    let began = Instant::now();
    let mirrored = run_behind(mirror, move |store| {
        let plan = move |prefix, attempt| seeded_store_fault(seed, PER_MILLE, prefix, attempt);
        Origin::in_process("localhost", FaultyStore::new(store, noted, plan))
    })
    .await;
    let seconds = began.elapsed().as_secs_f64();
    let outcome = &mirrored.outcome;
    assert!(outcome.is_complete(), "seed {seed}: {:?}", outcome.failed);
    let tars = tars_of(archive.path());
    assert_eq!(tars.len(), prefix_set(prefixes).count());
    for (name, tar) in tars {
        let expected = expected_tar(&name[..2], |range| body_of(range, LINES));
        assert!(tar == expected, "seed {seed}: {name} is another");
    }
    let (range_faults, put_faults): (u64, u64) = (
        source.faults().injected().values().sum(),
        faults.injected().values().sum(),
    );
    measured(&format!(
        "seed {seed}: {} prefixes, {} requests, {range_faults} of them with a fault, {put_faults} PUTs with a fault, {} invocations, {seconds:.0} s",
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
async fn two_prefixes_with_one_request_of_twenty_failing_are_right() {
    soak(1, "00-01", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn sixty_four_prefixes_with_one_request_of_twenty_failing_are_right_for_five_seeds() {
    for seed in 1..=5 {
        soak(seed, "00-3F", 32).await;
    }
}

/// Runs with everything as the command line has it, against peers that are not there; tells how long that takes to be
/// told.
async fn told_after(what: &str, source: SourceUrl, store: Option<Origin>) -> Duration {
    let archive = tempfile::tempdir().expect("a folder");
    let mut mirror = mirror(&source, archive.path(), "00-FF");
    mirror.settings.parallel = 4;
    mirror.settings.first_wait_max = FIRST_WAIT_MAX;
    mirror.deadline = DEADLINE_DEFAULT;
    let began = Instant::now();
    let mirrored = match store {
        Some(store) => run_behind(mirror, |_| store).await,
        None => run(mirror).await,
    };
    let elapsed = began.elapsed();
    let failed = mirrored.outcome.failed.values().next().expect("a failure");
    measured(&format!(
        "| {what} | {:.1} s | {}, {} invocations |",
        elapsed.as_secs_f64(),
        failed.failure,
        failed.attempts
    ));
    assert_eq!(mirrored.outcome.stored.len(), 0);
    elapsed
}

/// A port where connections are neither taken nor refused: its queue is full.
struct BlackHole {
    address: SocketAddr,
    _listener: std::net::TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let patience = Duration::from_millis(500);
        let queue: Vec<TcpStream> =
            std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok()).collect();
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
async fn peers_that_are_not_there_are_told_within_minutes() {
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
        told_after("source refuses connections", url_of(refusing()), None),
        told_after("source is a black hole", url_of(hole.address), None),
        told_after(
            "source takes requests, answers nothing",
            stalling.url().clone(),
            None
        ),
        told_after("source sends a byte a second", dripping.url().clone(), None),
        told_after(
            "store refuses connections",
            good.url().clone(),
            store(refusing())
        ),
        told_after(
            "store is a black hole",
            good.url().clone(),
            store(store_hole.address)
        ),
    );
    let times = [times.0, times.1, times.2, times.3, times.4, times.5];
    assert!(times.iter().all(|time| *time < TOLD_WITHIN), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn a_store_that_stops_reading_is_told_within_minutes() {
    let good = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let archive = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let mirrored = run_behind(mirror_of(&good, archive.path()), |store| {
        let always = |_, _| Some(StoreFault::Stall);
        Origin::in_process("localhost", FaultyStore::new(store, Arc::default(), always))
    })
    .await;
    let failed = mirrored.outcome.failed.values().next().expect("a failure");
    let seconds = began.elapsed().as_secs_f64();
    measured(&format!(
        "| store stops reading | {seconds:.1} s | {}, {} invocations |",
        failed.failure, failed.attempts
    ));
    assert!(began.elapsed() < TOLD_WITHIN);
}

fn mirror_of(source: &FaultySource, folder: &std::path::Path) -> Mirror {
    let mut mirror = mirror(source.url(), folder, "00");
    mirror.deadline = DEADLINE_DEFAULT;
    mirror
}
