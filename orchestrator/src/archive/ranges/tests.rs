use super::*;
use crate::archive::folder::FolderArchive;
use crate::archive::layout::{RUN_RECORD_NAME, report_name};
use crate::verify::sample::{ENTRY_BYTES, archive_of, report_of, tar_of};
use std::path::Path;

const PREFIX: Prefix = Prefix::from_number(0xAB);

async fn open(folder: &Path) -> RangeArchive {
    let archive = Arc::new(FolderArchive::new(folder.to_owned()));
    RangeArchive::open(archive).await.expect("an archive")
}

fn range(name: &str) -> RangeName {
    name.parse().expect("a range")
}

/// A tar like that of [`archive_of`], but with other counts in every range.
fn newer_tar() -> Vec<u8> {
    let tar = tar_of(PREFIX);
    let mut newer = tar.clone();
    for entry in 0..4096 {
        let count = entry * ENTRY_BYTES + BLOCK_BYTES + 36;
        newer[count] = b'7';
    }
    assert_ne!(newer, tar);
    newer
}

async fn generation(folder: &Path) -> Option<String> {
    let archive = FolderArchive::new(folder.to_owned());
    archive
        .generation(&tar_name(PREFIX))
        .await
        .expect("readable")
}

/// Records a run that has not finished, and that has found this generation of the tar.
fn write_run_record(folder: &Path, base: Option<&str>) {
    let record = serde_json::json!({
        "tool": "prefix-tar", "version": "0.1.0", "run": "20260201T000000Z-00000001", "source": "http://a",
        "started": "2026-02-01T00:00:00Z", "force": true, "upload_seconds": 60, "closed": false,
        "prefixes": [{"prefix": PREFIX, "base": base, "kept": false}],
    });
    std::fs::write(folder.join(RUN_RECORD_NAME), record.to_string()).expect("written");
}

#[tokio::test]
async fn a_range_comes_with_its_bytes_and_time_and_another_prefix_is_not_held() {
    let folder = archive_of(&[PREFIX]);
    let archive = open(folder.path()).await;
    let found = archive.range(range("AB003")).await.expect("a range");
    let tar = tar_of(PREFIX);
    let start = 3 * ENTRY_BYTES + BLOCK_BYTES;
    assert_eq!(found.body, tar[start..start + found.body.len()]);
    assert_eq!(found.modified_seconds, 1_767_225_600);
    assert_eq!(found.crc32c, Crc32c(crc32c::crc32c(&found.body)));
    assert!(found.is_listed);
    assert!(matches!(
        archive.range(range("AC003")).await,
        Err(RangeError::NotHeld(_))
    ));
}

#[tokio::test]
async fn a_flipped_bit_damages_its_range_only_and_the_message_names_no_range() {
    let folder = archive_of(&[PREFIX]);
    let mut tar = tar_of(PREFIX);
    tar[7 * ENTRY_BYTES + BLOCK_BYTES + 3] ^= 1;
    std::fs::write(folder.path().join(tar_name(PREFIX)), &tar).expect("written");
    let archive = open(folder.path()).await;
    let error = archive.range(range("AB007")).await.expect_err("damaged");
    assert_eq!(
        error.to_string(),
        "AB.tar is damaged: a range has another checksum than in its index"
    );
    for name in ["AB006", "AB008", "ABFFF"] {
        archive.range(range(name)).await.expect("whole");
    }
}

#[tokio::test]
async fn a_truncated_tar_serves_what_is_left_of_it() {
    let folder = archive_of(&[PREFIX]);
    let tar = tar_of(PREFIX);
    let path = folder.path().join(tar_name(PREFIX));
    std::fs::write(path, &tar[..9 * ENTRY_BYTES + BLOCK_BYTES + 40]).expect("written");
    let archive = open(folder.path()).await;
    let error = archive.range(range("ABFFF")).await.expect_err("damaged");
    assert_eq!(error.to_string(), "AB.tar is damaged: it ends early");
    archive.range(range("AB009")).await.expect_err("cut");
    archive.range(range("AB008")).await.expect("whole");
}

#[tokio::test]
async fn a_tar_that_was_replaced_is_read_with_its_new_report_or_without() {
    let folder = archive_of(&[PREFIX]);
    let archive = open(folder.path()).await;
    let old = archive.range(range("AB005")).await.expect("a range").body;
    let newer = newer_tar();
    let tar_path = folder.path().join(tar_name(PREFIX));
    let (aside, base) = (folder.path().join("aside"), generation(folder.path()).await);
    std::fs::write(&aside, &newer).expect("written");
    std::fs::rename(&aside, &tar_path).expect("replaced");
    write_run_record(folder.path(), base.as_deref());
    let found = archive.range(range("AB005")).await.expect("a range");
    assert!(!found.is_listed, "the manifest lists the tar before");
    let new = found.body;
    assert_ne!(new, old, "the tar without its report");
    let mut report = report_of(PREFIX, &newer);
    for (entry, crc32c) in report.range_crc32c.iter_mut().enumerate() {
        let start = entry * ENTRY_BYTES + BLOCK_BYTES;
        let data = &newer[start..start + report.range_bytes[entry] as usize];
        *crc32c = Crc32c(crc32c::crc32c(data));
    }
    let report = serde_json::to_vec(&report).expect("JSON");
    std::fs::write(folder.path().join(report_name(PREFIX)), report).expect("written");
    let again = archive.range(range("AB005")).await.expect("a range").body;
    assert_eq!(again, new);
}

#[tokio::test]
async fn a_damaged_range_does_not_make_the_books_be_read_for_every_request() {
    let folder = archive_of(&[PREFIX]);
    let (path, whole) = (folder.path().join(tar_name(PREFIX)), tar_of(PREFIX));
    let mut damaged = whole.clone();
    damaged[7 * ENTRY_BYTES + BLOCK_BYTES + 3] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    let archive = open(folder.path()).await;
    archive.range(range("AB007")).await.expect_err("damaged");
    let slot = &archive.prefixes[&PREFIX];
    let first = slot.reading.lock().await.clone();
    assert!(first.report.is_some() && first.tar.is_some());
    for _ in 0..3 {
        archive.range(range("AB007")).await.expect_err("damaged");
    }
    let last = slot.reading.lock().await.clone();
    assert_eq!((last.report, last.tar), (first.report, first.tar));
    std::fs::write(&path, &whole).expect("written");
    archive.range(range("AB007")).await.expect("mended");
}

#[tokio::test]
async fn a_valid_tar_that_nobody_has_stored_is_damaged() {
    // A changed count leaves the tar valid. Its own checksums must not prove it.
    let folder = archive_of(&[PREFIX]);
    let (tar_path, report_path) = (
        folder.path().join(tar_name(PREFIX)),
        folder.path().join(report_name(PREFIX)),
    );
    let known = open(folder.path()).await;
    known.range(range("AB005")).await.expect("whole");
    let base = generation(folder.path()).await;
    std::fs::write(&tar_path, newer_tar()).expect("written");
    let refused = async |archive: &RangeArchive| {
        let error = archive.range(range("AB005")).await.expect_err("damaged");
        assert!(matches!(error, RangeError::Damaged { .. }), "{error}");
    };
    refused(&known).await;
    refused(&open(folder.path()).await).await;
    let mut report = report_of(PREFIX, &tar_of(PREFIX));
    report.range_crc32c.clear();
    std::fs::write(&report_path, serde_json::to_vec(&report).expect("JSON")).expect("written");
    refused(&open(folder.path()).await).await;
    std::fs::remove_file(&report_path).expect("removed");
    refused(&open(folder.path()).await).await;
    // A run that has found this very tar has not stored it.
    write_run_record(folder.path(), generation(folder.path()).await.as_deref());
    refused(&open(folder.path()).await).await;
    write_run_record(folder.path(), base.as_deref());
    open(folder.path())
        .await
        .range(range("AB005"))
        .await
        .expect("stored by the run");
    // Without a report, the manifest describes the tar.
    std::fs::remove_file(folder.path().join(RUN_RECORD_NAME)).expect("removed");
    std::fs::write(&tar_path, tar_of(PREFIX)).expect("written");
    open(folder.path())
        .await
        .range(range("AB005"))
        .await
        .expect("listed");
}

#[tokio::test]
async fn a_report_of_version_0_1_0_is_enough_if_the_tar_is_whole() {
    let folder = archive_of(&[PREFIX]);
    let mut tar = tar_of(PREFIX);
    let mut report = report_of(PREFIX, &tar);
    report.range_crc32c.clear();
    let path = folder.path().join(report_name(PREFIX));
    std::fs::write(&path, serde_json::to_vec(&report).expect("JSON")).expect("written");
    let archive = open(folder.path()).await;
    archive.range(range("AB005")).await.expect("a range");
    tar[0] = b'X';
    std::fs::write(folder.path().join(tar_name(PREFIX)), &tar).expect("written");
    let error = open(folder.path()).await.range(range("AB005")).await;
    let error = error.expect_err("nothing says what is right").to_string();
    assert_eq!(
        error,
        "AB.tar is damaged: it is neither the tar of its report nor that of the manifest"
    );
}
