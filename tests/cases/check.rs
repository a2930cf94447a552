//! `check` finds passwords in whatever holds ranges, and shows none of them.

use crate::harness::certificates;
use crate::harness::program::{Background, orchestrator, output, texts};
use crate::harness::source::{Reply, Source, listener, valid_body};
use crate::harness::store_program::StoreProgram;
use crate::harness::tls_server::TlsServer;
use crate::harness::{generated, run_config, run_whole};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use md5::Md5;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use orchestrator::generate::GeneratorConfig;
use orchestrator::http_server::HttpServer;
use orchestrator::range_api::source::RangeSource;
use prefix_tar::protocol::prefix::RangeName;
use sha1::{Digest as _, Sha1};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long a stopped program may take.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A password that generated ranges hold, in AB, and how often.
const KNOWN: &str = "correct horse battery staple";
const KNOWN_COUNT: &str = "384";

/// The prefix of its hash.
const PREFIX: &str = "AB";

/// A password whose hash has that prefix, too, and that they do not hold.
fn unknown() -> String {
    (0_u32..)
        .map(|number| format!("unknown {number}"))
        .find(|password| hash_of(password).starts_with(PREFIX))
        .expect("a password")
}

fn hash_of(password: &str) -> String {
    hex::encode_upper(Sha1::digest(password))
}

/// An archive of the prefix of [`KNOWN`].
async fn archive() -> tempfile::TempDir {
    let ranges = generated(PREFIX, 20);
    let archive = tempfile::tempdir().expect("a folder");
    let source = Source::of_folder(ranges.path()).await;
    run_whole(run_config(&source.url(), archive.path(), PREFIX)).await;
    archive
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs a command with this input in a pipe.
async fn with_input(mut command: Command, input: &str) -> Output {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // A pipe holds 64 KiB.
    writer.write_all(input.as_bytes()).expect("written");
    drop(writer);
    command.stdin(reader);
    output(command).await
}

async fn check(arguments: &[&str], input: &str) -> Output {
    let mut command = orchestrator();
    command.arg("check").args(arguments);
    with_input(command, input).await
}

/// Expects this exit code and stdout.
fn assert_says(output: &Output, code: i32, stdout: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", texts(output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
}

/// Expects exit code 3, and a message that has these words and gives away neither hash nor range.
fn assert_not_told(output: &Output, words: &str) {
    assert_says(output, 3, "");
    let said = String::from_utf8_lossy(&output.stderr).to_uppercase();
    assert!(
        said.contains(&words.to_uppercase()),
        "{words:?} is not in {said}"
    );
    let hash = hash_of(KNOWN);
    for secret in [KNOWN, &hash[..5], &hash[5..]] {
        assert!(
            !said.contains(&secret.to_uppercase()),
            "{secret} is in {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_found_in_a_folder_a_bucket_and_an_api() {
    let folder = archive().await;
    let generated = GeneratorConfig::default();
    let api = Source::of(RangeSource::synthetic(generated).expect("a source")).await;
    let api = api.url().to_string();
    let store = StoreProgram::start();
    let arguments = ["run", "--source", &api, "--prefixes", PREFIX, "--to"];
    let run = output(store.command(&arguments, "pwned")).await;
    assert_eq!(run.status.code(), Some(0), "{}", texts(&run));

    let unknown = unknown();
    for source in [path_text(folder.path()), &api] {
        let found = check(&[source], &format!("{KNOWN}\n")).await;
        assert_says(&found, 1, &format!("{KNOWN_COUNT}\n"));
        assert_eq!(String::from_utf8_lossy(&found.stderr), "");
        assert_says(&check(&[source], &unknown).await, 0, "0\n");
    }
    let bucket = || store.command(&["check"], "pwned");
    assert_says(
        &with_input(bucket(), KNOWN).await,
        1,
        &format!("{KNOWN_COUNT}\n"),
    );
    assert_says(&with_input(bucket(), &unknown).await, 0, "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_says_whether_a_password_is_probably_there() {
    let archive = archive().await;
    let filter = archive.path().join("passwords.fuse16");
    let filter = path_text(&filter);
    let exported = orchestrator()
        .args(["export", path_text(archive.path()), "--format", "fuse16"])
        .args(["--out", filter])
        .output()
        .expect("it runs");
    assert_eq!(exported.status.code(), Some(0), "{}", texts(&exported));
    let found = check(&[filter], KNOWN).await;
    assert_says(&found, 1, "probably found\n");
    let said = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(said.contains("1 in 65,536"), "{said}");
    assert_says(&check(&[filter], &unknown()).await, 0, "not found\n");
    let json = check(&[filter, "--json", "--batch"], KNOWN).await;
    let rate = 1.0 / 65_536.0;
    let expected = format!("{{\"line\":1,\"found\":true,\"false_positive_rate\":{rate:?}}}\n");
    let found: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(
        found,
        serde_json::from_str::<serde_json::Value>(&expected).expect("JSON")
    );
    assert_not_told(
        &check(&[filter], "hunter2").await,
        "does not hold this hash's prefix",
    );

    let mut bytes = std::fs::read(filter).expect("a filter");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(filter, bytes).expect("written");
    assert_not_told(&check(&[filter], KNOWN).await, "it is damaged");
    std::fs::write(filter, "no filter").expect("written");
    assert_not_told(&check(&[filter], KNOWN).await, "it is not a filter file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_a_line_for_each_line_in_order() {
    let archive = archive().await;
    let archive = path_text(archive.path());
    let unknown = unknown();
    let too_long = "x".repeat(5_000);
    let input = format!("{KNOWN}\r\n{unknown}\n{too_long}\n{KNOWN} \n\n{KNOWN}");
    let batch = check(&[archive, "--batch"], &input).await;
    // The hashes of a line with a space and of an empty line have other prefixes.
    let expected =
        format!("1 {KNOWN_COUNT}\n2 0\n3 unknown\n4 unknown\n5 unknown\n6 {KNOWN_COUNT}\n");
    assert_says(&batch, 1, &expected);
    let said = String::from_utf8_lossy(&batch.stderr).into_owned();
    assert!(
        said.contains("line 3: the line has more than 4096 bytes"),
        "{said}"
    );
    assert!(
        said.contains("line 4: the archive does not hold this hash's prefix"),
        "{said}"
    );

    let many = format!("{unknown}\n").repeat(1_000);
    let none: String = (1..=1_000).map(|line| format!("{line} 0\n")).collect();
    assert_says(&check(&[archive, "--batch"], &many).await, 0, &none);
    let some = format!("{unknown}\nhunter2\n");
    assert_says(
        &check(&[archive, "--batch"], &some).await,
        3,
        "1 0\n2 unknown\n",
    );
    assert_says(&check(&[archive, "--batch"], "").await, 0, "");

    let hashes = format!("{}\n{}\n", hash_of(KNOWN).to_lowercase(), hash_of(&unknown));
    let found = check(&[archive, "--batch", "--hash", "--json"], &hashes).await;
    let expected = format!(
        "{{\"line\":1,\"found\":true,\"count\":{KNOWN_COUNT}}}\n{{\"line\":2,\"found\":false,\"count\":0}}\n"
    );
    assert_says(&found, 1, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_neither_found_nor_not_found() {
    let folder = archive().await;
    let archive = path_text(folder.path());
    assert_not_told(&check(&[archive], "").await, "the input is empty");
    assert_not_told(&check(&[archive], "a\nb\n").await, "--batch");
    assert_not_told(
        &check(&[archive, "--hash"], KNOWN).await,
        "40 hex characters",
    );
    assert_not_told(
        &check(&[archive], "hunter2").await,
        "does not hold this hash's prefix",
    );
    let missing = folder.path().join("missing");
    assert_not_told(
        &check(&[path_text(&missing)], KNOWN).await,
        "is not a folder",
    );
    let empty = tempfile::tempdir().expect("a folder");
    assert_not_told(
        &check(&[path_text(empty.path())], KNOWN).await,
        "manifest.json",
    );

    // Damage to the range of the password, and to nothing else.
    let path = folder.path().join(format!("{PREFIX}.tar"));
    let mut tar = std::fs::read(&path).expect("a tar");
    let suffix = hash_of(KNOWN).split_off(5);
    let at = tar.windows(35).position(|bytes| bytes == suffix.as_bytes());
    tar[at.expect("the suffix") + 3] = b'x';
    std::fs::write(&path, tar).expect("written");
    let damaged = check(&[archive], KNOWN).await;
    assert_says(&damaged, 3, "");

    for arguments in [&[][..], &["s3://bucket"], &["http://"], &[archive, KNOWN]] {
        assert_eq!(
            check(arguments, KNOWN).await.status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

/// A body with the suffix of [`KNOWN`] and this count.
fn body_with(count: &str) -> Bytes {
    let suffix = hash_of(KNOWN).split_off(5);
    format!("{}:3\r\n{suffix}:{count}", "0".repeat(35)).into()
}

async fn check_api(reply: impl Fn(RangeName) -> Reply + Send + Sync + Clone + 'static) -> Output {
    let source = Source::answering(reply).await;
    check(&[&source.url().to_string()], KNOWN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_an_api_is_believed_only_if_it_is_a_range() {
    let body = |text: &'static str| move |_| Reply::Body(Bytes::from_static(text.as_bytes()));
    assert_says(&check_api(|_| Reply::Body(body_with("7"))).await, 1, "7\n");
    assert_says(&check_api(|_| Reply::Body(body_with("0"))).await, 0, "0\n");
    assert_not_told(&check_api(|_| Reply::Status(404)).await, "answered 404");
    assert_not_told(
        &check_api(|_| Reply::Status(503)).await,
        "answered 503 in 3 attempts",
    );
    assert_not_told(&check_api(|_| Reply::Status(302)).await, "answered 302");
    assert_not_told(&check_api(body("")).await, "it is empty");
    let padding = |_| Reply::Body(format!("{}:0", "F".repeat(35)).into());
    assert_not_told(&check_api(padding).await, "it has padding only");
    let page = "<!DOCTYPE html>\n<title>Sign in</title>";
    assert_not_told(
        &check_api(body(page)).await,
        "line 1 is not a suffix and a count",
    );
    let endless = |range| Reply::Body(valid_body(range, 1024 * 1024));
    assert_not_told(
        &check_api(endless).await,
        "answered with more than 262144 bytes",
    );

    let refused = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    assert_not_told(
        &check(&[&refused], KNOWN).await,
        &format!("{refused} cannot be asked"),
    );
}

/// An API that sends these bytes after every request, and closes the connection.
async fn answering_raw(answer: String) -> String {
    let listener = listener().await;
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_may_have_been_cut_is_not_believed() {
    let body = |count: &str| String::from_utf8(body_with(count).to_vec()).expect("text");
    let (whole, cut) = (body("1000"), format!("{}:3", "0".repeat(35)));
    let md5 = |body: &str| STANDARD.encode(Md5::digest(body));
    let length = |body: &str| format!("content-length: {}\r\n", body.len());
    let with_md5 = |of: &str| format!("content-md5: {}\r\n", md5(of));
    for (head, body, words) in [
        (String::new(), &cut, "it may have been cut off"),
        (String::new(), &whole, "it may have been cut off"),
        (with_md5(&whole), &whole, "it may have been cut off"),
        (
            length(&cut) + "content-range: bytes 0-99/9999\r\n",
            &cut,
            "content-range",
        ),
        (length(&cut) + &with_md5(&whole), &cut, "Content-MD5"),
        (length(&whole) + &with_md5(&cut), &whole, "Content-MD5"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n{body}");
        let url = answering_raw(answer).await;
        assert_not_told(&check(&[&url], KNOWN).await, words);
    }
    // The MD5 may be that of what is sent, or of the range without its padding.
    let padded = format!("{whole}\r\n{}:0", "F".repeat(35));
    for of in [&whole, &padded] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\n{}{}\r\n{padded}",
            length(&padded),
            with_md5(of)
        );
        let url = answering_raw(answer).await;
        assert_says(&check(&[&url], KNOWN).await, 1, "1000\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_learns_the_name_of_a_range_and_answers_with_padding() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let server = HttpServer::start(listener().await, move |request| {
        let (head, _) = request.into_parts();
        seen.lock().expect("not poisoned").push(head);
        async { Response::new(Full::new(body_with("12"))) }
    });
    let server = server.expect("a server");
    let url = format!("http://{}/mirror/", server.address());
    assert_says(&check(&[&url], KNOWN).await, 1, "12\n");
    let asked = asked.lock().expect("not poisoned");
    let [head] = &asked[..] else {
        panic!("{asked:?}");
    };
    assert_eq!(head.method, "GET");
    assert_eq!(
        head.uri.to_string(),
        format!("/mirror/range/{}", &hash_of(KNOWN)[..5])
    );
    assert_eq!(head.headers["add-padding"], "true");
    let agent = head.headers["user-agent"].to_str().expect("text");
    assert!(agent.starts_with("prefix-tar/"), "{agent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_in_no_log() {
    let folder = archive().await;
    let api = Source::answering(|_| Reply::Body(body_with("12"))).await;
    let failing = Source::answering(|_| Reply::Status(503)).await;
    let (api, failing) = (api.url().to_string(), failing.url().to_string());
    let folder = path_text(folder.path());
    for source in [folder, &api, &failing] {
        for arguments in [&[][..], &["--batch"], &["--json"], &["--hash"]] {
            let hash = hash_of(KNOWN);
            let input = if arguments == ["--hash"] {
                &hash
            } else {
                KNOWN
            };
            let mut command = orchestrator();
            command.arg("check").arg(source).args(arguments);
            command.env("PREFIX_TAR_LOG", "trace");
            let text = texts(&with_input(command, input).await).to_uppercase();
            for secret in [KNOWN, &hash, &hash[5..]] {
                let secret = secret.to_uppercase();
                assert!(
                    !text.contains(&secret),
                    "{source} {arguments:?}: {secret} in {text}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_behind_tls_needs_a_trusted_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    certificates::write(folder.path(), &["localhost"]);
    let answer = async |_| Response::new(Full::new(body_with("12")));
    let server = TlsServer::start(folder.path(), answer).await;
    let url = format!("https://localhost:{}", server.address().port());
    let refused = check(&[&url], KNOWN).await;
    assert_not_told(&refused, "its TLS certificate is not trusted");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("with --ca-file"), "{said}");
    assert!(!said.contains("attempts"), "{said}");
    let mut command = orchestrator();
    command
        .args(["check", &url, "--ca-file"])
        .arg(folder.path().join(certificates::CA_FILE))
        .env("PREFIX_TAR_LOG", "trace");
    let found = with_input(command, KNOWN).await;
    assert_says(&found, 1, "12\n");
    let log = String::from_utf8_lossy(&found.stderr).to_uppercase();
    for secret in [&KNOWN.to_uppercase(), &hash_of(KNOWN)[5..]] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// A check that asks for a password on a terminal, and has asked.
fn asking(source: &str, terminal: &OpenptyResult) -> Background {
    let stdin = terminal.slave.try_clone().expect("a descriptor");
    let mut child = orchestrator()
        .args(["check", source])
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut prompt = [0; "Password: ".len()];
    let stderr = child.stderr.as_mut().expect("piped");
    stderr.read_exact(&mut prompt).expect("a prompt");
    assert_eq!(&prompt, b"Password: ");
    Background(child)
}

fn modes(terminal: &OpenptyResult) -> Termios {
    tcgetattr(&terminal.slave).expect("a terminal")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_does_not_show_what_is_typed_and_shows_it_again_afterwards() {
    let folder = archive().await;
    let folder = path_text(folder.path());
    let terminal = openpty(None, None).expect("a terminal");
    let before = modes(&terminal);
    let mut keyboard = File::from(terminal.master.try_clone().expect("a descriptor"));

    let mut asked = asking(folder, &terminal);
    assert!(!modes(&terminal).local_flags.contains(LocalFlags::ECHO));
    let typed = format!("{KNOWN}\n");
    keyboard.write_all(typed.as_bytes()).expect("typed");
    let mut stdout = asked.0.stdout.take().expect("piped");
    let status = asked.ended_within(STOP_LIMIT).await;
    let mut said = String::new();
    stdout.read_to_string(&mut said).expect("text");
    assert_eq!((status.code(), said.trim()), (Some(1), KNOWN_COUNT));
    assert_eq!(modes(&terminal), before);
    // Only the end of the line was echoed.
    let mut shown = [0; 2];
    keyboard.read_exact(&mut shown).expect("an echo");
    assert_eq!(&shown, b"\r\n");

    let asked = asking(folder, &terminal);
    keyboard.write_all(b"correct").expect("typed");
    asked.signal("INT");
    let status = asked.ended_within(STOP_LIMIT).await;
    assert_eq!(status.code(), Some(130));
    assert_eq!(modes(&terminal), before);
}
