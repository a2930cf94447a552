//! A source whose connections and answers fail: a transient fault costs a retry, a persistent one is reported with its
//! range, and retries are bounded.

use crate::harness::faults::SourceFault;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::measured;
use crate::harness::{Fixture, default_fixture, expected_tar, prefix};
use futures::StreamExt as _;
use prefix_tar::limits::{RANGE_ATTEMPTS_MAX, RETRY_AFTER_MAX};
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::prefix::RangeName;
use std::time::Instant;

/// Lines of a range. Few, because only the faults matter.
pub(super) const LINES: u64 = 5;

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
const TRANSIENT: [SourceFault; 18] = [
    SourceFault::Closed,
    SourceFault::ResetAt(0),
    SourceFault::ResetAt(50),
    SourceFault::ResetAt(200),
    SourceFault::Status(204),
    SourceFault::Status(206),
    SourceFault::Status(304),
    SourceFault::Status(408),
    SourceFault::Status(429),
    SourceFault::Status(500),
    SourceFault::Status(502),
    SourceFault::Status(503),
    SourceFault::Status(520),
    SourceFault::RetryAfter(429, 1),
    SourceFault::RetryAfterDate(503, 1),
    SourceFault::Headers(100_000),
    SourceFault::HeaderBytes(1_000_000),
    SourceFault::NotHttp,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_fault_costs_a_retry_and_does_not_change_the_tar() {
    assert_transient(&TRANSIENT).await;
}

/// Expects each of these faults to cost retries only.
pub(super) async fn assert_transient(faults: &[SourceFault]) {
    futures::stream::iter(faults)
        .for_each_concurrent(CONCURRENT_FAULTS_MAX, async |fault| sometimes(*fault).await)
        .await;
}

/// Mirrors a prefix whose source sometimes has this fault, and expects the right tar.
async fn sometimes(fault: SourceFault) {
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
pub(super) const ATTEMPTS_MAX: u64 = RANGE_ATTEMPTS_MAX as u64;

/// A persistent fault: the requests that meet it, the failure's kind, and a part of its message.
pub(super) type PersistentFault = (SourceFault, u64, FailureKind, &'static str);

const PERSISTENT: [PersistentFault; 6] = [
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
];

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_fault_is_retried_up_to_the_limit_and_reported_with_its_range() {
    assert_persistent(&PERSISTENT).await;
}

/// Expects each of these faults to end an invocation, and nothing to be stored.
pub(super) async fn assert_persistent(faults: &[PersistentFault]) {
    let outcomes = faults
        .iter()
        .map(async |case| (*case, always(case.0).await));
    let outcomes = futures::future::join_all(outcomes);
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
