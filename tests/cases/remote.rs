//! Remote components: runs complete even if an endpoint dies, and report what an endpoint refuses.

use crate::harness::component_server::ComponentServer;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{orchestrator, texts};
use crate::harness::source::listener;
use crate::harness::{DEADLINE, expected_tar, run_config, tars_of, verified};
use orchestrator::host::Host as _;
use orchestrator::host::embedded::{EmbeddedHost, EmbeddedSettings};
use orchestrator::origin::Origin;
use orchestrator::run::event::{RUN_EVENTS_MAX, RunEvent};
use orchestrator::run::outcome::FinishedRun;
use orchestrator::run::shutdown::Shutdown;
use orchestrator::run::{HostChoice, RemoteComponents, RunConfig};
use prefix_tar::protocol::configuration::{SOURCE_ENCODING, SOURCE_URL};
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::source::SourceUrl;
use prefix_tar::protocol::token::Token;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

const LINES: u64 = 5;

/// A host as an operator would configure it: for this source and this store.
async fn host(source: &SourceUrl, store: SocketAddr) -> (Arc<EmbeddedHost>, Arc<Token>) {
    let environment = vec![
        (SOURCE_URL.to_owned(), source.to_string()),
        (SOURCE_ENCODING.to_owned(), "identity".to_owned()),
    ];
    let mut settings = EmbeddedSettings::new(environment, vec![Origin::of_source(source)]);
    settings.deadline = DEADLINE;
    let host = tokio::task::spawn_blocking(move || EmbeddedHost::new(settings)).await;
    let mut host = host.expect("not cancelled").expect("a host");
    host.allow_upload(Origin::new(false, &store.to_string()));
    let bearer = host.token().expose_bearer();
    let token = Token::new(bearer["Bearer ".len()..].to_owned()).expect("a token");
    (Arc::new(host), Arc::new(token))
}

/// An unused port, for a store whose authority must be known before it starts.
async fn free_address() -> SocketAddr {
    listener().await.local_addr().expect("an address")
}

fn remote(
    source: &SourceUrl,
    archive: &Path,
    prefixes: &str,
    servers: &[ComponentServer],
    token: &Arc<Token>,
    store: SocketAddr,
) -> RunConfig {
    RunConfig {
        host: HostChoice::Remote(RemoteComponents {
            components: servers.iter().map(|server| server.url().clone()).collect(),
            token: Arc::clone(token),
            store,
        }),
        ..run_config(source, archive, prefixes)
    }
}

async fn run(config: RunConfig, on_event: impl FnMut(&RunEvent) + Send + 'static) -> FinishedRun {
    let (sender, mut received) = tokio::sync::mpsc::channel(RUN_EVENTS_MAX);
    let mut on_event = on_event;
    let reported = tokio::spawn(async move {
        while let Some(event) = received.recv().await {
            on_event(&event);
        }
    });
    let run = config
        .run(Shutdown::default(), sender)
        .await
        .expect("a run");
    reported.await.expect("reported");
    run
}

fn assert_is_right(archive: &Path, prefixes: usize) {
    let tars = tars_of(archive);
    assert_eq!(tars.len(), prefixes);
    for (name, tar) in tars {
        let expected = expected_tar(&name[..2], |range| body_of(range, LINES));
        assert!(tar == expected, "{name} differs");
    }
    let verdict = verified(archive);
    assert_eq!(verdict.damages, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_components_share_the_prefixes_and_the_run_survives_the_death_of_one() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let archive = tempfile::tempdir().expect("a folder");
    let store = free_address().await;
    let (host, token) = host(source.url(), store).await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(ComponentServer::start(Arc::clone(&host)).await);
    }
    let mut config = remote(
        source.url(),
        archive.path(),
        "00-0F",
        &servers,
        &token,
        store,
    );
    config.dispatch.parallel = 6;
    let mut victim = servers.remove(1);
    let victim_invocations = Arc::<std::sync::atomic::AtomicU32>::default();
    let noted = Arc::clone(&victim_invocations);
    let mut stored = 0;
    let run = run(config, move |event| {
        stored += u32::from(matches!(event, RunEvent::Stored(_)));
        if stored == 6 {
            noted.fetch_max(victim.invocations(), std::sync::atomic::Ordering::Relaxed);
            victim.kill();
        }
    })
    .await;
    let outcome = &run.outcome;
    assert!(outcome.is_complete(), "{:?}", outcome.failed);
    assert_is_right(archive.path(), 16);
    assert!(
        victim_invocations.load(std::sync::atomic::Ordering::Relaxed) >= 2,
        "the victim had too few prefixes before it died"
    );
    assert!(
        servers.iter().all(|server| server.invocations() >= 4),
        "another component had too few prefixes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_a_remote_component_is_reported_with_its_url() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = free_address().await;
    let (host, token) = host(source.url(), store).await;
    let servers = [ComponentServer::start(host).await];
    let url = servers[0].url().to_string();
    let other_token = Arc::new(orchestrator::invoke_token::generate().expect("a token"));
    let other_source: SourceUrl = "http://127.0.0.1:1".parse().expect("a source");
    for (source, token, store, kind, message) in [
        (
            source.url(),
            &other_token,
            store,
            FailureKind::Unauthorized,
            "did not admit this token",
        ),
        (
            source.url(),
            &token,
            free_address().await,
            FailureKind::BadJob,
            "may not use",
        ),
        (
            &other_source,
            &token,
            store,
            FailureKind::Configuration,
            "with --source",
        ),
    ] {
        let archive = tempfile::tempdir().expect("a folder");
        let run = run(
            remote(source, archive.path(), "00-0F", &servers, token, store),
            |_| (),
        )
        .await;
        let failed = run.outcome.failed.values().next().expect("a failure");
        assert_eq!(
            (failed.failure.kind, failed.attempts),
            (kind, 1),
            "{}",
            failed.failure
        );
        assert!(
            failed.failure.message.contains(message),
            "{}",
            failed.failure
        );
        assert!(
            failed.failure.message.contains(url.trim_end_matches('/')),
            "{}",
            failed.failure
        );
        // A second prefix may have started when the first received a range.
        assert!(run.outcome.not_done.len() >= 14);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_makes_a_token_and_invokes_a_remote_component() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let folder = tempfile::tempdir().expect("a folder");
    let store = free_address().await;
    let (host, token) = host(source.url(), store).await;
    let server = ComponentServer::start(host).await;

    let made_token = orchestrator()
        .args(["token", "--token-file"])
        .arg(folder.path().join("made"))
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&made_token.stdout).into_owned();
    let digest = orchestrator::invoke_token::read(&folder.path().join("made"))
        .expect("a token")
        .digest();
    assert_eq!(printed, format!("INVOKE_TOKEN_SHA256={digest}\n"));

    let token_file = folder.path().join("token");
    orchestrator::invoke_token::write(&token, &token_file).expect("written");
    let archive = folder.path().join("archive");
    let run = tokio::task::spawn_blocking({
        let (source, url, archive) = (
            source.url().to_string(),
            server.url().to_string(),
            archive.clone(),
        );
        move || {
            orchestrator()
                .args(["run", "-p", "2", "--source", &source, "--component", &url])
                .args(["--store-listen", &store.to_string(), "--token-file"])
                .arg(token_file)
                .arg("--to")
                .arg(archive)
                .output()
                .expect("it runs")
        }
    });
    let output = run.await.expect("ran");
    assert_eq!(output.status.code(), Some(0), "{}", texts(&output));
    assert_is_right(&archive, 2);

    let without = orchestrator()
        .args(["run", "--component", &server.url().to_string(), "--to"])
        .arg(&archive)
        .env_remove("PREFIX_TAR_TOKEN")
        .output()
        .expect("it runs");
    assert_eq!(without.status.code(), Some(1));
    assert!(
        texts(&without).contains("there is no token"),
        "{}",
        texts(&without)
    );
}
