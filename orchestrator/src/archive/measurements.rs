//! [`Measurements`]: what a run measured of itself, for the trace, the page and the status. Nobody needs them to read the
//! archive, so they have a file of their own, and a server does not read it.

use jiff::Timestamp;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::recording::Recording;
use prefix_tar::protocol::report::Seconds;
use prefix_tar::protocol::run_id::RunId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file of measurements, in bytes. One of 256 prefixes has about 2 MB.
pub const MEASUREMENTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Processes of a run whose measurements are kept: the latest ones.
pub const PROCESSES_MAX: usize = 32;

/// Attempts at one prefix that are kept: the latest ones.
pub const ATTEMPTS_MAX: usize = 32;

/// What a run measured of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measurements {
    /// Always `prefix-tar`.
    pub tool: String,
    /// The version that wrote it.
    pub version: String,
    /// The run.
    pub run: RunId,
    /// The source's base URL.
    pub source: String,
    /// The processes that worked on the run, in order: more than one if it was resumed.
    pub processes: Vec<MeasuredProcess>,
    /// The invocations, ordered by prefix: for each prefix, those of the last process that mirrored it.
    pub invocations: Vec<MeasuredPrefix>,
}

/// One process of the orchestrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeasuredProcess {
    /// When its run began, in RFC 3339. All other times count from here.
    pub started: String,
    /// What ran the component: `embedded` or `remote`.
    pub host: String,
    /// Concurrent invocations.
    pub parallel: u32,
    /// Range requests in flight per invocation; null for the component's default.
    pub window: Option<u16>,
    /// Processors that the process could use.
    pub processors: u32,
    /// What the process used.
    pub usage: ProcessUsage,
}

/// What a process used, as one list per quantity. There is a point per second, in long runs fewer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessUsage {
    /// Time of each point since the start.
    pub milliseconds: Vec<u64>,
    /// Resident memory in bytes, at each point.
    pub rss_bytes: Vec<u64>,
    /// CPU time of all threads up to each point.
    pub cpu_milliseconds: Vec<u64>,
}

/// The attempts at one prefix, and what the last invocation measured of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeasuredPrefix {
    /// The prefix.
    pub prefix: Prefix,
    /// The process, as an index into `processes`.
    pub process: u32,
    /// Which of the concurrent invocations it was, from 0. Until the first attempt began, it waited for a slot.
    pub slot: u32,
    /// The attempts, in order.
    pub attempts: Vec<MeasuredAttempt>,
    /// How long the parts of the last invocation took; null if it failed.
    pub seconds: Option<Seconds>,
    /// The last invocation's peak linear memory in bytes; null if it failed.
    pub linear_memory_peak: Option<u64>,
    /// What the last invocation measured of itself; null if its component did not say.
    pub recording: Option<Recording>,
}

/// One attempt at a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeasuredAttempt {
    /// When it began, since the start of the process.
    pub began_milliseconds: u64,
    /// When the component's answer had arrived; null if it did not answer to the end.
    pub answered_milliseconds: Option<u64>,
    /// When it ended, which with success is after the report was written; null if the process ended first.
    pub ended_milliseconds: Option<u64>,
    /// Why it failed; null if it did not.
    pub failure: Option<FailureKind>,
}

impl Measurements {
    /// Adds what an earlier process of the same run measured.
    pub fn after(mut self, earlier: Self) -> Self {
        if earlier.run != self.run {
            return self;
        }
        let kept = PROCESSES_MAX.saturating_sub(self.processes.len());
        let dropped = earlier.processes.len().saturating_sub(kept);
        let offset = u32::try_from(earlier.processes.len() - dropped).unwrap_or(u32::MAX);
        let dropped_processes = u32::try_from(dropped).unwrap_or(u32::MAX);
        for measured in &mut self.invocations {
            measured.process = measured.process.saturating_add(offset);
        }
        let is_newer = |prefix| {
            self.invocations
                .iter()
                .any(|measured| measured.prefix == prefix)
        };
        let mut invocations: Vec<MeasuredPrefix> = earlier
            .invocations
            .into_iter()
            .filter(|measured| !is_newer(measured.prefix))
            .filter_map(|measured| {
                let process = measured.process.checked_sub(dropped_processes)?;
                Some(MeasuredPrefix {
                    process,
                    ..measured
                })
            })
            .collect();
        invocations.append(&mut self.invocations);
        invocations.sort_by_key(|measured| measured.prefix);
        let mut processes: Vec<MeasuredProcess> =
            earlier.processes.into_iter().skip(dropped).collect();
        processes.append(&mut self.processes);
        Self {
            processes,
            invocations,
            ..self
        }
    }

    /// Checks what can be checked of a file that somebody may have changed: lists of equal length, and known processes.
    pub fn is_consistent(&self) -> bool {
        let usage_is_consistent = self.processes.iter().all(|process| {
            let ProcessUsage {
                milliseconds,
                rss_bytes,
                cpu_milliseconds,
            } = &process.usage;
            let points = milliseconds.len();
            rss_bytes.len() == points
                && cpu_milliseconds.len() == points
                && milliseconds.is_sorted()
                && process.started.parse::<Timestamp>().is_ok()
        });
        let prefixes_are_ordered = self
            .invocations
            .is_sorted_by(|one, next| one.prefix < next.prefix);
        usage_is_consistent
            && prefixes_are_ordered
            && self.invocations.iter().all(|measured| {
                (measured.process as usize) < self.processes.len()
                    && measured.attempts.len() <= ATTEMPTS_MAX
                    && measured
                        .recording
                        .as_ref()
                        .is_none_or(|recording| recording.check().is_ok())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(number: u8, process: u32) -> MeasuredPrefix {
        MeasuredPrefix {
            prefix: Prefix::from_number(number),
            process,
            slot: 0,
            attempts: vec![],
            seconds: None,
            linear_memory_peak: None,
            recording: None,
        }
    }

    fn measurements(run: u32, processes: usize, invocations: Vec<MeasuredPrefix>) -> Measurements {
        let process = |at| MeasuredProcess {
            started: format!("2026-11-25T03:17:{at:02}Z"),
            host: "embedded".to_owned(),
            parallel: 1,
            window: None,
            processors: 2,
            usage: ProcessUsage::default(),
        };
        Measurements {
            tool: "prefix-tar".to_owned(),
            version: "0.1.0".to_owned(),
            run: format!("20261125T031700Z-{run:08x}")
                .parse()
                .expect("a run"),
            source: "http://127.0.0.1:1".to_owned(),
            processes: (0..processes).map(process).collect(),
            invocations,
        }
    }

    #[test]
    fn a_resumed_run_keeps_what_its_earlier_processes_measured() {
        let earlier = measurements(1, 2, vec![measured(1, 0), measured(2, 1)]);
        let later = measurements(1, 1, vec![measured(0, 0), measured(2, 0)]);
        let both = later.after(earlier);
        assert!(both.is_consistent());
        assert_eq!(both.processes.len(), 3);
        let whose: Vec<(u8, u32)> = both
            .invocations
            .iter()
            .map(|measured| (measured.prefix.number(), measured.process))
            .collect();
        assert_eq!(whose, [(0, 2), (1, 0), (2, 2)]);
    }

    #[test]
    fn another_run_is_forgotten_and_the_oldest_processes_are_dropped() {
        let other = measurements(1, 1, vec![measured(1, 0)]);
        let later = measurements(2, 1, vec![measured(0, 0)]);
        assert_eq!(later.clone().after(other), later);
        let many = measurements(2, PROCESSES_MAX, vec![measured(1, 0), measured(2, 1)]);
        let both = later.after(many);
        assert!(both.is_consistent());
        assert_eq!(both.processes.len(), PROCESSES_MAX);
        let prefixes: Vec<u8> = both
            .invocations
            .iter()
            .map(|measured| measured.prefix.number())
            .collect();
        assert_eq!(
            prefixes,
            [0, 2],
            "the first process of the earlier ones is dropped"
        );
    }

    #[test]
    fn a_file_that_somebody_changed_is_not_consistent() {
        let whole = measurements(1, 1, vec![measured(1, 0), measured(2, 0)]);
        assert!(whole.is_consistent());
        let mut unknown = whole.clone();
        unknown.invocations[0].process = 1;
        let mut unordered = whole.clone();
        unordered.invocations.swap(0, 1);
        let mut short = whole;
        short.processes[0].usage.rss_bytes.push(1);
        for changed in [unknown, unordered, short] {
            assert!(!changed.is_consistent(), "{changed:?}");
        }
    }
}
