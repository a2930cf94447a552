//! `serve` answers range requests like the real API.

use crate::harness::source::Source;
use crate::harness::{fetch, generated};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use std::io::Read as _;

async fn send(
    source: &Source,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Response<Bytes> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", source.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    fetch(request.body(Full::default()).expect("a request")).await
}

#[tokio::test]
async fn a_range_is_served_as_the_real_api_serves_it() {
    let ranges = generated("AB", 25);
    let source = Source::of_folder(ranges.path()).await;
    let body = std::fs::read(ranges.path().join("AB7FF.txt")).expect("a range");

    let plain = send(&source, Method::GET, "/range/AB7FF", &[]).await;
    assert_eq!(plain.status(), 200);
    assert_eq!(plain.body(), &body);
    assert_eq!(plain.headers()["content-type"], "text/plain");
    assert!(plain.headers().contains_key("last-modified"));
    let lower = send(&source, Method::GET, "/range/ab7ff", &[]).await;
    assert_eq!(lower.body(), &body);

    let head = send(&source, Method::HEAD, "/range/AB7FF", &[]).await;
    assert_eq!(head.status(), 200);
    assert!(head.body().is_empty());
    assert_eq!(
        head.headers()["content-length"],
        body.len().to_string().as_str()
    );
    assert_eq!(head.headers()["etag"], plain.headers()["etag"]);

    let gzip = send(
        &source,
        Method::GET,
        "/range/AB7FF",
        &[("accept-encoding", "br, gzip")],
    )
    .await;
    assert_eq!(gzip.headers()["content-encoding"], "gzip");
    let mut decoded = Vec::new();
    flate2::read::GzDecoder::new(gzip.body().as_ref())
        .read_to_end(&mut decoded)
        .expect("gzip");
    assert_eq!(decoded, body);
}

#[tokio::test]
async fn a_matching_etag_gets_304_and_an_invalid_request_is_refused() {
    let ranges = generated("AB", 25);
    let source = Source::of_folder(ranges.path()).await;
    let first = send(&source, Method::GET, "/range/AB000", &[]).await;
    let etag = first.headers()["etag"].to_str().expect("text");
    let again = send(
        &source,
        Method::GET,
        "/range/AB000",
        &[("if-none-match", etag)],
    )
    .await;
    assert_eq!(again.status(), 304);
    assert!(again.body().is_empty());

    for path in ["/range/XYZ", "/range/AB0000", "/range/"] {
        let refused = send(&source, Method::GET, path, &[]).await;
        assert_eq!(refused.status(), 400, "{path}");
        assert_eq!(refused.body(), "The hash prefix was not in a valid format");
    }
    let absent = send(&source, Method::GET, "/range/00000", &[]).await;
    assert_eq!(absent.status(), 404);
    let elsewhere = send(&source, Method::GET, "/AB000.txt", &[]).await;
    assert_eq!(elsewhere.status(), 404);
    let posted = send(&source, Method::POST, "/range/AB000", &[]).await;
    assert_eq!(posted.status(), 405);
    assert_eq!(posted.headers()["allow"], "GET, HEAD");
}
