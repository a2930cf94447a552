//! `status` tells whether a source has anything new, and says so when it cannot tell.

use crate::harness::faulty_source::body_of;
use crate::harness::program::{orchestrator, output, texts};
use crate::harness::source::listener;
use crate::harness::store_program::StoreProgram;
use crate::harness::tls_server::TlsServer;
use crate::harness::{certificates, repository, run, run_config, run_whole};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use http::{Method, Request, Response};
use http_body_util::Full;
use md5::{Digest as _, Md5};
use orchestrator::http_server::HttpServer;
use prefix_tar::protocol::prefix::RangeName;
use prefix_tar::protocol::source::SourceUrl;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};

const LINES: u64 = 5;

const PREFIX: &str = "AB";

const NOTHING_NEW: &str =
    "nothing new in 64 of 64 ranges: with 95 % confidence fewer than 5 % differ";

/// What a source states of a range.
#[derive(Clone, Copy)]
struct States {
    /// The ETag's form: a mark of weakness, and something that a server adds.
    etag: Option<(&'static str, &'static str)>,
    md5: bool,
    modified: bool,
}

const NOTHING: States = States {
    etag: None,
    md5: false,
    modified: false,
};

const ETAGS: States = States {
    etag: Some(("", "")),
    ..NOTHING
};

/// How a source answers.
#[derive(Clone)]
struct Answers {
    states: States,
    /// The ranges that have changed.
    changed: fn(RangeName) -> bool,
    /// What follows the last line.
    end: &'static str,
    /// The status of a range, or of a method.
    status: fn(&Method, RangeName) -> u16,
    /// Whether a page takes the place of every body.
    is_captive: bool,
}

impl Answers {
    fn stating(states: States) -> Self {
        Self {
            states,
            changed: |_| false,
            end: "",
            status: |_, _| 200,
            is_captive: false,
        }
    }

    fn answer(&self, method: &Method, range: RangeName) -> Response<Full<Bytes>> {
        let lines = LINES + u64::from((self.changed)(range));
        let mut body = body_of(range, lines);
        body.extend_from_slice(self.end.as_bytes());
        let digest = Md5::digest(&body);
        if self.is_captive {
            body = b"<!DOCTYPE html><title>Sign in</title>".to_vec();
        }
        let mut response = Response::builder().status((self.status)(method, range));
        if let Some((weak, added)) = self.states.etag {
            response = response.header(ETAG, format!("{weak}\"{}{added}\"", hex::encode(digest)));
        }
        if self.states.md5 {
            response = response.header("content-md5", STANDARD.encode(digest));
        }
        if self.states.modified {
            let day = 1 + u32::from((self.changed)(range));
            response = response.header(LAST_MODIFIED, format!("Thu, 0{day} Jan 2026 00:00:00 GMT"));
        }
        if *method == Method::HEAD {
            response = response.header(CONTENT_LENGTH, body.len());
            body.clear();
        }
        response.body(Full::new(body.into())).expect("a response")
    }
}

/// A source whose answers a test changes on the way.
struct Api {
    server: HttpServer,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<(Method, RangeName)>>>,
}

impl Api {
    async fn start(answers: Answers) -> Self {
        let answers = Arc::new(Mutex::new(answers));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (current, log) = (Arc::clone(&answers), Arc::clone(&asked));
        let server = HttpServer::start(listener().await, move |request| {
            let range = range_of(&request);
            locked(&log).push((request.method().clone(), range));
            let response = locked(&current).answer(request.method(), range);
            async { response }
        });
        Self {
            server: server.expect("a server"),
            answers,
            asked,
        }
    }

    fn url(&self) -> SourceUrl {
        let url = format!("http://{}", self.server.address());
        url.parse().expect("a source")
    }

    fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut locked(&self.answers));
    }

    /// What was asked for since the last call.
    fn take_asked(&self) -> Vec<(Method, RangeName)> {
        std::mem::take(&mut *locked(&self.asked))
    }

    /// An archive of this source.
    async fn archive(&self, prefixes: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        run_whole(run_config(&self.url(), folder.path(), prefixes)).await;
        self.take_asked();
        folder
    }
}

fn locked<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn range_of<B>(request: &Request<B>) -> RangeName {
    let name = request.uri().path().trim_start_matches("/range/");
    name.parse().expect("a range")
}

/// A source and its archive.
async fn mirrored(states: States) -> (Api, tempfile::TempDir) {
    let api = Api::start(Answers::stating(states)).await;
    let archive = api.archive(PREFIX).await;
    (api, archive)
}

fn command(archive: &Path, arguments: &[&str]) -> Command {
    let mut command = orchestrator();
    command.arg("status").arg(archive).args(arguments);
    command
}

async fn status(archive: &Path, arguments: &[&str]) -> Output {
    output(command(archive, arguments)).await
}

/// Expects this exit code, and these words in the last line of stdout.
fn assert_says(output: &Output, code: i32, words: &str) {
    let printed = texts(output);
    assert_eq!(output.status.code(), Some(code), "{printed}");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = stdout.lines().last().unwrap_or_default();
    assert!(
        last.contains(words),
        "{words:?} is not in the last of {printed}"
    );
}

/// The record of `--json`, which fits its schema.
async fn record(archive: &Path, arguments: &[&str]) -> Value {
    let output = status(archive, &[&["--json"], arguments].concat()).await;
    let record: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let schema = repository().join("docs/schemas/status-record.json");
    let schema = std::fs::read(schema).expect("a schema");
    let schema: Value = serde_json::from_slice(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator
        .iter_errors(&record)
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors, [""; 0], "{record}");
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_source_has_nothing_new_and_each_time_other_ranges_are_asked_for() {
    let api = Api::start(Answers::stating(ETAGS)).await;
    let archive = api.archive("00,AB").await;
    let found = status(archive.path(), &[]).await;
    assert_says(&found, 0, NOTHING_NEW);
    let shown = String::from_utf8_lossy(&found.stdout).into_owned();
    for line in [
        format!("archive     {}", archive.path().display()),
        format!("source      {}", api.url()),
        "mode        sha1".to_owned(),
        format!("written by  prefix-tar {}", env!("CARGO_PKG_VERSION")),
        "prefixes    2 of 256".to_owned(),
        "ranges      8,192".to_owned(),
        "failures    none in the latest run".to_owned(),
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line:?} is not in {shown}"
        );
    }
    assert_eq!(String::from_utf8_lossy(&found.stderr), "");

    let first = api.take_asked();
    assert!(first.iter().all(|(method, _)| method == Method::HEAD));
    let ranges: BTreeSet<String> = first.iter().map(|(_, range)| range.to_string()).collect();
    let of_ab = ranges.iter().filter(|range| range.starts_with(PREFIX));
    assert_eq!((ranges.len(), of_ab.count()), (64, 32));

    let record = record(archive.path(), &["--samples", "9"]).await;
    assert_eq!(record["verdict"], "nothing_new");
    assert_eq!(record["sample"]["same_by"]["etag"], 9);
    assert_eq!(record["holds"]["prefixes"], 2);
    let again = api.take_asked();
    assert_eq!(again.len(), 9);
    assert!(
        again
            .iter()
            .any(|(_, range)| !ranges.contains(&range.to_string()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_seen_whether_few_or_all_ranges_have_them() {
    let (api, archive) = mirrored(ETAGS).await;
    api.change(|answers| answers.changed = |range| range.index() % 100 == 7);
    let all = status(archive.path(), &["--samples", "4096"]).await;
    assert_says(&all, 1, "new: 41 of 4,096 ranges differ");
    let details = String::from_utf8_lossy(&all.stderr).into_owned();
    assert!(
        details.contains("differing: AB007 AB06B AB0CF") && details.contains("and 25 more"),
        "{details}"
    );
    // Only what has another ETag was read.
    let bodies = api
        .take_asked()
        .into_iter()
        .filter(|(method, _)| method == Method::GET);
    assert_eq!(bodies.count(), 41);

    api.change(|answers| answers.changed = |_| true);
    let sample = status(archive.path(), &[]).await;
    assert_says(&sample, 1, "new: 64 of 64 ranges differ");
    let record = record(archive.path(), &["--samples", "5"]).await;
    assert_eq!(record["verdict"], "new");
    assert_eq!(
        record["sample"]["differing"].as_array().map(Vec::len),
        Some(5)
    );
    assert_eq!(record["sample"]["differing_share_max"], Value::Null);

    api.change(|answers| answers.changed = |_| false);
    let whole = status(archive.path(), &["--samples", "4096"]).await;
    assert_says(
        &whole,
        0,
        "nothing new in 4,096 of 4,096 ranges, which are all",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etags_digests_or_dates_or_bodies_are_compared() {
    for (evidence, states) in [
        (
            "content_md5",
            States {
                md5: true,
                ..NOTHING
            },
        ),
        (
            "last_modified",
            States {
                modified: true,
                ..NOTHING
            },
        ),
        ("body", NOTHING),
    ] {
        let (api, archive) = mirrored(states).await;
        let same = record(archive.path(), &["--samples", "8"]).await;
        assert_eq!(same["verdict"], "nothing_new", "{same}");
        assert_eq!(same["sample"]["same_by"][evidence], 8, "{same}");
        let methods: BTreeSet<String> = api
            .take_asked()
            .iter()
            .map(|(method, _)| method.to_string())
            .collect();
        assert_eq!(methods.contains("GET"), evidence == "body");
        api.change(|answers| answers.changed = |_| true);
        let changed = status(archive.path(), &["--samples", "8"]).await;
        assert_says(&changed, 1, "new: 8 of 8 ranges differ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etags_may_come_go_and_change_without_anything_new() {
    let (api, archive) = mirrored(ETAGS).await;
    for (etag, evidence) in [
        (Some(("W/", "")), "etag"),
        (Some(("", "-gzip")), "body"),
        (Some(("W/", "-gzip")), "body"),
        (None, "body"),
    ] {
        api.change(|answers| answers.states.etag = etag);
        let same = record(archive.path(), &["--samples", "8"]).await;
        assert_eq!(same["verdict"], "nothing_new", "{etag:?} {same}");
        assert_eq!(same["sample"]["same_by"][evidence], 8, "{etag:?} {same}");
    }
    // An archive that has weak ones, or none.
    for etag in [Some(("W/", "")), None] {
        let states = States { etag, ..NOTHING };
        let (api, archive) = mirrored(states).await;
        api.change(|answers| answers.states = ETAGS);
        let same = status(archive.path(), &[]).await;
        assert_says(&same, 0, NOTHING_NEW);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_end_after_the_last_line_is_nothing_new() {
    let states = States {
        md5: true,
        ..NOTHING
    };
    let (api, archive) = mirrored(states).await;
    api.change(|answers| answers.end = "\r\n");
    let same = record(archive.path(), &["--samples", "8"]).await;
    assert_eq!(same["verdict"], "nothing_new", "{same}");
    assert_eq!(same["sample"]["same_by"]["body"], 8, "{same}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_only_knows_get_is_asked_for_bodies() {
    let (api, archive) = mirrored(ETAGS).await;
    for refusal in [
        |method: &Method, _| if method == Method::HEAD { 405 } else { 200 },
        |method: &Method, _| {
            if method == Method::HEAD { 403 } else { 200 }
        },
    ] as [fn(&Method, RangeName) -> u16; 2]
    {
        api.change(|answers| answers.status = refusal);
        let same = record(archive.path(), &["--samples", "8"]).await;
        assert_eq!(same["sample"]["same_by"]["body"], 8, "{same}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_neither_new_nor_the_same() {
    let (api, archive) = mirrored(ETAGS).await;
    let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    // Errors that a cache keeps: some ranges are answered, others never.
    api.change(|answers| {
        answers.status = |_, range| if range.index() % 2 == 0 { 502 } else { 200 }
    });
    let some = status(archive.path(), &[]).await;
    assert_says(
        &some,
        3,
        "of 64 ranges could not be compared; nothing new in the other",
    );
    let reason = format!("ranges: {} answered 502", api.url());
    assert!(stderr(&some).contains(&reason), "{}", stderr(&some));
    // One range that differs for certain is enough.
    api.change(|answers| answers.changed = |_| true);
    let differing = status(archive.path(), &[]).await;
    assert_says(&differing, 1, "could not be compared");

    // A page that answers everything with 200.
    api.change(|answers| {
        *answers = Answers::stating(NOTHING);
        answers.is_captive = true;
    });
    let captive = status(archive.path(), &["--samples", "8"]).await;
    assert_says(
        &captive,
        3,
        "could not tell: 8 of 8 ranges could not be compared",
    );
    let fault = "8 ranges: http://";
    assert!(stderr(&captive).starts_with(fault), "{}", stderr(&captive));
    assert!(stderr(&captive).contains("answered with an invalid range"));

    let url = api.url();
    drop(api);
    let down = status(archive.path(), &[]).await;
    assert_says(
        &down,
        3,
        "could not tell: 64 of 64 ranges could not be compared",
    );
    assert!(
        stderr(&down).contains(&format!("{url} cannot be asked")),
        "{}",
        stderr(&down)
    );
    let record = record(archive.path(), &[]).await;
    assert_eq!(record["verdict"], "unknown");
    assert_eq!(record["sample"]["unknown"], 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_run_has_something_to_do_the_exit_code_is_that_of_something_new() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    assert_says(&status(&at("missing"), &[]).await, 1, "no archive yet");
    std::fs::create_dir(at("empty")).expect("a folder");
    assert_says(&status(&at("empty"), &[]).await, 1, "no archive yet");
    assert_eq!(record(&at("missing"), &[]).await["verdict"], "no_archive");

    let api = Api::start(Answers::stating(ETAGS)).await;
    api.change(|answers| {
        answers.status = |_, range| {
            if range.to_string().starts_with("01") {
                404
            } else {
                200
            }
        };
    });
    let outcome = run(run_config(&api.url(), &at("partial"), "00-01")).await;
    assert!(!outcome.outcome.is_complete());
    let partial = status(&at("partial"), &[]).await;
    assert_says(
        &partial,
        1,
        "has not finished; the command that began it resumes it",
    );

    let archive = api.archive("00,AB").await;
    std::fs::remove_file(archive.path().join("AB.tar")).expect("removed");
    let missing = status(archive.path(), &[]).await;
    assert_says(
        &missing,
        1,
        "incomplete: the tar or the report is missing of 1 prefix: AB",
    );
    assert_eq!(
        record(archive.path(), &[]).await["holds"]["missing"][0],
        "AB"
    );
    assert_eq!(
        api.take_asked(),
        [],
        "a run has something to do whatever the source has"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_damaged_or_unreadable_cannot_be_told() {
    let (api, archive) = mirrored(ETAGS).await;
    let tar = archive.path().join("AB.tar");
    let mut bytes = std::fs::read(&tar).expect("a tar");
    bytes[600] ^= 1;
    std::fs::write(&tar, bytes).expect("written");
    let damaged = status(archive.path(), &["--samples", "4096"]).await;
    assert_says(&damaged, 3, "1 of 4,096 ranges could not be compared");
    let printed = texts(&damaged);
    assert!(printed.contains("1 range: AB.tar is damaged"), "{printed}");

    let manifest = archive.path().join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let nowhere = text.replace(&api.url().to_string(), "nowhere\\u001b[2J");
    std::fs::write(&manifest, nowhere).expect("written");
    let nowhere = status(archive.path(), &[]).await;
    assert_says(&nowhere, 3, "name another one with --source");
    assert!(!texts(&nowhere).contains('\u{1b}'));
    let named = status(
        archive.path(),
        &["--source", &api.url().to_string(), "--samples", "4"],
    )
    .await;
    assert_says(&named, 0, "nothing new in 4 of 4 ranges");

    std::fs::write(&manifest, "{").expect("written");
    assert_says(
        &status(archive.path(), &[]).await,
        3,
        "could not tell: manifest.json is not valid",
    );
    let file = status(&manifest, &[]).await;
    assert_says(&file, 3, "is not a folder");
    for arguments in [
        &["--samples", "0"][..],
        &["--samples", "4097"],
        &["--source", "a"],
    ] {
        assert_eq!(
            status(archive.path(), arguments).await.status.code(),
            Some(2)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_without_an_archive_leaves_the_one_before() {
    let (_api, archive) = mirrored(ETAGS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let month = month_before(2);
    std::fs::rename(archive.path(), folder.path().join(month)).expect("renamed");
    let found = status(&folder.path().join("{month}"), &[]).await;
    assert_says(&found, 0, NOTHING_NEW);
    let shown = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        shown.starts_with(&format!("archive     {}/2", folder.path().display())),
        "{shown}"
    );
}

/// A month in UTC, as `{month}` names it.
fn month_before(months: i32) -> String {
    use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let month = today.first_of_month().saturating_sub(months.months());
    month.strftime("%Y-%m").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_follows_leaves_nothing_new_in_a_folder_and_a_bucket() {
    let api = Api::start(Answers::stating(ETAGS)).await;
    let store = StoreProgram::start();
    let source = api.url().to_string();
    let mirror = async || {
        let arguments = [
            "run",
            "--force",
            "--source",
            &source,
            "--prefixes",
            PREFIX,
            "--to",
        ];
        let run = output(store.command(&arguments, "pwned")).await;
        assert_eq!(run.status.code(), Some(0), "{}", texts(&run));
    };
    let status = async || output(store.command(&["status"], "pwned")).await;
    assert_says(&status().await, 1, "no archive yet");
    mirror().await;
    let first = status().await;
    assert_says(&first, 0, NOTHING_NEW);
    assert!(String::from_utf8_lossy(&first.stdout).starts_with("archive     gs://pwned/pwned\n"));
    api.change(|answers| answers.changed = |_| true);
    assert_says(&status().await, 1, "new: 64 of 64 ranges differ");
    mirror().await;
    assert_says(&status().await, 0, NOTHING_NEW);
    std::fs::remove_file(store.archive("pwned").join("AB.json")).expect("removed");
    assert_says(&status().await, 1, "incomplete");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_not_read_cannot_tell() {
    let api = Api::start(Answers::stating(ETAGS)).await;
    let store = StoreProgram::start_with(&["--role", "objectCreator"]);
    let source = api.url().to_string();
    let arguments = ["run", "--source", &source, "--prefixes", PREFIX, "--to"];
    let run = output(store.command(&arguments, "pwned")).await;
    assert_eq!(run.status.code(), Some(0), "{}", texts(&run));
    let denied = output(store.command(&["status"], "pwned")).await;
    assert_says(&denied, 3, "could not tell");
    assert!(
        texts(&denied).contains("storage.objects.get"),
        "{}",
        texts(&denied)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_behind_tls_needs_a_trusted_certificate() {
    let (_api, archive) = mirrored(ETAGS).await;
    let folder = tempfile::tempdir().expect("a folder");
    certificates::write(folder.path(), &["localhost"]);
    let server = TlsServer::start(folder.path(), async |request: Request<_>| {
        let answers = Answers::stating(ETAGS);
        answers.answer(request.method(), range_of(&request))
    })
    .await;
    let url = format!("https://localhost:{}", server.address().port());
    let refused = status(archive.path(), &["--source", &url]).await;
    assert_says(&refused, 3, "could not tell");
    assert!(texts(&refused).contains("its TLS certificate is not trusted"));
    let ca_file = folder.path().join(certificates::CA_FILE);
    let ca_file = ca_file.to_str().expect("a path in UTF-8");
    let trusted = status(archive.path(), &["--source", &url, "--ca-file", ca_file]).await;
    assert_says(&trusted, 0, NOTHING_NEW);
    let none = status(archive.path(), &["--ca-file", "/nonexistent"]).await;
    assert_says(&none, 3, "could not tell");
}
