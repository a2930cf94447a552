//! Measures the invocation for its [`Recording`].

use super::events::linear_memory_bytes;
use super::heap;
use crate::engine::chunk_pool::ChunkPool;
use crate::limits::RECORDED_RANGES;
use crate::protocol::failure::FailureKind;
use crate::protocol::prefix::RANGES_PER_PREFIX;
use crate::protocol::recording::{Point, Recording};
use std::cell::RefCell;
use std::time::Instant;

/// What is measured at a point, as far as the invocation knows it.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) ranges: u32,
    pub(super) in_flight: usize,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// The recorder of one invocation.
pub(super) struct Recorder {
    started: Instant,
    recording: RefCell<Recording>,
}

impl Recorder {
    /// A recorder that starts now.
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            recording: RefCell::default(),
        }
    }

    /// Whether a point is due after this many ranges: after the first, and then at equal distances.
    pub(super) const fn is_due(ranges: u32) -> bool {
        ranges == 1 || ranges.is_multiple_of(RECORDED_RANGES) || ranges == RANGES_PER_PREFIX as u32
    }

    /// Records a point.
    pub(super) fn record(&self, counts: &Counts, pool: &ChunkPool) {
        self.recording.borrow_mut().push(Point {
            milliseconds: self.milliseconds(),
            ranges: counts.ranges,
            in_flight: u32::try_from(counts.in_flight).unwrap_or(u32::MAX),
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            linear_memory: linear_memory_bytes(),
            pool_bytes: pool.bytes_in_use() as u64,
            heap_bytes: heap::live_bytes(),
        });
    }

    /// Counts a range request that is repeated.
    pub(super) fn count_retry(&self, kind: FailureKind) {
        let milliseconds = self.milliseconds();
        self.recording.borrow_mut().count_retry(kind, milliseconds);
    }

    fn milliseconds(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
    }

    /// The recording so far.
    pub(super) fn finish(&self) -> Recording {
        let mut recording = self.recording.take();
        recording.heap_peak = heap::peak_bytes();
        recording.heap_phases = heap::phases();
        recording
    }
}
