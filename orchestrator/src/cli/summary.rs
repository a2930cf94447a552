//! What `run` and `demo` print when a run has ended.

use super::{End, print, print_status};
use crate::humanize;
use crate::resource_usage::ResourceUsage;
use crate::run::outcome::{FailedPrefix, FinishedRun, Outcome};
use crate::run::shutdown::Shutdown;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a run ended, for the exit code.
pub(super) fn end_of(outcome: &Outcome, shutdown: &Shutdown) -> End {
    if outcome.is_complete() {
        End::Done
    } else if shutdown.graceful.is_cancelled() {
        End::Stopped
    } else {
        End::Failed
    }
}

/// Prints what the run stored and the resources used.
pub(super) fn print_result(run: &FinishedRun, archive: &str) {
    if !run.outcome.stored.is_empty() {
        print_cost(&run.outcome, run.elapsed);
    }
    if run.outcome.is_complete() {
        print(&format!("the archive is complete: {archive}"));
    }
}

fn print_cost(outcome: &Outcome, elapsed: Duration) {
    let (totals, usage) = (outcome.totals(), ResourceUsage::so_far());
    print(&format!(
        "stored {}, {} ranges, {} in {}: {} ranges/s, {}/s",
        humanize::prefixes(outcome.stored.len()),
        humanize::grouped(totals.ranges),
        humanize::data(totals.data_bytes),
        humanize::duration(elapsed),
        humanize::grouped(humanize::per_second(totals.ranges, elapsed)),
        humanize::data(humanize::per_second(totals.data_bytes, elapsed)),
    ));
    print(&format!(
        "peak linear memory {}, peak RSS {}, CPU {}",
        humanize::memory(outcome.linear_memory_peak()),
        humanize::memory(usage.rss_peak_bytes),
        humanize::duration(usage.cpu),
    ));
}

/// Prints every reason for a failure once, with the prefixes that share it.
pub(super) fn print_failures(outcome: &Outcome, shutdown: &Shutdown) {
    for line in failure_lines(outcome, shutdown.graceful.is_cancelled()) {
        print_status(&line);
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
            let names = humanize::listed(failed.iter().map(|failed| failed.prefix));
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
        let reason = if is_stopped {
            "the run was stopped"
        } else {
            "the failure above affects every prefix"
        };
        let count = humanize::prefixes(outcome.not_done.len());
        lines.push(format!(
            "not attempted: {count}, because {reason}; run the same command again to resume"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use prefix_tar::protocol::failure::{Failure, FailureKind};
    use prefix_tar::protocol::prefix::Prefix;

    #[test]
    fn every_reason_is_printed_once_with_its_prefixes() {
        let mut outcome = Outcome::default();
        for number in 0..20 {
            let prefix = Prefix::from_number(number);
            let failure = Failure::permanent(
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
        let failure = Failure::transient(
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
        not attempted: 1 prefix, because the failure above affects every prefix; run the same command again to resume
        ");
    }
}
