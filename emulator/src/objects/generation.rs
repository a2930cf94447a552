//! Generations of objects, and the preconditions on them.

use super::file::look_at;
#[cfg(doc)]
use crate::error::StoreError;
use std::fs::{File, FileTimes};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The coarsest steps in which a file system counts time, in microseconds: FAT's.
const COARSEST_MICROS: u64 = 2_000_000;

/// A precondition on the generation of an object that is to be written or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationMatch {
    /// There is no precondition.
    Any,
    /// The object does not exist.
    Absent,
    /// The object exists and has this generation.
    Is(u64),
}

impl GenerationMatch {
    pub(crate) fn holds(self, current: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Is(generation) => current == Some(generation),
        }
    }
}

/// The generation of the object at `path`, or `None` if there is no object.
///
/// # Errors
/// The file's metadata cannot be read, or [`StoreError::NotAFile`] inside an [`io::Error`] if
/// something else has the object's name.
pub fn current_generation(path: &Path) -> io::Result<Option<u64>> {
    match look_at(path)? {
        Some(metadata) => generation_of(&metadata).map(Some),
        None => Ok(None),
    }
}

/// The generation of the object in a file.
pub(crate) fn generation_of(metadata: &std::fs::Metadata) -> io::Result<u64> {
    let since = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // 0 cannot be a generation: in a precondition it means that there is no object.
    Ok(u64::try_from(since.as_micros()).unwrap_or(u64::MAX).max(1))
}

/// Gives a staged file the generation of an object that replaces one of generation `current`, and
/// returns it.
///
/// # Errors
/// The file system cannot express a later time than that of the current object.
pub(super) fn stamp(file: &File, current: Option<u64>) -> io::Result<u64> {
    let current = current.unwrap_or(0);
    for step in [1, COARSEST_MICROS] {
        let next = later(current, step);
        let modified = UNIX_EPOCH + Duration::from_micros(next);
        file.set_times(FileTimes::new().set_modified(modified))?;
        // A file system rounds times, and cuts those that it cannot express.
        let stamped = generation_of(&file.metadata()?)?;
        if stamped > current {
            return Ok(stamped);
        }
    }
    Err(io::Error::other(
        "the object's modification time lies too far in the future; set it to now with touch",
    ))
}

/// The generation of an object without a file that replaces one of generation `current`.
pub(super) fn next_generation(current: Option<u64>) -> u64 {
    later(current.unwrap_or(0), 1)
}

/// Now, or `step` microseconds after `current` if that is later.
fn later(current: u64, step: u64) -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    now.max(current.saturating_add(step))
}

/// Whether an error means that a file does not exist.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
