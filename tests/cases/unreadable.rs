//! `verify` tells what could not be read from what is damaged, and exits with 3.

use crate::harness::broken_store::{BrokenStore, GetFault};
use crate::harness::program::{orchestrator, output, texts};
use crate::harness::source::Source;
use crate::harness::store_program::StoreProgram;
use crate::harness::{generated, run_config, run_whole};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1024 * 1024;

/// Stores two prefixes of about 6 MiB each.
async fn store_archive(folder: &Path) {
    let ranges = generated("00-01", 20);
    let source = Source::of_folder(ranges.path()).await;
    std::fs::create_dir_all(folder).expect("a folder");
    run_whole(run_config(&source.url(), folder, "00-01")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_lost_once_are_resumed_and_no_damage() {
    let store = BrokenStore::start(|file, number| {
        let is_cut = file.ends_with(".tar") && number <= 2;
        is_cut.then_some(GetFault::CutAt(2 * MIB))
    })
    .await;
    store_archive(&store.archive()).await;
    let verified = store.verify(&[]).await;
    let printed = texts(&verified);
    assert_eq!(verified.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("is whole: 2 prefixes, 8,192 ranges"),
        "{printed}"
    );
    for file in ["00.tar", "01.tar"] {
        let gets = store.gets(file);
        assert_eq!(gets.len(), 3, "{gets:?}");
        assert_eq!(gets[0], None);
        for resumed in &gets[1..] {
            let range = resumed.as_deref().expect("a byte range");
            assert!(
                range.starts_with("bytes=") && range.ends_with('-'),
                "{range}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_whose_connections_are_always_lost_could_not_be_read() {
    let store =
        BrokenStore::start(|file, _| (file == "00.tar").then_some(GetFault::CutAt(MIB / 2))).await;
    store_archive(&store.archive()).await;
    let verified = store.verify(&["--json"]).await;
    let printed = texts(&verified);
    assert_eq!(verified.status.code(), Some(3), "{printed}");
    let verdict: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(verdict["damages"], json!([]), "{printed}");
    assert_eq!(verdict["unreadable"][0]["file"], "00.tar", "{printed}");
    let what = verdict["unreadable"][0]["what"].as_str().expect("text");
    assert!(what.starts_with("6 connections were lost"), "{printed}");

    // Damage counts more than what could not be read.
    let path = store.archive().join("01.tar");
    let mut tar = std::fs::read(&path).expect("a tar");
    tar[600] ^= 1;
    std::fs::write(path, tar).expect("written");
    let verified = store.verify(&[]).await;
    let printed = texts(&verified);
    assert_eq!(verified.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("could not be read: 00.tar: 6 connections were lost"),
        "{printed}"
    );
    for damage in ["range 01000 has another checksum", "has CRC32C"] {
        let line = format!("damaged: 01.tar: {damage}");
        assert!(printed.contains(&line), "{printed}");
    }
    assert!(!printed.contains("damaged: 00"), "{printed}");
    assert!(
        printed.contains("has 2 problems and 1 file that could not be read; read: 1 prefix, "),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_or_a_manifest_that_the_store_does_not_deliver_could_not_be_read() {
    for file in ["manifest.json", "00.json"] {
        let store =
            BrokenStore::start(move |asked, _| (asked == file).then_some(GetFault::Status(400)))
                .await;
        store_archive(&store.archive()).await;
        let verified = store.verify(&[]).await;
        let printed = texts(&verified);
        assert_eq!(verified.status.code(), Some(3), "{printed}");
        let line = format!("could not be read: {file}: GET of a/{file} was answered 400");
        assert!(printed.contains(&line), "{printed}");
        assert!(!printed.contains("damaged"), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_not_read_finds_no_damage() {
    let store = StoreProgram::start_with(&["--role", "objectCreator"]);
    store_archive(&store.archive("a")).await;
    let verified = output(store.command(&["verify"], "a")).await;
    let printed = texts(&verified);
    assert_eq!(verified.status.code(), Some(3), "{printed}");
    assert!(
        printed.contains("could not be read: manifest.json: GET of a/manifest.json was answered 403 AccessDenied; the signing account needs storage.objects.get"),
        "{printed}"
    );
    assert!(!printed.contains("damaged"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_in_the_place_of_a_tar_is_named_and_does_not_block() {
    let archive = tempfile::tempdir().expect("a folder");
    store_archive(archive.path()).await;
    let tar = archive.path().join("01.tar");
    std::fs::remove_file(&tar).expect("removed");
    let mut fifo = Command::new("mkfifo");
    fifo.arg(&tar);
    assert!(output(fifo).await.status.success());
    let mut verify = Command::new("timeout");
    verify
        .args(["--signal", "KILL", "60"])
        .arg(orchestrator().get_program())
        .arg("verify")
        .arg(archive.path());
    let verified = output(verify).await;
    let printed = texts(&verified);
    assert_eq!(verified.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("damaged: 01.tar: is not valid: it is a FIFO, not a regular file"),
        "{printed}"
    );
}

/// The memory that a process may allocate while it verifies, in KiB.
const DATA_KIB_MAX: u64 = 400 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_that_asks_for_a_gibibyte_is_refused_within_the_usual_memory() {
    let archive = tempfile::tempdir().expect("a folder");
    store_archive(archive.path()).await;
    let mut header = tar::Header::new_gnu();
    header.set_path("././@LongLink").expect("a path");
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let path = archive.path().join("01.tar");
    std::fs::write(&path, header.as_bytes()).expect("written");
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    let sparse = file.expect("a file").set_len(512 + (1 << 30) + 10_240);
    sparse.expect("a sparse file");
    let mut verify = Command::new("sh");
    verify
        .args(["-c", "ulimit -d \"$0\" && exec \"$1\" verify \"$2\""])
        .arg(DATA_KIB_MAX.to_string())
        .arg(orchestrator().get_program())
        .arg(archive.path());
    let verified = output(verify).await;
    let printed = texts(&verified);
    assert_eq!(verified.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("damaged: 01.tar: has no ustar header at byte 0"),
        "{printed}"
    );
}
