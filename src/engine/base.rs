//! [`BaseIndex`]: what the report of an earlier tar says of each range, and whether something still is what it says.
//!
//! A range that the source has not changed since is taken from the earlier tar, the base. What is read there is checked
//! like a body from the source, and compared with the checksum in the report.

use crate::engine::checksum::Crc32cStream;
use crate::engine::range_body::{RangeBodyError, RangeCheck};
use crate::engine::tar;
use crate::protocol::crc32c::Crc32c;
use crate::protocol::etag::opaque;
use crate::protocol::mode::Mode;
use crate::protocol::prefix::{Prefix, RangeName};
use crate::protocol::report::{Report, ReportFault};
use std::cell::RefCell;

/// Why a report is not one of a base.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseReportFault {
    /// Not the JSON of a report.
    #[error("it is not a report")]
    NotAReport,
    /// A report that breaks a rule.
    #[error("it is not valid: {0}")]
    Invalid(ReportFault),
    /// It is about something else than the job.
    #[error("it is about another prefix, source or mode")]
    Other,
    /// It has no checksums, as those of version 0.1.0.
    #[error("it has no checksums of single ranges, as those of version 0.1.0")]
    NoChecksums,
}

/// Why an entry of the base's tar is not what the report says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseEntryFault {
    /// Its header is another one.
    #[error("its header is not that of the range")]
    Header,
    /// Its data are not a valid range.
    #[error("{0}")]
    Body(RangeBodyError),
    /// Its data have another checksum.
    #[error("its checksum is not the one in the report")]
    Checksum,
}

/// An entry of the base that is what the report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseEntry {
    /// When it was modified, as Unix time.
    pub modified_seconds: u64,
    /// Its hashes.
    pub hashes: u64,
}

/// What is known of a range before it is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRange {
    /// Its ETag; empty if there is none.
    pub etag: String,
    /// Its size, in bytes.
    pub size_bytes: u32,
    /// The checksum of its data.
    pub crc32c: Crc32c,
}

impl KnownRange {
    /// The value of If-None-Match: the ETag, if it is one (RFC 9110, 8.8.3).
    pub fn if_none_match(&self) -> Option<&str> {
        let inner = opaque(&self.etag).strip_prefix('"')?.strip_suffix('"')?;
        (!inner.contains('"')).then_some(&self.etag)
    }

    /// Whether another ETag of the range names the same content.
    pub fn has_etag(&self, other: &str) -> bool {
        opaque(&self.etag) == opaque(other)
    }

    /// Whether this is the range's body.
    pub fn is<'body>(&self, size_bytes: usize, pieces: impl Iterator<Item = &'body [u8]>) -> bool {
        size_bytes == self.size_bytes as usize && checksum(pieces) == self.crc32c
    }
}

/// The index of a base.
#[derive(Debug)]
pub struct BaseIndex {
    report: Report,
    /// The ETags. One that is in use by a request is not here.
    etags: RefCell<Vec<String>>,
}

impl BaseIndex {
    /// Reads the index from the report of a tar of `prefix` from `source`, with the hashes of `mode`.
    ///
    /// # Errors
    /// It is not a valid report of such a tar, or has no checksums.
    pub fn from_report(
        text: &[u8],
        prefix: Prefix,
        mode: Mode,
        source: &str,
    ) -> Result<Self, BaseReportFault> {
        let mut report: Report =
            serde_json::from_slice(text).map_err(|_| BaseReportFault::NotAReport)?;
        report.check().map_err(BaseReportFault::Invalid)?;
        if report.prefix != prefix || report.source != source || report.mode != mode {
            return Err(BaseReportFault::Other);
        }
        if report.range_crc32c.is_empty() {
            return Err(BaseReportFault::NoChecksums);
        }
        let etags = RefCell::new(std::mem::take(&mut report.range_etags));
        Ok(Self { report, etags })
    }

    /// The size of a range, in bytes; 0 if it is not one of the base's.
    pub fn size_bytes(&self, range: RangeName) -> u32 {
        let sizes = &self.report.range_bytes;
        sizes.get(usize::from(range.index())).copied().unwrap_or(0)
    }

    fn crc32c(&self, range: RangeName) -> Crc32c {
        let checksums = &self.report.range_crc32c;
        let checksum = checksums.get(usize::from(range.index()));
        checksum.copied().unwrap_or(Crc32c(0))
    }

    /// What is known of a range. Its ETag leaves the index.
    pub fn take(&self, range: RangeName) -> KnownRange {
        let mut etags = self.etags.borrow_mut();
        let etag = etags.get_mut(usize::from(range.index()));
        KnownRange {
            etag: etag.map(std::mem::take).unwrap_or_default(),
            size_bytes: self.size_bytes(range),
            crc32c: self.crc32c(range),
        }
    }

    /// Puts an ETag back, or the one that the source has now.
    pub fn put_etag(&self, range: RangeName, etag: String) {
        if let Some(place) = self.etags.borrow_mut().get_mut(usize::from(range.index())) {
            *place = etag;
        }
    }

    /// Checks an entry that was read from the tar: its header and its data.
    ///
    /// # Errors
    /// It is not what the report says.
    pub fn check(
        &self,
        range: RangeName,
        header: &[u8; tar::BLOCK_BYTES],
        data: &[u8],
    ) -> Result<BaseEntry, BaseEntryFault> {
        let size_bytes = u64::from(self.size_bytes(range));
        let modified_seconds =
            tar::entry_modified(header, range, size_bytes).ok_or(BaseEntryFault::Header)?;
        let mut lines = RangeCheck::new(self.report.mode);
        lines.push(data).map_err(BaseEntryFault::Body)?;
        let hashes = lines.finish().map_err(BaseEntryFault::Body)?;
        if checksum(std::iter::once(data)) != self.crc32c(range) {
            return Err(BaseEntryFault::Checksum);
        }
        Ok(BaseEntry {
            modified_seconds,
            hashes,
        })
    }

    /// The report of the base, with the ETags that have been put back.
    pub fn to_report(&self) -> Report {
        Report {
            range_etags: self.etags.take(),
            ..self.report.clone()
        }
    }
}

fn checksum<'data>(pieces: impl Iterator<Item = &'data [u8]>) -> Crc32c {
    let mut checksum = Crc32cStream::new();
    for piece in pieces {
        checksum.push(piece);
    }
    Crc32c(checksum.checksum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::Seconds;
    use proptest::prelude::*;

    const SOURCE: &str = "https://api.pwnedpasswords.com";
    const PREFIX: Prefix = Prefix::from_number(0xAB);

    fn body(range: RangeName) -> Vec<u8> {
        let line = |number: u16| format!("{number:035X}:{}", 1 + range.index());
        let lines: Vec<String> = (0..2 + range.index() % 3).map(line).collect();
        lines.join("\r\n").into_bytes()
    }

    fn report() -> Report {
        let bodies: Vec<Vec<u8>> = PREFIX.ranges().map(body).collect();
        let sizes = bodies.iter().map(|body| body.len() as u64);
        let entries_bytes = sizes.clone().map(tar::entry_bytes).sum();
        Report {
            prefix: PREFIX,
            source: SOURCE.to_owned(),
            mode: Mode::Sha1,
            run: None,
            ranges: 4096,
            hashes: PREFIX
                .ranges()
                .map(|range| u64::from(2 + range.index() % 3))
                .sum(),
            data_bytes: sizes.sum(),
            content_length: tar::tar_bytes(entries_bytes),
            crc32c: Crc32c(0),
            requests: 4096,
            retries: 0,
            seconds: Seconds::default(),
            linear_memory_peak: 0,
            generation: None,
            etag: None,
            range_bytes: bodies.iter().map(|body| body.len() as u32).collect(),
            range_etags: PREFIX
                .ranges()
                .map(|range| format!("\"{range}\""))
                .collect(),
            range_crc32c: bodies
                .iter()
                .map(|body| Crc32c(crc32c::crc32c(body)))
                .collect(),
            cached_errors: Vec::new(),
            reuse: None,
            seen: None,
        }
    }

    fn index_of(report: &Report) -> Result<BaseIndex, BaseReportFault> {
        let text = serde_json::to_vec(report).expect("JSON");
        BaseIndex::from_report(&text, PREFIX, Mode::Sha1, SOURCE)
    }

    #[test]
    fn a_report_of_something_else_or_without_checksums_is_no_base() {
        assert!(index_of(&report()).is_ok());
        let fault = |change: &dyn Fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            index_of(&report).expect_err("no base")
        };
        assert_eq!(
            fault(&|report| report.source.push('/')),
            BaseReportFault::Other
        );
        let other = fault(&|report| {
            report.mode = Mode::Ntlm;
            report.range_bytes.fill(312);
            report.data_bytes = 4096 * 312;
            report.content_length = tar::tar_bytes(4096 * tar::entry_bytes(312));
            report.hashes = 4096 * 10;
        });
        assert_eq!(other, BaseReportFault::Other);
        let other = fault(&|report| report.prefix = Prefix::from_number(0xAC));
        assert_eq!(other, BaseReportFault::Other);
        let old = fault(&|report| report.range_crc32c.clear());
        assert_eq!(old, BaseReportFault::NoChecksums);
        let invalid = fault(&|report| report.data_bytes += 1);
        assert!(matches!(invalid, BaseReportFault::Invalid(_)), "{invalid}");
        for text in ["", "{}", "[]", "<html>"] {
            let read = BaseIndex::from_report(text.as_bytes(), PREFIX, Mode::Sha1, SOURCE);
            assert_eq!(read.err(), Some(BaseReportFault::NotAReport));
        }
    }

    #[test]
    fn an_etag_leaves_the_index_and_comes_back() {
        let index = index_of(&report()).expect("a base");
        let range = PREFIX.range(9);
        let known = index.take(range);
        assert_eq!(known.etag, "\"AB009\"");
        assert_eq!(index.take(range).etag, "");
        index.put_etag(range, "W/\"new\"".to_owned());
        assert_eq!(index.to_report().range_etags[9], "W/\"new\"");
    }

    #[test]
    fn an_etag_is_sent_if_it_is_one_and_compared_weakly() {
        let known = |etag: &str| KnownRange {
            etag: etag.to_owned(),
            size_bytes: 0,
            crc32c: Crc32c(0),
        };
        for etag in ["\"a\"", "W/\"a\"", "\"\""] {
            assert_eq!(known(etag).if_none_match(), Some(etag));
        }
        for etag in ["", "a", "\"", "w/\"a\"", "\"a\", \"b\"", "*"] {
            assert_eq!(known(etag).if_none_match(), None, "{etag}");
        }
        assert!(known("\"a\"").has_etag("W/\"a\"") && known("W/\"a\"").has_etag("\"a\""));
        assert!(!known("\"a\"").has_etag("\"b\"") && !known("\"a\"").has_etag(""));
    }

    proptest! {
        #[test]
        fn an_entry_is_the_bases_only_if_every_bit_is(index in 0_u16..4096, at in 0_usize..800, bit in 0_u8..8) {
            let base = index_of(&report()).expect("a base");
            let range = PREFIX.range(index);
            let mut data = body(range);
            let mut header = tar::entry_header(range, data.len() as u64, 7).expect("a header");
            let entry = BaseEntry { modified_seconds: 7, hashes: u64::from(2 + index % 3) };
            prop_assert_eq!(base.check(range, &header, &data), Ok(entry));
            prop_assert!(base.take(range).is(data.len(), data.chunks(50)));
            let whole = header.len() + data.len();
            match (at % whole).checked_sub(header.len()) {
                None => header[at % whole] ^= 1 << bit,
                Some(at) => data[at] ^= 1 << bit,
            }
            prop_assert!(base.check(range, &header, &data).is_err());
        }
    }
}
