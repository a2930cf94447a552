//! [`Recorder`]: measures a run for its [`Measurements`], while it runs.

use crate::archive::measurements::{
    ATTEMPTS_MAX, MeasuredAttempt, MeasuredPrefix, MeasuredProcess, Measurements, ProcessUsage,
};
use crate::resource_usage::{ResourceUsage, rss_bytes};
use jiff::Timestamp;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::recording::Recording;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::run_id::RunId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The distance of two points of the process's usage, at first. It doubles whenever there are [`USAGE_POINTS_MAX`].
const USAGE_INTERVAL: Duration = Duration::from_secs(1);

/// Points of the process's usage: at first one a second, after 34 minutes one every two seconds, and so on.
const USAGE_POINTS_MAX: usize = 2048;

/// Measures one process's part in a run.
#[derive(Debug)]
pub(super) struct Recorder {
    started: Instant,
    started_at: Timestamp,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    usage: ProcessUsage,
    prefixes: BTreeMap<Prefix, MeasuredPrefix>,
    /// The slots in use.
    slots: Vec<bool>,
}

/// What the measurements say about the process besides what it measures.
pub(super) struct ProcessSettings {
    pub(super) is_in_process: bool,
    pub(super) parallel: usize,
    pub(super) window: Option<u16>,
}

impl Recorder {
    /// A recorder of a run that begins now.
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            started_at: Timestamp::now(),
            inner: Mutex::default(),
        }
    }

    /// Measures the process until it is dropped.
    pub(super) async fn measure_process(self: Arc<Self>) {
        let mut interval = USAGE_INTERVAL;
        loop {
            if self.measure_once() {
                interval *= 2;
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// Adds a point. Returns whether every second point was dropped, because there were too many.
    fn measure_once(&self) -> bool {
        let milliseconds = self.milliseconds();
        let cpu = ResourceUsage::so_far().cpu;
        let mut inner = self.lock();
        let usage = &mut inner.usage;
        usage.milliseconds.push(milliseconds);
        usage.rss_bytes.push(rss_bytes());
        let cpu_milliseconds = u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX);
        usage.cpu_milliseconds.push(cpu_milliseconds);
        if usage.milliseconds.len() < USAGE_POINTS_MAX {
            return false;
        }
        for list in [
            &mut usage.milliseconds,
            &mut usage.rss_bytes,
            &mut usage.cpu_milliseconds,
        ] {
            let mut at = 0_usize;
            list.retain(|_| {
                at += 1;
                !at.is_multiple_of(2)
            });
        }
        true
    }

    /// Notes that an attempt at a prefix begins.
    pub(super) fn began(&self, prefix: Prefix) {
        let began_milliseconds = self.milliseconds();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let measured = inner
            .prefixes
            .entry(prefix)
            .or_insert_with(|| MeasuredPrefix {
                prefix,
                process: 0,
                slot: take_slot(&mut inner.slots),
                attempts: Vec::new(),
                seconds: None,
                linear_memory_peak: None,
                recording: None,
            });
        if measured.attempts.len() == ATTEMPTS_MAX {
            measured.attempts.remove(0);
        }
        measured.attempts.push(MeasuredAttempt {
            began_milliseconds,
            answered_milliseconds: None,
            ended_milliseconds: None,
            failure: None,
        });
        // What an earlier attempt measured is not about this one.
        measured.recording = None;
    }

    /// Notes what an invocation has measured of itself: its answer has arrived.
    pub(super) fn recorded(&self, prefix: Prefix, recording: Recording) {
        let answered = self.milliseconds();
        if let Some(measured) = self.lock().prefixes.get_mut(&prefix) {
            measured.recording = Some(recording);
            if let Some(attempt) = measured.attempts.last_mut() {
                attempt.answered_milliseconds = Some(answered);
            }
        }
    }

    /// Notes that the latest attempt at a prefix failed.
    pub(super) fn failed(&self, prefix: Prefix, failure: FailureKind) {
        self.end_attempt(prefix, Some(failure));
    }

    /// Notes that the latest attempt at a prefix stored it.
    pub(super) fn stored(&self, report: &Report) {
        self.end_attempt(report.prefix, None);
        if let Some(measured) = self.lock().prefixes.get_mut(&report.prefix) {
            measured.seconds = Some(report.seconds);
            measured.linear_memory_peak = Some(report.linear_memory_peak);
        }
    }

    fn end_attempt(&self, prefix: Prefix, failure: Option<FailureKind>) {
        let ended = self.milliseconds();
        let mut inner = self.lock();
        let measured = inner.prefixes.get_mut(&prefix);
        if let Some(attempt) = measured.and_then(|measured| measured.attempts.last_mut()) {
            attempt.ended_milliseconds = Some(ended);
            attempt.failure = failure;
        }
    }

    /// Notes that there are no more attempts at a prefix, so that its slot is free.
    pub(super) fn ended(&self, prefix: Prefix) {
        let mut inner = self.lock();
        let slot = inner.prefixes.get(&prefix).map(|measured| measured.slot);
        if let Some(in_use) = slot.and_then(|slot| inner.slots.get_mut(slot as usize)) {
            *in_use = false;
        }
    }

    /// What was measured so far.
    pub(super) fn measurements(
        &self,
        run: RunId,
        source: String,
        settings: &ProcessSettings,
    ) -> Measurements {
        self.measure_once();
        let inner = self.lock();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let host = match settings.is_in_process {
            true => "embedded",
            false => "remote",
        };
        let process = MeasuredProcess {
            started: self
                .started_at
                .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
                .to_string(),
            host: host.to_owned(),
            parallel: count(settings.parallel),
            window: settings.window,
            processors: std::thread::available_parallelism()
                .map_or(1, |processors| count(processors.get())),
            usage: inner.usage.clone(),
        };
        Measurements {
            tool: "prefix-tar".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run,
            source,
            processes: vec![process],
            invocations: inner.prefixes.values().cloned().collect(),
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the lowest free slot.
fn take_slot(slots: &mut Vec<bool>) -> u32 {
    let free = slots.iter().position(|in_use| !in_use);
    let slot = free.unwrap_or(slots.len());
    match slots.get_mut(slot) {
        Some(in_use) => *in_use = true,
        None => slots.push(true),
    }
    u32::try_from(slot).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: ProcessSettings = ProcessSettings {
        is_in_process: true,
        parallel: 2,
        window: None,
    };

    fn prefix(number: u8) -> Prefix {
        Prefix::from_number(number)
    }

    fn measurements(recorder: &Recorder) -> Measurements {
        let run = "20261125T031700Z-1a2b3c4d".parse().expect("a run");
        recorder.measurements(run, "http://127.0.0.1:1".to_owned(), &SETTINGS)
    }

    #[test]
    fn a_slot_is_used_again_once_its_prefix_has_ended() {
        let recorder = Recorder::start();
        recorder.began(prefix(0));
        recorder.began(prefix(1));
        recorder.ended(prefix(0));
        recorder.began(prefix(2));
        recorder.began(prefix(3));
        let measured = measurements(&recorder);
        assert!(measured.is_consistent());
        let slots: Vec<u32> = measured
            .invocations
            .iter()
            .map(|measured| measured.slot)
            .collect();
        assert_eq!(slots, [0, 1, 0, 2]);
    }

    #[test]
    fn every_attempt_is_noted_and_only_the_last_recording_counts() {
        let recorder = Recorder::start();
        recorder.began(prefix(0));
        recorder.recorded(prefix(0), Recording::default());
        recorder.failed(prefix(0), FailureKind::SourceTimeout);
        recorder.began(prefix(0));
        let measured = &measurements(&recorder).invocations[0];
        assert_eq!(measured.recording, None);
        assert_eq!(
            measured.attempts[0].failure,
            Some(FailureKind::SourceTimeout)
        );
        assert!(measured.attempts[0].ended_milliseconds.is_some());
        assert_eq!(measured.attempts[1].ended_milliseconds, None);
        for _ in 0..2 * ATTEMPTS_MAX {
            recorder.began(prefix(0));
        }
        let attempts = measurements(&recorder).invocations[0].attempts.len();
        assert_eq!(attempts, ATTEMPTS_MAX);
    }

    #[test]
    fn the_points_of_a_long_run_are_thinned_out_and_stay_in_order() {
        let recorder = Recorder::start();
        let thinned = (0..3 * USAGE_POINTS_MAX)
            .filter(|_| recorder.measure_once())
            .count();
        assert_eq!(thinned, 5);
        let measured = measurements(&recorder);
        assert!(measured.is_consistent());
        let points = measured.processes[0].usage.milliseconds.len();
        assert!(points <= USAGE_POINTS_MAX, "{points} points");
        assert!(
            measured.processes[0]
                .usage
                .rss_bytes
                .iter()
                .all(|bytes| *bytes > 0)
        );
    }
}
