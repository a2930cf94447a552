//! A proxy that is tinyproxy, an independent server.

use crate::Test;
use crate::harness::certificates::{CA_FILE, write};
use crate::harness::expected_tar;
use crate::harness::faulty_source::{FaultySource, body_of, good_answer};
use crate::harness::program::{Background, output, texts};
use crate::harness::store_program::StoreProgram;
use crate::harness::tls_server::TlsServer;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long tinyproxy may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// Lines of a range. Few, because only the way of the requests matters.
const LINES: u64 = 5;

const PATH: &str = "archive";

/// What precedes the host in the variable. tinyproxy's configuration knows only letters and digits in a password.
const USER_INFORMATION: &str = "mirror:5ec4e7@";

pub(crate) fn tests() -> Vec<Test> {
    let is_installed = Command::new("tinyproxy").arg("-v").output().is_ok();
    let missing =
        (!is_installed).then_some("tinyproxy is not installed (Debian: apt-get install tinyproxy)");
    vec![
        Test::new(
            "a_run_into_a_bucket_mirrors_a_source_over_tls_through_tinyproxy",
            missing,
            a_run_into_a_bucket_mirrors_a_source_over_tls_through_tinyproxy,
        ),
        Test::new(
            "a_run_into_a_bucket_mirrors_a_plain_source_through_tinyproxy",
            missing,
            a_run_into_a_bucket_mirrors_a_plain_source_through_tinyproxy,
        ),
    ]
}

/// tinyproxy on loopback. It stops when dropped.
struct Tinyproxy {
    _process: Background,
    folder: tempfile::TempDir,
    port: u16,
}

impl Tinyproxy {
    /// Starts a tinyproxy that wants the tests' credentials, and waits until it listens.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // tinyproxy cannot report a port that the system chose, so a free one is found first.
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let log = folder.path().join("log");
        let configuration = folder.path().join("tinyproxy.conf");
        // Without ConnectPort, it connects to every port.
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 500\nBasicAuth mirror 5ec4e7\n\
             LogLevel Connect\nLogFile \"{}\"\nPidFile \"{}\"\n",
            log.display(),
            folder.path().join("pid").display()
        );
        std::fs::write(&configuration, text).expect("a written configuration");
        let process = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(&configuration)
            .spawn()
            .expect("tinyproxy to start");
        let tinyproxy = Self {
            _process: Background(process),
            folder,
            port,
        };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = tinyproxy.log();
            assert!(
                since.elapsed() < START_MAX,
                "tinyproxy did not listen within {START_MAX:?}; its log: {log}"
            );
            std::thread::yield_now();
        }
        tinyproxy
    }

    fn url(&self, user_information: &str) -> String {
        format!("http://{user_information}127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How many requests began like this.
    fn requests(&self, beginning: &str) -> usize {
        let log = self.log();
        let requests = log.lines().filter_map(|line| line.split_once("): "));
        let requests = requests.filter(|(_, request)| request.starts_with(beginning));
        requests.count()
    }
}

/// Runs into a bucket with a command that `change` has changed, and expects the tar to be whole.
async fn mirrors(store: &StoreProgram, source: &str, change: impl FnOnce(&mut Command)) {
    let mut command = store.command(&["run", "-p", "1", "--source", source, "--to"], PATH);
    change(&mut command);
    let output = output(command).await;
    assert!(output.status.success(), "{}", texts(&output));
    let tar = std::fs::read(store.archive(PATH).join("00.tar")).expect("a tar");
    assert!(
        tar == expected_tar("00", |range| body_of(range, LINES)),
        "another tar"
    );
}

async fn a_run_into_a_bucket_mirrors_a_source_over_tls_through_tinyproxy() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &["localhost"]);
    let server =
        TlsServer::start(folder.path(), async |request| good_answer(&request, LINES)).await;
    let target = format!("localhost:{}", server.address().port());
    let source = format!("https://{target}");
    let (proxy, store) = (Tinyproxy::start(), StoreProgram::start());
    let ca_file = folder.path().join(CA_FILE);

    let mut command = store.command(&["run", "-p", "1", "--source", &source, "--to"], PATH);
    command.env("HTTPS_PROXY", proxy.url(""));
    command.arg("--ca-file").arg(&ca_file);
    let refused = output(command).await;
    let printed = texts(&refused);
    assert_eq!(refused.status.code(), Some(1), "{printed}");
    let printed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = format!("answered 407 to CONNECT {target}; HTTPS_PROXY may be http://USER:");
    assert!(printed.contains(&reason), "{printed}");

    let before = proxy.requests("CONNECT ");
    mirrors(&store, &source, |command| {
        let url = proxy.url(USER_INFORMATION);
        command.arg("--ca-file").arg(&ca_file);
        command.env("HTTPS_PROXY", &url).env("HTTP_PROXY", &url);
    })
    .await;
    let log = proxy.log();
    let tunnels = proxy.requests(&format!("CONNECT {target} ")) - before;
    assert!((1..200).contains(&tunnels), "{tunnels} tunnels: {log}");
    // The store on loopback is reached directly.
    assert!(!log.contains(store.address()), "{log}");
    assert!(server.versions().contains("HTTP/2.0"));
}

async fn a_run_into_a_bucket_mirrors_a_plain_source_through_tinyproxy() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let (proxy, store) = (Tinyproxy::start(), StoreProgram::start());
    let url = source.url().to_string();
    mirrors(&store, &url, |command| {
        command.env("HTTP_PROXY", proxy.url(USER_INFORMATION));
    })
    .await;
    let requests = proxy.requests(&format!("GET {url}/range/"));
    assert!(requests >= 4096, "{requests} requests");
    assert!(!proxy.log().contains(store.address()));
}
