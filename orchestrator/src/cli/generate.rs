//! `generate`: synthetic ranges, from the command line.

use super::run::Prefixes;
use super::{End, print};
use crate::dispatch::Stop;
use crate::figures;
use crate::generate::{HASHES_PER_RANGE, HASHES_PER_RANGE_MAX, Recipe, TEST_PASSWORDS};
use crate::plan::PrefixSet;
use crate::progress::counter::Counter;
use crate::workers;
use anyhow::Context as _;
use clap::Args;
use prefix_tar::prefix::Prefix;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  orchestrator generate -d ./ranges -p 2
  orchestrator generate -d ./ranges --prefixes 5B --seed 7 --hashes-per-range 1500";

/// Write synthetic ranges of realistic sizes, the same for the same seed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Generate {
    /// The folder, made where it is not there
    #[arg(short = 'd', long = "directory", value_name = "DIR")]
    directory: PathBuf,

    #[command(flatten)]
    prefixes: Prefixes,

    /// The same seed gives the same ranges
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Lines per range, on average
    #[arg(long, value_name = "N", default_value_t = HASHES_PER_RANGE, value_parser = clap::value_parser!(u32).range(1..=i64::from(HASHES_PER_RANGE_MAX)))]
    hashes_per_range: u32,
}

impl Generate {
    pub(super) async fn run(self, stop: Stop) -> anyhow::Result<End> {
        let recipe = Recipe {
            seed: self.seed,
            hashes_per_range: self.hashes_per_range,
        };
        let prefixes = self.prefixes.or_all();
        let shown = self.directory.display().to_string();
        let count = prefixes.count();
        let (done, bytes) = write(recipe, prefixes, &self.directory, &stop.gently).await?;
        print(&format!(
            "generated {}, {} in {shown}",
            figures::prefixes(done),
            figures::data(bytes)
        ));
        let passwords: Vec<&str> = TEST_PASSWORDS
            .iter()
            .map(|(password, _)| *password)
            .collect();
        print(&format!(
            "test passwords, where their range was generated: {}",
            passwords.join(", ")
        ));
        Ok(if done == count {
            End::Done
        } else {
            End::Stopped
        })
    }
}

/// Generates on every core; answers how many prefixes were done before the stop, and their bytes.
pub(super) async fn write(
    recipe: Recipe,
    prefixes: PrefixSet,
    folder: &Path,
    stop: &CancellationToken,
) -> anyhow::Result<(usize, u64)> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let (folder, stop) = (folder.to_owned(), stop.clone());
    tokio::task::spawn_blocking(move || {
        let prefixes: Vec<Prefix> = prefixes.iter().collect();
        let counter = Counter::new("generating", std::io::stderr().is_terminal());
        counter.begin(prefixes.len());
        // One that fails stops the others: a disk that is full for one is full for all.
        let done = workers::for_each(&prefixes, &stop, |prefix| {
            let written = recipe.write_prefix(prefix, &folder);
            if written.is_err() {
                stop.cancel();
            }
            counter.count();
            written
        });
        let bytes = done.into_values().collect::<anyhow::Result<Vec<u64>>>()?;
        Ok((bytes.len(), bytes.iter().sum()))
    })
    .await?
}
