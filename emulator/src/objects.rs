//! Stores objects as files in a folder, each with a generation and a checksum.
//!
//! An object is staged, synced and then renamed, so it is either complete or absent. Its generation
//! is the file's modification time in microseconds, which survives a restart.

mod generation;
mod name;
mod partial;

pub(crate) use generation::generation_of;
pub use generation::{GenerationMatch, current_generation};
pub use partial::PartialObject;

use crate::checksum::Crc32c;
use crate::error::StoreError;
use crate::staging;
use generation::{is_absent, next_generation};
use std::collections::HashMap;
use std::fs::{File, FileTimes};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

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
    checksums: Mutex<HashMap<PathBuf, (u64, Crc32c)>>,
    /// Locked while a generation is checked and the object is then replaced or removed.
    commit: Mutex<()>,
}

impl Objects {
    /// Opens an existing folder as a bucket, and removes the staged files that killed processes
    /// left in it.
    pub fn open(folder: PathBuf) -> Self {
        staging::remove_abandoned(&folder);
        Self::read_only(folder)
    }

    /// Opens an existing folder for reading. Nothing in it is removed.
    pub fn read_only(folder: PathBuf) -> Self {
        Self {
            folder,
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
    /// The file cannot be read.
    pub fn metadata(&self, path: &Path) -> io::Result<Option<ObjectMetadata>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let generation = generation_of(&metadata)?;
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
                let crc32c = checksum(file)?;
                self.remember(path, generation, crc32c);
                crc32c
            }
        };
        Ok(Some(ObjectMetadata {
            generation,
            content_length: metadata.len(),
            crc32c,
        }))
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
    /// [`StoreError::PreconditionFailed`] if it does not, or another error if the file's metadata
    /// cannot be read.
    pub fn check_generation(
        &self,
        path: &Path,
        condition: GenerationMatch,
    ) -> Result<(), StoreError> {
        let current = current_generation(path).map_err(|error| write_error(&error))?;
        if condition.holds(current) {
            Ok(())
        } else {
            Err(StoreError::PreconditionFailed)
        }
    }

    /// Begins an object that will be at `path`.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn begin(&self, path: &Path) -> Result<PartialObject, StoreError> {
        PartialObject::create(path).map_err(|error| write_error(&error))
    }

    /// Gives a complete object its name if the precondition holds.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] if the precondition does not hold, or another error if
    /// the object cannot be written to disk. The new object is discarded then.
    pub fn commit(
        &self,
        partial: PartialObject,
        path: &Path,
        condition: GenerationMatch,
    ) -> Result<ObjectMetadata, StoreError> {
        let file = partial.staged.as_file();
        file.sync_all().map_err(|error| write_error(&error))?;
        let guard = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current_generation(path).map_err(|error| write_error(&error))?;
        if !condition.holds(current) {
            return Err(StoreError::PreconditionFailed);
        }
        let generation = next_generation(current);
        let modified = UNIX_EPOCH + Duration::from_micros(generation);
        let crc32c = partial.crc32c;
        let content_length = partial.content_length;
        file.set_times(FileTimes::new().set_modified(modified))
            .map_err(|error| write_error(&error))?;
        partial
            .staged
            .persist(path)
            .map_err(|error| write_error(&error.error))?;
        sync_folder(path).map_err(|error| write_error(&error))?;
        drop(guard);
        self.remember(path, generation, crc32c);
        Ok(ObjectMetadata {
            generation,
            content_length,
            crc32c,
        })
    }

    /// Removes an object if the precondition holds, and returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] if the precondition does not hold, or another error if
    /// the object cannot be removed.
    pub fn remove(&self, path: &Path, condition: GenerationMatch) -> Result<bool, StoreError> {
        let _guard = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_generation(path, condition)?;
        match std::fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(write_error(&error)),
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn checksum(mut file: File) -> io::Result<Crc32c> {
    let mut buffer = vec![0; READ_BYTES];
    let mut crc32c = Crc32c::default();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc32c),
            read => crc32c = crc32c.append(&buffer[..read]),
        }
    }
}

fn write_error(error: &io::Error) -> StoreError {
    tracing::warn!(%error, "cannot write to a bucket's folder");
    if error.kind() == io::ErrorKind::StorageFull {
        StoreError::NoSpaceLeft
    } else {
        StoreError::CannotWrite(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> (tempfile::TempDir, Objects) {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = Objects::open(folder.path().to_owned());
        (folder, objects)
    }

    fn write(
        objects: &Objects,
        name: &str,
        body: &[u8],
        condition: GenerationMatch,
    ) -> Result<ObjectMetadata, StoreError> {
        let path = objects.path(name)?;
        let mut partial = objects.begin(&path)?;
        partial.append(body)?;
        objects.commit(partial, &path, condition)
    }

    #[test]
    fn an_object_appears_only_when_it_is_complete() {
        let (folder, objects) = objects();
        let path = objects.path("AB.tar").expect("a path");
        let mut partial = objects.begin(&path).expect("begun");
        partial.append(b"half").expect("appended");
        assert_eq!(objects.metadata(&path).expect("metadata"), None);
        drop(partial);
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("read").count(),
            0,
            "a dropped upload leaves nothing behind"
        );
        let stored =
            write(&objects, "AB.tar", b"123456789", GenerationMatch::Absent).expect("stored");
        assert_eq!(stored.crc32c, Crc32c(0xE306_9283));
        assert_eq!(objects.metadata(&path).expect("metadata"), Some(stored));
        let reopened = Objects::open(folder.path().to_owned());
        assert_eq!(reopened.metadata(&path).expect("metadata"), Some(stored));
    }

    #[test]
    fn a_conditional_write_succeeds_only_over_the_expected_generation() {
        let (_folder, objects) = objects();
        let first = write(&objects, "x", b"1", GenerationMatch::Absent).expect("stored");
        assert_eq!(
            write(&objects, "x", b"2", GenerationMatch::Absent),
            Err(StoreError::PreconditionFailed)
        );
        let second =
            write(&objects, "x", b"2", GenerationMatch::Is(first.generation)).expect("stored");
        assert!(second.generation > first.generation);
        assert_eq!(
            write(&objects, "x", b"3", GenerationMatch::Is(first.generation)),
            Err(StoreError::PreconditionFailed)
        );
        let third = write(&objects, "x", b"3", GenerationMatch::Any).expect("stored");
        assert!(third.generation > second.generation);
    }

    #[test]
    fn a_file_from_1970_has_a_generation_that_a_precondition_can_name() {
        let (_folder, objects) = objects();
        let path = objects.path("x").expect("a path");
        let stored = File::create(&path).expect("a file");
        let times = FileTimes::new().set_modified(UNIX_EPOCH);
        stored.set_times(times).expect("set");
        assert_eq!(current_generation(&path).expect("metadata"), Some(1));
        assert!(write(&objects, "x", b"2", GenerationMatch::Is(1)).is_ok());
    }
}
