//! Reads one tar and judges it: its ustar form, the names, sizes and bodies of its ranges, and its
//! report.
//!
//! The `tar` crate reads the headers, so that the form is judged by other code than wrote it.
//! Ranges are judged by the component's own checks, because there is only one rule.
//!
//! Nothing in a tar decides how much memory is needed: an entry that is not a range is refused
//! before its data is read, and bodies are checked piece by piece in one buffer.

#[cfg(test)]
mod tests;

use super::tar_header::{entry_size, is_zeros};
use super::tar_source::{Source, Stop};
use prefix_tar::engine::duplicate_detector::DuplicateDetector;
use prefix_tar::engine::range_body::{RangeBodyError, RangeCheck};
use prefix_tar::engine::tar::{BLOCK_BYTES, RECORD_BYTES, padding_bytes};
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{Prefix, RANGES_PER_PREFIX, RangeName};
use prefix_tar::protocol::report::Report;
use std::io::{self, Read};
use std::ops::ControlFlow;

/// Damages that are listed for one tar; the rest are counted.
const DAMAGES_MAX: usize = 8;

/// What is wrong with a tar: the first damages, and how many more there are.
#[derive(Debug, Default)]
pub struct Damages {
    listed: Vec<String>,
    more: usize,
}

impl Damages {
    /// Whether nothing is wrong.
    pub const fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Adds a damage. It completes a sentence that begins with the tar's name.
    pub fn push(&mut self, damage: String) {
        if self.listed.len() < DAMAGES_MAX {
            self.listed.push(damage);
        } else {
            self.more += 1;
        }
    }

    /// The damages as lines, the last of which may count those that are not listed.
    pub fn into_lines(self) -> Vec<String> {
        let mut lines = self.listed;
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines
    }
}

/// What was found in a tar.
#[derive(Debug)]
pub struct TarCheck {
    /// Valid ranges.
    pub ranges: u64,
    /// Their hashes.
    pub hashes: u64,
    /// Their data in bytes.
    pub data_bytes: u64,
    /// The size in bytes of each range that was read, in order. Invalid ranges are among them.
    pub range_bytes: Vec<u32>,
    /// The checksum of each of these ranges' data.
    pub range_crc32c: Vec<Crc32c>,
    /// The bytes that were read: the tar's length if it was read to its end.
    pub content_length: u64,
    /// Their checksum.
    pub crc32c: Crc32c,
    /// Whether the tar was read to its end. Reading stops where the form is broken.
    pub is_read_to_end: bool,
    /// What is wrong with the tar.
    pub damages: Damages,
    /// Why the tar could not be read any further. That says nothing about the tar.
    pub unreadable: Option<io::Error>,
}

impl TarCheck {
    /// Whether the tar was read to its end and nothing is wrong with it.
    pub fn is_whole(&self) -> bool {
        self.is_read_to_end && self.damages.is_empty() && self.unreadable.is_none()
    }
}

/// What gets the valid ranges of a tar, in order. It ends the reading with [`ControlFlow::Break`].
/// Whether the tar is whole is known only at its end.
pub type RangeVisitor<'visitor> = dyn FnMut(RangeName, &[u8]) -> ControlFlow<()> + 'visitor;

/// Reads the tar of `prefix` from its beginning and judges it as one with hashes of `mode`. With a
/// report, which must be valid, it is also compared with that.
pub fn check_tar(
    reader: impl Read,
    prefix: Prefix,
    mode: Mode,
    report: Option<&Report>,
) -> TarCheck {
    visit_tar(reader, prefix, mode, report, None)
}

/// Like [`check_tar`], and passes every valid range to `visitor`.
pub fn visit_tar<'visitor>(
    reader: impl Read,
    prefix: Prefix,
    mode: Mode,
    report: Option<&Report>,
    visitor: Option<&'visitor mut RangeVisitor<'visitor>>,
) -> TarCheck {
    let mut check = Check::new(reader, mode, report, visitor);
    let unreadable = match check.read(prefix) {
        Ok(()) | Err(Stop::Unwanted) => None,
        Err(Stop::Damaged(damage)) => {
            check.damages.push(damage);
            None
        }
        Err(Stop::Unreadable(error)) => Some(error),
    };
    let mut found = TarCheck {
        ranges: check.ranges,
        hashes: check.hashes,
        data_bytes: check.data_bytes,
        range_bytes: check.range_bytes,
        range_crc32c: check.range_crc32c,
        content_length: check.source.bytes(),
        crc32c: check.source.crc32c(),
        is_read_to_end: check.source.is_at_end(),
        damages: check.damages,
        unreadable,
    };
    if let Some(report) = report.filter(|_| found.is_read_to_end) {
        compare(&mut found, report);
    }
    found
}

fn compare(found: &mut TarCheck, report: &Report) {
    found.compare_object(report.content_length, report.crc32c, "its report");
    let is_summed = found.hashes == report.hashes
        && found.data_bytes == report.data_bytes
        && found.ranges == u64::from(report.ranges);
    if found.damages.is_empty() && !is_summed {
        let damage = "has other counts of ranges, hashes or bytes than its report";
        found.damages.push(damage.to_owned());
    }
}

impl TarCheck {
    /// Compares a tar that was read to its end with the length and the checksum that `place`
    /// states.
    pub fn compare_object(&mut self, content_length: u64, crc32c: Crc32c, place: &str) {
        if self.content_length != content_length {
            let found = self.content_length;
            let damage = format!("has {found} bytes, but {content_length} in {place}");
            self.damages.push(damage);
        }
        if self.crc32c != crc32c {
            let found = self.crc32c;
            let damage = format!("has CRC32C {found}, but {crc32c} in {place}");
            self.damages.push(damage);
        }
    }
}

/// A check in progress.
struct Check<'report, 'visitor, Reader> {
    source: Source<Reader>,
    mode: Mode,
    report: Option<&'report Report>,
    visitor: Option<&'visitor mut RangeVisitor<'visitor>>,
    /// The range that is being read, if there is a visitor.
    body: Vec<u8>,
    duplicate_detector: DuplicateDetector,
    /// The first suffix of the range that is being read.
    first_suffix: Vec<u8>,
    ranges: u64,
    hashes: u64,
    data_bytes: u64,
    range_bytes: Vec<u32>,
    range_crc32c: Vec<Crc32c>,
    damages: Damages,
}

impl<'report, 'visitor, Reader: Read> Check<'report, 'visitor, Reader> {
    fn new(
        reader: Reader,
        mode: Mode,
        report: Option<&'report Report>,
        visitor: Option<&'visitor mut RangeVisitor<'visitor>>,
    ) -> Self {
        Self {
            source: Source::new(reader),
            mode,
            report,
            visitor,
            body: Vec::new(),
            duplicate_detector: DuplicateDetector::default(),
            first_suffix: Vec::with_capacity(mode.suffix_characters()),
            ranges: 0,
            hashes: 0,
            data_bytes: 0,
            range_bytes: Vec::with_capacity(usize::from(RANGES_PER_PREFIX)),
            range_crc32c: Vec::with_capacity(usize::from(RANGES_PER_PREFIX)),
            damages: Damages::default(),
        }
    }

    fn read(&mut self, prefix: Prefix) -> Result<(), Stop> {
        for range in prefix.ranges() {
            let at = self.source.position();
            match self.source.block()? {
                None => {
                    return Err(Stop::Damaged(format!(
                        "ends before range {range} without an end marker"
                    )));
                }
                Some(block) if is_zeros(&block) => {
                    self.damages.push(format!("ends before range {range}"));
                    return self.read_end();
                }
                Some(block) => {
                    let size = entry_size(&block, range, at).map_err(Stop::Damaged)?;
                    self.read_range(range, size)?;
                }
            }
        }
        match self.source.block()? {
            None => Err(Stop::Damaged("ends without an end marker".to_owned())),
            Some(block) if is_zeros(&block) => self.read_end(),
            Some(_) => Err(Stop::Damaged(format!(
                "has more than {RANGES_PER_PREFIX} entries, or data instead of its end marker"
            ))),
        }
    }

    /// Reads the data of one entry, and its padding.
    fn read_range(&mut self, range: RangeName, size: u32) -> Result<(), Stop> {
        let mut check = RangeCheck::new(self.mode);
        let mut checked = Ok(());
        let mut crc32c = 0;
        self.first_suffix.clear();
        self.body.clear();
        let mut left = size as usize;
        while left > 0 {
            let piece = self.source.piece(left)?;
            if piece.is_empty() {
                return Err(Stop::Damaged(format!("ends inside range {range}")));
            }
            let missing = self.mode.suffix_characters() - self.first_suffix.len();
            self.first_suffix.extend(piece.iter().take(missing));
            checked = checked.and_then(|()| check.push(piece));
            crc32c = crc32c::crc32c_append(crc32c, piece);
            if self.visitor.is_some() {
                self.body.extend_from_slice(piece);
            }
            let bytes = piece.len();
            self.source.consume(bytes);
            left -= bytes;
        }
        self.range_crc32c.push(Crc32c(crc32c));
        let is_valid = self.judge(range, size, checked.and_then(|()| check.finish()));
        if is_valid
            && let Some(visit) = &mut self.visitor
            && visit(range, &self.body).is_break()
        {
            return Err(Stop::Unwanted);
        }
        self.read_padding(range, size)
    }

    /// Judges a range that was read to its end. Returns whether it is valid.
    fn judge(&mut self, range: RangeName, size: u32, checked: Result<u64, RangeBodyError>) -> bool {
        self.range_bytes.push(size);
        let index = usize::from(range.index());
        let reported = self.report.map(|report| report.range_bytes.get(index));
        if reported.is_some_and(|reported| reported != Some(&size)) {
            let damage = format!("range {range} has another size than in its report");
            self.damages.push(damage);
        }
        // A valid body is longer than its first suffix.
        let first_suffix = self.first_suffix.get(..self.mode.suffix_characters());
        match (checked, first_suffix) {
            (Ok(hashes), Some(first_suffix)) => {
                if let Err(other) = self.duplicate_detector.add(range, first_suffix) {
                    let damage = format!("range {range} is not valid: it is the body of {other}");
                    self.damages.push(damage);
                    return false;
                }
                let reported = self
                    .report
                    .and_then(|report| report.range_crc32c.get(index));
                if reported.is_some_and(|reported| Some(reported) != self.range_crc32c.last()) {
                    let damage = format!("range {range} has another checksum than in its report");
                    self.damages.push(damage);
                }
                self.ranges += 1;
                self.hashes += hashes;
                self.data_bytes += u64::from(size);
                true
            }
            (Ok(_), None) => {
                self.damages.push(format!("range {range} is too short"));
                false
            }
            (Err(error), _) => {
                let damage = format!("range {range} is not valid: {error}");
                self.damages.push(damage);
                false
            }
        }
    }

    fn read_padding(&mut self, range: RangeName, size: u32) -> Result<(), Stop> {
        let mut left = padding_bytes(u64::from(size)) as usize;
        let mut all_zeros = true;
        while left > 0 {
            let piece = self.source.piece(left)?;
            if piece.is_empty() {
                let damage = format!("ends inside the padding after range {range}");
                return Err(Stop::Damaged(damage));
            }
            all_zeros &= is_zeros(piece);
            let bytes = piece.len();
            self.source.consume(bytes);
            left -= bytes;
        }
        if !all_zeros {
            let damage = format!("has data in the padding after range {range}");
            self.damages.push(damage);
        }
        Ok(())
    }

    /// Reads what follows the first block of the end marker.
    fn read_end(&mut self) -> Result<(), Stop> {
        let mut bytes = 0;
        let mut all_zeros = true;
        loop {
            let piece = self.source.piece(usize::MAX)?;
            if piece.is_empty() {
                break;
            }
            all_zeros &= is_zeros(piece);
            let read = piece.len();
            self.source.consume(read);
            bytes += read;
        }
        if !all_zeros {
            let damage = "has data after its end marker";
            self.damages.push(damage.to_owned());
        }
        let length = self.source.bytes();
        if bytes < BLOCK_BYTES || !length.is_multiple_of(RECORD_BYTES) {
            self.damages.push(format!(
                "has {length} bytes, which do not end with a whole record of {RECORD_BYTES}"
            ));
        }
        Ok(())
    }
}
