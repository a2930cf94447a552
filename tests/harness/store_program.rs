//! Runs `orchestrator store` with one bucket, and prepares other commands that use the bucket.

use super::program::{Background, orchestrator};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};

/// The name of the bucket.
pub(crate) const BUCKET: &str = "pwned";

/// A running store. It is killed when this is dropped.
pub(crate) struct StoreProgram {
    process: Background,
    address: String,
    folder: tempfile::TempDir,
}

impl StoreProgram {
    /// Starts a store that grants every permission.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a store with additional options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::spawn(options, |command| command)
    }

    /// Starts a store that logs at trace level, and returns its log too.
    pub(crate) fn start_at_trace_level() -> (Self, ChildStderr) {
        let mut store = Self::spawn(&[], |command| {
            command
                .env("PREFIX_TAR_LOG", "trace")
                .stderr(Stdio::piped())
        });
        let log = store.process.0.stderr.take().expect("a log");
        (store, log)
    }

    /// Starts a store whose command a test changes first.
    pub(crate) fn start_changed(change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        Self::spawn(&[], change)
    }

    fn spawn(options: &[&str], change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
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
        let mut child = change(&mut command).spawn().expect("the store to start");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a stdout"))
            .read_line(&mut line)
            .expect("a line");
        let address = line
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

    /// Where the store listens, such as `127.0.0.1:9000`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The file of the service-account key that the store trusts.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.json")
    }

    /// The path for a test's own file `name`, outside the bucket.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder that holds the bucket's objects under `path`.
    pub(crate) fn archive(&self, path: &str) -> PathBuf {
        self.folder.path().join("buckets").join(BUCKET).join(path)
    }

    /// The location of `path` in the bucket, as it is typed.
    #[expect(clippy::unused_self, reason = "there is no bucket without a store")]
    pub(crate) fn location(&self, path: &str) -> String {
        format!("gs://{BUCKET}/{path}")
    }

    /// A command whose last argument is `path` in the bucket. Google's environment variables point
    /// it to the store and its key.
    pub(crate) fn command(&self, arguments: &[&str], path: &str) -> Command {
        let mut command = orchestrator();
        command
            .args(arguments)
            .arg(self.location(path))
            .env("STORAGE_EMULATOR_HOST", &self.address)
            .env("GOOGLE_APPLICATION_CREDENTIALS", self.key_file());
        command
    }

    /// Sends SIGTERM, which shuts the store down gracefully.
    pub(crate) fn terminate(&self) {
        self.process.signal("TERM");
    }
}
