//! Collects what the report says about each range.

use super::events::linear_memory_bytes;
use super::ranges::Written;
use super::upload::Stored;
use crate::engine::tar;
use crate::protocol::crc32c::Crc32c;
use crate::protocol::mode::Mode;
use crate::protocol::prefix::Prefix;
use crate::protocol::report::{CachedError, Report, Reuse, Seconds};

/// The ranges of the tar so far.
#[derive(Default)]
pub(super) struct Index {
    hashes: u64,
    data_bytes: u64,
    entries_bytes: u64,
    range_bytes: Vec<u32>,
    range_etags: Vec<String>,
    range_crc32c: Vec<Crc32c>,
}

/// The parts of a report that are not about single ranges.
pub(super) struct Summary {
    pub(super) prefix: Prefix,
    pub(super) source: String,
    pub(super) mode: Mode,
    pub(super) content_length: u64,
    pub(super) requests: u64,
    pub(super) stored: Stored,
    pub(super) seconds: Seconds,
    pub(super) reuse: Option<Reuse>,
    pub(super) cached_errors: Vec<CachedError>,
}

impl Index {
    /// Adds the next range in order.
    pub(super) fn add(&mut self, range: Written) {
        self.hashes += range.hashes;
        self.data_bytes += range.size_bytes;
        self.entries_bytes += tar::entry_bytes(range.size_bytes);
        self.range_bytes
            .push(u32::try_from(range.size_bytes).unwrap_or(u32::MAX));
        self.range_etags.push(range.etag);
        self.range_crc32c.push(range.crc32c);
    }

    /// Ranges added so far.
    pub(super) fn ranges(&self) -> u32 {
        u32::try_from(self.range_bytes.len()).unwrap_or(u32::MAX)
    }

    /// Their data, in bytes.
    pub(super) const fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Their entries in the tar, in bytes.
    pub(super) const fn entries_bytes(&self) -> u64 {
        self.entries_bytes
    }

    /// The report on the finished tar.
    pub(super) fn into_report(self, summary: Summary) -> Report {
        let ranges = self.ranges();
        Report {
            prefix: summary.prefix,
            source: summary.source,
            mode: summary.mode,
            run: None,
            ranges,
            hashes: self.hashes,
            data_bytes: self.data_bytes,
            content_length: summary.content_length,
            crc32c: summary.stored.crc32c,
            requests: summary.requests,
            retries: summary.requests.saturating_sub(u64::from(ranges)),
            seconds: summary.seconds,
            linear_memory_peak: linear_memory_bytes(),
            generation: summary.stored.generation,
            etag: summary.stored.etag,
            range_bytes: self.range_bytes,
            range_etags: self.range_etags,
            range_crc32c: self.range_crc32c,
            cached_errors: summary.cached_errors,
            reuse: summary.reuse,
            seen: None,
        }
    }
}
