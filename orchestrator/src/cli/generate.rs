//! `generate`: writes synthetic ranges.

use super::args::{Prefixes, mode};
use super::{End, print};
use crate::generate::{GeneratorConfig, HASHES_PER_RANGE, HASHES_PER_RANGE_MAX, TEST_PASSWORDS};
use crate::humanize;
use crate::progress::counter::Counter;
use crate::run::plan::PrefixSet;
use crate::run::shutdown::Shutdown;
use crate::workers;
use anyhow::Context as _;
use clap::Args;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  orchestrator generate -d ./ranges -p 2
  orchestrator generate -d ./ranges --prefixes 5B --seed 7 --hashes-per-range 800";

/// Write synthetic ranges of realistic size, reproducible by seed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Generate {
    /// Folder for the ranges, created if missing
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: PathBuf,

    #[command(flatten)]
    prefixes: Prefixes,

    /// Seed; the same seed gives the same ranges
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Mean number of lines per range
    #[arg(long, value_name = "N", default_value_t = HASHES_PER_RANGE, value_parser = clap::value_parser!(u32).range(1..=i64::from(HASHES_PER_RANGE_MAX)))]
    hashes_per_range: u32,

    /// Which hashes the ranges have
    #[arg(long, value_name = "MODE", default_value_t = Mode::Sha1, value_parser = mode())]
    mode: Mode,
}

impl Generate {
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        let config = GeneratorConfig {
            seed: self.seed,
            hashes_per_range: self.hashes_per_range,
            mode: self.mode,
        };
        let prefixes = self.prefixes.or_all();
        let shown = self.directory.display().to_string();
        let count = prefixes.count();
        let (done, bytes) = write(config, prefixes, &self.directory, &shutdown.graceful).await?;
        print(&format!(
            "generated {}, {} in {shown}",
            humanize::prefixes(done),
            humanize::data(bytes)
        ));
        let passwords: Vec<&str> = TEST_PASSWORDS
            .iter()
            .map(|(password, _)| *password)
            .collect();
        print(&format!(
            "test passwords, found if their range was generated: {}",
            passwords.join(", ")
        ));
        Ok(if done == count {
            End::Done
        } else {
            End::Stopped
        })
    }
}

/// Generates on every core. Returns the number of prefixes finished before the shutdown, and their bytes.
pub(super) async fn write(
    config: GeneratorConfig,
    prefixes: PrefixSet,
    folder: &Path,
    shutdown: &CancellationToken,
) -> anyhow::Result<(usize, u64)> {
    let generator = config.generator()?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let (folder, shutdown) = (folder.to_owned(), shutdown.clone());
    tokio::task::spawn_blocking(move || {
        let prefixes: Vec<Prefix> = prefixes.iter().collect();
        let counter = Counter::new("generating", std::io::stderr().is_terminal());
        counter.begin(prefixes.len());
        // One failure stops the others: a full disk is full for all of them.
        let done = workers::for_each(&prefixes, &shutdown, |prefix| {
            let written = generator.write_prefix(prefix, &folder);
            if written.is_err() {
                shutdown.cancel();
            }
            counter.count();
            written
        });
        let bytes = done.into_values().collect::<anyhow::Result<Vec<u64>>>()?;
        Ok((bytes.len(), bytes.iter().sum()))
    })
    .await?
}
