//! Components that run elsewhere: the same archive, whatever happens to one of them.

use crate::harness::component_server::ComponentServer;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{orchestrator, texts};
use crate::harness::source::listener;
use crate::harness::{DEADLINE, expected_tar, mirror, tars_of};
use orchestrator::dispatch::{Stop, UPDATES_MAX, Update};
use orchestrator::host::embedded::{EmbeddedHost, EmbeddedSettings, Origin};
use orchestrator::mirror::{HostChoice, Mirror, Mirrored, RemoteComponents};
use orchestrator::verify::verify;
use prefix_tar::configuration::{SOURCE_ENCODING, SOURCE_URL};
use prefix_tar::failure::FailureKind;
use prefix_tar::source::SourceUrl;
use prefix_tar::token::Token;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const LINES: u64 = 5;

/// A host of the component, configured as an operator would: for this source, and for this store.
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
    let bearer = host.token().expose_bearer_to_the_wire();
    let token = Token::new(bearer["Bearer ".len()..].to_owned()).expect("a token");
    (Arc::new(host), Arc::new(token))
}

/// A port that nobody has, for a store whose authority has to be known beforehand.
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
) -> Mirror {
    Mirror {
        host: HostChoice::Remote(RemoteComponents {
            components: servers.iter().map(|server| server.url().clone()).collect(),
            token: Arc::clone(token),
            store,
        }),
        ..mirror(source, archive, prefixes)
    }
}

async fn run(mirror: Mirror, on_update: impl FnMut(&Update) + Send + 'static) -> Mirrored {
    let (sender, mut updates) = tokio::sync::mpsc::channel(UPDATES_MAX);
    let mut on_update = on_update;
    let shown = tokio::spawn(async move {
        while let Some(update) = updates.recv().await {
            on_update(&update);
        }
    });
    let mirrored = mirror.run(Stop::default(), sender).await.expect("a run");
    shown.await.expect("shown");
    mirrored
}

fn assert_is_right(archive: &Path, prefixes: usize) {
    let tars = tars_of(archive);
    assert_eq!(tars.len(), prefixes);
    for (name, tar) in tars {
        let expected = expected_tar(&name[..2], |range| body_of(range, LINES));
        assert!(tar == expected, "{name} is another");
    }
    let verdict = verify(archive, &CancellationToken::new(), |_| (), || ());
    assert_eq!(verdict.damages, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_components_share_the_prefixes_and_one_that_dies_half_way_costs_nothing_but_time() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let archive = tempfile::tempdir().expect("a folder");
    let store = free_address().await;
    let (host, token) = host(source.url(), store).await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(ComponentServer::start(Arc::clone(&host)).await);
    }
    let mut mirror = remote(
        source.url(),
        archive.path(),
        "00-0F",
        &servers,
        &token,
        store,
    );
    mirror.settings.parallel = 6;
    let mut victim = servers.remove(1);
    let victim_did = Arc::<std::sync::atomic::AtomicU32>::default();
    let noted = Arc::clone(&victim_did);
    let mut stored = 0;
    let mirrored = run(mirror, move |update| {
        stored += u32::from(matches!(update, Update::Stored(_)));
        if stored == 6 {
            noted.fetch_max(victim.invocations(), std::sync::atomic::Ordering::Relaxed);
            victim.kill();
        }
    })
    .await;
    let outcome = &mirrored.outcome;
    assert!(outcome.is_complete(), "{:?}", outcome.failed);
    assert_is_right(archive.path(), 16);
    assert!(
        victim_did.load(std::sync::atomic::Ordering::Relaxed) >= 2,
        "it had its share"
    );
    assert!(
        servers.iter().all(|server| server.invocations() >= 4),
        "the others had theirs"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_component_elsewhere_refuses_is_said_with_its_url() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = free_address().await;
    let (host, token) = host(source.url(), store).await;
    let servers = [ComponentServer::start(host).await];
    let url = servers[0].url().to_string();
    let other_token = Arc::new(orchestrator::invoke_token::generate().expect("a token"));
    let elsewhere: SourceUrl = "http://127.0.0.1:1".parse().expect("a source");
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
            "may not write to",
        ),
        (
            &elsewhere,
            &token,
            store,
            FailureKind::Configuration,
            "with --source",
        ),
    ] {
        let archive = tempfile::tempdir().expect("a folder");
        let mirrored = run(
            remote(source, archive.path(), "00-0F", &servers, token, store),
            |_| (),
        )
        .await;
        let failed = mirrored.outcome.failed.values().next().expect("a failure");
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
        // One more may have been begun when the first had ranges.
        assert!(mirrored.outcome.not_done.len() >= 14);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_makes_a_token_and_drives_a_component_elsewhere() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let folder = tempfile::tempdir().expect("a folder");
    let store = free_address().await;
    let (host, token) = host(source.url(), store).await;
    let server = ComponentServer::start(host).await;

    let made = orchestrator()
        .args(["token", "--token-file"])
        .arg(folder.path().join("made"))
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&made.stdout).into_owned();
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
