//! Generations of objects, and the preconditions on them.

use super::file::look_at;
#[cfg(doc)]
use crate::error::StoreError;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

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
    pub(super) fn holds(self, current: Option<u64>) -> bool {
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

/// The generation for an object that replaces one of generation `current`.
pub(super) fn next_generation(current: Option<u64>) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    now.max(current.unwrap_or(0).saturating_add(1))
}

/// Whether an error means that a file does not exist.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
