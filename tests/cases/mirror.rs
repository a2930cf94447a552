//! `serve` over an archive answers like the public range API.

mod random_requests;
mod secrecy;
mod switching;
mod transport;

use crate::harness::mirror_program::MirrorProgram;
use crate::harness::program::{output, texts};
use crate::harness::source::Source;
use crate::harness::store_program::StoreProgram;
use crate::harness::{fetch, generated, run_config, run_whole};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use std::io::Read as _;
use std::path::Path;

/// The one prefix of most archives here.
const PREFIX: &str = "AB";

const LINES: u32 = 30;

/// An archive in a folder, and the range files that it was made of.
struct Mirrored {
    ranges: tempfile::TempDir,
    archive: tempfile::TempDir,
}

impl Mirrored {
    async fn new() -> Self {
        let mirrored = Self {
            ranges: generated(PREFIX, LINES),
            archive: tempfile::tempdir().expect("a folder"),
        };
        mirror(mirrored.ranges.path(), mirrored.archive.path()).await;
        mirrored
    }

    /// The body of a range, as clients should get it.
    fn body(&self, range: &str) -> Vec<u8> {
        body_in(self.ranges.path(), range)
    }
}

/// The body of a range file, without a line break at its end.
fn body_in(ranges: &Path, range: &str) -> Vec<u8> {
    let mut body = std::fs::read(ranges.join(format!("{range}.txt"))).expect("a range");
    while body.ends_with(b"\r\n") {
        body.truncate(body.len() - 2);
    }
    body
}

/// Mirrors a folder of range files into an archive.
async fn mirror(ranges: &Path, archive: &Path) {
    let source = Source::of_folder(ranges).await;
    let mut config = run_config(&source.url(), archive, PREFIX);
    config.force = true;
    run_whole(config).await;
}

/// Mirrors a folder of range files into a bucket.
async fn bucket_with(ranges: &Path) -> StoreProgram {
    let (store, source) = (StoreProgram::start(), Source::of_folder(ranges).await);
    let url = source.url().to_string();
    let run = ["run", "--prefixes", PREFIX, "--source", &url, "--to"];
    let run = output(store.command(&run, "archive")).await;
    assert!(run.status.success(), "{}", texts(&run));
    store
}

async fn send(url: &str, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{url}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    fetch(request.body(Full::default()).expect("a request")).await
}

async fn get(url: &str, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    send(url, Method::GET, path, headers).await
}

fn header<'response>(response: &'response Response<Bytes>, name: &str) -> &'response str {
    let value = response.headers().get(name);
    let value = value.unwrap_or_else(|| panic!("no {name} in {response:?}"));
    value.to_str().expect("text")
}

fn decoded(response: &Response<Bytes>) -> Vec<u8> {
    let (body, mut decoded) = (response.body().as_ref(), Vec::new());
    let coding = response.headers().get("content-encoding");
    match coding.map(|coding| coding.as_bytes()) {
        Some(b"br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut decoded),
        Some(b"gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut decoded),
        _ => (&*body).read_to_end(&mut decoded),
    }
    .expect("decoded");
    decoded
}

/// Everything that holds for an archive, wherever it is.
async fn behaves_like_the_public_api(mirror: &MirrorProgram, mirrored: &Mirrored) {
    let url = mirror.url();
    bodies_and_headers(url, mirrored).await;
    conditional_requests(url).await;
    codings(url, mirrored).await;
    padding(url, mirrored).await;
    clients_can_split_it(url, mirrored).await;
    refusals(url).await;
    preflight(url).await;
    health_and_metrics(url).await;
}

async fn bodies_and_headers(url: &str, mirrored: &Mirrored) {
    for range in ["AB000", "AB7FF", "ABFFF"] {
        let body = mirrored.body(range);
        for path in [
            format!("/range/{range}"),
            format!("/range/{}", range.to_ascii_lowercase()),
            format!("/range/{range}?mode=sha1"),
        ] {
            let response = get(url, &path, &[]).await;
            assert_eq!(response.status(), 200, "{path}");
            assert!(response.body() == &body, "{path} has another body");
            for (name, value) in [
                ("content-type", "text/plain"),
                ("cache-control", "public, max-age=86400"),
                ("vary", "Accept-Encoding, Add-Padding"),
                ("access-control-allow-origin", "*"),
                ("access-control-expose-headers", "Content-MD5, ETag"),
            ] {
                assert_eq!(header(&response, name), value);
            }
            assert!(header(&response, "etag").starts_with('"'));
            let md5 = <md5::Md5 as md5::Digest>::digest(&body);
            let md5 = base64_for_tests::Engine::encode(
                &base64_for_tests::engine::general_purpose::STANDARD,
                md5,
            );
            assert_eq!(header(&response, "content-md5"), md5);
            let head = send(url, Method::HEAD, &path, &[]).await;
            assert_eq!(head.status(), 200);
            assert!(head.body().is_empty());
            let length = body.len().to_string();
            assert_eq!(header(&head, "content-length"), length);
            assert_eq!(header(&head, "etag"), header(&response, "etag"));
        }
    }
}

async fn conditional_requests(url: &str) {
    let first = get(url, "/range/AB001", &[]).await;
    let etag = header(&first, "etag").to_owned();
    let weak = format!("\"x\", W/{etag}");
    for (known, coding) in [
        (etag.as_str(), "identity"),
        (&weak, "identity"),
        (&weak, "gzip"),
        (&etag, "br"),
        ("*", "identity"),
    ] {
        let headers = [("if-none-match", known), ("accept-encoding", coding)];
        let again = get(url, "/range/AB001", &headers).await;
        assert_eq!(again.status(), 304, "{known} {coding}");
        assert!(again.body().is_empty());
        assert!(header(&again, "etag").ends_with(&etag));
        assert!(!again.headers().contains_key("content-md5"));
    }
    let other = get(url, "/range/AB002", &[("if-none-match", &etag)]).await;
    assert_eq!(other.status(), 200);
}

async fn codings(url: &str, mirrored: &Mirrored) {
    let plain = get(url, "/range/AB003", &[]).await;
    for (accepted, coding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("gzip, deflate, br", "br"),
        ("br;q=0.1, gzip;q=0.2", "gzip"),
    ] {
        // The second answer is from the cache.
        for _ in 0..2 {
            let headers = [("accept-encoding", accepted)];
            let response = get(url, "/range/AB003", &headers).await;
            assert_eq!(header(&response, "content-encoding"), coding);
            assert!(decoded(&response) == mirrored.body("AB003"));
            assert!(response.body().len() < plain.body().len());
            let weak = format!("W/{}", header(&plain, "etag"));
            assert_eq!(header(&response, "etag"), weak);
            assert_eq!(
                header(&response, "content-md5"),
                header(&plain, "content-md5")
            );
            let head = send(url, Method::HEAD, "/range/AB003", &headers).await;
            let length = response.body().len().to_string();
            assert_eq!(header(&head, "content-length"), length);
        }
    }
    let headers = [("accept-encoding", "gzip;q=0, br;q=0")];
    let identity = get(url, "/range/AB003", &headers).await;
    assert!(!identity.headers().contains_key("content-encoding"));
}

async fn padding(url: &str, mirrored: &Mirrored) {
    let body = String::from_utf8(mirrored.body("AB004")).expect("text");
    let mut lengths = std::collections::BTreeSet::new();
    for coding in ["identity", "gzip", "br"] {
        for _ in 0..4 {
            let headers = [
                ("add-padding", "true"),
                ("accept-encoding", coding),
                ("if-none-match", "*"),
            ];
            let response = get(url, "/range/AB004", &headers).await;
            assert_eq!(response.status(), 200);
            assert_eq!(header(&response, "cache-control"), "no-store");
            for absent in ["etag", "content-md5", "last-modified"] {
                assert!(!response.headers().contains_key(absent), "{absent}");
            }
            let text = String::from_utf8(decoded(&response)).expect("text");
            let added = text.strip_prefix(&body).expect("the range's lines first");
            let added: Vec<_> = added.split("\r\n").skip(1).collect();
            assert!((10..=209).contains(&added.len()), "{}", added.len());
            for line in added {
                assert!(line.len() == 37 && line.ends_with(":0"), "{line}");
            }
            lengths.insert(text.len());
        }
    }
    assert!(lengths.len() > 6, "the padding does not vary: {lengths:?}");
    let plain = get(url, "/range/AB004", &[("add-padding", "false")]).await;
    assert_eq!(plain.body(), &body);
}

/// Symfony splits on CRLF only; Flask-Security and authentik take every piece apart at its colon.
async fn clients_can_split_it(url: &str, mirrored: &Mirrored) {
    let stored = String::from_utf8(mirrored.body("AB005")).expect("text");
    for padding in ["true", "false"] {
        let response = get(url, "/range/AB005", &[("add-padding", padding)]).await;
        let text = String::from_utf8(response.body().to_vec()).expect("text");
        let mut pieces = 0;
        for piece in text.split("\r\n") {
            let parts: Vec<_> = piece.split(':').collect();
            let [suffix, count] = parts[..] else {
                panic!("`{piece}` has no two parts");
            };
            assert_eq!(suffix.len(), 35);
            assert_eq!(suffix, suffix.to_ascii_uppercase());
            assert!(count.parse::<u64>().is_ok(), "{piece}");
            pieces += 1;
        }
        assert!(pieces >= stored.split("\r\n").count());
    }
}

async fn refusals(url: &str) {
    for (method, path, status, text) in [
        (
            Method::GET,
            "/range/XYZ12",
            400,
            "The hash prefix was not in a valid format",
        ),
        (
            Method::GET,
            "/range/AB0000",
            400,
            "The hash prefix was not in a valid format",
        ),
        (
            Method::GET,
            "/range/",
            400,
            "The hash prefix was not in a valid format",
        ),
        (Method::GET, "/range/AB000?mode=ntlm", 400, "SHA-1"),
        (Method::GET, "/range/AB000?a=b", 400, "?mode=sha1"),
        (Method::GET, "/AB000.txt", 404, "ranges are at"),
        (Method::POST, "/elsewhere", 404, "ranges are at"),
        (Method::POST, "/range/AB000", 405, "GET"),
        (Method::DELETE, "/range/AB000", 405, "GET"),
        (
            Method::GET,
            "/range/00000",
            404,
            "this mirror does not hold",
        ),
    ] {
        let refused = send(url, method.clone(), path, &[]).await;
        assert_eq!(refused.status(), status, "{method} {path}");
        assert_eq!(header(&refused, "content-type"), "text/plain");
        let body = String::from_utf8_lossy(refused.body());
        assert!(body.contains(text), "{method} {path}: {body}");
        if path.starts_with("/range/") {
            assert_eq!(header(&refused, "access-control-allow-origin"), "*");
            assert_eq!(header(&refused, "cache-control"), "no-store");
        }
        if status == 405 {
            assert_eq!(header(&refused, "allow"), "GET, HEAD, OPTIONS");
        }
    }
}

async fn preflight(url: &str) {
    let headers = [
        ("origin", "https://example.org"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "add-padding"),
    ];
    let response = send(url, Method::OPTIONS, "/range/AB000", &headers).await;
    assert_eq!(response.status(), 204);
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    assert_eq!(
        header(&response, "access-control-allow-headers"),
        "Add-Padding"
    );
    assert_eq!(header(&response, "access-control-max-age"), "1728000");
    assert!(header(&response, "access-control-allow-methods").contains("GET"));
}

async fn health_and_metrics(url: &str) {
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(url, path, &[]).await.status(), 200, "{path}");
    }
    let before = metrics(url).await;
    for _ in 0..3 {
        let response = get(url, "/range/AB777", &[]).await;
        assert_eq!(response.status(), 200);
    }
    let after = metrics(url).await;
    let grown = |name: &str| value(&after, name) - value(&before, name);
    assert_eq!(grown("prefix_tar_cache_misses_total"), 1);
    assert_eq!(grown("prefix_tar_cache_hits_total"), 2);
    // The request for the metrics before counts, too.
    assert_eq!(grown("prefix_tar_requests_total{status=\"200\"}"), 4);
    assert_eq!(grown("prefix_tar_request_duration_seconds_count"), 4);
    assert!(grown("prefix_tar_sent_bytes_total") > 3000);
    assert_eq!(value(&after, "prefix_tar_upstream_errors_total"), 0);
    assert!((0..3600).contains(&value(&after, "prefix_tar_archive_age_seconds")));
    assert!(!after.contains("AB"), "{after}");
}

async fn metrics(url: &str) -> String {
    let response = get(url, "/metrics", &[]).await;
    assert_eq!(response.status(), 200);
    String::from_utf8(response.body().to_vec()).expect("text")
}

/// The value of a metric.
fn value(metrics: &str, name: &str) -> i64 {
    let found = metrics.lines().find_map(|line| {
        let (of, value) = line.rsplit_once(' ')?;
        (of == name).then(|| value.parse().expect("an integer"))
    });
    found.unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_in_a_folder_is_served_like_the_public_api() {
    let mirrored = Mirrored::new().await;
    let mirror = MirrorProgram::of_folder(mirrored.archive.path(), &[]);
    behaves_like_the_public_api(&mirror, &mirrored).await;
    assert_eq!(mirror.stopped().await, "stopping\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_in_a_bucket_is_served_like_the_public_api() {
    let mirrored = Mirrored::new().await;
    let store = bucket_with(mirrored.ranges.path()).await;
    let mirror = MirrorProgram::start(store.command(&["serve"], "archive"), &[]);
    behaves_like_the_public_api(&mirror, &mirrored).await;
    assert_eq!(mirror.stopped().await, "stopping\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_can_be_served_below_a_path() {
    let mirrored = Mirrored::new().await;
    let mirror = MirrorProgram::of_folder(mirrored.archive.path(), &["--path-prefix", "/pwned/"]);
    assert!(mirror.url().ends_with("/pwned"), "{}", mirror.url());
    let root = format!("http://{}", mirror.authority());
    let response = get(&root, "/pwned/range/ab7ff", &[]).await;
    assert!(response.body() == &mirrored.body("AB7FF"));
    for elsewhere in [
        "/range/AB7FF",
        "/pwnedrange/AB7FF",
        "/pwned",
        "/pwned/AB7FF",
    ] {
        assert_eq!(
            get(&root, elsewhere, &[]).await.status(),
            404,
            "{elsewhere}"
        );
    }
    for probe in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(&root, probe, &[]).await.status(), 200, "{probe}");
    }
}
