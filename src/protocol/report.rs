//! [`Report`]: what an invocation stored, and the index of its tar.

use crate::engine::range_body::{body_bytes_min, line_bytes_max, line_bytes_min};
use crate::engine::tar;
use crate::limits::{
    CACHED_ERRORS_MAX, CONTENT_LENGTH_MAX, ETAG_BYTES_MAX, RANGE_ATTEMPTS_MAX, RANGE_BYTES_MAX,
};
use crate::protocol::crc32c::Crc32c;
use crate::protocol::mode::Mode;
use crate::protocol::prefix::{Prefix, RANGES_PER_PREFIX, RangeName};
use crate::protocol::run_id::RunId;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How long the parts of an invocation took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Seconds {
    /// From the start until the last range arrived.
    pub fetch: f64,
    /// From the start of the PUT until the store's answer. It overlaps with `fetch`.
    pub upload: f64,
    /// The whole invocation.
    pub total: f64,
}

/// What an invocation took from its base, an earlier tar of the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reuse {
    /// Ranges that are the base's, because the source has not changed them since.
    pub ranges: u32,
    /// Their data, in bytes.
    pub data_bytes: u64,
    /// Whether the tar was uploaded. If not, no range has changed, and the base is the tar.
    pub uploaded: bool,
    /// Why the base was not used, or only up to some range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A range for which a cache had an error, and which was requested under another cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CachedError {
    /// The range.
    pub range: RangeName,
    /// The status that the cache answered.
    pub status: u16,
    /// For how long the cache has had the answer, in seconds; 0 if it does not say.
    pub age_seconds: u64,
}

/// What an invocation stored. It is also the index of the tar: `range_bytes` has the size of every
/// entry's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// The prefix.
    pub prefix: Prefix,
    /// The source's base URL.
    pub source: String,
    /// Which hashes it holds; SHA-1 if absent.
    #[serde(default, skip_serializing_if = "Mode::is_default")]
    pub mode: Mode,
    /// The run that stored it. The orchestrator adds it; reports of version 0.1.0 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
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
    /// The CRC32C of each range's data, in order. Reports of version 0.1.0 have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub range_crc32c: Vec<Crc32c>,
    /// The first ranges for which a cache had an error; at most [`CACHED_ERRORS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cached_errors: Vec<CachedError>,
    /// What came from the base; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
    /// When a run last saw that the source has nothing newer than this tar, in RFC 3339. The orchestrator adds it, if
    /// that was not the run that uploaded the tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

/// A store's generation or ETag in a report, in bytes. GCS's have about 20 and 40.
const STORE_TEXT_BYTES_MAX: usize = 256;

/// Range requests of one invocation, if every range takes all its attempts.
const REQUESTS_MAX: u64 = RANGES_PER_PREFIX as u64 * RANGE_ATTEMPTS_MAX as u64;

/// Why a report cannot describe a tar of 4,096 valid ranges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportFault {
    /// It does not count 4,096 ranges.
    #[error("it counts {0} ranges, not 4096")]
    Ranges(u32),
    /// The index does not have one size and one ETag for each range, or has checksums for some only.
    #[error(
        "its index has {sizes} sizes, {etags} ETags and {checksums} checksums, not 4096 of each"
    )]
    Index {
        /// Sizes in the index.
        sizes: usize,
        /// ETags in the index.
        etags: usize,
        /// Checksums in the index. There may be none.
        checksums: usize,
    },
    /// No valid range has this size.
    #[error("it gives {0} a size of {1} bytes, which no valid range has")]
    RangeBytes(RangeName, u32),
    /// The sizes add up to another sum.
    #[error("its {stated} bytes of data are not the sum of its index, {sum}")]
    DataBytes {
        /// As stated.
        stated: u64,
        /// The sum over the index.
        sum: u64,
    },
    /// So many hashes do not take so many bytes.
    #[error("{hashes} hashes cannot take {data_bytes} bytes")]
    Hashes {
        /// As stated.
        hashes: u64,
        /// As stated.
        data_bytes: u64,
    },
    /// The object is too short for its entries, or longer than any tar.
    #[error("a tar of {0} bytes does not fit its index")]
    ContentLength(u64),
    /// Fewer requests than ranges, more than all attempts together, or another difference than the retries.
    #[error("{requests} requests and {retries} retries do not fit 4096 ranges")]
    Requests {
        /// As stated.
        requests: u64,
        /// As stated.
        retries: u64,
    },
    /// A duration that is negative or not a number.
    #[error("its times are not durations")]
    Seconds,
    /// A text that is too long or has other characters than visible ASCII.
    #[error("it has a generation, an ETag or a time that is too long or not visible ASCII")]
    StoreText,
    /// Too many cached errors, or some of another prefix.
    #[error("it names cached errors of other prefixes, or too many")]
    CachedErrors,
    /// More was taken from the base than there is.
    #[error("it took more from its base than it has")]
    Reuse,
}

impl Report {
    /// Checks everything about the report that can be checked without the tar.
    ///
    /// # Errors
    /// The first rule that the report breaks: no component of this version writes such a report.
    pub fn check(&self) -> Result<(), ReportFault> {
        if self.ranges != u32::from(RANGES_PER_PREFIX) {
            return Err(ReportFault::Ranges(self.ranges));
        }
        let (sizes, etags) = (self.range_bytes.len(), self.range_etags.len());
        let checksums = self.range_crc32c.len();
        let ranges = usize::from(RANGES_PER_PREFIX);
        if [sizes, etags] != [ranges; 2] || ![0, ranges].contains(&checksums) {
            return Err(ReportFault::Index {
                sizes,
                etags,
                checksums,
            });
        }
        self.check_sizes()?;
        let spent = self.requests.checked_sub(u64::from(self.ranges));
        if spent != Some(self.retries) || self.requests > REQUESTS_MAX {
            return Err(ReportFault::Requests {
                requests: self.requests,
                retries: self.retries,
            });
        }
        let Seconds {
            fetch,
            upload,
            total,
        } = self.seconds;
        if ![fetch, upload, total]
            .iter()
            .all(|seconds| seconds.is_finite() && *seconds >= 0.0)
        {
            return Err(ReportFault::Seconds);
        }
        let is_text = |text: &str, bytes_max: usize| {
            text.len() <= bytes_max && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        let is_own = |error: &CachedError| error.range.prefix() == self.prefix;
        if self.cached_errors.len() > CACHED_ERRORS_MAX || !self.cached_errors.iter().all(is_own) {
            return Err(ReportFault::CachedErrors);
        }
        if self.reuse.as_ref().is_some_and(|reuse| !self.allows(reuse)) {
            return Err(ReportFault::Reuse);
        }
        let of_store = [&self.generation, &self.etag, &self.seen]
            .into_iter()
            .flatten();
        let all_text = of_store
            .into_iter()
            .all(|text| is_text(text, STORE_TEXT_BYTES_MAX))
            && self
                .range_etags
                .iter()
                .all(|etag| is_text(etag, ETAG_BYTES_MAX));
        if all_text {
            Ok(())
        } else {
            Err(ReportFault::StoreText)
        }
    }

    /// Whether so much can be from the base. A tar that was not uploaded is the base's as a whole.
    const fn allows(&self, reuse: &Reuse) -> bool {
        let is_all = reuse.ranges == self.ranges && reuse.data_bytes == self.data_bytes;
        reuse.ranges <= self.ranges
            && reuse.data_bytes <= self.data_bytes
            && (reuse.uploaded || is_all)
    }

    /// Checks the sizes in the index, and the sums that follow from them.
    fn check_sizes(&self) -> Result<(), ReportFault> {
        let (mut sum, mut entries_bytes) = (0, 0);
        let sizes = body_bytes_min(self.mode)..=RANGE_BYTES_MAX;
        for (range, size) in self.prefix.ranges().zip(&self.range_bytes) {
            if !sizes.contains(&(*size as usize)) {
                return Err(ReportFault::RangeBytes(range, *size));
            }
            sum += u64::from(*size);
            entries_bytes += tar::entry_bytes(u64::from(*size));
        }
        if sum != self.data_bytes {
            let stated = self.data_bytes;
            return Err(ReportFault::DataBytes { stated, sum });
        }
        // The last line of each range may lack its line end, which has two bytes.
        let line_ends_missing = 2 * u64::from(RANGES_PER_PREFIX);
        let hashes_min = sum.div_ceil(line_bytes_max(self.mode) as u64);
        let hashes_max = (sum + line_ends_missing) / line_bytes_min(self.mode) as u64;
        let hashes_min = hashes_min.max(u64::from(RANGES_PER_PREFIX));
        if !(hashes_min..=hashes_max).contains(&self.hashes) {
            return Err(ReportFault::Hashes {
                hashes: self.hashes,
                data_bytes: sum,
            });
        }
        let content_length_min = entries_bytes + tar::END_BYTES;
        if !(content_length_min..=CONTENT_LENGTH_MAX).contains(&self.content_length) {
            return Err(ReportFault::ContentLength(self.content_length));
        }
        Ok(())
    }

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
            mode: Mode::Sha1,
            run: None,
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
            range_crc32c: vec![Crc32c(0); range_bytes.len()],
            range_bytes,
            cached_errors: Vec::new(),
            reuse: None,
            seen: None,
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

    /// A report that breaks no rule: 4,096 ranges of two lines each.
    fn valid_report() -> Report {
        let size = 2 * line_bytes_min(Mode::Sha1) as u32;
        let data_bytes = 4096 * u64::from(size);
        Report {
            hashes: 2 * 4096,
            data_bytes,
            content_length: tar::tar_bytes(4096 * tar::entry_bytes(u64::from(size))),
            requests: 4097,
            retries: 1,
            generation: Some("1767225600000000".to_owned()),
            etag: Some("\"CJ=\"".to_owned()),
            ..report(vec![size; 4096])
        }
    }

    #[test]
    fn a_report_is_checked_against_every_rule_that_needs_no_tar() {
        let valid = valid_report();
        assert_eq!(valid.check(), Ok(()));
        let mut old = valid.clone();
        old.range_crc32c.clear();
        assert_eq!(old.check(), Ok(()), "as version 0.1.0 wrote it");
        let broken = |change: &dyn Fn(&mut Report)| {
            let mut report = valid.clone();
            change(&mut report);
            report.check().expect_err("a broken rule")
        };
        assert_eq!(broken(&|report| report.ranges = 1), ReportFault::Ranges(1));
        for change in [
            (|report| report.range_bytes.clear()) as fn(&mut Report),
            |report| report.range_bytes.truncate(4095),
            |report| report.range_bytes.push(78),
            |report| report.range_etags.clear(),
            |report| report.range_crc32c.truncate(1),
        ] {
            assert!(matches!(broken(&change), ReportFault::Index { .. }));
        }
        let range = "ABFFF".parse().expect("a range");
        for size in [0, 36, RANGE_BYTES_MAX as u32 + 1] {
            assert_eq!(
                broken(&|report| report.range_bytes[4095] = size),
                ReportFault::RangeBytes(range, size)
            );
        }
        let fault = broken(&|report| report.range_bytes[7] += 1);
        assert!(matches!(fault, ReportFault::DataBytes { .. }));
        for hashes in [0, 4095, 6655, 8403] {
            let fault = broken(&|report| report.hashes = hashes);
            assert!(matches!(fault, ReportFault::Hashes { .. }), "{hashes}");
        }
        for content_length in [0, valid.content_length - 10_240, u64::MAX] {
            assert_eq!(
                broken(&|report| report.content_length = content_length),
                ReportFault::ContentLength(content_length)
            );
        }
        let fault = broken(&|report| report.retries = 0);
        assert!(matches!(fault, ReportFault::Requests { .. }));
        let fault = broken(&|report| report.seconds.total = f64::NAN);
        assert_eq!(fault, ReportFault::Seconds);
        for change in [
            (|report| report.etag = Some("\u{1b}[2J".to_owned())) as fn(&mut Report),
            |report| report.seen = Some("\u{9b}".to_owned()),
            |report| report.generation = Some("1\n2".to_owned()),
            |report| report.range_etags[9] = "x".repeat(ETAG_BYTES_MAX + 1),
        ] {
            assert_eq!(broken(&change), ReportFault::StoreText);
        }
    }

    #[test]
    fn the_sizes_and_hashes_of_a_report_are_those_of_its_mode() {
        let sha1 = valid_report();
        let sized = |size: u32, hashes: u64, mode| {
            let data_bytes = 4096 * u64::from(size);
            let content_length = tar::tar_bytes(4096 * tar::entry_bytes(u64::from(size)));
            Report {
                mode,
                hashes,
                data_bytes,
                content_length,
                range_bytes: vec![size; 4096],
                ..sha1.clone()
            }
        };
        // The shortest range of NTLM hashes is a line of 27 characters, a colon and a digit.
        let shortest = sized(29, 4096, Mode::Ntlm);
        assert_eq!(shortest.check(), Ok(()));
        let range = "AB000".parse().expect("a range");
        assert_eq!(
            sized(28, 4096, Mode::Ntlm).check(),
            Err(ReportFault::RangeBytes(range, 28))
        );
        assert_eq!(
            sized(29, 4096, Mode::Sha1).check(),
            Err(ReportFault::RangeBytes(range, 29))
        );
        // Eight lines of 39 bytes, or ten of 31.
        assert_eq!(sized(312, 8 * 4096, Mode::Sha1).check(), Ok(()));
        assert_eq!(sized(312, 10 * 4096, Mode::Ntlm).check(), Ok(()));
        for (hashes, mode) in [(10 * 4096, Mode::Sha1), (11 * 4096, Mode::Ntlm)] {
            let fault = sized(312, hashes, mode).check().expect_err("too many");
            assert!(matches!(fault, ReportFault::Hashes { .. }), "{fault}");
        }
    }

    #[test]
    fn a_report_without_a_mode_is_about_sha_1_and_does_not_state_it() {
        for mode in Mode::ALL {
            let report = Report {
                mode,
                ..valid_report()
            };
            let json = serde_json::to_value(&report).expect("JSON");
            let stated = json.get("mode").and_then(|mode| mode.as_str());
            assert_eq!(stated, (mode == Mode::Ntlm).then_some("ntlm"));
            assert_eq!(serde_json::from_value::<Report>(json).ok(), Some(report));
        }
    }

    #[test]
    fn cached_errors_are_of_the_prefix_and_bounded() {
        let error = |range: &str| CachedError {
            range: range.parse().expect("a range"),
            status: 502,
            age_seconds: 689_562,
        };
        let check = |cached_errors| {
            let report = Report {
                cached_errors,
                ..valid_report()
            };
            report.check()
        };
        assert_eq!(check(vec![error("AB123"); CACHED_ERRORS_MAX]), Ok(()));
        for errors in [
            vec![error("AB123"); CACHED_ERRORS_MAX + 1],
            vec![error("AC123")],
        ] {
            assert_eq!(check(errors), Err(ReportFault::CachedErrors));
        }
    }

    #[test]
    fn a_report_cannot_take_more_from_its_base_than_it_has() {
        let valid = valid_report();
        let all = Reuse {
            ranges: 4096,
            data_bytes: valid.data_bytes,
            uploaded: false,
            fault: None,
        };
        let check = |reuse: Reuse| {
            let report = Report {
                reuse: Some(reuse),
                ..valid.clone()
            };
            report.check()
        };
        assert_eq!(check(all.clone()), Ok(()));
        let (mut more_ranges, mut more_data) = (all.clone(), all.clone());
        more_ranges.ranges += 1;
        more_data.data_bytes += 1;
        let mut some = Reuse {
            ranges: 4095,
            ..all
        };
        for reuse in [more_ranges, more_data, some.clone()] {
            assert_eq!(check(reuse), Err(ReportFault::Reuse));
        }
        some.uploaded = true;
        assert_eq!(check(some), Ok(()));
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
