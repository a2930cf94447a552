//! A new archive replaces the one that is served, without a moment of anything else.

use super::{LINES, Mirrored, PREFIX, body_in, bucket_with, get, header, metrics, mirror, value};
use crate::harness::mirror_program::MirrorProgram;
use crate::harness::program::{output, texts};
use crate::harness::source::Source;
use crate::harness::{generated, prefix_set};
use orchestrator::generate::GeneratorConfig;
use prefix_tar::protocol::mode::Mode;
use std::path::Path;
use std::time::Duration;

/// The longest that a test waits for a new archive.
const DEADLINE: Duration = Duration::from_secs(60);

/// Ranges of another seed: every body is another one.
fn other_ranges() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let config = GeneratorConfig {
        seed: 27,
        hashes_per_range: LINES,
        mode: Mode::Sha1,
    };
    let generator = config.generator().expect("a generator");
    for prefix in prefix_set(PREFIX).iter() {
        generator
            .write_prefix(prefix, folder.path())
            .expect("ranges");
    }
    folder
}

/// Asks for a range until it is the new one. Each answer is one or the other.
async fn changes(url: &str, coding: &str, old: &Path, new: &Path) {
    let (old, new) = (body_in(old, "AB042"), body_in(new, "AB042"));
    assert_ne!(old, new);
    let switched = async {
        loop {
            let response = get(url, "/range/AB042", &[("accept-encoding", coding)]).await;
            assert_eq!(response.status(), 200);
            let body = super::decoded(&response);
            if body == new {
                break;
            }
            assert!(body == old, "neither the old body nor the new one");
        }
    };
    tokio::time::timeout(DEADLINE, switched)
        .await
        .expect("the new archive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_archive_in_a_folder_is_served_when_its_manifest_is_written() {
    let (mirrored, other) = (Mirrored::new().await, other_ranges());
    let server = MirrorProgram::of_folder(mirrored.archive.path(), &[]);
    let url = server.url();
    let before = get(url, "/range/AB042", &[]).await;
    get(url, "/range/AB042", &[("accept-encoding", "br")]).await;
    let switching = changes(url, "br", mirrored.ranges.path(), other.path());
    tokio::join!(switching, mirror(other.path(), mirrored.archive.path()));
    let after = get(url, "/range/AB042", &[]).await;
    assert!(after.body() == &body_in(other.path(), "AB042"));
    assert_ne!(header(&before, "etag"), header(&after, "etag"));
    let known = [("if-none-match", header(&before, "etag"))];
    assert_eq!(get(url, "/range/AB042", &known).await.status(), 200);
    assert_eq!(server.stopped().await, "stopping\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_archive_in_a_bucket_is_served_when_its_manifest_is_written() {
    let (first, second) = (generated(PREFIX, LINES), other_ranges());
    let store = bucket_with(first.path()).await;
    let command = store.command(&["serve"], "archive");
    let server = MirrorProgram::start(command, &["--poll", "1"]);
    let source = Source::of_folder(second.path()).await;
    let url = source.url().to_string();
    let run = [
        "run",
        "--force",
        "--prefixes",
        PREFIX,
        "--source",
        &url,
        "--to",
    ];
    let run = output(store.command(&run, "archive"));
    let switching = changes(server.url(), "gzip", first.path(), second.path());
    let ((), run) = tokio::join!(switching, run);
    assert!(run.status.success(), "{}", texts(&run));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_waits_for_the_first_manifest() {
    let (ranges, archive) = (
        generated(PREFIX, LINES),
        tempfile::tempdir().expect("a folder"),
    );
    let server = MirrorProgram::of_folder(archive.path(), &[]);
    let url = server.url();
    server.has_logged("has no manifest yet").await;
    assert_eq!(get(url, "/healthz", &[]).await.status(), 200);
    for path in ["/readyz", "/range/AB000"] {
        let response = get(url, path, &[]).await;
        assert_eq!(response.status(), 503, "{path}");
        assert_eq!(header(&response, "retry-after"), "5");
    }
    mirror(ranges.path(), archive.path()).await;
    let ready = async { while get(url, "/readyz", &[]).await.status() != 200 {} };
    tokio::time::timeout(DEADLINE, ready).await.expect("ready");
    let response = get(url, "/range/AB000", &[]).await;
    assert!(response.body() == &body_in(ranges.path(), "AB000"));
    assert!(
        value(
            &metrics(url).await,
            "prefix_tar_requests_total{status=\"503\"}"
        ) >= 2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_whose_manifest_is_removed_is_served_on() {
    let mirrored = Mirrored::new().await;
    let server = MirrorProgram::of_folder(mirrored.archive.path(), &[]);
    std::fs::remove_file(mirrored.archive.path().join("manifest.json")).expect("removed");
    server.has_logged("there is no manifest").await;
    let response = get(server.url(), "/range/AB001", &[]).await;
    assert!(response.body() == &mirrored.body("AB001"));
    assert_eq!(get(server.url(), "/readyz", &[]).await.status(), 200);
}
