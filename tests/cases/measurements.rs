//! A run measures itself: the trace and the page say what the reports and the manifest say, and a run does not depend
//! on its measurements.

use crate::harness::faults::SourceFault;
use crate::harness::faulty_source::{FaultySource, body_of};
use crate::harness::program::{orchestrator, output, texts};
use crate::harness::refusing_store::RefusingStore;
use crate::harness::verified;
use emulator::error::StoreError;
use http::Method;
use http::request::Parts;
use orchestrator::archive::manifest::Manifest;
use orchestrator::archive::measurements::Measurements;
use orchestrator::humanize;
use prefix_tar::limits::LINEAR_MEMORY_BYTES_MAX;
use prefix_tar::protocol::failure::FailureKind;
use prefix_tar::protocol::report::Report;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

const LINES: u64 = 5;

const MEASUREMENTS: &str = "measurements.json";

/// The range whose first request fails.
const REPEATED: &str = "00010";

/// Every range is whole; the first request for [`REPEATED`] is answered 500.
async fn source() -> FaultySource {
    let plan = |range: prefix_tar::protocol::prefix::RangeName, attempt| {
        let is_hit = attempt == 1 && range.to_string() == REPEATED;
        is_hit.then_some(SourceFault::Status(500))
    };
    FaultySource::start(|range| body_of(range, LINES), plan).await
}

fn is_put_of(parts: &Parts, name: &str) -> bool {
    parts.method == Method::PUT && parts.uri.path().ends_with(&format!("/{name}"))
}

/// A store that answers the first upload of `01.tar` with an error.
async fn store() -> RefusingStore {
    let is_refused = AtomicBool::new(false);
    RefusingStore::start(move |parts, _| {
        let is_first = is_put_of(parts, "01.tar") && !is_refused.swap(true, Ordering::Relaxed);
        is_first.then_some(StoreError::InternalError)
    })
    .await
}

/// Runs two prefixes side by side.
async fn run(store: &RefusingStore, source: &FaultySource, more: &[&str]) -> Output {
    let url = source.url().to_string();
    let arguments = ["run", "-p", "2", "--parallel", "2", "--source", &url];
    output(store.command(&[&arguments[..], more, &["--to"]].concat())).await
}

fn parsed<T: DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read(path).expect("a file");
    serde_json::from_slice(&text).expect("valid JSON")
}

fn reports(archive: &Path) -> [Report; 2] {
    ["00", "01"].map(|name| parsed(&archive.join(format!("{name}.json"))))
}

/// A trace's events.
struct Trace(Vec<Value>);

impl Trace {
    fn of_phase<'all>(&'all self, phase: &'all str) -> impl Iterator<Item = &'all Value> {
        self.0.iter().filter(move |event| event["ph"] == phase)
    }

    /// The slices that are attempts at `prefix`.
    fn attempts(&self, prefix: &str) -> Vec<&Value> {
        let slices = self.of_phase("X");
        slices.filter(|event| event["name"] == prefix).collect()
    }

    /// The values of a counter in the slot of `prefix`.
    fn counter(&self, prefix: &str, name: &str) -> Vec<u64> {
        let track = self.attempts(prefix)[0]["tid"].as_u64().expect("a track");
        // Three tracks a slot, after the process's own.
        let name = format!("slot {}: {name}", (track - 1) / 3);
        let events = self.of_phase("C").filter(|event| event["name"] == name);
        let values = events.map(|event| event["args"]["value"].as_u64());
        values.map(|value| value.expect("a number")).collect()
    }

    fn peak(&self, prefix: &str, name: &str) -> u64 {
        let values = self.counter(prefix, name);
        assert_eq!(values.last(), Some(&0), "{name} ends at zero");
        values.into_iter().max().expect("values")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_run_agrees_with_its_reports() {
    let (store, source) = (store().await, source().await);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trace.json");
    let path = file.to_str().expect("UTF-8");
    let run = run(&store, &source, &["--trace", path]).await;
    assert_eq!(run.status.code(), Some(0), "{}", texts(&run));
    let trace: Value = parsed(&file);
    let trace = Trace(trace["traceEvents"].as_array().expect("events").clone());
    for (report, attempts) in reports(&store.archive()).iter().zip([1, 2]) {
        let prefix = report.prefix.to_string();
        assert_eq!(trace.attempts(&prefix).len(), attempts, "{prefix}");
        assert_eq!(trace.peak(&prefix, "ranges"), 4096);
        assert_eq!(trace.peak(&prefix, "bytes received"), report.data_bytes);
        assert_eq!(trace.peak(&prefix, "bytes sent"), report.content_length);
        // The report is made after the last point.
        let (peak, reported) = (
            trace.peak(&prefix, "linear memory"),
            report.linear_memory_peak,
        );
        assert!(
            peak <= reported && reported <= peak + 64 * 1024,
            "{peak} and {reported}"
        );
        assert!(trace.peak(&prefix, "heap") < peak);
        assert!(trace.peak(&prefix, "body pool") < peak);
        assert!(reported <= LINEAR_MEMORY_BYTES_MAX as u64);
    }
    let instants: Vec<(&Value, &Value)> = trace
        .of_phase("i")
        .map(|event| (&event["name"], &event["args"]["cause"]))
        .collect();
    let expected = [
        ("01 failed: store_status", "store_status"),
        ("00 repeats: source_status", "source_status"),
    ];
    assert_eq!(instants.len(), expected.len(), "{instants:?}");
    for ((name, cause), expected) in instants.into_iter().zip(expected) {
        assert_eq!(
            (name.as_str(), cause.as_str()),
            (Some(expected.0), Some(expected.1))
        );
    }
}

/// Makes a page and returns it.
async fn page(mut command: std::process::Command, file: &PathBuf) -> String {
    command.args(["--out".as_ref(), file.as_os_str()]);
    let made = output(command).await;
    assert_eq!(made.status.code(), Some(0), "{}", texts(&made));
    std::fs::read_to_string(file).expect("a page")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_folder_and_of_a_bucket_shows_the_same_figures_and_loads_nothing() {
    let (store, source) = (store().await, source().await);
    let run = run(&store, &source, &[]).await;
    assert_eq!(run.status.code(), Some(0), "{}", texts(&run));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("page.html");
    let of_bucket = page(store.command(&["page"]), &file).await;
    let mut command = orchestrator();
    command.arg("page").arg(store.archive());
    let of_folder = page(command, &file).await;
    let location = store.archive().display().to_string();
    assert_eq!(of_folder.replace(&location, "gs://pwned/a"), of_bucket);

    let manifest: Manifest = parsed(&store.archive().join("manifest.json"));
    let measurements: Measurements = parsed(&store.archive().join(MEASUREMENTS));
    assert_eq!(manifest.run.as_ref(), Some(&measurements.run));
    let totals = manifest.totals;
    let archive = format!(
        "2 prefixes, {} ranges, {} hashes, {}, in tars of {}",
        humanize::grouped(totals.ranges),
        humanize::grouped(totals.hashes),
        humanize::data(totals.data_bytes),
        humanize::data(totals.content_length),
    );
    assert!(of_bucket.contains(&archive), "{archive}");
    for (report, measured) in reports(&store.archive())
        .iter()
        .zip(&measurements.invocations)
    {
        assert_eq!(measured.prefix, report.prefix);
        assert_eq!(measured.linear_memory_peak, Some(report.linear_memory_peak));
        let recording = measured.recording.as_ref().expect("a recording");
        let repeated: u64 = recording.retries.iter().map(|count| count.retries).sum();
        assert_eq!(repeated, report.requests - 4096);
        let row = format!(
            "<td>{}</td><td>{}</td><td>{}</td><td>{repeated}</td></tr>",
            humanize::memory(report.linear_memory_peak),
            humanize::memory(recording.heap_peak),
            measured.attempts.len(),
        );
        assert!(of_bucket.contains(&row), "{row}");
    }
    let attempts = &measurements.invocations[1].attempts;
    assert_eq!(attempts[0].failure, Some(FailureKind::StoreStatus));
    for word in ["store_status", "source_status"] {
        assert!(of_bucket.contains(word), "{word}");
    }

    for loading in [
        "<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import",
    ] {
        assert!(!of_bucket.contains(loading), "{loading}");
    }
    let url = source.url().to_string();
    let addresses = of_bucket
        .replace(&url, "")
        .replace("http://www.w3.org/2000/svg", "");
    assert!(!addresses.contains("http://") && !addresses.contains("https://"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_measurements_are_refused_is_complete_and_logs_it() {
    let source = source().await;
    let store = RefusingStore::start(|parts, _| {
        let denied = StoreError::PermissionDenied("storage.objects.delete");
        is_put_of(parts, MEASUREMENTS).then_some(denied)
    })
    .await;
    let url = source.url().to_string();
    let mut run = store.command(&["run", "-p", "2", "--source", &url, "--to"]);
    run.env("PREFIX_TAR_LOG", "orchestrator=warn");
    let run = output(run).await;
    let printed = texts(&run);
    assert_eq!(run.status.code(), Some(0), "{printed}");
    assert!(
        printed.contains("the measurements are not written"),
        "{printed}"
    );
    assert!(printed.contains("the archive is complete"), "{printed}");
    let verdict = verified(&store.archive());
    assert_eq!((verdict.damages.len(), verdict.prefixes), (0, 2));
    let page = output(store.command(&["page"])).await;
    let printed = texts(&page);
    assert_eq!(page.status.code(), Some(1), "{printed}");
    assert!(printed.contains("has no measurements.json"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_stores_nothing_keeps_the_measurements_of_the_run_before() {
    let (store, source) = (store().await, source().await);
    let first = run(&store, &source, &[]).await;
    assert_eq!(first.status.code(), Some(0), "{}", texts(&first));
    let before: Measurements = parsed(&store.archive().join(MEASUREMENTS));
    drop(source);
    let dead = FaultySource::start(
        |range| body_of(range, LINES),
        |_, _| Some(SourceFault::Status(404)),
    );
    let second = run(&store, &dead.await, &["--force"]).await;
    assert_eq!(second.status.code(), Some(1), "{}", texts(&second));
    let after: Measurements = parsed(&store.archive().join(MEASUREMENTS));
    assert!(before == after, "the measurements have changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_names_functions_of_the_guest_and_where_its_memory_went() {
    let (store, source) = (store().await, source().await);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("profile.json");
    let profiled = run(
        &store,
        &source,
        &["--profile", file.to_str().expect("UTF-8")],
    )
    .await;
    let printed = texts(&profiled);
    assert!(profiled.status.success(), "{printed}");
    for phase in ["fetch", "upload", "events", "other"] {
        let is_row = |line: &str| line.ends_with(&format!("  {phase}")) && line.contains('%');
        assert!(printed.lines().any(is_row), "{phase}: {printed}");
    }
    let profile: Value = parsed(&file);
    let thread = &profile["threads"][0];
    assert!(
        thread["samples"]["length"].as_u64() > Some(0),
        "no sample: {}",
        thread["samples"]
    );
    let names = thread["stringArray"].as_array().expect("names");
    let is_ours = |name: &&Value| {
        name.as_str()
            .is_some_and(|name| name.starts_with("prefix_tar::"))
    };
    assert!(names.iter().any(|name| is_ours(&name)), "{names:?}");
}
