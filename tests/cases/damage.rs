//! `verify` finds and names every kind of damage, and exits with 1.

use crate::harness::program::{orchestrator, texts};
use crate::harness::source::Source;
use crate::harness::{generated, run_config, run_whole, verified};
use std::path::Path;

/// A whole archive of two small prefixes.
async fn archive() -> tempfile::TempDir {
    let ranges = generated("00-01", 20);
    let archive = tempfile::tempdir().expect("a folder");
    let source = Source::of_folder(ranges.path()).await;
    run_whole(run_config(&source.url(), archive.path(), "00-01")).await;
    archive
}

fn damages(archive: &Path) -> Vec<String> {
    verified(archive)
        .damages
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("a file");
    how(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

/// Damages a fresh archive once, and expects `verify` to report it with these words.
async fn finds(words: &[&str], damage: impl FnOnce(&Path)) {
    let archive = archive().await;
    assert_eq!(damages(archive.path()), Vec::<String>::new());
    damage(archive.path());
    let found = damages(archive.path()).join("\n");
    for words in words {
        assert!(found.contains(words), "{words:?} is not in:\n{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_to_a_tar_is_named() {
    finds(
        &["00.tar: range 00000 is not valid", "00.tar: has CRC32C"],
        |archive| {
            change(&archive.join("00.tar"), |bytes| bytes[520] = b'x');
        },
    )
    .await;
    finds(&["00.tar: has CRC32C"], |archive| {
        // A count that is another count: a valid range, but not the one that was stored.
        change(&archive.join("00.tar"), |bytes| {
            let at = 512 + 36;
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
        });
    })
    .await;
    finds(
        &["01.tar: ends before range 01", "01.tar: has 51200 bytes"],
        |archive| {
            change(&archive.join("01.tar"), |bytes| {
                bytes.truncate(51_200);
                bytes[40_960..].fill(0);
            });
        },
    )
    .await;
    finds(
        &["01.tar: ends inside", "01.tar: has 50000 bytes"],
        |archive| {
            change(&archive.join("01.tar"), |bytes| bytes.truncate(50_000));
        },
    )
    .await;
    finds(&["01.tar: has data after its end marker"], |archive| {
        change(&archive.join("01.tar"), |bytes| {
            *bytes.last_mut().expect("bytes") = 1;
        });
    })
    .await;
    finds(
        &["01.tar: has entry \"00000.txt\" where 01000.txt should be"],
        |archive| {
            std::fs::copy(archive.join("00.tar"), archive.join("01.tar")).expect("copied");
        },
    )
    .await;
    finds(&["01.tar: is missing"], |archive| {
        std::fs::remove_file(archive.join("01.tar")).expect("removed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_to_what_describes_the_tars_is_named() {
    finds(&["01.json: is missing"], |archive| {
        std::fs::remove_file(archive.join("01.json")).expect("removed");
    })
    .await;
    finds(&["01.json: describes another prefix"], |archive| {
        std::fs::copy(archive.join("00.json"), archive.join("01.json")).expect("copied");
    })
    .await;
    finds(&["01.json: is not valid"], |archive| {
        change(&archive.join("01.json"), |bytes| bytes.truncate(100));
    })
    .await;
    finds(&["manifest.json: is missing"], |archive| {
        std::fs::remove_file(archive.join("manifest.json")).expect("removed");
    })
    .await;
    finds(
        &["manifest.json: contradicts the report of 00"],
        |archive| {
            let path = archive.join("manifest.json");
            let text = std::fs::read_to_string(&path).expect("a manifest");
            let text = text.replacen("\"00.tar\"", "\"01.tar\"", 1);
            std::fs::write(path, text).expect("written");
        },
    )
    .await;
    finds(
        &["manifest.json: does not name 02, which is in the archive"],
        |archive| {
            let text = std::fs::read_to_string(archive.join("01.json")).expect("a report");
            let text = text.replacen("\"prefix\":\"01\"", "\"prefix\":\"02\"", 1);
            std::fs::write(archive.join("02.json"), text).expect("written");
            std::fs::copy(archive.join("01.tar"), archive.join("02.tar")).expect("copied");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_exits_with_1_on_damage_and_0_without() {
    let archive = archive().await;
    let read = || {
        orchestrator()
            .arg("verify")
            .arg(archive.path())
            .output()
            .expect("it runs")
    };
    let whole = read();
    assert_eq!(whole.status.code(), Some(0), "{}", texts(&whole));
    change(&archive.path().join("00.tar"), |bytes| bytes[520] = b'x');
    let damaged = read();
    assert_eq!(damaged.status.code(), Some(1), "{}", texts(&damaged));
    assert!(texts(&damaged).contains("damaged: 00.tar: range 00000 is not valid"));
}
