//! Serves ranges with nginx, an independent server: plain, with gzip, and over TLS with HTTP/2.

use crate::harness::certificates;
use crate::harness::program::Background;
use prefix_tar::protocol::source::SourceUrl;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long nginx may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// nginx that serves a folder of ranges. It stops when dropped.
pub(crate) struct Nginx {
    _process: Background,
    folder: tempfile::TempDir,
    plain: u16,
    gzip: u16,
    tls: u16,
}

impl Nginx {
    /// Starts nginx and waits until it listens.
    pub(crate) fn start(ranges: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // nginx cannot report a port that the system chose, so three free ports are found first.
        let listeners: Vec<TcpListener> = (0..3)
            .map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"))
            .collect();
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("an address").port())
            .collect();
        drop(listeners);
        let [plain, gzip, tls] = ports[..] else {
            unreachable!("three listeners have three ports");
        };
        certificates::write(folder.path(), &["localhost"]);
        let configuration = folder.path().join("nginx.conf");
        std::fs::write(
            &configuration,
            configuration_of(folder.path(), ranges, plain, gzip, tls),
        )
        .expect("a written configuration");
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&configuration)
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .spawn()
            .expect("nginx to start");
        let nginx = Self {
            _process: Background(process),
            folder,
            plain,
            gzip,
            tls,
        };
        nginx.wait_until_listening();
        nginx
    }

    fn wait_until_listening(&self) {
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.tls)).is_err() {
            let log = std::fs::read_to_string(self.folder.path().join("error.log"));
            assert!(
                since.elapsed() < START_MAX,
                "nginx did not listen within {START_MAX:?}; its log: {log:?}"
            );
            std::thread::yield_now();
        }
    }

    /// The source over HTTP/1.1, uncompressed.
    pub(crate) fn plain(&self) -> SourceUrl {
        url(&format!("http://127.0.0.1:{}", self.plain))
    }

    /// The source over HTTP/1.1, with gzip.
    pub(crate) fn gzip(&self) -> SourceUrl {
        url(&format!("http://127.0.0.1:{}", self.gzip))
    }

    /// The source over TLS and HTTP/2.
    pub(crate) fn tls(&self) -> SourceUrl {
        url(&format!("https://localhost:{}", self.tls))
    }

    /// The CA that issued its certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The HTTP versions of the requests so far, from nginx's log.
    pub(crate) fn protocols_seen(&self) -> std::collections::BTreeSet<String> {
        std::fs::read_to_string(self.folder.path().join("access.log"))
            .expect("an access log")
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

fn url(text: &str) -> SourceUrl {
    text.parse().expect("a source")
}

fn configuration_of(folder: &Path, ranges: &Path, plain: u16, gzip: u16, tls: u16) -> String {
    let (folder, ranges) = (folder.display(), ranges.display());
    let location = format!("location ~ \"^/range/([0-9A-F]{{5}})$\" {{ alias {ranges}/$1.txt; }}");
    format!(
        "daemon off; master_process off; pid {folder}/pid;
        events {{ worker_connections 1024; }}
        http {{
            log_format protocol '$server_protocol'; access_log {folder}/access.log protocol;
            default_type text/plain;
            client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
            fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
            server {{ listen 127.0.0.1:{plain}; {location} }}
            server {{ listen 127.0.0.1:{gzip}; gzip on; gzip_types *; {location} }}
            server {{
                listen 127.0.0.1:{tls} ssl http2;
                ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
                {location}
            }}
        }}"
    )
}
