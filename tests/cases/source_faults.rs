//! A faulty source: a transient fault costs a retry, a persistent one is reported with its range, and
//! neither gets into a tar.

use crate::harness::faults::{SourceFault, SourceForm};
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::measured;
use crate::harness::source::valid_body;
use crate::harness::{Fixture, default_fixture, expected_tar, prefix};
use futures::StreamExt as _;
use prefix_tar::limits::{
    LINEAR_MEMORY_BYTES_MAX, RANGE_ATTEMPTS_MAX, RANGE_BYTES_MAX, RETRY_AFTER_MAX, WINDOW_MAX,
};
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::prefix::RangeName;
use std::time::Instant;

/// Lines of a range. Few, because only the faults matter.
const LINES: u64 = 5;

/// Faults that are injected at the same time.
const CONCURRENT_FAULTS_MAX: usize = 10;

/// One range in this many has the fault, at its first attempt.
const RANGES_PER_FAULT: u16 = 256;

fn at_first_attempts(fault: SourceFault) -> impl Fn(RangeName, u32) -> Option<SourceFault> {
    move |range, attempt| {
        let is_hit = attempt == 1 && range.index() % RANGES_PER_FAULT == RANGES_PER_FAULT - 1;
        is_hit.then_some(fault)
    }
}

/// Faults that a retry overcomes.
const TRANSIENT: [SourceFault; 42] = [
    SourceFault::Closed,
    SourceFault::ResetAt(0),
    SourceFault::ResetAt(50),
    SourceFault::ResetAt(200),
    SourceFault::Status(408),
    SourceFault::Status(429),
    SourceFault::Status(500),
    SourceFault::Status(502),
    SourceFault::Status(503),
    SourceFault::Status(520),
    SourceFault::RetryAfter(429, 1),
    SourceFault::RetryAfterDate(503, 1),
    SourceFault::Html,
    SourceFault::Truncated,
    SourceFault::TruncatedChunked,
    SourceFault::Reordered,
    SourceFault::Duplicated,
    SourceFault::LowerCase,
    SourceFault::LfOnly,
    SourceFault::OtherMode,
    SourceFault::OtherRange(0),
    SourceFault::Padding,
    SourceFault::GzipDamaged,
    SourceFault::GzipCut,
    SourceFault::GzipBomb,
    SourceFault::Headers(100_000),
    SourceFault::HeaderBytes(1_000_000),
    SourceFault::ChunkedGarbage,
    SourceFault::NotHttp,
    SourceFault::Brotli,
    SourceFault::ContentRange,
    SourceFault::ContentLengths,
    SourceFault::UnframedAfterLine,
    SourceFault::UnframedInsideCount,
    SourceFault::Unframed,
    SourceFault::UnframedHttp10,
    SourceFault::UnframedGzipCut,
    SourceFault::UnframedGzipMembers,
    SourceFault::UnframedMd5,
    SourceFault::Md5Wrong,
    SourceFault::Md5WrongGzip,
    SourceFault::Md5Malformed,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_fault_costs_a_retry_and_does_not_change_the_tar() {
    futures::stream::iter(TRANSIENT)
        .for_each_concurrent(CONCURRENT_FAULTS_MAX, assert_transient)
        .await;
}

/// Mirrors a prefix whose source sometimes has this fault, and expects the right tar.
async fn assert_transient(fault: SourceFault) {
    let source = FaultySource::start(|range| body_of(range, LINES), at_first_attempts(fault)).await;
    let fixture = default_fixture(source.url()).await;
    let started = Instant::now();
    let report = fixture.invoke(fixture.job(prefix("AB")).await).await;
    let report = report.unwrap_or_else(|failure| panic!("{fault:?}: {failure}"));
    let injected: u64 = source.faults().injected().values().sum();
    assert_eq!(injected, u64::from(4096 / RANGES_PER_FAULT), "{fault:?}");
    // A broken connection may also lose the request that was sent on it next.
    assert!(report.retries >= injected, "{fault:?}: {}", report.retries);
    assert_eq!(report.requests, 4096 + report.retries);
    assert!(
        fixture.tar("AB") == expected_tar("AB", |range| body_of(range, LINES)),
        "{fault:?}: the tar differs"
    );
    measured(&format!(
        "| {fault:?} | {injected} of 4,096 ranges, once | stored, {} retries, {:.1} s | right |",
        report.retries,
        started.elapsed().as_secs_f64()
    ));
}

/// Every form of a whole body.
const FORMS: [SourceForm; 16] = [
    SourceForm::Plain,
    SourceForm::Chunked,
    SourceForm::Gzip("gzip"),
    SourceForm::Gzip("GZIP"),
    SourceForm::Gzip("X-Gzip"),
    SourceForm::Gzip("identity, Gzip"),
    SourceForm::GzipChunked,
    SourceForm::GzipUnframed,
    SourceForm::GzipUnframedHttp10,
    SourceForm::GzipMembers,
    SourceForm::GzipMembersChunked,
    SourceForm::Md5,
    SourceForm::Md5Chunked,
    SourceForm::Md5Unframed,
    SourceForm::Md5Gzip,
    SourceForm::Md5GzipMembersUnframed,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_body_is_accepted_in_every_form() {
    let form_of = |range: RangeName| FORMS[usize::from(range.index()) % FORMS.len()];
    let source = FaultySource::in_forms(|range| body_of(range, LINES), form_of).await;
    let fixture = default_fixture(source.url()).await;
    let job = fixture.job(prefix("AB")).await;
    let report = fixture.invoke(job).await.expect("stored");
    // A request may be sent on a connection that its server has just closed, and lost.
    assert!(report.retries < 40, "{} retries", report.retries);
    assert!(fixture.tar("AB") == expected_tar("AB", |range| body_of(range, LINES)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_suffices_for_members_of_the_largest_size() {
    let large = |range| valid_body(range, RANGE_BYTES_MAX).to_vec();
    let source = FaultySource::in_forms(large, |_| SourceForm::GzipMembersChunked).await;
    let fixture = default_fixture(source.url()).await;
    let mut job = fixture.job(prefix("AB")).await;
    job.window = Some(WINDOW_MAX);
    let report = fixture.invoke(job).await.expect("stored");
    assert_eq!(report.retries, 0);
    assert!(report.linear_memory_peak <= LINEAR_MEMORY_BYTES_MAX as u64);
    assert!(fixture.tar("AB") == expected_tar("AB", large));
}

/// Mirrors a prefix whose range AB123 always has this fault, and expects a failure.
async fn always(fault: SourceFault) -> (Failure, u64, Fixture) {
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        move |range, _| (range.index() == 0x123).then_some(fault),
    )
    .await;
    let fixture = default_fixture(source.url()).await;
    let started = Instant::now();
    let job = fixture.job(prefix("AB")).await;
    let failure = fixture.invoke(job).await.expect_err("a persistent fault");
    let injected: u64 = source.faults().injected().values().sum();
    measured(&format!(
        "| {fault:?} | AB123, always: {injected} times | {failure} ({:.1} s) | no object |",
        started.elapsed().as_secs_f64()
    ));
    (failure, injected, fixture)
}

/// The most attempts at a range.
const ATTEMPTS_MAX: u64 = RANGE_ATTEMPTS_MAX as u64;

/// Persistent faults: the requests that meet each, the failure's kind, and a part of its message.
const PERSISTENT: [(SourceFault, u64, FailureKind, &str); 33] = [
    (
        SourceFault::Closed,
        ATTEMPTS_MAX,
        FailureKind::SourceUnreachable,
        "the connection was lost in 6 attempts over",
    ),
    (
        SourceFault::Status(503),
        ATTEMPTS_MAX,
        FailureKind::SourceStatus,
        "answered 503 in 6 attempts over",
    ),
    (
        SourceFault::Html,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "line 1 does not begin with 35 upper-case hex",
    ),
    (
        SourceFault::Truncated,
        ATTEMPTS_MAX,
        FailureKind::SourceUnreachable,
        "the connection was lost in 6 attempts",
    ),
    (
        SourceFault::TruncatedChunked,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "is cut off by the end of the body",
    ),
    (
        SourceFault::Reordered,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "line 2 is not in strictly increasing order",
    ),
    (
        SourceFault::Duplicated,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "line 2 is not in strictly increasing order",
    ),
    (
        SourceFault::LowerCase,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "line 1 does not begin with 35",
    ),
    (
        SourceFault::LfOnly,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "line 1 does not end in CRLF",
    ),
    (
        SourceFault::OtherMode,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "line 1 does not begin with 35",
    ),
    (
        SourceFault::OtherRange(7),
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "it is the body of AB007 in 6 attempts",
    ),
    (
        SourceFault::Padding,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "has no decimal count from 1",
    ),
    (
        SourceFault::GzipDamaged,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "the gzip body is damaged or cut off",
    ),
    (
        SourceFault::GzipCut,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "the gzip body is damaged or cut off",
    ),
    (
        SourceFault::GzipBomb,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "the gzip body decodes to more than 262144 bytes",
    ),
    (
        SourceFault::ContentRange,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "it has a Content-Range, so it is only a part of the range in 6 attempts",
    ),
    (
        SourceFault::ContentLengths,
        ATTEMPTS_MAX,
        FailureKind::SourceUnreachable,
        "the answer is not valid HTTP",
    ),
    (
        SourceFault::UnframedAfterLine,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "its body has neither a Content-Length nor chunks, so it may have been cut off",
    ),
    (
        SourceFault::UnframedInsideCount,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "its body has neither a Content-Length nor chunks, so it may have been cut off",
    ),
    (
        SourceFault::Unframed,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "; request gzip (SOURCE_ENCODING=gzip)",
    ),
    (
        SourceFault::UnframedHttp10,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "; request gzip (SOURCE_ENCODING=gzip)",
    ),
    (
        SourceFault::UnframedGzipCut,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "the gzip body is damaged or cut off",
    ),
    (
        SourceFault::UnframedGzipMembers,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "its body has neither a Content-Length nor chunks, so it may have been cut off",
    ),
    (
        SourceFault::UnframedMd5,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "its body does not match its Content-MD5 in 6 attempts",
    ),
    (
        SourceFault::Md5Wrong,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "its body does not match its Content-MD5",
    ),
    (
        SourceFault::Md5WrongGzip,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "its body does not match its Content-MD5",
    ),
    (
        SourceFault::Md5Malformed,
        ATTEMPTS_MAX,
        FailureKind::RangeInvalid,
        "its content-md5 is malformed",
    ),
    (
        SourceFault::NotHttp,
        ATTEMPTS_MAX,
        FailureKind::SourceUnreachable,
        "in 6 attempts over",
    ),
    (
        SourceFault::Status(404),
        1,
        FailureKind::SourceStatus,
        "answered 404",
    ),
    (
        SourceFault::Status(410),
        1,
        FailureKind::SourceStatus,
        "answered 410",
    ),
    (
        SourceFault::Redirect,
        1,
        FailureKind::SourceStatus,
        "answered 302; redirects are not followed",
    ),
    (
        SourceFault::Oversized,
        1,
        FailureKind::RangeTooLarge,
        "more than 262144 bytes",
    ),
    (
        SourceFault::Endless,
        1,
        FailureKind::RangeTooLarge,
        "more than 262144 bytes",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_fault_is_retried_up_to_the_limit_and_reported_with_its_range() {
    let outcomes =
        futures::future::join_all(PERSISTENT.map(async |case| (case, always(case.0).await)));
    for ((fault, times, kind, message), (failure, injected, fixture)) in outcomes.await {
        assert_eq!(injected, times, "{fault:?}");
        assert_eq!(failure.kind, kind, "{fault:?}: {failure}");
        assert!(failure.message.contains(message), "{fault:?}: {failure}");
        assert!(!failure.message.contains("--"), "a flag in {failure}");
        assert_eq!(failure.retryable, times > 1, "{fault:?}");
        let range = failure.range.map(|range| range.to_string());
        assert_eq!(range.as_deref(), Some("AB123"), "{fault:?}");
        assert_eq!(
            fixture.into_file_names().await,
            Vec::<String>::new(),
            "{fault:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_beyond_the_longest_wait_ends_the_attempts() {
    let longest = RETRY_AFTER_MAX.as_secs();
    let (failure, injected, _fixture) = always(SourceFault::RetryAfter(429, longest + 1)).await;
    assert_eq!((failure.kind, injected), (FailureKind::SourceStatus, 1));
    assert_eq!(failure.retry_after_seconds, Some(longest + 1));
    assert!(
        failure.message.contains("its Retry-After exceeds"),
        "{failure}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_mostly_fails_exhausts_the_retry_budget() {
    // Five of six attempts at a range fail, but never the last one: only the budget ends this.
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        |_, attempt| (attempt < RANGE_ATTEMPTS_MAX).then_some(SourceFault::Status(500)),
    )
    .await;
    let fixture = default_fixture(source.url()).await;
    let job = fixture.job(prefix("AB")).await;
    let failure = fixture.invoke(job).await.expect_err("an exhausted budget");
    assert!(
        failure.message.contains("has used up its retries"),
        "{failure}"
    );
    let requests = source.faults().range_requests();
    assert!(requests < 1_500, "{requests} requests for 4,096 ranges");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_stalls_is_requested_again_after_its_timeout() {
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        |range, attempt| (range.index() == 0x123 && attempt == 1).then_some(SourceFault::Stall),
    )
    .await;
    let fixture = default_fixture(source.url()).await;
    let report = fixture
        .invoke(fixture.job(prefix("AB")).await)
        .await
        .expect("stored");
    assert_eq!(report.retries, 1);
    assert!(fixture.tar("AB") == expected_tar("AB", |range| body_of(range, LINES)));
}
