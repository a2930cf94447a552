//! Requests go through the proxies that the environment names, as curl's do, and show nobody their credentials.

use crate::harness::certificates::{CA_FILE, write};
use crate::harness::faulty_source::{FaultySource, body_of, good_answer};
use crate::harness::google::{Google, METADATA_TOKEN};
use crate::harness::program::{orchestrator, output, succeeds, texts};
use crate::harness::proxy::{CREDENTIALS, CREDENTIALS_IN_URL, Proxy};
use crate::harness::source::listener;
use crate::harness::store_program::StoreProgram;
use crate::harness::tls_server::{TlsServer, acceptor};
use crate::harness::{expected_tar, tars_of};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{Response, StatusCode};
use http_body_util::Full;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const LINES: u64 = 5;
const PATH: &str = "archive";

/// A host that only the proxy finds.
const SOURCE: &str = "source.example";

/// Connections that a run may open for the 4,096 requests of a prefix: one per request in the window, twice if all of
/// them race with one that becomes idle, and a few.
const CONNECTIONS_MAX: usize = 150;

/// A source behind TLS, and the folder with its CA file.
struct TlsSource {
    server: TlsServer,
    folder: tempfile::TempDir,
}

impl TlsSource {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &[SOURCE]);
        let server =
            TlsServer::start(folder.path(), async |request| good_answer(&request, LINES)).await;
        Self { server, folder }
    }

    fn target(&self) -> String {
        format!("{SOURCE}:{}", self.server.address().port())
    }

    /// A run that mirrors a prefix into `archive`, and trusts the source.
    fn run(&self, archive: &Path) -> Command {
        let source = format!("https://{}", self.target());
        let mut command = run(&source, archive);
        command
            .arg("--ca-file")
            .arg(self.folder.path().join(CA_FILE));
        command
    }

    /// Looks a hash up that the source does not have.
    async fn check(&self, variables: &[(&str, &str)]) -> Output {
        let mut command = orchestrator();
        command
            .args(["check", "--hash"])
            .arg(format!("https://{}", self.target()))
            .arg("--ca-file")
            .arg(self.folder.path().join(CA_FILE))
            .stdin(hash());
        command.envs(variables.iter().copied());
        output(command).await
    }
}

/// A hash to look up.
fn hash() -> Stdio {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut writer, &[b'0'; 40]).expect("written");
    reader.into()
}

fn run(source: &str, archive: &Path) -> Command {
    let mut command = orchestrator();
    command
        .args(["run", "--prefixes", "00", "--source", source, "--to"])
        .arg(archive);
    command
}

fn assert_is_whole(output: &Output, archive: &Path) {
    assert!(output.status.success(), "{}", texts(output));
    let expected = expected_tar("00", |range| body_of(range, LINES));
    assert!(tars_of(archive)["00.tar"] == expected, "another tar");
}

/// Expects the program to fail with this exit code and to say this, and nothing that is secret.
fn assert_fails(output: &Output, exit_code: i32, words: &[&str]) {
    let texts = texts(output);
    assert_eq!(output.status.code(), Some(exit_code), "{texts}");
    // The messages may be wrapped.
    let unwrapped = texts.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in words {
        assert!(unwrapped.contains(words), "{words:?} is not in: {texts}");
    }
    assert_shows_no_credentials(&texts);
}

fn assert_shows_no_credentials(texts: &str) {
    let encoded = BASE64_STANDARD.encode(CREDENTIALS);
    for secret in [&encoded, CREDENTIALS, CREDENTIALS_IN_URL, "5ec4e7"] {
        let shown = texts.lines().find(|line| line.contains(secret));
        assert_eq!(shown, None, "{secret} is shown");
    }
}

fn only(target: &str) -> BTreeSet<String> {
    BTreeSet::from([target.to_owned()])
}

/// A proxy that is not running. Its port is kept from others.
struct Dead(TcpSocket);

impl Dead {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(address).expect("a free port");
        Self(socket)
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("an address"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_over_tls_is_reached_through_tunnels_that_are_pooled() {
    let source = TlsSource::start().await;
    let proxy = Proxy::with_credentials().await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut command = source.run(archive.path());
    command
        .env("HTTPS_PROXY", proxy.url_with_credentials())
        .env("PREFIX_TAR_LOG", "trace");
    let output = output(command).await;
    assert_is_whole(&output, archive.path());
    let seen = proxy.seen();
    assert_eq!(seen.targets, only(&source.target()));
    assert!((1..CONNECTIONS_MAX).contains(&seen.tunnels), "{seen:?}");
    assert_eq!((seen.forwarded, seen.refused), (0, 0), "{seen:?}");
    let versions = source.server.versions();
    assert!(versions.contains("HTTP/2.0"), "{versions:?}");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("opened a tunnel"), "it was at trace level");
    assert_shows_no_credentials(&texts(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_source_is_reached_by_requests_to_the_proxy() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let address = source.url().authority().to_string();
    let port = address.rsplit_once(':').expect("a port").1;
    let target = format!("{SOURCE}:{port}");
    let proxy = Proxy::with_credentials().await;
    let dead = Dead::new();
    let archive = tempfile::tempdir().expect("a folder");
    let mut command = run(&format!("http://{target}"), archive.path());
    command
        .env("http_proxy", proxy.url_with_credentials())
        .env("HTTP_PROXY", dead.url())
        .env("PREFIX_TAR_LOG", "trace");
    let whole = output(command).await;
    assert_is_whole(&whole, archive.path());
    assert_shows_no_credentials(&texts(&whole));
    let seen = proxy.seen();
    assert_eq!(seen.targets, only(&target));
    assert!(seen.forwarded >= 4096, "{seen:?}");
    assert!(seen.connections < CONNECTIONS_MAX, "{seen:?}");

    let archive = tempfile::tempdir().expect("a folder");
    let mut command = run(&format!("http://{target}"), archive.path());
    command.env("HTTP_PROXY", proxy.url());
    let hint = "answered 407; a proxy wants credentials";
    assert_fails(&output(command).await, 1, &[hint]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_wants_other_credentials_ends_a_run_with_the_reason() {
    let source = TlsSource::start().await;
    let proxy = Proxy::with_credentials().await;
    let wrong = proxy.url().replace("http://", "http://mirror:5ec4e70@");
    for (value, hint) in [
        (
            proxy.url(),
            "HTTPS_PROXY may be http://USER:PASSWORD@HOST:PORT",
        ),
        (wrong, "it does not accept the credentials in HTTPS_PROXY"),
    ] {
        let archive = tempfile::tempdir().expect("a folder");
        let mut command = source.run(archive.path());
        command
            .env("HTTPS_PROXY", &value)
            .env("PREFIX_TAR_LOG", "trace");
        let (url, target) = (proxy.url(), source.target());
        let reason =
            format!("the proxy {url} (HTTPS_PROXY) answered 407 to CONNECT {target}; {hint}");
        assert_fails(&output(command).await, 1, &[&reason]);
        assert!(tars_of(archive.path()).is_empty());
        let refused = source.check(&[("HTTPS_PROXY", &value)]).await;
        assert_fails(&refused, 3, &[&reason]);
    }
    assert_eq!(proxy.seen().tunnels, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cannot_help_is_named_after_a_few_attempts() {
    let source = TlsSource::start().await;
    for (status, attempts, hint) in [
        (
            StatusCode::FORBIDDEN,
            1,
            "it may not permit this host or port",
        ),
        (StatusCode::BAD_GATEWAY, 3, "it may not reach this host"),
    ] {
        let proxy = Proxy::answering(status).await;
        let (url, target) = (proxy.url(), source.target());
        let refused = source.check(&[("ALL_PROXY", &url)]).await;
        let status = status.as_u16();
        let reason = format!("the proxy {url} (ALL_PROXY) answered {status} to CONNECT {target}");
        assert_fails(&refused, 3, &[&reason, hint]);
        assert_eq!(proxy.seen().refused, attempts);
    }
    let dead = Dead::new();
    let url = dead.url();
    let reason = format!("the proxy {url} (https_proxy) cannot be reached: Connection refused");
    let refused = source.check(&[("https_proxy", &url)]).await;
    assert_fails(&refused, 3, &[&reason]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_in_no_proxy_and_our_own_store_are_reached_directly() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let source = source.url().to_string();
    let (proxy, store) = (Proxy::start().await, StoreProgram::start());
    // An explicit source goes through the proxy as with curl, also on loopback, unless NO_PROXY has it.
    let mut command = store.command(&["run", "-p", "1", "--source", &source, "--to"], PATH);
    command.env("ALL_PROXY", proxy.url());
    let through = output(command).await;
    assert_is_whole(&through, &store.archive(PATH));
    let seen = proxy.seen();
    let target = source.trim_start_matches("http://");
    assert_eq!(seen.targets, only(target), "the store is reached directly");

    let dead = Dead::new();
    let mut command = store.command(&["verify"], PATH);
    command.env("ALL_PROXY", dead.url());
    let verified = output(command).await;
    assert!(verified.status.success(), "{}", texts(&verified));
    for (exempt, is_reached) in [("10.0.0.0/8,127.0.0.0/8", true), ("a.example", false)] {
        let archive = tempfile::tempdir().expect("a folder");
        let mut command = orchestrator();
        command
            .args(["check", "--hash", &source])
            .stdin(hash())
            .env("http_proxy", dead.url())
            .env("NO_PROXY", exempt);
        let checked = output(command).await;
        assert_eq!(checked.status.success(), is_reached, "{}", texts(&checked));
        if is_reached {
            let mut command = run(&source, archive.path());
            command
                .env("HTTP_PROXY", dead.url())
                .env("no_proxy", exempt);
            assert_is_whole(&output(command).await, archive.path());
        }
    }
}

/// Takes TLS off connections and passes them on to a store. It ends when it is dropped.
async fn tls_in_front_of(store: SocketAddr, folder: &Path) -> (SocketAddr, JoinSet<()>) {
    let acceptor = acceptor(folder, &[b"http/1.1"]);
    let listening = listener().await;
    let address = listening.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listening.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let mut near = acceptor.accept(stream).await?;
                let mut far = TcpStream::connect(store).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (address, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_written_and_read_through_tunnels() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let (proxy, store) = (Proxy::with_credentials().await, StoreProgram::start());
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &["store.example"]);
    let address = store.address().parse().expect("an address");
    let (address, _tasks) = tls_in_front_of(address, folder.path()).await;
    let target = format!("store.example:{}", address.port());
    let endpoint = format!("https://{target}");
    let source = source.url().to_string();
    for arguments in [
        &["run", "-p", "1", "--source", &source, "--to"][..],
        &["verify"],
    ] {
        let mut command = store.command(arguments, PATH);
        command
            .args(["--endpoint", &endpoint, "--ca-file"])
            .arg(folder.path().join(CA_FILE))
            .env("HTTPS_PROXY", proxy.url_with_credentials());
        assert_is_whole(&output(command).await, &store.archive(PATH));
    }
    let seen = proxy.seen();
    assert_eq!(seen.targets, only(&target));
    assert!(
        seen.tunnels > 1,
        "the component and the orchestrator: {seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_services_are_reached_through_tunnels_and_the_metadata_server_directly() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let (proxy, store) = (Proxy::start().await, StoreProgram::start());
    let google = Google::start(&store.key_file(), &[METADATA_TOKEN]).await;
    let source = source.url().to_string();
    let mut command = store.command(&["run", "-p", "1", "--source", &source, "--to"], PATH);
    google.configure(&mut command);
    let (base, dead) = (google.named_base(), Dead::new());
    command
        .env("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS", &base)
        .env("HTTPS_PROXY", proxy.url())
        .env("HTTP_PROXY", dead.url())
        .env("NO_PROXY", "127.0.0.1");
    assert_is_whole(&output(command).await, &store.archive(PATH));
    let target = base.trim_start_matches("https://").trim_end_matches('/');
    assert_eq!(proxy.seen().targets, only(target));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_elsewhere_is_invoked_through_a_tunnel() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &["component.example"]);
    let server = TlsServer::start(folder.path(), async |_| {
        let mut response = Response::new(Full::<bytes::Bytes>::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
    .await;
    let target = format!("component.example:{}", server.address().port());
    let token = folder.path().join("token");
    let program = orchestrator();
    let program = program.get_program().to_str().expect("a path");
    succeeds(
        program,
        &["token".as_ref(), "--token-file".as_ref(), token.as_os_str()],
    );
    let proxy = Proxy::start().await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut command = run("https://source.example", archive.path());
    command
        .args(["--component", &format!("https://{target}"), "--ca-file"])
        .arg(folder.path().join(CA_FILE))
        .args(["--store-listen", "127.0.0.1:0", "--token-file"])
        .arg(&token)
        .env("HTTPS_PROXY", proxy.url());
    let answered = format!("POST to https://{target}/ was answered 404 Not Found");
    assert_fails(&output(command).await, 1, &[&answered]);
    assert_eq!(proxy.seen().targets, only(&target));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_names_no_usable_proxy_is_a_usage_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive");
    let source = "https://source.example";
    for (variable, value, reason) in [
        (
            "HTTPS_PROXY",
            "socks5://mirror:5ec4e7@127.0.0.1:1080",
            "its scheme is socks5, and only proxies over http are supported",
        ),
        (
            "all_proxy",
            "http://mirror:5ec4e7@proxy.example:port",
            "it is not of the form http://HOST:PORT or http://USER:PASSWORD@HOST:PORT",
        ),
    ] {
        let mut check = orchestrator();
        check.args(["check", "--hash", source]).stdin(hash());
        let mut verify = orchestrator();
        verify.args(["verify", "gs://bucket/archive"]);
        for mut command in [run(source, &archive), check, verify] {
            command
                .env(variable, value)
                .env_remove("GOOGLE_APPLICATION_CREDENTIALS")
                .env("PREFIX_TAR_LOG", "trace");
            let message = format!("error: {variable} is not usable: {reason}");
            assert_fails(&output(command).await, 2, &[&message]);
        }
    }
    // What needs no network does not mind.
    let mut command = orchestrator();
    command
        .args(["completions", "bash"])
        .env("HTTPS_PROXY", "socks5://127.0.0.1:1080");
    assert!(output(command).await.status.success());
}
