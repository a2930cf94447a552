//! [`Report`]: what an invocation stored, and the index of its tar.

use crate::engine::tar;
use crate::protocol::crc32c::Crc32c;
use crate::protocol::prefix::{Prefix, RangeName};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How long the parts of an invocation took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Seconds {
    /// From the start until the last range arrived.
    pub fetch: f64,
    /// From the start of the PUT until the store's answer. It overlaps with `fetch`.
    pub upload: f64,
    /// The whole invocation.
    pub total: f64,
}

/// What an invocation stored. It is also the index of the tar: `range_bytes` has the size of every
/// entry's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The prefix.
    pub prefix: Prefix,
    /// The source's base URL.
    pub source: String,
    /// Ranges in the tar: 4,096.
    pub ranges: u32,
    /// Hashes: the lines of all ranges.
    pub hashes: u64,
    /// Data of all ranges, in bytes.
    pub data_bytes: u64,
    /// The object's length, in bytes.
    pub content_length: u64,
    /// The object's CRC32C.
    pub crc32c: Crc32c,
    /// Range requests sent.
    pub requests: u64,
    /// Range requests that repeated an earlier one.
    pub retries: u64,
    /// How long it took.
    pub seconds: Seconds,
    /// The invocation's peak linear memory, in bytes.
    pub linear_memory_peak: u64,
    /// The object's generation, if the store has generations.
    pub generation: Option<String>,
    /// The object's ETag, if the store sent one.
    pub etag: Option<String>,
    /// The size of each range in bytes, in order.
    pub range_bytes: Vec<u32>,
    /// The source's ETag for each range, in order; empty if it sent none.
    pub range_etags: Vec<String>,
}

impl Report {
    /// The bytes of the tar that hold the data of `range`, without its header and padding.
    ///
    /// `None` if `range` has another prefix or the report does not list it. Each call sums the
    /// entries before it, at most 4,095 additions.
    pub fn byte_range(&self, range: RangeName) -> Option<Range<u64>> {
        if range.prefix() != self.prefix {
            return None;
        }
        let index = usize::from(range.index());
        let data_bytes = u64::from(*self.range_bytes.get(index)?);
        let sizes = self.range_bytes.iter().take(index);
        let entries_bytes: u64 = sizes.map(|size| tar::entry_bytes(u64::from(*size))).sum();
        let start = entries_bytes + tar::BLOCK_BYTES as u64;
        Some(start..start + data_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tar::{Archive, Builder, Header};
    use proptest::prelude::*;

    fn report(range_bytes: Vec<u32>) -> Report {
        Report {
            prefix: Prefix::from_number(0xAB),
            source: "http://127.0.0.1:8080".to_owned(),
            ranges: 4096,
            hashes: 0,
            data_bytes: 0,
            content_length: 0,
            crc32c: Crc32c(0),
            requests: 0,
            retries: 0,
            seconds: Seconds::default(),
            linear_memory_peak: 0,
            generation: None,
            etag: None,
            range_etags: vec![String::new(); range_bytes.len()],
            range_bytes,
        }
    }

    proptest! {
        #[test]
        fn byte_ranges_are_where_the_tar_crate_finds_the_data(
            sizes in proptest::collection::vec(0_u32..1500, 0..20),
        ) {
            let mut builder = Builder::new(Vec::new());
            for (range, size) in Prefix::from_number(0xAB).ranges().zip(&sizes) {
                let mut header = Header::new_ustar();
                header.set_size(u64::from(*size));
                let data = vec![b'x'; *size as usize];
                builder.append_data(&mut header, range.file_name(), data.as_slice())?;
            }
            let tar = builder.into_inner()?;
            let report = report(sizes);
            let mut archive = Archive::new(tar.as_slice());
            let mut entries = 0;
            for (range, entry) in Prefix::from_number(0xAB).ranges().zip(archive.entries()?) {
                let entry = entry?;
                let start = entry.raw_file_position();
                prop_assert_eq!(report.byte_range(range), Some(start..start + entry.size()));
                entries += 1;
            }
            prop_assert_eq!(entries, report.range_bytes.len());
        }
    }

    #[test]
    fn ranges_outside_the_report_have_no_byte_range() {
        let report = report(vec![5, 0]);
        let byte_range = |name: &str| report.byte_range(name.parse().expect("a range"));
        assert_eq!(byte_range("AB000"), Some(512..517));
        assert_eq!(byte_range("AB001"), Some(1536..1536));
        assert_eq!(byte_range("AB002"), None);
        assert_eq!(byte_range("AC000"), None);
    }
}
