//! Every limit of an invocation, with its unit in its name and its reason in its comment.
//!
//! Sizes assume ranges as the public API serves them in 2026: about 75 KB, 1,900 to 2,000 lines.

use crate::protocol::phase::Phase;
use crate::protocol::prefix::RANGES_PER_PREFIX;
use crate::protocol::recording::POINTS_MAX;
use std::time::Duration;

const KIB: usize = 1024;

/// The module's maximum linear memory, 128 pages of 64 KiB. `build.rs` passes the same number to
/// the linker.
pub const LINEAR_MEMORY_BYTES_MAX: usize = 8192 * KIB;

/// The guest's stack. `build.rs` passes the same number to the linker.
pub const STACK_BYTES: usize = 256 * KIB;

/// One range, decoded. Ranges grow with the corpus (32 KB in 2023, 75 KB in 2026); this leaves room
/// for three times today's size.
pub const RANGE_BYTES_MAX: usize = 256 * KIB;

/// One range as received. A gzip body that is longer than the longest range saves nothing.
pub const RANGE_WIRE_BYTES_MAX: usize = RANGE_BYTES_MAX;

/// A chunk of the body pool. Small compared to a range, so that its last chunk wastes little: half
/// a chunk on average, 5 % of 75 KB.
pub const CHUNK_BYTES: usize = 8 * KIB;

/// All bodies that an invocation holds at once, received or decoded. About 45 ranges of 75 KB.
pub const BODY_POOL_BYTES_MAX: usize = 3584 * KIB;

/// The part of the body pool reserved for the next range in order: its received and its decoded
/// form. Because of it, a full pool never stops the range that everything waits for.
pub const BODY_POOL_HEAD_BYTES: usize = RANGE_WIRE_BYTES_MAX + RANGE_BYTES_MAX;

/// The part of the body pool reserved for the length sample until it is complete: its data, the
/// range that completes it, and the unused rest of each range's last chunk.
pub const BODY_POOL_SAMPLE_BYTES: usize = LENGTH_SAMPLE_BYTES_MAX as usize
    + RANGE_BYTES_MAX
    + LENGTH_SAMPLE_RANGES_MAX as usize * CHUNK_BYTES;

/// The expected size of all ranges in flight; the window shrinks to stay below it. Unread data wait
/// in the host, and must not fill HTTP/2's connection window (hyper: 5 MiB), which would block the
/// range that everything waits for. With ranges of 75 KB it allows about 40 requests.
pub const EXPECTED_BYTES_MAX: usize = 4096 * KIB;

/// Range requests in flight if the job sets no window.
pub const WINDOW_DEFAULT: u16 = 64;

/// The most range requests in flight that a job may set.
pub const WINDOW_MAX: u16 = 128;

/// A request in flight without its body: its future, its header strings, its handles.
pub const REQUEST_BYTES_MAX: usize = 4 * KIB;

/// Ranges that the tar's length is estimated from.
pub const LENGTH_SAMPLE_RANGES_MAX: u32 = 32;

/// Data after which the sample ends early: after 28 ranges of 75 KB. Sampled ranges stay in memory
/// until the upload starts, so they must fit into the pool next to the head's reserve.
pub const LENGTH_SAMPLE_BYTES_MAX: u64 = 2048 * 1024;

/// The buffer before the PUT's body: a range of 75 KB takes one or two calls to the host.
pub const UPLOAD_BUFFER_BYTES: usize = 64 * KIB;

/// The checksum's history and folded strides, see [`crate::engine::checksum`].
pub const CHECKSUM_BYTES_MAX: usize = 32 * KIB;

/// The duplicate detector's table of 8,192 slots, see [`crate::engine::duplicate_detector`].
pub const DUPLICATE_DETECTOR_BYTES_MAX: usize = 192 * KIB;

/// One read from a response body.
pub const READ_BYTES_MAX: usize = 64 * KIB;

/// The inflater's window and state. Only one exists at a time.
pub const INFLATE_BYTES_MAX: usize = 64 * KIB;

/// Decoded at a time beyond the room for a gzip body, to learn the size of all its members. It is
/// on the stack.
pub const INFLATE_DISCARDED_BYTES: usize = KIB;

/// A range's ETag in the report; a longer one is omitted. Cloudflare's have 36 characters.
pub const ETAG_BYTES_MAX: usize = 64;

/// A report: its fields, and for each range its size (six digits), its ETag (each character may be
/// escaped) and its checksum (eight characters).
pub const REPORT_BYTES_MAX: usize =
    RANGES_PER_PREFIX as usize * (2 * ETAG_BYTES_MAX + 12 + 12) + 4 * KIB;

/// A job. It has up to three signed URLs, of about 1 KB each, 2 KB with long names.
pub const JOB_BYTES_MAX: usize = 16 * KIB;

/// Headers that a job may add to one request to the store.
pub const SIGNED_HEADERS_MAX: usize = 32;

/// What is kept of the base's report for each range: its size, its checksum and the handle of its ETag. The ETag
/// itself moves to the new report.
pub const BASE_RANGE_BYTES: usize = 4 + 4 + 12;

/// The data of one of the base's entries, which are checked before they go on. Besides the pool: a full pool must not
/// stop the range that everything waits for.
pub const BASE_ENTRY_BYTES_MAX: usize = RANGE_BYTES_MAX;

/// Times that a download of the base is begun. After the last, the prefix does without the base.
pub const BASE_ATTEMPTS_MAX: u32 = 4;

/// The part of a store's error document that is searched for its `<Code>`.
pub const STORE_ERROR_BYTES_MAX: usize = 4 * KIB;

/// One tar: 4,096 ranges of the largest size, far below the 5 TiB that a PUT to GCS may have.
pub const CONTENT_LENGTH_MAX: u64 =
    RANGES_PER_PREFIX as u64 * (RANGE_BYTES_MAX as u64 + 1024) + 1024 * 1024;

/// Ranges between two progress events.
pub const PROGRESS_RANGES: u32 = 256;

/// Ranges between two points of the recording. With the first range, the last one and the end, it has 127 points: what
/// the orchestrator keeps of 256 invocations stays below 2 MB.
pub const RECORDED_RANGES: u32 = 33;

/// A recording: 256 points of at most 56 bytes, and as JSON eight numbers of at most 12 characters each, the counts of
/// retries, and a line for each phase of the heap.
pub const RECORDING_BYTES_MAX: usize =
    POINTS_MAX * (56 + 8 * 12) + 2 * KIB + Phase::ALL.len() * 160;

/// The header before each allocation, which has the phase that made it.
pub const HEAP_HEADER_BYTES: usize = size_of::<u64>();

/// The longest silence between two events. Gateways cut connections that are idle for 30 s or 60 s.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// A range request: until the connection is established. A handshake that takes longer rarely
/// succeeds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A range request: until the response's head. The public API answers 99 % of requests from
/// Cloudflare's cache, and the official downloader gives up after 5 s.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(15);

/// A range request: between two pieces of the body.
pub const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(15);

/// A range request as a whole. It ends a body that trickles in.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// Attempts at one range.
pub const RANGE_ATTEMPTS_MAX: u32 = 6;

/// The upper bound of the first wait between two attempts at a range. It doubles with each attempt.
pub const RANGE_FIRST_WAIT_MAX: Duration = Duration::from_millis(250);

/// The upper bound of every wait between two attempts at a range, without a Retry-After.
pub const RANGE_WAIT_MAX: Duration = Duration::from_secs(8);

/// The last attempt at a range starts at most this long after the first.
pub const RANGE_ATTEMPTS_TIME_MAX: Duration = Duration::from_secs(90);

/// The longest Retry-After of a source that an invocation waits for. It fails if the source asks
/// for more.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Retries beyond those that valid ranges have earned: four for each request of the largest window.
/// This covers a source that is down for a few seconds.
pub const RETRIES_AHEAD_MAX: u32 = 4 * WINDOW_MAX as u32;

/// Valid ranges that earn a retry. The budget lasts if the source fails one request in five.
pub const RETRY_EARNED_RANGES: u32 = 4;

/// The smallest window for a source that throttles (429, 503).
pub const WINDOW_THROTTLED_MIN: u16 = 4;

/// Valid ranges after which a throttled window widens by one request.
pub const WINDOW_WIDENED_RANGES: u32 = 16;

/// A Retry-After value. A date has 29 characters.
pub const RETRY_AFTER_BYTES_MAX: usize = 64;

/// Ranges in a report that a cache had wrong.
pub const CACHED_ERRORS_MAX: usize = 64;

/// The PUT: until the response's head. It includes the whole upload, so it is as long as the
/// longest deadline of an invocation. The limits below detect an idle store much earlier.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The PUT: until the store accepts the next piece of the body. Nothing else detects a store that
/// stops reading.
pub const UPLOAD_STALL_TIME_MAX: Duration = Duration::from_secs(60);

/// The PUT: from the last byte to the response's head. The store may need the time to commit the
/// tar.
pub const UPLOAD_ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// The PUT: until an error document is read. Its `<Code>` only improves the message.
pub const STORE_ERROR_TIME_MAX: Duration = Duration::from_secs(10);

/// Data segments, tables and allocator overhead. A test reads the real size of the data segments.
pub const STATIC_BYTES_MAX: usize = 768 * KIB;

/// The most memory that an invocation can need, as a sum: it stays below the cap by construction.
pub const ACCOUNTED_BYTES_MAX: usize = STACK_BYTES
    + STATIC_BYTES_MAX
    + BODY_POOL_BYTES_MAX
    + WINDOW_MAX as usize * REQUEST_BYTES_MAX
    + READ_BYTES_MAX
    + 2 * UPLOAD_BUFFER_BYTES
    + INFLATE_BYTES_MAX
    + CHECKSUM_BYTES_MAX
    + DUPLICATE_DETECTOR_BYTES_MAX
    + BASE_ENTRY_BYTES_MAX
    + READ_BYTES_MAX
    + CHECKSUM_BYTES_MAX
    + RANGES_PER_PREFIX as usize * BASE_RANGE_BYTES
    + RANGES_PER_PREFIX as usize * (ETAG_BYTES_MAX + HEAP_HEADER_BYTES + 36)
    + 2 * REPORT_BYTES_MAX
    + 2 * RECORDING_BYTES_MAX
    + JOB_BYTES_MAX
    + STORE_ERROR_BYTES_MAX;

const _: () = {
    assert!(ACCOUNTED_BYTES_MAX <= LINEAR_MEMORY_BYTES_MAX);
    assert!(BODY_POOL_HEAD_BYTES + BODY_POOL_SAMPLE_BYTES < BODY_POOL_BYTES_MAX);
    assert!(RANGE_BYTES_MAX.is_multiple_of(CHUNK_BYTES));
    assert!(RANGES_PER_PREFIX as usize / RECORDED_RANGES as usize + 3 <= POINTS_MAX);
    assert!(RETRY_AFTER_MAX.as_secs() < RANGE_ATTEMPTS_TIME_MAX.as_secs());
    assert!(BODY_POOL_BYTES_MAX.is_multiple_of(CHUNK_BYTES));
};
