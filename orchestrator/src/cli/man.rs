//! `man`: writes the man pages, for packages of the program.

use super::{Cli, End};
use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use std::path::PathBuf;

/// Write a man page per command
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Folder for the pages, created if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(&self) -> anyhow::Result<End> {
        let shown = self.directory.display();
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot create the folder {shown}"))?;
        clap_mangen::generate_to(Cli::command(), &self.directory)
            .with_context(|| format!("cannot write the man pages to {shown}"))?;
        Ok(End::Done)
    }
}
