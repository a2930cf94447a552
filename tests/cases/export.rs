//! `export` writes what the archive holds, in every form, and nothing of an archive that is damaged.

use crate::harness::program::{Background, orchestrator, output, succeeds, texts};
use crate::harness::relay::Relay;
use crate::harness::source::Source;
use crate::harness::store_program::StoreProgram;
use crate::harness::{files_of, generated, run_config, run_whole};
use orchestrator::filter_file::read::FilterFile;
use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How long a stopped program may take: its grace, and every bound after that.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// An archive of two small prefixes, beside the ranges that it was made of.
struct Fixture {
    folder: tempfile::TempDir,
    ranges: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let ranges = generated("5A-5B", 20);
        let folder = tempfile::tempdir().expect("a folder");
        let source = Source::of_folder(ranges.path()).await;
        let archive = folder.path().join("archive");
        run_whole(run_config(&source.url(), &archive, "5A-5B")).await;
        std::fs::create_dir(folder.path().join("out")).expect("a folder");
        Self { folder, ranges }
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// A folder for what is exported.
    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn export(&self, arguments: &[&str]) -> Output {
        let mut command = orchestrator();
        command.arg("export").arg(self.archive()).args(arguments);
        command.current_dir(self.out()).output().expect("it runs")
    }

    /// The lines of the export, from the extracted tars: `sort -m` merges their lists.
    fn expected(&self) -> String {
        let lists: Vec<PathBuf> = ["5A", "5B"].map(|prefix| self.list_of(prefix)).into();
        let merged = Command::new("sort")
            .arg("-m")
            .args(&lists)
            .env("LC_ALL", "C")
            .output()
            .expect("sort runs");
        assert!(merged.status.success(), "{}", texts(&merged));
        String::from_utf8(merged.stdout).expect("text")
    }

    fn list_of(&self, prefix: &str) -> PathBuf {
        let extracted = self.folder.path().join(prefix);
        std::fs::create_dir(&extracted).expect("a folder");
        let tar = self.archive().join(format!("{prefix}.tar"));
        let arguments = [
            "-C".as_ref(),
            extracted.as_os_str(),
            "-xf".as_ref(),
            tar.as_os_str(),
        ];
        succeeds("tar", &arguments);
        let path = self.folder.path().join(format!("{prefix}.list"));
        std::fs::write(&path, lines_of(&extracted)).expect("written");
        path
    }
}

/// The lines that an export of a folder with ranges has.
fn lines_of(ranges: &Path) -> String {
    let mut lines = String::new();
    for (name, body) in files_of(ranges) {
        let range = name.strip_suffix(".txt").expect("a range");
        for line in String::from_utf8(body).expect("text").lines() {
            lines.extend([range, line, "\n"]);
        }
    }
    lines
}

/// The first lines by count, then by hash.
fn naive_top(lines: &str, top: usize) -> String {
    let mut sorted: Vec<&str> = lines.lines().collect();
    sorted.sort_by_key(|line| {
        let (hash, count) = line.split_once(':').expect("a line");
        (Reverse(count.parse::<u64>().expect("a count")), hash)
    });
    sorted
        .iter()
        .take(top)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn stdout_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", texts(output));
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_what_sort_makes_of_the_extracted_files() {
    let fixture = Fixture::new().await;
    let expected = fixture.expected();
    assert!(expected.lines().count() > 8_192 * 15);
    let to_stdout = fixture.export(&[]);
    assert!(stdout_of(&to_stdout) == expected, "another list on stdout");
    assert_eq!(String::from_utf8_lossy(&to_stdout.stderr), "");

    let to_file = fixture.export(&["--out", "list.txt"]);
    let said = stdout_of(&to_file);
    assert!(said.starts_with("exported 2 prefixes, "), "{said}");
    let files = files_of(&fixture.out());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["list.txt"]);
    assert!(
        files["list.txt"] == expected.as_bytes(),
        "another list in the file"
    );

    let one = fixture.export(&["--prefixes", "5B", "--format", "text"]);
    let (_, of_prefix) = expected.split_once("\n5B000").expect("a line");
    assert!(
        stdout_of(&one).strip_prefix("5B000") == Some(of_prefix),
        "another list of 5B"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_top_is_that_of_the_whole_list() {
    let fixture = Fixture::new().await;
    let expected = fixture.expected();
    for top in [1, 7, 1_000, 1_000_000] {
        let found = fixture.export(&["--top", &top.to_string()]);
        assert!(
            stdout_of(&found) == naive_top(&expected, top),
            "another top {top}"
        );
    }
    stdout_of(&fixture.export(&["--top", "1", "--out", "top.txt"]));
    let written = std::fs::read_to_string(fixture.out().join("top.txt"));
    assert_eq!(written.expect("a file"), naive_top(&expected, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_are_those_of_the_source() {
    let fixture = Fixture::new().await;
    stdout_of(&fixture.export(&["--format", "files", "--out", "ranges"]));
    let out = fixture.out().join("ranges");
    let folders = [out.as_os_str(), fixture.ranges.path().as_os_str()];
    succeeds("diff", &["-r".as_ref(), folders[0], folders[1]]);
    let again = fixture.export(&["--format", "files", "--out", "ranges"]);
    assert_eq!(again.status.code(), Some(1), "{}", texts(&again));
    assert!(
        texts(&again).contains("something is there already"),
        "{}",
        texts(&again)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_finds_every_hash_and_few_others() {
    let fixture = Fixture::new().await;
    let expected = fixture.expected();
    let key = |hash: &str| u64::from_str_radix(&hash[..16], 16).expect("a hash");
    for (format, one_in) in [("fuse8", 256), ("fuse16", 65_536)] {
        stdout_of(&fixture.export(&["--format", format, "--out", format]));
        let path = fixture.out().join(format);
        let filter = FilterFile::open(&path).expect("a filter");
        for line in expected.lines() {
            assert!(
                filter.contains(key(line)).expect("held"),
                "{line} is missing"
            );
        }
        let others = expected
            .lines()
            .map(|line| key(line) ^ 0x00FF_FF00_0000_0000);
        let found = others
            .filter(|key| filter.contains(*key).expect("held"))
            .count();
        let hashes = expected.lines().count();
        assert!(found < 2 * hashes / one_in + 10, "{found} of {hashes}");
        // The same archive gives the same filter.
        let first = std::fs::read(&path).expect("a file");
        stdout_of(&fixture.export(&["--format", format, "--out", format]));
        assert!(
            std::fs::read(&path).expect("a file") == first,
            "another {format}"
        );
    }
}

/// Every form of an export.
const FORMS: [&[&str]; 6] = [
    &[],
    &["--out", "list.txt"],
    &["--top", "10"],
    &["--top", "10", "--out", "top.txt"],
    &["--format", "files", "--out", "ranges"],
    &["--format", "fuse8", "--out", "filter"],
];

/// Damages an archive and expects no form of export to write anything. `damage` says what it did.
async fn exports_nothing(damage: impl FnOnce(&Path) -> &'static str) {
    let fixture = Fixture::new().await;
    std::fs::write(fixture.out().join("list.txt"), "earlier").expect("written");
    let named = damage(&fixture.archive());
    for form in FORMS {
        let output = fixture.export(form);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{form:?}: {}",
            texts(&output)
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{form:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{form:?}: {said}");
        let left = files_of(&fixture.out());
        assert_eq!(left.keys().collect::<Vec<_>>(), ["list.txt"], "{form:?}");
        assert_eq!(left["list.txt"], b"earlier", "{form:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_exports_nothing() {
    exports_nothing(|archive| {
        let path = archive.join("5B.tar");
        let mut tar = std::fs::read(&path).expect("a tar");
        // A digit becomes another digit: a valid range, but not the one that was stored.
        tar[512 + 36] ^= 1;
        std::fs::write(&path, tar).expect("written");
        "damaged: 5B.tar: "
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_tar_exports_nothing() {
    exports_nothing(|archive| {
        let path = archive.join("5B.tar");
        let tar = std::fs::read(&path).expect("a tar");
        std::fs::write(&path, &tar[..tar.len() / 2]).expect("written");
        "damaged: 5B.tar: ends "
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_report_tar_or_manifest_exports_nothing() {
    for (file, named) in [
        ("5B.json", "damaged: 5B.json: is missing"),
        ("5B.tar", "damaged: 5B.tar: is missing"),
        ("manifest.json", "has no manifest.json"),
    ] {
        exports_nothing(|archive| {
            std::fs::remove_file(archive.join(file)).expect("removed");
            named
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_leaves_a_tar_out_or_contradicts_itself_exports_nothing() {
    exports_nothing(|archive| {
        change_manifest(archive, |manifest| {
            let objects = manifest["objects"].as_array_mut().expect("objects");
            let left_out = objects.remove(0);
            let (prefixes, bytes) = (
                &manifest["totals"]["prefixes"],
                &manifest["totals"]["content_length"],
            );
            let prefixes = prefixes.as_u64().expect("a number") - 1;
            let length = left_out["content_length"].as_u64().expect("a number");
            let bytes = bytes.as_u64().expect("a number") - length;
            manifest["totals"]["prefixes"] = prefixes.into();
            manifest["totals"]["content_length"] = bytes.into();
        });
        "damaged: manifest.json: does not name 5A, which is in the archive"
    })
    .await;
    exports_nothing(|archive| {
        change_manifest(archive, |manifest| {
            manifest["totals"]["prefixes"] = 7.into()
        });
        "damaged: manifest.json: has totals that are not the sums over its objects"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_does_not_take_the_place_of_its_archive_or_of_a_link() {
    let fixture = Fixture::new().await;
    let tar = fixture.archive().join("5A.tar");
    let before = std::fs::read(&tar).expect("a tar");
    let link = fixture.out().join("link");
    std::os::unix::fs::symlink(fixture.out().join("list"), &link).expect("a link");
    for (out, said) in [(&tar, "a file of an archive"), (&link, "a symbolic link")] {
        let output = fixture.export(&["--top", "1", "--out", out.to_str().expect("UTF-8")]);
        let text = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(said), "{text}");
    }
    assert!(std::fs::read(&tar).expect("a tar") == before);
    assert!(link.is_symlink());
}

fn change_manifest(archive: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = archive.join("manifest.json");
    let text = std::fs::read(&path).expect("a manifest");
    let mut manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    change(&mut manifest);
    std::fs::write(&path, manifest.to_string()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_that_are_not_held_and_forms_that_cannot_be_are_refused() {
    let fixture = Fixture::new().await;
    for (arguments, code, said) in [
        (
            &["--prefixes", "5A-5D"][..],
            1,
            "the archive does not hold 5C, 5D",
        ),
        (&["--format", "files"], 2, "--out"),
        (&["--format", "fuse8"], 2, "--out"),
        (&["--top", "0"], 2, "0 is not in 1..=10000000"),
        (
            &["--top", "5", "--format", "fuse8", "--out", "x"],
            2,
            "cannot be used with",
        ),
        (&["--out", "."], 1, "it is a folder"),
    ] {
        let output = fixture.export(arguments);
        let text = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    assert!(files_of(&fixture.out()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_enough_ends_an_export_quietly() {
    let fixture = Fixture::new().await;
    for arguments in [&[][..], &["--top", "1000000"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = orchestrator();
        command
            .arg("export")
            .arg(fixture.archive())
            .args(arguments)
            .stdout(writer);
        let output = output(command).await;
        assert_eq!(output.status.code(), Some(0), "{}", texts(&output));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_may_not_be_read_is_not_called_damaged() {
    let store = StoreProgram::start_with(&["--role", "objectCreator"]);
    let denied = output(store.command(&["export"], "pwned")).await;
    assert_eq!(denied.status.code(), Some(3), "{}", texts(&denied));
    assert_eq!(String::from_utf8_lossy(&denied.stdout), "");
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(said.contains("could not be read: "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_exported_and_a_stopped_export_leaves_nothing() {
    const PREFIXES: &str = "5A-5B";
    let ranges = generated(PREFIXES, 600);
    let source = Source::of_folder(ranges.path()).await;
    let store = StoreProgram::start();
    let source = source.url().to_string();
    let arguments = ["run", "--source", &source, "--prefixes", PREFIXES, "--to"];
    let run = output(store.command(&arguments, "pwned")).await;
    assert_eq!(run.status.code(), Some(0), "{}", texts(&run));

    let out = tempfile::tempdir().expect("a folder");
    let file = out.path().join("top.txt");
    let out_file = file.to_str().expect("a path in UTF-8");
    let top = store.command(&["export", "--top", "1", "--out", out_file], "pwned");
    let exported = output(top).await;
    assert_eq!(exported.status.code(), Some(0), "{}", texts(&exported));
    let line = std::fs::read_to_string(&file).expect("a file");
    assert_eq!(line, naive_top(&lines_of(ranges.path()), 1));
    std::fs::remove_file(&file).expect("removed");

    let relay = Relay::start(store.address().parse().expect("an address")).await;
    let mut stopped = store.command(&["export", "--out", out_file], "pwned");
    stopped
        .env("STORAGE_EMULATOR_HOST", relay.address().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let stopped = Background(stopped.spawn().expect("it starts"));
    // The list is being written: two tars of 100 MB are on their way.
    relay.until_forwarded(8 * 1024 * 1024).await;
    relay.set_outage(true);
    assert_eq!(files_of(out.path()).len(), 1, "a staged file");
    stopped.signal("INT");
    let status = stopped.ended_within(STOP_LIMIT).await;
    assert_eq!(status.code(), Some(130));
    assert!(files_of(out.path()).is_empty(), "something is left");
}
