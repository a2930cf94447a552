//! What `run` and `demo` print when a run has ended.

use super::{End, print, print_status};
use crate::humanize;
use crate::resource_usage::ResourceUsage;
use crate::run::outcome::{FailedPrefix, FinishedRun, Outcome};
use crate::run::shutdown::Shutdown;
use prefix_tar::protocol::report::CachedError;
use std::collections::{BTreeMap, BTreeSet};
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
    for line in [reused_line(outcome), cached_errors_line(outcome)]
        .into_iter()
        .flatten()
    {
        print(&line);
    }
    print(&format!(
        "peak linear memory {}, peak RSS {}, CPU {}",
        humanize::memory(outcome.linear_memory_peak()),
        humanize::memory(usage.rss_peak_bytes),
        humanize::duration(usage.cpu),
    ));
}

/// The ranges for which a cache had an error.
fn cached_errors_line(outcome: &Outcome) -> Option<String> {
    let errors = outcome
        .stored
        .values()
        .flat_map(|stored| &stored.cached_errors);
    let mut errors: Vec<&CachedError> = errors.collect();
    errors.sort_unstable_by_key(|error| error.range);
    let ranges = match errors.len() {
        1 => "1 range".to_owned(),
        count => format!("{count} ranges"),
    };
    let oldest = errors.iter().map(|error| error.age_seconds).max()?;
    let statuses: BTreeSet<u16> = errors.iter().map(|error| error.status).collect();
    let age = match oldest {
        0 => String::new(),
        seconds => format!(
            ", up to {} old",
            humanize::age(Duration::from_secs(seconds))
        ),
    };
    Some(format!(
        "a cache had errors ({}{age}) for {ranges}, which came under another cache key (?mode=sha1): {}",
        humanize::listed(statuses.into_iter()),
        humanize::listed(errors.iter().map(|error| error.range)),
    ))
}

/// What the run did not have to fetch and to upload, if it had a base.
fn reused_line(outcome: &Outcome) -> Option<String> {
    let (reused, totals) = (outcome.reused(), outcome.totals());
    (reused.ranges > 0).then(|| {
        format!(
            "from the base: {} of {} ranges, {} of {}; {} of {} tars unchanged and not uploaded",
            humanize::grouped(reused.ranges),
            humanize::grouped(totals.ranges),
            humanize::data(reused.data_bytes),
            humanize::data(totals.data_bytes),
            reused.unchanged_prefixes,
            totals.prefixes,
        )
    })
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
            let ranges: Vec<_> = failed
                .iter()
                .filter_map(|failed| failed.failure.range)
                .collect();
            let ranges = match ranges.as_slice() {
                [] => String::new(),
                [range] => format!("range {range}: "),
                ranges => format!("ranges {}: ", humanize::listed(ranges.iter())),
            };
            let attempts = match first.attempts {
                1 => String::new(),
                attempts => format!(" (in each of {attempts} invocations)"),
            };
            Some(format!(
                "error: prefix {names}: {ranges}{}{attempts}",
                first.failure.message
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
        error: prefix 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F and 4 more: ranges 00000 01000 02000 03000 04000 05000 06000 07000 08000 09000 0A000 0B000 0C000 0D000 0E000 0F000 and 4 more: GET from http://127.0.0.1:8080 answered 404
        error: prefix AB: PUT of /archive/AB.tar to 127.0.0.1:9000 was answered 503 (in each of 4 invocations)
        not attempted: 1 prefix, because the failure above affects every prefix; run the same command again to resume
        ");
    }
}
