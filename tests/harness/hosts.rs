//! Hosts of the component, to run the same cases on each: those that are always there, and those that are where their
//! program is on the PATH.

use super::DEADLINE;
use super::component_server::ComponentServer;
use super::program::{Background, skipped};
use super::source::listener;
use orchestrator::host::Host;
use orchestrator::host::embedded::{EmbeddedHost, EmbeddedSettings, Origin, bundled_component};
use orchestrator::host::remote::{ComponentUrl, RemoteHost};
use prefix_tar::configuration::{
    INVOKE_TOKEN_SHA256, SOURCE_ENCODING, SOURCE_URL, UPLOAD_AUTHORITIES,
};
use prefix_tar::limits::LINEAR_MEMORY_BYTES_MAX;
use prefix_tar::source::SourceUrl;
use prefix_tar::token::Token;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a host may take to listen: it compiles the component.
const START_MAX: Duration = Duration::from_secs(60);

/// How a component is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) source: SourceUrl,
    /// Where uploads may go.
    pub(crate) store: SocketAddr,
    pub(crate) linear_memory_bytes_max: usize,
    /// Whether the host that drives it has another token than the component admits.
    pub(crate) has_wrong_token: bool,
}

impl Setup {
    pub(crate) fn new(source: &SourceUrl, store: SocketAddr) -> Self {
        Self {
            source: source.clone(),
            store,
            linear_memory_bytes_max: LINEAR_MEMORY_BYTES_MAX,
            has_wrong_token: false,
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        vec![
            (SOURCE_URL.to_owned(), self.source.to_string()),
            (SOURCE_ENCODING.to_owned(), "identity".to_owned()),
        ]
    }

    async fn embedded(&self) -> EmbeddedHost {
        let origins = vec![Origin::of_source(&self.source)];
        let mut settings = EmbeddedSettings::new(self.environment(), origins);
        settings.deadline = DEADLINE;
        settings.linear_memory_bytes_max = self.linear_memory_bytes_max;
        let host = tokio::task::spawn_blocking(move || EmbeddedHost::new(settings)).await;
        let mut host = host.expect("not cancelled").expect("a host");
        host.allow_upload(Origin::new(false, &self.store.to_string()));
        host
    }

    fn remote(&self, url: ComponentUrl, token: &Token) -> Arc<dyn Host> {
        let other = orchestrator::invoke_token::generate().expect("a token");
        let token = if self.has_wrong_token { &other } else { token };
        let host = RemoteHost::new(vec![url], token, self.source.clone(), DEADLINE, None);
        Arc::new(host.expect("a host"))
    }
}

/// A host that runs, for as long as this is held.
pub(crate) struct RunningHost {
    pub(crate) name: &'static str,
    pub(crate) host: Arc<dyn Host>,
    _server: Option<ComponentServer>,
    _process: Option<Background>,
}

/// Every host that can be had, with a component that is set up so. The embedded one has no door to knock at with a
/// wrong token.
pub(crate) async fn every_host(setup: &Setup) -> Vec<RunningHost> {
    let mut hosts = Vec::new();
    if !setup.has_wrong_token {
        hosts.push(RunningHost {
            name: "embedded",
            host: Arc::new(setup.embedded().await),
            _server: None,
            _process: None,
        });
    }
    let embedded = Arc::new(setup.embedded().await);
    let bearer = embedded.token().expose_bearer_to_the_wire();
    let token = Token::new(bearer["Bearer ".len()..].to_owned()).expect("a token");
    let server = ComponentServer::start(embedded).await;
    hosts.push(RunningHost {
        name: "embedded, behind a socket",
        host: setup.remote(server.url().clone(), &token),
        _server: Some(server),
        _process: None,
    });
    hosts.extend(wasmtime_serve(setup).await);
    hosts
}

/// `wasmtime serve`, or nothing and a word about it where it is not on the PATH.
async fn wasmtime_serve(setup: &Setup) -> Option<RunningHost> {
    let version = Command::new("wasmtime").arg("--version").output();
    if !version.is_ok_and(|version| version.stdout.starts_with(b"wasmtime ")) {
        skipped(
            "wasmtime is not on the PATH (cargo install wasmtime-cli --version 48.0.8 --locked)",
        );
        return None;
    }
    let token = orchestrator::invoke_token::generate().expect("a token");
    let address = listener().await.local_addr().expect("an address");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bundled_component()).expect("written");
    let mut command = Command::new("wasmtime");
    command
        .args(["serve", "-S", "cli", "--addr", &address.to_string()])
        // Not every build has the pooling allocator, and it makes no difference here.
        .args(["-O", "pooling-allocator=n"])
        .arg(format!(
            "-Wmax-memory-size={}",
            setup.linear_memory_bytes_max
        ))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let digest = token.digest().to_string();
    let mut environment = setup.environment();
    environment.push((INVOKE_TOKEN_SHA256.to_owned(), digest));
    environment.push((UPLOAD_AUTHORITIES.to_owned(), setup.store.to_string()));
    for (name, value) in environment {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    let mut process = Background(command.arg(file.path()).spawn().expect("it starts"));
    let since = Instant::now();
    while TcpStream::connect(address).is_err() {
        let ended = process.0.try_wait().expect("looked at");
        assert_eq!(ended, None, "wasmtime serve ended");
        assert!(
            since.elapsed() < START_MAX,
            "wasmtime serve does not listen"
        );
        std::thread::yield_now();
    }
    let url = format!("http://{address}").parse().expect("a URL");
    Some(RunningHost {
        name: "wasmtime serve",
        host: setup.remote(url, &token),
        _server: None,
        _process: Some(process),
    })
}
