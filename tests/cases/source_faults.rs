//! A source that is wrong: what passes is borne, what lasts is named, and neither gets into a tar.

use crate::harness::faults::SourceFault;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::measured;
use crate::harness::{Stage, expected_tar, prefix, stage_of};
use futures::StreamExt as _;
use prefix_tar::failure::{Failure, FailureKind};
use prefix_tar::limits::{RANGE_ATTEMPTS_MAX, RETRY_AFTER_MAX};
use prefix_tar::prefix::RangeName;
use std::time::Instant;

/// Lines of a range: few, because it is the faults that matter.
const LINES: u64 = 5;

/// Faults that are tried at the same time.
const AT_ONCE: usize = 10;

/// One range in so many has the fault, at its first attempt.
const EVERY: u16 = 256;

fn every_so_many(fault: SourceFault) -> impl Fn(RangeName, u32) -> Option<SourceFault> {
    move |range, attempt| {
        let is_hit = attempt == 1 && range.index() % EVERY == EVERY - 1;
        is_hit.then_some(fault)
    }
}

/// Faults that pass when they are met once.
const PASSING: [SourceFault; 30] = [
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
    SourceFault::NoHttp,
    SourceFault::Brotli,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_passes_costs_a_retry_and_changes_nothing() {
    futures::stream::iter(PASSING)
        .for_each_concurrent(AT_ONCE, passes)
        .await;
}

/// Has a prefix mirrored whose source has this fault now and then.
async fn passes(fault: SourceFault) {
    let source = FaultySource::start(|range| body_of(range, LINES), every_so_many(fault)).await;
    let stage = stage_of(source.url()).await;
    let began = Instant::now();
    let report = stage.invoke(stage.job(prefix("AB")).await).await;
    let report = report.unwrap_or_else(|failure| panic!("{fault:?}: {failure}"));
    let injected: u64 = source.faults().injected().values().sum();
    assert_eq!(injected, u64::from(4096 / EVERY), "{fault:?}");
    // A connection that broke may take along what was sent on it next; what was injected was tried again.
    assert!(report.retries >= injected, "{fault:?}: {}", report.retries);
    assert_eq!(report.requests, 4096 + report.retries);
    assert!(
        stage.tar("AB") == expected_tar("AB", |range| body_of(range, LINES)),
        "{fault:?}: the tar is another"
    );
    measured(&format!(
        "| {fault:?} | {injected} of 4,096 ranges, once | stored, {} retries, {:.1} s | right |",
        report.retries,
        began.elapsed().as_secs_f64()
    ));
}

/// Invokes with a source whose range AB123 always has this fault.
async fn always(fault: SourceFault) -> (Failure, u64, Stage) {
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        move |range, _| (range.index() == 0x123).then_some(fault),
    )
    .await;
    let stage = stage_of(source.url()).await;
    let began = Instant::now();
    let job = stage.job(prefix("AB")).await;
    let failure = stage.invoke(job).await.expect_err("it lasts");
    let injected: u64 = source.faults().injected().values().sum();
    measured(&format!(
        "| {fault:?} | AB123, always: {injected} times | {failure} ({:.1} s) | no object |",
        began.elapsed().as_secs_f64()
    ));
    (failure, injected, stage)
}

/// As often as a range is asked for.
const MOST: u64 = RANGE_ATTEMPTS_MAX as u64;

/// Faults that last: how often each is met, what it is called, and what the message has.
const LASTING: [(SourceFault, u64, FailureKind, &str); 21] = [
    (
        SourceFault::Closed,
        MOST,
        FailureKind::SourceUnreachable,
        "the connection was lost in 6 attempts over",
    ),
    (
        SourceFault::Status(503),
        MOST,
        FailureKind::SourceStatus,
        "answered 503 in 6 attempts over",
    ),
    (
        SourceFault::Html,
        MOST,
        FailureKind::RangeInvalid,
        "line 1 does not begin with 35 upper-case hex",
    ),
    (
        SourceFault::Truncated,
        MOST,
        FailureKind::SourceUnreachable,
        "the connection was lost in 6 attempts",
    ),
    (
        SourceFault::TruncatedChunked,
        MOST,
        FailureKind::RangeInvalid,
        "is cut off by the end of the body",
    ),
    (
        SourceFault::Reordered,
        MOST,
        FailureKind::RangeInvalid,
        "line 2 is not in strictly rising order",
    ),
    (
        SourceFault::Duplicated,
        MOST,
        FailureKind::RangeInvalid,
        "line 2 is not in strictly rising order",
    ),
    (
        SourceFault::LowerCase,
        MOST,
        FailureKind::RangeInvalid,
        "line 1 does not begin with 35",
    ),
    (
        SourceFault::LfOnly,
        MOST,
        FailureKind::RangeInvalid,
        "line 1 does not end in CRLF",
    ),
    (
        SourceFault::OtherMode,
        MOST,
        FailureKind::RangeInvalid,
        "line 1 does not begin with 35",
    ),
    (
        SourceFault::OtherRange(7),
        MOST,
        FailureKind::RangeInvalid,
        "it is the body of AB007, too in 6 attempts",
    ),
    (
        SourceFault::Padding,
        MOST,
        FailureKind::RangeInvalid,
        "has no decimal count from 1",
    ),
    (
        SourceFault::GzipDamaged,
        MOST,
        FailureKind::RangeInvalid,
        "the gzip body is damaged or cut off",
    ),
    (
        SourceFault::GzipCut,
        MOST,
        FailureKind::RangeInvalid,
        "the gzip body ",
    ),
    (
        SourceFault::GzipBomb,
        MOST,
        FailureKind::RangeInvalid,
        "the gzip body is damaged or cut off",
    ),
    (
        SourceFault::NoHttp,
        MOST,
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
async fn a_fault_that_lasts_is_tried_as_often_as_allowed_and_named_with_its_range() {
    let outcomes =
        futures::future::join_all(LASTING.map(async |case| (case, always(case.0).await)));
    for ((fault, times, kind, message), (failure, injected, stage)) in outcomes.await {
        assert_eq!(injected, times, "{fault:?}");
        assert_eq!(failure.kind, kind, "{fault:?}: {failure}");
        assert!(failure.message.contains(message), "{fault:?}: {failure}");
        assert_eq!(failure.retryable, times > 1, "{fault:?}");
        let range = failure.range.map(|range| range.to_string());
        assert_eq!(range.as_deref(), Some("AB123"), "{fault:?}");
        assert_eq!(stage.into_files().await, Vec::<String>::new(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_asks_for_a_longer_wait_than_an_invocation_has_is_not_asked_again() {
    let longest = RETRY_AFTER_MAX.as_secs();
    let (failure, injected, _stage) = always(SourceFault::RetryAfter(429, longest + 1)).await;
    assert_eq!((failure.kind, injected), (FailureKind::SourceStatus, 1));
    assert_eq!(failure.retry_after_seconds, Some(longest + 1));
    assert!(
        failure.message.contains("asks to be left alone"),
        "{failure}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_mostly_fails_ends_the_invocation_by_its_budget() {
    // Nine requests of ten fail, but never the sixth for the same range: only the budget can end this.
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        |_, attempt| (attempt < RANGE_ATTEMPTS_MAX).then_some(SourceFault::Status(500)),
    )
    .await;
    let stage = stage_of(source.url()).await;
    let job = stage.job(prefix("AB")).await;
    let failure = stage.invoke(job).await.expect_err("a budget");
    assert!(
        failure.message.contains("had to be sent again"),
        "{failure}"
    );
    let requests = source.faults().range_requests();
    assert!(requests < 1_500, "{requests} requests for 4,096 ranges");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_stalls_is_asked_for_again_after_its_timeout() {
    let source = FaultySource::start(
        |range| body_of(range, LINES),
        |range, attempt| (range.index() == 0x123 && attempt == 1).then_some(SourceFault::Stall),
    )
    .await;
    let stage = stage_of(source.url()).await;
    let report = stage
        .invoke(stage.job(prefix("AB")).await)
        .await
        .expect("stored");
    assert_eq!(report.retries, 1);
    assert!(stage.tar("AB") == expected_tar("AB", |range| body_of(range, LINES)));
}
