//! The bodies of a source: a body that is whole enters a tar whatever form it has, and one that is cut off, damaged or
//! not a range never does.

use super::source_faults::{
    ATTEMPTS_MAX, LINES, PersistentFault, assert_persistent, assert_transient,
};
use crate::harness::faults::{SourceFault, SourceForm};
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::source::valid_body;
use crate::harness::{default_fixture, expected_tar, prefix};
use prefix_tar::limits::{LINEAR_MEMORY_BYTES_MAX, RANGE_BYTES_MAX, WINDOW_MAX};
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::RangeName;

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

/// Bodies that a retry replaces.
const TRANSIENT: [SourceFault; 27] = [
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
    SourceFault::ChunkedGarbage,
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
async fn an_invalid_body_costs_a_retry_and_does_not_change_the_tar() {
    assert_transient(&TRANSIENT).await;
}

/// Bodies that are always invalid.
const PERSISTENT: [PersistentFault; 27] = [
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
        "line 1 is of a range of NTLM hashes",
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
async fn a_body_that_stays_invalid_is_reported_with_its_range_and_the_reason() {
    assert_persistent(&PERSISTENT).await;
}
