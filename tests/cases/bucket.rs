//! `gs://`: the same run into a bucket, by signed URLs alone, against the local store, which verifies what it is sent
//! independently of who signs.

use crate::harness::expected_tar;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{Background, orchestrator, texts};
use orchestrator::verify::verify;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tokio_util::sync::CancellationToken;

const LINES: u64 = 5;

/// A path that needs every kind of escaping.
const PATH: &str = "a b/c+d%25/\u{e4}";

/// `orchestrator store` with one bucket.
struct Store {
    _process: Background,
    address: String,
    folder: tempfile::TempDir,
}

impl Store {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("buckets/pwned")).expect("a bucket");
        let mut child = orchestrator()
            .args(["store", "--listen", "127.0.0.1:0", "-d"])
            .arg(folder.path().join("buckets"))
            .arg("--key-file")
            .arg(folder.path().join("key.json"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut told = String::new();
        BufReader::new(child.stdout.take().expect("an output"))
            .read_line(&mut told)
            .expect("a line");
        let address = told
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://"))
            .expect("an address")
            .to_owned();
        Self {
            _process: Background(child),
            address,
            folder,
        }
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("buckets/pwned").join(PATH)
    }

    /// `run --to gs://...`.
    fn run(&self, source: &FaultySource) -> Command {
        self.command(&["run", "--source", &source.url().to_string(), "--to"])
    }

    /// A command about the bucket, with the environment that Google's clients know.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = orchestrator();
        command
            .args(arguments)
            .arg(format!("gs://pwned/{PATH}"))
            .env("STORAGE_EMULATOR_HOST", &self.address)
            .env(
                "GOOGLE_APPLICATION_CREDENTIALS",
                self.folder.path().join("key.json"),
            );
        command
    }
}

async fn output(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    run.await.expect("ran")
}

fn assert_is_right(archive: &Path, prefixes: &[&str]) {
    for name in prefixes {
        let tar = std::fs::read(archive.join(format!("{name}.tar"))).expect("a tar");
        assert!(
            tar == expected_tar(name, |range| body_of(range, LINES)),
            "{name} is another"
        );
    }
    let verdict = verify(archive, &CancellationToken::new(), |_| (), || ());
    assert_eq!(verdict.damages, []);
    assert_eq!(verdict.prefixes, prefixes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_into_a_bucket_is_complete_resumed_and_done_anew() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = Store::start();
    let mut first = store.run(&source);
    first.args(["-p", "3"]);
    let first = output(first).await;
    assert_eq!(first.status.code(), Some(0), "{}", texts(&first));
    assert_is_right(&store.archive(), &["00", "01", "02"]);

    std::fs::remove_file(store.archive().join("01.json")).expect("removed");
    let mut second = store.run(&source);
    second.args(["-p", "4", "--cache-control", "public, max-age=3600"]);
    let second = output(second).await;
    let told = texts(&second);
    assert_eq!(second.status.code(), Some(0), "{told}");
    assert!(told.contains("kept 2 prefixes of an earlier run"), "{told}");
    assert!(told.contains("stored 2 prefixes"), "{told}");
    assert_is_right(&store.archive(), &["00", "01", "02", "03"]);

    let mut third = store.run(&source);
    third.args(["-p", "4", "--force", "--storage-class", "NEARLINE"]);
    let third = output(third).await;
    let told = texts(&third);
    assert_eq!(third.status.code(), Some(0), "{told}");
    assert!(told.contains("stored 4 prefixes"), "{told}");
    assert_is_right(&store.archive(), &["00", "01", "02", "03"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_reads_a_bucket_and_names_its_damages() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = Store::start();
    let mut run = store.run(&source);
    run.args(["-p", "2"]);
    let run = output(run).await;
    assert_eq!(run.status.code(), Some(0), "{}", texts(&run));
    let whole = output(store.command(&["verify"])).await;
    let told = texts(&whole);
    assert_eq!(whole.status.code(), Some(0), "{told}");
    assert!(
        told.contains("is whole: 2 prefixes, 8,192 ranges"),
        "{told}"
    );

    let path = store.archive().join("01.tar");
    let mut tar = std::fs::read(&path).expect("a tar");
    tar[600] ^= 1;
    std::fs::write(&path, tar).expect("written");
    std::fs::remove_file(store.archive().join("00.json")).expect("removed");
    let damaged = output(store.command(&["verify"])).await;
    let told = texts(&damaged);
    assert_eq!(damaged.status.code(), Some(1), "{told}");
    assert!(told.contains("damaged: 00.json: is missing"), "{told}");
    assert!(told.contains("damaged: 01.tar: "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_denies_or_credentials_that_are_none_are_said_in_one_message() {
    let source = FaultySource::start(|range| body_of(range, LINES), |_, _| None).await;
    let store = Store::start();
    let strange = store.folder.path().join("strange.json");
    orchestrator::sign::ServiceAccountKey::generate()
        .and_then(|key| key.write(&strange))
        .expect("another key");
    let mut denied = store.run(&source);
    denied
        .args(["-p", "4", "--parallel", "1"])
        .env("GOOGLE_APPLICATION_CREDENTIALS", &strange);
    let denied = output(denied).await;
    let told = texts(&denied);
    assert_eq!(denied.status.code(), Some(1), "{told}");
    assert!(
        told.contains("was answered 403 SignatureDoesNotMatch"),
        "{told}"
    );
    assert!(told.contains("not done: 3 prefixes"), "{told}");
    assert!(
        !told.to_ascii_lowercase().contains("x-goog-signature"),
        "{told}"
    );

    let mut none = store.run(&source);
    none.env(
        "GOOGLE_APPLICATION_CREDENTIALS",
        store.folder.path().join("absent.json"),
    );
    let none = output(none).await;
    let told = texts(&none);
    assert_eq!(none.status.code(), Some(1), "{told}");
    assert!(
        told.contains("no Google credentials that can sign"),
        "{told}"
    );
    assert!(!store.archive().exists(), "nothing was stored");
}
