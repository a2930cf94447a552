//! `verify`: reads an archive again, from the command line.

use super::{End, destination, print, tell};
use crate::destination::DestinationName;
use crate::destination::bucket::{BucketDestination, BucketFiles, ObjectOptions};
use crate::dispatch::Stop;
use crate::figures;
use crate::host::embedded::DEADLINE_DEFAULT;
use crate::progress::counter::Counter;
use crate::verify::{ArchiveFiles, Verdict, verify};
use clap::Args;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  orchestrator verify ./archive
  orchestrator verify gs://my-bucket/pwned
  orchestrator verify ./archive --json | jq .damages";

/// Read an archive again, all of it, and name every damage
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    /// The archive: a folder, or gs://bucket/path; {month} in it becomes 2026-11
    #[arg(value_name = "DEST", value_parser = destination)]
    archive: DestinationName,

    /// Another store than Google's for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// Trust the CA certificates of this PEM file besides the platform's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Print the verdict as JSON to standard output
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) async fn run(self, stop: Stop) -> anyhow::Result<End> {
        let shown = self.archive.to_string();
        let files: Box<dyn ArchiveFiles + Send> = match self.archive {
            DestinationName::Folder(folder) => {
                anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
                Box::new(folder)
            }
            DestinationName::Bucket(path) => {
                let options = ObjectOptions {
                    endpoint: self.endpoint,
                    ..ObjectOptions::default()
                };
                let ca_file = self.ca_file.as_deref();
                let bucket = BucketDestination::open(path, &options, DEADLINE_DEFAULT, ca_file)?;
                Box::new(BucketFiles::new(bucket, tokio::runtime::Handle::current()))
            }
        };
        let verdict = read(files, !self.json, &stop.gently).await?;
        if stop.gently.is_cancelled() {
            tell("stopped before all was read");
            return Ok(End::Stopped);
        }
        if self.json {
            print(&serde_json::to_string(&verdict)?);
        } else {
            print_verdict(&verdict, &shown);
        }
        Ok(if verdict.damages.is_empty() {
            End::Done
        } else {
            End::Failed
        })
    }
}

/// Reads an archive, with a bar on a terminal.
pub(super) async fn read(
    files: Box<dyn ArchiveFiles + Send>,
    is_shown: bool,
    stop: &CancellationToken,
) -> anyhow::Result<Verdict> {
    let stop = stop.clone();
    let verdict = tokio::task::spawn_blocking(move || {
        let counter = Counter::new("verifying", is_shown && std::io::stderr().is_terminal());
        verify(
            &*files,
            &stop,
            |prefixes| counter.begin(prefixes),
            || counter.count(),
        )
    });
    Ok(verdict.await?)
}

fn print_verdict(verdict: &Verdict, archive: &str) {
    for damage in &verdict.damages {
        tell(&format!("damaged: {damage}"));
    }
    let read = format!(
        "{}, {} ranges, {} hashes, {} of tars",
        figures::prefixes(verdict.prefixes),
        figures::grouped(verdict.ranges),
        figures::grouped(verdict.hashes),
        figures::data(verdict.tar_bytes),
    );
    match verdict.damages.len() {
        0 => print(&format!("{archive} is whole: {read}")),
        1 => print(&format!("{archive} has 1 damage: {read} are whole")),
        damages => print(&format!(
            "{archive} has {damages} damages: {read} are whole"
        )),
    }
}
