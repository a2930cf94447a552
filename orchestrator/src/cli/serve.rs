//! `serve`: serves the range API over a folder, or over synthetic ranges.

use super::{End, print, print_status};
use crate::generate::{GeneratorConfig, HASHES_PER_RANGE, HASHES_PER_RANGE_MAX};
use crate::http_server::HttpServer;
use crate::range_api::{self, source::RangeSource};
use crate::run::shutdown::Shutdown;
use anyhow::Context as _;
use clap::{ArgGroup, Args};
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;

const EXAMPLES: &str = "\
Examples:
  orchestrator serve -d ./ranges
  curl http://127.0.0.1:8080/range/00000
  orchestrator serve --synthetic 1";

/// Serve the range API over a folder of range files, or over synthetic ranges
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("ranges").args(["directory", "synthetic"]).required(true))]
pub(super) struct Serve {
    /// Folder with the range files, 00000.txt and so on
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: Option<PathBuf>,

    /// Make every range on request instead, as `generate --seed` writes them
    #[arg(long, value_name = "SEED")]
    synthetic: Option<u64>,

    /// With --synthetic: mean number of lines per range
    #[arg(long, value_name = "N", conflicts_with = "directory", default_value_t = HASHES_PER_RANGE, value_parser = clap::value_parser!(u32).range(1..=i64::from(HASHES_PER_RANGE_MAX)))]
    hashes_per_range: u32,

    /// Address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

impl Serve {
    fn source(&self) -> anyhow::Result<RangeSource> {
        if let Some(seed) = self.synthetic {
            let config = GeneratorConfig {
                seed,
                hashes_per_range: self.hashes_per_range,
            };
            return RangeSource::synthetic(config);
        }
        let directory = self.directory.clone().unwrap_or_default();
        anyhow::ensure!(
            directory.is_dir(),
            "{} is not a folder; `orchestrator generate -d {0} -p 1` creates one",
            directory.display()
        );
        Ok(RangeSource::folder(directory))
    }

    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        let source = self.source()?;
        let listener = listen(self.listen).await?;
        let server = range_api::start(listener, source)?;
        print(&format!("serving http://{}", server.address()));
        until_stopped(&shutdown).await;
        stop_unless_stuck(server, &shutdown).await;
        Ok(End::Done)
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
