//! What platforms publish as their limits (128 MiB of memory, 30 s for an invocation, 10 MiB of request and of response),
//! and how much of that one prefix needs.

use crate::harness::distant::Distant;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::hosts::{RunningHost, Setup, every_host};
use crate::harness::program::measured;
use crate::harness::source::{Source, listener};
use crate::harness::{DEADLINE, generated, prefix, stage_of};
use orchestrator::destination::Destination as _;
use orchestrator::destination::folder::FolderDestination;
use orchestrator::generate::HASHES_PER_RANGE;
use orchestrator::host::embedded::Origin;
use orchestrator::http_server::HttpServer;
use prefix_tar::job::{Event, Job};
use prefix_tar::source::SourceUrl;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a request and a response may have, in bytes.
const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// The characters between an ETag's quotes, as Cloudflare makes them.
const ETAG_CHARACTERS: usize = 32;

/// What an invocation may take.
const INVOCATION_TIME_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_and_a_report_are_a_small_part_of_what_a_message_may_have() {
    let source = FaultySource::start(|range| body_of(range, 5), |_, _| None).await;
    let stage = stage_of(source.url()).await;
    let job = stage.job(prefix("AB")).await;
    let job_bytes = job.expose_to_the_wire().len();
    let mut report = stage.invoke(job).await.expect("stored");
    // As long as those of the real API.
    for etag in &mut report.range_etags {
        *etag = format!("W/\"{}\"", "0".repeat(ETAG_CHARACTERS));
    }
    let event = serde_json::to_string(&Event::Done {
        report: Box::new(report),
    })
    .expect("JSON");
    measured(&format!(
        "job {job_bytes} bytes, report {} bytes",
        event.len()
    ));
    assert!(job_bytes < MESSAGE_BYTES_MAX / 1000);
    assert!(event.len() < MESSAGE_BYTES_MAX / 20);
}

/// A source and a store that are a round trip away.
struct FarAway {
    source: Distant,
    store: Distant,
    destination: FolderDestination,
    _server: Option<HttpServer>,
    _folder: tempfile::TempDir,
}

impl FarAway {
    async fn new(source: &SourceUrl, round_trip: Duration) -> Self {
        let address: SocketAddr = source.authority().to_string().parse().expect("an address");
        let listening = listener().await;
        let store = Distant::to(listening.local_addr().expect("an address"), round_trip).await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = None;
        let destination = FolderDestination::open_behind(folder.path(), DEADLINE, |local| {
            server = Some(local.start(listening).expect("a server"));
            Origin::new(false, &store.address().to_string())
        })
        .await
        .expect("a destination");
        Self {
            source: Distant::to(address, round_trip).await,
            store,
            destination,
            _server: server,
            _folder: folder,
        }
    }

    fn setup(&self) -> Setup {
        let source = format!("http://{}", self.source.address());
        Setup::new(&source.parse().expect("a source"), self.store.address())
    }

    /// Mirrors AB and tells how that went.
    async fn measure(&self, host: &RunningHost, round_trip: Duration, window: u16) {
        let ab = prefix("AB");
        let job = Job {
            prefix: ab,
            upload: self.destination.prepare(ab).await.expect("signed"),
            content_length: None,
            window: Some(window),
        };
        let began = Instant::now();
        let outcome = host.host.invoke(job, &|_| ()).await;
        let took = began.elapsed();
        let report = outcome.unwrap_or_else(|failed| panic!("{}: {}", host.name, failed.failure));
        let fits = match took < INVOCATION_TIME_MAX {
            true => "fits",
            false => "does not fit",
        };
        let process = host.process_peak_bytes().map_or_else(String::new, |bytes| {
            format!(" {:.0} MiB", bytes as f64 / 1_048_576.0)
        });
        measured(&format!(
            "| {} | {} ms | {window} | {:.1} s | {:.2} MiB |{process} | {fits} |",
            host.name,
            round_trip.as_millis(),
            took.as_secs_f64(),
            report.linear_memory_peak as f64 / 1_048_576.0,
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes minutes, and measures: make soak"]
async fn how_long_a_prefix_takes_from_far_away() {
    let ranges = generated("AB", HASHES_PER_RANGE);
    let source = Source::of_folder(ranges.path()).await;
    measured("| host | round trip | window | time | linear memory | process | in 30 s |");
    for milliseconds in [20, 50] {
        let round_trip = Duration::from_millis(milliseconds);
        let far_away = FarAway::new(&source.url(), round_trip).await;
        for host in every_host(&far_away.setup()).await {
            for window in [8, 16, 32, 64, 128] {
                far_away.measure(&host, round_trip, window).await;
            }
        }
    }
}
