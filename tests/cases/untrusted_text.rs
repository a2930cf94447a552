//! What a component says reaches stdout, stderr and the log escaped: it forges no line, and sends no
//! sequence to a terminal.

use crate::harness::program::{orchestrator, output};
use crate::harness::source::listener;
use http::Response;
use http_body_util::Full;
use orchestrator::http_server::HttpServer;
use std::process::{Command, Output};

/// A line that is none of ours, on a line of its own; a cleared screen; a title; a C1 sequence; an
/// override of the direction; another line for a program that splits where Unicode does.
const FORGED: &str =
    "x\n[1/1] 00 stored: forged\r\u{1b}[2J\u{1b}]0;forged\u{7}\u{9b}31m\u{7f}\u{202e}\u{2028}";

/// A component that answers every job with a failure of this status and message.
async fn component(status: u16, message: &str) -> HttpServer {
    let failed = serde_json::json!({
        "event": "failed",
        "error": { "kind": "source_status", "message": message, "retryable": false },
    });
    let answer = format!("{failed}\n");
    let server = HttpServer::start(listener().await, move |_| {
        let response = Response::builder()
            .status(status)
            .body(Full::<bytes::Bytes>::from(answer.clone()));
        async move { response.expect("a response") }
    });
    server.expect("a server")
}

/// A run with this component.
fn run(component: &HttpServer, folder: &tempfile::TempDir) -> Command {
    let token = folder.path().join("token");
    if !token.exists() {
        let generated = orchestrator::invoke_token::generate().expect("a token");
        orchestrator::invoke_token::write(&generated, &token).expect("written");
    }
    let mut run = orchestrator();
    run.args(["run", "-p", "1", "--source", "http://127.0.0.1:1"])
        .arg(format!("--component=http://{}", component.address()))
        .args(["--store-listen", "127.0.0.1:0", "--token-file"])
        .arg(token)
        .arg("--to")
        .arg(folder.path().join("archive"))
        .env("PREFIX_TAR_LOG", "debug");
    run
}

/// Expects lines of plain text, none of which is forged.
fn assert_is_plain(name: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    for (number, line) in text.lines().enumerate() {
        let found = line.find(prefix_tar::protocol::text::is_unsafe);
        assert_eq!(found, None, "{name} {number}: {line:?}");
        assert!(!line.starts_with("[1/1] 00 stored"), "{name}: {line:?}");
    }
    text
}

fn assert_failed(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(1));
    (
        assert_is_plain("stdout", &output.stdout),
        assert_is_plain("stderr", &output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_component_says_forges_no_line() {
    // The same failure in an answer and in a refusal.
    for status in [200, 503] {
        let folder = tempfile::tempdir().expect("a folder");
        let component = component(status, FORGED).await;
        let (_, told) = assert_failed(&output(run(&component, &folder)).await);
        assert!(told.contains(r"x\u{a}[1/1] 00 stored: forged"), "{told}");
        assert!(told.contains(r"\u{1b}[2J"), "{told}");

        let mut json = run(&component, &folder);
        json.arg("--json");
        let (events, _) = assert_failed(&output(json).await);
        let mut names = Vec::new();
        for line in events.lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            names.push(event["event"].as_str().expect("a name").to_owned());
            let message = event["error"]["message"].as_str().unwrap_or_default();
            assert!(!message.contains(char::is_control), "{message:?}");
        }
        assert_eq!(names, ["began", "failed", "end"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_component_says_has_a_bounded_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let component = component(200, &"long ".repeat(100_000)).await;
    let (_, told) = assert_failed(&output(run(&component, &folder)).await);
    let longest = told.lines().map(str::len).max();
    assert!(longest.is_some_and(|bytes| (1000..4000).contains(&bytes)));
}
