//! Hosts of the component, to run the same cases on each: those that are always there, and those that are where their
//! program is on the PATH.

use super::component_server::ComponentServer;
use super::program::{BackgroundGroup, skipped};
use super::source::listener;
use super::{DEADLINE, repository};
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
    /// Where Spin lets the component write to.
    pub(crate) store_in_manifest: SocketAddr,
    /// Whether the host that drives it has another token than the component admits.
    pub(crate) has_wrong_token: bool,
}

impl Setup {
    pub(crate) fn new(source: &SourceUrl, store: SocketAddr) -> Self {
        Self {
            source: source.clone(),
            store,
            store_in_manifest: store,
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

    /// What a host that is a program of its own has to be told.
    fn outer_environment(&self, token: &Token) -> Vec<(String, String)> {
        let mut environment = self.environment();
        let digest = token.digest().to_string();
        environment.push((INVOKE_TOKEN_SHA256.to_owned(), digest));
        environment.push((UPLOAD_AUTHORITIES.to_owned(), self.store.to_string()));
        environment
    }

    /// A host that is a program of its own, once it listens.
    fn started(
        &self,
        name: &'static str,
        command: &mut Command,
        address: SocketAddr,
        token: &Token,
        folder: tempfile::TempDir,
    ) -> RunningHost {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut group = BackgroundGroup::start(command);
        let since = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = group.leader().try_wait().expect("looked at");
            assert_eq!(ended, None, "{name} ended");
            assert!(since.elapsed() < START_MAX, "{name} does not listen");
            std::thread::yield_now();
        }
        let url = format!("http://{address}").parse().expect("a URL");
        RunningHost {
            name,
            host: self.remote(url, token),
            runs: Runs::Program {
                group,
                _folder: folder,
            },
        }
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
    runs: Runs,
}

/// What has to be held.
enum Runs {
    Here,
    Behind {
        _server: ComponentServer,
    },
    Program {
        group: BackgroundGroup,
        /// What it was started from.
        _folder: tempfile::TempDir,
    },
}

impl RunningHost {
    /// The most memory that the host's own processes have had together, in bytes, where it has some.
    pub(crate) fn process_peak_bytes(&self) -> Option<u64> {
        let Runs::Program { group, .. } = &self.runs else {
            return None;
        };
        let group = group.id().to_string();
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let peaks = processes.filter_map(|process| {
            let read = |name: &str| std::fs::read_to_string(process.path().join(name)).ok();
            // The fields after the name, which is in parentheses: state, parent, group.
            let stat = read("stat")?;
            let (_, fields) = stat.rsplit_once(") ")?;
            if fields.split(' ').nth(2)? != group {
                return None;
            }
            let status = read("status")?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        Some(peaks.sum::<u64>() * 1024)
    }
}

/// Every host that can be had, with a component that is set up so. The embedded one has no door to knock at with a
/// wrong token.
pub(crate) async fn every_host(setup: &Setup) -> Vec<RunningHost> {
    let mut hosts = Vec::new();
    if !setup.has_wrong_token {
        hosts.push(RunningHost {
            name: "embedded",
            host: Arc::new(setup.embedded().await),
            runs: Runs::Here,
        });
    }
    let embedded = Arc::new(setup.embedded().await);
    let bearer = embedded.token().expose_bearer_to_the_wire();
    let token = Token::new(bearer["Bearer ".len()..].to_owned()).expect("a token");
    let server = ComponentServer::start(embedded).await;
    hosts.push(RunningHost {
        name: "embedded, behind a socket",
        host: setup.remote(server.url().clone(), &token),
        runs: Runs::Behind { _server: server },
    });
    hosts.extend(wasmtime_serve(setup).await);
    hosts.extend(spin_up(setup).await);
    hosts
}

/// `wasmtime serve`, or nothing and a word about it where it is not on the PATH.
async fn wasmtime_serve(setup: &Setup) -> Option<RunningHost> {
    if !says_its_version("wasmtime", &["wasmtime "]) {
        skipped(
            "wasmtime is not on the PATH (cargo install wasmtime-cli --version 48.0.8 --locked)",
        );
        return None;
    }
    let token = orchestrator::invoke_token::generate().expect("a token");
    let address = listener().await.local_addr().expect("an address");
    let folder = tempfile::tempdir().expect("a folder");
    let component = folder.path().join("prefix_tar.wasm");
    std::fs::write(&component, bundled_component()).expect("written");
    let mut command = Command::new("wasmtime");
    command
        .args(["serve", "-S", "cli", "--addr", &address.to_string()])
        // Not every build has the pooling allocator, and it makes no difference here.
        .args(["-O", "pooling-allocator=n"])
        .arg(format!(
            "-Wmax-memory-size={}",
            setup.linear_memory_bytes_max
        ));
    for (name, value) in setup.outer_environment(&token) {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    command.arg(component);
    Some(setup.started("wasmtime serve", &mut command, address, &token, folder))
}

/// `spin up` with the manifest that ships, or nothing and a word about it where Spin is not on the PATH. Another program
/// is called spin, too.
pub(crate) async fn spin_up(setup: &Setup) -> Option<RunningHost> {
    if !says_its_version("spin", &["spin 3.", "spin 4."]) {
        skipped("Spin 3 or 4 is not on the PATH");
        return None;
    }
    let token = orchestrator::invoke_token::generate().expect("a token");
    let address = listener().await.local_addr().expect("an address");
    // A folder of its own: Spin also reads what lies around a manifest.
    let folder = tempfile::tempdir().expect("a folder");
    let component = folder.path().join("target/wasm32-wasip2/component");
    std::fs::create_dir_all(&component).expect("a folder");
    std::fs::write(component.join("prefix_tar.wasm"), bundled_component()).expect("written");
    std::fs::copy(
        repository().join("spin.toml"),
        folder.path().join("spin.toml"),
    )
    .expect("copied");
    let mut command = Command::new("spin");
    command
        .current_dir(folder.path())
        .args(["up", "--state-dir", "", "--listen", &address.to_string()])
        .env("SPIN_VARIABLE_SOURCE_ORIGIN", setup.source.to_string())
        .env(
            "SPIN_VARIABLE_STORE_ORIGIN",
            format!("http://{}", setup.store_in_manifest),
        )
        .env(
            "SPIN_MAX_INSTANCE_MEMORY",
            setup.linear_memory_bytes_max.to_string(),
        );
    for (name, value) in setup.outer_environment(&token) {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    Some(setup.started("spin up", &mut command, address, &token, folder))
}

/// Whether a program is there and tells a version that begins so.
fn says_its_version(program: &str, beginnings: &[&str]) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|version| {
        let told = String::from_utf8_lossy(&version.stdout).into_owned();
        beginnings
            .iter()
            .any(|beginning| told.starts_with(beginning))
    })
}
