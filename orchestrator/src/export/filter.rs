//! [`FilterSink`]: a binary fuse filter of the hashes.

use super::RangeSink;
use super::line::{first_64_bits, lines};
use crate::filter_file::FilterKind;
use crate::filter_file::write::FilterWriter;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use std::io::{self, Seek, Write};

/// Collects the keys of a prefix and adds them to a filter file. Only one prefix is in memory: 8 million keys of 8 bytes
/// in 2026, and about four times that while its filter is built.
#[derive(Debug)]
pub struct FilterSink<Out> {
    writer: FilterWriter<Out>,
    keys: Vec<u64>,
    mode: Mode,
}

impl<Out: Write + Seek> FilterSink<Out> {
    /// Writes hashes of `mode` to `out`, from its beginning.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(kind: FilterKind, mode: Mode, out: Out) -> io::Result<Self> {
        Ok(Self {
            writer: FilterWriter::new(kind, mode, out)?,
            keys: Vec::new(),
            mode,
        })
    }

    /// Completes the file and returns the number of its keys.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self) -> io::Result<u64> {
        self.writer.finish()
    }
}

impl<Out: Write + Seek> RangeSink for FilterSink<Out> {
    fn range(&mut self, range: RangeName, body: &[u8]) -> io::Result<()> {
        let keys = lines(body, self.mode).map(|line| first_64_bits(range, line.suffix));
        self.keys.extend(keys);
        Ok(())
    }

    fn end_prefix(&mut self, prefix: Prefix) -> io::Result<()> {
        // Hashes are in order, so those that share their first 64 bits are neighbors. In a corpus of two billion there
        // may be a pair.
        self.keys.dedup();
        self.writer.add_prefix(prefix, &self.keys)?;
        self.keys.clear();
        Ok(())
    }
}
