//! `serve`: serves the range API from an archive, from a folder of range files, or from a generator.

use super::archive_places::{ArchivePlaces, typed_location};
use super::args::mode;
use super::byte_size::byte_size;
use super::private_file::{warn_about_credentials, warn_if_shared};
use super::{End, print, print_status};
use crate::archive::ReadError;
use crate::archive::location::ArchiveLocation;
use crate::gcs::options::ObjectOptions;
use crate::generate::{GeneratorConfig, HASHES_PER_RANGE, HASHES_PER_RANGE_MAX};
use crate::http_server::HttpServer;
use crate::http_server::tls::TlsIdentity;
use crate::open_files;
use crate::range_api::current::{CurrentArchive, Refreshed};
use crate::range_api::mirror::Mirror;
use crate::range_api::{self, source::RangeSource};
use crate::run::shutdown::Shutdown;
use anyhow::Context as _;
use clap::{ArgGroup, Args};
use jiff::Timestamp;
use prefix_tar::protocol::mode::Mode;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  orchestrator serve ./archive
  orchestrator serve gs://my-bucket/pwned --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
  curl http://127.0.0.1:8080/range/00000
  orchestrator serve -d ./ranges
  orchestrator serve --synthetic 1

With an archive, /healthz, /readyz and /metrics are served too. A new archive is served when its
manifest has changed; a bucket's is looked at every --poll seconds. No log and no metric tells
which ranges were asked for. SIGHUP has --tls-cert and --tls-key read again.";

/// How often the manifest of a folder is looked at.
const FOLDER_POLL: Duration = Duration::from_secs(1);

/// How often the manifest of a bucket is looked at, in seconds, unless the user says otherwise.
const BUCKET_POLL_SECONDS: u64 = 60;

/// The least memory for a cache, in bytes: a few ranges.
const CACHE_BYTES_MIN: u64 = 1024 * 1024;

/// Serve the range API from an archive, or from range files or synthetic ranges
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("ranges").args(["archive", "directory", "synthetic"]).required(true))]
pub(super) struct Serve {
    /// The archive: a folder, or gs://bucket/path; {month} becomes the latest month that has an archive
    #[arg(value_name = "ARCHIVE", value_parser = typed_location)]
    archive: Option<String>,

    #[command(flatten)]
    mirror: MirrorOptions,

    /// Serve the range files in this folder instead: 00000.txt and so on
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Make every range on request instead, as `generate --seed` writes them
    #[arg(long, value_name = "SEED")]
    synthetic: Option<u64>,

    /// With --synthetic: mean number of lines per range
    #[arg(long, value_name = "N", conflicts_with_all = ["archive", "directory"], default_value_t = HASHES_PER_RANGE, value_parser = clap::value_parser!(u32).range(1..=i64::from(HASHES_PER_RANGE_MAX)))]
    hashes_per_range: u32,

    /// Which hashes the ranges have  [default: those that the archive's manifest states, or sha1]
    #[arg(long, value_name = "MODE", value_parser = mode())]
    mode: Option<Mode>,

    /// Address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// PEM file with the certificate to show, and those that issued it; then everything is served over TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// PEM file with the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// How an archive is served.
#[derive(Debug, Args)]
struct MirrorOptions {
    /// Memory for ranges that were asked for, such as 64M or 1G
    #[arg(long, value_name = "BYTES", default_value = "32M", conflicts_with_all = ["directory", "synthetic"], value_parser = cache_bytes)]
    cache_bytes: u64,

    /// Look for a new archive in gs:// every so many seconds; in a folder, every second
    #[arg(long, value_name = "SECONDS", default_value_t = BUCKET_POLL_SECONDS, conflicts_with_all = ["directory", "synthetic"], value_parser = clap::value_parser!(u64).range(1..=86_400))]
    poll: u64,

    /// Serve ranges below this path: with /pwned, at /pwned/range/00000
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, conflicts_with_all = ["directory", "synthetic"], value_parser = path_prefix)]
    path_prefix: String,

    /// Endpoint for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL", conflicts_with_all = ["directory", "synthetic"])]
    endpoint: Option<String>,

    /// PEM file with certificates to trust besides the platform's: of CAs, or a server's own
    #[arg(long, value_name = "FILE", conflicts_with_all = ["directory", "synthetic"])]
    ca_file: Option<PathBuf>,
}

impl Serve {
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        open_files::raise_limit();
        let identity = identity(self.tls_cert.as_deref(), self.tls_key.as_deref())?;
        listen_for_hangup(identity.clone())?;
        let scheme = identity.as_ref().map_or("http", |_| "https");
        let (server, shown) = match &self.archive {
            Some(typed) => {
                let path_prefix = self.mirror.path_prefix.clone();
                let (mirror, every) = open_mirror(typed, self.mode, self.mirror).await?;
                let listener = listen(self.listen).await?;
                let server = range_api::start_mirror(listener, identity, Arc::clone(&mirror))?;
                // It ends with the program.
                drop(tokio::spawn(async move { mirror.follow(every).await }));
                (server, path_prefix)
            }
            None => {
                let source = self.source()?;
                let listener = listen(self.listen).await?;
                (
                    range_api::start_with(listener, identity, source)?,
                    String::new(),
                )
            }
        };
        print(&format!("serving {scheme}://{}{shown}", server.address()));
        until_stopped(&shutdown).await;
        stop_unless_stuck(server, &shutdown).await;
        Ok(End::Done)
    }

    fn source(&self) -> anyhow::Result<RangeSource> {
        let mode = self.mode.unwrap_or_default();
        if let Some(seed) = self.synthetic {
            let config = GeneratorConfig {
                seed,
                hashes_per_range: self.hashes_per_range,
                mode,
            };
            return RangeSource::synthetic(config);
        }
        let directory = self.directory.clone().unwrap_or_default();
        anyhow::ensure!(
            directory.is_dir(),
            "{} is not a folder; `orchestrator generate -d {0} -p 1` creates one",
            directory.display()
        );
        Ok(RangeSource::folder_of(mode, directory))
    }
}

/// Opens an archive, and says how often its manifest is looked at. An archive without a manifest is waited for.
async fn open_mirror(
    typed: &str,
    expected: Option<Mode>,
    options: MirrorOptions,
) -> anyhow::Result<(Arc<Mirror>, Duration)> {
    let location = ArchiveLocation::at(typed, Timestamp::now())?;
    warn_about_credentials(&location);
    let objects = ObjectOptions {
        endpoint: options.endpoint,
        ..ObjectOptions::default()
    };
    let places = ArchivePlaces::new(typed.to_owned(), objects, options.ca_file);
    places.latest_first()?;
    // Later, a month's folder may not be there yet, and last month's not any more.
    let places = Box::new(move || places.latest_first().unwrap_or_default());
    let current = CurrentArchive::new(places, expected);
    let mirror = Mirror::new(current, options.path_prefix, options.cache_bytes);
    match mirror.open().await {
        Ok(Refreshed::Opened | Refreshed::Unchanged) => {}
        Ok(Refreshed::Missing) => print_status(&format!(
            "{typed} has no manifest yet; it is served when a run has written it"
        )),
        Err(
            error @ ReadError::Unreadable {
                is_transient: true, ..
            },
        ) => print_status(&format!("{error}; trying again")),
        Err(error) => return Err(error.into()),
    }
    let every = match location {
        ArchiveLocation::Folder(_) => FOLDER_POLL,
        ArchiveLocation::Bucket(_) => Duration::from_secs(options.poll),
    };
    Ok((Arc::new(mirror), every))
}

/// Reads the certificate and its key, if there are any.
fn identity(
    certificate: Option<&Path>,
    key: Option<&Path>,
) -> anyhow::Result<Option<Arc<TlsIdentity>>> {
    let Some((certificate, key)) = certificate.zip(key) else {
        return Ok(None);
    };
    warn_if_shared(key);
    let identity = TlsIdentity::read(certificate.to_owned(), key.to_owned())?;
    Ok(Some(Arc::new(identity)))
}

/// Reads the certificate again at every SIGHUP. Without one, the signal changes nothing; nobody who sends it to a server
/// wants it to end.
fn listen_for_hangup(identity: Option<Arc<TlsIdentity>>) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    drop(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // Two small files: reading them blocks this worker for less than a request does.
            match identity.as_ref().map(|identity| identity.reread()) {
                None => print_status("there is no certificate to read again"),
                Some(Ok(())) => print_status("the certificate was read again"),
                Some(Err(error)) => {
                    let error = format!("{error:#}");
                    tracing::error!(%error, "the earlier certificate stays in use");
                }
            }
        }
    }));
    Ok(())
}

/// Memory for a cache.
fn cache_bytes(text: &str) -> Result<u64, String> {
    match byte_size(text)? {
        bytes if bytes < CACHE_BYTES_MIN => Err("at least 1M".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A path below which ranges are: empty, or with a slash at its beginning and none at its end.
fn path_prefix(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let is_valid = path
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte));
    if is_valid && (path.is_empty() || path.starts_with('/')) {
        Ok(path.to_owned())
    } else {
        Err("not a path, such as /pwned".to_owned())
    }
}

/// Binds an address.
pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another --listen, or port 0 for a free one")
    })
}

/// Waits for the requests in progress, at most until an immediate shutdown.
pub(super) async fn stop_unless_stuck(server: HttpServer, shutdown: &Shutdown) {
    tokio::select! {
        () = server.stop() => {}
        () = shutdown.immediate.cancelled() => {}
    }
}

/// Waits for the signal that ends a server.
pub(super) async fn until_stopped(shutdown: &Shutdown) {
    shutdown.graceful.cancelled().await;
    print_status("stopping");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_prefix_begins_with_a_slash_and_loses_the_last_one() {
        assert_eq!(path_prefix("/pwned"), Ok("/pwned".to_owned()));
        assert_eq!(path_prefix("/a/b/"), Ok("/a/b".to_owned()));
        assert_eq!(path_prefix("/"), Ok(String::new()));
        assert_eq!(path_prefix(""), Ok(String::new()));
        for invalid in ["pwned", "/a?b", "/a b", "/\u{e4}"] {
            assert!(path_prefix(invalid).is_err(), "{invalid}");
        }
    }
}
