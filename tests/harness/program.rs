//! Runs external programs and the shipped orchestrator, and ends them with the test.

use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus, Output};
use std::time::Duration;

/// Prints a measurement if the tests run with `--nocapture`. Not every test runner captures it otherwise.
#[expect(clippy::print_stdout, reason = "`--nocapture` asks for it")]
pub(crate) fn measured(line: &str) {
    if std::env::args().any(|argument| argument == "--nocapture") {
        println!("{line}");
    }
}

/// The variables with proxies. Only those that a test sets may be there.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// A command that runs the orchestrator.
pub(crate) fn orchestrator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    for name in PROXY_VARIABLES {
        command
            .env_remove(name)
            .env_remove(name.to_ascii_lowercase());
    }
    command
}

/// Runs a program and expects exit code 0.
pub(crate) fn succeeds(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} failed: {}",
        texts(&output)
    );
}

/// Runs a program to completion without blocking the test's own servers.
pub(crate) async fn output(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output().expect("the program to run"));
    run.await.expect("the output of a program")
}

/// A program's exit status, stdout and stderr, for messages.
pub(crate) fn texts(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A background program that starts processes of its own. It leads their process group. The whole
/// group ends when this is dropped, even if the test fails.
#[derive(Debug)]
pub(crate) struct BackgroundGroup(Child);

impl BackgroundGroup {
    /// Starts the program as the leader of a new process group.
    pub(crate) fn start(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        Self(
            command
                .process_group(0)
                .spawn()
                .expect("the program to start"),
        )
    }

    /// The program itself.
    pub(crate) const fn leader(&mut self) -> &mut Child {
        &mut self.0
    }

    /// The id of the process group.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for BackgroundGroup {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        // On SIGTERM the leader ends its children; SIGKILL would orphan them. The signal fails if
        // the group has already ended.
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
        let _ = self.0.wait();
    }
}

/// A background program. It is killed when this is dropped, even if the test fails.
#[derive(Debug)]
pub(crate) struct Background(pub(crate) Child);

impl Drop for Background {
    fn drop(&mut self) {
        // The program may have already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Background {
    /// Waits until the program has ended, for at most `limit`; then it is killed, and the test fails.
    pub(crate) async fn ended_within(mut self, limit: Duration) -> ExitStatus {
        let id = self.0.id();
        let waited = tokio::task::spawn_blocking(move || self.0.wait());
        let Ok(waited) = tokio::time::timeout(limit, waited).await else {
            succeeds("kill", &["-KILL".as_ref(), id.to_string().as_ref()]);
            panic!("the program is still running after {limit:?}");
        };
        waited.expect("not cancelled").expect("an exit status")
    }

    /// Sends the signal `name`, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        succeeds(
            "kill",
            &[
                format!("-{name}").as_ref(),
                self.0.id().to_string().as_ref(),
            ],
        );
    }
}
