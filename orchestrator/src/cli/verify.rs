//! `verify`: reads an archive back and checks it.

use super::args::{location, mode};
use super::private_file::warn_about_credentials;
use super::{End, print, print_json, print_status};
use crate::archive::location::ArchiveLocation;
use crate::archive::{self, Archive};
use crate::gcs::options::ObjectOptions;
use crate::humanize;
use crate::progress::counter::Counter;
use crate::run::shutdown::Shutdown;
use crate::verify::{Verdict, verify};
use clap::Args;
use prefix_tar::protocol::mode::Mode;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  orchestrator verify ./archive
  orchestrator verify gs://my-bucket/pwned
  orchestrator verify ./archive --json | jq '.damages, .unreadable'

Exit codes: 0 whole, 1 damaged, 3 nothing damaged but something could not be read.";

/// Read an archive back, check every range and every checksum, and list what is damaged
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    /// The archive: a folder, or gs://bucket/path; {month} becomes the current UTC month
    #[arg(value_name = "DEST", value_parser = location)]
    archive: ArchiveLocation,

    /// Endpoint for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// PEM file with certificates to trust besides the platform's: of CAs, or a server's own
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Which hashes the archive must hold  [default: those that its manifest states]
    #[arg(long, value_name = "MODE", value_parser = mode())]
    mode: Option<Mode>,

    /// Print the verdict to stdout as JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        warn_about_credentials(&self.archive);
        let options = ObjectOptions {
            endpoint: self.endpoint,
            ..ObjectOptions::default()
        };
        let archive = archive::open(&self.archive, &options, self.ca_file.as_deref())?;
        let verdict = check(archive, self.mode, !self.json, &shutdown.graceful).await?;
        if shutdown.graceful.is_cancelled() {
            print_status("stopped before everything was read");
            return Ok(End::Stopped);
        }
        if self.json {
            print_json(&serde_json::to_string(&verdict)?);
        } else {
            print_verdict(&verdict, &self.archive.to_string());
        }
        Ok(end_of(&verdict))
    }
}

/// Damage counts more than what could not be read.
pub(super) const fn end_of(verdict: &Verdict) -> End {
    if !verdict.damages.is_empty() {
        End::Failed
    } else if !verdict.unreadable.is_empty() {
        End::Unreadable
    } else {
        End::Done
    }
}

/// Verifies an archive, with a progress bar on a terminal.
pub(super) async fn check(
    archive: Arc<dyn Archive>,
    expected: Option<Mode>,
    is_shown: bool,
    shutdown: &CancellationToken,
) -> anyhow::Result<Verdict> {
    let (shutdown, runtime) = (shutdown.clone(), Handle::current());
    let verdict = tokio::task::spawn_blocking(move || {
        let counter = Counter::new("verifying", is_shown && std::io::stderr().is_terminal());
        verify(
            &*archive,
            &runtime,
            &shutdown,
            expected,
            |prefixes| counter.begin(prefixes),
            || counter.count(),
        )
    });
    Ok(verdict.await?)
}

/// Prints a line for everything that is damaged or could not be read.
pub(super) fn print_problems(verdict: &Verdict) {
    for damage in &verdict.damages {
        print_status(&format!("damaged: {damage}"));
    }
    for unreadable in &verdict.unreadable {
        print_status(&format!("could not be read: {unreadable}"));
    }
    if let Some(unfinished) = &verdict.unfinished_run {
        print_status(&unfinished.to_string());
    }
}

fn print_verdict(verdict: &Verdict, archive: &str) {
    print_problems(verdict);
    let read = format!(
        "{}, {} ranges, {} hashes, {} of tars",
        humanize::prefixes(verdict.prefixes),
        humanize::grouped(verdict.ranges),
        humanize::grouped(verdict.hashes),
        humanize::data(verdict.tar_bytes),
    );
    let damages = match verdict.damages.len() {
        0 => None,
        1 => Some("1 problem".to_owned()),
        damages => Some(format!("{damages} problems")),
    };
    let unreadable = match verdict.unreadable.len() {
        0 => None,
        1 => Some("1 file that could not be read".to_owned()),
        unreadable => Some(format!("{unreadable} files that could not be read")),
    };
    let found: Vec<String> = damages.into_iter().chain(unreadable).collect();
    print(&match found.join(" and ") {
        found if found.is_empty() => format!("{archive} is whole: {read}"),
        found => format!("{archive} has {found}; read: {read}"),
    });
}
