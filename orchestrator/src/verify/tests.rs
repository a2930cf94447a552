//! Every kind of damage to an archive, and everything that must not be called damage.

use super::sample::{archive_of, archive_of_mode, change_json, report_of, tar_of, tar_of_mode};
use super::*;
use crate::archive::folder::FolderArchive;
use crate::archive::{Base, StoredFile, StoredObject, TarReader};
use bytes::Bytes;
use serde_json::json;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicU32;

const ONE: Prefix = Prefix::from_number(0);
const TWO: Prefix = Prefix::from_number(1);

/// The lines of the verdict, damages first.
fn verdict_of(archive: &dyn Archive) -> Verdict {
    verdict_of_mode(archive, None)
}

fn verdict_of_mode(archive: &dyn Archive, expected: Option<Mode>) -> Verdict {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let shutdown = CancellationToken::new();
    verify(
        archive,
        runtime.handle(),
        &shutdown,
        expected,
        |_| (),
        || (),
    )
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn folder_verdict(folder: &Path) -> Verdict {
    verdict_of(&FolderArchive::new(folder.to_owned()))
}

/// Changes one file of a whole archive, and expects exactly these damages.
fn assert_damages(change: impl FnOnce(&Path), expected: &[&str]) {
    let folder = archive_of(&[ONE, TWO]);
    change(folder.path());
    let verdict = folder_verdict(folder.path());
    assert_eq!(lines(&verdict.damages), expected);
    assert_eq!(verdict.unreadable, []);
}

#[test]
fn a_whole_archive_is_whole_with_and_without_the_run_in_its_reports() {
    let folder = archive_of(&[ONE, TWO]);
    let path = folder.path().join("00.json");
    let text = std::fs::read_to_string(&path).expect("a report");
    assert!(!text.contains("\"run\""), "like a report of version 0.1.0");
    for _ in 0..2 {
        let verdict = folder_verdict(folder.path());
        assert_eq!((verdict.damages, verdict.unreadable), (vec![], vec![]));
        assert_eq!((verdict.prefixes, verdict.ranges), (2, 8192));
        assert_eq!(verdict.hashes, 2 * 8192);
        change_json(&path, |report| {
            report["run"] = json!("20261125T031700Z-1a2b3c4d");
        });
    }
}

#[test]
fn a_report_that_breaks_a_rule_is_damaged_and_its_tar_is_not() {
    type Change = fn(&mut serde_json::Value);
    let of = |change: Change, what: &str| {
        let damage = format!("00.json: is not valid: {what}");
        assert_damages(
            |folder| change_json(&folder.join("00.json"), change),
            &[damage.as_str()],
        );
    };
    of(
        |report| report["range_bytes"] = json!([]),
        "its index has 0 sizes, 4096 ETags and 4096 checksums, not 4096 of each",
    );
    of(
        |report| {
            report["range_bytes"].as_array_mut().expect("a list").pop();
        },
        "its index has 4095 sizes, 4096 ETags and 4096 checksums, not 4096 of each",
    );
    of(
        |report| {
            let sizes = report["range_bytes"].as_array_mut().expect("a list");
            sizes.push(json!(77));
        },
        "its index has 4097 sizes, 4096 ETags and 4096 checksums, not 4096 of each",
    );
    of(
        |report| report["range_etags"] = json!([]),
        "its index has 4096 sizes, 0 ETags and 4096 checksums, not 4096 of each",
    );
    of(
        |report| report["range_bytes"][0] = json!(1),
        "it gives 00000 a size of 1 bytes, which no valid range has",
    );
    of(
        |report| report["data_bytes"] = json!(7),
        "its 7 bytes of data are not the sum of its index, 315392",
    );
    of(
        |report| report["hashes"] = json!(1),
        "1 hashes cannot take 315392 bytes",
    );
    of(
        |report| report["content_length"] = json!(10_240),
        "a tar of 10240 bytes does not fit its index",
    );
    of(
        |report| report["requests"] = json!(1),
        "1 requests and 0 retries do not fit 4096 ranges",
    );
}

#[test]
fn a_report_of_something_else_is_damaged() {
    let damage_of = |change: fn(&mut serde_json::Value), damage: &str| {
        let change = |folder: &Path| change_json(&folder.join("00.json"), change);
        assert_damages(change, &[damage]);
    };
    damage_of(
        |report| report["source"] = json!("https://other.example/\u{1b}[2J"),
        r#"00.json: names the source "https://other.example/\x1b[2J", but the manifest names "https://ranges.example""#,
    );
    damage_of(
        |report| report["prefix"] = json!("01"),
        "00.json: describes another prefix",
    );
    assert_damages(
        |folder| std::fs::remove_file(folder.join("00.json")).expect("removed"),
        &["00.json: is missing"],
    );
}

#[test]
fn a_tar_is_compared_with_the_manifest_if_its_report_does_not_help() {
    let folder = archive_of(&[ONE, TWO]);
    std::fs::remove_file(folder.path().join("00.json")).expect("removed");
    let path = folder.path().join("00.tar");
    let mut tar = std::fs::read(&path).expect("a tar");
    // Another count, in a tar that is valid by itself.
    tar[512 + 36] = b'7';
    std::fs::write(path, tar).expect("written");
    let damages = lines(&folder_verdict(folder.path()).damages);
    assert_eq!(damages.len(), 2, "{damages:?}");
    assert!(damages[1].starts_with("00.tar: has CRC32C"), "{damages:?}");
    assert!(damages[1].ends_with("in the manifest"), "{damages:?}");
}

#[test]
fn a_manifest_that_contradicts_the_archive_or_itself_is_damaged() {
    let damages = |change: fn(&mut serde_json::Value), expected: &[&str]| {
        let change = |folder: &Path| change_json(&folder.join(MANIFEST_NAME), change);
        assert_damages(change, expected);
    };
    damages(
        |manifest| manifest["objects"][0]["crc32c"] = json!("AAAAAA=="),
        &["manifest.json: contradicts the report of 00"],
    );
    damages(
        |manifest| {
            manifest["objects"]
                .as_array_mut()
                .expect("a list")
                .reverse();
        },
        &["manifest.json: does not list its prefixes in order"],
    );
    damages(
        |manifest| {
            let objects = manifest["objects"].as_array_mut().expect("a list");
            objects.push(objects[1].clone());
        },
        &[
            "manifest.json: names a prefix twice",
            "manifest.json: has totals that are not the sums over its objects",
        ],
    );
    damages(
        |manifest| {
            manifest["objects"].as_array_mut().expect("a list").pop();
        },
        &[
            "manifest.json: does not name 01, which is in the archive",
            "manifest.json: has totals that are not the sums over its objects",
        ],
    );
    damages(
        |manifest| manifest["totals"]["hashes"] = json!(7),
        &["manifest.json: has totals that are not the sums over the reports"],
    );
    damages(
        |manifest| manifest["objects"][0]["content_length"] = json!(u64::MAX),
        &[
            "manifest.json: contradicts the report of 00",
            "manifest.json: has totals that are not the sums over its objects",
        ],
    );
}

#[test]
fn a_manifest_that_names_no_prefix_or_another_file_is_damaged() {
    assert_damages(
        |folder| {
            change_json(&folder.join(MANIFEST_NAME), |manifest| {
                manifest["objects"] = json!([]);
                manifest["totals"] = json!({
                    "prefixes": 0, "ranges": 0, "hashes": 0, "data_bytes": 0, "content_length": 0, "requests": 0,
                    "retries": 0
                });
            });
        },
        &[
            "manifest.json: does not name 00, which is in the archive",
            "manifest.json: does not name 01, which is in the archive",
            "manifest.json: names no prefix",
        ],
    );
    assert_damages(
        |folder| {
            std::fs::remove_file(folder.join("00.json")).expect("removed");
            change_json(&folder.join(MANIFEST_NAME), |manifest| {
                manifest["objects"][0]["object"] = json!("../00.tar");
            });
        },
        &[
            "00.json: is missing",
            "manifest.json: names another file than 00.tar",
        ],
    );
}

const RUN: &str = "20261125T031700Z-1a2b3c4d";

/// Writes the record of the run [`RUN`].
fn write_record(folder: &Path, prefixes: &[Prefix]) {
    let prefixes: Vec<_> = prefixes
        .iter()
        .map(|prefix| json!({"prefix": prefix, "base": null, "kept": false}))
        .collect();
    let record = json!({
        "tool": "prefix-tar", "version": "0.1.0", "run": RUN, "source": "http://127.0.0.1:1\u{1b}[2J",
        "started": "2026-11-25T03:17:00Z", "force": true, "upload_seconds": 660, "closed": false,
        "prefixes": prefixes
    });
    std::fs::write(folder.join("run.json"), record.to_string()).expect("written");
}

#[test]
fn a_prefix_that_was_removed_from_the_archive_and_its_manifest_is_missed() {
    let folder = archive_of(&[ONE]);
    write_record(folder.path(), &[ONE, TWO]);
    change_json(&folder.path().join(MANIFEST_NAME), |manifest| {
        manifest["run"] = json!(RUN);
    });
    assert_eq!(
        lines(&folder_verdict(folder.path()).damages),
        ["manifest.json: does not name 01, which its run has mirrored, see run.json"]
    );
    // A later run has other prefixes, and says nothing about those of the manifest.
    change_json(&folder.path().join(MANIFEST_NAME), |manifest| {
        manifest["run"] = json!("20261124T031700Z-1a2b3c4d");
    });
    assert_eq!(folder_verdict(folder.path()).damages, []);
}

#[test]
fn an_archive_that_was_copied_or_restored_is_whole() {
    assert_damages(
        |folder| {
            change_json(&folder.join(MANIFEST_NAME), |manifest| {
                manifest["objects"][0]["generation"] = json!("7");
            });
        },
        &[],
    );
}

#[test]
fn a_record_of_a_run_that_is_not_valid_is_damage() {
    let folder = archive_of(&[ONE]);
    std::fs::write(folder.path().join("run.json"), "{}").expect("written");
    let damages = lines(&folder_verdict(folder.path()).damages);
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert!(
        damages[0].starts_with("run.json: is not valid: missing field"),
        "{damages:?}"
    );
}

#[test]
fn a_run_whose_archive_has_no_manifest_is_called_unfinished_without_one() {
    let folder = archive_of(&[ONE]);
    write_record(folder.path(), &[ONE]);
    std::fs::remove_file(folder.path().join(MANIFEST_NAME)).expect("removed");
    let unfinished = folder_verdict(folder.path()).unfinished_run.expect("a run");
    assert!(
        unfinished
            .to_string()
            .contains("; no manifest says that it has ended; repeat"),
        "{unfinished}"
    );
}

#[test]
fn a_report_without_its_tar_is_damage_even_if_no_manifest_names_it() {
    assert_damages(
        |folder| {
            std::fs::copy(folder.join("00.json"), folder.join("7F.json")).expect("copied");
            change_json(&folder.join("7F.json"), |report| {
                report["prefix"] = json!("7F");
            });
        },
        &[
            "7F.tar: is missing",
            "manifest.json: does not name 7F, which is in the archive",
        ],
    );
}

#[test]
fn an_unfinished_run_is_named_and_is_no_damage() {
    let folder = archive_of(&[ONE]);
    write_record(folder.path(), &[]);
    let verdict = folder_verdict(folder.path());
    assert_eq!((verdict.damages, verdict.unreadable), (vec![], vec![]));
    assert_eq!(
        verdict.unfinished_run.expect("a run").to_string(),
        "unfinished: run 20261125T031700Z-1a2b3c4d from http://127.0.0.1:1\\u{1b}[2J began at 2026-11-25T03:17:00Z; until the run ends, the manifest describes the archive as it was before; repeat the command that began the run to resume it"
    );
    change_json(&folder.path().join("manifest.json"), |manifest| {
        manifest["run"] = json!(RUN);
    });
    assert_eq!(folder_verdict(folder.path()).unfinished_run, None);
}

#[test]
fn text_from_json_is_escaped_and_short() {
    let folder = archive_of(&[ONE]);
    let path = folder.path().join("00.json");
    change_json(&path, |report| {
        report["prefix"] = json!(format!("\u{1b}[2J{}", "x".repeat(100_000)));
    });
    let damages = lines(&folder_verdict(folder.path()).damages);
    assert!(damages[0].contains("\\u{1b}[2Jx"), "{damages:?}");
    assert!(damages[0].len() < 500, "{} bytes", damages[0].len());
}

/// What goes wrong with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Manifest,
    Report,
    HasTar,
    OpenTar,
    /// The tar can be read up to a byte.
    ReadTar,
    /// The tar is replaced while it is read, this many times.
    Replaced(u32),
    /// The first report that is read is the one of an earlier tar.
    EarlierReport,
}

/// An archive in a folder that has a fault.
struct Faulty {
    inner: FolderArchive,
    fault: Fault,
    /// How often the fault has occurred.
    count: AtomicU32,
}

impl Faulty {
    fn new(folder: &Path, fault: Fault) -> Self {
        Self {
            inner: FolderArchive::new(folder.to_owned()),
            fault,
            count: AtomicU32::new(0),
        }
    }

    fn fails(&self, fault: Fault) -> Result<(), ReadError> {
        if self.fault != fault {
            return Ok(());
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Err(ReadError::Unreadable {
            file: "gs://bucket/file".to_owned(),
            reason: "connection reset".to_owned(),
            is_transient: true,
        })
    }
}

/// A reader that fails.
struct Failing(fn() -> io::Error);

impl io::Read for Failing {
    fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
        Err((self.0)())
    }
}

#[async_trait::async_trait]
impl Archive for Faulty {
    async fn read(&self, file: &str, bytes_max: usize) -> Result<Option<StoredFile>, ReadError> {
        match file {
            MANIFEST_NAME => self.fails(Fault::Manifest)?,
            "00.json" => self.fails(Fault::Report)?,
            _ => {}
        }
        let is_earlier = self.fault == Fault::EarlierReport && file == "00.json";
        if is_earlier && self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut earlier = report_of(ONE, &tar_of(ONE));
            earlier.crc32c.0 ^= 1;
            return Ok(Some(StoredFile {
                content: serde_json::to_vec(&earlier).expect("JSON"),
                generation: "1".to_owned(),
            }));
        }
        self.inner.read(file, bytes_max).await
    }

    async fn generation(&self, file: &str) -> Result<Base, ReadError> {
        self.inner.generation(file).await
    }

    async fn object(&self, prefix: Prefix) -> Result<Option<StoredObject>, ReadError> {
        self.inner.object(prefix).await
    }

    async fn has_tar(&self, prefix: Prefix) -> Result<bool, ReadError> {
        self.fails(Fault::HasTar)?;
        self.inner.has_tar(prefix).await
    }

    async fn open_tar(&self, prefix: Prefix) -> Result<Option<TarReader>, ReadError> {
        if prefix != ONE {
            return self.inner.open_tar(prefix).await;
        }
        self.fails(Fault::OpenTar)?;
        let Some(tar) = self.inner.open_tar(prefix).await? else {
            return Ok(None);
        };
        let failing = match self.fault {
            Fault::ReadTar => Failing(|| io::ErrorKind::TimedOut.into()),
            Fault::Replaced(times) if self.count.fetch_add(1, Ordering::Relaxed) < times => {
                Failing(|| io::Error::other(Replaced))
            }
            _ => return Ok(Some(tar)),
        };
        Ok(Some(Box::new(tar.take(100_000).chain(failing))))
    }

    async fn read_tar_bytes(
        &self,
        prefix: Prefix,
        byte_range: Range<u64>,
    ) -> Result<Option<Bytes>, ReadError> {
        self.inner.read_tar_bytes(prefix, byte_range).await
    }
}

#[test]
fn what_cannot_be_read_is_not_called_damaged() {
    for (fault, expected) in [
        (Fault::Manifest, "manifest.json: connection reset"),
        (Fault::Report, "00.json: connection reset"),
        (Fault::OpenTar, "00.tar: connection reset"),
        (Fault::ReadTar, "00.tar: timed out"),
    ] {
        let folder = archive_of(&[ONE, TWO]);
        let verdict = verdict_of(&Faulty::new(folder.path(), fault));
        assert_eq!(lines(&verdict.unreadable), [expected], "{fault:?}");
        assert_eq!(verdict.damages, [], "{fault:?}");
    }
}

#[test]
fn damage_is_found_beside_what_cannot_be_read() {
    let folder = archive_of(&[ONE, TWO]);
    let path = folder.path().join("01.tar");
    let mut tar = std::fs::read(&path).expect("a tar");
    tar[512] = b'x';
    std::fs::write(path, tar).expect("written");
    let verdict = verdict_of(&Faulty::new(folder.path(), Fault::Report));
    assert_eq!(lines(&verdict.unreadable), ["00.json: connection reset"]);
    assert_eq!(verdict.damages.len(), 2, "{:?}", verdict.damages);
    assert!(verdict.damages.iter().all(|damage| damage.file == "01.tar"));
}

#[test]
fn a_store_that_does_not_say_which_tars_there_are_is_asked_once_by_each_worker() {
    let folder = archive_of(&[ONE, TWO]);
    let archive = Faulty::new(folder.path(), Fault::HasTar);
    let verdict = verdict_of(&archive);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = archive.count.load(Ordering::Relaxed) as usize;
    assert!((1..=workers).contains(&asked), "{asked} requests");
    assert_eq!(verdict.unreadable.len(), asked);
    assert!(
        verdict.unreadable[0]
            .what
            .starts_with("connection reset; other tars"),
        "{:?}",
        verdict.unreadable
    );
    assert_eq!(verdict.damages, []);
    assert_eq!(verdict.prefixes, 2, "what the manifest names is read");
}

#[test]
fn a_prefix_that_is_replaced_while_it_is_read_is_read_again_once() {
    let folder = archive_of(&[ONE, TWO]);
    for fault in [Fault::Replaced(1), Fault::EarlierReport] {
        let verdict = verdict_of(&Faulty::new(folder.path(), fault));
        let found = (verdict.damages, verdict.unreadable);
        assert_eq!(found, (vec![], vec![]), "{fault:?}");
        assert_eq!(verdict.ranges, 8192, "{fault:?}");
    }
    let verdict = verdict_of(&Faulty::new(folder.path(), Fault::Replaced(2)));
    assert_eq!(verdict.damages, []);
    assert_eq!(
        lines(&verdict.unreadable),
        [
            "00.tar: it was replaced 2 times while it was read; verify again when no run writes to the archive"
        ]
    );
}

#[test]
fn files_that_are_not_regular_are_damage_and_verify_does_not_hang() {
    let folder = archive_of(&[ONE, TWO]);
    let path = |name: &str| folder.path().join(name);
    for name in ["00.tar", "01.json", "01.tar"] {
        std::fs::remove_file(path(name)).expect("removed");
    }
    let made = std::process::Command::new("mkfifo")
        .arg(path("00.tar"))
        .status();
    assert!(made.expect("mkfifo runs").success());
    std::os::unix::fs::symlink("00.json", path("01.json")).expect("a link");
    std::fs::create_dir(path("01.tar")).expect("a folder");
    std::fs::create_dir(path("7F.tar")).expect("a folder");
    std::fs::create_dir(path("8F.json")).expect("a folder");
    let verdict = folder_verdict(folder.path());
    assert_eq!(
        lines(&verdict.damages),
        [
            "8F.json: is not valid: it is a directory, not a regular file",
            "00.tar: is not valid: it is a FIFO, not a regular file",
            "01.json: is not valid: it is a symbolic link, not a regular file",
            "01.tar: is not valid: it is a directory, not a regular file",
            "7F.json: is missing",
            "7F.tar: is not valid: it is a directory, not a regular file",
        ]
    );
    assert_eq!(verdict.unreadable, []);
}

#[test]
fn an_archive_of_ntlm_hashes_is_whole_and_states_its_mode() {
    let folder = archive_of_mode(&[ONE, TWO], Mode::Ntlm);
    let archive = FolderArchive::new(folder.path().to_owned());
    for expected in [None, Some(Mode::Ntlm)] {
        let verdict = verdict_of_mode(&archive, expected);
        assert_eq!((verdict.damages, verdict.unreadable), (vec![], vec![]));
        assert_eq!((verdict.ranges, verdict.hashes), (8192, 2 * 8192));
    }
    let verdict = verdict_of_mode(&archive, Some(Mode::Sha1));
    assert_eq!(
        lines(&verdict.damages),
        ["manifest.json: says that the archive holds NTLM hashes, not SHA-1 hashes"]
    );
    std::fs::remove_file(folder.path().join("manifest.json")).expect("removed");
    let verdict = folder_verdict(folder.path());
    assert_eq!(verdict.ranges, 8192, "the reports state the mode, too");
}

#[test]
fn a_tar_or_a_report_of_the_other_mode_is_damage() {
    for [mode, other] in [[Mode::Sha1, Mode::Ntlm], [Mode::Ntlm, Mode::Sha1]] {
        let (name, other_name) = (mode.hash_name(), other.hash_name());
        let folder = archive_of_mode(&[ONE, TWO], mode);
        std::fs::write(folder.path().join("00.tar"), tar_of_mode(ONE, other)).expect("written");
        let verdict = folder_verdict(folder.path());
        let damages = lines(&verdict.damages);
        let expected = format!(
            "00.tar: range 00000 is not valid: line 1 is of a range of {other_name} hashes"
        );
        assert!(damages.contains(&expected), "{damages:?}");
        assert_eq!(verdict.ranges, 4096, "those of the other prefix");

        let whole = archive_of_mode(&[ONE], other);
        for file in ["00.tar", "00.json"] {
            std::fs::copy(whole.path().join(file), folder.path().join(file)).expect("copied");
        }
        let damages = lines(&folder_verdict(folder.path()).damages);
        let of_report =
            format!("00.json: is about {other_name} hashes, but the archive holds {name} hashes");
        assert!(damages.contains(&of_report), "{damages:?}");
        assert!(damages.contains(&expected), "{damages:?}");
    }
}
