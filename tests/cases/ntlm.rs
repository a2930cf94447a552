//! NTLM hashes go the whole way, from a source to an export, and never mix with SHA-1 hashes.

use crate::harness::mirror_program::MirrorProgram;
use crate::harness::program::{orchestrator, output, texts};
use crate::harness::source::{Reply, Source, valid_body};
use crate::harness::{
    Fixture, assert_extracts_to, fetch, files_of, generated, prefix, prefix_set, run_config,
    run_whole, verified,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use orchestrator::generate::GeneratorConfig;
use orchestrator::range_api::source::RangeSource;
use orchestrator::run::RunConfig;
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RangeName;
use prefix_tar::protocol::source::SourceUrl;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Output;

/// The NT hash of `password`, and how often generated ranges say that it occurs.
const HASH: &str = "8846F7EAEE8FB117AD06BDD830B7586C";
const COUNT: &str = "10434004";

/// Its prefix, and its range.
const PREFIX: &str = "88";
const RANGE: &str = "8846F";

/// Mean number of lines in a range.
const LINES: u32 = 20;

/// Generated ranges of NTLM hashes.
fn generated_ntlm(prefixes: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let config = GeneratorConfig {
        seed: 26,
        hashes_per_range: LINES,
        mode: Mode::Ntlm,
    };
    let generator = config.generator().expect("a generator");
    for prefix in prefix_set(prefixes).iter() {
        let written = generator.write_prefix(prefix, folder.path());
        written.expect("ranges");
    }
    folder
}

async fn source_of(mode: Mode, ranges: &Path) -> Source {
    Source::of(RangeSource::folder_of(mode, ranges.to_owned())).await
}

fn config_of(mode: Mode, source: &SourceUrl, archive: &Path) -> RunConfig {
    RunConfig {
        mode,
        ..run_config(source, archive, PREFIX)
    }
}

/// An archive of generated hashes.
async fn archive_of(mode: Mode) -> tempfile::TempDir {
    let ranges = match mode {
        Mode::Sha1 => generated(PREFIX, LINES),
        Mode::Ntlm => generated_ntlm(PREFIX),
    };
    let archive = tempfile::tempdir().expect("a folder");
    let source = source_of(mode, ranges.path()).await;
    run_whole(config_of(mode, &source.url(), archive.path())).await;
    archive
}

/// Runs the program with this text in its stdin.
async fn program(arguments: &[&OsStr], input: &[u8]) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), input).expect("written");
    let mut command = orchestrator();
    command.args(arguments);
    command.stdin(File::open(file.path()).expect("a file"));
    output(command).await
}

/// Expects an exit code, and a text in what the program says.
fn assert_says(output: &Output, code: i32, text: &str) {
    let said = texts(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(text), "{text:?} is not in {said}");
}

async fn get(url: &str, path: &str) -> Response<Bytes> {
    let request = Request::get(format!("{url}{path}"));
    fetch(request.body(Full::default()).expect("a request")).await
}

fn words<'words>(words: &[&'words str]) -> Vec<&'words OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ntlm_hashes_go_the_whole_way_by_the_program_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |name: &str| folder.path().join(name).into_os_string();
    let (ranges, archive) = (of("ranges"), of("archive"));
    let mut generate = words(&["generate", "--mode", "ntlm", "--prefixes", PREFIX]);
    generate.extend(words(&["--hashes-per-range", "20", "-d"]));
    generate.push(&ranges);
    assert_says(&program(&generate, b"").await, 0, "generated 1 prefix");

    let mut serve = orchestrator();
    serve.args(["serve", "--mode", "ntlm", "-d"]).arg(&ranges);
    let source = MirrorProgram::start(serve, &[]);
    let mut run = words(&["run", "--mode", "ntlm", "--prefixes", PREFIX, "--source"]);
    run.extend(words(&[source.url(), "--to"]));
    run.push(&archive);
    assert_says(&program(&run, b"").await, 0, "");
    assert_extracts_to(Path::new(&archive), Path::new(&ranges));
    for (command, text) in [("verify", "is whole: 1 prefix"), ("status", "nothing new")] {
        let said = program(&[OsStr::new(command), &archive], b"").await;
        assert_says(&said, 0, text);
    }
    let manifest = std::fs::read(Path::new(&archive).join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["mode"], "ntlm");

    let filter = of("passwords.fuse16");
    let export = words(&["export", "--format", "fuse16", "--out"]);
    let export = [export, vec![&*filter, &*archive]].concat();
    assert_says(&program(&export, b"").await, 0, "exported 1 prefix");
    let served = MirrorProgram::of_folder(Path::new(&archive), &[]);
    for (place, options, found) in [
        (OsStr::new(served.url()), &["--mode", "ntlm"][..], COUNT),
        (OsStr::new(source.url()), &["--mode", "ntlm"], COUNT),
        (&archive, &[], COUNT),
        (&archive, &["--mode", "ntlm"], COUNT),
        (&filter, &[], "probably found"),
    ] {
        for (kind, input) in [(&[][..], "password"), (&["--hash"], HASH)] {
            let check = [words(&["check"]), vec![place], words(options), words(kind)].concat();
            assert_says(&program(&check, input.as_bytes()).await, 1, found);
        }
    }
    let list = program(&[OsStr::new("export"), &archive], b"").await;
    assert_eq!(list.status.code(), Some(0), "{}", texts(&list));
    let list = String::from_utf8(list.stdout).expect("text");
    let is_hash = |line: &str| {
        line.split_once(':')
            .is_some_and(|(hash, _)| hash.len() == 32)
    };
    assert!(list.lines().all(is_hash) && list.lines().is_sorted());
    assert!(list.contains(&format!("\n{HASH}:{COUNT}\n")));
    let top = [words(&["export", "--top", "1"]), vec![&*archive]].concat();
    let top = program(&top, b"").await;
    let top = String::from_utf8(top.stdout).expect("text");
    assert!(is_hash(top.trim_end()), "{top}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_answers_the_mode_that_it_holds_and_refuses_the_other() {
    for mode in Mode::ALL {
        let archive = archive_of(mode).await;
        let served = MirrorProgram::of_folder(archive.path(), &[]);
        let ranges = match mode {
            Mode::Sha1 => generated(PREFIX, LINES),
            Mode::Ntlm => generated_ntlm(PREFIX),
        };
        let files = source_of(mode, ranges.path()).await;
        for url in [served.url().to_owned(), files.url().to_string()] {
            for (query, asked) in [
                ("", Some(Mode::Sha1)),
                ("?mode=sha1", Some(Mode::Sha1)),
                ("?mode=ntlm", Some(Mode::Ntlm)),
                ("?mode=md5", None),
            ] {
                let answer = get(&url, &format!("/range/{RANGE}{query}")).await;
                let expected = if asked == Some(mode) { 200 } else { 400 };
                assert_eq!(answer.status(), expected, "{query} of {mode}");
                let text = String::from_utf8_lossy(answer.body());
                if asked == Some(mode) {
                    let (suffix, _) = text.split_once(':').expect("a line");
                    assert_eq!(suffix.len(), mode.suffix_characters());
                } else if asked.is_some() {
                    assert!(text.contains(mode.hash_name()), "{text}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_padded_range_is_padded_with_suffixes_of_its_own_length() {
    let archive = archive_of(Mode::Ntlm).await;
    let served = MirrorProgram::of_folder(archive.path(), &[]);
    let request = Request::get(format!("{}/range/{RANGE}?mode=ntlm", served.url()));
    let request = request.header("add-padding", "true");
    let answer = fetch(request.body(Full::default()).expect("a request")).await;
    let text = String::from_utf8(answer.body().to_vec()).expect("text");
    let suffixes = text.lines().map(|line| line.split(':').next());
    assert!(
        suffixes.flatten().all(|suffix| suffix.len() == 27),
        "{text}"
    );
    assert!(text.lines().any(|line| line.ends_with(":0")), "{text}");
}

/// A body of NTLM hashes that no other range has.
fn ntlm_body(range: RangeName) -> Bytes {
    let index = range.index();
    let lines = (0..9).map(|number| format!("{number:023X}{index:04X}:1\r\n"));
    lines.collect::<String>().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_the_other_mode_enters_no_tar_and_answers_no_check() {
    for (mode, other) in [(Mode::Sha1, Mode::Ntlm), (Mode::Ntlm, Mode::Sha1)] {
        // A server of files that ignores the query, as most do.
        let source = Source::answering(move |range| {
            Reply::Body(match other {
                Mode::Sha1 => valid_body(range, 400),
                Mode::Ntlm => ntlm_body(range),
            })
        })
        .await;
        let fixture = Fixture::new(&source.url(), |_| ()).await;
        let job = Job {
            mode,
            ..fixture.job(prefix(PREFIX)).await
        };
        let failure = fixture.invoke(job).await.expect_err("no range of its mode");
        let expected = format!("line 1 is of a range of {} hashes", other.hash_name());
        assert!(failure.to_string().contains(&expected), "{failure}");
        assert_eq!(fixture.into_file_names().await, Vec::<String>::new());

        let url = source.url().to_string();
        let check = words(&["check", &url, "--mode", mode.as_str()]);
        let said = program(&check, b"password").await;
        assert_says(&said, 3, "the answer is not a range");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_of_the_other_mode_is_damage_in_every_command() {
    let archives = [archive_of(Mode::Sha1).await, archive_of(Mode::Ntlm).await];
    let bytes = archives
        .each_ref()
        .map(|archive| std::fs::read(archive.path().join("88.tar")).expect("a tar"));
    for (archive, other) in archives.iter().zip(bytes.iter().rev()) {
        std::fs::write(archive.path().join("88.tar"), other).expect("written");
    }
    for (archive, other) in archives.iter().zip(["NTLM", "SHA-1"]) {
        let damage = format!("range 88000 is not valid: line 1 is of a range of {other} hashes");
        let damages = verified(archive.path()).damages;
        let lines: Vec<String> = damages.iter().map(ToString::to_string).collect();
        assert!(lines.iter().any(|line| line.contains(&damage)), "{lines:?}");
        let path = archive.path().as_os_str();
        let export = program(&[OsStr::new("export"), path], b"").await;
        assert_says(&export, 1, &damage);
        assert_eq!(export.stdout, b"");
        // A hash of the mode that the archive states, in the prefix that it holds.
        let hash: &[u8] = match other {
            "NTLM" => b"8800000000000000000000000000000000000000",
            _ => b"88000000000000000000000000000000",
        };
        let check = [OsStr::new("check"), path, OsStr::new("--hash")];
        let check = program(&check, hash).await;
        assert_says(&check, 3, "88.tar is damaged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_the_other_mode_is_refused_and_changes_nothing() {
    for (mode, other) in [(Mode::Sha1, Mode::Ntlm), (Mode::Ntlm, Mode::Sha1)] {
        let archive = archive_of(mode).await;
        let source = source_of(other, archive.path()).await;
        let url = source.url().to_string();
        let before = files_of(archive.path());
        for force in [&[][..], &["--force"]] {
            let run = words(&["run", "--prefixes", "88-89", "--source", &url, "--mode"]);
            let run = [
                run,
                words(&[other.as_str()]),
                words(force),
                words(&["--to"]),
            ]
            .concat();
            let run = [run, vec![archive.path().as_os_str()]].concat();
            let expected = format!(
                "the archive holds {} hashes, and this run would mirror {} hashes",
                mode.hash_name(),
                other.hash_name()
            );
            assert_says(&program(&run, b"").await, 1, &expected);
        }
        assert!(files_of(archive.path()) == before, "a file has changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_states_no_mode_is_of_sha_1() {
    let archive = archive_of(Mode::Sha1).await;
    let path = archive.path();
    for name in ["manifest.json", "run.json", "88.json"] {
        let text = std::fs::read_to_string(path.join(name)).expect("a file");
        assert!(
            !text.contains("\"mode\""),
            "{name} is not as 0.1.0 wrote it"
        );
    }
    assert_eq!(verified(path).damages, []);
    let with = |command: &'static str, mode: &'static str| {
        [
            words(&[command]),
            vec![path.as_os_str()],
            words(&["--mode", mode]),
        ]
        .concat()
    };
    assert_says(&program(&with("verify", "sha1"), b"").await, 0, "is whole");
    for (command, code, text) in [
        ("verify", 1, "says that the archive holds SHA-1 hashes"),
        ("export", 1, "holds SHA-1 hashes, not NTLM hashes"),
        ("check", 3, "holds SHA-1 hashes, not NTLM hashes"),
        ("serve", 1, "holds SHA-1 hashes, not NTLM hashes"),
    ] {
        let said = program(&with(command, "ntlm"), b"password").await;
        assert_says(&said, code, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_not_text_has_no_ntlm_hash_and_a_hash_has_32_characters() {
    let archive = archive_of(Mode::Ntlm).await;
    let path = archive.path().as_os_str();
    let batch = [OsStr::new("check"), path, OsStr::new("--batch")];
    let said = program(&batch, b"\xE9\npassword\n").await;
    assert_says(&said, 1, "line 1: the line is not valid UTF-8");
    let answers = format!("1 unknown\n2 {COUNT}\n");
    assert_eq!(String::from_utf8_lossy(&said.stdout), answers);
    let hash = [OsStr::new("check"), path, OsStr::new("--hash")];
    let sha1 = b"5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8";
    let said = program(&hash, sha1).await;
    assert_says(&said, 3, "the line is not an NTLM hash: 32 hex characters");
}
