//! Writes an object that is not complete yet.

use crate::checksum::Crc32c;
use crate::error::{Access, StoreError};
use crate::staging;
use md5::{Digest as _, Md5};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// An object that is being written. Dropping it discards it.
#[derive(Debug)]
pub struct PartialObject {
    /// The bytes so far; `None` if they are not kept.
    pub(super) staged: Option<tempfile::NamedTempFile>,
    /// The object's file. It names the object in messages.
    path: PathBuf,
    pub(super) crc32c: Crc32c,
    pub(super) content_length: u64,
    /// The MD5 of the bytes so far, if somebody wants to know it.
    md5: Option<Md5>,
}

impl PartialObject {
    /// Begins an object that will be at `path`, and creates its folder if there is none.
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let parent = path.parent().ok_or(StoreError::InternalError)?;
        let staged = std::fs::create_dir_all(parent)
            .and_then(|()| staging::create_in(parent))
            .map_err(|error| StoreError::of_io(Access::Write, path, &error))?;
        Ok(Self {
            staged: Some(staged),
            ..Self::discarding(path)
        })
    }

    /// Begins an object whose bytes are counted and summed, but not kept.
    pub(super) fn discarding(path: &Path) -> Self {
        Self {
            staged: None,
            path: path.to_owned(),
            crc32c: Crc32c::default(),
            content_length: 0,
            md5: None,
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The bytes cannot be written to disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(staged) = &mut self.staged {
            staged
                .write_all(bytes)
                .map_err(|error| StoreError::of_io(Access::Write, &self.path, &error))?;
        }
        self.crc32c = self.crc32c.append(bytes);
        self.content_length += bytes.len() as u64;
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        Ok(())
    }

    /// Whether the bytes are written to disk.
    pub const fn is_kept(&self) -> bool {
        self.staged.is_some()
    }

    /// The checksum of the bytes so far.
    pub const fn crc32c(&self) -> Crc32c {
        self.crc32c
    }

    /// Computes the MD5 as well, from the first byte on. Call it before any bytes are appended.
    pub fn compute_md5(&mut self) {
        self.md5 = Some(Md5::new());
    }

    /// The MD5 of the bytes so far; `None` unless it was to be computed.
    pub fn md5(&self) -> Option<[u8; 16]> {
        self.md5.clone().map(|md5| md5.finalize().into())
    }
}
