//! `demo`: generates, mirrors and verifies ranges in one process, offline, and prints the resources
//! used.

use super::args::Grace;
use super::run::run_and_report;
use super::summary::{end_of, print_failures};
use super::{End, generate, print, print_status, print_text, verify};
use crate::archive::folder::FolderArchive;
use crate::archive::location::ArchiveLocation;
use crate::gcs::options::ObjectOptions;
use crate::generate::GeneratorConfig;
use crate::host::embedded::DEADLINE_DEFAULT;
use crate::humanize;
use crate::progress::Style;
use crate::range_api::{self, source::RangeSource};
use crate::resource_usage::ResourceUsage;
use crate::run::dispatch::{DispatchSettings, PARALLEL_MAX};
use crate::run::outcome::{FinishedRun, StoredPrefix};
use crate::run::plan::PrefixSet;
use crate::run::retry::{FIRST_WAIT_MAX, GIVE_UP_AFTER_DEFAULT};
use crate::run::shutdown::Shutdown;
use crate::run::{HostChoice, RunConfig};
use clap::Args;
use prefix_tar::protocol::mode::Mode;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

const EXAMPLES: &str = "\
Examples:
  orchestrator demo
  orchestrator demo -p 32 --parallel 16 --keep";

/// Memory of the Go program that this one replaces, as its article reports it: the largest heap, and the peak after
/// tuning.
const ARTICLE_HEAP_MB: &str = "722 MB";
const ARTICLE_TUNED_MB: &str = "410-433 MB";

/// See it work: generate, serve, mirror and verify ranges in one process, then print the resources used
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// The first N prefixes, 1 to 256
    #[arg(short = 'p', value_name = "N", default_value = "2", value_parser = PrefixSet::first)]
    prefixes: PrefixSet,

    /// Concurrent invocations
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=PARALLEL_MAX as i64))]
    parallel: u16,

    /// Keep the generated ranges and the archive, and print where they are
    #[arg(long)]
    keep: bool,

    #[command(flatten)]
    grace: Grace,
}

impl Demo {
    pub(super) const fn grace(&self) -> Duration {
        self.grace.duration()
    }

    pub(super) async fn run(self, shutdown: Shutdown) -> anyhow::Result<End> {
        let folder = tempfile::Builder::new()
            .prefix("prefix-tar-demo-")
            .tempdir()?;
        let end = self.run_in(folder.path(), &shutdown).await;
        if self.keep {
            print(&format!("kept: {}", folder.keep().display()));
        }
        end
    }

    /// Generates the ranges. Returns whether it finished.
    async fn generate(&self, ranges: &Path, shutdown: &Shutdown) -> anyhow::Result<bool> {
        let count = self.prefixes.count();
        print_status(&format!(
            "generating {} ({} ranges) in {}",
            humanize::prefixes(count),
            humanize::grouped(count as u64 * 4096),
            ranges.display()
        ));
        let prefixes = self.prefixes.clone();
        let (done, _) = generate::write(
            GeneratorConfig::default(),
            prefixes,
            ranges,
            &shutdown.graceful,
        )
        .await?;
        Ok(done == count)
    }

    async fn run_in(&self, folder: &Path, shutdown: &Shutdown) -> anyhow::Result<End> {
        let (ranges, archive) = (folder.join("ranges"), folder.join("archive"));
        if !self.generate(&ranges, shutdown).await? {
            return Ok(End::Stopped);
        }
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let source = range_api::start(listener, RangeSource::folder(ranges))?;
        let config = RunConfig {
            source: format!("http://{}", source.address()).parse()?,
            mode: Mode::Sha1,
            to: ArchiveLocation::Folder(archive.clone()),
            object_options: ObjectOptions::default(),
            prefixes: self.prefixes.clone(),
            dispatch: DispatchSettings {
                parallel: usize::from(self.parallel),
                window: None,
                first_wait_max: FIRST_WAIT_MAX,
                give_up_after: GIVE_UP_AFTER_DEFAULT,
                waits_for_source: false,
            },
            encoding: None,
            deadline: DEADLINE_DEFAULT,
            ca_file: None,
            force: false,
            base: None,
            host: HostChoice::Embedded {
                component_file: None,
                profile: None,
            },
        };
        print_status(&format!(
            "mirroring http://{} into {}",
            source.address(),
            archive.display()
        ));
        let style = if std::io::stderr().is_terminal() {
            Style::Terminal
        } else {
            Style::Silent
        };
        let run = run_and_report(config, style, shutdown, self.grace()).await?;
        source.stop().await;
        let end = end_of(&run.outcome, shutdown);
        if end != End::Done {
            print_failures(&run.outcome, shutdown);
            return Ok(end);
        }
        print_status("verifying every range of every tar");
        let archive = Arc::new(FolderArchive::new(archive));
        let verdict = verify::check(archive, None, true, &shutdown.graceful).await?;
        verify::print_problems(&verdict);
        print_text(&table(&run, ResourceUsage::so_far()));
        print(&format!(
            "verified: {} ranges, {} hashes, {} problems",
            humanize::grouped(verdict.ranges),
            humanize::grouped(verdict.hashes),
            verdict.damages.len() + verdict.unreadable.len()
        ));
        Ok(verify::end_of(&verdict))
    }
}

fn table(run: &FinishedRun, usage: ResourceUsage) -> String {
    let outcome = &run.outcome;
    let mut text = String::from(
        "prefix   ranges     hashes       data        tar     time   ranges/s  linear memory\n",
    );
    for stored in outcome.stored.values() {
        text.push_str(&row(stored));
    }
    let (totals, elapsed) = (outcome.totals(), run.elapsed);
    let _ = writeln!(
        text,
        "all    {:>8} {:>10} {:>10} {:>10} {:>8} {:>10} {:>14}",
        humanize::grouped(totals.ranges),
        humanize::grouped(totals.hashes),
        humanize::data(totals.data_bytes),
        humanize::data(totals.content_length),
        humanize::duration(elapsed),
        humanize::grouped(humanize::per_second(totals.ranges, elapsed)),
        humanize::memory(outcome.linear_memory_peak()),
    );
    let _ = write!(
        text,
        "\n{}/s, peak linear memory of an invocation {} (the Go program before it: {ARTICLE_HEAP_MB} of heap, \
         {ARTICLE_TUNED_MB} after tuning)\npeak RSS of this process, which includes the generator, the source, the \
         store and the verifier: {}; CPU {}",
        humanize::data(humanize::per_second(totals.data_bytes, elapsed)),
        humanize::memory(outcome.linear_memory_peak()),
        humanize::memory(usage.rss_peak_bytes),
        humanize::duration(usage.cpu),
    );
    text
}

fn row(stored: &StoredPrefix) -> String {
    let totals = stored.totals;
    format!(
        "{:<6} {:>8} {:>10} {:>10} {:>10} {:>8} {:>10} {:>14}\n",
        stored.prefix.to_string(),
        humanize::grouped(totals.ranges),
        humanize::grouped(totals.hashes),
        humanize::data(totals.data_bytes),
        humanize::data(totals.content_length),
        humanize::duration(stored.duration),
        humanize::grouped(humanize::per_second(totals.ranges, stored.duration)),
        humanize::memory(stored.linear_memory_peak),
    )
}
