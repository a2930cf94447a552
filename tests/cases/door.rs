//! The component rejects requests that are not valid jobs before it fetches anything.

use crate::harness::source::{Reply, Source};
use crate::harness::{Fixture, prefix};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use orchestrator::host::embedded::AnswerBody;
use prefix_tar::limits::JOB_BYTES_MAX;
use prefix_tar::protocol::event::Event;
use prefix_tar::protocol::failure::FailureKind;

/// Sends a request to the component directly; returns the status and the failure.
async fn refused(fixture: &Fixture, request: Request<Bytes>) -> (u16, FailureKind, String) {
    let answer = async |response: http::Response<_>| {
        let (head, body): (_, AnswerBody) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some((head.status.as_u16(), body))
    };
    let (status, body) = fixture
        .host
        .call(request, answer)
        .await
        .expect("it lives")
        .expect("an answer");
    match serde_json::from_slice(&body).expect("an event") {
        Event::Failed { error, .. } => (status, error.kind, error.message),
        other => panic!("not refused: {other:?}"),
    }
}

/// A job as the host sends it.
fn job(fixture: &Fixture, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post("http://component/")
        .header("content-type", "application/json")
        .header("authorization", fixture.host.token().expose_bearer())
        .body(body.into())
        .expect("a request")
}

/// The same request with another header.
fn with_header(mut request: Request<Bytes>, name: &'static str, value: &str) -> Request<Bytes> {
    let value = http::HeaderValue::from_str(value).expect("a value");
    request.headers_mut().insert(name, value);
    request
}

/// A source that must not get a request.
async fn forbidden_source() -> Source {
    Source::answering(|range| -> Reply { panic!("{range} was fetched") }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_refused_before_anything_is_fetched() {
    let fixture = Fixture::new(&forbidden_source().await.url(), |_| ()).await;
    let good = fixture.job(prefix("AB")).await.expose_secret();

    let mut get = job(&fixture, good.clone());
    *get.method_mut() = http::Method::GET;
    let text = with_header(job(&fixture, good.clone()), "content-type", "text/plain");
    let with_source = String::from_utf8(good).expect("text").replacen(
        '{',
        r#"{"source":"http://127.0.0.1:1","#,
        1,
    );
    let largest = job(&fixture, vec![b' '; JOB_BYTES_MAX]);
    for (request, expected) in [
        (get, 405),
        (text, 415),
        (largest, 400),
        (job(&fixture, vec![b' '; JOB_BYTES_MAX + 1]), 413),
        (job(&fixture, "{}"), 400),
        (job(&fixture, with_source), 400),
    ] {
        let (status, kind, message) = refused(&fixture, request).await;
        assert_eq!((status, kind), (expected, FailureKind::BadJob), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_is_read_and_nothing_is_fetched() {
    let fixture = Fixture::new(&forbidden_source().await.url(), |_| ()).await;
    let good = fixture.job(prefix("AB")).await.expose_secret();
    let bearer = fixture.host.token().expose_bearer();
    let mut none = job(&fixture, good.clone());
    none.headers_mut().remove("authorization");
    let mut two = job(&fixture, good.clone());
    let again = http::HeaderValue::from_str(&bearer).expect("a value");
    two.headers_mut().append("authorization", again);
    let authorized = |value: &str| with_header(job(&fixture, good.clone()), "authorization", value);
    // A client without the token learns nothing else about its request.
    let mut get = authorized("Bearer x");
    *get.method_mut() = http::Method::GET;
    for request in [
        none,
        two,
        get,
        authorized("Bearer"),
        authorized("Basic dXNlcjpwYXNz"),
        authorized(&bearer[..bearer.len() - 1]),
        authorized(&format!("{bearer}x")),
        with_header(job(&fixture, "not read"), "authorization", "Bearer x"),
    ] {
        let (status, kind, message) = refused(&fixture, request).await;
        assert_eq!(
            (status, kind),
            (401, FailureKind::Unauthorized),
            "{message}"
        );
        assert!(!message.contains(&bearer["Bearer ".len()..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_nowhere_but_to_an_allowed_authority() {
    let fixture = Fixture::new(&forbidden_source().await.url(), |_| ()).await;
    for url in [
        "https://evil.example/b/AB.tar?X-Goog-Signature=5ec4e7",
        "http://evil.example/b/AB.tar?X-Goog-Signature=5ec4e7",
        "https://storage.googleapis.com/b/AB.tar?X-Goog-Signature=5ec4e7",
        "http://localhost:81/b/AB.tar?X-Goog-Signature=5ec4e7",
        "http://localhost@evil.example/b/AB.tar?X-Goog-Signature=5ec4e7",
    ] {
        let body = format!(r#"{{"prefix":"AB","upload":{{"url":"{url}"}}}}"#);
        let (status, kind, message) = refused(&fixture, job(&fixture, body)).await;
        assert_eq!((status, kind), (400, FailureKind::BadJob), "{url}");
        assert!(!message.contains("5ec4e7"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_without_configuration_says_so_to_its_operator_only() {
    let fixture = Fixture::new(&forbidden_source().await.url(), |settings| {
        settings.environment.clear();
    })
    .await;
    let good = fixture.job(prefix("AB")).await.expose_secret();
    let (status, kind, message) = refused(&fixture, job(&fixture, good)).await;
    assert_eq!((status, kind), (500, FailureKind::Configuration));
    assert!(!message.contains("SOURCE_URL"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_named_is_not_reached() {
    let source = forbidden_source().await;
    let fixture = Fixture::new(&source.url(), |settings| settings.origins.clear()).await;
    let failure = fixture
        .invoke(fixture.job(prefix("AB")).await)
        .await
        .expect_err("denied");
    assert_eq!(failure.kind, FailureKind::SourceUnreachable);
    assert!(!failure.retryable, "{failure}");
    assert!(failure.message.contains("does not allow it"), "{failure}");
}
