//! A run rides out an outage of the source and the store, without help.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{Background, measured, output, texts};
use crate::harness::relay::Relay;
use crate::harness::store_program::StoreProgram;
use crate::harness::{expected_tar, prefix_set, tars_of};
use orchestrator::run::retry::GIVE_UP_AFTER_DEFAULT;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The lines of a range. A prefix has 7 MB.
const LINES: u64 = 40;

/// The prefixes of a run.
const PREFIXES: &str = "00-07";

/// When the outage begins, in bytes that have passed between the run and the source: the first
/// prefixes are stored, and others are under way.
const REFUSED_AFTER_BYTES: u64 = 40_000_000;

/// How long a run may go on after the outage: the longest wait between two attempts, and the rest
/// of the run on a busy machine.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30 + 120);

/// Mirrors into a bucket with the defaults of the command line. In the middle of the run, the
/// source and the store refuse all connections for this long.
async fn run_with_an_outage(outage: Duration) {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let source_relay = Relay::start(
        source
            .url()
            .authority()
            .as_str()
            .parse()
            .expect("an address"),
    );
    let source_relay = source_relay.await;
    let store = StoreProgram::start();
    let store_relay = Relay::start(store.address().parse().expect("an address")).await;
    let url = format!("http://{}", source_relay.address());
    let mut run = store.command(
        &["run", "--source", &url, "--prefixes", PREFIXES, "--to"],
        "a",
    );
    let log = tempfile::NamedTempFile::new().expect("a file");
    run.env("STORAGE_EMULATOR_HOST", store_relay.address().to_string())
        .stdout(Stdio::null())
        .stderr(log.reopen().expect("a log"));
    let run = Background(run.spawn().expect("it starts"));

    source_relay.until_forwarded(REFUSED_AFTER_BYTES).await;
    for relay in [&source_relay, &store_relay] {
        relay.set_refusing(true);
    }
    tokio::time::sleep(outage).await;
    let stored_before = tars_of(&store.archive("a")).len();
    for relay in [&source_relay, &store_relay] {
        relay.set_refusing(false);
    }
    let over = Instant::now();
    let status = run.ended_within(RECOVERED_WITHIN).await;
    let log = std::fs::read_to_string(log.path()).expect("a log");
    assert_eq!(status.code(), Some(0), "{log}");
    let prefixes = prefix_set(PREFIXES).count();
    measured(&format!(
        "source and store refuse connections for {} s when {stored_before} of {prefixes} prefixes are stored: exit 0 after another {:.1} s\n{log}",
        outage.as_secs(),
        over.elapsed().as_secs_f64()
    ));
    assert!(
        (1..prefixes).contains(&stored_before),
        "{stored_before} prefixes were stored before"
    );
    let tars = tars_of(&store.archive("a"));
    assert_eq!(tars.len(), prefixes);
    for (name, tar) in tars {
        let expected = expected_tar(&name[..2], |range| body_of(range, LINES));
        assert!(tar == expected, "{name} differs");
    }
    let verified = output(store.command(&["verify"], "a")).await;
    assert_eq!(verified.status.code(), Some(0), "{}", texts(&verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_source_and_store_for_seconds_is_ridden_out() {
    run_with_an_outage(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes ten minutes; `make soak`"]
async fn an_outage_of_source_and_store_for_ten_minutes_is_ridden_out_by_default() {
    run_with_an_outage(GIVE_UP_AFTER_DEFAULT).await;
}
