//! [`ArchivePlaces`]: where the archive of a typed location may be. With `{month}`, the answer changes every month.

use crate::archive::location::{ArchiveLocation, LocationError};
use crate::archive::{self, Archive};
use crate::gcs::options::ObjectOptions;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A location as it was typed, and the archives that were opened there.
pub(super) struct ArchivePlaces {
    typed: String,
    options: ObjectOptions,
    ca_file: Option<PathBuf>,
    /// By location, so that a bucket's connections last from one look to the next.
    open: Mutex<BTreeMap<String, Arc<dyn Archive>>>,
}

/// Checks that a text is a location.
pub(super) fn typed_location(text: &str) -> Result<String, LocationError> {
    ArchiveLocation::recent(text, Timestamp::now())?;
    Ok(text.to_owned())
}

impl ArchivePlaces {
    /// The places of a location. `options` and `ca_file` concern buckets.
    pub(super) const fn new(
        typed: String,
        options: ObjectOptions,
        ca_file: Option<PathBuf>,
    ) -> Self {
        Self {
            typed,
            options,
            ca_file,
            open: Mutex::new(BTreeMap::new()),
        }
    }

    /// The archives that there may be, the latest first. A folder that does not exist is left out.
    ///
    /// # Errors
    /// None can be opened: what is wrong with the latest.
    pub(super) fn latest_first(&self) -> anyhow::Result<Vec<Arc<dyn Archive>>> {
        let mut first_error = None;
        let mut places = Vec::new();
        let mut before = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = BTreeMap::new();
        for location in ArchiveLocation::recent(&self.typed, Timestamp::now())? {
            let known = before.remove(&location.to_string()).map_or_else(
                || archive::open(&location, &self.options, self.ca_file.as_deref()),
                Ok,
            );
            match known {
                Ok(archive) => {
                    places.push(Arc::clone(&archive));
                    open.insert(location.to_string(), archive);
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        *before = open;
        match first_error.filter(|_| places.is_empty()) {
            Some(error) => Err(error),
            None => Ok(places),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_months_that_exist_are_the_places_and_stay_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let typed = format!("{}/{{month}}", folder.path().display());
        let places = ArchivePlaces::new(typed.clone(), ObjectOptions::default(), None);
        let error = places.latest_first().err().expect("nothing is there");
        assert!(error.to_string().ends_with("is not a folder"), "{error}");
        let recent = ArchiveLocation::recent(&typed, Timestamp::now()).expect("locations");
        for month in [&recent[2], &recent[5]] {
            std::fs::create_dir(month.to_string()).expect("a folder");
        }
        let first = places.latest_first().expect("two places");
        let second = places.latest_first().expect("two places");
        assert_eq!(first.len(), 2);
        let same = first.iter().zip(&second).all(|(a, b)| Arc::ptr_eq(a, b));
        assert!(same, "they are opened once");
    }
}
