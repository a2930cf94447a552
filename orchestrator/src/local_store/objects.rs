//! Objects as files of a folder: whole or not there, each with a generation and a checksum.
//! Who may read or write them, and how that is said in HTTP, is left to the store.
//!
//! An object is written to a temporary file, synced and renamed. A generation is the file's time of modification in microseconds, which survives a restart.

use super::error::StoreError;
use super::temporary;
use prefix_tar::job::Crc32c;
use std::collections::HashMap;
use std::fs::{File, FileTimes};
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// GCS's bound on an object's name, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// Checksums that are kept, so that a HEAD need not read the object.
const CHECKSUMS_MAX: usize = 4096;

/// What is read at once for a checksum, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// What is known of a stored object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectMetadata {
    /// Its generation: larger for every time that it is written.
    pub generation: u64,
    /// Its length, in bytes.
    pub content_length: u64,
    /// Its checksum.
    pub crc32c: Crc32c,
}

impl ObjectMetadata {
    /// Its ETag.
    pub fn etag(&self) -> String {
        format!("\"{:x}\"", self.generation)
    }
}

/// Which generation must be there for a write to take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationMatch {
    /// Whatever is there.
    Any,
    /// No object.
    Absent,
    /// An object of this generation.
    Is(u64),
}

impl GenerationMatch {
    fn holds(self, current: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Is(generation) => current == Some(generation),
        }
    }
}

/// The objects of one bucket.
#[derive(Debug)]
pub struct Objects {
    folder: PathBuf,
    checksums: Mutex<HashMap<PathBuf, (u64, Crc32c)>>,
    /// Held from the look at the current generation to the rename.
    commit: Mutex<()>,
}

impl Objects {
    /// The objects of `folder`, which exists. Removes the temporary files that nobody writes any more.
    pub fn open(folder: PathBuf) -> Self {
        temporary::remove_abandoned(&folder);
        Self {
            folder,
            checksums: Mutex::default(),
            commit: Mutex::default(),
        }
    }

    /// The file of an object.
    ///
    /// # Errors
    /// The name is none that stays inside of the folder.
    pub fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let invalid = StoreError::InvalidArgument("The object's name is not valid here.");
        let relative = Path::new(name);
        let is_plain = relative.components().all(|part| match part {
            Component::Normal(part) => !temporary::is_name(part),
            _ => false,
        });
        let is_canonical = relative
            .components()
            .map(|part| part.as_os_str().len() + 1)
            .sum::<usize>()
            == name.len() + 1;
        if name.is_empty()
            || name.len() > NAME_BYTES_MAX
            || name.contains(['\0', '\\'])
            || !is_plain
            || !is_canonical
        {
            return Err(invalid);
        }
        let path = self.folder.join(relative);
        // A link inside of the folder could still lead out of it.
        let mut parent = path.parent();
        while let Some(folder) = parent {
            if let Ok(real) = folder.canonicalize() {
                let root = self
                    .folder
                    .canonicalize()
                    .map_err(|_| StoreError::NoSuchBucket)?;
                return if real.starts_with(root) {
                    Ok(path)
                } else {
                    Err(invalid)
                };
            }
            parent = folder.parent();
        }
        Err(StoreError::NoSuchBucket)
    }

    /// What is known of an object, or `None` where there is none. May read the whole object.
    ///
    /// # Errors
    /// It cannot be read.
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
        let known = {
            let checksums = self
                .checksums
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            checksums.get(path).copied()
        };
        let crc32c = match known {
            Some((known, crc32c)) if known == generation => crc32c,
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

    /// Whether a write with this condition could take place now.
    ///
    /// # Errors
    /// It could not, or the object cannot be looked at.
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

    /// Begins to write an object.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn begin(&self, path: &Path) -> Result<PartialObject, StoreError> {
        begin(path).map_err(|error| write_error(&error))
    }

    /// Makes a written object visible under its name, if the condition holds.
    ///
    /// # Errors
    /// The condition does not hold, or the disk did not take the object. It is not there then.
    pub fn commit(
        &self,
        partial: PartialObject,
        path: &Path,
        condition: GenerationMatch,
    ) -> Result<ObjectMetadata, StoreError> {
        let file = partial.temporary.as_file();
        file.sync_all().map_err(|error| write_error(&error))?;
        let guard = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current_generation(path).map_err(|error| write_error(&error))?;
        if !condition.holds(current) {
            return Err(StoreError::PreconditionFailed);
        }
        let generation = next_generation(current);
        let modified = UNIX_EPOCH + Duration::from_micros(generation);
        let crc32c = Crc32c(partial.crc32c);
        let content_length = partial.content_length;
        file.set_times(FileTimes::new().set_modified(modified))
            .map_err(|error| write_error(&error))?;
        partial
            .temporary
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

    /// Removes an object if the condition holds; answers whether there was one.
    ///
    /// # Errors
    /// The condition does not hold, or the object cannot be removed.
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

/// An object that is being written. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct PartialObject {
    temporary: tempfile::NamedTempFile,
    crc32c: u32,
    content_length: u64,
}

impl PartialObject {
    /// Appends bytes.
    ///
    /// # Errors
    /// The disk did not take them.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.temporary
            .write_all(bytes)
            .map_err(|error| write_error(&error))?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.content_length += bytes.len() as u64;
        Ok(())
    }

    /// The checksum of what was appended.
    pub const fn crc32c(&self) -> Crc32c {
        Crc32c(self.crc32c)
    }
}

fn begin(path: &Path) -> io::Result<PartialObject> {
    let parent = path
        .parent()
        .ok_or_else(|| io::Error::other("the object has no folder"))?;
    std::fs::create_dir_all(parent)?;
    Ok(PartialObject {
        temporary: temporary::file(parent)?,
        crc32c: 0,
        content_length: 0,
    })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

pub(super) fn generation_of(metadata: &std::fs::Metadata) -> io::Result<u64> {
    let since = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // 0 is no generation: in a condition, it says that there is no object.
    Ok(u64::try_from(since.as_micros()).unwrap_or(u64::MAX).max(1))
}

/// The generation of the object at `path`, `None` where there is none.
pub fn current_generation(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => generation_of(&metadata).map(Some),
        Ok(_) => Ok(None),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn next_generation(current: Option<u64>) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    now.max(current.unwrap_or(0).saturating_add(1))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn checksum(mut file: File) -> io::Result<Crc32c> {
    let mut buffer = vec![0; READ_BYTES];
    let mut crc32c = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Crc32c(crc32c)),
            read => crc32c = crc32c::crc32c_append(crc32c, &buffer[..read]),
        }
    }
}

fn write_error(error: &io::Error) -> StoreError {
    tracing::warn!(%error, "the store cannot write");
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
    fn no_name_leads_out_of_the_folder() {
        let (folder, objects) = objects();
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "./a",
            "a/./b",
            "a\0b",
            "a\\b",
            ".prefix-tar-upload-x",
            "a/.prefix-tar-upload-x",
        ] {
            assert!(
                matches!(objects.path(name), Err(StoreError::InvalidArgument(_))),
                "{name:?}"
            );
        }
        assert!(matches!(
            objects.path(&"a".repeat(1025)),
            Err(StoreError::InvalidArgument(_))
        ));
        let outside = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).expect("a link");
        assert!(matches!(
            objects.path("link/x"),
            Err(StoreError::InvalidArgument(_))
        ));
        assert!(objects.path("a/b c/Ä.tar").is_ok());
    }

    #[test]
    fn an_object_is_there_when_it_is_whole_and_not_before() {
        let (folder, objects) = objects();
        let path = objects.path("AB.tar").expect("a path");
        let mut partial = objects.begin(&path).expect("begun");
        partial.append(b"half").expect("appended");
        assert_eq!(objects.metadata(&path).expect("looked at"), None);
        drop(partial);
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("read").count(),
            0,
            "a dropped upload leaves nothing"
        );
        let stored =
            write(&objects, "AB.tar", b"123456789", GenerationMatch::Absent).expect("stored");
        assert_eq!(stored.crc32c, Crc32c(0xE306_9283));
        assert_eq!(objects.metadata(&path).expect("looked at"), Some(stored));
        let reopened = Objects::open(folder.path().to_owned());
        assert_eq!(reopened.metadata(&path).expect("looked at"), Some(stored));
    }

    #[test]
    fn a_write_takes_place_only_over_the_generation_that_it_names() {
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
    fn a_file_from_the_beginning_of_time_has_a_generation_that_can_be_named() {
        let (_folder, objects) = objects();
        let path = objects.path("x").expect("a path");
        let stored = File::create(&path).expect("a file");
        let times = FileTimes::new().set_modified(UNIX_EPOCH);
        stored.set_times(times).expect("set");
        assert_eq!(current_generation(&path).expect("looked at"), Some(1));
        assert!(write(&objects, "x", b"2", GenerationMatch::Is(1)).is_ok());
    }
}
