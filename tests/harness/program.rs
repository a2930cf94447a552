//! Programs of others, and our own as it ships: run, looked at, ended.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Child, Command, Output};

/// Says that a test was skipped and why: past the test runner, which shows nothing of a test that passes.
pub(crate) fn skipped(reason: &str) {
    writeln!(std::io::stderr(), "skipped: {reason}").expect("a standard error");
}

/// A line for who asks for it by `--nocapture`: what was measured.
#[expect(clippy::print_stdout, reason = "the test runner captures it")]
pub(crate) fn measured(line: &str) {
    println!("{line}");
}

/// Our own program.
pub(crate) fn orchestrator() -> Command {
    Command::new(env!("CARGO_BIN_EXE_orchestrator"))
}

/// Runs a program and expects it to exit with 0.
pub(crate) fn succeeds(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    assert!(output.status.success(), "{program}: {}", texts(&output));
}

/// Runs a program to its end, while the test's own servers go on.
pub(crate) async fn output(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    run.await.expect("ran")
}

/// Both outputs of a program, for messages.
pub(crate) fn texts(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A program in the background that has programs of its own, and leads their process group. They end with the test,
/// also when the test fails.
#[derive(Debug)]
pub(crate) struct BackgroundGroup(Child);

impl BackgroundGroup {
    /// Starts the program as the leader of a group.
    pub(crate) fn start(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        Self(command.process_group(0).spawn().expect("it starts"))
    }

    pub(crate) const fn leader(&mut self) -> &mut Child {
        &mut self.0
    }

    /// The group's id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for BackgroundGroup {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        // It may have ended by itself. Told to, the leader ends the others; killed, it would leave them.
        let _ = Command::new("kill").args(["-TERM", "--", &group]).status();
        let _ = self.0.wait();
    }
}

/// A program in the background. It ends with the test, also when the test fails.
#[derive(Debug)]
pub(crate) struct Background(pub(crate) Child);

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Background {
    /// Sends the signal of this name.
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
