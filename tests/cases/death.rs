//! An invocation that dies leaves nothing behind, whether a trap, its deadline or its source ends
//! it. Each is tried 20 times.

use crate::harness::Fixture;
use crate::harness::source::{Reply, Source, valid_body};
use futures::future::join_all;
use orchestrator::host::Host as _;
use orchestrator::host::embedded::EmbeddedSettings;
use prefix_tar::engine::tar::RECORD_BYTES;
use prefix_tar::limits::{CONTENT_LENGTH_MAX, PROGRESS_RANGES};
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use std::time::Duration;

const TRIES: usize = 20;

/// The index of the first range that is answered differently: far enough for a progress event,
/// which shows that the upload was under way.
const TURN: u16 = PROGRESS_RANGES as u16 + 100;

/// Runs twenty invocations whose source answers `later` from [`TURN`] on, and expects each to fail
/// and to leave nothing behind.
async fn tries(
    later: impl Fn(RangeName) -> Reply + Send + Sync + Clone + 'static,
    change: impl FnOnce(&mut EmbeddedSettings),
) -> Vec<Failure> {
    let source = Source::answering(move |range| {
        if range.index() < TURN {
            Reply::Body(valid_body(range, 2_000))
        } else {
            later(range)
        }
    })
    .await;
    let fixture = Fixture::new(&source.url(), change).await;
    let invocations = Prefix::all().take(TRIES).map(async |prefix| {
        let job = Job {
            // Far more than what comes, so that the end of what comes cannot be taken for the end of the tar.
            content_length: Some(CONTENT_LENGTH_MAX / RECORD_BYTES * RECORD_BYTES),
            ..fixture.job(prefix).await
        };
        fixture.invoke(job).await.expect_err("it dies")
    });
    let failures = join_all(invocations).await;
    assert!(
        fixture.ranges_reported() >= PROGRESS_RANGES,
        "it died too early"
    );
    assert_eq!(fixture.into_file_names().await, Vec::<String>::new());
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_mid_upload_leaves_no_object() {
    // Ranges that turn large, and a cap that is too small for them: the allocator gives up, and that traps.
    let failures = tries(
        |range| Reply::Body(valid_body(range, 250_000)),
        |settings| settings.linear_memory_bytes_max = 2 * 1024 * 1024,
    )
    .await;
    for failure in failures {
        assert_eq!(failure.kind, FailureKind::Died, "{failure}");
        assert!(failure.message.contains("unreachable"), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_in_mid_upload_leaves_no_object() {
    let failures = tries(
        |_| Reply::Never,
        |settings| settings.deadline = Duration::from_secs(3),
    )
    .await;
    for failure in failures {
        assert_eq!(failure.kind, FailureKind::Deadline, "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_refuses_in_mid_upload_leaves_no_object() {
    let failures = tries(|_| Reply::Status(403), |_| ()).await;
    for failure in failures {
        assert_eq!(failure.kind, FailureKind::SourceStatus, "{failure}");
        assert!(failure.message.ends_with("answered 403"), "{failure}");
    }
}

/// A component that loops forever and never waits.
const SPINNING: &str = r#"
(component
    (import "wasi:http/types@0.2.0" (instance $types
        (export "incoming-request" (type (sub resource)))
        (export "response-outparam" (type (sub resource)))
    ))
    (alias export $types "incoming-request" (type $request))
    (alias export $types "response-outparam" (type $outparam))
    (core module $module
        (func (export "handle") (param i32 i32) (loop (br 0)))
    )
    (core instance $instance (instantiate $module))
    (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
        (canon lift (core func $instance "handle")))
    (component $shape
        (import "request" (type $request (sub resource)))
        (import "outparam" (type $outparam (sub resource)))
        (import "handle" (func $handle
            (param "request" (own $request)) (param "response-out" (own $outparam))))
        (export "handle" (func $handle))
    )
    (instance $handler (instantiate $shape
        (with "request" (type $request))
        (with "outparam" (type $outparam))
        (with "handle" (func $handle))
    ))
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler))
)
"#;

#[tokio::test]
async fn a_guest_that_never_waits_is_stopped_at_its_deadline() {
    let source = Source::answering(|_| Reply::Never).await;
    let fixture = Fixture::new(&source.url(), |settings| {
        settings.component = wat::parse_str(SPINNING).expect("a component");
        settings.deadline = Duration::from_millis(200);
    })
    .await;
    let job = fixture.job(Prefix::from_number(0)).await;
    let failure = fixture
        .host
        .invoke(job, &|_| ())
        .await
        .expect_err("it never ends")
        .failure;
    assert_eq!(failure.kind, FailureKind::Deadline);
}
