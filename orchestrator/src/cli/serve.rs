//! `serve`: serves the range API over a folder.

use super::{End, print, print_status};
use crate::http_server::HttpServer;
use crate::range_api;
use crate::run::shutdown::Shutdown;
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
    /// Folder with the range files, 00000.txt and so on
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: PathBuf,

    /// Address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

impl Serve {
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        anyhow::ensure!(
            self.directory.is_dir(),
            "{} is not a folder; `orchestrator generate -d {0} -p 1` creates one",
            self.directory.display()
        );
        let listener = listen(self.listen).await?;
        let server = range_api::start(listener, self.directory)?;
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
