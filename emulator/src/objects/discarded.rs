//! Remembers the objects whose content is not kept: their metadata, in memory.

use super::ObjectMetadata;
use crate::error::StoreError;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The largest object whose content [`Retention::SmallObjects`] keeps, in bytes. Reports and manifests are smaller,
/// and tars are larger: 4,096 ranges take 4 MiB even if they are empty.
pub const KEPT_BYTES_MAX: u64 = 1024 * 1024;

/// The objects that are remembered, for the tars of 64 archives. They take about 4 MB.
const DISCARDED_MAX: usize = 64 * 256;

/// What a bucket keeps of its objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Their content, as files.
    #[default]
    Everything,
    /// The content of those that have at most [`KEPT_BYTES_MAX`]. Larger ones are received and checked
    /// like the others, but only their metadata are kept, in memory.
    SmallObjects,
}

impl Retention {
    pub(super) const fn discards(self, content_length: u64) -> bool {
        matches!(self, Self::SmallObjects) && content_length > KEPT_BYTES_MAX
    }
}

/// The metadata of the discarded objects, by the path that their file would have.
#[derive(Debug, Default)]
pub(super) struct Discarded(Mutex<HashMap<PathBuf, ObjectMetadata>>);

impl Discarded {
    pub(super) fn get(&self, path: &Path) -> Option<ObjectMetadata> {
        self.lock().get(path).copied()
    }

    /// Remembers an object.
    ///
    /// # Errors
    /// [`StoreError::TooManyDiscarded`] if there is no room for another one.
    pub(super) fn insert(&self, path: &Path, metadata: ObjectMetadata) -> Result<(), StoreError> {
        let mut objects = self.lock();
        if objects.len() >= DISCARDED_MAX && !objects.contains_key(path) {
            return Err(StoreError::TooManyDiscarded);
        }
        objects.insert(path.to_owned(), metadata);
        Ok(())
    }

    /// Forgets an object, and returns whether it was remembered.
    pub(super) fn remove(&self, path: &Path) -> bool {
        self.lock().remove(path).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, ObjectMetadata>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Crc32c;

    #[test]
    fn no_more_objects_are_remembered_than_there_is_room_for() {
        const METADATA: ObjectMetadata = ObjectMetadata {
            generation: 1,
            content_length: 2,
            crc32c: Crc32c(3),
        };
        let discarded = Discarded::default();
        let path = |number: usize| PathBuf::from(number.to_string());
        for number in 0..DISCARDED_MAX {
            assert_eq!(discarded.insert(&path(number), METADATA), Ok(()));
        }
        let another = path(DISCARDED_MAX);
        assert_eq!(
            discarded.insert(&another, METADATA),
            Err(StoreError::TooManyDiscarded)
        );
        assert_eq!(discarded.insert(&path(0), METADATA), Ok(()), "replaced");
        assert!(discarded.remove(&path(0)));
        assert_eq!(discarded.insert(&another, METADATA), Ok(()));
    }
}
