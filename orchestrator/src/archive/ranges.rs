//! [`RangeArchive`]: single ranges of an archive, each compared with its checksum before anyone sees it.
//!
//! A range is read with one access, its header with it. If it is not what the prefix's index says, the archive may
//! have been replaced in place: then the report is read again, and in the end the tar itself, which must be the one that
//! the report or the manifest describes, or one that an unfinished run has stored. So each range is from before or from
//! after, and a damaged one is never returned. No message names a range: which one is asked for is the
//! client's secret.

mod index;
#[cfg(test)]
mod tests;

use super::layout::{MANIFEST_NAME, tar_name};
use super::manifest::{Manifest, ManifestObject};
use super::{Archive, ReadError};
use bytes::Bytes;
use index::PrefixIndex;
use prefix_tar::engine::tar::BLOCK_BYTES;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use prefix_tar::protocol::report::Report;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How often one range is read: with the index that is known, with a newer report, and with the index of the tar itself.
const READS_MAX: u32 = 3;

/// A report that does not fit its tar is not read more often than this.
const REPORT_READ_PAUSE: Duration = Duration::from_secs(1);

/// A tar that is damaged, or has no report that fits, is not read from end to end more often than this.
const WHOLE_READ_PAUSE: Duration = Duration::from_secs(60);

/// A range as the source served it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRange {
    /// The lines of `SUFFIX:COUNT`, byte for byte.
    pub body: Bytes,
    /// When the source last modified it, as Unix time in seconds; 0 if the source did not say.
    pub modified_seconds: u64,
    /// The source's ETag, with its quotes and, if it is weak, with `W/`; empty if it sent none.
    pub etag: String,
    /// The body's checksum.
    pub crc32c: Crc32c,
    /// Whether it is from the tar that the manifest lists. If not, the archive is being replaced, and the next read may
    /// find another body.
    pub is_listed: bool,
}

/// Why a range cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The archive does not hold the range's prefix.
    #[error("the archive does not hold prefix {0}")]
    NotHeld(Prefix),
    /// What is stored is not what was mirrored. The message does not name the range.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder or the store does not deliver it now.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
}

/// The ranges of an archive.
pub struct RangeArchive {
    archive: Arc<dyn Archive>,
    manifest: Manifest,
    prefixes: BTreeMap<Prefix, Slot>,
}

/// What is known about a prefix's tar. Only what the manifest says is until one of its ranges is asked for.
struct Slot {
    /// The length and the checksum of the tar that the manifest lists.
    listed: Object,
    index: RwLock<Option<Arc<PrefixIndex>>>,
    /// Held while an index is read, so that only one is.
    reading: Mutex<InVain>,
}

/// When reads of the books last changed nothing. They are not repeated for every request for a damaged range.
#[derive(Clone, Default)]
struct InVain {
    /// The report.
    report: Option<Instant>,
    /// The whole tar.
    tar: Option<Instant>,
}

impl Slot {
    fn of(object: &ManifestObject) -> Self {
        Self {
            listed: (object.content_length, object.crc32c),
            index: RwLock::default(),
            reading: Mutex::default(),
        }
    }

    fn current(&self) -> Option<Arc<PrefixIndex>> {
        self.index
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn keep(&self, index: PrefixIndex) -> Arc<PrefixIndex> {
        let index = Arc::new(index);
        let mut kept = self.index.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Arc::clone(&index));
        index
    }
}

/// What was read is not what the index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mismatch(&'static str);

impl RangeArchive {
    /// Opens an archive that has a manifest. Nothing else is read before a range is asked for.
    ///
    /// # Errors
    /// The manifest is missing or cannot be read.
    pub async fn open(archive: Arc<dyn Archive>) -> Result<Self, ReadError> {
        let manifest = archive.manifest().await?;
        let manifest = manifest.ok_or_else(|| ReadError::Invalid {
            file: MANIFEST_NAME.to_owned(),
            reason: "there is none; a run writes it when every prefix is stored".to_owned(),
        })?;
        let objects = manifest.objects.iter();
        let prefixes = objects.map(|object| (object.prefix, Slot::of(object)));
        Ok(Self {
            prefixes: prefixes.collect(),
            archive,
            manifest,
        })
    }

    /// What the archive holds.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads one range and compares it with its checksum.
    ///
    /// # Errors
    /// The archive does not hold it, it is damaged, or it cannot be read now.
    pub async fn range(&self, range: RangeName) -> Result<StoredRange, RangeError> {
        let prefix = range.prefix();
        let slot = self
            .prefixes
            .get(&prefix)
            .ok_or(RangeError::NotHeld(prefix))?;
        let mut index = match slot.current() {
            Some(index) => index,
            None => self.first_index(slot, prefix).await?,
        };
        let mut mismatch = Mismatch("");
        for _ in 0..READS_MAX {
            match self.read(range, slot, &index).await? {
                Ok(found) => return Ok(found),
                Err(found) => mismatch = found,
            }
            match self.newer_index(slot, prefix, &index).await? {
                Some(newer) => index = newer,
                None => break,
            }
        }
        Err(damaged(prefix, mismatch.0))
    }

    /// Reads a range where the index says that it is.
    async fn read(
        &self,
        range: RangeName,
        slot: &Slot,
        index: &PrefixIndex,
    ) -> Result<Result<StoredRange, Mismatch>, RangeError> {
        let Some(entry) = index.entry(range) else {
            return Ok(Err(Mismatch("its index lacks a range")));
        };
        let prefix = range.prefix();
        let bytes = match self.archive.read_tar_bytes(prefix, entry.bytes).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Err(Mismatch("it is missing"))),
            // The reason would say how far the range reaches.
            Err(ReadError::Invalid { .. }) => return Ok(Err(Mismatch("it ends early"))),
            Err(error) => return Err(error.into()),
        };
        let Some(header) = bytes.first_chunk::<BLOCK_BYTES>() else {
            return Ok(Err(Mismatch("it ends early")));
        };
        let header = tar::Header::from_byte_slice(header);
        if *header.path_bytes() != *range.file_name().as_bytes() {
            return Ok(Err(Mismatch("a range is not where its index says")));
        }
        let modified_seconds = header.mtime().unwrap_or_default();
        let body = bytes.slice(BLOCK_BYTES..);
        if Crc32c(crc32c::crc32c(&body)) != entry.crc32c {
            return Ok(Err(Mismatch(
                "a range has another checksum than in its index",
            )));
        }
        Ok(Ok(StoredRange {
            body,
            modified_seconds,
            etag: entry.etag.to_owned(),
            crc32c: entry.crc32c,
            is_listed: index.object() == slot.listed,
        }))
    }

    /// The index of a prefix that none of whose ranges was asked for yet.
    async fn first_index(
        &self,
        slot: &Slot,
        prefix: Prefix,
    ) -> Result<Arc<PrefixIndex>, RangeError> {
        let mut in_vain = slot.reading.lock().await;
        if let Some(index) = slot.current() {
            return Ok(index);
        }
        let unknown = || {
            damaged(
                prefix,
                "it is neither the tar of its report nor that of the manifest",
            )
        };
        if in_vain.report.is_some_and(is_within(REPORT_READ_PAUSE)) {
            return Err(unknown());
        }
        let reported = self.reported(prefix).await?;
        let object = reported.as_ref().map(object_of);
        if let Some(index) = reported.and_then(PrefixIndex::of_report) {
            return Ok(slot.keep(index));
        }
        let known = [Some(slot.listed), object];
        match self.index_of_tar(prefix, known, &mut in_vain.tar).await? {
            Some(index) => Ok(slot.keep(index)),
            None => {
                in_vain.report = Some(Instant::now());
                Err(unknown())
            }
        }
    }

    /// Another index than the one that did not fit; `None` if there is none.
    async fn newer_index(
        &self,
        slot: &Slot,
        prefix: Prefix,
        used: &Arc<PrefixIndex>,
    ) -> Result<Option<Arc<PrefixIndex>>, RangeError> {
        let mut in_vain = slot.reading.lock().await;
        if let Some(index) = slot.current().filter(|index| !Arc::ptr_eq(index, used)) {
            return Ok(Some(index));
        }
        if in_vain.report.is_some_and(is_within(REPORT_READ_PAUSE)) {
            return Ok(None);
        }
        let reported = self.reported(prefix).await?;
        let object = reported.as_ref().map(object_of);
        let index = reported.and_then(PrefixIndex::of_report);
        if let Some(index) = index.filter(|index| index.object() != used.object()) {
            return Ok(Some(slot.keep(index)));
        }
        let known = [Some(slot.listed), object];
        let index = self.index_of_tar(prefix, known, &mut in_vain.tar).await?;
        if index.is_none() {
            in_vain.report = Some(Instant::now());
        }
        Ok(index.map(|index| slot.keep(index)))
    }

    /// A prefix's report; `None` if there is no valid one.
    async fn reported(&self, prefix: Prefix) -> Result<Option<Report>, RangeError> {
        match self.archive.report(prefix).await {
            Ok(report) => {
                Ok(report
                    .filter(|report| report.mode == self.manifest.mode && report.check().is_ok()))
            }
            Err(ReadError::Invalid { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The index of a tar that is read from end to end; `None` if it is not whole, or not one of the objects that are
    /// `known` and not one that a run has stored: a valid tar can be damaged all the same, in a digit of a hash.
    async fn index_of_tar(
        &self,
        prefix: Prefix,
        known: [Option<Object>; 2],
        whole_read: &mut Option<Instant>,
    ) -> Result<Option<PrefixIndex>, RangeError> {
        if whole_read.is_some_and(is_within(WHOLE_READ_PAUSE)) {
            return Ok(None);
        }
        tracing::info!(%prefix, "reading a whole tar, because no report describes its ranges");
        let mode = self.manifest.mode;
        match self.archive.index_tar(prefix, mode).await? {
            Some(Ok(index)) => {
                let object = Some((index.content_length, index.crc32c));
                if known.contains(&object) || self.is_of_unfinished_run(prefix).await? {
                    return Ok(PrefixIndex::of_tar(prefix, index));
                }
                tracing::warn!(%prefix, "a tar is neither the one of its report nor that of the manifest");
            }
            Some(Err(damage)) => tracing::warn!(%prefix, damage, "a tar is damaged"),
            None => tracing::warn!(%prefix, "a tar is missing"),
        }
        *whole_read = Some(Instant::now());
        Ok(None)
    }

    /// Whether a prefix's tar is one that an unfinished run has stored: its report follows a moment later, or when the
    /// run is resumed. The generation shows that it is not the tar that the run has found, and that may be damaged.
    async fn is_of_unfinished_run(&self, prefix: Prefix) -> Result<bool, RangeError> {
        let record = match self.archive.run_record().await {
            Ok(record) => record,
            Err(ReadError::Invalid { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let unfinished = record.filter(|record| Some(&record.run) != self.manifest.run.as_ref());
        let Some(planned) = unfinished.as_ref().and_then(|record| record.prefix(prefix)) else {
            return Ok(false);
        };
        let generation = self.archive.generation(&tar_name(prefix)).await?;
        Ok(!planned.kept && generation != planned.base)
    }
}

/// The length and the checksum of a tar.
type Object = (u64, Crc32c);

fn object_of(report: &Report) -> Object {
    (report.content_length, report.crc32c)
}

/// Whether something happened within the last `pause`.
fn is_within(pause: Duration) -> impl Fn(Instant) -> bool {
    move |then| then.elapsed() < pause
}

fn damaged(prefix: Prefix, reason: &str) -> RangeError {
    RangeError::Damaged {
        file: tar_name(prefix),
        reason: reason.to_owned(),
    }
}
