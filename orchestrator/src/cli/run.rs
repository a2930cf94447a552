//! `run`: the main job, from the command line.

use super::{End, destination, print, tell};
use crate::cost::Cost;
use crate::destination::DestinationName;
use crate::destination::bucket::ObjectOptions;
use crate::dispatch::{FailedPrefix, Outcome, PARALLEL_MAX, Settings, Stop, UPDATES_MAX};
use crate::figures;
use crate::host::embedded::DEADLINE_DEFAULT;
use crate::host::remote::ComponentUrl;
use crate::invoke_token;
use crate::mirror::{HostChoice, Mirror, Mirrored, RemoteComponents};
use crate::plan::PrefixSet;
use crate::progress::{self, Style};
use crate::retry::FIRST_WAIT_MAX;
use clap::{Args, ValueEnum};
use prefix_tar::limits::{WINDOW_DEFAULT, WINDOW_MAX};
use prefix_tar::prefix::Prefix;
use prefix_tar::source::{Encoding, PWNED_PASSWORDS_URL, SourceUrl};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const EXAMPLES: &str = "\
Examples:
  orchestrator run                                    everything, into ./archive
  orchestrator run --to /srv/pwned --prefixes 00-1F,AB
  orchestrator run --source http://127.0.0.1:8080 --to ./archive -p 2
  orchestrator run --to /srv/pwned --force            what a monthly job runs: all of it anew
  orchestrator run --to 'gs://my-bucket/pwned/{month}'  the same, and last month's stays
  orchestrator run --component http://127.0.0.1:3000 --token-file ./token
  orchestrator run --json | jq -c 'select(.event == \"stored\")'";

/// Mirror a range API: one tar, one report per prefix, and a manifest when all are there
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// The range API to mirror
    #[arg(long, value_name = "URL", default_value = PWNED_PASSWORDS_URL)]
    source: SourceUrl,

    /// The archive: a folder, made where it is not there, or gs://bucket/path; {month} in it becomes 2026-11
    #[arg(long, value_name = "DEST", default_value = "./archive", value_parser = destination)]
    to: DestinationName,

    #[command(flatten)]
    prefixes: Prefixes,

    #[command(flatten)]
    tuning: Tuning,

    /// Trust the CA certificates of this PEM file besides the platform's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Run this component instead of the one that the orchestrator carries
    #[arg(long, value_name = "FILE", conflicts_with = "components")]
    component_file: Option<PathBuf>,

    #[command(flatten)]
    remote: Remote,

    #[command(flatten)]
    objects: Objects,

    /// Mirror everything anew, also what an earlier run has left whole
    #[arg(long)]
    force: bool,

    /// Print events and the result as lines of JSON to standard output
    #[arg(long)]
    json: bool,
}

/// Which prefixes.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Prefixes {
    /// The first N prefixes, 1 to 256
    #[arg(short = 'p', value_name = "N", value_parser = PrefixSet::first)]
    first: Option<PrefixSet>,

    /// These prefixes: single ones and spans, as in 00-1F,AB  [default: all 256]
    #[arg(long = "prefixes", value_name = "LIST")]
    listed: Option<PrefixSet>,
}

impl Prefixes {
    pub(super) fn or_all(self) -> PrefixSet {
        self.first.or(self.listed).unwrap_or_else(PrefixSet::all)
    }
}

/// How objects of a bucket are stored.
#[derive(Debug, Args)]
pub(super) struct Objects {
    /// Another store than Google's for gs://  [default: $STORAGE_EMULATOR_HOST, or Google's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// Store objects of gs:// in this class instead of the bucket's
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,

    /// Encrypt objects of gs:// with this key of Cloud KMS
    #[arg(long, value_name = "KEY")]
    kms_key: Option<String>,

    /// Store objects of gs:// with this Cache-Control
    #[arg(long, value_name = "VALUE")]
    cache_control: Option<String>,
}

impl Objects {
    fn options(self) -> ObjectOptions {
        ObjectOptions {
            endpoint: self.endpoint,
            storage_class: self.storage_class,
            kms_key: self.kms_key,
            cache_control: self.cache_control,
        }
    }
}

/// Components that run elsewhere.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// A component that runs elsewhere (spin up, wasmtime serve, a cluster); several share the prefixes
    #[arg(long = "component", value_name = "URL")]
    components: Vec<ComponentUrl>,

    /// The file with their bearer token, as `orchestrator token` makes one  [default: $PREFIX_TAR_TOKEN]
    #[arg(long, value_name = "FILE", requires = "components")]
    token_file: Option<PathBuf>,

    /// Where the archive's store listens for them; let UPLOAD_AUTHORITIES of the component name it
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9000",
        requires = "components"
    )]
    store_listen: SocketAddr,
}

impl Remote {
    fn host(self, component_file: Option<PathBuf>) -> anyhow::Result<HostChoice> {
        if self.components.is_empty() {
            return Ok(HostChoice::Embedded { component_file });
        }
        let token = match &self.token_file {
            Some(file) => invoke_token::read(file)?,
            None => invoke_token::from_environment()?,
        };
        Ok(HostChoice::Remote(RemoteComponents {
            components: self.components,
            token: Arc::new(token),
            store: self.store_listen,
        }))
    }
}

/// How a run is tuned.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Tuning {
    /// Invocations at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=PARALLEL_MAX as i64))]
    parallel: u16,

    /// Range requests in flight per invocation
    #[arg(long, value_name = "N", default_value_t = WINDOW_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=i64::from(WINDOW_MAX)))]
    window: u16,

    /// How ranges are asked for; auto is gzip over a network and identity on this machine
    #[arg(long, value_name = "CODING", value_enum, default_value_t = EncodingChoice::Auto)]
    encoding: EncodingChoice,

    /// Stop an invocation after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEADLINE_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
}

impl Tuning {
    pub(super) fn settings(self) -> Settings {
        Settings {
            parallel: usize::from(self.parallel),
            window: Some(self.window),
            first_wait_max: FIRST_WAIT_MAX,
        }
    }

    pub(super) const fn encoding(self) -> Option<Encoding> {
        match self.encoding {
            EncodingChoice::Auto => None,
            EncodingChoice::Gzip => Some(Encoding::Gzip),
            EncodingChoice::Identity => Some(Encoding::Identity),
        }
    }

    pub(super) const fn deadline(self) -> Duration {
        Duration::from_secs(self.deadline)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EncodingChoice {
    Auto,
    Gzip,
    Identity,
}

impl Run {
    pub(super) async fn run(self, stop: Stop) -> anyhow::Result<End> {
        let archive = self.to.to_string();
        let mirror = Mirror {
            source: self.source,
            to: self.to,
            object_options: self.objects.options(),
            prefixes: self.prefixes.or_all(),
            settings: self.tuning.settings(),
            encoding: self.tuning.encoding(),
            deadline: self.tuning.deadline(),
            ca_file: self.ca_file,
            force: self.force,
            host: self.remote.host(self.component_file)?,
        };
        let style = match (self.json, std::io::stderr().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Terminal,
            (false, false) => Style::Lines,
        };
        let mirrored = mirror_and_show(mirror, style, &stop).await?;
        if self.json {
            print(&result_json(&mirrored, &stop));
        } else {
            print_result(&mirrored, &archive);
        }
        tell_failures(&mirrored.outcome, &stop);
        Ok(end_of(&mirrored.outcome, &stop))
    }
}

/// Mirrors, and shows how it goes.
pub(super) async fn mirror_and_show(
    mirror: Mirror,
    style: Style,
    stop: &Stop,
) -> anyhow::Result<Mirrored> {
    let (sender, updates) = mpsc::channel(UPDATES_MAX);
    let shown = tokio::spawn(progress::show(updates, style, mirror.prefixes.count()));
    let stopping = stop.gently.clone();
    let notice = tokio::spawn(async move {
        stopping.cancelled().await;
        tell("stopping: what is under way will end; press Ctrl-C again to give it up");
    });
    let mirrored = mirror.run(stop.clone(), sender).await;
    notice.abort();
    // The sender is gone, so this ends; that a line could not be shown changes nothing.
    let _ = shown.await;
    mirrored
}

/// How a run ended, for the exit code.
pub(super) fn end_of(outcome: &Outcome, stop: &Stop) -> End {
    if outcome.is_complete() {
        End::Done
    } else if stop.gently.is_cancelled() {
        End::Stopped
    } else {
        End::Failed
    }
}

/// The linear memory of the invocation that had the most.
pub(super) fn linear_memory_peak(outcome: &Outcome) -> u64 {
    outcome
        .stored
        .values()
        .map(|stored| stored.linear_memory_peak)
        .max()
        .unwrap_or(0)
}

fn print_result(mirrored: &Mirrored, archive: &str) {
    let outcome = &mirrored.outcome;
    let (totals, elapsed) = (outcome.totals(), mirrored.elapsed);
    if totals.prefixes > 0 {
        print_cost(outcome, elapsed);
    }
    if outcome.is_complete() {
        print(&format!("the archive is complete: {archive}"));
    }
}

fn print_cost(outcome: &Outcome, elapsed: Duration) {
    let (totals, cost) = (outcome.totals(), Cost::so_far());
    print(&format!(
        "stored {}, {} ranges, {} in {}: {} ranges/s, {}/s",
        figures::prefixes(outcome.stored.len()),
        figures::grouped(totals.ranges),
        figures::data(totals.data_bytes),
        figures::duration(elapsed),
        figures::grouped(figures::per_second(totals.ranges, elapsed)),
        figures::data(figures::per_second(totals.data_bytes, elapsed)),
    ));
    print(&format!(
        "peak linear memory {}, peak RSS {}, CPU {}",
        figures::memory(linear_memory_peak(outcome)),
        figures::memory(cost.rss_peak_bytes),
        figures::duration(cost.cpu),
    ));
}

fn result_json(mirrored: &Mirrored, stop: &Stop) -> String {
    let outcome = &mirrored.outcome;
    let cost = Cost::so_far();
    serde_json::json!({
        "event": "end",
        "complete": outcome.is_complete(),
        "stopped": stop.gently.is_cancelled(),
        "totals": outcome.totals(),
        "kept": outcome.kept.len(),
        "failed": outcome.failed.keys().collect::<Vec<_>>(),
        "not_done": outcome.not_done,
        "seconds": mirrored.elapsed.as_secs_f64(),
        "linear_memory_peak": linear_memory_peak(outcome),
        "rss_peak": cost.rss_peak_bytes,
        "cpu_seconds": cost.cpu.as_secs_f64(),
    })
    .to_string()
}

/// Names what failed, once for every reason.
pub(super) fn tell_failures(outcome: &Outcome, stop: &Stop) {
    for line in failure_lines(outcome, stop.gently.is_cancelled()) {
        tell(&line);
    }
}

fn failure_lines(outcome: &Outcome, is_stopped: bool) -> Vec<String> {
    let mut reasons: BTreeMap<&str, Vec<&FailedPrefix>> = BTreeMap::new();
    for failed in outcome.failed.values() {
        reasons
            .entry(&failed.failure.message)
            .or_default()
            .push(failed);
    }
    let mut lines: Vec<String> = reasons
        .values()
        .filter_map(|failed| {
            let first = failed.first()?;
            let names = named(failed.iter().map(|failed| failed.prefix));
            let attempts = match first.attempts {
                1 => String::new(),
                attempts => format!(" (in each of {attempts} invocations)"),
            };
            Some(format!(
                "error: prefix {names}: {}{attempts}",
                first.failure
            ))
        })
        .collect();
    if !outcome.not_done.is_empty() {
        let why = if is_stopped {
            "the run was stopped"
        } else {
            "what failed would have failed them, too"
        };
        let count = figures::prefixes(outcome.not_done.len());
        lines.push(format!(
            "not done: {count}, because {why}; run again for them"
        ));
    }
    lines
}

/// Prefixes as a list; where they are many, the first ones and how many more.
fn named(prefixes: impl Iterator<Item = Prefix>) -> String {
    const NAMED_MAX: usize = 16;
    let mut names: Vec<String> = prefixes.map(|prefix| prefix.to_string()).collect();
    if let Some(more) = names.len().checked_sub(NAMED_MAX + 1) {
        names.truncate(NAMED_MAX);
        names.push(format!("and {} more", more + 1));
    }
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prefix_tar::failure::{Failure, FailureKind};

    #[test]
    fn failures_are_named_once_for_every_reason() {
        let mut outcome = Outcome::default();
        for number in 0..20 {
            let prefix = Prefix::from_number(number);
            let failure = Failure::lasting(
                FailureKind::SourceStatus,
                "GET from http://127.0.0.1:8080 answered 404",
            );
            let failed = FailedPrefix {
                prefix,
                failure: failure.at(prefix.range(0)),
                attempts: 1,
            };
            outcome.failed.insert(prefix, failed);
        }
        let prefix = Prefix::from_number(0xAB);
        let failure = Failure::passing(
            FailureKind::StoreStatus,
            "PUT of /archive/AB.tar to 127.0.0.1:9000 was answered 503",
        );
        let failed = FailedPrefix {
            prefix,
            failure,
            attempts: 4,
        };
        outcome.failed.insert(prefix, failed);
        outcome.not_done = vec![Prefix::from_number(0xFF)];
        insta::assert_snapshot!(failure_lines(&outcome, false).join("\n"), @r"
        error: prefix 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F and 4 more: range 00000: GET from http://127.0.0.1:8080 answered 404
        error: prefix AB: PUT of /archive/AB.tar to 127.0.0.1:9000 was answered 503 (in each of 4 invocations)
        not done: 1 prefix, because what failed would have failed them, too; run again for them
        ");
    }
}
