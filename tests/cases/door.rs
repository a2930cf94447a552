//! What the component answers to what is no job, before anything is fetched.

use crate::harness::source::{Reply, Source};
use crate::harness::{Stage, prefix};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use prefix_tar::failure::FailureKind;
use prefix_tar::job::Event;
use prefix_tar::limits::JOB_BYTES_MAX;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;

/// Sends a request past the host's own job, and gives status and failure.
async fn refused(stage: &Stage, request: Request<Bytes>) -> (u16, FailureKind, String) {
    let answer = async |response: http::Response<_>| {
        let (head, body): (_, wasmtime_wasi_http::p2::body::HyperOutgoingBody) =
            response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some((head.status.as_u16(), body))
    };
    let (status, body) = stage
        .host
        .call(request, MemoryOutputPipe::new(4096), answer)
        .await
        .expect("it lives")
        .expect("an answer");
    match serde_json::from_slice(&body).expect("an event") {
        Event::Failed { error } => (status, error.kind, error.message),
        other => panic!("not refused: {other:?}"),
    }
}

fn job(body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post("http://component/")
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_refused_before_anything_is_fetched() {
    let source = Source::answering(|range| -> Reply { panic!("{range} was fetched") }).await;
    let stage = Stage::new(&source.url(), |_| ()).await;
    let good = stage.job(prefix("AB")).await.expose_to_the_wire();

    let mut get = job(good.clone());
    *get.method_mut() = http::Method::GET;
    let mut text = job(good.clone());
    text.headers_mut()
        .insert("content-type", http::HeaderValue::from_static("text/plain"));
    let with_source = String::from_utf8(good).expect("text").replacen(
        '{',
        r#"{"source":"http://127.0.0.1:1","#,
        1,
    );
    for (request, expected) in [
        (get, 405),
        (text, 415),
        (job(vec![b' '; JOB_BYTES_MAX + 1]), 413),
        (job("{}"), 400),
        (job(with_source), 400),
    ] {
        let (status, kind, message) = refused(&stage, request).await;
        assert_eq!((status, kind), (expected, FailureKind::BadJob), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_without_configuration_says_so_to_its_operator_only() {
    let source = Source::answering(|range| -> Reply { panic!("{range} was fetched") }).await;
    let stage = Stage::new(&source.url(), |settings| settings.environment.clear()).await;
    let good = stage.job(prefix("AB")).await.expose_to_the_wire();
    let (status, kind, message) = refused(&stage, job(good)).await;
    assert_eq!((status, kind), (500, FailureKind::Configuration));
    assert!(!message.contains("SOURCE_URL"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_named_is_not_reached() {
    let source = Source::answering(|range| -> Reply { panic!("{range} was fetched") }).await;
    let stage = Stage::new(&source.url(), |settings| settings.origins.clear()).await;
    let failure = stage
        .invoke(stage.job(prefix("AB")).await)
        .await
        .expect_err("denied");
    assert_eq!(failure.kind, FailureKind::SourceUnreachable);
    assert!(!failure.retryable, "{failure}");
    assert!(failure.message.contains("may not be reached"), "{failure}");
}
