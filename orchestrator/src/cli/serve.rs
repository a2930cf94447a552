//! `serve`: the range API over a folder, from the command line.

use super::{End, print, tell};
use crate::dispatch::Stop;
use crate::range_api;
use anyhow::Context as _;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;

const EXAMPLES: &str = "\
Examples:
  orchestrator serve -d ./ranges
  curl http://127.0.0.1:8080/range/00000";

/// Serve the range API over a folder of range files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// The folder with the range files (00000.txt ..)
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: PathBuf,

    /// Where to listen; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

impl Serve {
    pub(super) async fn run(self, stop: Stop) -> anyhow::Result<End> {
        anyhow::ensure!(
            self.directory.is_dir(),
            "{} is no folder; `orchestrator generate -d {0}` makes one",
            self.directory.display()
        );
        let listener = listen(self.listen).await?;
        let server = range_api::start(listener, self.directory)?;
        print(&format!("serving http://{}", server.address()));
        until_stopped(&stop).await;
        server.stop().await;
        Ok(End::Done)
    }
}

/// Binds an address, or says who may have it.
pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; another --listen, or port 0, may be free")
    })
}

/// A server that is stopped has done what it was asked for.
pub(super) async fn until_stopped(stop: &Stop) {
    stop.gently.cancelled().await;
    tell("stopping");
}
