//! The archive matches the source byte for byte, whatever protocol or encoding the source uses.

use crate::harness::source::{Reply, Source, valid_body};
use crate::harness::{
    assert_extracts_to, files_of, generated, run, run_config, run_whole, tars_of, verified,
};
use orchestrator::generate::HASHES_PER_RANGE;
use orchestrator::run::event::RUN_EVENTS_MAX;
use orchestrator::run::shutdown::Shutdown;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::source::Encoding;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_ranges_give_the_same_tars_with_and_without_gzip_and_for_every_window() {
    let ranges = generated("00-01", HASHES_PER_RANGE);
    let archive = tempfile::tempdir().expect("a folder");
    let source = Source::of_folder(ranges.path()).await;
    run_whole(run_config(&source.url(), archive.path(), "00-01")).await;
    assert_extracts_to(archive.path(), ranges.path());
    let tars = tars_of(archive.path());
    assert_eq!(tars.keys().collect::<Vec<_>>(), ["00.tar", "01.tar"]);

    let same = async |change: &dyn Fn(&mut orchestrator::run::RunConfig), what: &str| {
        let other = tempfile::tempdir().expect("a folder");
        let mut config = run_config(&source.url(), other.path(), "00-01");
        change(&mut config);
        run_whole(config).await;
        assert!(tars_of(other.path()) == tars, "{what} gives other tars");
    };
    same(&|config| config.encoding = Some(Encoding::Gzip), "gzip").await;
    for window in [1, 16, 64, 128] {
        let what = format!("window {window}");
        same(&|config| config.dispatch.window = Some(window), &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_whole_with_its_reports_and_its_manifest() {
    let ranges = generated("AB,FF", 40);
    let archive = tempfile::tempdir().expect("a folder");
    let source = Source::of_folder(ranges.path()).await;
    run_whole(run_config(&source.url(), archive.path(), "AB,FF")).await;
    let files = files_of(archive.path());
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        [
            "AB.json",
            "AB.tar",
            "FF.json",
            "FF.tar",
            "manifest.json",
            "measurements.json",
            "run.json"
        ]
    );
    let verdict = verified(archive.path());
    assert_eq!(verdict.damages, []);
    assert_eq!((verdict.prefixes, verdict.ranges), (2, 2 * 4096));

    let report: Report = serde_json::from_slice(&files["AB.json"]).expect("a report");
    assert_eq!(report.requests, 4096);
    assert_eq!(report.retries, 0);
    assert_eq!(report.content_length, files["AB.tar"].len() as u64);
    assert!(report.range_etags.iter().all(|etag| !etag.is_empty()));
    // The report is an index of the tar: range 7FF is where the sizes before it say.
    let before: u64 = report.range_bytes[..0x7FF]
        .iter()
        .map(|bytes| prefix_tar::engine::tar::entry_bytes(u64::from(*bytes)))
        .sum();
    let at = usize::try_from(before).expect("an offset") + prefix_tar::engine::tar::BLOCK_BYTES;
    let body = std::fs::read(ranges.path().join("AB7FF.txt")).expect("a range");
    assert!(files["AB.tar"][at..].starts_with(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_another_source_is_replaced_by_force_only() {
    let (first, second) = (generated("00", 30), generated("00", 60));
    let archive = tempfile::tempdir().expect("a folder");
    let source = Source::of_folder(first.path()).await;
    run_whole(run_config(&source.url(), archive.path(), "00")).await;
    let before = files_of(archive.path());
    let source = Source::of_folder(second.path()).await;
    let mut config = run_config(&source.url(), archive.path(), "00");
    let (sender, _events) = tokio::sync::mpsc::channel(RUN_EVENTS_MAX);
    let refused = config.clone().run(Shutdown::default(), sender).await;
    let refused = format!("{:#}", refused.expect_err("another source"));
    assert!(refused.contains("replace it with --force"), "{refused}");
    assert!(files_of(archive.path()) == before, "a file has changed");
    config.force = true;
    run_whole(config).await;
    assert_extracts_to(archive.path(), second.path());
    let verdict = verified(archive.path());
    assert_eq!(verdict.damages, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_the_place_of_a_report_fails_a_forced_run_at_once_if_the_run_needs_that_name() {
    let ranges = generated("00", 30);
    let archive = tempfile::tempdir().expect("a folder");
    let source = Source::of_folder(ranges.path()).await;
    let mut config = run_config(&source.url(), archive.path(), "00");
    config.force = true;
    run_whole(config.clone()).await;
    let tar_before = std::fs::metadata(archive.path().join("00.tar")).expect("a tar");

    // A name that the run does not need.
    std::fs::create_dir(archive.path().join("55.json")).expect("a folder");
    run_whole(config.clone()).await;
    let tar = std::fs::metadata(archive.path().join("00.tar")).expect("a tar");
    assert_ne!(tar.ino(), tar_before.ino(), "mirrored again");

    let report = archive.path().join("00.json");
    std::fs::remove_file(&report).expect("removed");
    std::fs::create_dir(&report).expect("a folder");
    let (sender, _events) = tokio::sync::mpsc::channel(RUN_EVENTS_MAX);
    let refused = config.run(Shutdown::default(), sender).await;
    let refused = format!("{:#}", refused.expect_err("a folder"));
    assert!(
        refused.ends_with("00.json is not valid: it is a directory, not a regular file"),
        "{refused}"
    );
    let after = std::fs::metadata(archive.path().join("00.tar")).expect("a tar");
    assert_eq!(after.ino(), tar.ino(), "nothing was mirrored");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_outgrow_the_estimate_are_stored_by_the_second_attempt() {
    let source = Source::answering(|range| {
        Reply::Body(valid_body(
            range,
            if range.index() < 100 { 2_000 } else { 6_000 },
        ))
    })
    .await;
    let archive = tempfile::tempdir().expect("a folder");
    let run = run_whole(run_config(&source.url(), archive.path(), "00")).await;
    let attempts: Vec<u32> = run
        .outcome
        .stored
        .values()
        .map(|stored| stored.attempts)
        .collect();
    assert_eq!(attempts, [2]);
    let verdict = verified(archive.path());
    assert_eq!(verdict.damages, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_fails_is_named_and_the_others_are_stored_without_a_manifest() {
    let source = Source::answering(|range| {
        if range.to_string() == "017FF" {
            Reply::Status(404)
        } else {
            Reply::Body(valid_body(range, 1_000))
        }
    })
    .await;
    let archive = tempfile::tempdir().expect("a folder");
    let run = run(run_config(&source.url(), archive.path(), "00-03")).await;
    let failed: BTreeMap<String, String> = run
        .outcome
        .failed
        .values()
        .map(|failed| (failed.prefix.to_string(), failed.failure.to_string()))
        .collect();
    let message = format!("range 017FF: GET from {} answered 404", source.url());
    assert_eq!(failed, BTreeMap::from([("01".to_owned(), message)]));
    let files: Vec<String> = files_of(archive.path()).into_keys().collect();
    assert_eq!(
        files,
        [
            "00.json",
            "00.tar",
            "02.json",
            "02.tar",
            "03.json",
            "03.tar",
            "measurements.json",
            "run.json"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_range_enters_no_tar() {
    let swapped = {
        let body =
            String::from_utf8(valid_body(crate::harness::prefix("00").range(9), 400).to_vec())
                .expect("text");
        let mut lines: Vec<&str> = body.split_inclusive("\r\n").collect();
        lines.swap(3, 4);
        lines.concat()
    };
    for (body, what) in [
        (
            "<html>Sign in</html>".to_owned(),
            "line 1 does not begin with 35 upper-case hex characters",
        ),
        (swapped, "line 5 is not in strictly increasing order"),
        (String::new(), "line 1 is missing: the body is empty"),
        (
            format!("{:035X}:0\r\n", 1),
            "line 1 has no decimal count from 1",
        ),
    ] {
        let source = Source::answering(move |range| {
            Reply::Body(if range.index() == 9 {
                body.clone().into()
            } else {
                valid_body(range, 500)
            })
        })
        .await;
        let fixture = crate::harness::Fixture::new(&source.url(), |_| ()).await;
        let job = fixture.job(crate::harness::prefix("00")).await;
        let failure = fixture.invoke(job).await.expect_err("no range");
        assert!(failure.to_string().contains(what), "{failure}");
        assert!(
            failure.to_string().starts_with("range 00009: "),
            "{failure}"
        );
        assert_eq!(fixture.into_file_names().await, Vec::<String>::new());
    }
}
