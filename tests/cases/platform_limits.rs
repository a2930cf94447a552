//! One prefix compared with the limits that platforms publish: 128 MiB of memory, 30 s per
//! invocation, 10 MiB per request and per response.

use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::hosts::{HostKind, RunningHost, Setup};
use crate::harness::latency::LatencyProxy;
use crate::harness::program::measured;
use crate::harness::source::{Source, listener};
use crate::harness::{DEADLINE, default_fixture, generated, prefix, signed_upload};
use orchestrator::destination::folder::{FolderDestination, serve};
use orchestrator::generate::HASHES_PER_RANGE;
use orchestrator::http_server::HttpServer;
use orchestrator::origin::Origin;
use prefix_tar::protocol::event::Event;
use prefix_tar::protocol::job::Job;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::source::SourceUrl;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The longest request or response, in bytes.
const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Characters between the quotes of an ETag from Cloudflare.
const ETAG_CHARACTERS: usize = 32;

/// The longest invocation.
const INVOCATION_TIME_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_and_a_report_stay_far_below_the_message_limit() {
    let source = FaultySource::start(|range| body_of(range, 5), |_, _| None).await;
    let fixture = default_fixture(source.url()).await;
    let job = fixture.job(prefix("AB")).await;
    let job_bytes = job.expose_secret().len();
    let mut report = fixture.invoke(job).await.expect("stored");
    // As long as the real API's ETags.
    for etag in &mut report.range_etags {
        *etag = format!("W/\"{}\"", "0".repeat(ETAG_CHARACTERS));
    }
    let event = serde_json::to_string(&Event::Done {
        report: Box::new(report),
        recording: None,
    })
    .expect("JSON");
    measured(&format!(
        "job {job_bytes} bytes, report {} bytes",
        event.len()
    ));
    assert!(job_bytes < MESSAGE_BYTES_MAX / 1000);
    assert!(event.len() < MESSAGE_BYTES_MAX / 20);
}

/// A source and a store behind a network with latency.
struct DistantPeers {
    source: LatencyProxy,
    store: LatencyProxy,
    destination: FolderDestination,
    _server: Option<HttpServer>,
    _folder: tempfile::TempDir,
}

impl DistantPeers {
    async fn new(source: &SourceUrl, round_trip: Duration) -> Self {
        let address: SocketAddr = source.authority().to_string().parse().expect("an address");
        let listening = listener().await;
        let store =
            LatencyProxy::start(listening.local_addr().expect("an address"), round_trip).await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = None;
        let destination = FolderDestination::open_behind(folder.path(), DEADLINE, |local| {
            server = Some(serve(listening, local).expect("a server"));
            Origin::new(false, &store.address().to_string())
        })
        .await
        .expect("a destination");
        Self {
            source: LatencyProxy::start(address, round_trip).await,
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

    /// Mirrors AB with each window, and prints the time and the memory that it took.
    async fn measure(&self, kind: HostKind, round_trip: Duration) {
        let host = kind.start(&self.setup()).await;
        for window in [8, 16, 32, 64, 128] {
            self.measure_window(kind, &host, round_trip, window).await;
        }
    }

    async fn measure_window(
        &self,
        kind: HostKind,
        host: &RunningHost,
        round_trip: Duration,
        window: u16,
    ) {
        let ab = prefix("AB");
        let job = Job {
            prefix: ab,
            upload: signed_upload(&self.destination, ab).await,
            content_length: None,
            window: Some(window),
            base: None,
            mode: Mode::Sha1,
        };
        let started = Instant::now();
        let outcome = host.host.invoke(job, &|_| ()).await;
        let elapsed = started.elapsed();
        let report = outcome.unwrap_or_else(|failed| panic!("{}: {}", kind.name(), failed.failure));
        let fits = match elapsed < INVOCATION_TIME_MAX {
            true => "fits",
            false => "does not fit",
        };
        let process = host.process_peak_bytes().map_or_else(String::new, |bytes| {
            format!(" {:.0} MiB", bytes as f64 / 1_048_576.0)
        });
        measured(&format!(
            "| {} | {} ms | {window} | {:.1} s | {:.2} MiB |{process} | {fits} |",
            kind.name(),
            round_trip.as_millis(),
            elapsed.as_secs_f64(),
            report.linear_memory_peak as f64 / 1_048_576.0,
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `make soak`"]
async fn the_time_of_a_prefix_is_measured_over_a_network_with_latency() {
    let ranges = generated("AB", HASHES_PER_RANGE);
    let source = Source::of_folder(ranges.path()).await;
    measured("| host | round trip | window | time | linear memory | process | in 30 s |");
    for milliseconds in [20, 50] {
        let round_trip = Duration::from_millis(milliseconds);
        let peers = DistantPeers::new(&source.url(), round_trip).await;
        for kind in HostKind::ALL {
            match kind.missing() {
                None => peers.measure(kind, round_trip).await,
                Some(missing) => measured(missing),
            }
        }
    }
}
