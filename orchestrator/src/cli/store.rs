//! `store`: serves the object store emulator.

use super::private_file::warn_if_shared;
use super::serve::{listen, stop_unless_stuck, until_stopped};
use super::{End, print};
use crate::destination::folder::serve;
use crate::open_files;
use crate::run::shutdown::Shutdown;
use anyhow::Context as _;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use emulator::key::ServiceAccountKey;
use emulator::objects::{KEPT_BYTES_MAX, Retention};
use emulator::permissions::{Permissions, Role};
use emulator::signature::Verifier;
use emulator::{Buckets, Emulator, Settings};
use std::net::SocketAddr;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mkdir -p ./store/my-bucket
  orchestrator store -d ./store --key-file ./key.json
  orchestrator store -d ./store --role objectCreator --role objectViewer
  orchestrator store -d ./store --discard

Accepts V4-signed PUT, GET, HEAD and DELETE of http://ADDR/my-bucket/OBJECT, as GCS does, and
trusts the service-account key in --key-file.";

const _: () = assert!(KEPT_BYTES_MAX == 1024 * 1024, "the help says 1 MiB");

/// Serve a local object store that emulates GCS's XML API and its checks
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Store {
    /// Folder with one subfolder per bucket
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: PathBuf,

    /// Loopback address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,

    /// Service-account key to trust, created if missing
    #[arg(
        long,
        value_name = "FILE",
        default_value = "./prefix-tar-store-key.json"
    )]
    key_file: PathBuf,

    /// Role of the key's account; repeat it to grant several  [default: everything is permitted]
    #[arg(long = "role", value_name = "ROLE", value_parser = PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|name| name.parse::<Role>()))]
    roles: Vec<Role>,

    /// For measuring: check every upload, but discard what is larger than 1 MiB, such as tars
    ///
    /// Until the store stops, it remembers the metadata of what it discards, in memory: HEAD and preconditions work,
    /// GET and `verify` do not. A tar that is in --directory already is not replaced. Smaller objects, such as reports and the manifest, are kept in --directory.
    #[arg(long)]
    discard: bool,
}

impl Store {
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        open_files::raise_limit();
        anyhow::ensure!(
            self.listen.ip().is_loopback(),
            "the local store listens on loopback only, and {} is not loopback",
            self.listen.ip()
        );
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot create the folder {}", self.directory.display()))?;
        let key = if self.key_file.exists() {
            warn_if_shared(&self.key_file);
            ServiceAccountKey::read(&self.key_file)?
        } else {
            let key = tokio::task::spawn_blocking(ServiceAccountKey::generate).await??;
            key.write(&self.key_file)?;
            key
        };
        let listener = listen(self.listen).await?;
        let verifier = Verifier::trusting(&key)?;
        let permissions = match self.roles.as_slice() {
            [] => Permissions::ALL,
            roles => Permissions::of_roles(roles),
        };
        let retention = match self.discard {
            true => Retention::SmallObjects,
            false => Retention::Everything,
        };
        let settings = Settings {
            permissions,
            retention,
            ..Settings::default()
        };
        let emulator = Emulator::with_settings(Buckets::In(self.directory), verifier, settings);
        let server = serve(listener, emulator)?;
        print(&format!(
            "storing at http://{} what {} signs (key: {})",
            server.address(),
            key.client_email(),
            self.key_file.display()
        ));
        until_stopped(&shutdown).await;
        stop_unless_stuck(server, &shutdown).await;
        Ok(End::Done)
    }
}
