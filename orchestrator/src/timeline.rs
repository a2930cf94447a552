//! [`Timeline`]: the measurements of a run on one axis of time, for the trace and the page.

use crate::archive::measurements::{MeasuredPrefix, Measurements, ProcessUsage};
use jiff::Timestamp;
use prefix_tar::protocol::recording::Point;

/// A run on one axis of time, in milliseconds since its first process began.
#[derive(Debug)]
pub struct Timeline<'run> {
    /// Its processes, in order.
    pub processes: Vec<ProcessLine<'run>>,
    /// Its invocations that recorded anything, ordered by prefix.
    pub invocations: Vec<InvocationLine<'run>>,
    /// Until the last thing that was measured.
    pub milliseconds: u64,
}

/// A process of the orchestrator.
#[derive(Debug)]
pub struct ProcessLine<'run> {
    /// When it began.
    pub began: u64,
    /// What it used. Its times count from `began`.
    pub usage: &'run ProcessUsage,
}

/// An invocation that recorded itself.
#[derive(Debug)]
pub struct InvocationLine<'run> {
    /// What the run measured of its prefix.
    pub measured: &'run MeasuredPrefix,
    /// When the component began.
    pub began: u64,
    /// When its last point was recorded.
    pub ended: u64,
    points: Vec<Point>,
}

/// What happened in one step of time, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Ranges that were added to tars.
    pub ranges: f64,
    /// Bytes of bodies received.
    pub bytes_in: f64,
    /// Bytes of tars sent.
    pub bytes_out: f64,
}

impl<'run> Timeline<'run> {
    /// Puts what was measured in order.
    pub fn new(measurements: &'run Measurements) -> Self {
        let starts: Vec<Option<Timestamp>> = measurements
            .processes
            .iter()
            .map(|process| process.started.parse().ok())
            .collect();
        let first = starts.iter().flatten().min().copied();
        let offset = |start: &Option<Timestamp>| {
            let (Some(start), Some(first)) = (start, first) else {
                return 0;
            };
            let since = start.as_millisecond() - first.as_millisecond();
            u64::try_from(since).unwrap_or(0)
        };
        let processes: Vec<ProcessLine<'run>> = measurements
            .processes
            .iter()
            .zip(&starts)
            .map(|(process, start)| ProcessLine {
                began: offset(start),
                usage: &process.usage,
            })
            .collect();
        let invocations: Vec<InvocationLine<'run>> = measurements
            .invocations
            .iter()
            .filter_map(|measured| {
                let process = processes.get(measured.process as usize)?;
                InvocationLine::new(measured, process.began)
            })
            .collect();
        let of_processes = processes.iter().map(|process| {
            let last = process.usage.milliseconds.last();
            process.began + last.copied().unwrap_or(0)
        });
        let of_invocations = invocations.iter().map(|invocation| invocation.ended);
        let milliseconds = of_processes.chain(of_invocations).max().unwrap_or(0);
        Self {
            processes,
            invocations,
            milliseconds,
        }
    }

    /// What happened in each of `steps` equal steps of the run's time.
    pub fn rates(&self, steps: usize) -> Vec<Rate> {
        let mut rates = vec![Rate::default(); steps];
        let step = self.milliseconds as f64 / steps as f64;
        if step <= 0.0 {
            return rates;
        }
        for invocation in &self.invocations {
            let mut earlier = (invocation.began as f64, Point::default());
            for (at, point) in invocation.points() {
                let at = at as f64;
                spread(&mut rates, step, earlier, (at, point));
                earlier = (at, point);
            }
        }
        for rate in &mut rates {
            let seconds = step / 1000.0;
            rate.ranges /= seconds;
            rate.bytes_in /= seconds;
            rate.bytes_out /= seconds;
        }
        rates
    }
}

/// Adds what happened between two points to the steps in which it happened, in proportion to the time.
fn spread(rates: &mut [Rate], step: f64, from: (f64, Point), to: (f64, Point)) {
    let (began, before) = from;
    let (ended, after) = to;
    let first = (began / step) as usize;
    let last = ((ended / step) as usize).max(first);
    let difference = |before: u64, after: u64| after.saturating_sub(before) as f64;
    let ranges = difference(before.ranges.into(), after.ranges.into());
    let bytes_in = difference(before.bytes_in, after.bytes_in);
    let bytes_out = difference(before.bytes_out, after.bytes_out);
    let end = rates.len().saturating_sub(1);
    for at in first..=last {
        let share = if ended > began {
            let overlap = ended.min((at + 1) as f64 * step) - began.max(at as f64 * step);
            overlap.max(0.0) / (ended - began)
        } else {
            1.0
        };
        // What happens at the very end belongs to the last step.
        if let Some(rate) = rates.get_mut(at.min(end)) {
            rate.ranges += share * ranges;
            rate.bytes_in += share * bytes_in;
            rate.bytes_out += share * bytes_out;
        }
    }
}

impl<'run> InvocationLine<'run> {
    /// The line of a prefix in a process that began at `process_began`; `None` if nothing was recorded.
    fn new(measured: &'run MeasuredPrefix, process_began: u64) -> Option<Self> {
        let recording = measured.recording.as_ref()?;
        let answered = measured.attempts.last()?.answered_milliseconds?;
        let last = u64::from(*recording.milliseconds.last()?);
        // The last point is recorded right before the answer is sent.
        let ended = (process_began + answered).max(last);
        Some(Self {
            measured,
            began: ended - last,
            ended,
            points: recording.points().collect(),
        })
    }

    /// Its points, each with its time.
    pub fn points(&self) -> impl Iterator<Item = (u64, Point)> + '_ {
        let began = self.began;
        self.points
            .iter()
            .map(move |point| (began + u64::from(point.milliseconds), *point))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::archive::measurements::{MeasuredAttempt, MeasuredProcess};
    use prefix_tar::protocol::failure::FailureKind;
    use prefix_tar::protocol::prefix::Prefix;
    use prefix_tar::protocol::recording::Recording;
    use prefix_tar::protocol::report::Seconds;

    const MIB: u64 = 1024 * 1024;

    /// A run of two prefixes, the second after a failed attempt and in a second process.
    pub(crate) fn sample() -> Measurements {
        let recording = |milliseconds: u32| {
            let mut recording = Recording::default();
            for at in 0..=4 {
                recording.push(Point {
                    milliseconds: at * milliseconds / 4,
                    ranges: at * 1024,
                    in_flight: 64 - 16 * at,
                    bytes_in: u64::from(at) * MIB,
                    bytes_out: u64::from(at) * MIB,
                    linear_memory: 3 * MIB,
                    pool_bytes: MIB,
                    heap_bytes: 2 * MIB,
                });
            }
            recording.count_retry(FailureKind::SourceStatus, 100);
            recording
        };
        let process = |started: &str, rss: u64| MeasuredProcess {
            started: started.to_owned(),
            host: "embedded".to_owned(),
            parallel: 1,
            window: None,
            processors: 2,
            usage: ProcessUsage {
                milliseconds: vec![0, 1000, 2000],
                rss_bytes: vec![rss, rss + MIB, rss + MIB],
                cpu_milliseconds: vec![10, 900, 1900],
            },
        };
        let attempt = |began, ended, failure| MeasuredAttempt {
            began_milliseconds: began,
            answered_milliseconds: Some(ended - 10),
            ended_milliseconds: Some(ended),
            failure,
        };
        let measured = |number, process, attempts, milliseconds| MeasuredPrefix {
            prefix: Prefix::from_number(number),
            process,
            slot: 0,
            attempts,
            seconds: Some(Seconds {
                fetch: 0.9,
                upload: 0.8,
                total: f64::from(milliseconds) / 1000.0,
            }),
            linear_memory_peak: Some(3 * MIB),
            recording: Some(recording(milliseconds)),
        };
        Measurements {
            tool: "prefix-tar".to_owned(),
            version: "0.1.0".to_owned(),
            run: "20261125T031700Z-1a2b3c4d".parse().expect("a run"),
            source: "http://127.0.0.1:1".to_owned(),
            processes: vec![
                process("2026-11-25T03:17:00Z", 30 * MIB),
                process("2026-11-25T03:17:10Z", 31 * MIB),
            ],
            invocations: vec![
                measured(0, 0, vec![attempt(0, 1010, None)], 1000),
                measured(
                    1,
                    1,
                    vec![
                        attempt(0, 500, Some(FailureKind::SourceTimeout)),
                        attempt(600, 1610, None),
                    ],
                    1000,
                ),
            ],
        }
    }

    #[test]
    fn invocations_are_placed_by_their_answer_and_processes_by_their_start() {
        let measurements = sample();
        assert!(measurements.is_consistent());
        let timeline = Timeline::new(&measurements);
        let began: Vec<u64> = timeline
            .processes
            .iter()
            .map(|process| process.began)
            .collect();
        assert_eq!(began, [0, 10_000]);
        let spans: Vec<(u64, u64)> = timeline
            .invocations
            .iter()
            .map(|invocation| (invocation.began, invocation.ended))
            .collect();
        assert_eq!(spans, [(0, 1000), (10_600, 11_600)]);
        assert_eq!(timeline.milliseconds, 12_000);
    }

    #[test]
    fn rates_add_up_to_what_happened_and_are_zero_in_between() {
        let measurements = sample();
        let timeline = Timeline::new(&measurements);
        for steps in [1, 7, 12, 240] {
            let rates = timeline.rates(steps);
            let seconds = timeline.milliseconds as f64 / 1000.0 / steps as f64;
            let ranges: f64 = rates.iter().map(|rate| rate.ranges * seconds).sum();
            assert!((ranges - 2.0 * 4096.0).abs() < 0.01, "{steps}: {ranges}");
            let bytes: f64 = rates.iter().map(|rate| rate.bytes_in * seconds).sum();
            assert!((bytes - 8.0 * MIB as f64).abs() < 1.0, "{steps}: {bytes}");
        }
        let rates = timeline.rates(12);
        assert!((rates[0].ranges - 4096.0).abs() < 0.01, "{:?}", rates[0]);
        assert_eq!(rates[5], Rate::default());
    }

    #[test]
    fn nothing_measured_is_an_empty_timeline() {
        let measurements = Measurements {
            processes: vec![],
            invocations: vec![],
            ..sample()
        };
        let timeline = Timeline::new(&measurements);
        assert_eq!(timeline.milliseconds, 0);
        assert_eq!(timeline.rates(3), vec![Rate::default(); 3]);
    }
}
