//! `demo`: everything in one process, offline, and what it cost.

use super::run::{end_of, linear_memory_peak, mirror_and_show, tell_failures};
use super::{End, generate, print, tell, verify};
use crate::cost::Cost;
use crate::destination::DestinationName;
use crate::destination::bucket::ObjectOptions;
use crate::dispatch::{Settings, Stop, StoredPrefix};
use crate::figures;
use crate::generate::Recipe;
use crate::host::embedded::DEADLINE_DEFAULT;
use crate::mirror::{HostChoice, Mirror, Mirrored};
use crate::plan::PrefixSet;
use crate::progress::Style;
use crate::range_api;
use crate::retry::FIRST_WAIT_MAX;
use clap::Args;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;
use tokio::net::TcpListener;

const EXAMPLES: &str = "\
Examples:
  orchestrator demo
  orchestrator demo -p 32 --parallel 16 --keep";

/// What the program that this replaces needed, as its article tells: the heap before a collection, and the
/// peak once tuned by hand.
const ARTICLE_HEAP_MB: &str = "722 MB";
const ARTICLE_TUNED_MB: &str = "410-433 MB";

/// See it work: generate, serve, store, run and verify in one process, then what it cost
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// The first N prefixes, 1 to 256
    #[arg(short = 'p', value_name = "N", default_value = "4", value_parser = PrefixSet::first)]
    prefixes: PrefixSet,

    /// Invocations at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=crate::dispatch::PARALLEL_MAX as i64))]
    parallel: u16,

    /// Keep the generated ranges and the archive, and say where they are
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(super) async fn run(self, stop: Stop) -> anyhow::Result<End> {
        let folder = tempfile::Builder::new()
            .prefix("prefix-tar-demo-")
            .tempdir()?;
        let end = self.run_in(folder.path(), &stop).await;
        if self.keep {
            print(&format!("kept: {}", folder.keep().display()));
        }
        end
    }

    /// Generates the ranges; answers whether it was not stopped.
    async fn generate(&self, ranges: &Path, stop: &Stop) -> anyhow::Result<bool> {
        let count = self.prefixes.count();
        tell(&format!(
            "generating {} ({} ranges) in {}",
            figures::prefixes(count),
            figures::grouped(count as u64 * 4096),
            ranges.display()
        ));
        let prefixes = self.prefixes.clone();
        let (done, _) = generate::write(Recipe::default(), prefixes, ranges, &stop.gently).await?;
        Ok(done == count)
    }

    async fn run_in(&self, folder: &Path, stop: &Stop) -> anyhow::Result<End> {
        let (ranges, archive) = (folder.join("ranges"), folder.join("archive"));
        if !self.generate(&ranges, stop).await? {
            return Ok(End::Stopped);
        }
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let source = range_api::start(listener, ranges)?;
        let mirror = Mirror {
            source: format!("http://{}", source.address()).parse()?,
            to: DestinationName::Folder(archive.clone()),
            object_options: ObjectOptions::default(),
            prefixes: self.prefixes.clone(),
            settings: Settings {
                parallel: usize::from(self.parallel),
                window: None,
                first_wait_max: FIRST_WAIT_MAX,
            },
            encoding: None,
            deadline: DEADLINE_DEFAULT,
            ca_file: None,
            force: false,
            host: HostChoice::Embedded {
                component_file: None,
            },
        };
        tell(&format!(
            "mirroring http://{} into {}",
            source.address(),
            archive.display()
        ));
        let style = if std::io::stderr().is_terminal() {
            Style::Terminal
        } else {
            Style::Silent
        };
        let mirrored = mirror_and_show(mirror, style, stop).await?;
        source.stop().await;
        let end = end_of(&mirrored.outcome, stop);
        if end != End::Done {
            tell_failures(&mirrored.outcome, stop);
            return Ok(end);
        }
        tell("verifying every range of every tar");
        let verdict = verify::read(Box::new(archive), true, &stop.gently).await?;
        for damage in &verdict.damages {
            tell(&format!("damaged: {damage}"));
        }
        print(&table(&mirrored, Cost::so_far()));
        print(&format!(
            "verified: {} ranges, {} hashes, {} damages",
            figures::grouped(verdict.ranges),
            figures::grouped(verdict.hashes),
            verdict.damages.len()
        ));
        Ok(if verdict.damages.is_empty() {
            End::Done
        } else {
            End::Failed
        })
    }
}

fn table(mirrored: &Mirrored, cost: Cost) -> String {
    let outcome = &mirrored.outcome;
    let mut text = String::from(
        "prefix   ranges     hashes       data        tar     time   ranges/s  linear memory\n",
    );
    for stored in outcome.stored.values() {
        text.push_str(&row(stored));
    }
    let (totals, elapsed) = (outcome.totals(), mirrored.elapsed);
    let _ = writeln!(
        text,
        "all    {:>8} {:>10} {:>10} {:>10} {:>8} {:>10} {:>14}",
        figures::grouped(totals.ranges),
        figures::grouped(totals.hashes),
        figures::data(totals.data_bytes),
        figures::data(totals.content_length),
        figures::duration(elapsed),
        figures::grouped(figures::per_second(totals.ranges, elapsed)),
        figures::memory(linear_memory_peak(outcome)),
    );
    let _ = write!(
        text,
        "\n{}/s, memory of an invocation at its peak {} (the program that this replaces: {ARTICLE_HEAP_MB} of heap, \
         {ARTICLE_TUNED_MB} once tuned)\npeak RSS of this process, with the generator, the source, the store and \
         the verifier in it: {}; CPU {}",
        figures::data(figures::per_second(totals.data_bytes, elapsed)),
        figures::memory(linear_memory_peak(outcome)),
        figures::memory(cost.rss_peak_bytes),
        figures::duration(cost.cpu),
    );
    text
}

fn row(stored: &StoredPrefix) -> String {
    let totals = stored.totals;
    format!(
        "{:<6} {:>8} {:>10} {:>10} {:>10} {:>8} {:>10} {:>14}\n",
        stored.prefix.to_string(),
        figures::grouped(totals.ranges),
        figures::grouped(totals.hashes),
        figures::data(totals.data_bytes),
        figures::data(totals.content_length),
        figures::duration(stored.duration),
        figures::grouped(figures::per_second(totals.ranges, stored.duration)),
        figures::memory(stored.linear_memory_peak),
    )
}
