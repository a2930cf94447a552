//! Which ranges were asked for is in no log, at any level, and in no metric.

use super::{Mirrored, bucket_with, get, metrics, send};
use crate::harness::mirror_program::MirrorProgram;
use crate::harness::program::orchestrator;
use http::Method;
use std::process::Command;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// What clients ask for, and what no text may contain afterwards.
const ASKED: [&str; 4] = [
    "/range/ABCDE",
    "/range/abc7d",
    "/range/AB9F1?mode=sha1",
    "/range/0BAD0",
];

const NAMES: [&str; 4] = ["abcde", "abc7d", "ab9f1", "0bad0"];

async fn ask(server: &MirrorProgram, range: &str) {
    let url = server.url();
    for path in ASKED {
        for headers in [
            &[][..],
            &[("accept-encoding", "br")],
            &[("accept-encoding", "gzip"), ("if-none-match", "*")],
            &[("add-padding", "true")],
        ] {
            get(url, path, headers).await;
        }
        send(url, Method::HEAD, path, &[]).await;
        send(url, Method::OPTIONS, path, &[]).await;
        send(url, Method::POST, path, &[]).await;
    }
    get(url, &format!("{range}?mode=ntlm"), &[]).await;
    get(url, &format!("{range}/x"), &[]).await;
    get(url, "/elsewhere/ABCDE", &[]).await;
    // A request that is not valid: libraries like to quote it.
    for request in [
        "GET /range/ABCDE HTTP/9\r\n\r\n",
        "PRI /range/ABCDE HTTP/2.0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.authority())
            .await
            .expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    }
    let mut builder =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let client = builder.http2_only(true).build_http();
    let request = http::Request::get(format!("{url}/range/ABCDE"));
    let request = request.body(http_body_util::Full::<bytes::Bytes>::default());
    let response = client.request(request.expect("a request")).await;
    assert_eq!(
        response.expect("a response").version(),
        http::Version::HTTP_2
    );
}

/// Asks for ranges, and expects no trace of them.
async fn keeps_secret(command: Command, mirrored: &Mirrored) {
    let mut command = command;
    command.env("PREFIX_TAR_LOG", "trace");
    let server = MirrorProgram::start(command, &[]);
    ask(&server, "/range/ABCDE").await;
    let counted = metrics(server.url()).await;
    server.has_logged("a connection ended early").await;
    let log = server.stopped().await;
    assert!(
        log.contains("DEBUG"),
        "the log is not at trace level: {log}"
    );
    let body = String::from_utf8(mirrored.body("ABCDE")).expect("text");
    for text in [&log, &counted] {
        let lower = text.to_ascii_lowercase();
        for name in NAMES
            .into_iter()
            .chain(["/range", "ab.tar", "ab.json", "bytes="])
        {
            assert!(!lower.contains(name), "`{name}` is in {text}");
        }
        for line in body.split("\r\n") {
            let (suffix, _) = line.split_once(':').expect("a line");
            assert!(!text.contains(suffix), "a suffix is in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_at_trace_level_does_not_log_what_it_is_asked_for() {
    let mirrored = Mirrored::new().await;
    let mut of_folder = orchestrator();
    of_folder.arg("serve").arg(mirrored.archive.path());
    keeps_secret(of_folder, &mirrored).await;
    let store = bucket_with(mirrored.ranges.path()).await;
    keeps_secret(store.command(&["serve"], "archive"), &mirrored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_be_read_is_reported_without_a_range() {
    let mirrored = Mirrored::new().await;
    let archive = mirrored.archive.path();
    let mut command = orchestrator();
    command
        .arg("serve")
        .arg(archive)
        .env("PREFIX_TAR_LOG", "trace");
    let server = MirrorProgram::start(command, &[]);
    // Shorter than any range: nothing of it can be read.
    std::fs::write(archive.join("AB.tar"), "cut off").expect("written");
    let response = get(server.url(), "/range/ABCDE", &[]).await;
    assert_eq!(response.status(), 500);
    let text = String::from_utf8_lossy(response.body()).into_owned();
    assert!(!text.contains("AB"), "{text}");
    let errors = metrics(server.url()).await;
    assert_eq!(super::value(&errors, "prefix_tar_upstream_errors_total"), 1);
    let log = server.stopped().await;
    assert!(log.contains("ERROR"), "{log}");
    assert!(!log.to_ascii_lowercase().contains("abcde"), "{log}");
}
