//! Reports to a pipe or a log: a line for every event but starts and progress.

use super::output::{Output, Urgency};
use super::{
    READ_DENIED_LINE, Reporter, base_unusable_line, deferred_line, failed_line, outage_ended_line,
    outage_line, pausing_line, retrying_line, skipped_line, stored_line, took_over_line,
    waiting_line,
};
use crate::run::event::RunEvent;
use std::time::Duration;

/// How often an outage is mentioned.
const OUTAGE_INTERVAL: Duration = Duration::from_secs(60);

/// Writes lines.
pub(super) struct Lines {
    out: Output,
    prefixes: usize,
    decided: usize,
    /// When the present outage was last mentioned, in time since its beginning.
    outage_mentioned: Option<Duration>,
}

impl Lines {
    pub(super) const fn new(out: Output, prefixes: usize) -> Self {
        Self {
            out,
            prefixes,
            decided: 0,
            outage_mentioned: None,
        }
    }

    fn decide(&mut self, line: &str) {
        self.decided += 1;
        let line = format!("[{}/{}] {line}", self.decided, self.prefixes);
        self.out.line(Urgency::Event, &line);
    }
}

impl Reporter for Lines {
    fn report(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Began { .. } | RunEvent::Progress { .. } => {}
            RunEvent::TookOver { owner } => {
                self.out.line(Urgency::Event, &took_over_line(owner));
            }
            RunEvent::ReadDenied => {
                self.out.line(Urgency::Event, READ_DENIED_LINE);
            }
            RunEvent::BaseUnusable { prefix, reason } => {
                let line = base_unusable_line(*prefix, reason);
                self.out.line(Urgency::Event, &line);
            }
            RunEvent::Skipped(skipped) => {
                self.decided += skipped.len() - 1;
                self.decide(&skipped_line(skipped.len()));
            }
            RunEvent::Retrying {
                prefix,
                failure,
                wait,
            } => {
                let line = retrying_line(*prefix, failure, *wait);
                self.out.line(Urgency::Event, &line);
            }
            RunEvent::Outage {
                failure,
                elapsed,
                give_up_after,
            } => {
                let is_due = self
                    .outage_mentioned
                    .is_none_or(|mentioned| *elapsed >= mentioned + OUTAGE_INTERVAL);
                if is_due {
                    self.outage_mentioned = Some(*elapsed);
                    let line = outage_line(failure, *elapsed, *give_up_after);
                    self.out.line(Urgency::Event, &line);
                }
            }
            RunEvent::OutageEnded { elapsed } => {
                if self.outage_mentioned.take().is_some() {
                    self.out.line(Urgency::Event, &outage_ended_line(*elapsed));
                }
            }
            RunEvent::Waiting { wait } => {
                self.out.line(Urgency::Event, &waiting_line(*wait));
            }
            RunEvent::Deferred(failed) => {
                self.out.line(Urgency::Event, &deferred_line(failed));
            }
            RunEvent::Pausing { wait, prefixes } => {
                self.out
                    .line(Urgency::Event, &pausing_line(*wait, *prefixes));
            }
            RunEvent::Stored(stored) => self.decide(&stored_line(stored)),
            RunEvent::Failed(failed) => self.decide(&failed_line(failed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::output::tests::captured;
    use crate::progress::tests::events;

    #[test]
    fn a_pipe_gets_a_line_for_everything_that_is_decided() {
        let (out, text) = captured();
        let mut lines = Lines::new(out.clone(), 3);
        for event in events() {
            lines.report(&event);
        }
        insta::assert_snapshot!(text.all_of(&out), @r"
        warning: an earlier run died and left its lock (process 7 on a, since b); resuming its work
        warning: this account may not read what it writes, so nothing is read back; grant storage.objects.get to have it checked
        warning: every range is fetched, because the base cannot be used: there is no archive
        warning: 01 goes on without the base: the base has no tar of it that is whole and fits its report
        [1/3] skipped 1 prefix stored by an earlier run; --force mirrors them again
        01 retrying in 0.50 s: range 017FF: GET from http://127.0.0.1:8080 answered 503
        01 is put off until the others are done: range 017FF: GET from http://127.0.0.1:8080 answered 503
        trying 1 prefix again in 12.00 s
        [2/3] 00 stored: 137.6 MB in 0.50 s, 8,192 ranges/s, 3.0 MiB of linear memory, 2 attempts
        [3/3] 01 failed: source_status
        ");
    }
}
