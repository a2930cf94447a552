//! Signed URLs, tokens and keys appear in no log, output, error or process list, at any log level.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::orchestrator;
use crate::harness::store_program::{BUCKET, StoreProgram};
use crate::harness::{default_fixture, fetch, files_of, prefix};
use bytes::Bytes;
use emulator::key::ServiceAccountKey;
use emulator::signature::Verifier;
use http::{Method, Request};
use http_body_util::Full;
use orchestrator::sign::UrlSigner;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

/// Texts that precede a secret, in lower case.
const SECRET_MARKERS: [&str; 3] = ["x-goog-signature=", "bearer ", "private key-----"];

/// Expects every secret in the text to be redacted.
fn assert_shows_no_secret(what: &str, text: &str) {
    let lower = text.to_ascii_lowercase();
    for marker in SECRET_MARKERS {
        for (at, _) in lower.match_indices(marker) {
            let secret = &lower[at + marker.len()..];
            assert!(
                secret.starts_with("<redacted>"),
                "{what} shows a secret after `{marker}`"
            );
        }
    }
}

/// The command line and the environment of a process, as `ps` shows them.
fn shown_to_ps(pid: u32) -> String {
    ["cmdline", "environ"]
        .map(|name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default())
        .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_at_trace_level_shows_no_secret() {
    let source = FaultySource::start(|range| body_of(range, 5), |_, _| None).await;
    let archive = tempfile::tempdir().expect("a folder");
    let mut run = orchestrator()
        .args([
            "run",
            "-p",
            "2",
            "--json",
            "--source",
            &source.url().to_string(),
            "--to",
        ])
        .arg(archive.path())
        .env("PREFIX_TAR_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut log = run.stderr.take().expect("a log");
    let logged = std::thread::spawn(move || {
        let mut text = Vec::new();
        log.read_to_end(&mut text).map(|_| text).expect("read")
    });
    let pid = run.id();
    let watched = std::thread::spawn(move || {
        let mut shown = String::new();
        while run.try_wait().expect("polled").is_none() {
            shown = shown_to_ps(pid) + &shown.chars().take(100_000).collect::<String>();
            std::thread::yield_now();
        }
        (run.wait_with_output().expect("ended"), shown)
    });
    let (output, shown) = watched.join().expect("watched");
    assert!(output.status.success());
    assert!(shown.contains("--source"), "the command line was not seen");
    assert_shows_no_secret("ps", &shown);
    let log = String::from_utf8_lossy(&logged.join().expect("a log")).into_owned();
    assert!(
        log.lines().count() > 10_000,
        "the log is not at trace level"
    );
    assert_shows_no_secret("the log", &log);
    assert_shows_no_secret("stdout", &String::from_utf8_lossy(&output.stdout));
    for (name, text) in files_of(archive.path()) {
        if name.ends_with(".json") {
            assert_shows_no_secret(&name, &String::from_utf8_lossy(&text));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_at_trace_level_logs_neither_signatures_nor_its_key() {
    let (store, mut log) = StoreProgram::start_at_trace_level();
    let logged = std::thread::spawn(move || {
        let mut text = Vec::new();
        log.read_to_end(&mut text).expect("read");
        String::from_utf8_lossy(&text).into_owned()
    });
    let key = ServiceAccountKey::read(&store.key_file()).expect("a key");
    let endpoint = format!("http://{}", store.address());
    let signer = UrlSigner::new(&key, endpoint, BUCKET.to_owned()).expect("a signer");
    let mut signatures = Vec::new();
    for (object, tampered) in [("a.tar", false), ("b.tar", true)] {
        let expiry = Duration::from_secs(60);
        let url = signer
            .sign(Method::PUT, object, &BTreeMap::new(), expiry)
            .await
            .expect("signed");
        let text = url.expose_secret().to_owned();
        let (_, signature) = text.split_once("X-Goog-Signature=").expect("a signature");
        signatures.push(signature.to_owned());
        let uri = if tampered {
            text.replace(".tar?", ".tat?")
        } else {
            text
        };
        let put = Request::put(uri).body(Full::new(Bytes::from_static(b"x")));
        let status = fetch(put.expect("a request")).await.status().as_u16();
        assert_eq!(status, if tampered { 403 } else { 200 });
    }
    store.terminate();
    let log = logged.join().expect("a log");
    assert!(
        log.contains("SignatureDoesNotMatch"),
        "the log is not at trace level"
    );
    assert_shows_no_secret("the log", &log);
    for signature in signatures {
        assert!(!log.contains(&signature[..32]), "a signature is in the log");
    }
    let key = std::fs::read_to_string(store.key_file()).expect("a key file");
    let key: serde_json::Value = serde_json::from_str(&key).expect("JSON");
    let pem = key["private_key"].as_str().expect("a private key");
    for line in pem.lines().filter(|line| !line.starts_with('-')) {
        assert!(!log.contains(line), "the key is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_output_contains_no_secret() {
    let source = FaultySource::start(|range| body_of(range, 5), |_, _| None).await;
    let fixture = default_fixture(source.url()).await;
    let job = fixture.job(prefix("AB")).await;
    let wire = String::from_utf8(job.expose_secret()).expect("text");
    let (_, signature) = wire.split_once("X-Goog-Signature=").expect("a signature");
    let bearer = fixture.host.token().expose_bearer();
    let key = ServiceAccountKey::generate().expect("a key");
    let shown = format!(
        "{job:?} {:?} {key:?} {:?}",
        fixture.host.token(),
        fixture.destination
    );
    assert!(!shown.contains(&signature[..32]), "{shown}");
    assert!(!shown.contains(&bearer["Bearer ".len()..]), "{shown}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

#[test]
fn the_error_for_an_unusable_key_does_not_quote_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key.json");
    let secret = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj";
    let pem = format!("-----BEGIN PRIVATE KEY-----\\n{secret}\\n-----END PRIVATE KEY-----\\n");
    for text in [
        format!(r#"{{"type":"service_account","private_key":"{pem}""#),
        format!(r#"{{"type":"service_account","private_key":"{pem}"}}"#),
        format!(
            r#"{{"type":"service_account","project_id":"p","private_key_id":"i","private_key":"{pem}","client_email":"e"}}"#
        ),
    ] {
        std::fs::write(&path, &text).expect("written");
        let error = ServiceAccountKey::read(&path)
            .and_then(|key| Verifier::trusting(&key).map(drop))
            .expect_err("unusable");
        let shown = format!("{error:#} {error:?}");
        assert!(!shown.contains(&secret[..20]), "{shown}");
    }
}
