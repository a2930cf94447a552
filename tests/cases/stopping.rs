//! Commands end: a reader that stops reading does not hold up a run, and one signal is enough to stop
//! one that hangs.

use crate::harness::faults::SourceFault;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{Background, orchestrator};
use crate::harness::{files_of, generated, tars_of};
use std::io::{BufRead as _, BufReader, PipeReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

/// Longer than any of these runs takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// How long a stopped program may take: its grace of a second, and every bound after that.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// So many prefixes have more events than the channel between a run and its reporter.
const PREFIXES: &str = "00-17";

/// A pipe that is full, and its end that nobody reads.
async fn full_pipe() -> (Stdio, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let writer = tokio::net::unix::pipe::Sender::from_owned_fd(writer.into()).expect("a pipe");
    writer.writable().await.expect("a pipe");
    while writer.try_write(b".").is_ok() {}
    let writer = writer.into_blocking_fd().expect("a pipe");
    (writer.into(), reader)
}

async fn wait_for(mut reached: mpsc::Receiver<()>) {
    let reached = tokio::time::timeout(LIMIT, reached.recv()).await;
    reached.expect("in time").expect("the source was reached");
}

/// A run that mirrors these prefixes of a source.
fn run(source: &FaultySource, prefixes: &str, to: &Path) -> Command {
    let mut run = orchestrator();
    run.args(["run", "--source", &source.url().to_string()])
        .args(["--prefixes", prefixes, "--to"])
        .arg(to);
    run
}

fn start(command: &mut Command) -> Background {
    Background(command.spawn().expect("it starts"))
}

async fn tiny_source() -> FaultySource {
    FaultySource::start(|range| body_of(range, 1), |_, _| None).await
}

/// A source that answers a few ranges and then nothing, and what says when it is at that point.
async fn stalling_source() -> (FaultySource, mpsc::Receiver<()>) {
    let (reached, at) = mpsc::channel(1);
    let source = FaultySource::start(
        |range| body_of(range, 40),
        move |range, _| {
            if range.index() < 300 {
                return None;
            }
            // Once is enough.
            let _ = reached.try_send(());
            Some(SourceFault::Stall)
        },
    );
    (source.await, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_json_nobody_reads_stores_every_prefix_and_says_so() {
    let (source, folder) = (tiny_source().await, tempfile::tempdir().expect("a folder"));
    let (stdout, unread) = full_pipe().await;
    let mut run = start(
        run(&source, PREFIXES, folder.path())
            .arg("--json")
            .stdout(stdout)
            .stderr(Stdio::piped()),
    );
    let mut stderr = run.0.stderr.take().expect("piped");
    let status = run.ended_within(LIMIT).await;
    let mut told = String::new();
    stderr.read_to_string(&mut told).expect("text");
    assert_eq!(status.code(), Some(0), "{told}");
    assert_eq!(tars_of(folder.path()).len(), 24);
    assert!(folder.path().join("manifest.json").exists());
    assert!(told.contains("warning: nobody reads stdout"), "{told}");
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_lines_and_result_nobody_reads_stores_every_prefix() {
    let (source, folder) = (tiny_source().await, tempfile::tempdir().expect("a folder"));
    let ((stdout, out), (stderr, err)) = (full_pipe().await, full_pipe().await);
    let run = start(
        run(&source, PREFIXES, folder.path())
            .stdout(stdout)
            .stderr(stderr),
    );
    let status = run.ended_within(LIMIT).await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(tars_of(folder.path()).len(), 24);
    drop((out, err));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_log_nobody_reads_stores_its_prefix() {
    let (source, folder) = (tiny_source().await, tempfile::tempdir().expect("a folder"));
    let (stderr, unread) = full_pipe().await;
    let run = start(
        run(&source, "00", folder.path())
            .env("PREFIX_TAR_LOG", "trace")
            .stdout(Stdio::null())
            .stderr(stderr),
    );
    let status = run.ended_within(LIMIT).await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(tars_of(folder.path()).len(), 1);
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_gets_every_event_and_the_end() {
    let (source, folder) = (tiny_source().await, tempfile::tempdir().expect("a folder"));
    let (stdout, unread) = full_pipe().await;
    let run = start(
        run(&source, "00-03", folder.path())
            .arg("--json")
            .stdout(stdout)
            .stderr(Stdio::null()),
    );
    // It reads when everything is stored: until then, the events wait in the queue.
    let manifest = folder.path().join("manifest.json");
    let began = Instant::now();
    while !manifest.exists() {
        assert!(began.elapsed() < LIMIT, "nothing is stored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        let read = { unread }.read_to_string(&mut text);
        read.map(|_| text).expect("text")
    });
    let status = run.ended_within(LIMIT).await;
    assert_eq!(status.code(), Some(0));
    let text = read.await.expect("read");
    let events: Vec<serde_json::Value> = text
        .trim_start_matches('.')
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!(
        (count("began"), count("stored"), count("dropped")),
        (4, 4, 0)
    );
    assert_eq!(events.last().expect("an end")["event"], "end");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signal_ends_a_run_that_hangs_within_its_grace() {
    let (source, reached) = stalling_source().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = start(
        run(&source, "00-07", folder.path())
            .args(["--grace", "1"])
            .stderr(Stdio::piped()),
    );
    let stderr = run.0.stderr.take().expect("piped");
    wait_for(reached).await;
    run.signal("TERM");
    let signalled = Instant::now();
    let status = run.ended_within(STOP_LIMIT).await;
    assert_eq!(status.code(), Some(130));
    assert!(signalled.elapsed() >= Duration::from_secs(1), "no grace");
    let told: Vec<String> = BufReader::new(stderr)
        .lines()
        .map(|line| line.expect("text"))
        .collect();
    let told = told.join("\n");
    for expected in [
        "waiting up to 1 s for invocations in progress",
        "aborting the invocations in progress",
        "not attempted: 8 prefixes, because the run was stopped",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    let names: Vec<String> = files_of(folder.path()).into_keys().collect();
    assert_eq!(names, ["run.json"], "nothing else is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signal_ends_a_run_that_hangs_although_nobody_reads() {
    let (source, reached) = stalling_source().await;
    let folder = tempfile::tempdir().expect("a folder");
    let ((stdout, out), (stderr, err)) = (full_pipe().await, full_pipe().await);
    let run = start(
        run(&source, "00-07", folder.path())
            .args(["--json", "--grace", "1"])
            .env("PREFIX_TAR_LOG", "debug")
            .stdout(stdout)
            .stderr(stderr),
    );
    wait_for(reached).await;
    run.signal("TERM");
    let status = run.ended_within(STOP_LIMIT).await;
    assert_eq!(status.code(), Some(130));
    let names: Vec<String> = files_of(folder.path()).into_keys().collect();
    assert_eq!(names, ["run.json"], "nothing else is left");
    drop((out, err));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signal_ends_a_server_although_a_client_stalls() {
    let ranges = generated("00", 5);
    let mut server = start(
        orchestrator()
            .args(["serve", "--listen", "127.0.0.1:0", "-d"])
            .arg(ranges.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    let address = line.trim().rsplit("http://").next().expect("an address");
    let mut client = tokio::net::TcpStream::connect(address)
        .await
        .expect("a connection");
    client
        .write_all(b"GET /range/00000 HTTP/1.1\r\n")
        .await
        .expect("half a request");
    server.signal("TERM");
    let signalled = Instant::now();
    let status = server.ended_within(STOP_LIMIT).await;
    assert_eq!(status.code(), Some(0));
    // The server itself would wait ten seconds.
    assert!(signalled.elapsed() < Duration::from_secs(9));
    drop(client);
}
