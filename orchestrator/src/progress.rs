//! Shows what dispatch tells: on a terminal, in a pipe, to a program.
//! It decides nothing.

pub mod counter;
mod json;
mod lines;
mod terminal;

use crate::dispatch::{FailedPrefix, StoredPrefix, Update};
use crate::figures;
use std::io::Write;
use tokio::sync::mpsc;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A bar that moves, on standard error.
    Terminal,
    /// A line for everything that is decided, on standard error.
    Lines,
    /// A line of JSON for everything, on standard output.
    Json,
    /// Nothing.
    Silent,
}

/// Shows updates until there are no more. `prefixes` is how many prefixes the run is about.
pub async fn show(mut updates: mpsc::Receiver<Update>, style: Style, prefixes: usize) {
    let mut shown: Box<dyn Show> = match style {
        Style::Terminal => Box::new(terminal::Terminal::new(prefixes)),
        Style::Lines => Box::new(lines::Lines::new(std::io::stderr(), prefixes)),
        Style::Json => Box::new(json::Json::new(std::io::stdout())),
        Style::Silent => Box::new(Silent),
    };
    while let Some(update) = updates.recv().await {
        shown.update(&update);
    }
    shown.end();
}

/// Something that shows updates. What cannot be written is left out: the run does not depend on it.
trait Show: Send {
    fn update(&mut self, update: &Update);

    fn end(&mut self) {}
}

struct Silent;

impl Show for Silent {
    fn update(&mut self, _update: &Update) {}
}

/// A line to wherever lines go; a pipe that was closed is not the run's fault.
fn write_line(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// What is said of a lock whose owner died.
fn took_over_line(owner: &str) -> String {
    format!("warning: a run that died had this archive ({owner}); going on where it ended")
}

/// What is said of what need not be done again.
fn kept_line(prefixes: usize) -> String {
    let prefixes = figures::prefixes(prefixes);
    format!("kept {prefixes} of an earlier run; --force does them again")
}

/// What is said of a prefix that is in the archive.
fn stored_line(stored: &StoredPrefix) -> String {
    let totals = stored.totals;
    let rate = figures::per_second(totals.ranges, stored.duration);
    let again = match stored.attempts {
        1 => String::new(),
        attempts => format!(", {attempts} attempts"),
    };
    format!(
        "{} stored: {} in {}, {} ranges/s, {} of linear memory{again}",
        stored.prefix,
        figures::data(totals.data_bytes),
        figures::duration(stored.duration),
        figures::grouped(rate),
        figures::memory(stored.linear_memory_peak),
    )
}

/// What is said of a prefix that is tried again.
fn retrying_line(
    prefix: prefix_tar::prefix::Prefix,
    failure: &prefix_tar::failure::Failure,
    wait: std::time::Duration,
) -> String {
    format!("{prefix} again in {}: {failure}", figures::duration(wait))
}

/// What is said of a prefix that failed. The reason is told at the end, once for all that have the same.
fn failed_line(failed: &FailedPrefix) -> String {
    format!("{} failed: {}", failed.prefix, failed.failure.kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::InvocationProgress;
    use crate::manifest::{ManifestObject, Totals};
    use prefix_tar::failure::{Failure, FailureKind};
    use prefix_tar::job::Crc32c;
    use prefix_tar::prefix::Prefix;
    use std::time::Duration;

    fn stored(first: Prefix) -> StoredPrefix {
        StoredPrefix {
            prefix: first,
            object: ManifestObject {
                prefix: first,
                object: "00.tar".to_owned(),
                content_length: 140_001_280,
                crc32c: Crc32c(1),
                generation: Some("7".to_owned()),
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
        }
    }

    /// One of each.
    pub(super) fn updates() -> Vec<Update> {
        let (first, second) = (Prefix::from_number(0), Prefix::from_number(1));
        let failure = Failure::passing(
            FailureKind::SourceStatus,
            "GET from http://127.0.0.1:8080 answered 503",
        )
        .at(second.range(0x7FF));
        let kept = StoredPrefix {
            prefix: Prefix::from_number(2),
            ..stored(first)
        };
        vec![
            Update::TookOver {
                owner: "process 7 on a, since b".to_owned(),
            },
            Update::Kept(vec![kept]),
            Update::Began {
                prefix: first,
                attempt: 1,
            },
            Update::Progress {
                prefix: first,
                progress: InvocationProgress {
                    ranges: 512,
                    data_bytes: 17_203_200,
                    linear_memory: 2_818_048,
                },
            },
            Update::Retrying {
                prefix: second,
                failure: failure.clone(),
                wait: Duration::from_millis(500),
            },
            Update::Stored(stored(first)),
            Update::Failed(FailedPrefix {
                prefix: second,
                failure,
                attempts: 4,
            }),
        ]
    }
}
