//! `run`: mirrors a range API into an archive.

use super::args::{Grace, Objects, Prefixes, Remote, Tuning, location, mode};
use super::heap_table::heap_table;
use super::private_file::warn_about_credentials;
use super::staged_file::StagedFile;
use super::summary::{end_of, print_failures, print_result};
use super::{End, print_json, print_status, print_text};
use crate::archive::location::ArchiveLocation;
use crate::archive::measurements::Measurements;
use crate::host::embedded::GuestProfile;
use crate::progress::{self, Style};
use crate::resource_usage::ResourceUsage;
use crate::run::RunConfig;
use crate::run::event::{EventRecord, RUN_EVENTS_MAX};
use crate::run::outcome::FinishedRun;
use crate::run::shutdown::Shutdown;
use clap::Args;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::source::{PWNED_PASSWORDS_URL, SourceUrl};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

const EXAMPLES: &str = "\
Examples:
  orchestrator run                                      everything, into ./archive
  orchestrator run --to /srv/pwned --prefixes 00-1F,AB
  orchestrator run --source http://127.0.0.1:8080 --to ./archive -p 2
  orchestrator run --to /srv/pwned --force              everything again, as a monthly job does
  orchestrator run --to /srv/pwned --base /srv/pwned    only what has changed since
  orchestrator run --to 'gs://my-bucket/pwned/{month}'  everything, keeping last month's archive
  orchestrator run --to 'gs://my-bucket/pwned/{month}' --base 'gs://my-bucket/pwned/{last-month}'
  orchestrator run --mode ntlm --to /srv/pwned-ntlm     the NTLM hashes
  orchestrator run --component http://127.0.0.1:3000 --token-file ./token
  orchestrator run -p 2 --trace trace.json              and see in Perfetto where the time went
  orchestrator run -p 2 --profile profile.json          and see where the component's time and memory went
  orchestrator run --json | jq -c 'select(.event == \"stored\")'";

/// Mirror a range API: a tar and a report per prefix, and a manifest when all are stored
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// Base URL of the range API
    #[arg(long, value_name = "URL", default_value = PWNED_PASSWORDS_URL)]
    source: SourceUrl,

    /// Which hashes to mirror; an archive holds those of one mode
    #[arg(long, value_name = "MODE", default_value_t = Mode::Sha1, value_parser = mode())]
    mode: Mode,

    /// Where the archive goes: a folder, created if missing, or gs://bucket/path; {month} becomes the current UTC month
    #[arg(long, value_name = "DEST", default_value = "./archive", value_parser = location)]
    to: ArchiveLocation,

    #[command(flatten)]
    prefixes: Prefixes,

    #[command(flatten)]
    tuning: Tuning,

    /// PEM file with certificates to trust besides the platform's: of CAs, or a server's own
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Component file to run instead of the bundled component
    #[arg(long, value_name = "FILE", conflicts_with = "components")]
    component_file: Option<PathBuf>,

    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    objects: Objects,

    /// Mirror every prefix again, even if an earlier run has stored it
    #[arg(long)]
    force: bool,

    /// Earlier archive to build on, at the same place or another: only ranges that have changed since are fetched;
    /// {last-month} becomes the UTC month before this one
    #[arg(long, value_name = "ARCHIVE", value_parser = location)]
    base: Option<ArchiveLocation>,

    #[command(flatten)]
    grace: Grace,

    /// Write a trace of the run to FILE; it opens in ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Write where the time of the first invocation went to FILE, for the Firefox Profiler, and print what all
    /// invocations allocated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["components", "json"])]
    profile: Option<PathBuf>,

    /// Print events and the result to stdout as lines of JSON
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) const fn grace(&self) -> Duration {
        self.grace.duration()
    }

    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        warn_about_credentials(&self.to);
        let trace = self.trace.as_deref().map(StagedFile::create).transpose()?;
        let profile_file = self
            .profile
            .as_deref()
            .map(StagedFile::create)
            .transpose()?;
        let profile = profile_file.is_some().then(GuestProfile::default);
        let archive = self.to.to_string();
        let grace = self.grace();
        let config = RunConfig {
            source: self.source,
            mode: self.mode,
            to: self.to,
            object_options: self.objects.options(),
            prefixes: self.prefixes.or_all(),
            dispatch: self.tuning.dispatch(),
            encoding: self.tuning.encoding(),
            deadline: self.tuning.deadline(),
            ca_file: self.ca_file,
            force: self.force,
            base: self.base,
            host: self.remote.host(self.component_file, profile.clone())?,
        };
        let style = match (self.json, std::io::stderr().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Terminal,
            (false, false) => Style::Lines,
        };
        let run = run_and_report(config, style, &shutdown, grace).await?;
        if self.json {
            let is_stopped = shutdown.graceful.is_cancelled();
            print_json(&EventRecord::end(&run, is_stopped, ResourceUsage::so_far()).to_line());
        } else {
            print_result(&run, &archive);
        }
        print_failures(&run.outcome, &shutdown);
        match (trace, &run.measurements) {
            (Some(trace), Some(measured)) => {
                trace.write(|out| crate::trace::write(measured, out))?
            }
            (Some(_), None) => print_status("there was nothing to mirror, so there is no trace"),
            (None, _) => {}
        }
        if let (Some(file), Some(profile)) = (profile_file, profile) {
            write_profile(file, &profile, run.measurements.as_ref())?;
        }
        Ok(end_of(&run.outcome, &shutdown))
    }
}

/// Writes the profile of the guest's time, and prints that of its memory.
fn write_profile(
    file: StagedFile,
    profile: &GuestProfile,
    measured: Option<&Measurements>,
) -> anyhow::Result<()> {
    match profile.take() {
        Some(json) => file.write(|out| out.write_all(&json))?,
        None => print_status("no invocation has ended, so there is no profile"),
    }
    let invocations = measured.into_iter().flat_map(|run| &run.invocations);
    let recordings = invocations.filter_map(|invocation| invocation.recording.as_ref());
    if let Some(table) = heap_table(recordings) {
        print_text(&format!("\n{table}"));
    }
    Ok(())
}

/// Runs a configuration and reports the run's events.
pub(super) async fn run_and_report(
    config: RunConfig,
    style: Style,
    shutdown: &Shutdown,
    grace: Duration,
) -> anyhow::Result<FinishedRun> {
    let (sender, events) = mpsc::channel(RUN_EVENTS_MAX);
    let prefixes = config.prefixes.count();
    // What it writes to may be stuck, so it must not be a task of the runtime's workers.
    let reported = tokio::task::spawn_blocking(move || progress::report(events, style, prefixes));
    let notice = tokio::spawn(notice(shutdown.clone(), grace));
    let run = config.run(shutdown.clone(), sender).await;
    notice.abort();
    // The run has dropped its sender, so the reporter ends. A line that it could not write changes nothing.
    let _ = reported.await;
    run
}

/// Says what a shutdown waits for.
async fn notice(shutdown: Shutdown, grace: Duration) {
    shutdown.graceful.cancelled().await;
    print_status(&format!(
        "stopping: waiting up to {} s for invocations in progress; press Ctrl-C again to abort them",
        grace.as_secs()
    ));
    shutdown.immediate.cancelled().await;
    print_status("aborting the invocations in progress");
}
