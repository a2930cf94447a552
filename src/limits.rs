//! Every bound of an invocation, each with its unit in its name and its reason beside it.
//! What is done when a bound is met is the business of the module that meets it.

use crate::prefix::RANGES_PER_PREFIX;
use std::time::Duration;

const KIB: usize = 1024;

/// The module's maximum linear memory, 128 pages of 64 KiB. `build.rs` hands the same number to the linker.
pub const LINEAR_MEMORY_BYTES_MAX: usize = 8192 * KIB;

/// The guest's stack. `build.rs` hands the same number to the linker.
pub const STACK_BYTES: usize = 256 * KIB;

/// One range, decoded. The real ones are about 32 KB (2023); nothing may break up to this size.
pub const RANGE_BYTES_MAX: usize = 256 * KIB;

/// One range as it comes over the wire. A gzip body that is longer than the longest range is no saving.
pub const RANGE_WIRE_BYTES_MAX: usize = RANGE_BYTES_MAX;

/// A chunk of the body pool. Small beside a range (about 32 KiB), so that little of a range's last chunk is wasted.
pub const CHUNK_BYTES: usize = 8 * KIB;

/// All bodies that an invocation holds at once, received or decoded, waiting for their turn in the tar.
pub const BODY_POOL_BYTES_MAX: usize = 3584 * KIB;

/// What of the body pool only the next range in order may take: its received and its decoded form.
/// It is why a full pool never stops the range that everything waits for.
pub const BODY_POOL_HEAD_BYTES: usize = RANGE_WIRE_BYTES_MAX + RANGE_BYTES_MAX;

/// What of the body pool is kept for the length sample until it is complete: its data, the range that
/// completes it, and the rest of each range's last chunk.
pub const BODY_POOL_SAMPLE_BYTES: usize = LENGTH_SAMPLE_BYTES_MAX as usize
    + RANGE_BYTES_MAX
    + LENGTH_SAMPLE_RANGES_MAX as usize * CHUNK_BYTES;

/// What the requests in flight may be expected to bring together. Beyond it the window shrinks: what is
/// not read stays in the host, where HTTP/2's connection window (hyper: 5 MiB) must not fill up behind the
/// range that is waited for.
pub const EXPECTED_BYTES_MAX: usize = 4096 * KIB;

/// Range requests in flight when the job does not say.
pub const WINDOW_DEFAULT: u16 = 64;

/// Range requests in flight at the most.
pub const WINDOW_MAX: u16 = 128;

/// What a request in flight costs besides its body: its future, its header strings, its handles.
pub const REQUEST_BYTES_MAX: usize = 4 * KIB;

/// Ranges whose sizes the tar's length is estimated from.
pub const LENGTH_SAMPLE_RANGES_MAX: u32 = 32;

/// Data after which the sample ends early. The sampled ranges are held until the upload begins, so they
/// must fit into the pool beside its head reserve.
pub const LENGTH_SAMPLE_BYTES_MAX: u64 = 2048 * 1024;

/// What is handed to the PUT's body at once: large enough that a range takes one call, not five.
pub const UPLOAD_BUFFER_BYTES: usize = 64 * KIB;

/// The checksum's history and what it gathers, see [`crate::checksum`].
pub const CHECKSUM_BYTES_MAX: usize = 32 * KIB;

/// What is kept of every range to tell it from the others, see [`crate::distinct`]: a table of 8,192 places.
pub const FIRST_HASHES_BYTES_MAX: usize = 192 * KIB;

/// What one read from a response body may bring.
pub const READ_BYTES_MAX: usize = 64 * KIB;

/// The inflater's window and state, one at a time.
pub const INFLATE_BYTES_MAX: usize = 64 * KIB;

/// A range's ETag in the report; a longer one is left out. Cloudflare's are 36 characters.
pub const ETAG_BYTES_MAX: usize = 64;

/// A report: per range its size (six digits) and its ETag (each character may be escaped), and its fields.
pub const REPORT_BYTES_MAX: usize =
    RANGES_PER_PREFIX as usize * (2 * ETAG_BYTES_MAX + 12) + 4 * KIB;

/// A job. A signed URL is about 1 KB, 2 KB with long names.
pub const JOB_BYTES_MAX: usize = 16 * KIB;

/// Headers that a job may ask to be sent with the PUT.
pub const UPLOAD_HEADERS_MAX: usize = 32;

/// What is read of a store's error document, to find its `<Code>`.
pub const STORE_ERROR_BYTES_MAX: usize = 4 * KIB;

/// One tar: 4,096 ranges of the largest size, and no more than a PUT to GCS may carry (5 TiB).
pub const CONTENT_LENGTH_MAX: u64 =
    RANGES_PER_PREFIX as u64 * (RANGE_BYTES_MAX as u64 + 1024) + 1024 * 1024;

/// Ranges between two progress events.
pub const PROGRESS_RANGES: u32 = 256;

/// The longest silence between two events. Gateways cut connections that are silent for 30 s or 60 s.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// A range request: until the connection is there. On no network does a handshake take longer that ends well.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A range request: until the response's head. Cloudflare answers 99 % from its cache; the official downloader
/// gives up after 5 s.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(15);

/// A range request: between two pieces of the body.
pub const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(15);

/// A range request: all of it. It ends a body that never stops to drip.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// Requests for one range at the most.
pub const RANGE_ATTEMPTS_MAX: u32 = 6;

/// The longest first wait between two requests for a range. It doubles from one to the next.
pub const RANGE_FIRST_WAIT_MAX: Duration = Duration::from_millis(250);

/// The longest wait between two requests for a range that the source does not ask for.
pub const RANGE_WAIT_MAX: Duration = Duration::from_secs(8);

/// No request for a range begins later than this after the first one.
pub const RANGE_ATTEMPTS_TIME_MAX: Duration = Duration::from_secs(90);

/// The longest wait that a source's Retry-After is granted. The invocation fails where it asks for more.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Retries that an invocation may be ahead of what its good ranges have earned: each request of the largest
/// window four times, which is a source that is away for a few seconds.
pub const RETRIES_AHEAD_MAX: u32 = 4 * WINDOW_MAX as u32;

/// Good ranges that earn a retry. A source that fails one request in five is borne for as long as it takes.
pub const RETRY_EARNED_RANGES: u32 = 4;

/// The window that a source which asks for less (429, 503) is left with at the least.
pub const WINDOW_THROTTLED_MIN: u16 = 4;

/// Good ranges after which a throttled window is widened by one.
pub const WINDOW_WIDENED_RANGES: u32 = 16;

/// A Retry-After as it is read: a date has 29 characters.
pub const RETRY_AFTER_BYTES_MAX: usize = 64;

/// The PUT: until the response's head, which comes after the whole upload and so counts it: as long as the longest
/// deadline of an invocation. What a store may do in this time has bounds of its own, below.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The PUT: until the store has taken the next piece of the body. Nothing else would notice a store that stopped
/// to read.
pub const UPLOAD_STALL_TIME_MAX: Duration = Duration::from_secs(60);

/// The PUT: from the last byte to the response's head. A local store has the whole tar on its disk by then.
pub const UPLOAD_ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// The PUT: all of an error document. What it says is good to know, and no more.
pub const STORE_ERROR_TIME_MAX: Duration = Duration::from_secs(10);

/// Code's data segments, tables and allocator overhead; a test reads the data segments' real size.
pub const STATIC_BYTES_MAX: usize = 768 * KIB;

/// The most that an invocation can need: a sum, so that the cap is kept by construction.
pub const ACCOUNTED_BYTES_MAX: usize = STACK_BYTES
    + STATIC_BYTES_MAX
    + BODY_POOL_BYTES_MAX
    + WINDOW_MAX as usize * REQUEST_BYTES_MAX
    + READ_BYTES_MAX
    + 2 * UPLOAD_BUFFER_BYTES
    + INFLATE_BYTES_MAX
    + CHECKSUM_BYTES_MAX
    + FIRST_HASHES_BYTES_MAX
    + RANGES_PER_PREFIX as usize * (ETAG_BYTES_MAX + 32)
    + 2 * REPORT_BYTES_MAX
    + JOB_BYTES_MAX
    + STORE_ERROR_BYTES_MAX;

const _: () = {
    assert!(ACCOUNTED_BYTES_MAX <= LINEAR_MEMORY_BYTES_MAX);
    assert!(BODY_POOL_HEAD_BYTES + BODY_POOL_SAMPLE_BYTES < BODY_POOL_BYTES_MAX);
    assert!(RANGE_BYTES_MAX.is_multiple_of(CHUNK_BYTES));
    assert!(RETRY_AFTER_MAX.as_secs() < RANGE_ATTEMPTS_TIME_MAX.as_secs());
    assert!(BODY_POOL_BYTES_MAX.is_multiple_of(CHUNK_BYTES));
};
