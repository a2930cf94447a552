//! `store`: the local object store, from the command line.

use super::serve::{listen, until_stopped};
use super::{End, print};
use crate::dispatch::Stop;
use crate::local_store::permissions::{Permissions, Role};
use crate::local_store::{Buckets, LocalStore, trusting};
use crate::sign::ServiceAccountKey;
use anyhow::Context as _;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mkdir -p ./store/my-bucket
  orchestrator store -d ./store --key-file ./key.json
  orchestrator store -d ./store --role objectCreator --role objectViewer

It takes what is signed with that service-account key, as GCS takes what is signed with
yours: PUT, GET, HEAD and DELETE of http://ADDR/my-bucket/OBJECT, by V4 signed URL.";

/// Serve a local object store: GCS's XML API by signed URL, with its checks
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Store {
    /// The folder with a folder for every bucket
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: PathBuf,

    /// Where to listen, on loopback; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,

    /// The service-account key that it trusts, made where it is not there
    #[arg(
        long,
        value_name = "FILE",
        default_value = "./prefix-tar-store-key.json"
    )]
    key_file: PathBuf,

    /// Permit the key's account what this role does, and no more; several add up  [default: everything]
    #[arg(long = "role", value_name = "ROLE", value_enum)]
    roles: Vec<Role>,
}

impl Store {
    pub(super) async fn run(self, stop: Stop) -> anyhow::Result<End> {
        anyhow::ensure!(
            self.listen.ip().is_loopback(),
            "the local store listens on loopback only, and {} is not",
            self.listen.ip()
        );
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make the folder {}", self.directory.display()))?;
        let key = if self.key_file.exists() {
            ServiceAccountKey::read(&self.key_file)?
        } else {
            let key = tokio::task::spawn_blocking(ServiceAccountKey::generate).await??;
            key.write(&self.key_file)?;
            key
        };
        let listener = listen(self.listen).await?;
        let verifier = trusting(&key)?;
        let permissions = match self.roles.as_slice() {
            [] => Permissions::ALL,
            roles => Permissions::of_roles(roles),
        };
        let buckets = Buckets::In(self.directory);
        let server = LocalStore::permitting(buckets, verifier, permissions).start(listener)?;
        print(&format!(
            "storing at http://{} what {} signs (key: {})",
            server.address(),
            key.client_email(),
            self.key_file.display()
        ));
        until_stopped(&stop).await;
        server.stop().await;
        Ok(End::Done)
    }
}
