//! Runs one invocation: gathers what the plan needs, then streams the ranges in order into the upload.

use super::base::Base;
use super::events::{Events, linear_memory_bytes};
use super::fetch::{Arrival, Fetcher};
use super::heap;
use super::index::{Index, Summary};
use super::prefetcher::Prefetcher;
use super::ranges::Ranges;
use super::recorder::{Counts, Recorder};
use super::upload::Upload;
use crate::engine::base::BaseIndex;
use crate::engine::chunk_pool::ChunkPool;
use crate::engine::tar;
use crate::engine::window::Window;
use crate::limits::{PROGRESS_RANGES, WINDOW_DEFAULT};
use crate::protocol::configuration::Configuration;
use crate::protocol::failure::{Failure, FailureKind};
use crate::protocol::job::Job;
use crate::protocol::phase::Phase;
use crate::protocol::prefix::RangeName;
use crate::protocol::report::{Report, Reuse, Seconds};
use futures::future::{Either, select};
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

/// Why an invocation failed.
pub(super) struct Failed {
    pub(super) error: Failure,
    /// The report of the upload, if all of it was sent: the store may have the object.
    pub(super) sent: Option<Report>,
}

impl From<Failure> for Failed {
    fn from(error: Failure) -> Self {
        Self { error, sent: None }
    }
}

/// Runs the job. It succeeds only if the store has the whole tar and its checksum matches.
pub(super) async fn run(
    job: &Job,
    configuration: &Configuration,
    events: &Events,
    recorder: &Rc<Recorder>,
) -> Result<Report, Failed> {
    let work = pin!(mirror(job, configuration, events, recorder));
    let keep_alive = pin!(heap::during(Phase::Events, events.keep_alive()));
    match select(work, keep_alive).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(Failure::transient(
            FailureKind::Died,
            "the caller closed the connection before the end",
        )
        .into()),
    }
}

async fn mirror(
    job: &Job,
    configuration: &Configuration,
    events: &Events,
    recorder: &Rc<Recorder>,
) -> Result<Report, Failed> {
    let started = Instant::now();
    let pool = ChunkPool::new();
    let fetcher = Fetcher::new(
        configuration,
        job.mode,
        Rc::clone(&pool),
        Rc::clone(recorder),
    )?;
    let invocation = Invocation {
        job,
        source: configuration.source.to_string(),
        events,
        recorder,
        pool,
        fetcher,
        started,
    };
    let mut ranges = invocation.open_ranges().await;
    invocation.gather(&mut ranges).await?;
    match ranges
        .unchanged_base()
        .filter(|_| invocation.may_keep_base())
    {
        Some(base) => Ok(invocation.unchanged_report(base)),
        None => invocation.upload(ranges).await,
    }
}

/// What the steps of an invocation share.
struct Invocation<'run> {
    job: &'run Job,
    /// The source's base URL.
    source: String,
    events: &'run Events,
    recorder: &'run Recorder,
    pool: Rc<ChunkPool>,
    fetcher: Rc<Fetcher>,
    started: Instant,
}

impl<'run> Invocation<'run> {
    /// Whether nothing is uploaded if nothing has changed.
    fn may_keep_base(&self) -> bool {
        let base = self.job.base.as_ref();
        base.is_some_and(|base| !base.always_upload)
    }

    /// The ranges of the job's prefix. A base that cannot be used leaves its reason there.
    async fn open_ranges(&self) -> Ranges<'run> {
        let job = self.job;
        let base = match &job.base {
            None => None,
            Some(files) => {
                let open = Base::open(files, job.prefix, job.mode, &self.source);
                Some(heap::during(Phase::Fetch, open).await)
            }
        };
        let window = Window::new(job.window.unwrap_or(WINDOW_DEFAULT));
        let known = base.as_ref().and_then(|base| base.as_ref().ok());
        let known = known.map(|base| Rc::clone(base.index()));
        let (fetcher, pool) = (Rc::clone(&self.fetcher), Rc::clone(&self.pool));
        let prefetcher = Prefetcher::new(fetcher, Rc::clone(&pool), job.prefix, window, known);
        Ranges::new(job.prefix, pool, prefetcher, base)
    }

    /// Gathers the ranges that the plan needs, or all if none has changed.
    async fn gather(&self, ranges: &mut Ranges<'run>) -> Result<(), Failure> {
        let until_changed = self.may_keep_base();
        while ranges.gather(until_changed).await? {
            if !until_changed {
                continue;
            }
            let gathered = u32::from(ranges.gathered());
            update_progress(self.events, gathered, 0);
            if Recorder::is_due(gathered) {
                self.record(gathered, ranges.in_flight(), 0);
            }
        }
        Ok(())
    }

    /// Streams the ranges into the upload.
    async fn upload(self, mut ranges: Ranges<'run>) -> Result<Report, Failed> {
        let declared = self.job.content_length;
        let content_length = declared.unwrap_or_else(|| ranges.content_length());
        let began = Instant::now();
        let upload = &self.job.upload;
        let upload = heap::within(Phase::Upload, || Upload::open(upload, content_length));
        let mut upload = upload?;
        let mut index = Index::default();
        while let Some(arrival) = ranges.next().await? {
            if !upload.fits(arrival.size_bytes() as u64) {
                drop(upload);
                let failure = length_exceeded(&index, arrival, ranges, content_length);
                return Err(failure.await.into());
            }
            let Some(written) = ranges.write(arrival, &mut upload).await? else {
                continue;
            };
            index.add(written);
            update_progress(self.events, index.ranges(), index.data_bytes());
            if Recorder::is_due(index.ranges()) {
                // A recording never goes back, and more ranges may have been gathered than are in the tar.
                let seen = self.events.progress.ranges.get();
                self.record(seen, ranges.in_flight(), upload.sent_bytes());
            }
        }
        let fetch_seconds = self.started.elapsed().as_secs_f64();
        let reuse = ranges.reuse();
        drop(ranges);
        let sent_bytes = upload.sent_bytes();
        let outcome = heap::during(Phase::Upload, upload.finish()).await;
        let bytes_out = outcome.as_ref().map_or(sent_bytes, |_| content_length);
        self.record(index.ranges(), 0, bytes_out);
        let report = |stored| {
            let seconds = Seconds {
                fetch: fetch_seconds,
                upload: began.elapsed().as_secs_f64(),
                total: self.started.elapsed().as_secs_f64(),
            };
            index.into_report(Summary {
                prefix: self.job.prefix,
                source: self.source,
                mode: self.job.mode,
                content_length,
                requests: self.fetcher.requests(),
                stored,
                seconds,
                reuse,
                cached_errors: self.fetcher.cached_errors(),
            })
        };
        match outcome {
            Ok(stored) => Ok(report(stored)),
            Err(not_stored) => Err(Failed {
                error: not_stored.failure,
                sent: not_stored.sent.map(report),
            }),
        }
    }

    /// The report if no range has changed: the base's, which was not uploaded again.
    fn unchanged_report(&self, base: &BaseIndex) -> Report {
        let (report, requests) = (base.to_report(), self.fetcher.requests());
        let total = self.started.elapsed().as_secs_f64();
        Report {
            requests,
            retries: requests.saturating_sub(u64::from(report.ranges)),
            seconds: Seconds {
                fetch: total,
                upload: 0.0,
                total,
            },
            linear_memory_peak: linear_memory_bytes(),
            cached_errors: self.fetcher.cached_errors(),
            reuse: Some(Reuse {
                ranges: report.ranges,
                data_bytes: report.data_bytes,
                uploaded: false,
                fault: None,
            }),
            ..report
        }
    }

    fn record(&self, ranges: u32, in_flight: usize, bytes_out: u64) {
        let counts = Counts {
            ranges,
            in_flight,
            bytes_in: self.fetcher.received_bytes(),
            bytes_out,
        };
        self.recorder.record(&counts, &self.pool);
    }
}

/// The failure for data that exceed the declared length. It brings the remaining ranges to state
/// the exact length, so that the next attempt succeeds.
async fn length_exceeded(
    index: &Index,
    at: Arrival,
    mut ranges: Ranges<'_>,
    declared: u64,
) -> Failure {
    let range = at.range();
    match needed_bytes(index, at, &mut ranges).await {
        Ok(needed) => too_long(range, needed, declared),
        Err(failure) => failure,
    }
}

/// The length that the tar needs, in bytes, from the ranges in `index`, the one that has arrived, and those after it.
async fn needed_bytes(index: &Index, at: Arrival, ranges: &mut Ranges<'_>) -> Result<u64, Failure> {
    let mut entries_bytes = index.entries_bytes();
    let mut next = Some(at);
    while let Some(arrival) = next.take() {
        entries_bytes += tar::entry_bytes(arrival.size_bytes() as u64);
        // Its memory is needed for the remaining ranges.
        drop(arrival);
        next = ranges.next().await?;
    }
    Ok(tar::tar_bytes(entries_bytes))
}

fn too_long(range: RangeName, needed: u64, declared: u64) -> Failure {
    let message = format!("the tar needs {needed} bytes, more than the declared {declared}");
    Failure {
        content_length: Some(needed),
        ..Failure::transient(FailureKind::LengthExceeded, message).at(range)
    }
}

fn update_progress(events: &Events, ranges: u32, data_bytes: u64) {
    let progress = &events.progress;
    progress.ranges.set(progress.ranges.get().max(ranges));
    progress.data_bytes.set(data_bytes);
    if ranges.is_multiple_of(PROGRESS_RANGES) {
        // `Events::keep_alive` notices a caller that has disconnected.
        let _ = heap::within(Phase::Events, || events.offer_progress());
    }
}
