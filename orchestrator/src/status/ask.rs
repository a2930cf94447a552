//! Asks a source for the ranges of a sample, several at a time, and compares each with the archive.

use super::compare::{Evidence, is_same_body, same_by_head};
use super::verdict::{Outcome, Tally};
use crate::archive::ranges::{RangeArchive, StoredRange};
use crate::range_client::{ClientError, RangeClient};
use crate::verify::text::one_line;
use futures::{StreamExt as _, stream};
use prefix_tar::protocol::prefix::RangeName;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Ranges that are compared at the same time: they hide the latency of a network.
const COMPARED_AT_ONCE_MAX: usize = 16;

/// How long all comparisons may take. 4,096 of them need a minute at a latency of 250 ms.
const COMPARING_TIME_MAX: Duration = Duration::from_secs(300);

/// After so many ranges in a row that the source did not deliver, it is down: the others are not asked for.
const FAILURES_IN_A_ROW_MAX: u32 = 16;

/// What all comparisons share.
struct Comparison<'status> {
    archive: &'status RangeArchive,
    client: &'status RangeClient,
    until: Instant,
    /// Ranges in a row that the source did not deliver.
    failures: AtomicU32,
}

/// Compares these ranges of an archive with the source. Whatever the source does, this ends within five minutes.
pub async fn ask_all(
    archive: &RangeArchive,
    client: &RangeClient,
    ranges: Vec<RangeName>,
) -> Tally {
    let comparison = Comparison {
        archive,
        client,
        until: Instant::now() + COMPARING_TIME_MAX,
        failures: AtomicU32::new(0),
    };
    let outcomes = stream::iter(ranges).map(|range| {
        let comparison = &comparison;
        async move { (range, comparison.outcome(range).await) }
    });
    let mut outcomes = outcomes.buffer_unordered(COMPARED_AT_ONCE_MAX);
    let mut tally = Tally::default();
    while let Some((range, outcome)) = outcomes.next().await {
        tally.add(range, outcome);
    }
    tally
}

impl Comparison<'_> {
    async fn outcome(&self, range: RangeName) -> Outcome {
        if self.failures.load(Ordering::Relaxed) >= FAILURES_IN_A_ROW_MAX {
            return Outcome::Unknown(format!(
                "not asked for, because the source had failed {FAILURES_IN_A_ROW_MAX} times in a row"
            ));
        }
        let compared = timeout_at(self.until, self.compare(range)).await;
        compared.unwrap_or_else(|_| {
            let seconds = COMPARING_TIME_MAX.as_secs();
            Outcome::Unknown(format!("not compared within {seconds} s"))
        })
    }

    async fn compare(&self, range: RangeName) -> Outcome {
        let stored = match self.archive.range(range).await {
            Ok(stored) => stored,
            Err(error) => return Outcome::Unknown(one_line(&error.to_string())),
        };
        match self.ask(range, &stored).await {
            Ok(evidence) => {
                self.failures.store(0, Ordering::Relaxed);
                evidence.map_or(Outcome::Differs, Outcome::Same)
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Outcome::Unknown(one_line(&error.reason()))
            }
        }
    }

    /// What shows that the range is the same; `None` if it is not.
    async fn ask(
        &self,
        range: RangeName,
        stored: &StoredRange,
    ) -> Result<Option<Evidence>, ClientError> {
        match self.client.head(range).await {
            Ok(head) => {
                if let Some(evidence) = same_by_head(stored, &head) {
                    return Ok(Some(evidence));
                }
            }
            Err(error) if error.may_concern_head_only() => {}
            Err(error) => return Err(error),
        }
        let body = self.client.whole_body(range).await?;
        Ok(is_same_body(&stored.body, &body).then_some(Evidence::Body))
    }
}
