//! [`RangeCache`]: keeps ranges as they are sent, in every coding that was asked for, within a bound of memory.
//!
//! Requests for a range that is being read wait for it instead of reading it once more. An error is shared with those
//! who wait, and not kept.

use super::coding::Coding;
use super::compression::compress;
use super::current::OpenArchive;
use super::digests::Digests;
use super::entry::Entry;
use super::metrics::Metrics;
use crate::archive::ReadError;
use crate::archive::layout::{report_name, tar_name};
use crate::archive::ranges::RangeError;
use bytes::Bytes;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The size of a range in 2026, in bytes: the cache plans for as many as fit.
const RANGE_BYTES: u64 = 75_000;

/// What an error takes while it is shared, in bytes.
const ERROR_BYTES: u64 = 64;

/// Why there is no range to send. It has been logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unavailable {
    /// The archive does not hold the range's prefix.
    NotHeld,
    /// Another attempt may succeed.
    Now,
    /// It is damaged, or cannot be read.
    Broken,
}

type Found = Result<Arc<Entry>, Unavailable>;

/// The same failure of a prefix is logged once in this time. Each request for a damaged range meets it.
const LOG_PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The archive's: what another archive holds is never sent.
    epoch: u64,
    range: RangeName,
    coding: Coding,
}

#[derive(Clone, Debug)]
struct InBytes;

impl Weighter<Key, Found> for InBytes {
    fn weight(&self, _: &Key, found: &Found) -> u64 {
        found.as_ref().map_or(ERROR_BYTES, |entry| entry.weight())
    }
}

/// The ranges that were asked for most recently or most often.
pub(super) struct RangeCache {
    ranges: Cache<Key, Found, InBytes>,
    digests: Digests,
    /// When a failure of each prefix was last logged.
    logged: Mutex<BTreeMap<Prefix, Instant>>,
    metrics: Arc<Metrics>,
}

impl RangeCache {
    pub(super) fn new(bytes_max: u64, metrics: Arc<Metrics>) -> Self {
        let ranges = usize::try_from(bytes_max / RANGE_BYTES).unwrap_or(usize::MAX);
        Self {
            ranges: Cache::with_weighter(ranges, bytes_max, InBytes),
            digests: Digests::default(),
            logged: Mutex::default(),
            metrics,
        }
    }

    /// A range in a coding, from the cache or from the archive.
    pub(super) async fn find(
        &self,
        archive: &OpenArchive,
        range: RangeName,
        coding: Coding,
    ) -> Found {
        let key = Key {
            epoch: archive.epoch,
            range,
            coding,
        };
        if let Some(found) = self.ranges.get(&key) {
            self.metrics.searched(true);
            return found;
        }
        self.metrics.searched(false);
        match coding {
            Coding::Identity => self.once(key, self.read(archive, range)).await,
            _ => {
                let compressed = async {
                    let plain = Key {
                        coding: Coding::Identity,
                        ..key
                    };
                    // What is read for this only is not kept: it would halve the number of ranges in the cache.
                    let plain = match self.ranges.get(&plain) {
                        Some(kept) => kept?,
                        None => self.read(archive, range).await?,
                    };
                    let body = Self::compressed(plain.body.clone(), coding)?;
                    Ok(Arc::new(plain.in_coding(coding, body)))
                };
                self.once(key, compressed).await
            }
        }
    }

    /// Compresses a body.
    pub(super) fn compressed(body: Bytes, coding: Coding) -> Result<Bytes, Unavailable> {
        compress(body, coding).map_err(|error| {
            tracing::error!(%error, "a range cannot be compressed");
            Unavailable::Broken
        })
    }

    /// Forgets everything. The next requests read a new archive.
    pub(super) fn clear(&self) {
        self.ranges.clear();
    }

    /// The value of a key, made by the first who asks for it.
    async fn once(&self, key: Key, make: impl Future<Output = Found>) -> Found {
        match self.ranges.get_value_or_guard_async(&key).await {
            Ok(found) => found,
            Err(guard) => {
                let found = make.await;
                // The cache does not take it if it was cleared meanwhile.
                let _ = guard.insert(found.clone());
                // Those who wait share it, and the next request reads again.
                if !is_lasting(&found) {
                    self.ranges.remove_if(&key, |kept| !is_lasting(kept));
                }
                found
            }
        }
    }

    async fn read(&self, archive: &OpenArchive, range: RangeName) -> Found {
        let found = archive.ranges.range(range).await;
        let stored = found.map_err(|error| self.report(&error, range.prefix()))?;
        let entry = Entry::of(stored, |stored, body| self.digests.of(range, stored, body));
        Ok(Arc::new(entry))
    }

    /// Whether no failure of a prefix was logged lately.
    fn is_to_be_logged(&self, prefix: Prefix) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let last = logged.get(&prefix);
        let is_due = last.is_none_or(|last| last.elapsed() >= LOG_PAUSE);
        if is_due {
            logged.insert(prefix, Instant::now());
        }
        is_due
    }

    /// Logs why a range cannot be read, without a trace of which one it is.
    fn report(&self, error: &RangeError, prefix: Prefix) -> Unavailable {
        match error {
            RangeError::NotHeld(_) => return Unavailable::NotHeld,
            _ if !self.is_to_be_logged(prefix) => {}
            RangeError::Damaged { file, reason } => {
                tracing::error!(%file, %reason, "the archive is damaged");
            }
            RangeError::Unreadable(error) => {
                let reason = without_files(&error.to_string(), prefix);
                tracing::error!(%reason, "a range cannot be read");
            }
        }
        self.metrics.upstream_error();
        match error {
            RangeError::Unreadable(ReadError::Unreadable {
                is_transient: true, ..
            }) => Unavailable::Now,
            _ => Unavailable::Broken,
        }
    }
}

/// Whether a result may be kept: what is being replaced may be another body a moment later.
fn is_lasting(found: &Found) -> bool {
    found.as_ref().is_ok_and(|entry| entry.is_listed)
}

/// A message without the names of the prefix's files: they begin as the range does.
fn without_files(message: &str, prefix: Prefix) -> String {
    message
        .replace(&tar_name(prefix), "a tar")
        .replace(&report_name(prefix), "a report")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ranges::StoredRange;
    use futures::FutureExt as _;
    use futures::future::join_all;
    use prefix_tar::protocol::crc32c::Crc32c;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    const BYTES: usize = 100_000;

    fn key(index: u16) -> Key {
        Key {
            epoch: 0,
            range: Prefix::from_number(0xAB).range(index),
            coding: Coding::Identity,
        }
    }

    fn cache(bytes_max: u64) -> RangeCache {
        RangeCache::new(bytes_max, Arc::default())
    }

    fn entry_of(is_listed: bool) -> Found {
        let stored = StoredRange {
            body: Bytes::from(vec![b'0'; BYTES]),
            modified_seconds: 0,
            etag: String::new(),
            crc32c: Crc32c(0),
            is_listed,
        };
        Ok(Arc::new(Entry::of(stored, |_, _| Default::default())))
    }

    fn entry() -> Found {
        entry_of(true)
    }

    #[tokio::test]
    async fn a_range_that_many_ask_for_at_once_is_made_once() {
        let (cache, made) = (cache(10_000_000), AtomicU32::new(0));
        let (begun, finish) = (Notify::new(), Notify::new());
        let make = || async {
            made.fetch_add(1, Ordering::Relaxed);
            begun.notify_one();
            finish.notified().await;
            entry()
        };
        let first = cache.once(key(0), make());
        let others = async {
            begun.notified().await;
            let others = join_all((0..10).map(|_| cache.once(key(0), make())));
            tokio::join!(others, async { finish.notify_one() }).0
        };
        let (first, others) = tokio::join!(first, others);
        assert!(others.into_iter().chain([first]).all(|found| found.is_ok()));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert!(cache.once(key(0), make()).await.is_ok());
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_error_is_shared_with_those_who_wait_and_not_kept() {
        let cache = cache(10_000_000);
        let (begun, finish) = (Notify::new(), Notify::new());
        let fail = async {
            begun.notify_one();
            finish.notified().await;
            Err(Unavailable::Now)
        };
        let waiting = async {
            begun.notified().await;
            let waiting = cache.once(key(0), async { entry() });
            tokio::join!(waiting, async { finish.notify_one() }).0
        };
        let (failed, waited) = tokio::join!(cache.once(key(0), fail), waiting);
        assert_eq!(failed.err(), Some(Unavailable::Now));
        assert_eq!(waited.err(), Some(Unavailable::Now));
        assert!(cache.once(key(0), async { entry() }).await.is_ok());
    }

    #[tokio::test]
    async fn a_range_of_a_tar_that_the_manifest_does_not_list_is_sent_and_not_kept() {
        let cache = cache(10_000_000);
        let found = cache.once(key(0), async { entry_of(false) }).await;
        assert!(found.is_ok());
        let made = AtomicU32::new(0);
        for _ in 0..2 {
            let again = cache.once(key(0), async {
                made.fetch_add(1, Ordering::Relaxed);
                entry()
            });
            assert!(again.await.is_ok());
        }
        assert_eq!(made.load(Ordering::Relaxed), 1, "read again, and then kept");
    }

    #[test]
    fn a_failure_of_a_prefix_is_logged_once_and_others_are_too() {
        let cache = cache(10_000_000);
        let [one, other] = [0xAB, 0xAC].map(Prefix::from_number);
        assert!(cache.is_to_be_logged(one) && cache.is_to_be_logged(other));
        assert!(!cache.is_to_be_logged(one) && !cache.is_to_be_logged(other));
    }

    #[tokio::test]
    async fn a_range_whose_reader_gives_up_is_read_by_the_next() {
        let cache = cache(10_000_000);
        let never = cache.once(key(0), std::future::pending());
        assert!(never.now_or_never().is_none());
        assert!(cache.once(key(0), async { entry() }).await.is_ok());
    }

    #[tokio::test]
    async fn the_cache_stays_within_its_bytes() {
        const BYTES_MAX: u64 = 3_000_000;
        let cache = cache(BYTES_MAX);
        for index in 0..500 {
            assert!(cache.once(key(index), async { entry() }).await.is_ok());
            assert!(
                cache.ranges.weight() <= BYTES_MAX,
                "{}",
                cache.ranges.weight()
            );
        }
        assert!(cache.ranges.weight() > BYTES_MAX / 2);
        // What is too large for the cache is found all the same.
        let small = self::cache(1);
        assert!(small.once(key(0), async { entry() }).await.is_ok());
        assert_eq!(small.ranges.weight(), 0);
    }

    #[test]
    fn a_message_does_not_name_the_files_of_a_prefix() {
        let prefix = Prefix::from_number(0xAB);
        let message = "cannot read /srv/AB.tar: GET of gs://pwned/AB.json was answered 503";
        assert_eq!(
            without_files(message, prefix),
            "cannot read /srv/a tar: GET of gs://pwned/a report was answered 503"
        );
    }
}
