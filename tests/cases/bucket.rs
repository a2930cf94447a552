//! Runs into a bucket use signed URLs only. The local store verifies each of them with code that it
//! does not share with the signer.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{orchestrator, output, texts};
use crate::harness::source::listener;
use crate::harness::store_program::StoreProgram;
use crate::harness::{expected_tar, verified};
use emulator::key::ServiceAccountKey;
use emulator::signature::Verifier;
use emulator::{Buckets, Emulator};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use orchestrator::http_server::HttpServer;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

const LINES: u64 = 5;

/// A path that needs every kind of escaping.
const PATH: &str = "a b/c+d%25/\u{e4}";

/// A command `run --to gs://...`.
fn run(store: &StoreProgram, source: &FaultySource) -> Command {
    store.command(
        &["run", "--source", &source.url().to_string(), "--to"],
        PATH,
    )
}

fn assert_is_right(archive: &Path, prefixes: &[&str]) {
    for name in prefixes {
        let tar = std::fs::read(archive.join(format!("{name}.tar"))).expect("a tar");
        assert!(
            tar == expected_tar(name, |range| body_of(range, LINES)),
            "{name} is another"
        );
    }
    let verdict = verified(archive);
    assert_eq!(verdict.damages, []);
    assert_eq!(verdict.prefixes, prefixes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_into_a_bucket_is_complete_resumed_and_done_anew() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = StoreProgram::start();
    let mut first = run(&store, &source);
    first.args(["-p", "3"]);
    let first = output(first).await;
    assert_eq!(first.status.code(), Some(0), "{}", texts(&first));
    assert_is_right(&store.archive(PATH), &["00", "01", "02"]);

    std::fs::remove_file(store.archive(PATH).join("01.json")).expect("removed");
    let mut second = run(&store, &source);
    second.args(["-p", "4", "--cache-control", "public, max-age=3600"]);
    let second = output(second).await;
    let printed = texts(&second);
    assert_eq!(second.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("skipped 2 prefixes stored by an earlier run"),
        "{printed}"
    );
    assert!(printed.contains("stored 2 prefixes"), "{printed}");
    assert_is_right(&store.archive(PATH), &["00", "01", "02", "03"]);

    let mut third = run(&store, &source);
    third.args(["-p", "4", "--force", "--storage-class", "NEARLINE"]);
    let third = output(third).await;
    let printed = texts(&third);
    assert_eq!(third.status.code(), Some(0), "{printed}");
    assert!(printed.contains("stored 4 prefixes"), "{printed}");
    assert_is_right(&store.archive(PATH), &["00", "01", "02", "03"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_reads_a_bucket_and_names_its_damages() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = StoreProgram::start();
    let mut first = run(&store, &source);
    first.args(["-p", "2"]);
    let first = output(first).await;
    assert_eq!(first.status.code(), Some(0), "{}", texts(&first));
    let whole = output(store.command(&["verify"], PATH)).await;
    let printed = texts(&whole);
    assert_eq!(whole.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("is whole: 2 prefixes, 8,192 ranges"),
        "{printed}"
    );

    let path = store.archive(PATH).join("01.tar");
    let mut tar = std::fs::read(&path).expect("a tar");
    tar[600] ^= 1;
    std::fs::write(&path, tar).expect("written");
    std::fs::remove_file(store.archive(PATH).join("00.json")).expect("removed");
    let damaged = output(store.command(&["verify"], PATH)).await;
    let printed = texts(&damaged);
    assert_eq!(damaged.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("damaged: 00.json: is missing"),
        "{printed}"
    );
    assert!(printed.contains("damaged: 01.tar: "), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_denies_or_credentials_that_are_none_are_said_in_one_message() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = StoreProgram::start();
    let strange = store.beside("strange.json");
    ServiceAccountKey::generate()
        .and_then(|key| key.write(&strange))
        .expect("another key");
    let denied = async |more: &[&str]| {
        let mut denied = run(&store, &source);
        denied
            .args(["-p", "4", "--parallel", "1"])
            .args(more)
            .env("GOOGLE_APPLICATION_CREDENTIALS", &strange);
        let denied = output(denied).await;
        let printed = texts(&denied);
        assert_eq!(denied.status.code(), Some(1), "{printed}");
        assert!(
            printed.contains("was answered 403 SignatureDoesNotMatch"),
            "{printed}"
        );
        assert!(
            !printed.to_ascii_lowercase().contains("x-goog-signature"),
            "{printed}"
        );
        printed
    };
    denied(&[]).await;
    assert_eq!(source.faults().range_requests(), 0, "nothing was fetched");
    denied(&["--force"]).await;
    assert_eq!(source.faults().range_requests(), 0, "nothing was fetched");

    let mut none = run(&store, &source);
    none.env(
        "GOOGLE_APPLICATION_CREDENTIALS",
        store.beside("absent.json"),
    );
    let none = output(none).await;
    let printed = texts(&none);
    assert_eq!(none.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("cannot read the Google credentials") && printed.contains("absent.json"),
        "{printed}"
    );
    assert!(!store.archive(PATH).exists(), "nothing was stored");
}

/// A method, the last part of an object's name, and the headers that were sent.
type Signed = (Method, String, Vec<(String, String)>);

/// Starts the local store in this process, and records the requests that it gets. If it `falters`,
/// it answers 503 to the first GET of every object.
async fn recording_store(
    folder: &Path,
    key: &ServiceAccountKey,
    falters: bool,
) -> (HttpServer, Arc<Mutex<Vec<Signed>>>) {
    std::fs::create_dir_all(folder.join("pwned")).expect("a bucket");
    let buckets = Buckets::In(folder.to_owned());
    let store = Emulator::new(buckets, Verifier::trusting(key).expect("a verifier"));
    let seen = Arc::<Mutex<Vec<Signed>>>::default();
    let noted = Arc::clone(&seen);
    let server = HttpServer::start(listener().await, move |request: Request<Incoming>| {
        let (store, noted) = (Arc::clone(&store), Arc::clone(&noted));
        async move {
            let (parts, body) = request.into_parts();
            let headers = parts.headers.iter().map(|(name, value)| {
                let value = value.to_str().expect("text");
                (name.to_string(), value.to_owned())
            });
            let name = parts.uri.path().rsplit('/').next().expect("a name");
            let signed = (parts.method.clone(), name.to_owned(), headers.collect());
            let is_first = {
                let mut noted = noted.lock().expect("not poisoned");
                noted.push(signed);
                let asked = noted
                    .iter()
                    .filter(|(method, asked, _)| (method, asked.as_str()) == (&parts.method, name));
                asked.count() == 1
            };
            if falters && is_first && parts.method == Method::GET {
                let empty = Full::default().map_err(std::io::Error::other);
                let answer = Response::builder().status(503).body(empty.boxed_unsync());
                return answer.expect("an answer");
            }
            store.answer(&parts, &mut Some(body)).await
        }
    });
    (server.expect("a server"), seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_objects_are_stored_with_is_signed_and_sent_with_every_one_of_them() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let folder = tempfile::tempdir().expect("a folder");
    let key = ServiceAccountKey::generate().expect("a key");
    let key_file = folder.path().join("key.json");
    key.write(&key_file).expect("written");
    let (server, seen) = recording_store(&folder.path().join("buckets"), &key, false).await;
    let wanted = [
        ("x-goog-storage-class", "NEARLINE"),
        (
            "x-goog-encryption-kms-key-name",
            "projects/p/locations/eu/keyRings/r/cryptoKeys/k",
        ),
        ("cache-control", "public, max-age=3600"),
    ];
    let mut run = orchestrator();
    run.args(["run", "-p", "1", "--to", "gs://pwned", "--endpoint"])
        .arg(format!("http://{}", server.address()))
        .args(["--source", &source.url().to_string()])
        .args(["--storage-class", wanted[0].1, "--kms-key", wanted[1].1])
        .args(["--cache-control", wanted[2].1])
        .env("GOOGLE_APPLICATION_CREDENTIALS", &key_file);
    let run = output(run).await;
    assert_eq!(run.status.code(), Some(0), "{}", texts(&run));
    let seen = seen.lock().expect("not poisoned");
    let put: Vec<&Signed> = seen
        .iter()
        .filter(|(method, ..)| method == Method::PUT)
        .collect();
    let names: Vec<&str> = put.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "run.json",
            "00.tar",
            "00.json",
            "measurements.json",
            "manifest.json"
        ]
    );
    for (method, name, headers) in seen.iter() {
        for (wanted, value) in wanted {
            let sent = headers.iter().find(|(sent, _)| sent == wanted);
            let sent = sent.map(|(_, value)| value.as_str());
            let expected = (method == Method::PUT).then_some(value);
            assert_eq!(sent, expected, "{wanted} of {method} of {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_falters_is_asked_again_before_anything_is_called_damaged() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let folder = tempfile::tempdir().expect("a folder");
    let key = ServiceAccountKey::generate().expect("a key");
    let key_file = folder.path().join("key.json");
    key.write(&key_file).expect("written");
    let (server, _) = recording_store(&folder.path().join("buckets"), &key, true).await;
    let address = server.address().to_string();
    let command = |arguments: &[&str]| {
        let mut command = orchestrator();
        command
            .args(arguments)
            .env("STORAGE_EMULATOR_HOST", &address)
            .env("GOOGLE_APPLICATION_CREDENTIALS", &key_file);
        command
    };
    let source = source.url().to_string();
    for arguments in [
        &[
            "run",
            "-p",
            "1",
            "--to",
            "gs://pwned/a",
            "--source",
            &source,
        ][..],
        &["verify", "gs://pwned/a"],
    ] {
        let ended = output(command(arguments)).await;
        assert_eq!(ended.status.code(), Some(0), "{}", texts(&ended));
    }
}
