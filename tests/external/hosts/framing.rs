//! Which bodies enter a tar on a host that does, or does not, tell the component how they are framed.

use super::{LINES, Store};
use crate::harness::expected_tar;
use crate::harness::faults::{SourceFault, SourceForm};
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::hosts::{HostKind, Setup};
use orchestrator::host::FailedInvocation;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::RangeName;

/// Lines of a range whose last count has two digits, so that it can be cut inside.
const COUNTS_OF_TWO_DIGITS: u64 = 12;

/// Whether the host tells the component how bodies are framed.
const fn checks_framing(kind: HostKind) -> bool {
    matches!(kind, HostKind::Embedded | HostKind::Socket)
}

/// Answers that carry a part of a range, or a whole range that nothing shows to be whole.
const PARTS: [SourceFault; 9] = [
    SourceFault::UnframedAfterLine,
    SourceFault::UnframedInsideCount,
    SourceFault::Unframed,
    SourceFault::UnframedHttp10,
    SourceFault::UnframedGzipCut,
    SourceFault::UnframedGzipMembers,
    SourceFault::UnframedMd5,
    SourceFault::ContentRange,
    SourceFault::Md5Wrong,
];

/// Three of eight first requests meet one, which costs all the retries that an invocation has.
fn parts(range: RangeName, attempt: u32) -> Option<SourceFault> {
    let index = usize::from(range.index());
    let is_hit = attempt == 1 && matches!(index % 8, 1 | 4 | 6);
    is_hit.then_some(PARTS[index / 8 % PARTS.len()])
}

/// Mirrors a prefix of which many ranges are answered in part, and expects the right tar or a message
/// that names such an answer.
async fn assert_no_part_is_stored(kind: HostKind, ignores_framing: bool) {
    let bodies = |range| body_of(range, COUNTS_OF_TWO_DIGITS);
    let source = FaultySource::start(bodies, parts).await;
    let store = Store::start().await;
    let setup = Setup {
        ignores_framing,
        ..Setup::new(source.url(), store.address)
    };
    let host = kind.start(&setup).await;
    match store.invoke(&host, None).await {
        Ok(report) => {
            assert!(store.tar() == expected_tar("AB", bodies), "the tar differs");
            assert!(report.retries >= 3 * 4096 / 8, "{}", report.retries);
            let injected = source.faults().injected();
            assert_eq!(injected.len(), PARTS.len(), "{injected:?}");
        }
        Err(FailedInvocation { failure, .. }) => {
            let named = [
                "answered with an invalid range: ",
                "the connection was lost",
            ];
            let is_named = named.iter().any(|text| failure.message.contains(text));
            assert!(is_named && failure.retryable, "{failure}");
        }
    }
}

pub(super) async fn no_part_of_a_range_gets_into_a_tar(kind: HostKind) {
    futures::join!(
        assert_no_part_is_stored(kind, false),
        assert_no_part_is_stored(kind, true)
    );
}

pub(super) async fn a_body_that_is_whole_is_accepted(kind: HostKind) {
    const FORMS: [SourceForm; 8] = [
        SourceForm::Gzip("GZIP"),
        SourceForm::GzipChunked,
        SourceForm::GzipUnframed,
        SourceForm::GzipMembers,
        SourceForm::Md5Chunked,
        SourceForm::Md5Unframed,
        SourceForm::Md5Gzip,
        SourceForm::Md5GzipMembersUnframed,
    ];
    let form_of = |range: RangeName| FORMS[usize::from(range.index()) % FORMS.len()];
    let bodies = |range| body_of(range, COUNTS_OF_TWO_DIGITS);
    let source = FaultySource::in_forms(bodies, form_of).await;
    let store = Store::start().await;
    let expected = expected_tar("AB", bodies);
    for ignores_framing in [false, true] {
        let setup = Setup {
            ignores_framing,
            ..Setup::new(source.url(), store.address)
        };
        let host = kind.start(&setup).await;
        store.stored(&host).await;
        assert!(store.tar() == expected, "the tar differs");
    }
}

pub(super) async fn an_identity_body_without_a_length_needs_a_host_that_checks_framing(
    kind: HostKind,
) {
    let store = Store::start().await;
    for form in [SourceForm::Chunked, SourceForm::GzipMembersChunked] {
        let source = FaultySource::in_forms(|range| body_of(range, LINES), move |_| form).await;
        let setup = Setup {
            ignores_framing: true,
            ..Setup::new(source.url(), store.address)
        };
        let host = kind.start(&setup).await;
        let failure = store.failure(&host, None).await;
        assert_eq!(failure.kind, FailureKind::RangeInvalid, "{failure}");
        assert!(failure.retryable, "{failure}");
        let unknown =
            "its body has no Content-Length, so this host cannot tell whether it is complete";
        assert!(failure.message.contains(unknown), "{failure}");
        let hint = "; request gzip (SOURCE_ENCODING=gzip)";
        let has_hint = failure.message.contains(hint);
        assert_eq!(has_hint, form == SourceForm::Chunked, "{failure}");
        if checks_framing(kind) {
            let host = kind.start(&Setup::new(source.url(), store.address)).await;
            store.stored(&host).await;
        }
    }
}
