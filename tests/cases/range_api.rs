//! `serve` answers range requests like the real API.

use crate::harness::program::{orchestrator, output, texts};
use crate::harness::source::Source;
use crate::harness::{fetch, generated};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use orchestrator::generate::GeneratorConfig;
use orchestrator::range_api::source::RangeSource;
use prefix_tar::protocol::mode::Mode;
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

async fn synthetic(seed: u64, hashes_per_range: u32) -> Source {
    let config = GeneratorConfig {
        seed,
        hashes_per_range,
        mode: Mode::Sha1,
    };
    Source::of(RangeSource::synthetic(config).expect("a source")).await
}

#[tokio::test]
async fn synthetic_ranges_are_those_that_generate_writes_with_the_headers_of_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut generate = orchestrator();
    generate
        .args(["generate", "--prefixes", "5B", "--seed", "7"])
        .args(["--hashes-per-range", "30", "-d"])
        .arg(folder.path());
    let generated = output(generate).await;
    assert_eq!(generated.status.code(), Some(0), "{}", texts(&generated));
    let (files, source) = (
        Source::of_folder(folder.path()).await,
        synthetic(7, 30).await,
    );
    for encoding in ["identity", "gzip"] {
        // 5BAA6 is the range of `password`.
        for path in ["/range/5B000", "/range/5BAA6", "/range/5bfff"] {
            let headers = [("accept-encoding", encoding)];
            let of_folder = send(&files, Method::GET, path, &headers).await;
            let made = send(&source, Method::GET, path, &headers).await;
            assert_eq!(made.status(), 200);
            assert_eq!(made.body(), of_folder.body(), "{path} {encoding}");
            let names = |response: &Response<Bytes>| -> Vec<String> {
                response.headers().keys().map(ToString::to_string).collect()
            };
            assert_eq!(names(&made), names(&of_folder));
            let head = send(&source, Method::HEAD, path, &headers).await;
            for name in ["content-length", "etag", "last-modified"] {
                assert_eq!(head.headers()[name], made.headers()[name]);
            }
        }
    }
}

#[tokio::test]
async fn the_etag_of_a_synthetic_range_names_its_bytes() {
    let etag = async |source: &Source, path: &str| {
        let head = send(source, Method::HEAD, path, &[]).await;
        head.headers()["etag"].to_str().expect("text").to_owned()
    };
    let source = synthetic(1, 20).await;
    let known = etag(&source, "/range/00000").await;
    assert_eq!(known, etag(&synthetic(1, 20).await, "/range/00000").await);
    for (source, path) in [
        (&source, "/range/00001"),
        (&synthetic(2, 20).await, "/range/00000"),
        (&synthetic(1, 21).await, "/range/00000"),
    ] {
        assert_ne!(known, etag(source, path).await, "{path}");
    }
    let headers = [("if-none-match", known.as_str())];
    let again = send(&source, Method::GET, "/range/00000", &headers).await;
    assert_eq!(again.status(), 304);
}
