//! `orchestrator store` as a program of its own, with one bucket, and our other commands about that bucket.

use super::program::{Background, orchestrator};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};

/// The bucket that there is.
pub(crate) const BUCKET: &str = "pwned";

/// A store that runs until this is dropped.
pub(crate) struct StoreProgram {
    process: Background,
    address: String,
    folder: tempfile::TempDir,
}

impl StoreProgram {
    /// A store that permits everything.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A store with more options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::spawn(options, |command| command)
    }

    /// A store that logs everything, and its log.
    pub(crate) fn start_at_trace_level() -> (Self, ChildStderr) {
        let mut store = Self::spawn(&[], |command| {
            command
                .env("PREFIX_TAR_LOG", "trace")
                .stderr(Stdio::piped())
        });
        let log = store.process.0.stderr.take().expect("a log");
        (store, log)
    }

    fn spawn(options: &[&str], change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let buckets = folder.path().join("buckets");
        std::fs::create_dir_all(buckets.join(BUCKET)).expect("a bucket");
        let mut command = orchestrator();
        command
            .args(["store", "--listen", "127.0.0.1:0", "-d"])
            .arg(buckets)
            .arg("--key-file")
            .arg(folder.path().join("key.json"))
            .args(options)
            .stdout(Stdio::piped());
        let mut child = change(&mut command).spawn().expect("it starts");
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
            process: Background(child),
            address,
            folder,
        }
    }

    /// Where it listens, as in `127.0.0.1:9000`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The service-account key that it trusts.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.json")
    }

    /// A place beside the bucket, for a file that a test needs.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What lies at this path of the bucket.
    pub(crate) fn archive(&self, path: &str) -> PathBuf {
        self.folder.path().join("buckets").join(BUCKET).join(path)
    }

    /// A command about this path of the bucket, with the environment that Google's clients know.
    pub(crate) fn command(&self, arguments: &[&str], path: &str) -> Command {
        let mut command = orchestrator();
        command
            .args(arguments)
            .arg(format!("gs://{BUCKET}/{path}"))
            .env("STORAGE_EMULATOR_HOST", &self.address)
            .env("GOOGLE_APPLICATION_CREDENTIALS", self.key_file());
        command
    }

    /// Ends it in order.
    pub(crate) fn terminate(&self) {
        self.process.signal("TERM");
    }
}
