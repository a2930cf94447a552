//! Reports to a terminal: one bar over all ranges, with retries and failures above it.

use super::output::Output;
use super::screen::draw_target;
use super::{
    READ_DENIED_LINE, Reporter, base_unusable_line, deferred_line, failed_line, outage_ended_line,
    outage_line, pausing_line, retrying_line, skipped_line, took_over_line, waiting_line,
};
use crate::host::InvocationProgress;
use crate::humanize;
use crate::run::event::RunEvent;
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use prefix_tar::protocol::prefix::{Prefix, RANGES_PER_PREFIX};
use prefix_tar::protocol::text::escaped;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// How often the bar is redrawn without an event, so that its clock runs.
const TICK: Duration = Duration::from_millis(250);

/// Prefixes in progress that are listed by name; the rest are counted.
const NAMED_MAX: usize = 8;

/// Draws a bar.
pub(super) struct Terminal {
    bar: ProgressBar,
    prefixes: usize,
    /// The prefixes in progress.
    in_progress: BTreeMap<Prefix, InvocationProgress>,
    stored: usize,
    failed: usize,
    /// Ranges of the prefixes that have ended.
    decided_ranges: u64,
    data_bytes: u64,
    /// What the present outage is.
    outage: Option<String>,
}

impl Terminal {
    pub(super) fn new(out: Output, prefixes: usize) -> Self {
        let ranges = prefixes as u64 * u64::from(RANGES_PER_PREFIX);
        let bar = ProgressBar::with_draw_target(Some(ranges), draw_target(out));
        let style = ProgressStyle::with_template(
            "[{elapsed_precise}] {bar:28} {human_pos}/{human_len} ranges, {rate}/s, {left}\n{msg}",
        );
        if let Ok(style) = style {
            let rate = |state: &ProgressState, out: &mut dyn Write| {
                // The next redraw makes up for one that failed.
                let _ = write!(out, "{}", humanize::grouped(state.per_sec() as u64));
            };
            let left = |state: &ProgressState, out: &mut dyn Write| {
                let _ = match state.per_sec() {
                    // During an outage, indicatif's estimate is 0 s.
                    ..1.0 => out.write_str("time left unknown"),
                    _ => write!(out, "{:#} left", HumanDuration(state.eta())),
                };
            };
            let style = style.with_key("rate", rate).with_key("left", left);
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            prefixes,
            in_progress: BTreeMap::new(),
            stored: 0,
            failed: 0,
            decided_ranges: 0,
            data_bytes: 0,
            outage: None,
        }
    }

    fn draw(&self) {
        let in_progress = self.in_progress.values();
        let ranges: u64 = in_progress.map(|progress| u64::from(progress.ranges)).sum();
        self.bar.set_position(self.decided_ranges + ranges);
        self.bar.set_message(self.message());
    }

    /// Prints a line above the bar, escaped before its width is measured.
    fn print(&self, line: &str) {
        self.bar.println(escaped(line));
    }

    fn message(&self) -> String {
        if let Some(outage) = &self.outage {
            return outage.clone();
        }
        let mut names: Vec<String> = self
            .in_progress
            .keys()
            .take(NAMED_MAX)
            .map(ToString::to_string)
            .collect();
        if let Some(more) = self.in_progress.len().checked_sub(NAMED_MAX + 1) {
            names.push(format!("and {} more", more + 1));
        }
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        let in_progress = self.in_progress.values();
        let data_bytes: u64 = in_progress.map(|progress| progress.data_bytes).sum();
        format!(
            "{}/{} prefixes stored{failed}, {}; in progress: {}",
            self.stored,
            self.prefixes,
            humanize::data(self.data_bytes + data_bytes),
            names.join(" "),
        )
    }
}

impl Reporter for Terminal {
    fn report(&mut self, event: &RunEvent) {
        match event {
            RunEvent::TookOver { owner } => self.print(&took_over_line(owner)),
            RunEvent::ReadDenied => self.print(READ_DENIED_LINE),
            RunEvent::BaseUnusable { prefix, reason } => {
                self.print(&base_unusable_line(*prefix, reason));
            }
            RunEvent::Skipped(skipped) => {
                self.print(&skipped_line(skipped.len()));
                self.stored += skipped.len();
                for stored in skipped {
                    self.decided_ranges += stored.totals.ranges;
                    self.data_bytes += stored.totals.data_bytes;
                }
            }
            RunEvent::Began { prefix, .. } => {
                self.in_progress
                    .insert(*prefix, InvocationProgress::default());
            }
            RunEvent::Progress { prefix, progress } => {
                self.in_progress.insert(*prefix, *progress);
            }
            RunEvent::Retrying {
                prefix,
                failure,
                wait,
            } => {
                self.in_progress
                    .insert(*prefix, InvocationProgress::default());
                self.print(&retrying_line(*prefix, failure, *wait));
            }
            RunEvent::Outage {
                failure,
                elapsed,
                give_up_after,
            } => {
                self.outage =
                    Some(escaped(&outage_line(failure, *elapsed, *give_up_after)).into_owned())
            }
            RunEvent::OutageEnded { elapsed } => {
                if self.outage.take().is_some() {
                    self.print(&outage_ended_line(*elapsed));
                }
            }
            RunEvent::Waiting { wait } => self.print(&waiting_line(*wait)),
            RunEvent::Deferred(failed) => {
                self.in_progress.remove(&failed.prefix);
                self.print(&deferred_line(failed));
            }
            RunEvent::Pausing { wait, prefixes } => self.print(&pausing_line(*wait, *prefixes)),
            RunEvent::Stored(stored) => {
                self.in_progress.remove(&stored.prefix);
                self.stored += 1;
                self.decided_ranges += stored.totals.ranges;
                self.data_bytes += stored.totals.data_bytes;
            }
            RunEvent::Failed(failed) => {
                self.in_progress.remove(&failed.prefix);
                self.failed += 1;
                self.decided_ranges += u64::from(RANGES_PER_PREFIX);
                self.print(&failed_line(failed));
            }
        }
        self.draw();
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::output::tests::captured;
    use crate::progress::tests::events;

    #[test]
    fn a_terminal_gets_a_bar_and_lines_that_cannot_forge_another() {
        let (out, text) = captured();
        let mut terminal = Terminal::new(out.clone(), 3);
        for event in events() {
            terminal.report(&event);
        }
        terminal.report(&RunEvent::TookOver {
            owner: "a\nerror: forged\u{1b}]0;title\u{7}".to_owned(),
        });
        terminal.end();
        let drawn = text.all_of(&out);
        for expected in [
            "skipped 1 prefix",
            "01 retrying in 0.50 s: range 017FF",
            "01 failed: source_status",
            "2/3 prefixes stored, 1 failed",
            r"(a\u{a}error: forged\u{1b}]0;title\u{7})",
        ] {
            assert!(drawn.contains(expected), "{expected}: {drawn:?}");
        }
        // The bar itself moves the cursor and clears lines.
        let rest = without_moves(&drawn);
        assert!(!rest.contains(char::is_control), "{rest:?}");
    }

    /// What was drawn, without the sequences of the bar.
    fn without_moves(drawn: &str) -> String {
        let mut rest = drawn.replace(['\r', '\n'], "");
        for n in 0..10 {
            for direction in ['A', 'B', 'K'] {
                rest = rest.replace(&format!("\u{1b}[{n}{direction}"), "");
            }
        }
        rest
    }
}
