//! An archive that is served is a source like the one that it was mirrored from, also while it is replaced or damaged.

use crate::harness::mirror_program::MirrorProgram;
use crate::harness::source::Source;
use crate::harness::{fetch, generated, run_config, run_whole, tars_of};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use orchestrator::generate::{GeneratorConfig, HASHES_PER_RANGE};
use orchestrator::range_api::source::RangeSource;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RANGES_PER_PREFIX;
use prefix_tar::protocol::report::Report;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often the archive is replaced under load.
const REPLACEMENTS: usize = 50;

/// Clients that ask for ranges meanwhile.
const CLIENTS: u16 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_a_served_archive_is_the_same() {
    let ranges = generated("00,FF", HASHES_PER_RANGE);
    let (first, second) = (folder(), folder());
    let source = Source::of_folder(ranges.path()).await;
    run_whole(run_config(&source.url(), first.path(), "00,FF")).await;
    let served = MirrorProgram::of_folder(first.path(), &[]);
    let url = served.url().parse().expect("a source");
    run_whole(run_config(&url, second.path(), "00,FF")).await;
    assert!(tars_of(first.path()) == tars_of(second.path()));
    for name in ["00.json", "FF.json"] {
        let report = |archive: &Path| {
            let text = std::fs::read(archive.join(name)).expect("a report");
            serde_json::from_slice::<Report>(&text).expect("a report")
        };
        let (first, second) = (report(first.path()), report(second.path()));
        assert_eq!(first.range_etags, second.range_etags);
        assert_eq!(first.range_crc32c, second.range_crc32c);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_replaced_under_load_answers_with_whole_ranges_of_either() {
    let archive = folder();
    let sources = [synthetic(1).await, synthetic(2).await];
    run_whole(run_config(&sources[0].url(), archive.path(), "AB")).await;
    let served = Arc::new(MirrorProgram::of_folder(archive.path(), &[]));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (served, is_over) = (Arc::clone(&served), Arc::clone(&is_over));
        let expected = sources.each_ref().map(Source::url);
        clients.spawn(async move {
            let (mut seen, mut index) = (BTreeSet::new(), client);
            while !is_over.load(Ordering::Relaxed) {
                index = (index + 1021) % RANGES_PER_PREFIX;
                let name = format!("AB{index:03X}");
                let answer = range(served.url(), &name).await;
                assert_eq!(answer.status(), 200, "{:?}", answer.body());
                let mut from = None;
                for (number, source) in expected.iter().enumerate() {
                    let source = range(&source.to_string(), &name).await;
                    if source.body() == answer.body() {
                        from = Some(number);
                    }
                }
                seen.insert(from.expect("a range of one of the two"));
            }
            seen
        });
    }
    for replacement in 1..=REPLACEMENTS {
        let source = &sources[replacement % 2];
        let mut config = run_config(&source.url(), archive.path(), "AB");
        config.force = true;
        run_whole(config).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut seen = BTreeSet::new();
    while let Some(client) = clients.join_next().await {
        seen.extend(client.expect("no answer was wrong"));
    }
    assert_eq!(seen, BTreeSet::from([0, 1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_the_ranges_that_it_hits_and_no_others() {
    let archive = folder();
    let source = synthetic(3).await;
    run_whole(run_config(&source.url(), archive.path(), "AA-AB")).await;
    let report = std::fs::read(archive.path().join("AA.json")).expect("a report");
    let report: Report = serde_json::from_slice(&report).expect("a report");
    let at = |name: &str| {
        let range = name.parse().expect("a range");
        report.byte_range(range).expect("in the report")
    };
    let path = archive.path().join("AA.tar");
    let mut tar = std::fs::read(&path).expect("a tar");
    let flipped = usize::try_from(at("AA123").start).expect("an offset") + 5;
    tar[flipped] ^= 4;
    let cut = usize::try_from(at("AA800").start).expect("an offset") + 1;
    std::fs::write(&path, &tar[..cut]).expect("written");
    let served = MirrorProgram::of_folder(archive.path(), &[]);
    for (name, status) in [
        ("AA000", 200),
        ("AA122", 200),
        ("AA123", 500),
        ("AA124", 200),
        ("AA7FF", 200),
        ("AA800", 500),
        ("AAFFF", 500),
        ("AB123", 200),
        ("AC123", 404),
    ] {
        let answer = range(served.url(), name).await;
        assert_eq!(answer.status(), status, "{name}: {:?}", answer.body());
    }
}

/// Asks a range API for a range.
async fn range(url: &str, name: &str) -> Response<Bytes> {
    let request = Request::get(format!("{url}/range/{name}"));
    fetch(request.body(Full::default()).expect("a request")).await
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A source of small ranges.
async fn synthetic(seed: u64) -> Source {
    let source = RangeSource::synthetic(GeneratorConfig {
        seed,
        hashes_per_range: 20,
        mode: Mode::Sha1,
    });
    Source::of(source.expect("a generator")).await
}
