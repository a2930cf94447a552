//! Signed URLs, tokens and keys are seen by nobody who does not need them, however loud the log.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::orchestrator;
use crate::harness::store_program::{BUCKET, StoreProgram};
use crate::harness::{fetch, files_of, prefix, stage_of};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use orchestrator::sign::{ServiceAccountKey, UrlSigner};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

/// What stands before a secret, in whatever case.
const BEFORE_SECRETS: [&str; 3] = ["x-goog-signature=", "bearer ", "private key-----"];

/// Expects that nothing stands where a secret would.
fn assert_shows_no_secret(what: &str, text: &str) {
    let lower = text.to_ascii_lowercase();
    for before in BEFORE_SECRETS {
        for (at, _) in lower.match_indices(before) {
            let shown = &lower[at + before.len()..];
            assert!(
                shown.starts_with("<redacted>"),
                "{what} shows what follows {before}"
            );
        }
    }
}

/// What a process shows to `ps`: its command line and its environment.
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
        while run.try_wait().expect("looked at").is_none() {
            shown = shown_to_ps(pid) + &shown.chars().take(100_000).collect::<String>();
            std::thread::yield_now();
        }
        (run.wait_with_output().expect("ended"), shown)
    });
    let (output, shown) = watched.join().expect("watched");
    assert!(output.status.success());
    assert!(shown.contains("--source"), "the process was looked at");
    assert_shows_no_secret("ps", &shown);
    let log = String::from_utf8_lossy(&logged.join().expect("a log")).into_owned();
    assert!(log.lines().count() > 10_000, "it was at trace level");
    assert_shows_no_secret("the log", &log);
    assert_shows_no_secret("stdout", &String::from_utf8_lossy(&output.stdout));
    for (name, text) in files_of(archive.path()) {
        if name.ends_with(".json") {
            assert_shows_no_secret(&name, &String::from_utf8_lossy(&text));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_at_trace_level_shows_neither_the_signatures_it_is_sent_nor_its_key() {
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
        let text = url.expose_to_the_wire().to_owned();
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
        "it was at trace level"
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
async fn what_carries_a_secret_does_not_show_it_when_it_is_debugged() {
    let source = FaultySource::start(|range| body_of(range, 5), |_, _| None).await;
    let stage = stage_of(source.url()).await;
    let job = stage.job(prefix("AB")).await;
    let wire = String::from_utf8(job.expose_to_the_wire()).expect("text");
    let (_, signature) = wire.split_once("X-Goog-Signature=").expect("a signature");
    let bearer = stage.host.token().expose_bearer_to_the_wire();
    let key = ServiceAccountKey::generate().expect("a key");
    let shown = format!(
        "{job:?} {:?} {key:?} {:?}",
        stage.host.token(),
        stage.destination
    );
    assert!(!shown.contains(&signature[..32]), "{shown}");
    assert!(!shown.contains(&bearer["Bearer ".len()..]), "{shown}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

#[test]
fn a_key_that_is_not_usable_is_not_repeated() {
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
            .and_then(|key| orchestrator::local_store::trusting(&key).map(drop))
            .expect_err("not usable");
        let told = format!("{error:#} {error:?}");
        assert!(!told.contains(&secret[..20]), "{told}");
    }
}
