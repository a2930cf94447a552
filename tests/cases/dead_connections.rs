//! Connections that die silently: they stay open, but nothing passes any more, as after a NAT has
//! forgotten them or a machine was suspended. New connections work.

mod bucket;

use crate::harness::certificates::{CA_FILE, write};
use crate::harness::component_server::{internal_error, invoke};
use crate::harness::faulty_source::{FaultySource, body_of, good_answer};
use crate::harness::program::measured;
use crate::harness::relay::Relay;
use crate::harness::source::listener;
use crate::harness::tls_server::TlsServer;
use crate::harness::{
    DEADLINE, Fixture, expected_tar, prefix, run, run_config, run_on, signed_upload, tars_of,
    verified,
};
use emulator::Emulator;
use orchestrator::destination::folder::FolderDestination;
use orchestrator::host::Host as _;
use orchestrator::host::embedded::{DEADLINE_DEFAULT, EmbeddedHost, EmbeddedSettings};
use orchestrator::host::remote::{RemoteHost, RemoteTimeouts};
use orchestrator::liveness::Liveness;
use orchestrator::origin::Origin;
use orchestrator::run::retry::FIRST_WAIT_MAX;
use prefix_tar::protocol::configuration::{SOURCE_ENCODING, SOURCE_URL};
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::source::SourceUrl;
use prefix_tar::protocol::token::Token;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The lines of a range. A prefix has 7 MB.
const LINES: u64 = 40;

/// When connections are frozen, in bytes that have passed: in mid-run.
const FROZEN_AFTER_BYTES: u64 = 2_000_000;

/// The shortened timeouts of these tests.
const SHORT: Duration = Duration::from_millis(500);

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(3600);

/// A run takes a second or two without a frozen connection. With the component's own timeouts, it
/// would take more than 20 s.
const RECOVERED_WITHIN: Duration = Duration::from_secs(15);

/// The most new connections of HTTP/2 after a freeze, which about 64 requests notice at once. Those
/// that begin before the first new connection has said that it speaks HTTP/2 make their own.
const RECONNECTED_MAX: usize = 32;

/// How long connections stay frozen, and new ones too, when the defaults apply.
const OUTAGE: Duration = Duration::from_secs(70);

/// The longest time of the run with that outage: the last timeout of 20 s may have begun before
/// its end.
const RECOVERED_WITHIN_BY_DEFAULT: Duration = Duration::from_secs(150);

/// Only pings notice that a connection is dead.
const PINGS_ONLY: Liveness = Liveness {
    probe_after: SHORT,
    answer_max: SHORT,
    unacknowledged_max: NEVER,
};

/// Nothing but a request's own timeout notices that a connection is dead.
const NO_PINGS: Liveness = Liveness {
    probe_after: NEVER,
    answer_max: NEVER,
    unacknowledged_max: NEVER,
};

/// A source over TLS and HTTP/2, behind a relay.
struct TlsSource {
    server: TlsServer,
    relay: Relay,
    url: SourceUrl,
    folder: tempfile::TempDir,
}

impl TlsSource {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &["127.0.0.1"]);
        let server =
            TlsServer::start(folder.path(), async |request| good_answer(&request, LINES)).await;
        let relay = Relay::start(server.address()).await;
        let url = format!("https://{}", relay.address());
        Self {
            server,
            relay,
            url: url.parse().expect("a source"),
            folder,
        }
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join(CA_FILE)
    }

    fn assert_is_http2(&self) {
        let versions = self.server.versions();
        assert_eq!(versions.into_iter().collect::<Vec<_>>(), ["HTTP/2.0"]);
    }
}

/// Mirrors a prefix in one invocation whose connections freeze on the way, and expects the tar to be
/// the same, the time to be short and the new connections to be few.
async fn invoke_with_a_freeze(fixture: &Fixture, relay: &Relay) {
    let job = fixture.job(prefix("00")).await;
    let freeze = async {
        relay.until_forwarded(FROZEN_AFTER_BYTES).await;
        relay.freeze();
        (Instant::now(), relay.accepted())
    };
    let (report, (frozen, before)) = tokio::join!(fixture.invoke(job), freeze);
    let (report, elapsed) = (report.expect("a report"), frozen.elapsed());
    assert!(report.retries > 0, "nothing was frozen");
    assert!(elapsed < RECOVERED_WITHIN, "{elapsed:?}");
    let expected = expected_tar("00", |range| body_of(range, LINES));
    assert!(fixture.tar("00") == expected, "the tar differs");
    let connections = relay.accepted() - before;
    measured(&format!(
        "| recovered after {:.1} s | {} retries, {connections} new connections |",
        elapsed.as_secs_f64(),
        report.retries
    ));
    assert!(
        (1..=RECONNECTED_MAX).contains(&connections),
        "{connections} new connections"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_notice_a_dead_connection_of_http2_and_the_invocation_goes_on() {
    let source = TlsSource::start().await;
    let fixture = Fixture::new(&source.url, |settings| {
        settings.ca_file = Some(source.ca_file());
        settings.liveness = PINGS_ONLY;
    })
    .await;
    invoke_with_a_freeze(&fixture, &source.relay).await;
    source.assert_is_http2();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_the_use_of_a_connection_of_http2_and_the_invocation_goes_on() {
    let source = TlsSource::start().await;
    let fixture = Fixture::new(&source.url, |settings| {
        settings.ca_file = Some(source.ca_file());
        settings.liveness = NO_PINGS;
        settings.silence_max = SHORT;
    })
    .await;
    invoke_with_a_freeze(&fixture, &source.relay).await;
    source.assert_is_http2();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_http1_that_died_while_idle_are_not_all_tried_in_turn() {
    let server = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let authority = server.url().authority().as_str();
    let relay = Relay::start(authority.parse().expect("an address")).await;
    let url = format!("http://{}", relay.address());
    let source = url.parse().expect("a source");
    let fixture = Fixture::new(&source, |settings| {
        settings.liveness = NO_PINGS;
        settings.silence_max = SHORT;
    })
    .await;
    // A wide window leaves many idle connections for a narrow one, more than a range has attempts.
    let wide = Job {
        window: Some(64),
        ..fixture.job(prefix("00")).await
    };
    fixture.invoke(wide).await.expect("a report");
    relay.freeze();
    let (frozen, before) = (Instant::now(), relay.accepted());
    let narrow = Job {
        window: Some(2),
        ..fixture.job(prefix("01")).await
    };
    let report = fixture.invoke(narrow).await.expect("a report");
    let elapsed = frozen.elapsed();
    assert!((1..=4).contains(&report.retries), "{}", report.retries);
    assert!(elapsed < RECOVERED_WITHIN, "{elapsed:?}");
    assert!(relay.accepted() > before);
    let expected = expected_tar("01", |range| body_of(range, LINES));
    assert!(fixture.tar("01") == expected, "the tar differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_a_dead_connection_of_http2_is_repeated_over_a_new_one() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let (archive, folder) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    write(folder.path(), &["127.0.0.1"]);
    // The emulator's URL must be known before there is an emulator.
    let emulator = Arc::<OnceLock<Arc<Emulator>>>::default();
    let served = Arc::clone(&emulator);
    let server = TlsServer::start(folder.path(), move |request| {
        let emulator = Arc::clone(served.get().expect("an emulator"));
        async move { emulator.respond(request).await }
    })
    .await;
    let relay = Relay::start(server.address()).await;
    let destination = FolderDestination::open_behind(archive.path(), DEADLINE, |opened| {
        assert!(emulator.set(opened).is_ok());
        Origin::new(true, &relay.address().to_string())
    });
    let destination = Arc::new(destination.await.expect("a destination"));
    let config = run_config(source.url(), archive.path(), "00");
    let environment = vec![
        (SOURCE_URL.to_owned(), source.url().to_string()),
        (SOURCE_ENCODING.to_owned(), "identity".to_owned()),
    ];
    let mut settings = EmbeddedSettings::new(environment, vec![Origin::of_source(source.url())]);
    settings.deadline = DEADLINE;
    settings.ca_file = Some(folder.path().join(CA_FILE));
    settings.liveness = PINGS_ONLY;
    let host = tokio::task::spawn_blocking(move || EmbeddedHost::new(settings)).await;
    let host = Box::new(host.expect("not cancelled").expect("a host"));
    let freeze = async {
        relay.until_forwarded(FROZEN_AFTER_BYTES).await;
        relay.freeze();
        Instant::now()
    };
    let (run, frozen) = tokio::join!(run_on(config, destination, host), freeze);
    let elapsed = frozen.elapsed();
    assert!(run.outcome.is_complete(), "{:?}", run.outcome.failed);
    assert!(elapsed < RECOVERED_WITHIN, "{elapsed:?}");
    let stored = run.outcome.stored.values().next().expect("a prefix");
    assert_eq!((stored.attempts, relay.accepted()), (2, 2));
    let versions = server.versions();
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), ["HTTP/2.0"]);
    let expected = expected_tar("00", |range| body_of(range, LINES));
    assert!(tars_of(archive.path())["00.tar"] == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_posted_to_over_a_new_connection_after_it_did_not_answer() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let (archive, folder) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    write(folder.path(), &["127.0.0.1"]);
    // The component uploads by a socket, like one on another machine.
    let store = listener().await.local_addr().expect("an address");
    let destination = FolderDestination::open_listening(archive.path(), DEADLINE, store);
    let destination = destination.await.expect("a destination");
    let Fixture { mut host, .. } = Fixture::new(source.url(), |_| ()).await;
    host.allow_upload(Origin::new(false, &store.to_string()));
    let host = Arc::new(host);
    let component = Arc::clone(&host);
    let server = TlsServer::start(folder.path(), move |request| {
        let (sender, head) = oneshot::channel();
        tokio::spawn(invoke(Arc::clone(&component), request, sender));
        async move { head.await.unwrap_or_else(|_| internal_error()) }
    })
    .await;
    let relay = Relay::start(server.address()).await;
    let url = format!("https://{}", relay.address());
    let bearer = host.token().expose_bearer();
    let remote = RemoteHost::new(
        vec![url.parse().expect("a URL")],
        &Token::new(bearer["Bearer ".len()..].to_owned()).expect("a token"),
        source.url().clone(),
        DEADLINE,
        Some(&folder.path().join(CA_FILE)),
    );
    let remote = remote.expect("a host").with_timeouts(RemoteTimeouts {
        head: SHORT,
        ..RemoteTimeouts::default()
    });
    let mirror = async |name: &str| {
        let job = Job {
            prefix: prefix(name),
            upload: signed_upload(&destination, prefix(name)).await,
            content_length: None,
            window: None,
            base: None,
            mode: Mode::Sha1,
        };
        remote.invoke(job, &|_| ()).await
    };
    mirror("00").await.expect("a report");
    relay.freeze();
    let failed = mirror("01").await.expect_err("a dead connection").failure;
    assert_eq!(failed.kind, FailureKind::HostUnreachable);
    assert!(
        failed.message.contains("no answer within 0.5 s"),
        "{failed}"
    );
    mirror("01").await.expect("a report");
    assert_eq!(relay.accepted(), 2);
    let versions = server.versions();
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), ["HTTP/2.0"]);
}

/// Runs with the defaults of the command line. When the run is under way, no connection passes
/// anything for 70 s, and those that existed never do again.
async fn run_with_an_outage(what: &str, relay: &Relay, source: &SourceUrl, ca_file: Option<&Path>) {
    let archive = tempfile::tempdir().expect("a folder");
    let mut config = run_config(source, archive.path(), "00-01");
    config.ca_file = ca_file.map(Path::to_owned);
    config.dispatch.first_wait_max = FIRST_WAIT_MAX;
    config.deadline = DEADLINE_DEFAULT;
    let outage = async {
        relay.until_forwarded(FROZEN_AFTER_BYTES).await;
        relay.set_outage(true);
        let began = Instant::now();
        tokio::time::sleep(OUTAGE).await;
        relay.set_outage(false);
        began
    };
    let (run, began) = tokio::join!(run(config), outage);
    let elapsed = began.elapsed();
    assert!(run.outcome.is_complete(), "{:?}", run.outcome.failed);
    let attempts: Vec<u32> = run
        .outcome
        .stored
        .values()
        .map(|stored| stored.attempts)
        .collect();
    measured(&format!(
        "| {what}: nothing passes for {} s | done after {:.1} s | invocations: {attempts:?} |",
        OUTAGE.as_secs(),
        elapsed.as_secs_f64()
    ));
    assert!(elapsed < RECOVERED_WITHIN_BY_DEFAULT, "{elapsed:?}");
    for (name, tar) in tars_of(archive.path()) {
        let expected = expected_tar(&name[..2], |range| body_of(range, LINES));
        assert!(tar == expected, "{name} differs");
    }
    assert_eq!(verified(archive.path()).damages, []);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn a_run_survives_70_s_without_a_network() {
    let tls = TlsSource::start().await;
    let plain = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let authority = plain.url().authority().as_str();
    let relay = Relay::start(authority.parse().expect("an address")).await;
    let url = format!("http://{}", relay.address());
    let url = url.parse().expect("a source");
    let ca_file = tls.ca_file();
    tokio::join!(
        run_with_an_outage("HTTP/2", &tls.relay, &tls.url, Some(&ca_file)),
        run_with_an_outage("HTTP/1.1", &relay, &url, None),
    );
    tls.assert_is_http2();
}
