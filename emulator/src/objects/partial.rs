//! Writes an object that is not complete yet.

use super::write_error;
use crate::checksum::Crc32c;
use crate::error::StoreError;
use crate::staging;
use std::io::{self, Write as _};
use std::path::Path;

/// An object that is being written. Dropping it discards it.
#[derive(Debug)]
pub struct PartialObject {
    pub(super) staged: tempfile::NamedTempFile,
    pub(super) crc32c: Crc32c,
    pub(super) content_length: u64,
}

impl PartialObject {
    /// Begins an object that will be at `path`, and creates its folder if there is none.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let parent = path
            .parent()
            .ok_or_else(|| io::Error::other("the object has no folder"))?;
        std::fs::create_dir_all(parent)?;
        Ok(Self {
            staged: staging::create_in(parent)?,
            crc32c: Crc32c::default(),
            content_length: 0,
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The bytes cannot be written to disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.staged
            .write_all(bytes)
            .map_err(|error| write_error(&error))?;
        self.crc32c = self.crc32c.append(bytes);
        self.content_length += bytes.len() as u64;
        Ok(())
    }

    /// The checksum of the bytes so far.
    pub const fn crc32c(&self) -> Crc32c {
        self.crc32c
    }
}
