//! Stores objects as files in a folder, each with a generation and a checksum.
//!
//! An object is staged, synced and then renamed, so it is either complete or absent. Its generation
//! is the file's modification time in microseconds, which survives a restart. For measuring, the
//! content of large objects can be discarded; their metadata are in memory then.

mod discarded;
mod file;
mod generation;
mod name;
mod partial;
#[cfg(test)]
mod tests;

pub use discarded::{KEPT_BYTES_MAX, Retention};
pub(crate) use file::open_without_waiting;
pub use generation::{GenerationMatch, current_generation};
pub use partial::PartialObject;

use crate::checksum::Crc32c;
use crate::error::{Access, StoreError, file_name};
use crate::staging;
use discarded::Discarded;
use generation::{generation_of, is_absent, next_generation, stamp};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Cached checksums, so that a HEAD need not read the whole object.
const CHECKSUMS_MAX: usize = 4096;

/// The size of one read for a checksum, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Describes a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectMetadata {
    /// The object's generation, which grows with every write.
    pub generation: u64,
    /// The object's length, in bytes.
    pub content_length: u64,
    /// The object's checksum.
    pub crc32c: Crc32c,
}

impl ObjectMetadata {
    /// The object's ETag, in quotes.
    pub fn etag(&self) -> String {
        format!("\"{:x}\"", self.generation)
    }
}

/// The objects of one bucket.
#[derive(Debug)]
pub struct Objects {
    folder: PathBuf,
    retention: Retention,
    discarded: Discarded,
    checksums: Mutex<HashMap<PathBuf, (u64, Crc32c)>>,
    /// Locked while a generation is checked and the object is then replaced or removed.
    commit: Mutex<()>,
}

impl Objects {
    /// Opens an existing folder as a bucket, and removes the staged files that killed processes
    /// left in it.
    pub fn open(folder: PathBuf) -> Self {
        Self::keeping(Retention::Everything, folder)
    }

    /// Opens a folder as a bucket that may discard the content of objects.
    pub fn keeping(retention: Retention, folder: PathBuf) -> Self {
        staging::remove_abandoned(&folder);
        Self {
            retention,
            ..Self::read_only(folder)
        }
    }

    /// Opens an existing folder for reading. Nothing in it is removed.
    pub fn read_only(folder: PathBuf) -> Self {
        Self {
            folder,
            retention: Retention::Everything,
            discarded: Discarded::default(),
            checksums: Mutex::default(),
            commit: Mutex::default(),
        }
    }

    /// The file of the object of this name.
    ///
    /// # Errors
    /// [`StoreError::InvalidArgument`] if the name is invalid or leads out of the folder, and
    /// [`StoreError::NoSuchBucket`] if the folder is gone.
    pub fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        name::file_of(&self.folder, name)
    }

    /// Describes the object at `path`; `None` if there is no object. It reads the whole object
    /// unless the checksum is cached.
    ///
    /// # Errors
    /// The file cannot be read, or [`StoreError::NotAFile`] inside an [`io::Error`] if something
    /// else has the object's name.
    pub fn metadata(&self, path: &Path) -> io::Result<Option<ObjectMetadata>> {
        Ok(self.open_object(path)?.map(|(metadata, _)| metadata))
    }

    /// Opens the object at `path`, together with its metadata; `None` if there is no object. Both
    /// are of the same generation, even if the object is being replaced. The file's position is
    /// anywhere. There is no file if the content was discarded.
    pub(crate) fn open_object(
        &self,
        path: &Path,
    ) -> Result<Option<(ObjectMetadata, Option<File>)>, StoreError> {
        if let Some(metadata) = self.discarded.get(path) {
            return Ok(Some((metadata, None)));
        }
        let Some((file, metadata)) = file::open(path)? else {
            // It may have been replaced in the meantime, by one whose content is not kept.
            return Ok(self.discarded.get(path).map(|metadata| (metadata, None)));
        };
        let unreadable = |error| StoreError::of_io(Access::Read, path, &error);
        let generation = generation_of(&metadata).map_err(unreadable)?;
        let cached = {
            let checksums = self
                .checksums
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            checksums.get(path).copied()
        };
        let crc32c = match cached {
            Some((cached, crc32c)) if cached == generation => crc32c,
            _ => {
                let crc32c = checksum(&file).map_err(unreadable)?;
                self.remember(path, generation, crc32c);
                crc32c
            }
        };
        let metadata = ObjectMetadata {
            generation,
            content_length: metadata.len(),
            crc32c,
        };
        Ok(Some((metadata, Some(file))))
    }

    /// Reads the content and the generation of a small object; `None` if there is no object. Both
    /// are of the same generation, even if the object is being replaced. No checksum is computed.
    ///
    /// # Errors
    /// [`StoreError::LargerThan`] if it has more than `bytes_max` bytes, [`StoreError::NotAFile`]
    /// if something else has its name, [`StoreError::ContentDiscarded`] if its content is not kept,
    /// or another error if the file cannot be read.
    pub fn read(&self, path: &Path, bytes_max: u64) -> Result<Option<(Vec<u8>, u64)>, StoreError> {
        if self.discarded.get(path).is_some() {
            let file = file_name(path);
            return Err(StoreError::ContentDiscarded { file });
        }
        let Some((file, metadata)) = file::open(path)? else {
            return Ok(None);
        };
        let unreadable = |error| StoreError::of_io(Access::Read, path, &error);
        let generation = generation_of(&metadata).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > bytes_max {
            let file = file_name(path);
            return Err(StoreError::LargerThan { file, bytes_max });
        }
        Ok(Some((bytes, generation)))
    }

    fn remember(&self, path: &Path, generation: u64, crc32c: Crc32c) {
        let mut checksums = self
            .checksums
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if checksums.len() >= CHECKSUMS_MAX {
            checksums.clear();
        }
        checksums.insert(path.to_owned(), (generation, crc32c));
    }

    /// Checks whether a precondition holds at this moment.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] if it does not, [`StoreError::NotAFile`] if something
    /// else has the object's name, or another error if the file's metadata cannot be read.
    pub fn check_generation(
        &self,
        path: &Path,
        condition: GenerationMatch,
    ) -> Result<(), StoreError> {
        let current = self.generation_at(path)?;
        if condition.holds(current) {
            Ok(())
        } else {
            Err(StoreError::PreconditionFailed)
        }
    }

    /// Begins an object of `content_length` bytes that will be at `path`.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn begin(&self, path: &Path, content_length: u64) -> Result<PartialObject, StoreError> {
        if self.retention.discards(content_length) {
            self.refuse_to_lose(path)?;
            Ok(PartialObject::discarding(path))
        } else {
            PartialObject::create(path)
        }
    }

    /// Writes a small object whole, if the precondition holds.
    ///
    /// # Errors
    /// As [`Self::commit`]. What was there stays as it was then.
    pub fn put(
        &self,
        path: &Path,
        bytes: &[u8],
        condition: GenerationMatch,
    ) -> Result<ObjectMetadata, StoreError> {
        self.check_generation(path, condition)?;
        let mut partial = self.begin(path, bytes.len() as u64)?;
        partial.append(bytes)?;
        self.commit(partial, path, condition)
    }

    /// Copies the file at `from`, which may be of another bucket, if both preconditions hold.
    ///
    /// # Errors
    /// [`StoreError::NoSuchKey`] if there is nothing of that generation at `from`, another error if it cannot be read,
    /// or as [`Self::commit`].
    pub fn copy_from(
        &self,
        from: &Path,
        wanted: GenerationMatch,
        path: &Path,
        condition: GenerationMatch,
    ) -> Result<ObjectMetadata, StoreError> {
        let unreadable = |error| StoreError::of_io(Access::Read, from, &error);
        let (mut file, metadata) = file::open(from)?.ok_or(StoreError::NoSuchKey)?;
        let generation = generation_of(&metadata).map_err(unreadable)?;
        if !wanted.holds(Some(generation)) {
            return Err(StoreError::NoSuchKey);
        }
        self.check_generation(path, condition)?;
        let mut partial = self.begin(path, metadata.len())?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = file.read(&mut buffer).map_err(unreadable)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            partial.append(bytes)?;
        }
        self.commit(partial, path, condition)
    }

    /// Gives a complete object its name if the precondition holds.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] if the precondition does not hold,
    /// [`StoreError::NotAFile`] if something else has the object's name, or another error if the
    /// object cannot be written to disk. The new object is removed then.
    pub fn commit(
        &self,
        partial: PartialObject,
        path: &Path,
        condition: GenerationMatch,
    ) -> Result<ObjectMetadata, StoreError> {
        let Some(staged) = partial.staged else {
            let (length, crc32c) = (partial.content_length, partial.crc32c);
            return self.commit_discarded(length, crc32c, path, condition);
        };
        let unwritable = |error| StoreError::of_io(Access::Write, path, &error);
        let file = staged.as_file();
        file.sync_all().map_err(unwritable)?;
        let guard = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.generation_at(path)?;
        if !condition.holds(current) {
            return Err(StoreError::PreconditionFailed);
        }
        let generation = stamp(file, current).map_err(unwritable)?;
        let crc32c = partial.crc32c;
        let content_length = partial.content_length;
        let persisted = staged.persist(path);
        persisted.map_err(|error| unwritable(error.error))?;
        sync_folder(path).map_err(unwritable)?;
        self.discarded.remove(path);
        drop(guard);
        self.remember(path, generation, crc32c);
        Ok(ObjectMetadata {
            generation,
            content_length,
            crc32c,
        })
    }

    /// Does the same with an object whose content was not kept. A file that it replaces is removed.
    fn commit_discarded(
        &self,
        content_length: u64,
        crc32c: Crc32c,
        path: &Path,
        condition: GenerationMatch,
    ) -> Result<ObjectMetadata, StoreError> {
        let _guard = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.generation_at(path)?;
        if !condition.holds(current) {
            return Err(StoreError::PreconditionFailed);
        }
        self.refuse_to_lose(path)?;
        let metadata = ObjectMetadata {
            generation: next_generation(current),
            content_length,
            crc32c,
        };
        // Readers look here first, so at no moment do they find nothing.
        self.discarded.insert(path, metadata)?;
        if let Err(error) = remove_file(path) {
            self.discarded.remove(path);
            return Err(error);
        }
        Ok(metadata)
    }

    /// Removes an object if the precondition holds, and returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] if the precondition does not hold,
    /// [`StoreError::NotAFile`] if something else has the object's name, or another error if the
    /// object cannot be removed.
    pub fn remove(&self, path: &Path, condition: GenerationMatch) -> Result<bool, StoreError> {
        let _guard = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_generation(path, condition)?;
        let was_file = remove_file(path)?;
        Ok(self.discarded.remove(path) || was_file)
    }

    /// Refuses to replace a file that this bucket would not have kept: it is of a store that keeps everything.
    fn refuse_to_lose(&self, path: &Path) -> Result<(), StoreError> {
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_file() && self.retention.discards(metadata.len()) => {
                let file = file_name(path);
                Err(StoreError::ContentKept { file })
            }
            _ => Ok(()),
        }
    }

    fn generation_at(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        let of_discarded = || self.discarded.get(path).map(|metadata| metadata.generation);
        if let Some(generation) = of_discarded() {
            return Ok(Some(generation));
        }
        let of_file = current_generation(path)
            .map_err(|error| StoreError::of_io(Access::Read, path, &error))?;
        Ok(of_file.or_else(of_discarded))
    }
}

/// Removes a file, and returns whether there was one.
fn remove_file(path: &Path) -> Result<bool, StoreError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(StoreError::of_io(Access::Remove, path, &error)),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn checksum(mut file: &File) -> io::Result<Crc32c> {
    let mut buffer = vec![0; READ_BYTES];
    let mut crc32c = Crc32c::default();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc32c),
            read => crc32c = crc32c.append(&buffer[..read]),
        }
    }
}
