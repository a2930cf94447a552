//! Progress on a terminal: one bar over all ranges, and above it what went wrong.

use super::{Show, failed_line, kept_line, retrying_line, took_over_line};
use crate::dispatch::Update;
use crate::figures;
use crate::host::InvocationProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use prefix_tar::prefix::{Prefix, RANGES_PER_PREFIX};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// How often the bar is drawn without anything new, so that its clock runs.
const TICK: Duration = Duration::from_millis(250);

/// How often the bar is drawn at the most, per second.
const DRAWS_PER_SECOND: u8 = 10;

/// Prefixes that are named as under way; the rest is counted.
const NAMED_MAX: usize = 8;

/// Draws a bar.
pub(super) struct Terminal {
    bar: ProgressBar,
    prefixes: usize,
    /// How far each prefix is that is under way.
    under_way: BTreeMap<Prefix, InvocationProgress>,
    stored: usize,
    failed: usize,
    /// Ranges of the prefixes that are decided.
    decided_ranges: u64,
    data_bytes: u64,
}

impl Terminal {
    pub(super) fn new(prefixes: usize) -> Self {
        let ranges = prefixes as u64 * u64::from(RANGES_PER_PREFIX);
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(Some(ranges), target);
        let style = ProgressStyle::with_template(
            "[{elapsed_precise}] {bar:28} {human_pos}/{human_len} ranges, {rate}/s, {eta} left\n{msg}",
        );
        if let Ok(style) = style {
            let rate = |state: &ProgressState, out: &mut dyn Write| {
                // What cannot be drawn is drawn the next time.
                let _ = write!(out, "{}", figures::grouped(state.per_sec() as u64));
            };
            bar.set_style(style.progress_chars("=> ").with_key("rate", rate));
        }
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            prefixes,
            under_way: BTreeMap::new(),
            stored: 0,
            failed: 0,
            decided_ranges: 0,
            data_bytes: 0,
        }
    }

    fn draw(&self) {
        let under_way = self.under_way.values();
        let ranges: u64 = under_way.map(|progress| u64::from(progress.ranges)).sum();
        self.bar.set_position(self.decided_ranges + ranges);
        self.bar.set_message(self.message());
    }

    fn message(&self) -> String {
        let mut names: Vec<String> = self
            .under_way
            .keys()
            .take(NAMED_MAX)
            .map(ToString::to_string)
            .collect();
        if let Some(more) = self.under_way.len().checked_sub(NAMED_MAX + 1) {
            names.push(format!("and {} more", more + 1));
        }
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        let under_way = self.under_way.values();
        let data_bytes: u64 = under_way.map(|progress| progress.data_bytes).sum();
        format!(
            "{}/{} prefixes stored{failed}, {}; under way: {}",
            self.stored,
            self.prefixes,
            figures::data(self.data_bytes + data_bytes),
            names.join(" "),
        )
    }
}

impl Show for Terminal {
    fn update(&mut self, update: &Update) {
        match update {
            Update::TookOver { owner } => self.bar.println(took_over_line(owner)),
            Update::Kept(kept) => {
                self.bar.println(kept_line(kept.len()));
                self.stored += kept.len();
                for kept in kept {
                    self.decided_ranges += kept.totals.ranges;
                    self.data_bytes += kept.totals.data_bytes;
                }
            }
            Update::Began { prefix, .. } => {
                self.under_way
                    .insert(*prefix, InvocationProgress::default());
            }
            Update::Progress { prefix, progress } => {
                self.under_way.insert(*prefix, *progress);
            }
            Update::Retrying {
                prefix,
                failure,
                wait,
            } => {
                self.under_way
                    .insert(*prefix, InvocationProgress::default());
                self.bar.println(retrying_line(*prefix, failure, *wait));
            }
            Update::Stored(stored) => {
                self.under_way.remove(&stored.prefix);
                self.stored += 1;
                self.decided_ranges += stored.totals.ranges;
                self.data_bytes += stored.totals.data_bytes;
            }
            Update::Failed(failed) => {
                self.under_way.remove(&failed.prefix);
                self.failed += 1;
                self.decided_ranges += u64::from(RANGES_PER_PREFIX);
                self.bar.println(failed_line(failed));
            }
        }
        self.draw();
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
