//! A small valid archive, for tests.

use crate::archive::layout::{MANIFEST_NAME, report_name, tar_name};
use crate::archive::manifest::{ManifestObject, Totals};
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use prefix_tar::protocol::report::{Report, Seconds};
use std::path::Path;

/// The source that the reports and the manifest name.
const SOURCE: &str = "https://ranges.example";

/// The distance in the tar from the header of one range to that of the next, in bytes.
pub(crate) const ENTRY_BYTES: usize = 1024;

/// Two lines that no other range has.
fn body(range: RangeName, mode: Mode) -> String {
    let (number, characters) = (u32::from(range.index()), mode.suffix_characters());
    let [one, two] = [number + 1, number + 5000];
    format!("{one:0characters$X}:1\r\n{two:0characters$X}:22")
}

/// The tar of a prefix, as the `tar` crate builds it.
pub(crate) fn tar_of(prefix: Prefix) -> Vec<u8> {
    tar_of_mode(prefix, Mode::Sha1)
}

/// The same with hashes of this mode.
pub(crate) fn tar_of_mode(prefix: Prefix, mode: Mode) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for range in prefix.ranges() {
        let body = body(range, mode);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_767_225_600);
        header.set_size(body.len() as u64);
        builder
            .append_data(&mut header, range.file_name(), body.as_bytes())
            .expect("an appended entry");
    }
    let mut tar = builder.into_inner().expect("a tar");
    tar.resize(tar.len().next_multiple_of(10_240), 0);
    tar
}

/// The report on a tar whose ranges are those of [`tar_of`].
pub(crate) fn report_of(prefix: Prefix, tar: &[u8]) -> Report {
    report_of_mode(prefix, tar, Mode::Sha1)
}

/// The report on a tar whose ranges are those of [`tar_of_mode`].
pub(crate) fn report_of_mode(prefix: Prefix, tar: &[u8], mode: Mode) -> Report {
    let range_bytes: Vec<u32> = prefix
        .ranges()
        .map(|range| body(range, mode).len() as u32)
        .collect();
    Report {
        prefix,
        source: SOURCE.to_owned(),
        mode,
        run: None,
        ranges: 4096,
        hashes: 2 * 4096,
        data_bytes: range_bytes.iter().map(|bytes| u64::from(*bytes)).sum(),
        content_length: tar.len() as u64,
        crc32c: Crc32c(crc32c::crc32c(tar)),
        requests: 4096,
        retries: 0,
        seconds: Seconds::default(),
        linear_memory_peak: 0,
        generation: None,
        etag: None,
        range_etags: vec![String::new(); range_bytes.len()],
        range_crc32c: prefix
            .ranges()
            .map(|range| Crc32c(crc32c::crc32c(body(range, mode).as_bytes())))
            .collect(),
        range_bytes,
        cached_errors: Vec::new(),
        reuse: None,
        seen: None,
    }
}

/// A whole archive of these prefixes.
pub(crate) fn archive_of(prefixes: &[Prefix]) -> tempfile::TempDir {
    archive_of_mode(prefixes, Mode::Sha1)
}

/// The same with hashes of this mode. Of SHA-1, it is as version 0.1.0 wrote it: no file states a mode.
pub(crate) fn archive_of_mode(prefixes: &[Prefix], mode: Mode) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let reports: Vec<Report> = prefixes
        .iter()
        .map(|prefix| {
            let tar = tar_of_mode(*prefix, mode);
            let report = report_of_mode(*prefix, &tar, mode);
            std::fs::write(folder.path().join(tar_name(*prefix)), &tar).expect("written");
            write_json(&folder.path().join(report_name(*prefix)), &report);
            report
        })
        .collect();
    let totals: Totals = reports.iter().map(Totals::of_report).sum();
    let objects: Vec<ManifestObject> = reports.iter().map(ManifestObject::of_report).collect();
    let mut manifest = serde_json::json!({
        "tool": "prefix-tar",
        "version": "0.1.0",
        "source": SOURCE,
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:01:00Z",
        "totals": totals,
        "objects": objects,
    });
    if mode != Mode::Sha1 {
        manifest["mode"] = serde_json::json!(mode);
    }
    write_json(&folder.path().join(MANIFEST_NAME), &manifest);
    folder
}

fn write_json(path: &Path, value: &impl serde::Serialize) {
    let json = serde_json::to_vec(value).expect("JSON");
    std::fs::write(path, json).expect("written");
}

/// Changes a JSON file.
pub(crate) fn change_json(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let text = std::fs::read(path).expect("a file");
    let mut json = serde_json::from_slice(&text).expect("JSON");
    change(&mut json);
    write_json(path, &json);
}
