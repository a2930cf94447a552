//! [`PrefixIndex`]: where the ranges of a tar are, and what they have to be. It takes about 200 KB.

use crate::archive::TarIndex;
use prefix_tar::engine::tar::{BLOCK_BYTES, entry_bytes};
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use prefix_tar::protocol::report::Report;
use std::ops::Range;

/// The index of one tar.
#[derive(Debug)]
pub(super) struct PrefixIndex {
    prefix: Prefix,
    content_length: u64,
    crc32c: Crc32c,
    entries: Vec<IndexEntry>,
    /// The ETags of all ranges, in a row.
    etags: String,
}

#[derive(Debug)]
struct IndexEntry {
    /// Where the header begins, in blocks.
    block: u32,
    data_bytes: u32,
    crc32c: Crc32c,
    /// Where the ETag ends, in bytes.
    etag_end: u32,
}

/// What the index says about one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'index> {
    /// The bytes of its header and its data in the tar.
    pub(super) bytes: Range<u64>,
    /// The checksum of its data.
    pub(super) crc32c: Crc32c,
    pub(super) etag: &'index str,
}

impl PrefixIndex {
    /// The index in a report; `None` if the report is not valid or has no checksums.
    pub(super) fn of_report(report: Report) -> Option<Self> {
        if report.check().is_err() || report.range_crc32c.is_empty() {
            return None;
        }
        Self::new(
            report.prefix,
            (report.content_length, report.crc32c),
            &report.range_bytes,
            &report.range_crc32c,
            &report.range_etags,
        )
    }

    /// The index of a tar that was read from end to end. It knows no ETags.
    pub(super) fn of_tar(prefix: Prefix, index: TarIndex) -> Option<Self> {
        let object = (index.content_length, index.crc32c);
        let (sizes, checksums) = (&index.range_bytes, &index.range_crc32c);
        Self::new(prefix, object, sizes, checksums, &[])
    }

    fn new(
        prefix: Prefix,
        (content_length, crc32c): (u64, Crc32c),
        sizes: &[u32],
        checksums: &[Crc32c],
        range_etags: &[String],
    ) -> Option<Self> {
        let (mut blocks, mut etags) = (0, String::new());
        let mut entries = Vec::with_capacity(sizes.len());
        for (index, (size, range_crc32c)) in sizes.iter().zip(checksums).enumerate() {
            etags.push_str(range_etags.get(index).map_or("", String::as_str));
            entries.push(IndexEntry {
                block: u32::try_from(blocks).ok()?,
                data_bytes: *size,
                crc32c: *range_crc32c,
                etag_end: u32::try_from(etags.len()).ok()?,
            });
            blocks += entry_bytes(u64::from(*size)) / BLOCK_BYTES as u64;
        }
        Some(Self {
            prefix,
            content_length,
            crc32c,
            entries,
            etags,
        })
    }

    /// The length and the checksum of the tar.
    pub(super) const fn object(&self) -> (u64, Crc32c) {
        (self.content_length, self.crc32c)
    }

    /// What the index says about `range`; `None` if it has another prefix or the tar lacks it.
    pub(super) fn entry(&self, range: RangeName) -> Option<Entry<'_>> {
        if range.prefix() != self.prefix {
            return None;
        }
        let at = usize::from(range.index());
        let entry = self.entries.get(at)?;
        let before = at
            .checked_sub(1)
            .and_then(|before| self.entries.get(before));
        let etag_start = before.map_or(0, |before| before.etag_end);
        let start = u64::from(entry.block) * BLOCK_BYTES as u64;
        let bytes = BLOCK_BYTES as u64 + u64::from(entry.data_bytes);
        Some(Entry {
            bytes: start..start + bytes,
            crc32c: entry.crc32c,
            etag: self
                .etags
                .get(etag_start as usize..entry.etag_end as usize)
                .unwrap_or_default(),
        })
    }
}
