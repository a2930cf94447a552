//! Brings the ranges of a prefix in order, each from the source or, if it has not changed, from the base.
//!
//! The first ranges are gathered before the upload starts: the tar's length is planned from them. With a base, ranges are
//! gathered until one has changed, so that nothing is uploaded if none has. Of a range that has not changed, only its ETag
//! is kept; its data are read when its turn comes.

use super::base::Base;
use super::fetch::{Arrival, Fetched, Unchanged};
use super::heap;
use super::prefetcher::Prefetcher;
use super::upload::Upload;
use crate::engine::base::BaseIndex;
use crate::engine::chunk_pool::ChunkPool;
use crate::engine::length::LengthSample;
use crate::protocol::crc32c::Crc32c;
use crate::protocol::failure::Failure;
use crate::protocol::phase::Phase;
use crate::protocol::prefix::{Prefix, RANGES_PER_PREFIX, RangeName};
use crate::protocol::report::Reuse;
use std::collections::VecDeque;
use std::rc::Rc;

/// A range that was written to the tar.
pub(super) struct Written {
    pub(super) size_bytes: u64,
    pub(super) hashes: u64,
    pub(super) etag: String,
    pub(super) crc32c: Crc32c,
}

/// The ranges of one prefix.
pub(super) struct Ranges<'job> {
    prefix: Prefix,
    pool: Rc<ChunkPool>,
    prefetcher: Prefetcher,
    base: Option<Base<'job>>,
    /// What came from the base, or why nothing did; `None` if the job has no base.
    reuse: Option<Reuse>,
    sample: LengthSample,
    /// How many ranges have been gathered, from the first on.
    gathered: u16,
    /// Those of them that are not the base's. Together they are at most the sample and one more.
    changed: VecDeque<Fetched>,
    /// The index of the next range to bring.
    next_index: u16,
}

impl<'job> Ranges<'job> {
    pub(super) fn new(
        prefix: Prefix,
        pool: Rc<ChunkPool>,
        prefetcher: Prefetcher,
        base: Option<Result<Base<'job>, String>>,
    ) -> Self {
        let fault = base.as_ref().and_then(|base| base.as_ref().err().cloned());
        let reuse = base.as_ref().map(|_| Reuse {
            ranges: 0,
            data_bytes: 0,
            uploaded: true,
            fault,
        });
        Self {
            prefix,
            pool,
            prefetcher,
            base: base.and_then(Result::ok),
            reuse,
            sample: LengthSample::default(),
            gathered: 0,
            changed: VecDeque::new(),
            next_index: 0,
        }
    }

    /// Range requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.prefetcher.in_flight()
    }

    /// Ranges gathered so far.
    pub(super) const fn gathered(&self) -> u16 {
        self.gathered
    }

    /// What came from the base.
    pub(super) fn reuse(&self) -> Option<Reuse> {
        self.reuse.clone()
    }

    /// The base, if every range is the same as there.
    pub(super) fn unchanged_base(&self) -> Option<&BaseIndex> {
        let is_unchanged = self.gathered == RANGES_PER_PREFIX && self.changed.is_empty();
        let base = self.base.as_ref().filter(|_| is_unchanged);
        base.map(|base| &**base.index())
    }

    /// Gathers the next range. Returns whether more have to be gathered: until the sample is complete and, if `until_changed`,
    /// until a range has changed.
    ///
    /// # Errors
    /// A range could not be fetched.
    pub(super) async fn gather(&mut self, until_changed: bool) -> Result<bool, Failure> {
        let waits_for_change = until_changed && self.base.is_some() && self.changed.is_empty();
        if self.sample.is_complete() {
            self.pool.end_sample();
            if !waits_for_change {
                return Ok(false);
            }
        }
        let Some(arrival) = self.prefetcher.next().await? else {
            self.pool.end_sample();
            return Ok(false);
        };
        let size_bytes = arrival.size_bytes() as u64;
        if !self.sample.is_complete() {
            self.sample.add(size_bytes);
        }
        self.gathered += 1;
        match arrival {
            Arrival::Fetched(fetched) => {
                self.pool.count_sampled(&fetched.body);
                self.changed.push_back(fetched);
            }
            Arrival::Unchanged(unchanged) => self.put_back(unchanged),
        }
        Ok(true)
    }

    /// The length to declare for the tar, in bytes: the estimate from the sample. It is the same without a base, whatever
    /// the base's length is, so that the tar is.
    pub(super) fn content_length(&self) -> u64 {
        self.sample.content_length()
    }

    /// The next range in order; `None` after the last.
    ///
    /// # Errors
    /// A range could not be fetched.
    pub(super) async fn next(&mut self) -> Result<Option<Arrival>, Failure> {
        let index = self.next_index;
        if index >= self.gathered {
            let arrival = self.prefetcher.next().await?;
            self.next_index += u16::from(arrival.is_some());
            return Ok(arrival);
        }
        self.next_index += 1;
        let is_next = |fetched: &mut Fetched| fetched.range.index() == index;
        Ok(self
            .changed
            .pop_front_if(is_next)
            .map(Arrival::Fetched)
            .or_else(|| self.gathered_unchanged(self.prefix.range(index))))
    }

    /// A gathered range that is the base's.
    fn gathered_unchanged(&self, range: RangeName) -> Option<Arrival> {
        let known = self.base.as_ref()?.index().take(range);
        Some(Arrival::Unchanged(Unchanged {
            range,
            size_bytes: known.size_bytes,
            etag: known.etag,
        }))
    }

    fn put_back(&self, unchanged: Unchanged) {
        if let Some(base) = &self.base {
            base.index().put_etag(unchanged.range, unchanged.etag);
        }
    }

    /// Writes a range to the tar while others keep arriving. `None` if it was to come from the base and that is damaged:
    /// every range from this one on comes from the source then, this one next.
    ///
    /// # Errors
    /// The upload failed.
    pub(super) async fn write(
        &mut self,
        arrival: Arrival,
        upload: &mut Upload,
    ) -> Result<Option<Written>, Failure> {
        match arrival {
            Arrival::Fetched(fetched) => {
                let size_bytes = fetched.body.len() as u64;
                let pieces = fetched.body.pieces();
                let modified_seconds = fetched.modified_seconds;
                let written =
                    upload.write_entry(fetched.range, size_bytes, pieces, modified_seconds);
                let written = heap::during(Phase::Upload, written);
                Ok(Some(Written {
                    size_bytes,
                    hashes: fetched.hashes,
                    crc32c: self.prefetcher.alongside(written).await?,
                    etag: fetched.etag,
                }))
            }
            Arrival::Unchanged(unchanged) => self.write_from_base(unchanged, upload).await,
        }
    }

    async fn write_from_base(
        &mut self,
        unchanged: Unchanged,
        upload: &mut Upload,
    ) -> Result<Option<Written>, Failure> {
        let Unchanged { range, etag, .. } = unchanged;
        // Only a range that the base has is unchanged.
        let Some(base) = &mut self.base else {
            return Ok(None);
        };
        let reading = heap::during(Phase::Fetch, base.read(range));
        let entry = match self.prefetcher.alongside(reading).await {
            Ok(entry) => entry,
            Err(fault) => {
                self.give_up_base(range, fault);
                return Ok(None);
            }
        };
        let data = base.data();
        let size_bytes = data.len() as u64;
        let pieces = std::iter::once(data);
        let written = upload.write_entry(range, size_bytes, pieces, entry.modified_seconds);
        let written = heap::during(Phase::Upload, written);
        let crc32c = self.prefetcher.alongside(written).await?;
        if let Some(reuse) = &mut self.reuse {
            reuse.ranges += 1;
            reuse.data_bytes += size_bytes;
        }
        Ok(Some(Written {
            size_bytes,
            hashes: entry.hashes,
            crc32c,
            etag,
        }))
    }

    /// Goes on without the base from `range` on.
    fn give_up_base(&mut self, range: RangeName, fault: String) {
        self.base = None;
        if let Some(reuse) = &mut self.reuse {
            reuse.fault = Some(fault);
        }
        self.changed.clear();
        self.gathered = 0;
        self.next_index = range.index();
        self.prefetcher.restart_without_base(range.index());
    }
}
