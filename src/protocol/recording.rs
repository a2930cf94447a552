//! [`Recording`]: what an invocation measures of itself while it runs. It is about the invocation, not about the tar.

use crate::protocol::failure::FailureKind;
use crate::protocol::phase::{Phase, PhaseHeap};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most points of a recording.
pub const POINTS_MAX: usize = 256;

/// Kinds of failures that a recording counts. The source can fail in fewer ways.
const RETRY_KINDS_MAX: usize = 32;

/// One point in an invocation's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Since the start of the invocation.
    pub milliseconds: u32,
    /// Ranges in the tar.
    pub ranges: u32,
    /// Range requests in flight.
    pub in_flight: u32,
    /// Bytes of bodies received, before they are decoded.
    pub bytes_in: u64,
    /// Bytes of the tar sent.
    pub bytes_out: u64,
    /// Linear memory in bytes.
    pub linear_memory: u64,
    /// Bytes of the body pool that hold bodies.
    pub pool_bytes: u64,
    /// Bytes allocated on the heap, the pool's among them.
    pub heap_bytes: u64,
}

/// How often range requests were repeated for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RetryCount {
    /// The reason.
    pub kind: FailureKind,
    /// Range requests that were repeated.
    pub retries: u64,
    /// When the first of them had failed, since the start of the invocation.
    pub first_milliseconds: u32,
}

/// What an invocation measured of itself: points over its time, as one list per quantity, and its retries by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Recording {
    /// Time since the start of the invocation, at each point.
    pub milliseconds: Vec<u32>,
    /// Ranges in the tar, at each point.
    pub ranges: Vec<u32>,
    /// Range requests in flight, at each point.
    pub in_flight: Vec<u32>,
    /// Bytes of bodies received, before they are decoded, up to each point.
    pub bytes_in: Vec<u64>,
    /// Bytes of the tar sent, up to each point.
    pub bytes_out: Vec<u64>,
    /// Linear memory in bytes, at each point.
    pub linear_memory: Vec<u64>,
    /// Bytes of the body pool that hold bodies, at each point.
    pub pool_bytes: Vec<u64>,
    /// Bytes allocated on the heap, the pool's among them, at each point.
    pub heap_bytes: Vec<u64>,
    /// The most bytes that were allocated on the heap at once, also between the points.
    pub heap_peak: u64,
    /// What each phase of the invocation allocated on the heap.
    #[serde(default)]
    pub heap_phases: Vec<PhaseHeap>,
    /// Repeated range requests by reason.
    pub retries: Vec<RetryCount>,
}

/// Why a recording is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingFault {
    /// The lists are too long, or have different lengths.
    #[error("its lists are longer than {POINTS_MAX} points, or of different lengths")]
    Lengths,
    /// Time, ranges or bytes decrease from one point to the next.
    #[error("its time, its ranges or its bytes decrease")]
    Order,
    /// A phase of the heap is listed twice.
    #[error("it lists a phase of the heap twice")]
    Phases,
    /// A reason is counted twice.
    #[error("it counts the retries for a reason twice")]
    Retries,
}

impl Recording {
    /// Adds a point, unless there are [`POINTS_MAX`] already.
    pub fn push(&mut self, point: Point) {
        if self.milliseconds.len() >= POINTS_MAX {
            return;
        }
        self.milliseconds.push(point.milliseconds);
        self.ranges.push(point.ranges);
        self.in_flight.push(point.in_flight);
        self.bytes_in.push(point.bytes_in);
        self.bytes_out.push(point.bytes_out);
        self.linear_memory.push(point.linear_memory);
        self.pool_bytes.push(point.pool_bytes);
        self.heap_bytes.push(point.heap_bytes);
    }

    /// The points, in order.
    pub fn points(&self) -> impl Iterator<Item = Point> + '_ {
        (0..self.milliseconds.len()).filter_map(|at| {
            Some(Point {
                milliseconds: *self.milliseconds.get(at)?,
                ranges: *self.ranges.get(at)?,
                in_flight: *self.in_flight.get(at)?,
                bytes_in: *self.bytes_in.get(at)?,
                bytes_out: *self.bytes_out.get(at)?,
                linear_memory: *self.linear_memory.get(at)?,
                pool_bytes: *self.pool_bytes.get(at)?,
                heap_bytes: *self.heap_bytes.get(at)?,
            })
        })
    }

    /// Counts a range request that is repeated because it failed at `milliseconds`.
    pub fn count_retry(&mut self, kind: FailureKind, milliseconds: u32) {
        match self.retries.iter_mut().find(|count| count.kind == kind) {
            Some(count) => count.retries += 1,
            None => self.retries.push(RetryCount {
                kind,
                retries: 1,
                first_milliseconds: milliseconds,
            }),
        }
    }

    /// Checks a recording that another program sent.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), RecordingFault> {
        let points = self.milliseconds.len();
        let lengths = [
            self.ranges.len(),
            self.in_flight.len(),
            self.bytes_in.len(),
            self.bytes_out.len(),
            self.linear_memory.len(),
            self.pool_bytes.len(),
            self.heap_bytes.len(),
        ];
        if points > POINTS_MAX || lengths != [points; 7] {
            return Err(RecordingFault::Lengths);
        }
        let is_ordered = self.milliseconds.is_sorted()
            && self.ranges.is_sorted()
            && self.bytes_in.is_sorted()
            && self.bytes_out.is_sorted();
        if !is_ordered {
            return Err(RecordingFault::Order);
        }
        let phases: BTreeSet<Phase> = self.heap_phases.iter().map(|heap| heap.phase).collect();
        if phases.len() != self.heap_phases.len() {
            return Err(RecordingFault::Phases);
        }
        let is_repeated = |at: usize, count: &RetryCount| {
            let mut earlier = self.retries.iter().take(at);
            earlier.any(|earlier| earlier.kind == count.kind)
        };
        let mut counts = self.retries.iter().enumerate();
        if self.retries.len() > RETRY_KINDS_MAX || counts.any(|(at, count)| is_repeated(at, count))
        {
            return Err(RecordingFault::Retries);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(points: u32) -> Recording {
        let mut recording = Recording::default();
        for at in 0..points {
            recording.push(Point {
                milliseconds: 10 * at,
                ranges: at,
                linear_memory: 1024,
                ..Point::default()
            });
        }
        recording
    }

    #[test]
    fn a_recording_has_at_most_256_points_and_returns_them_in_order() {
        let recording = recording(300);
        assert_eq!(recording.check(), Ok(()));
        let ranges: Vec<u32> = recording.points().map(|point| point.ranges).collect();
        assert_eq!(ranges, (0..256).collect::<Vec<u32>>());
    }

    #[test]
    fn retries_are_counted_by_their_cause() {
        let mut recording = recording(1);
        for (milliseconds, kind) in [
            (10, FailureKind::SourceStatus),
            (20, FailureKind::SourceTimeout),
            (30, FailureKind::SourceStatus),
        ] {
            recording.count_retry(kind, milliseconds);
        }
        let counts: Vec<(FailureKind, u64, u32)> = recording
            .retries
            .iter()
            .map(|count| (count.kind, count.retries, count.first_milliseconds))
            .collect();
        let expected = [
            (FailureKind::SourceStatus, 2, 10),
            (FailureKind::SourceTimeout, 1, 20),
        ];
        assert_eq!(counts, expected);
        assert_eq!(recording.check(), Ok(()));
        recording.retries.extend(recording.retries.clone());
        assert_eq!(recording.check(), Err(RecordingFault::Retries));
    }

    #[test]
    fn lists_that_do_not_fit_each_other_or_go_back_are_refused() {
        let mut short = recording(3);
        short.in_flight.pop();
        assert_eq!(short.check(), Err(RecordingFault::Lengths));
        let mut long = recording(256);
        long.milliseconds.push(u32::MAX);
        assert_eq!(long.check(), Err(RecordingFault::Lengths));
        let mut repeated = recording(3);
        repeated.heap_phases = vec![
            PhaseHeap {
                phase: Phase::Fetch,
                allocations: 1,
                allocated_bytes: 1,
                peak_bytes: 1,
            };
            2
        ];
        assert_eq!(repeated.check(), Err(RecordingFault::Phases));
        let mut backwards = recording(3);
        backwards.milliseconds[2] = 0;
        assert_eq!(backwards.check(), Err(RecordingFault::Order));
    }
}
