//! Runs one invocation: plans the tar's length, then streams the ranges in order into the upload.

use super::events::Events;
use super::fetch::{Fetched, Fetcher};
use super::heap;
use super::index::{Index, Summary};
use super::prefetcher::Prefetcher;
use super::recorder::{Counts, Recorder};
use super::upload::Upload;
use crate::engine::chunk_pool::ChunkPool;
use crate::engine::length::LengthSample;
use crate::engine::tar;
use crate::engine::window::Window;
use crate::limits::{PROGRESS_RANGES, WINDOW_DEFAULT};
use crate::protocol::configuration::Configuration;
use crate::protocol::failure::{Failure, FailureKind};
use crate::protocol::job::Job;
use crate::protocol::phase::Phase;
use crate::protocol::report::{Report, Seconds};
use futures::future::{Either, select};
use std::collections::VecDeque;
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
    let fetcher = Fetcher::new(configuration, Rc::clone(&pool), Rc::clone(recorder))?;
    let window = Window::new(job.window.unwrap_or(WINDOW_DEFAULT));
    let mut prefetcher = Prefetcher::new(Rc::clone(&fetcher), Rc::clone(&pool), job.prefix, window);
    let mut index = Index::default();
    let record = |ranges, in_flight, bytes_out| {
        let counts = Counts {
            ranges,
            in_flight,
            bytes_in: fetcher.received_bytes(),
            bytes_out,
        };
        recorder.record(&counts, &pool);
    };

    let (sampled, estimated) = sample_length(&mut prefetcher, &pool).await?;
    let content_length = job.content_length.unwrap_or(estimated);

    let upload_started = Instant::now();
    let upload = heap::within(Phase::Upload, || Upload::open(&job.upload, content_length));
    let mut upload = upload?;
    let mut sampled = VecDeque::from(sampled);
    while let Some(fetched) = match sampled.pop_front() {
        Some(fetched) => Some(fetched),
        None => prefetcher.next().await?,
    } {
        index.add(&fetched);
        if !upload.fits(fetched.body.len() as u64) {
            drop(upload);
            let failure = length_exceeded(index, fetched, sampled, &mut prefetcher, content_length);
            return Err(failure.await.into());
        }
        let written = upload.write_entry(fetched.range, &fetched.body, fetched.modified_seconds);
        let written = heap::during(Phase::Upload, written);
        index.add_checksum(prefetcher.alongside(written).await?);
        update_progress(events, &index);
        if Recorder::is_due(index.ranges()) {
            record(index.ranges(), prefetcher.in_flight(), upload.sent_bytes());
        }
    }
    let fetch_seconds = started.elapsed().as_secs_f64();
    drop(prefetcher);
    let sent_bytes = upload.sent_bytes();
    let outcome = heap::during(Phase::Upload, upload.finish()).await;
    let bytes_out = outcome.as_ref().map_or(sent_bytes, |_| content_length);
    record(index.ranges(), 0, bytes_out);
    let report = |stored| {
        let seconds = Seconds {
            fetch: fetch_seconds,
            upload: upload_started.elapsed().as_secs_f64(),
            total: started.elapsed().as_secs_f64(),
        };
        index.into_report(Summary {
            prefix: job.prefix,
            source: configuration.source.to_string(),
            content_length,
            requests: fetcher.requests(),
            stored,
            seconds,
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

/// Fetches the sample that the tar's length is estimated from; returns its ranges and the estimate.
async fn sample_length(
    prefetcher: &mut Prefetcher,
    pool: &ChunkPool,
) -> Result<(Vec<Fetched>, u64), Failure> {
    let mut sample = LengthSample::default();
    let mut sampled = Vec::new();
    while !sample.is_complete() {
        let Some(fetched) = prefetcher.next().await? else {
            break;
        };
        pool.count_sampled(&fetched.body);
        sample.add(fetched.body.len() as u64);
        sampled.push(fetched);
    }
    pool.end_sample();
    Ok((sampled, sample.content_length()))
}

/// The failure for data that exceed the declared length. It fetches the remaining ranges to state
/// the exact length, so that the next attempt succeeds.
async fn length_exceeded(
    index: Index,
    at: Fetched,
    sampled: VecDeque<Fetched>,
    prefetcher: &mut Prefetcher,
    declared: u64,
) -> Failure {
    let mut entries_bytes = index.entries_bytes();
    let sizes = sampled.iter().map(|fetched| fetched.body.len() as u64);
    entries_bytes += sizes.map(tar::entry_bytes).sum::<u64>();
    let range = at.range;
    // Their memory is needed for the remaining ranges.
    drop((at, sampled));
    loop {
        match prefetcher.next().await {
            Ok(Some(fetched)) => entries_bytes += tar::entry_bytes(fetched.body.len() as u64),
            Ok(None) => break,
            Err(failure) => return failure,
        }
    }
    let needed = tar::tar_bytes(entries_bytes);
    let message = format!("the tar needs {needed} bytes, more than the declared {declared}");
    Failure {
        content_length: Some(needed),
        ..Failure::transient(FailureKind::LengthExceeded, message).at(range)
    }
}

fn update_progress(events: &Events, index: &Index) {
    let ranges = index.ranges();
    events.progress.ranges.set(ranges);
    events.progress.data_bytes.set(index.data_bytes());
    if ranges.is_multiple_of(PROGRESS_RANGES) {
        // `Events::keep_alive` notices a caller that has disconnected.
        let _ = heap::within(Phase::Events, || events.offer_progress());
    }
}
