//! [`Metrics`]: what `/metrics` tells. Nothing in it depends on which ranges were asked for.

use http::StatusCode;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::Duration;

/// The upper bound of the first bucket of times, in seconds. Each further one is four times as long, up to 27 s.
const TIME_SECONDS_MIN: f64 = 0.0001;
const TIME_BUCKETS: u16 = 10;
const TIME_FACTOR: f64 = 4.0;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answer {
    status: u32,
}

/// The counters of a server.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    answers: Family<Answer, Counter>,
    times: Histogram,
    hits: Counter,
    misses: Counter,
    bytes: Counter,
    upstream_errors: Counter,
    age: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("prefix_tar");
        let answers = Family::<Answer, Counter>::default();
        let times = Histogram::new(exponential_buckets(
            TIME_SECONDS_MIN,
            TIME_FACTOR,
            TIME_BUCKETS,
        ));
        let (hits, misses) = (Counter::default(), Counter::default());
        let (bytes, upstream_errors) = (Counter::default(), Counter::default());
        let age = Gauge::default();
        registry.register("requests", "Requests by status", answers.clone());
        registry.register_with_unit(
            "request_duration",
            "Time until a response is made, without sending it",
            Unit::Seconds,
            times.clone(),
        );
        registry.register("cache_hits", "Ranges that were in the cache", hits.clone());
        registry.register("cache_misses", "Ranges that were not", misses.clone());
        registry.register_with_unit("sent", "Bodies of responses", Unit::Bytes, bytes.clone());
        registry.register(
            "upstream_errors",
            "Reads of the archive that failed",
            upstream_errors.clone(),
        );
        registry.register_with_unit(
            "archive_age",
            "Time since the archive's last object was stored",
            Unit::Seconds,
            age.clone(),
        );
        Self {
            registry,
            answers,
            times,
            hits,
            misses,
            bytes,
            upstream_errors,
            age,
        }
    }
}

impl Metrics {
    /// Counts an answer.
    pub(super) fn answered(&self, status: StatusCode, body_bytes: u64, time: Duration) {
        let status = u32::from(status.as_u16());
        self.answers.get_or_create(&Answer { status }).inc();
        self.bytes.inc_by(body_bytes);
        self.times.observe(time.as_secs_f64());
    }

    /// Counts a search in the cache.
    pub(super) fn searched(&self, is_hit: bool) {
        match is_hit {
            true => self.hits.inc(),
            false => self.misses.inc(),
        };
    }

    /// Counts a failed read of the archive.
    pub(super) fn upstream_error(&self) {
        self.upstream_errors.inc();
    }

    /// Writes everything in the text format of Prometheus.
    pub(super) fn text(&self, archive_finished: Option<Timestamp>) -> Result<String, fmt::Error> {
        if let Some(finished) = archive_finished {
            self.age
                .set(Timestamp::now().as_second() - finished.as_second());
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.answered(StatusCode::OK, 75_000, Duration::from_millis(3));
        metrics.answered(StatusCode::NOT_FOUND, 10, Duration::ZERO);
        metrics.answered(StatusCode::OK, 0, Duration::ZERO);
        metrics.searched(true);
        metrics.searched(false);
        metrics.upstream_error();
        let finished = Timestamp::now() - jiff::SignedDuration::from_secs(3600);
        let text = metrics.text(Some(finished)).expect("text");
        for line in [
            "prefix_tar_requests_total{status=\"200\"} 2",
            "prefix_tar_requests_total{status=\"404\"} 1",
            "prefix_tar_request_duration_seconds_count 3",
            "prefix_tar_cache_hits_total 1",
            "prefix_tar_cache_misses_total 1",
            "prefix_tar_sent_bytes_total 75010",
            "prefix_tar_upstream_errors_total 1",
        ] {
            assert!(
                text.lines().any(|has| has == line),
                "{line} is not in {text}"
            );
        }
        let age = text
            .lines()
            .find(|line| line.starts_with("prefix_tar_archive_age_seconds "));
        let age = age.and_then(|line| line.split(' ').nth(1)?.parse::<i64>().ok());
        assert!(age.is_some_and(|age| age >= 3600), "{text}");
    }
}
