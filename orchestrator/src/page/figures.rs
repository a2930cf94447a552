//! [`Figures`]: what the tables of the page say, computed from the manifest and the measurements.

use crate::archive::manifest::{Manifest, Totals};
use crate::archive::measurements::{MeasuredPrefix, Measurements};
use crate::timeline::Timeline;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::Prefix;
use std::collections::BTreeMap;

/// Rows of the table of the run over time.
const TIME_ROWS: usize = 12;

/// The figures of a run.
#[derive(Debug)]
pub struct Figures {
    /// The sums of the archive; `None` without a manifest.
    pub totals: Option<Totals>,
    /// How long the run took from its first to its last measurement, in seconds. The time between processes counts.
    pub seconds: f64,
    /// The largest linear memory of an invocation, in bytes.
    pub linear_memory_peak: u64,
    /// The largest heap of an invocation, in bytes.
    pub heap_peak: u64,
    /// The largest resident memory of a process, in bytes.
    pub rss_peak: u64,
    /// CPU time of all processes, in seconds.
    pub cpu_seconds: f64,
    /// Every prefix that was measured, in order.
    pub prefixes: Vec<PrefixRow>,
    /// The run in equal steps of time.
    pub over_time: Vec<TimeRow>,
    /// Repeated range requests by cause, the most frequent first.
    pub range_retries: Vec<(FailureKind, u64)>,
    /// Failed attempts at prefixes by cause, the most frequent first.
    pub failed_attempts: Vec<(FailureKind, u64)>,
}

/// What the table of prefixes says of one.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixRow {
    /// The prefix.
    pub prefix: Prefix,
    /// How long its last invocation took, in seconds; `None` if it failed.
    pub seconds: Option<f64>,
    /// Ranges in its tar, by its last point.
    pub ranges: u64,
    /// Its peak linear memory, in bytes.
    pub linear_memory_peak: u64,
    /// Its peak heap, in bytes.
    pub heap_peak: u64,
    /// Attempts.
    pub attempts: usize,
    /// Repeated range requests.
    pub range_retries: u64,
}

/// What the table over time says of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeRow {
    /// The end of the step, in seconds.
    pub seconds: f64,
    /// The largest linear memory of an invocation in the step, in bytes.
    pub linear_memory: u64,
    /// The largest resident memory of the process in the step, in bytes.
    pub rss: u64,
    /// Ranges per second.
    pub ranges_per_second: f64,
    /// Bytes of bodies received per second.
    pub bytes_in_per_second: f64,
}

impl Figures {
    /// Computes the figures.
    pub fn new(
        manifest: Option<&Manifest>,
        measurements: &Measurements,
        timeline: &Timeline<'_>,
    ) -> Self {
        let prefixes: Vec<PrefixRow> = measurements.invocations.iter().map(row).collect();
        let usages = measurements.processes.iter().map(|process| &process.usage);
        let rss_peak = usages.clone().flat_map(|usage| &usage.rss_bytes).max();
        let cpu = usages.filter_map(|usage| usage.cpu_milliseconds.last());
        let recordings = measurements
            .invocations
            .iter()
            .filter_map(|measured| measured.recording.as_ref());
        let retries = recordings.flat_map(|recording| &recording.retries);
        let failures = measurements
            .invocations
            .iter()
            .flat_map(|measured| &measured.attempts)
            .filter_map(|attempt| attempt.failure);
        Self {
            totals: manifest.map(|manifest| manifest.totals),
            seconds: timeline.milliseconds as f64 / 1000.0,
            linear_memory_peak: largest(&prefixes, |row| row.linear_memory_peak),
            heap_peak: largest(&prefixes, |row| row.heap_peak),
            rss_peak: rss_peak.copied().unwrap_or(0),
            cpu_seconds: cpu.sum::<u64>() as f64 / 1000.0,
            over_time: over_time(timeline),
            range_retries: by_cause(retries.map(|count| (count.kind, count.retries))),
            failed_attempts: by_cause(failures.map(|kind| (kind, 1))),
            prefixes,
        }
    }

    /// The prefixes that took longest, longest first.
    pub fn slowest(&self, count: usize) -> Vec<&PrefixRow> {
        let mut rows: Vec<&PrefixRow> = self.prefixes.iter().collect();
        rows.sort_by(|one, other| {
            let seconds = |row: &PrefixRow| row.seconds.unwrap_or(0.0);
            seconds(other).total_cmp(&seconds(one))
        });
        rows.truncate(count);
        rows
    }
}

fn largest(rows: &[PrefixRow], of: impl Fn(&PrefixRow) -> u64) -> u64 {
    rows.iter().map(of).max().unwrap_or(0)
}

fn row(measured: &MeasuredPrefix) -> PrefixRow {
    let recording = measured.recording.as_ref();
    let in_recording = recording.and_then(|recording| recording.linear_memory.iter().max());
    let in_recording = in_recording.copied().unwrap_or(0);
    PrefixRow {
        prefix: measured.prefix,
        seconds: measured.seconds.map(|seconds| seconds.total),
        ranges: recording
            .and_then(|recording| recording.ranges.last())
            .map_or(0, |ranges| u64::from(*ranges)),
        linear_memory_peak: measured.linear_memory_peak.unwrap_or(in_recording),
        heap_peak: recording.map_or(0, |recording| recording.heap_peak),
        attempts: measured.attempts.len(),
        range_retries: recording.map_or(0, |recording| {
            recording.retries.iter().map(|count| count.retries).sum()
        }),
    }
}

/// Sums by cause, the largest first.
fn by_cause(counts: impl Iterator<Item = (FailureKind, u64)>) -> Vec<(FailureKind, u64)> {
    let mut sums: BTreeMap<&str, (FailureKind, u64)> = BTreeMap::new();
    for (kind, count) in counts {
        let sum = sums.entry(kind.as_str()).or_insert((kind, 0));
        sum.1 = sum.1.saturating_add(count);
    }
    let mut sums: Vec<(FailureKind, u64)> = sums.into_values().collect();
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sums
}

fn over_time(timeline: &Timeline<'_>) -> Vec<TimeRow> {
    let step = timeline.milliseconds as f64 / TIME_ROWS as f64;
    if step <= 0.0 {
        return Vec::new();
    }
    let step_of = |at: u64| ((at as f64 / step) as usize).min(TIME_ROWS - 1);
    let mut rows: Vec<TimeRow> = timeline
        .rates(TIME_ROWS)
        .into_iter()
        .enumerate()
        .map(|(at, rate)| TimeRow {
            seconds: step * (at + 1) as f64 / 1000.0,
            ranges_per_second: rate.ranges,
            bytes_in_per_second: rate.bytes_in,
            ..TimeRow::default()
        })
        .collect();
    for invocation in &timeline.invocations {
        for (at, point) in invocation.points() {
            if let Some(row) = rows.get_mut(step_of(at)) {
                row.linear_memory = row.linear_memory.max(point.linear_memory);
            }
        }
    }
    for process in &timeline.processes {
        let points = process
            .usage
            .milliseconds
            .iter()
            .zip(&process.usage.rss_bytes);
        for (at, rss) in points {
            if let Some(row) = rows.get_mut(step_of(process.began + at)) {
                row.rss = row.rss.max(*rss);
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::tests::sample;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn figures_agree_with_what_was_measured() {
        let measurements = sample();
        let timeline = Timeline::new(&measurements);
        let figures = Figures::new(None, &measurements, &timeline);
        assert_eq!(figures.linear_memory_peak, 3 * MIB);
        assert_eq!(figures.rss_peak, 32 * MIB);
        assert!((figures.cpu_seconds - 3.8).abs() < 1e-9);
        assert!((figures.seconds - 12.0).abs() < 1e-9);
        assert_eq!(figures.range_retries, [(FailureKind::SourceStatus, 2)]);
        assert_eq!(figures.failed_attempts, [(FailureKind::SourceTimeout, 1)]);
        let attempts: Vec<usize> = figures.prefixes.iter().map(|row| row.attempts).collect();
        assert_eq!(attempts, [1, 2]);
        assert_eq!(figures.slowest(1).len(), 1);
        assert_eq!(figures.over_time.len(), TIME_ROWS);
        assert_eq!(figures.over_time[0].linear_memory, 3 * MIB);
        assert_eq!(figures.over_time[11].rss, 32 * MIB);
        let ranges: f64 = figures
            .over_time
            .iter()
            .map(|row| row.ranges_per_second)
            .sum();
        assert!((ranges - 8192.0).abs() < 0.01, "one second a row: {ranges}");
    }
}
