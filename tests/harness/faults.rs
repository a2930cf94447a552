//! What can be wrong with an answer, and which requests get which fault: from a seed, so that a run that fails can
//! be repeated by its number, in whatever order its requests come.

use prefix_tar::prefix::{Prefix, RangeName};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A fault of a source's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SourceFault {
    /// The connection is closed without an answer.
    Closed,
    /// The connection is reset after so many bytes of the answer.
    ResetAt(usize),
    /// Nothing is answered, and the connection stays.
    Stall,
    /// The head, and then a byte of the body every so often, in milliseconds.
    Drip(u64),
    /// A status without a body.
    Status(u16),
    /// A status with this Retry-After, in seconds.
    RetryAfter(u16, u64),
    /// A status with a Retry-After that is a date so many seconds from now.
    RetryAfterDate(u16, u64),
    /// 200 and a page of HTML, as a captive portal has it.
    Html,
    /// Half of the body, with the whole one's Content-Length.
    Truncated,
    /// Half of the body, chunked, ended in good order.
    TruncatedChunked,
    /// Two lines in each other's place.
    Reordered,
    /// A line twice.
    Duplicated,
    /// Lower-case hex.
    LowerCase,
    /// LF without CR.
    LfOnly,
    /// The body of the range at this index of the prefix.
    OtherRange(u16),
    /// A body of the other mode: shorter suffixes.
    OtherMode,
    /// A padding line: a count of 0.
    Padding,
    /// Longer than a range may be.
    Oversized,
    /// gzip with a byte changed.
    GzipDamaged,
    /// gzip, cut in the middle and ended in good order: its last bytes state any size.
    GzipCut,
    /// gzip that states little and decodes to 64 MiB.
    GzipBomb,
    /// A body that does not end.
    Endless,
    /// So many headers.
    Headers(usize),
    /// One header of so many bytes.
    HeaderBytes(usize),
    /// Chunked, with something that is no chunk.
    ChunkedGarbage,
    /// Something that is no HTTP.
    NoHttp,
    /// A content-encoding that was not asked for.
    Brotli,
    /// A redirect to another host.
    Redirect,
}

/// A fault of a store's answer to a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StoreFault {
    /// This status before anything of the body is read.
    Before(u16),
    /// This status after so many bytes of the body.
    Amid(u16, u64),
    /// The connection is lost after so many bytes of the body.
    CutAt(u64),
    /// This status, although the object is stored.
    AfterStoring(u16),
    /// The connection is lost, although the object is stored.
    LostAfterStoring,
    /// Another checksum than the object's.
    WrongHash,
    /// Nothing is read, and nothing answered.
    Stall,
}

/// Which requests get which fault, and how many got one.
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
    /// Counts a request for `range`; answers which attempt it is, from 1.
    pub(crate) fn range_attempt(&self, range: RangeName) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempts = counts.range_attempts.entry(range).or_default();
        *attempts += 1;
        *attempts
    }

    /// Counts a PUT of `prefix`; answers which attempt it is, from 1.
    pub(crate) fn put_attempt(&self, prefix: Prefix) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempts = counts.put_attempts.entry(prefix).or_default();
        *attempts += 1;
        *attempts
    }

    /// Notes that a fault was injected.
    pub(crate) fn note(&self, fault: &impl std::fmt::Debug) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.injected.entry(format!("{fault:?}")).or_default() += 1;
    }

    /// How often each fault was injected.
    pub(crate) fn injected(&self) -> BTreeMap<String, u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.injected.clone()
    }

    /// Requests for ranges so far, faults and all.
    pub(crate) fn range_requests(&self) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.range_attempts.values().copied().map(u64::from).sum()
    }
}

/// A source's faults that pass quickly, for a soak.
const QUICK_SOURCE_FAULTS: [SourceFault; 22] = [
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
];

/// The fault that a seed has for a request of a range, if it has one: `per_mille` of a thousand have.
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

/// The fault that a seed has for a PUT, if it has one.
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
        StoreFault::Amid(500, bytes),
        StoreFault::CutAt(bytes),
        StoreFault::AfterStoring(503),
        StoreFault::LostAfterStoring,
        StoreFault::WrongHash,
    ];
    Some(faults[random.usize(..faults.len())])
}
