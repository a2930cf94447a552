//! Runs `orchestrator serve` over an archive.

use super::program::{Background, orchestrator};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;

/// The longest that a test waits for a line of the log.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running server. It is killed when this is dropped.
pub(crate) struct MirrorProgram {
    process: Background,
    url: String,
    log: Log,
    reading: JoinHandle<()>,
}

/// What the program has written to stderr so far.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<String>, Notify)>);

impl MirrorProgram {
    /// Serves the archive in a folder.
    pub(crate) fn of_folder(archive: &Path, options: &[&str]) -> Self {
        let mut command = orchestrator();
        command.arg("serve").arg(archive);
        Self::start(command, options)
    }

    /// Starts a command that serves, at a port that the system chooses.
    pub(crate) fn start(mut command: Command, options: &[&str]) -> Self {
        command
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Background(command.spawn().expect("the server to start"));
        let log = Log::default();
        let (mut stderr, kept) = (process.0.stderr.take().expect("a stderr"), log.clone());
        let reading = std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(read @ 1..) = stderr.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]);
                kept.0.0.lock().expect("not poisoned").push_str(&text);
                kept.0.1.notify_one();
            }
        });
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().expect("a stdout"))
            .read_line(&mut line)
            .expect("a line");
        let url = line.trim().strip_prefix("serving ");
        let url = url.unwrap_or_else(|| panic!("no address: {line}{}", log.text()));
        Self {
            url: url.to_owned(),
            process,
            log,
            reading,
        }
    }

    /// The base URL, such as `http://127.0.0.1:8080`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The host and the port.
    pub(crate) fn authority(&self) -> &str {
        let (_, after) = self.url.split_once("://").expect("a URL");
        after.split('/').next().expect("an authority")
    }

    /// Sends the signal `name`, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits until a text has been logged.
    pub(crate) async fn has_logged(&self, text: &str) {
        let logged = async {
            while !self.log.text().contains(text) {
                self.log.0.1.notified().await;
            }
        };
        if tokio::time::timeout(DEADLINE, logged).await.is_err() {
            panic!("`{text}` is not in the log: {}", self.log.text());
        }
    }

    /// Stops the program, and returns all that it has logged.
    pub(crate) async fn stopped(self) -> String {
        self.process.signal("TERM");
        let status = self.process.ended_within(DEADLINE).await;
        assert!(status.success(), "{status}");
        self.reading.join().expect("the log");
        self.log.text()
    }
}

impl Log {
    fn text(&self) -> String {
        self.0.0.lock().expect("not poisoned").clone()
    }
}
