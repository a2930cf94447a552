//! Reports a run's events: to a terminal, to a pipe or to a program. It decides nothing.

pub mod counter;
mod json;
mod lines;
pub mod output;
mod screen;
mod terminal;

use crate::humanize;
use crate::run::event::RunEvent;
use crate::run::outcome::{FailedPrefix, StoredPrefix};
use output::Urgency;
use prefix_tar::protocol::failure::Failure;
use prefix_tar::protocol::prefix::Prefix;
use std::time::Duration;
use tokio::sync::mpsc;

/// Where and how events are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A progress bar on stderr.
    Terminal,
    /// A line on stderr for every event but starts and progress.
    Lines,
    /// A line of JSON on stdout for every event.
    Json,
    /// Nothing.
    Silent,
}

/// Reports events until the run ends. `prefixes` is the number of prefixes in the run.
///
/// It blocks, so its thread must not be one of a runtime's workers. A reader that stops reading
/// holds it up once, for [`output`]'s patience with such a reader.
pub fn report(mut events: mpsc::Receiver<RunEvent>, style: Style, prefixes: usize) {
    let (out, err) = (output::stdout, output::stderr);
    let mut reporter: Box<dyn Reporter> = match style {
        Style::Terminal => Box::new(terminal::Terminal::new(err().clone(), prefixes)),
        Style::Lines => Box::new(lines::Lines::new(err().clone(), prefixes)),
        Style::Json => Box::new(json::Json::new(out().clone(), err().clone())),
        Style::Silent => Box::new(Silent),
    };
    while let Some(event) = events.blocking_recv() {
        reporter.report(&event);
    }
    reporter.end();
}

/// Reports events. An event that cannot be written is lost; the run does not depend on it.
trait Reporter {
    fn report(&mut self, event: &RunEvent);

    fn end(&mut self) {}
}

struct Silent;

impl Reporter for Silent {
    fn report(&mut self, _event: &RunEvent) {}
}

/// How urgent an event is to its reader.
const fn urgency(event: &RunEvent) -> Urgency {
    match event {
        RunEvent::Progress { .. } => Urgency::Progress,
        _ => Urgency::Event,
    }
}

const READ_DENIED_LINE: &str = "warning: this account may not read what it writes, so nothing is read back; grant storage.objects.get to have it checked";

fn took_over_line(owner: &str) -> String {
    format!("warning: an earlier run died and left its lock ({owner}); resuming its work")
}

fn base_unusable_line(prefix: Option<Prefix>, reason: &str) -> String {
    match prefix {
        Some(prefix) => format!("warning: {prefix} goes on without the base: {reason}"),
        None => {
            format!("warning: every range is fetched, because the base cannot be used: {reason}")
        }
    }
}

fn skipped_line(prefixes: usize) -> String {
    let prefixes = humanize::prefixes(prefixes);
    format!("skipped {prefixes} stored by an earlier run; --force mirrors them again")
}

/// An outage as one line: what is down, since when, and when the run gives up.
fn outage_line(failure: &Failure, elapsed: Duration, give_up_after: Duration) -> String {
    format!(
        "no progress for {}, giving up after {}: {failure}",
        humanize::duration(elapsed),
        humanize::duration(give_up_after)
    )
}

fn outage_ended_line(elapsed: Duration) -> String {
    format!(
        "resumed after {} without progress",
        humanize::duration(elapsed)
    )
}

fn waiting_line(wait: Duration) -> String {
    format!(
        "an unfinished run has written here; waiting {} until none of its uploads can arrive any more",
        humanize::duration(wait)
    )
}

fn stored_line(stored: &StoredPrefix) -> String {
    let totals = stored.totals;
    let rate = humanize::per_second(totals.ranges, stored.duration);
    let attempts = match stored.attempts {
        1 => String::new(),
        attempts => format!(", {attempts} attempts"),
    };
    let reused = match (stored.reused.unchanged_prefixes, stored.reused.ranges) {
        (0, 0) => String::new(),
        (0, ranges) => format!(", {} ranges from the base", humanize::grouped(ranges)),
        _ => return unchanged_line(stored),
    };
    format!(
        "{} stored: {} in {}, {} ranges/s, {} of linear memory{reused}{attempts}",
        stored.prefix,
        humanize::data(totals.data_bytes),
        humanize::duration(stored.duration),
        humanize::grouped(rate),
        humanize::memory(stored.linear_memory_peak),
    )
}

fn unchanged_line(stored: &StoredPrefix) -> String {
    format!(
        "{} unchanged: {} kept, {} requests in {}",
        stored.prefix,
        humanize::data(stored.totals.data_bytes),
        humanize::grouped(stored.totals.requests),
        humanize::duration(stored.duration),
    )
}

fn retrying_line(prefix: Prefix, failure: &Failure, wait: Duration) -> String {
    let wait = humanize::duration(wait);
    format!("{prefix} retrying in {wait}: {failure}")
}

fn deferred_line(failed: &FailedPrefix) -> String {
    format!(
        "{} is put off until the others are done: {}",
        failed.prefix, failed.failure
    )
}

fn pausing_line(wait: Duration, prefixes: usize) -> String {
    format!(
        "trying {} again in {}",
        humanize::prefixes(prefixes),
        humanize::duration(wait)
    )
}

/// Only the kind: the summary states each reason once for all the prefixes that share it.
fn failed_line(failed: &FailedPrefix) -> String {
    format!("{} failed: {}", failed.prefix, failed.failure.kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::{ManifestObject, Totals};
    use crate::host::InvocationProgress;
    use crate::run::outcome::Reused;
    use prefix_tar::protocol::crc32c::Crc32c;
    use prefix_tar::protocol::failure::FailureKind;

    fn stored(first: Prefix) -> StoredPrefix {
        StoredPrefix {
            prefix: first,
            object: ManifestObject {
                prefix: first,
                object: "00.tar".to_owned(),
                content_length: 140_001_280,
                crc32c: Crc32c(1),
                generation: Some("7".to_owned()),
                run: None,
            },
            totals: Totals {
                prefixes: 1,
                ranges: 4096,
                hashes: 3_276_800,
                data_bytes: 137_600_000,
                content_length: 140_001_280,
                requests: 4096,
                retries: 0,
            },
            duration: Duration::from_millis(500),
            linear_memory_peak: 3 * 1024 * 1024,
            attempts: 2,
            reused: Reused::default(),
            cached_errors: Vec::new(),
        }
    }

    /// One of each event.
    pub(super) fn events() -> Vec<RunEvent> {
        let (first, second) = (Prefix::from_number(0), Prefix::from_number(1));
        let failure = Failure::transient(
            FailureKind::SourceStatus,
            "GET from http://127.0.0.1:8080 answered 503",
        )
        .at(second.range(0x7FF));
        let kept = StoredPrefix {
            prefix: Prefix::from_number(2),
            ..stored(first)
        };
        vec![
            RunEvent::TookOver {
                owner: "process 7 on a, since b".to_owned(),
            },
            RunEvent::ReadDenied,
            RunEvent::BaseUnusable {
                prefix: None,
                reason: "there is no archive".to_owned(),
            },
            RunEvent::BaseUnusable {
                prefix: Some(second),
                reason: "the base has no tar of it that is whole and fits its report".to_owned(),
            },
            RunEvent::Skipped(vec![kept]),
            RunEvent::Began {
                prefix: first,
                attempt: 1,
            },
            RunEvent::Progress {
                prefix: first,
                progress: InvocationProgress {
                    ranges: 512,
                    data_bytes: 17_203_200,
                    linear_memory: 2_818_048,
                },
            },
            RunEvent::Retrying {
                prefix: second,
                failure: failure.clone(),
                wait: Duration::from_millis(500),
            },
            RunEvent::Deferred(FailedPrefix {
                prefix: second,
                failure: failure.clone(),
                attempts: 4,
            }),
            RunEvent::Pausing {
                wait: Duration::from_secs(12),
                prefixes: 1,
            },
            RunEvent::Stored(stored(first)),
            RunEvent::Failed(FailedPrefix {
                prefix: second,
                failure,
                attempts: 4,
            }),
        ]
    }
}
