//! Commands report their results and errors clearly.

use crate::harness::program::{Background, orchestrator, texts};
use crate::harness::source::{Reply, Source, valid_body};
use crate::harness::store_program::StoreProgram;
use crate::harness::{files_of, generated, repository, run_config, run_whole};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the program and expects this exit code, one `error:` line that contains all of `words`, and
/// no file with a final name at the destination.
fn fails(arguments: &[&str], destination: &Path, exit_code: i32, words: &[&str]) {
    let output = orchestrator().args(arguments).output().expect("it runs");
    assert_eq!(output.status.code(), Some(exit_code), "{}", texts(&output));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: Vec<&str> = errors
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(said.len(), 1, "{errors}");
    for word in words {
        assert!(errors.contains(word), "{word:?} is not in: {errors}");
    }
    if destination.is_dir() {
        assert_nothing_stored(destination);
    }
}

/// Expects nothing in the folder but the record of the run.
fn assert_nothing_stored(destination: &Path) {
    let names: Vec<String> = files_of(destination).into_keys().collect();
    assert!(names.is_empty() || names == ["run.json"], "{names:?}");
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn numbers_and_names_that_are_none_are_usage_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let to = path_text(folder.path());
    for (arguments, words) in [
        (["-p", "0"], "1 to 256"),
        (["-p", "257"], "1 to 256"),
        (["--prefixes", "ZZ"], "`ZZ` is not a prefix"),
        (["--prefixes", "1F-00"], "runs backwards"),
        (["--source", "example.com"], "absolute http or https URL"),
        (["--window", "129"], "129 is not in 1..=128"),
        (["--to", "s3://bucket"], "local folder"),
    ] {
        let mut all = vec!["run", "--to", to];
        if arguments[0] == "--to" {
            all.truncate(1);
        }
        all.extend(arguments);
        fails(&all, folder.path(), 2, &[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_used_is_said_in_one_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let to = path_text(folder.path());
    let refused = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    fails(
        &[
            "run",
            "--to",
            to,
            "--source",
            &refused,
            "--prefixes",
            "00-0F",
        ],
        folder.path(),
        1,
        &[
            "the connection was refused in 6 attempts over ",
            "; is it running?",
            &refused,
            "in each of 2 invocations",
        ],
    );
    let source = Source::answering(|_| Reply::Status(404)).await;
    let url = source.url().to_string();
    fails(
        &["run", "--to", to, "--source", &url, "--prefixes", "00-0F"],
        folder.path(),
        1,
        &["answered 404", &url, "ranges 00000 01000", "8 prefixes"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_cannot_be_written_is_said_in_one_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let below = file.join("archive");
    fails(
        &["run", "--to", path_text(&below), "-p", "1"],
        &below,
        1,
        &["cannot create the destination", path_text(&below)],
    );
}

#[test]
fn a_port_that_is_taken_is_said_in_one_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let key = folder.path().join("key.json");
    let (directory, key) = (path_text(folder.path()), path_text(&key));
    for arguments in [
        vec!["serve", "-d", directory, "--listen", &address],
        vec![
            "store",
            "-d",
            directory,
            "--key-file",
            key,
            "--listen",
            &address,
        ],
    ] {
        let output = orchestrator().args(&arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{}", texts(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains(&format!("cannot listen on {address}")),
            "{said}"
        );
    }
}

#[test]
fn a_component_file_that_is_none_is_said_in_one_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let component = folder.path().join("component.wasm");
    let to = folder.path().join("archive");
    let arguments = [
        "run",
        "--to",
        path_text(&to),
        "-p",
        "1",
        "--component-file",
        path_text(&component),
    ];
    fails(&arguments, &to, 1, &["cannot read the component file"]);
    for bytes in [&b"no component"[..], b"\0asm\x01\0\0\0", b""] {
        std::fs::write(&component, bytes).expect("written");
        fails(
            &arguments,
            &to,
            1,
            &["cannot use the component file", path_text(&component)],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_a_pipe_prints_lines_and_a_program_gets_json() {
    let ranges = generated("00-01", 20);
    let source = Source::of_folder(ranges.path()).await;
    let url = source.url().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let to = path_text(folder.path());
    let run = |extra: &[&str]| -> Output {
        orchestrator()
            .args(["run", "--to", to, "--source", &url, "-p", "2"])
            .args(extra)
            .output()
            .expect("it runs")
    };
    let human = run(&[]);
    assert_eq!(human.status.code(), Some(0), "{}", texts(&human));
    let printed = String::from_utf8_lossy(&human.stderr).into_owned();
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(
        printed.lines().all(|line| line.contains(" stored: ")),
        "{printed}"
    );
    let result = String::from_utf8_lossy(&human.stdout).into_owned();
    assert!(
        result.starts_with("stored 2 prefixes, 8,192 ranges, "),
        "{result}"
    );
    assert!(result.contains("the archive is complete: "), "{result}");
    assert!(!texts(&human).contains('\u{1b}'), "no colours in a pipe");

    let again = run(&[]);
    let printed = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(
        printed,
        "[2/2] skipped 2 prefixes stored by an earlier run; --force mirrors them again\n"
    );
    let json = run(&["--json", "--force"]);
    assert_eq!(json.status.code(), Some(0), "{}", texts(&json));
    assert_eq!(String::from_utf8_lossy(&json.stderr), "");
    let lines: Vec<serde_json::Value> = String::from_utf8_lossy(&json.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let stored = lines
        .iter()
        .filter(|line| line["event"] == "stored")
        .count();
    assert_eq!(stored, 2);
    let end = lines.last().expect("an end");
    assert_eq!(
        (&end["event"], &end["complete"]),
        (&"end".into(), &true.into())
    );
}

/// Starts a run whose source stops answering in the middle, and waits until it has stopped.
async fn stuck_run(to: &Path) -> (Background, Source) {
    let (reached, at) = std::sync::mpsc::sync_channel(1);
    let source = Source::answering(move |range| {
        if range.index() < 300 {
            return Reply::Body(valid_body(range, 2_000));
        }
        // Only the first message is received.
        let _ = reached.try_send(());
        Reply::Never
    })
    .await;
    let url = source.url().to_string();
    let child = orchestrator()
        .args(["run", "--to", path_text(to), "--source", &url, "-p", "8"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    tokio::task::spawn_blocking(move || at.recv())
        .await
        .expect("not cancelled")
        .expect("the source was asked");
    (Background(child), source)
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_gently_and_the_second_one_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut run, _source) = stuck_run(folder.path()).await;
    let mut printed = BufReader::new(run.0.stderr.take().expect("piped")).lines();
    run.signal("INT");
    let notice = printed.next().expect("a line").expect("text");
    assert!(notice.contains("press Ctrl-C again"), "{notice}");
    run.signal("INT");
    let status = run.0.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    let rest: Vec<String> = printed.map(|line| line.expect("text")).collect();
    let rest = rest.join("\n");
    assert!(
        rest.contains("not attempted: 8 prefixes, because the run was stopped"),
        "{rest}"
    );
    assert_nothing_stored(folder.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_left_is_cleaned_up_by_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let (run, source) = stuck_run(folder.path()).await;
    run.signal("KILL");
    drop((run, source));
    let tars = || -> Vec<String> { files_of(folder.path()).into_keys().collect() };
    assert!(
        tars().iter().all(|name| !name.ends_with(".tar")),
        "{:?}",
        tars()
    );
    let ranges = generated("00", 5);
    let source = Source::of_folder(ranges.path()).await;
    run_whole(run_config(&source.url(), folder.path(), "00")).await;
    assert_eq!(
        tars(),
        [
            "00.json",
            "00.tar",
            "manifest.json",
            "measurements.json",
            "run.json"
        ]
    );
}

/// The warnings of a program about files that others can read.
fn warnings(command: &mut Command) -> Vec<String> {
    let output = command.output().expect("it runs");
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.contains("chmod 600"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_secret_that_other_users_can_read_is_warned_about_once() {
    let permit = |path: &Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("permissions");
    };
    let store = StoreProgram::start();
    let (key, token) = (store.key_file(), store.beside("token"));
    let token_command = || {
        let mut command = orchestrator();
        command.args(["token", "--token-file", path_text(&token)]);
        command
    };
    // A file that the program has made itself is private.
    assert_eq!(warnings(&mut token_command()), Vec::<String>::new());
    let run = || {
        let mut command = orchestrator();
        command
            .args(["run", "--component", "http://127.0.0.1:1", "-p", "1"])
            .args(["--to", path_text(&key), "--token-file", path_text(&token)]);
        command
    };
    // The port is taken, so it ends once it has read the key.
    let store_again = || {
        let mut command = orchestrator();
        command
            .args(["store", "--listen", store.address(), "-d"])
            .args([path_text(&store.archive("")), "--key-file", path_text(&key)]);
        command
    };
    let verify = || store.command(&["verify"], "nothing");
    for (path, mut command) in [
        (&token, token_command()),
        (&token, run()),
        (&key, store_again()),
        (&key, verify()),
    ] {
        permit(path, 0o600);
        assert_eq!(warnings(&mut command), Vec::<String>::new(), "{command:?}");
        permit(path, 0o640);
        let shown = path_text(path);
        let expected = format!(
            "warning: other users can read or write {shown}, which holds a secret; run `chmod 600 {shown}`"
        );
        assert_eq!(warnings(&mut command), [expected], "{command:?}");
        permit(path, 0o600);
    }
}

#[test]
fn the_readme_has_the_commands_that_there_are() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("a README");
    for (name, about) in orchestrator::cli::commands() {
        let row = format!("| `{name}` | {about} |");
        assert!(readme.contains(&row), "the README has no row {row}");
    }
}
