//! One invocation: ranges in order, a window ahead, into the tar of a planned length, to the store.
//! It knows what follows what; how a range is fetched and how the PUT is written is left to `fetch` and `upload`.

use super::events::{Events, linear_memory_bytes};
use super::fetch::{Fetched, Fetcher};
use super::upload::{Stored, Upload};
use crate::chunk_pool::ChunkPool;
use crate::configuration::Configuration;
use crate::failure::{Failure, FailureKind};
use crate::job::{Job, Report, Seconds};
use crate::length::LengthSample;
use crate::limits::{PROGRESS_RANGES, WINDOW_DEFAULT};
use crate::prefix::{Prefix, RANGES_PER_PREFIX};
use crate::tar;
use crate::window::Window;
use futures::future::{Either, select};
use futures::stream::{FuturesOrdered, StreamExt as _};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

/// An invocation that stored nothing, or does not know.
pub(super) struct Failed {
    pub(super) error: Failure,
    /// The report of what was sent, where all of it was.
    pub(super) sent: Option<Report>,
}

impl From<Failure> for Failed {
    fn from(error: Failure) -> Self {
        Self { error, sent: None }
    }
}

/// Does the job. The report is there only when the store has the whole tar and its checksum was compared.
pub(super) async fn run(
    job: &Job,
    configuration: &Configuration,
    events: &Events,
) -> Result<Report, Failed> {
    let work = pin!(mirror(job, configuration, events));
    let keep_alive = pin!(events.keep_alive());
    match select(work, keep_alive).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err(Failure::passing(
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
) -> Result<Report, Failed> {
    let started = Instant::now();
    let pool = ChunkPool::new();
    let source = &configuration.source;
    let fetcher = Fetcher::new(source, configuration.encoding, Rc::clone(&pool))?;
    let window = Window::new(job.window.unwrap_or(WINDOW_DEFAULT));
    let mut intake = Intake::new(Rc::clone(&fetcher), Rc::clone(&pool), job.prefix, window);
    let mut index = Index::default();

    let (sampled, estimated) = sample_length(&mut intake, &pool).await?;
    let content_length = job.content_length.unwrap_or(estimated);

    let upload_started = Instant::now();
    let mut upload = Upload::open(&job.upload, content_length)?;
    let mut sampled = VecDeque::from(sampled);
    while let Some(fetched) = match sampled.pop_front() {
        Some(fetched) => Some(fetched),
        None => intake.next().await?,
    } {
        index.add(&fetched);
        if !upload.fits(fetched.body.len() as u64) {
            drop(upload);
            let failure = length_exceeded(index, fetched, sampled, &mut intake, content_length);
            return Err(failure.await.into());
        }
        let written = upload.write_entry(fetched.range, &fetched.body, fetched.modified_seconds);
        intake.alongside(written).await?;
        note_progress(events, &index);
    }
    let fetch_seconds = started.elapsed().as_secs_f64();
    drop(intake);
    let outcome = upload.finish().await;
    let report = |stored| {
        let seconds = Seconds {
            fetch: fetch_seconds,
            upload: upload_started.elapsed().as_secs_f64(),
            total: started.elapsed().as_secs_f64(),
        };
        let sent = Sent {
            prefix: job.prefix,
            source: source.to_string(),
            content_length,
            requests: fetcher.requests(),
            stored,
            seconds,
        };
        index.into_report(sent)
    };
    match outcome {
        Ok(stored) => Ok(report(stored)),
        Err(not_stored) => Err(Failed {
            error: not_stored.failure,
            sent: not_stored.sent.map(report),
        }),
    }
}

/// What the report says besides the ranges.
struct Sent {
    prefix: Prefix,
    source: String,
    content_length: u64,
    requests: u64,
    stored: Stored,
    seconds: Seconds,
}

/// Fetches the ranges that the tar's length is planned from, and keeps them.
async fn sample_length(
    intake: &mut Intake,
    pool: &ChunkPool,
) -> Result<(Vec<Fetched>, u64), Failure> {
    let mut sample = LengthSample::default();
    let mut sampled = Vec::new();
    while !sample.is_complete() {
        let Some(fetched) = intake.next().await? else {
            break;
        };
        pool.count_sampled(&fetched.body);
        sample.add(fetched.body.len() as u64);
        sampled.push(fetched);
    }
    pool.end_sample();
    Ok((sampled, sample.content_length()))
}

/// The data outgrew the declared length: nothing is stored, and what they need is counted to the end, so
/// that the next attempt is the last.
async fn length_exceeded(
    index: Index,
    at: Fetched,
    sampled: VecDeque<Fetched>,
    intake: &mut Intake,
    declared: u64,
) -> Failure {
    let mut entries_bytes = index.entries_bytes;
    let sizes = sampled.iter().map(|fetched| fetched.body.len() as u64);
    entries_bytes += sizes.map(tar::entry_bytes).sum::<u64>();
    let range = at.range;
    drop((at, sampled));
    loop {
        match intake.next().await {
            Ok(Some(fetched)) => entries_bytes += tar::entry_bytes(fetched.body.len() as u64),
            Ok(None) => break,
            Err(failure) => return failure,
        }
    }
    let needed = tar::tar_bytes(entries_bytes);
    let message =
        format!("the declared length of {declared} bytes is too short; {needed} are needed");
    Failure {
        content_length: Some(needed),
        ..Failure::passing(FailureKind::LengthExceeded, message).at(range)
    }
}

fn note_progress(events: &Events, index: &Index) {
    let ranges = index.ranges();
    events.progress.ranges.set(ranges);
    events.progress.data_bytes.set(index.data_bytes);
    if ranges.is_multiple_of(PROGRESS_RANGES) {
        // A caller that is gone is noticed by the one who keeps the answer alive.
        let _ = events.offer_progress();
    }
}

/// What the report will say of the ranges.
#[derive(Default)]
struct Index {
    hashes: u64,
    data_bytes: u64,
    entries_bytes: u64,
    range_bytes: Vec<u32>,
    range_etags: Vec<String>,
}

impl Index {
    fn add(&mut self, fetched: &Fetched) {
        let size_bytes = fetched.body.len() as u64;
        self.hashes += fetched.hashes;
        self.data_bytes += size_bytes;
        self.entries_bytes += tar::entry_bytes(size_bytes);
        self.range_bytes
            .push(u32::try_from(size_bytes).unwrap_or(u32::MAX));
        self.range_etags.push(fetched.etag.clone());
    }

    fn ranges(&self) -> u32 {
        u32::try_from(self.range_bytes.len()).unwrap_or(u32::MAX)
    }

    fn into_report(self, sent: Sent) -> Report {
        let ranges = self.ranges();
        Report {
            prefix: sent.prefix,
            source: sent.source,
            ranges,
            hashes: self.hashes,
            data_bytes: self.data_bytes,
            content_length: sent.content_length,
            crc32c: sent.stored.crc32c,
            requests: sent.requests,
            retries: sent.requests.saturating_sub(u64::from(ranges)),
            seconds: sent.seconds,
            linear_memory_peak: linear_memory_bytes(),
            generation: sent.stored.generation,
            etag: sent.stored.etag,
            range_bytes: self.range_bytes,
            range_etags: self.range_etags,
        }
    }
}

type Fetch = Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>>;

/// The ranges of a prefix in order, with the window's requests under way.
struct Intake {
    fetcher: Rc<Fetcher>,
    pool: Rc<ChunkPool>,
    prefix: Prefix,
    window: Window,
    /// The index of the next range to ask for.
    next_index: u16,
    under_way: FuturesOrdered<Fetch>,
    /// Ranges that came while something else was waited for. With those under way no more than the window.
    waiting: VecDeque<Fetched>,
    failed: Option<Failure>,
}

impl Intake {
    fn new(fetcher: Rc<Fetcher>, pool: Rc<ChunkPool>, prefix: Prefix, window: Window) -> Self {
        Self {
            fetcher,
            pool,
            prefix,
            window,
            next_index: 0,
            under_way: FuturesOrdered::new(),
            waiting: VecDeque::new(),
            failed: None,
        }
    }

    /// The next range in order; `None` after the last.
    async fn next(&mut self) -> Result<Option<Fetched>, Failure> {
        std::future::poll_fn(|context| {
            self.advance(context);
            if let Some(fetched) = self.waiting.pop_front() {
                return Poll::Ready(Ok(Some(fetched)));
            }
            match self.failed.take() {
                Some(failure) => Poll::Ready(Err(failure)),
                None if self.under_way.is_empty() => Poll::Ready(Ok(None)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Does `work` while ranges go on coming in.
    async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            self.advance(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// Sends requests as far as the window goes and takes in what has come.
    fn advance(&mut self, context: &mut Context<'_>) {
        loop {
            self.fill_window();
            match self.under_way.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(fetched))) => {
                    let index = fetched.range.index();
                    self.window.observe(fetched.body.len(), index == 0);
                    self.pool.set_head(index + 1);
                    self.waiting.push_back(fetched);
                }
                Poll::Ready(Some(Err(failure))) => {
                    self.under_way.clear();
                    self.failed = Some(failure);
                }
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn fill_window(&mut self) {
        if self.fetcher.take_throttled() {
            self.window.throttle();
        }
        while self.failed.is_none()
            && self.next_index < RANGES_PER_PREFIX
            && self.under_way.len() + self.waiting.len() < self.window.requests()
        {
            let range = self.prefix.range(self.next_index);
            let fetch = Rc::clone(&self.fetcher).fetch(range);
            self.under_way.push_back(Box::pin(fetch));
            self.next_index += 1;
        }
    }
}
