//! A run on a base fetches only what has changed, and its tars are those of a full run.

use crate::harness::changing_source::{ChangingSource, Etags};
use crate::harness::program::{orchestrator, output, texts};
use crate::harness::store_program::StoreProgram;
use crate::harness::{
    expected_tar, files_of, prefix, run, run_behind, run_config, run_whole, tars_of, verified,
};
use emulator::Emulator;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use orchestrator::archive::location::ArchiveLocation;
use orchestrator::archive::manifest::Manifest;
use orchestrator::origin::{InProcessBody, InProcessServer, Origin};
use orchestrator::run::RunConfig;
use orchestrator::run::event::{EventRecord, RUN_EVENTS_MAX, RunEvent};
use orchestrator::run::outcome::FinishedRun;
use orchestrator::run::shutdown::Shutdown;
use prefix_tar::protocol::report::Report;
use prefix_tar::protocol::source::SourceUrl;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const RANGES: u64 = 4096;

/// How much has changed, in ranges of each 1,000, and the index of the first range that may.
const CHANGES: [(u16, u16); 5] = [(1, 900), (50, 0), (50, 100), (300, 0), (1000, 0)];

fn on_base(source: &SourceUrl, to: &Path, base: &Path, prefixes: &str) -> RunConfig {
    RunConfig {
        base: Some(ArchiveLocation::Folder(base.to_owned())),
        ..run_config(source, to, prefixes)
    }
}

/// An archive of the source as it is now.
async fn archive_of(source: &ChangingSource, prefixes: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    run_whole(run_config(&source.url(), folder.path(), prefixes)).await;
    source.take_counts();
    folder
}

fn report(archive: &Path, name: &str) -> Report {
    let text = std::fs::read(archive.join(format!("{name}.json"))).expect("a report");
    serde_json::from_slice(&text).expect("a report")
}

fn manifest(archive: &Path) -> Manifest {
    let text = std::fs::read(archive.join("manifest.json")).expect("a manifest");
    serde_json::from_slice(&text).expect("a manifest")
}

fn assert_whole(archive: &Path) {
    let verdict = verified(archive);
    assert_eq!((verdict.damages, verdict.unreadable), (vec![], vec![]));
}

/// Runs `config`, and returns the reasons for which a base was not used.
async fn run_with_warnings(config: RunConfig) -> (FinishedRun, Vec<String>) {
    let (sender, mut events) = tokio::sync::mpsc::channel(RUN_EVENTS_MAX);
    let warnings = tokio::spawn(async move {
        let mut warnings = Vec::new();
        while let Some(event) = events.recv().await {
            if let RunEvent::BaseUnusable { .. } = &event {
                warnings.push(EventRecord::from(&event).to_line());
            }
        }
        warnings
    });
    let run = config.run(Shutdown::default(), sender).await;
    let run = run.expect("a run");
    assert!(run.outcome.is_complete(), "{:?}", run.outcome.failed);
    (run, warnings.await.expect("events"))
}

#[tokio::test(flavor = "multi_thread")]
async fn if_nothing_has_changed_no_body_is_sent_and_nothing_is_uploaded() {
    let source = ChangingSource::start(Etags::Strong).await;
    let archive = archive_of(&source, "AB,CD").await;
    let before = files_of(archive.path());
    let first = report(archive.path(), "AB");

    let config = on_base(&source.url(), archive.path(), archive.path(), "AB,CD");
    let run = run_whole(config).await;
    let counts = source.take_counts();
    assert_eq!((counts.requests, counts.bodies), (2 * RANGES, 0));
    let reused = run.outcome.reused();
    assert_eq!((reused.ranges, reused.unchanged_prefixes), (2 * RANGES, 2));

    let after = files_of(archive.path());
    for name in ["AB.tar", "CD.tar"] {
        assert!(before[name] == after[name], "{name} is another one");
    }
    let second = report(archive.path(), "AB");
    assert!(second.seen.is_some() && first.seen.is_none());
    assert_eq!(second.generation, first.generation);
    assert_ne!(second.run, first.run);
    let expected = Report {
        run: second.run.clone(),
        seen: second.seen.clone(),
        ..first
    };
    assert!(second == expected, "something else differs");
    assert_eq!(manifest(archive.path()).run, second.run);
    assert_whole(archive.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_has_changed_the_tars_are_those_of_a_full_run() {
    for (etags, changes) in [
        (Etags::Strong, &CHANGES[..]),
        (Etags::Weak, &CHANGES[1..2]),
        (Etags::Missing, &CHANGES[1..2]),
    ] {
        for &(per_mille, first) in changes {
            let source = ChangingSource::start(etags).await;
            let (here, old) = tokio::join!(archive_of(&source, "AB"), archive_of(&source, "AB"));
            source.change(per_mille, first, 1);
            let changed = source.changed_ranges("AB");
            let case = format!("{etags:?}, {per_mille} of 1,000 from {first}");
            let full = archive_of(&source, "AB").await;
            let expected = expected_tar("AB", |range| source.body(range));
            assert!(tars_of(full.path())["AB.tar"] == expected, "{case}: full");

            let in_place = on_base(&source.url(), here.path(), here.path(), "AB");
            let run = run_whole(in_place).await;
            let counts = source.take_counts();
            assert_eq!(counts.requests, RANGES, "{case}");
            let bodies = match etags {
                Etags::Missing => RANGES,
                _ => changed,
            };
            assert_eq!(counts.bodies, bodies, "{case}");
            assert_eq!(run.outcome.reused().ranges, RANGES - changed, "{case}");
            assert!(
                tars_of(here.path()) == tars_of(full.path()),
                "{case}: in place"
            );
            assert_whole(here.path());

            let elsewhere = tempfile::tempdir().expect("a folder");
            let old_files = files_of(old.path());
            run_whole(on_base(&source.url(), elsewhere.path(), old.path(), "AB")).await;
            assert_eq!(source.take_counts().bodies, bodies, "{case}");
            assert!(
                tars_of(elsewhere.path()) == tars_of(full.path()),
                "{case}: elsewhere"
            );
            assert!(files_of(old.path()) == old_files, "the base has changed");
            assert_whole(elsewhere.path());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_grows_past_the_declared_length_costs_a_second_invocation() {
    let source = ChangingSource::start(Etags::Strong).await;
    let archive = archive_of(&source, "AB").await;
    // The sample does not show it: only ranges beyond it grow.
    source.change(300, 200, 400);
    let full = archive_of(&source, "AB").await;
    let run = run_whole(on_base(&source.url(), archive.path(), archive.path(), "AB")).await;
    assert_eq!(run.outcome.stored[&prefix("AB")].attempts, 2);
    assert!(
        tars_of(archive.path()) == tars_of(full.path()),
        "the tars differ"
    );
    assert_whole(archive.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_base_elsewhere_is_copied_without_a_body_from_the_source() {
    let source = ChangingSource::start(Etags::Strong).await;
    let old = archive_of(&source, "AB").await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let run = run_whole(on_base(&source.url(), elsewhere.path(), old.path(), "AB")).await;
    let counts = source.take_counts();
    assert_eq!((counts.requests, counts.bodies), (RANGES, 0));
    assert_eq!(run.outcome.reused().unchanged_prefixes, 1);
    assert!(
        tars_of(elsewhere.path()) == tars_of(old.path()),
        "the tars differ"
    );
    assert_whole(elsewhere.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_copies_by_itself_what_has_not_changed_since_last_month() {
    let source = ChangingSource::start(Etags::Strong).await;
    let store = StoreProgram::start();
    let url = source.url().to_string();
    let run = async |to: &str, base: Option<&str>| {
        let location = base.map(|base| store.location(base));
        let mut arguments = vec!["run", "--source", &url, "--prefixes", "AB,CD"];
        arguments.extend(location.iter().flat_map(|base| ["--base", base]));
        arguments.push("--to");
        let ended = output(store.command(&arguments, to)).await;
        assert_eq!(ended.status.code(), Some(0), "{}", texts(&ended));
        texts(&ended)
    };
    run("a b/10", None).await;
    source.take_counts();
    source.change_only(prefix("AB").range(7), 1);
    run("full", None).await;
    source.take_counts();
    let text = run("a b/11", Some("a b/10")).await;
    assert_eq!(source.take_counts().bodies, 1);
    assert!(
        text.contains("; 1 of 2 tars unchanged and not uploaded"),
        "{text}"
    );
    let (new, full) = (store.archive("a b/11"), store.archive("full"));
    assert!(tars_of(&new) == tars_of(&full), "the tars differ");
    assert_whole(&new);
    let listed = manifest(&new).run;
    assert!(
        manifest(&new)
            .objects
            .iter()
            .all(|object| object.run == listed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_cannot_be_used_is_named_and_everything_is_fetched() {
    let source = ChangingSource::start(Etags::Strong).await;
    let other = ChangingSource::start(Etags::Strong).await;
    type Spoil = fn(&Path);
    let truncated: Spoil = |archive| {
        let tar = std::fs::read(archive.join("AB.tar")).expect("a tar");
        std::fs::write(archive.join("AB.tar"), &tar[..tar.len() / 2]).expect("written");
    };
    let flipped: Spoil = |archive| {
        let mut tar = std::fs::read(archive.join("AB.tar")).expect("a tar");
        let middle = tar.len() / 2;
        tar[middle] ^= 1;
        std::fs::write(archive.join("AB.tar"), tar).expect("written");
    };
    let old_report: Spoil = |archive| {
        let report = Report {
            range_crc32c: Vec::new(),
            ..report(archive, "AB")
        };
        let text = serde_json::to_vec(&report).expect("JSON");
        std::fs::write(archive.join("AB.json"), text).expect("written");
    };
    let no_report: Spoil =
        |archive| std::fs::remove_file(archive.join("AB.json")).expect("removed");
    let nothing: Spoil = |archive| {
        for name in files_of(archive).into_keys() {
            std::fs::remove_file(archive.join(name)).expect("removed");
        }
    };
    for (base_source, spoil, reason) in [
        (&source, truncated, "whole and fits its report"),
        (&source, flipped, "whole and fits its report"),
        (&source, no_report, "whole and fits its report"),
        (&source, old_report, "no checksums of single ranges"),
        (&source, nothing, "there is no archive"),
        (&other, |_| (), "it was mirrored from http://127.0.0.1:"),
    ] {
        let base = archive_of(base_source, "AB").await;
        spoil(base.path());
        for is_in_place in [false, true] {
            // Another source is refused in place, with a base or without.
            if is_in_place && std::ptr::eq(base_source, &other) {
                continue;
            }
            let elsewhere = tempfile::tempdir().expect("a folder");
            let to = if is_in_place {
                base.path()
            } else {
                elsewhere.path()
            };
            let config = on_base(&source.url(), to, base.path(), "AB");
            let (_, warnings) = run_with_warnings(config).await;
            assert_eq!(source.take_counts().bodies, RANGES, "{reason}");
            let [warning] = warnings.as_slice() else {
                panic!("{reason}: {warnings:?}")
            };
            assert!(warning.contains(reason), "{warning}");
            assert_whole(to);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_that_would_stay_is_fetched_if_its_report_has_another_index() {
    let spoil = |archive: &Path| {
        let mut report = report(archive, "AB");
        report.range_bytes[5] += 3;
        report.range_bytes[6] -= 3;
        let text = serde_json::to_vec(&report).expect("JSON");
        std::fs::write(archive.join("AB.json"), text).expect("written");
    };
    let source = ChangingSource::start(Etags::Strong).await;
    for is_in_place in [true, false] {
        let base = archive_of(&source, "AB").await;
        spoil(base.path());
        let elsewhere = tempfile::tempdir().expect("a folder");
        let to = if is_in_place {
            base.path()
        } else {
            elsewhere.path()
        };
        let run = run_whole(on_base(&source.url(), to, base.path(), "AB")).await;
        assert_eq!(source.take_counts().bodies, RANGES);
        assert_eq!(run.outcome.stored[&prefix("AB")].attempts, 2);
        assert_whole(to);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_shrinks_leaves_no_zeros_behind() {
    let source = ChangingSource::start(Etags::Strong).await;
    source.change(300, 100, 400);
    let archive = archive_of(&source, "AB").await;
    source.change(0, 0, 0);
    let full = archive_of(&source, "AB").await;
    run_whole(on_base(&source.url(), archive.path(), archive.path(), "AB")).await;
    assert!(
        tars_of(archive.path()) == tars_of(full.path()),
        "the tars differ"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_stays_whole_if_only_a_part_of_it_was_looked_at() {
    let source = ChangingSource::start(Etags::Strong).await;
    let archive = archive_of(&source, "AB,CD").await;
    let mut failing = on_base(&source.url(), archive.path(), archive.path(), "AB,CD");
    failing.dispatch.give_up_after = Duration::ZERO;
    source.refuse(prefix("CD"));
    let ended = run(failing).await;
    assert_eq!(
        (ended.outcome.stored.len(), ended.outcome.failed.len()),
        (1, 1)
    );
    assert_whole(archive.path());
}

/// What a store does to the GETs of a tar.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Another bit, at this byte.
    Flipped(usize),
    /// An end after so many bytes, without an error.
    Ended(usize),
    /// A lost connection after so many bytes, for so many requests.
    Lost(usize, u32),
    /// This status.
    Status(u16),
}

/// An emulator that delivers damaged tars.
struct DamagingStore {
    inner: Arc<Emulator>,
    fault: Fault,
    requests: Arc<AtomicU32>,
}

#[async_trait::async_trait]
impl InProcessServer for DamagingStore {
    async fn answer(&self, request: Request<InProcessBody>) -> io::Result<Response<InProcessBody>> {
        let is_tar = request.method() == Method::GET && request.uri().path().ends_with(".tar");
        let answer = InProcessServer::answer(&*self.inner, request).await?;
        if !is_tar {
            return Ok(answer);
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let (mut head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        let whole = |body: bytes::Bytes| http_body_util::Full::new(body);
        let body = match self.fault {
            Fault::Flipped(at) => {
                let mut damaged = body.to_vec();
                damaged[at] ^= 1;
                whole(damaged.into())
                    .map_err(|never| match never {})
                    .boxed_unsync()
            }
            Fault::Ended(at) => {
                head.headers.remove("content-length");
                let body = body.slice(..at);
                whole(body).map_err(|never| match never {}).boxed_unsync()
            }
            Fault::Lost(at, times) if number < times => {
                let part = body.slice(..at.min(body.len()));
                let frames = [
                    Ok(hyper::body::Frame::data(part)),
                    Err(io::ErrorKind::ConnectionReset.into()),
                ];
                let frames = futures::stream::iter(frames);
                http_body_util::StreamBody::new(frames).boxed_unsync()
            }
            Fault::Lost(..) => whole(body).map_err(|never| match never {}).boxed_unsync(),
            Fault::Status(status) => {
                head.status = StatusCode::from_u16(status).expect("a status");
                head.headers.clear();
                let empty = bytes::Bytes::new();
                whole(empty).map_err(|never| match never {}).boxed_unsync()
            }
        };
        Ok(Response::from_parts(head, body))
    }
}

/// Refreshes an archive in place behind a store with a fault. Returns its report, and how many GETs of the tar there
/// were.
async fn refreshed_behind(
    source: &ChangingSource,
    fault: impl FnOnce(&Report) -> Fault,
) -> (Report, u32) {
    let archive = archive_of(source, "AB").await;
    let fault = fault(&report(archive.path(), "AB"));
    source.change(20, 300, 1);
    let full = archive_of(source, "AB").await;
    let requests = Arc::<AtomicU32>::default();
    let counted = Arc::clone(&requests);
    let config = on_base(&source.url(), archive.path(), archive.path(), "AB");
    let run = run_behind(config, move |inner| {
        let server = DamagingStore {
            inner,
            fault,
            requests: counted,
        };
        Origin::in_process("localhost", Arc::new(server))
    })
    .await;
    assert!(run.outcome.is_complete(), "{:?}", run.outcome.failed);
    let measured = run.measurements.expect("a run that had something to do");
    let has_recording = measured
        .invocations
        .iter()
        .all(|one| one.recording.is_some());
    assert!(has_recording, "{fault:?}: the recording was refused");
    assert!(
        tars_of(archive.path()) == tars_of(full.path()),
        "{fault:?}: the tars differ"
    );
    assert_whole(archive.path());
    (
        report(archive.path(), "AB"),
        requests.load(Ordering::Relaxed),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_turns_out_to_be_damaged_is_given_up_there() {
    type Choose = fn(&Report) -> Fault;
    let in_header: Choose = |_| Fault::Flipped(0);
    let in_data: Choose = |report| {
        let data = report.byte_range(prefix("AB").range(1010));
        Fault::Flipped(data.expect("a range").start as usize + 40)
    };
    let ended: Choose = |_| Fault::Ended(1_000_001);
    for (fault, reason, requests, uses_some) in [
        (
            in_header,
            "range AB000 of the base's AB.tar is damaged: its header",
            1,
            false,
        ),
        (
            in_data,
            "range AB3F2 of the base's AB.tar is damaged",
            1,
            true,
        ),
        (ended, "ended after 1000001 bytes, too early", 1, true),
        (|_| Fault::Status(404), "was answered 404", 1, false),
        (|_| Fault::Status(412), "was answered 412", 1, false),
        (|_| Fault::Status(503), "was answered 503", 4, false),
    ] {
        let source = ChangingSource::start(Etags::Strong).await;
        let (report, sent) = refreshed_behind(&source, fault).await;
        let reuse = report.reuse.expect("a base");
        let given = reuse.fault.expect("a reason");
        assert!(given.contains(reason), "{given}");
        assert_eq!((sent, reuse.ranges > 0), (requests, uses_some), "{reason}");
        assert!(report.requests > RANGES, "those on the way were sent again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_whose_connection_is_lost_goes_on_where_it_was() {
    let source = ChangingSource::start(Etags::Strong).await;
    let (report, requests) = refreshed_behind(&source, |_| Fault::Lost(500_001, 3)).await;
    let reuse = report.reuse.expect("a base");
    assert_eq!((reuse.fault, requests), (None, 4));
    assert_eq!(
        u64::from(reuse.ranges),
        RANGES - source.changed_ranges("AB")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_for_another_etag_is_not_believed() {
    let source = ChangingSource::start(Etags::Strong).await;
    let archive = archive_of(&source, "AB").await;
    source.change(50, 0, 1);
    let full = archive_of(&source, "AB").await;
    source.confuse();
    let run = run(on_base(&source.url(), archive.path(), archive.path(), "AB")).await;
    assert!(run.outcome.is_complete(), "{:?}", run.outcome.failed);
    assert!(
        tars_of(archive.path()) == tars_of(full.path()),
        "the tars differ"
    );
    assert!(report(archive.path(), "AB").retries > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_another_source_is_not_replaced_because_it_is_named_as_the_base() {
    let (source, other) = (
        ChangingSource::start(Etags::Strong).await,
        ChangingSource::start(Etags::Strong).await,
    );
    let archive = archive_of(&other, "AB").await;
    let before = files_of(archive.path());
    let run = on_base(&source.url(), archive.path(), archive.path(), "AB");
    let (sender, _events) = tokio::sync::mpsc::channel(RUN_EVENTS_MAX);
    let refused = run.run(Shutdown::default(), sender).await;
    let error = refused.expect_err("refused").to_string();
    assert!(error.contains("replace it with --force"), "{error}");
    assert_eq!(source.take_counts().requests, 0);
    let mut after = files_of(archive.path());
    after.retain(|name, _| !name.starts_with('.'));
    assert!(after == before, "something has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_refreshes_an_archive_and_says_what_was_saved() {
    let source = ChangingSource::start(Etags::Strong).await;
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("archive");
    let refresh = async || {
        let mut command = orchestrator();
        command.args([
            "run",
            "--source",
            &source.url().to_string(),
            "--prefixes",
            "AB,CD",
        ]);
        command
            .arg("--to")
            .arg(&archive)
            .arg("--base")
            .arg(&archive);
        output(command).await
    };
    // The first time there is nothing to build on.
    let first = refresh().await;
    let text = texts(&first);
    assert_eq!(first.status.code(), Some(0), "{text}");
    let warning = "warning: every range is fetched, because the base cannot be used: ";
    assert!(text.contains(warning), "{text}");
    assert!(text.contains("/archive: there is no archive"), "{text}");
    assert!(!text.contains("from the base"), "{text}");
    source.change_only(prefix("AB").range(7), 1);
    let second = refresh().await;
    let text = texts(&second);
    assert_eq!(second.status.code(), Some(0), "{text}");
    assert!(
        text.contains("from the base: 8,191 of 8,192 ranges, "),
        "{text}"
    );
    assert!(
        text.contains("; 1 of 2 tars unchanged and not uploaded"),
        "{text}"
    );
    assert!(text.contains("CD unchanged: "), "{text}");
    assert!(text.contains(", 4,095 ranges from the base"), "{text}");
}
