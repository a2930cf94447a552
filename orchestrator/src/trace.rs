//! Writes a run as a trace that opens in Perfetto (<https://ui.perfetto.dev>): the JSON of Chrome's Trace Event Format,
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.
//!
//! Each slot has three tracks: its invocations, and below them their fetch and their upload, which overlap.

use crate::archive::measurements::{MeasuredPrefix, Measurements};
use crate::timeline::{InvocationLine, Timeline};
use prefix_tar::protocol::recording::Point;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The tracks of one slot.
const TRACKS_PER_SLOT: u64 = 3;

/// The number of a process's first slot's first track. Track 0 is the process's own.
const FIRST_TRACK: u64 = 1;

/// The shortest step of the run's rates, in milliseconds.
const RATE_STEP_MIN: u64 = 100;

/// The most steps of the run's rates.
const RATE_STEPS_MAX: u64 = 2000;

/// The counters of an invocation.
const COUNTERS: [&str; 7] = [
    "linear memory",
    "heap",
    "body pool",
    "requests in flight",
    "ranges",
    "bytes received",
    "bytes sent",
];

/// One event of the trace. Times are in microseconds.
#[derive(Debug, Serialize)]
struct TraceEvent {
    name: String,
    #[serde(rename = "ph")]
    phase: Phase,
    #[serde(rename = "ts")]
    at: u64,
    #[serde(rename = "dur", skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
    #[serde(rename = "pid")]
    process: u64,
    #[serde(rename = "tid")]
    track: u64,
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    args: Value,
}

#[derive(Clone, Copy, Debug, Serialize)]
enum Phase {
    #[serde(rename = "M")]
    Metadata,
    #[serde(rename = "X")]
    Complete,
    #[serde(rename = "i")]
    Instant,
    #[serde(rename = "C")]
    Counter,
}

/// Writes the trace.
///
/// # Errors
/// `out` refuses it.
pub fn write(measurements: &Measurements, mut out: impl Write) -> io::Result<()> {
    let timeline = Timeline::new(measurements);
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    let mut is_first = true;
    let mut add = |event: TraceEvent| -> io::Result<()> {
        let separator = if is_first { "\n" } else { ",\n" };
        is_first = false;
        out.write_all(separator.as_bytes())?;
        serde_json::to_writer(&mut out, &event)?;
        Ok(())
    };
    name_tracks(measurements, &mut add)?;
    for measured in &measurements.invocations {
        add_attempts(measured, &timeline, &mut add)?;
    }
    for invocation in &timeline.invocations {
        add_invocation(invocation, &mut add)?;
    }
    add_processes(&timeline, &mut add)?;
    add_rates(&timeline, &mut add)?;
    writeln!(out, "\n]}}")?;
    out.flush()
}

type Add<'out> = dyn FnMut(TraceEvent) -> io::Result<()> + 'out;

/// Processes are numbered from 1.
fn process_of(measured: &MeasuredPrefix) -> u64 {
    u64::from(measured.process) + 1
}

/// The first of a slot's tracks.
fn track_of(slot: u32) -> u64 {
    FIRST_TRACK + u64::from(slot) * TRACKS_PER_SLOT
}

fn metadata(name: &str, process: u64, track: u64, args: Value) -> TraceEvent {
    TraceEvent {
        name: name.to_owned(),
        phase: Phase::Metadata,
        at: 0,
        duration: None,
        process,
        track,
        scope: None,
        args,
    }
}

fn counter(name: String, process: u64, milliseconds: u64, value: Value) -> TraceEvent {
    TraceEvent {
        name,
        phase: Phase::Counter,
        at: milliseconds * 1000,
        duration: None,
        process,
        track: 0,
        scope: None,
        args: json!({ "value": value }),
    }
}

fn slice(name: String, process: u64, track: u64, span: (u64, u64), args: Value) -> TraceEvent {
    let (began, ended) = span;
    TraceEvent {
        name,
        phase: Phase::Complete,
        at: began * 1000,
        duration: Some(ended.saturating_sub(began) * 1000),
        process,
        track,
        scope: None,
        args,
    }
}

fn instant(name: String, process: u64, track: u64, milliseconds: u64, args: Value) -> TraceEvent {
    TraceEvent {
        name,
        phase: Phase::Instant,
        at: milliseconds * 1000,
        duration: None,
        process,
        track,
        scope: Some("t"),
        args,
    }
}

fn name_tracks(measurements: &Measurements, add: &mut Add<'_>) -> io::Result<()> {
    for (number, process) in (1..).zip(&measurements.processes) {
        let window = process
            .window
            .map_or_else(|| "default".to_owned(), |window| window.to_string());
        let name = format!(
            "run {} ({}, parallel {}, window {window})",
            measurements.run, process.host, process.parallel
        );
        add(metadata("process_name", number, 0, json!({ "name": name })))?;
        add(metadata(
            "process_sort_index",
            number,
            0,
            json!({ "sort_index": number }),
        ))?;
        let of_process = measurements
            .invocations
            .iter()
            .filter(|measured| process_of(measured) == number);
        let slots = of_process.map(|measured| measured.slot + 1).max();
        for slot in 0..slots.unwrap_or(0) {
            let track = track_of(slot);
            for (track, what) in (track..).zip(["invocations", "fetch", "upload"]) {
                let name = format!("slot {slot}: {what}");
                add(metadata(
                    "thread_name",
                    number,
                    track,
                    json!({ "name": name }),
                ))?;
                add(metadata(
                    "thread_sort_index",
                    number,
                    track,
                    json!({ "sort_index": track }),
                ))?;
            }
        }
    }
    Ok(())
}

/// A slice per attempt, and an instant for each that failed.
fn add_attempts(
    measured: &MeasuredPrefix,
    timeline: &Timeline<'_>,
    add: &mut Add<'_>,
) -> io::Result<()> {
    let Some(process) = timeline.processes.get(measured.process as usize) else {
        return Ok(());
    };
    let track = track_of(measured.slot);
    for (number, attempt) in (1..).zip(&measured.attempts) {
        let began = process.began + attempt.began_milliseconds;
        let ended = attempt
            .ended_milliseconds
            .unwrap_or(attempt.began_milliseconds);
        let ended = process.began + ended;
        let args = json!({
            "prefix": measured.prefix,
            "attempt": number,
            "failure": attempt.failure,
        });
        let name = measured.prefix.to_string();
        add(slice(
            name,
            process_of(measured),
            track,
            (began, ended),
            args,
        ))?;
        if let Some(failure) = attempt.failure {
            let name = format!("{} failed: {}", measured.prefix, failure.as_str());
            let args = json!({ "attempt": number, "cause": failure });
            add(instant(name, process_of(measured), track, ended, args))?;
        }
    }
    Ok(())
}

/// The parts of an invocation, the first repeated range request of each cause, and its counters, which end at zero.
fn add_invocation(invocation: &InvocationLine<'_>, add: &mut Add<'_>) -> io::Result<()> {
    let measured = invocation.measured;
    let (process, slot) = (process_of(measured), measured.slot);
    let track = track_of(slot);
    let (began, ended) = (invocation.began, invocation.ended);
    let retries = measured
        .recording
        .iter()
        .flat_map(|recording| &recording.retries);
    for count in retries {
        let name = format!("{} repeats: {}", measured.prefix, count.kind.as_str());
        let at = (began + u64::from(count.first_milliseconds)).min(ended);
        let args = json!({ "cause": count.kind, "range_retries": count.retries });
        add(instant(name, process, track + 1, at, args))?;
    }
    if let Some(seconds) = measured.seconds {
        let milliseconds = |seconds: f64| (seconds * 1000.0) as u64;
        let args = json!({ "prefix": measured.prefix });
        let fetched = (began, began + milliseconds(seconds.fetch));
        add(slice(
            format!("{} fetch", measured.prefix),
            process,
            track + 1,
            fetched,
            args,
        ))?;
        let uploaded = (ended.saturating_sub(milliseconds(seconds.upload)), ended);
        let args = json!({ "prefix": measured.prefix });
        add(slice(
            format!("{} upload", measured.prefix),
            process,
            track + 2,
            uploaded,
            args,
        ))?;
    }
    let names = COUNTERS.map(|name| format!("slot {slot}: {name}"));
    let values = |point: Point| {
        [
            point.linear_memory,
            point.heap_bytes,
            point.pool_bytes,
            point.in_flight.into(),
            point.ranges.into(),
            point.bytes_in,
            point.bytes_out,
        ]
    };
    for (at, point) in invocation.points() {
        for (name, value) in names.iter().zip(values(point)) {
            add(counter(name.clone(), process, at, value.into()))?;
        }
    }
    for name in names {
        add(counter(name, process, ended, 0.into()))?;
    }
    Ok(())
}

fn add_processes(timeline: &Timeline<'_>, add: &mut Add<'_>) -> io::Result<()> {
    for (number, process) in (1..).zip(&timeline.processes) {
        let usage = process.usage;
        let mut earlier: Option<(u64, u64)> = None;
        for ((at, rss), cpu) in usage
            .milliseconds
            .iter()
            .zip(&usage.rss_bytes)
            .zip(&usage.cpu_milliseconds)
        {
            add(counter(
                "RSS".to_owned(),
                number,
                process.began + at,
                (*rss).into(),
            ))?;
            if let Some((before, used)) = earlier
                && *at > before
            {
                let cores = cpu.saturating_sub(used) as f64 / (at - before) as f64;
                add(counter(
                    "CPU cores".to_owned(),
                    number,
                    process.began + before,
                    cores.into(),
                ))?;
            }
            earlier = Some((*at, *cpu));
        }
    }
    Ok(())
}

fn add_rates(timeline: &Timeline<'_>, add: &mut Add<'_>) -> io::Result<()> {
    let steps = (timeline.milliseconds / RATE_STEP_MIN).clamp(1, RATE_STEPS_MAX);
    let rates = timeline.rates(usize::try_from(steps).unwrap_or(1));
    for (step, rate) in (0..).zip(rates) {
        let at = timeline.milliseconds * step / steps;
        add(counter(
            "ranges/s".to_owned(),
            1,
            at,
            (rate.ranges as u64).into(),
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::tests::sample;

    fn events() -> Vec<Value> {
        let mut text = Vec::new();
        write(&sample(), &mut text).expect("written");
        let trace: Value = serde_json::from_slice(&text).expect("JSON");
        trace["traceEvents"].as_array().expect("a list").clone()
    }

    fn of_phase<'all>(events: &'all [Value], phase: &str) -> Vec<&'all Value> {
        events.iter().filter(|event| event["ph"] == phase).collect()
    }

    #[test]
    fn every_attempt_is_a_slice_with_its_parts_below_and_a_failure_is_an_instant() {
        let events = events();
        let spans: Vec<(String, u64, u64, u64)> = of_phase(&events, "X")
            .into_iter()
            .map(|event| {
                let number = |field: &str| event[field].as_u64().expect("a number");
                let name = event["name"].as_str().expect("a name").to_owned();
                (name, number("tid"), number("ts"), number("dur"))
            })
            .collect();
        let expected = [
            ("00", 1, 0, 1_010_000),
            ("01", 1, 10_000_000, 500_000),
            ("01", 1, 10_600_000, 1_010_000),
            ("00 fetch", 2, 0, 900_000),
            ("00 upload", 3, 200_000, 800_000),
            ("01 fetch", 2, 10_600_000, 900_000),
            ("01 upload", 3, 10_800_000, 800_000),
        ];
        let expected =
            expected.map(|(name, track, at, duration)| (name.to_owned(), track, at, duration));
        assert_eq!(spans, expected);
        let instants = of_phase(&events, "i");
        let instants: Vec<(&Value, &Value)> = instants
            .into_iter()
            .map(|event| (&event["name"], &event["ts"]))
            .collect();
        let expected = [
            (json!("01 failed: source_timeout"), json!(10_500_000)),
            (json!("00 repeats: source_status"), json!(100_000)),
            (json!("01 repeats: source_status"), json!(10_700_000)),
        ];
        let expected: Vec<(&Value, &Value)> =
            expected.iter().map(|(name, at)| (name, at)).collect();
        assert_eq!(instants, expected);
    }

    #[test]
    fn the_counters_agree_with_the_measurements_and_end_at_zero() {
        let events = events();
        let of = |name: &str| -> Vec<u64> {
            of_phase(&events, "C")
                .into_iter()
                .filter(|event| event["name"] == name && event["pid"] == 1)
                .map(|event| event["args"]["value"].as_u64().expect("a number"))
                .collect()
        };
        let mib = 1024 * 1024;
        assert_eq!(
            of("slot 0: linear memory"),
            [3 * mib, 3 * mib, 3 * mib, 3 * mib, 3 * mib, 0]
        );
        assert_eq!(of("slot 0: ranges"), [0, 1024, 2048, 3072, 4096, 0]);
        assert_eq!(of("slot 0: requests in flight"), [64, 48, 32, 16, 0, 0]);
        assert_eq!(of("RSS"), [30 * mib, 31 * mib, 31 * mib]);
        let ranges: u64 = of("ranges/s").iter().map(|rate| rate / 10).sum();
        assert!(
            (8150..=8192).contains(&ranges),
            "{ranges} ranges in steps of 100 ms"
        );
    }
}
