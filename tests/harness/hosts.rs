//! Starts hosts of the component, so that the same tests run on each.
//!
//! The embedded host is always available. Others require their program on the PATH.

use super::component_server::ComponentServer;
use super::program::BackgroundGroup;
use super::source::listener;
use super::{DEADLINE, repository};
use orchestrator::host::Host;
use orchestrator::host::embedded::{EmbeddedHost, EmbeddedSettings, bundled_component};
use orchestrator::host::remote::{ComponentUrl, RemoteHost};
use orchestrator::origin::Origin;
use prefix_tar::limits::LINEAR_MEMORY_BYTES_MAX;
use prefix_tar::protocol::configuration::{
    HOST_CHECKS_FRAMING, INVOKE_TOKEN_SHA256, SOURCE_ENCODING, SOURCE_URL, UPLOAD_AUTHORITIES,
};
use prefix_tar::protocol::source::SourceUrl;
use prefix_tar::protocol::token::Token;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a host may take until it listens. It first compiles the component.
const START_MAX: Duration = Duration::from_secs(60);

/// A host of the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKind {
    /// In the test's process.
    Embedded,
    /// In the test's process, behind a socket.
    Socket,
    /// `wasmtime serve`.
    Wasmtime,
    /// `spin up` with the shipped manifest.
    Spin,
}

impl HostKind {
    pub(crate) const ALL: [Self; 4] = [Self::Embedded, Self::Socket, Self::Wasmtime, Self::Spin];

    /// The name in tests and tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Socket => "socket",
            Self::Wasmtime => "wasmtime",
            Self::Spin => "spin",
        }
    }

    /// What has to be installed to start this host. `None` if nothing is missing.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let (is_available, missing) = match self {
            Self::Embedded | Self::Socket => return None,
            Self::Wasmtime => (
                has_version("wasmtime", &["wasmtime "]),
                "wasmtime is not on the PATH (cargo install wasmtime-cli --version 48.0.8 --locked)",
            ),
            // Other programs are named `spin`, too, so the version is checked.
            Self::Spin => (
                has_version("spin", &["spin 3.", "spin 4."]),
                "Spin 3 or 4 is not on the PATH (https://spinframework.dev/install)",
            ),
        };
        (!is_available).then_some(missing)
    }

    /// Starts the host.
    pub(crate) async fn start(self, setup: &Setup) -> RunningHost {
        match self {
            Self::Embedded => RunningHost {
                host: Arc::new(setup.embedded().await),
                process: HostProcess::Embedded,
            },
            Self::Socket => behind_a_socket(setup).await,
            Self::Wasmtime => wasmtime_serve(setup).await,
            Self::Spin => spin_up(setup).await,
        }
    }
}

/// The configuration of a component and its host.
#[derive(Clone)]
pub(crate) struct Setup {
    /// The source that the component reads.
    pub(crate) source: SourceUrl,
    /// The only address to which the component may upload.
    pub(crate) store: SocketAddr,
    /// The host's limit on the component's linear memory, in bytes.
    pub(crate) linear_memory_bytes_max: usize,
    /// The store's address in the Spin manifest. Spin lets the component upload nowhere else.
    pub(crate) store_in_manifest: SocketAddr,
    /// Whether invocations carry another token than the component accepts. The embedded host has a token of its own,
    /// so this does not apply to it.
    pub(crate) has_wrong_token: bool,
    /// Whether the component must not rely on what the embedded host says about framing. No other
    /// host says anything.
    pub(crate) ignores_framing: bool,
}

impl Setup {
    /// A valid configuration for this source and store.
    pub(crate) fn new(source: &SourceUrl, store: SocketAddr) -> Self {
        Self {
            source: source.clone(),
            store,
            store_in_manifest: store,
            linear_memory_bytes_max: LINEAR_MEMORY_BYTES_MAX,
            has_wrong_token: false,
            ignores_framing: false,
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![
            (SOURCE_URL.to_owned(), self.source.to_string()),
            (SOURCE_ENCODING.to_owned(), "identity".to_owned()),
        ];
        if self.ignores_framing {
            environment.push((HOST_CHECKS_FRAMING.to_owned(), "false".to_owned()));
        }
        environment
    }

    /// The component's environment on a host that runs as its own program.
    fn program_environment(&self, token: &Token) -> Vec<(String, String)> {
        let mut environment = self.environment();
        let digest = token.digest().to_string();
        environment.push((INVOKE_TOKEN_SHA256.to_owned(), digest));
        environment.push((UPLOAD_AUTHORITIES.to_owned(), self.store.to_string()));
        environment
    }

    /// Starts a host's program and waits until it listens.
    fn start_program(
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
            let ended = group.leader().try_wait().expect("a process status");
            assert_eq!(ended, None, "{name} exited before it listened");
            assert!(
                since.elapsed() < START_MAX,
                "{name} did not listen within {START_MAX:?}"
            );
            std::thread::yield_now();
        }
        let url = format!("http://{address}").parse().expect("a URL");
        RunningHost {
            host: self.remote(url, token),
            process: HostProcess::Program {
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
        let host = host.expect("a host that started without panicking");
        let mut host = host.expect("a host");
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

/// A running host. It stops when this is dropped.
pub(crate) struct RunningHost {
    /// Invokes the component on this host.
    pub(crate) host: Arc<dyn Host>,
    process: HostProcess,
}

/// Where a host runs, and what keeps it running.
enum HostProcess {
    /// In the test's process.
    Embedded,
    /// In the test's process, behind a socket.
    Server { _server: ComponentServer },
    /// In its own processes.
    Program {
        group: BackgroundGroup,
        /// Holds the files that the program uses.
        _folder: tempfile::TempDir,
    },
}

impl RunningHost {
    /// The sum of the peak memory of the host's processes, in bytes. `None` if the host runs in the
    /// test's process.
    pub(crate) fn process_peak_bytes(&self) -> Option<u64> {
        let HostProcess::Program { group, .. } = &self.process else {
            return None;
        };
        let group = group.id().to_string();
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let peaks = processes.filter_map(|process| {
            let read = |name: &str| std::fs::read_to_string(process.path().join(name)).ok();
            // The fields after the name, which is in parentheses, are state, parent and group.
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

/// Starts the embedded host behind a socket.
async fn behind_a_socket(setup: &Setup) -> RunningHost {
    let embedded = Arc::new(setup.embedded().await);
    let bearer = embedded.token().expose_bearer();
    let token = Token::new(bearer["Bearer ".len()..].to_owned()).expect("a token");
    let server = ComponentServer::start(embedded).await;
    RunningHost {
        host: setup.remote(server.url().clone(), &token),
        process: HostProcess::Server { _server: server },
    }
}

/// Starts `wasmtime serve`.
async fn wasmtime_serve(setup: &Setup) -> RunningHost {
    let token = orchestrator::invoke_token::generate().expect("a token");
    let address = listener().await.local_addr().expect("an address");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let component = folder.path().join("prefix_tar.wasm");
    std::fs::write(&component, bundled_component()).expect("a written component");
    let mut command = Command::new("wasmtime");
    command
        .args(["serve", "-S", "cli", "--addr", &address.to_string()])
        // Some builds lack the pooling allocator, and it makes no difference here.
        .args(["-O", "pooling-allocator=n"])
        .arg(format!(
            "-Wmax-memory-size={}",
            setup.linear_memory_bytes_max
        ));
    for (name, value) in setup.program_environment(&token) {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    command.arg(component);
    setup.start_program("wasmtime serve", &mut command, address, &token, folder)
}

/// Starts `spin up` with the shipped manifest.
async fn spin_up(setup: &Setup) -> RunningHost {
    let token = orchestrator::invoke_token::generate().expect("a token");
    let address = listener().await.local_addr().expect("an address");
    // The manifest gets a folder of its own, because Spin also reads the files around it.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let component = folder.path().join("target/wasm32-wasip2/component");
    std::fs::create_dir_all(&component).expect("a folder");
    std::fs::write(component.join("prefix_tar.wasm"), bundled_component())
        .expect("a written component");
    std::fs::copy(
        repository().join("spin.toml"),
        folder.path().join("spin.toml"),
    )
    .expect("a copied manifest");
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
    for (name, value) in setup.program_environment(&token) {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    setup.start_program("spin up", &mut command, address, &token, folder)
}

/// Whether `program --version` runs and its output starts with one of `starts`.
fn has_version(program: &str, starts: &[&str]) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|version| {
        let output = String::from_utf8_lossy(&version.stdout);
        starts.iter().any(|start| output.starts_with(start))
    })
}
