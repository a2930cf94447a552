//! A single range that the source or a cache has wrong does not cost the run.

use crate::harness::faulty_source::body_of;
use crate::harness::source::listener;
use crate::harness::{prefix, run_config, verified};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use orchestrator::http_server::HttpServer;
use orchestrator::run::RunConfig;
use orchestrator::run::event::{RUN_EVENTS_MAX, RunEvent};
use orchestrator::run::outcome::FinishedRun;
use orchestrator::run::shutdown::Shutdown;
use prefix_tar::limits::RANGE_ATTEMPTS_MAX;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::prefix::RangeName;
use prefix_tar::protocol::report::CachedError;
use prefix_tar::protocol::source::SourceUrl;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const LINES: u64 = 5;

/// The only range that the source has wrong.
const BAD: &str = "AB123";

/// How long the cache has had its error, in seconds.
const AGE: u64 = 689_562;

/// How the source answers the bad range, by the query and by how many requests for it came before: `None` is the body.
type Plan = fn(Option<&str>, u32) -> Option<Response<Full<Bytes>>>;

/// A source with one bad range.
struct Source {
    server: HttpServer,
    /// Requests for the bad range, without a query and with one.
    plain: Arc<AtomicU32>,
    explicit: Arc<AtomicU32>,
}

impl Source {
    async fn start(plan: Plan) -> Self {
        let (plain, explicit) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let counts = (Arc::clone(&plain), Arc::clone(&explicit));
        let server = HttpServer::start(listener().await, move |request| {
            let response = answer(&request, plan, &counts.0, &counts.1);
            async { response }
        });
        Self {
            server: server.expect("a server"),
            plain,
            explicit,
        }
    }

    fn url(&self) -> SourceUrl {
        let url = format!("http://{}", self.server.address());
        url.parse().expect("a source")
    }

    fn requests(&self) -> (u32, u32) {
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed);
        (count(&self.plain), count(&self.explicit))
    }
}

fn answer(
    request: &Request<Incoming>,
    plan: Plan,
    plain: &AtomicU32,
    explicit: &AtomicU32,
) -> Response<Full<Bytes>> {
    let name = request.uri().path().trim_start_matches("/range/");
    let range: RangeName = name.parse().expect("a range");
    let query = request.uri().query();
    if name == BAD {
        let before = match query {
            None => plain.fetch_add(1, Ordering::Relaxed),
            Some(_) => explicit.fetch_add(1, Ordering::Relaxed),
        };
        if let Some(bad) = plan(query, before) {
            return bad;
        }
    }
    Response::new(Full::new(body_of(range, LINES).into()))
}

fn status(status: u16, is_cached: bool) -> Option<Response<Full<Bytes>>> {
    let mut response = Response::builder().status(status);
    if is_cached {
        response = response.header("age", AGE).header("cf-cache-status", "HIT");
    }
    Some(response.body(Full::default()).expect("a response"))
}

/// Runs `config`; returns the prefixes that were put off, as often as they were.
async fn run_noting_deferred(config: RunConfig) -> (FinishedRun, Vec<String>) {
    let (sender, mut events) = tokio::sync::mpsc::channel(RUN_EVENTS_MAX);
    let noted = tokio::spawn(async move {
        let mut noted = Vec::new();
        while let Some(event) = events.recv().await {
            if let RunEvent::Deferred(failed) = event {
                noted.push(failed.prefix.to_string());
            }
        }
        noted
    });
    let run = config.run(Shutdown::default(), sender).await;
    (run.expect("a run"), noted.await.expect("events"))
}

/// Expects the prefix of the bad range to be stored in one run, after so many requests for the range, and without the
/// help of another key.
async fn assert_is_stored_after(source: &Source, requests: (u32, u32)) {
    let archive = tempfile::tempdir().expect("a folder");
    let config = run_config(&source.url(), archive.path(), "AB");
    let (run, _) = run_noting_deferred(config).await;
    assert!(run.outcome.is_complete(), "{:?}", run.outcome.failed);
    assert_eq!(source.requests(), requests);
    assert!(run.outcome.stored[&prefix("AB")].cached_errors.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_a_cache_keeps_for_ever_is_circumvented_by_another_key() {
    let source = Source::start(|query, _| match query {
        Some("mode=sha1") => None,
        _ => status(502, true),
    })
    .await;
    let archive = tempfile::tempdir().expect("a folder");
    let config = run_config(&source.url(), archive.path(), "AA-AB");
    let (run, deferred) = run_noting_deferred(config).await;
    assert!(run.outcome.is_complete(), "{:?}", run.outcome.failed);
    assert_eq!((source.requests(), deferred), ((1, 1), vec![]));
    let stored = &run.outcome.stored[&prefix("AB")];
    let error = CachedError {
        range: BAD.parse().expect("a range"),
        status: 502,
        age_seconds: AGE,
    };
    assert_eq!(stored.cached_errors, [error]);
    assert_eq!((stored.attempts, stored.totals.retries), (1, 1));
    let verdict = verified(archive.path());
    assert_eq!((verdict.damages, verdict.unreadable), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_no_cache_has_is_only_retried() {
    let source = Source::start(|_, before| match before {
        0..2 => status(502, false),
        _ => None,
    })
    .await;
    assert_is_stored_after(&source, (3, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_know_the_other_key_is_asked_for_it_once() {
    let source = Source::start(|query, before| match (query, before) {
        (Some(_), _) => status(400, false),
        (None, 0..3) => status(502, true),
        _ => None,
    })
    .await;
    assert_is_stored_after(&source, (4, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_the_source_has_failed_is_tried_again_when_the_others_are_done() {
    // As many requests as all invocations of the prefix have, before it is put off.
    const FAILING: u32 = 4 * RANGE_ATTEMPTS_MAX;
    let source = Source::start(|_, before| match before {
        0..FAILING => status(502, false),
        _ => None,
    })
    .await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut config = run_config(&source.url(), archive.path(), "AA-AC");
    config.dispatch.give_up_after = Duration::from_secs(60);
    let (run, deferred) = run_noting_deferred(config).await;
    assert!(run.outcome.is_complete(), "{:?}", run.outcome.failed);
    assert_eq!(deferred, ["AB"]);
    assert_eq!(source.requests().0, FAILING + 1);
    assert!(archive.path().join("manifest.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_stays_bad_is_named_with_its_status_and_its_age() {
    let source = Source::start(|_, _| status(502, true)).await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut config = run_config(&source.url(), archive.path(), "AA-AC");
    config.dispatch.give_up_after = Duration::from_millis(500);
    let (run, deferred) = run_noting_deferred(config).await;
    let outcome = &run.outcome;
    assert!(!outcome.is_complete() && deferred.len() > 1, "{deferred:?}");
    assert_eq!(outcome.stored.len(), 2);
    let failed = &outcome.failed[&prefix("AB")];
    assert_eq!(failed.failure.kind, FailureKind::SourceStatus);
    assert_eq!(failed.failure.range, BAD.parse().ok());
    assert_eq!(failed.failure.status, Some(502));
    assert_eq!(failed.failure.cache_age_seconds, Some(AGE));
    let message = &failed.failure.message;
    let expected = "answered 502, from a cache that has had it for 689562 s";
    assert!(message.contains(expected), "{message}");
    assert!(!archive.path().join("manifest.json").exists());
}
