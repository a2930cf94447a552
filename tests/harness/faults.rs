//! Defines the faults that tests inject, counts them, and picks random faults from a seed.
//!
//! A seeded fault depends only on the seed, the range or prefix, and the attempt. A failed run can
//! therefore be repeated from its seed, in whatever order its requests arrive.

use prefix_tar::protocol::prefix::{Prefix, RangeName};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A fault in a source's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceFault {
    /// The connection closes without a response.
    Closed,
    /// The connection is reset after this many bytes of the response.
    ResetAt(usize),
    /// The connection stays open without a response.
    Stall,
    /// The head, then one byte of the body at a time, with this many milliseconds in between.
    Drip(u64),
    /// This status, with a short HTML body.
    Status(u16),
    /// This status, with a `Retry-After` of this many seconds.
    RetryAfter(u16, u64),
    /// This status, with a `Retry-After` date this many seconds from now.
    RetryAfterDate(u16, u64),
    /// 200 with an HTML page, like a captive portal.
    Html,
    /// Half of the body, with the `Content-Length` of the whole body.
    Truncated,
    /// Half of the body, in correctly terminated chunked encoding.
    TruncatedChunked,
    /// Two lines swapped.
    Reordered,
    /// One line repeated.
    Duplicated,
    /// Lowercase hex digits.
    LowerCase,
    /// LF line ends instead of CRLF.
    LfOnly,
    /// The body of another range: the one at this index of the same prefix.
    OtherRange(u16),
    /// A body of the API's NTLM mode, which has shorter suffixes.
    OtherMode,
    /// A padding line, which has a count of 0.
    Padding,
    /// A body that exceeds the size limit of a range.
    Oversized,
    /// A gzip body with one byte changed.
    GzipDamaged,
    /// Half of a gzip body, in correctly terminated chunked encoding. Its last four bytes, where
    /// gzip states the decoded size, are arbitrary.
    GzipCut,
    /// A gzip body that states a small size but decodes to 64 MiB.
    GzipBomb,
    /// A body that never ends.
    Endless,
    /// A response with this many additional headers.
    Headers(usize),
    /// A response with an `ETag` of this many bytes.
    HeaderBytes(usize),
    /// Invalid chunked encoding.
    ChunkedGarbage,
    /// The greeting of another protocol instead of HTTP.
    NotHttp,
    /// A `Content-Encoding` that the request does not accept.
    Brotli,
    /// A redirect to another host.
    Redirect,
    /// 200 with the first lines of the body and a `Content-Range`.
    ContentRange,
    /// Two values of `Content-Length`, which differ.
    ContentLengths,
    /// The body without its last lines, cut after a line. Only the end of the connection ends it.
    UnframedAfterLine,
    /// The body without the last digit of its last count. HTTP/1.0, so only the end of the
    /// connection ends it.
    UnframedInsideCount,
    /// The whole body, but only the end of the connection ends it.
    Unframed,
    /// The whole body in HTTP/1.0, but only the end of the connection ends it.
    UnframedHttp10,
    /// Half of a gzip body. Only the end of the connection ends it.
    UnframedGzipCut,
    /// A gzip body of several members. Only the end of the connection ends it.
    UnframedGzipMembers,
    /// The body without its last lines. Only the end of the connection ends it, but it has the
    /// `Content-MD5` of the whole body.
    UnframedMd5,
    /// The `Content-MD5` of another body.
    Md5Wrong,
    /// The same, of a gzip body.
    Md5WrongGzip,
    /// A `Content-MD5` that is no MD5.
    Md5Malformed,
}

/// A form of a source's response that carries the whole body. No retry is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceForm {
    /// Identity with a `Content-Length`.
    Plain,
    /// In chunks.
    Chunked,
    /// gzip with a `Content-Length`, and this name of the encoding.
    Gzip(&'static str),
    /// gzip in chunks.
    GzipChunked,
    /// gzip that only the end of the connection ends.
    GzipUnframed,
    /// The same, in HTTP/1.0.
    GzipUnframedHttp10,
    /// gzip of several members, with a `Content-Length`.
    GzipMembers,
    /// gzip of several members, in chunks.
    GzipMembersChunked,
    /// The right `Content-MD5`.
    Md5,
    /// The right `Content-MD5` of a body in chunks.
    Md5Chunked,
    /// The right `Content-MD5` of a body that only the end of the connection ends.
    Md5Unframed,
    /// gzip with the right `Content-MD5` of the decoded body.
    Md5Gzip,
    /// gzip of several members with the right `Content-MD5`. Only the end of the connection ends it.
    Md5GzipMembersUnframed,
}

/// A fault in a store's response to a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StoreFault {
    /// This status, before any of the body is read.
    Before(u16),
    /// This status, after this many bytes of the body.
    Midway(u16, u64),
    /// The connection is reset after this many bytes of the body.
    CutAt(u64),
    /// This status, although the object is stored.
    AfterStoring(u16),
    /// The connection is reset, although the object is stored.
    LostAfterStoring,
    /// The object is stored, but the response has the wrong checksum.
    WrongHash,
    /// The store neither reads the body nor responds.
    Stall,
}

/// Counts attempts and injected faults.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    range_attempts: BTreeMap<RangeName, u32>,
    put_attempts: BTreeMap<Prefix, u32>,
    injected: BTreeMap<String, u64>,
}

impl Faults {
    /// Counts a request for `range` and returns the number of the attempt, from 1.
    pub(crate) fn range_attempt(&self, range: RangeName) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempts = counts.range_attempts.entry(range).or_default();
        *attempts += 1;
        *attempts
    }

    /// Counts a PUT of `prefix` and returns the number of the attempt, from 1.
    pub(crate) fn put_attempt(&self, prefix: Prefix) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempts = counts.put_attempts.entry(prefix).or_default();
        *attempts += 1;
        *attempts
    }

    /// Counts an injected fault.
    pub(crate) fn record(&self, fault: &impl std::fmt::Debug) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.injected.entry(format!("{fault:?}")).or_default() += 1;
    }

    /// How often each fault was injected, by its `Debug` form.
    pub(crate) fn injected(&self) -> BTreeMap<String, u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.injected.clone()
    }

    /// Requests for ranges so far, including those that got a fault.
    pub(crate) fn range_requests(&self) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.range_attempts.values().copied().map(u64::from).sum()
    }
}

/// The faults for a soak test: those that end the attempt at once.
const QUICK_SOURCE_FAULTS: [SourceFault; 33] = [
    SourceFault::Closed,
    SourceFault::ResetAt(0),
    SourceFault::ResetAt(40),
    SourceFault::ResetAt(300),
    SourceFault::Status(408),
    SourceFault::Status(429),
    SourceFault::Status(500),
    SourceFault::Status(503),
    SourceFault::RetryAfter(429, 0),
    SourceFault::Html,
    SourceFault::Truncated,
    SourceFault::TruncatedChunked,
    SourceFault::Reordered,
    SourceFault::Duplicated,
    SourceFault::LowerCase,
    SourceFault::LfOnly,
    SourceFault::OtherMode,
    SourceFault::Padding,
    SourceFault::OtherRange(0),
    SourceFault::GzipDamaged,
    SourceFault::GzipCut,
    SourceFault::ChunkedGarbage,
    SourceFault::ContentRange,
    SourceFault::ContentLengths,
    SourceFault::UnframedAfterLine,
    SourceFault::UnframedInsideCount,
    SourceFault::Unframed,
    SourceFault::UnframedGzipCut,
    SourceFault::UnframedGzipMembers,
    SourceFault::UnframedMd5,
    SourceFault::Md5Wrong,
    SourceFault::Md5WrongGzip,
    SourceFault::Md5Malformed,
];

/// Picks the fault for an attempt at a range. `per_mille` of 1,000 attempts get one.
pub(crate) fn seeded_source_fault(
    seed: u64,
    per_mille: u64,
    range: RangeName,
    attempt: u32,
) -> Option<SourceFault> {
    let number = u64::from(range.prefix().number()) << 12 | u64::from(range.index());
    let mut random = fastrand::Rng::with_seed(seed << 32 ^ number << 4 ^ u64::from(attempt));
    (random.u64(..1000) < per_mille)
        .then(|| QUICK_SOURCE_FAULTS[random.usize(..QUICK_SOURCE_FAULTS.len())])
}

/// Picks the fault for an attempt at a PUT. `per_mille` of 1,000 attempts get one.
pub(crate) fn seeded_store_fault(
    seed: u64,
    per_mille: u64,
    prefix: Prefix,
    attempt: u32,
) -> Option<StoreFault> {
    let number = u64::from(prefix.number());
    let mut random = fastrand::Rng::with_seed(!seed << 32 ^ number << 4 ^ u64::from(attempt));
    if random.u64(..1000) >= per_mille {
        return None;
    }
    let bytes = random.u64(..1_000_000);
    let faults = [
        StoreFault::Before(503),
        StoreFault::Midway(500, bytes),
        StoreFault::CutAt(bytes),
        StoreFault::AfterStoring(503),
        StoreFault::LostAfterStoring,
        StoreFault::WrongHash,
    ];
    Some(faults[random.usize(..faults.len())])
}
