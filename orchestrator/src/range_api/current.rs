//! [`CurrentArchive`]: the archive that is served. It follows the manifest: when a run has written a new one, the
//! archive is opened again beside the old one, and replaces it for requests from then on.

use super::metrics::Metrics;
use crate::archive::layout::MANIFEST_NAME;
use crate::archive::ranges::RangeArchive;
use crate::archive::{Archive, ReadError};
use jiff::Timestamp;
use prefix_tar::protocol::mode::Mode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// An archive that was opened.
pub(super) struct OpenArchive {
    pub(super) ranges: RangeArchive,
    /// Different for every archive that is opened. It is part of the keys of the cache.
    pub(super) epoch: u64,
    /// When the run that wrote it stored its last object.
    pub(super) finished: Option<Timestamp>,
    /// Where it is.
    archive: Arc<dyn Archive>,
    /// The manifest's generation.
    generation: String,
}

impl OpenArchive {
    /// Which hashes it holds.
    pub(super) const fn mode(&self) -> Mode {
        self.ranges.manifest().mode
    }
}

/// Where the archive may be, the latest place first. The first with a manifest is served.
pub type Places = Box<dyn Fn() -> Vec<Arc<dyn Archive>> + Send + Sync>;

/// The latest archive of some places, in its latest state.
pub struct CurrentArchive {
    places: Places,
    /// Which hashes it must hold, if that is not all the same.
    expected: Option<Mode>,
    open: watch::Sender<Option<Arc<OpenArchive>>>,
}

/// What a look at the manifest has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// A new archive is served.
    Opened,
    /// The manifest has not changed.
    Unchanged,
    /// There is no manifest. What was open before stays so.
    Missing,
}

impl CurrentArchive {
    /// An archive that is not open yet. If a mode is `expected`, an archive of the other one is never served.
    pub fn new(places: Places, expected: Option<Mode>) -> Self {
        Self {
            places,
            expected,
            open: watch::Sender::new(None),
        }
    }

    /// Opens the archive if its manifest is new.
    ///
    /// # Errors
    /// The manifest cannot be read, or states another mode than is expected. What was open before stays so.
    pub async fn refresh(&self) -> Result<Refreshed, ReadError> {
        let Some((archive, generation)) = self.latest().await? else {
            return Ok(Refreshed::Missing);
        };
        let before = self.get();
        if before.as_ref().is_some_and(|open| {
            Arc::ptr_eq(&open.archive, &archive) && open.generation == generation
        }) {
            return Ok(Refreshed::Unchanged);
        }
        // If the manifest is replaced in between, the generation is too old, and the next look opens it once more.
        let ranges = RangeArchive::open(Arc::clone(&archive)).await?;
        let stated = ranges.manifest().mode;
        if let Some(expected) = self.expected.filter(|expected| *expected != stated) {
            let (stated, expected) = (stated.hash_name(), expected.hash_name());
            return Err(ReadError::Invalid {
                file: MANIFEST_NAME.to_owned(),
                reason: format!("the archive holds {stated} hashes, not {expected} hashes"),
            });
        }
        let open = OpenArchive {
            epoch: before.map_or(0, |open| open.epoch + 1),
            finished: ranges.manifest().finished.parse().ok(),
            ranges,
            archive,
            generation,
        };
        self.open.send_replace(Some(Arc::new(open)));
        Ok(Refreshed::Opened)
    }

    /// The first place that has a manifest, and the manifest's generation. No place after that of the open archive is
    /// looked at.
    async fn latest(&self) -> Result<Option<(Arc<dyn Archive>, String)>, ReadError> {
        let open = self.get();
        for archive in (self.places)() {
            if let Some(generation) = archive.generation(MANIFEST_NAME).await? {
                return Ok(Some((archive, generation)));
            }
            // A manifest may be missing for a moment. An older archive must not take its place.
            if open
                .as_ref()
                .is_some_and(|open| Arc::ptr_eq(&open.archive, &archive))
            {
                break;
            }
        }
        Ok(None)
    }

    /// Looks at the manifest again and again. `on_opened` is called for every archive that is opened.
    pub(super) async fn follow(&self, every: Duration, metrics: &Metrics, on_opened: impl Fn()) {
        let mut failure = None;
        loop {
            tokio::time::sleep(every).await;
            let failed = match self.refresh().await {
                Ok(Refreshed::Opened) => {
                    on_opened();
                    None
                }
                Ok(Refreshed::Unchanged) => None,
                Ok(Refreshed::Missing) => Some("there is no manifest".to_owned()),
                Err(error) => {
                    metrics.upstream_error();
                    Some(error.to_string())
                }
            };
            if failed != failure
                && let Some(reason) = &failed
            {
                tracing::warn!(%reason, "the archive's manifest cannot be read");
            }
            failure = failed;
        }
    }

    /// The archive that is open.
    pub(super) fn get(&self) -> Option<Arc<OpenArchive>> {
        self.open.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::folder::FolderArchive;
    use crate::verify::sample::archive_of;
    use prefix_tar::protocol::prefix::Prefix;

    #[tokio::test]
    async fn a_later_place_replaces_an_earlier_one_and_not_the_reverse() {
        let [later, earlier] =
            [0xAB, 0xAC].map(|prefix| archive_of(&[Prefix::from_number(prefix)]));
        let of = |folder: &tempfile::TempDir| -> Arc<dyn Archive> {
            Arc::new(FolderArchive::new(folder.path().to_owned()))
        };
        let places = vec![of(&later), of(&earlier)];
        let manifest = later.path().join(MANIFEST_NAME);
        let aside = later.path().join("aside");
        let current = CurrentArchive::new(Box::new(move || places.clone()), None);
        let refreshed = async || current.refresh().await.expect("readable");
        let served = || {
            let open = current.get().expect("an archive");
            open.ranges.manifest().objects[0].prefix
        };

        std::fs::rename(&manifest, &aside).expect("moved");
        assert_eq!(refreshed().await, Refreshed::Opened);
        assert_eq!(served(), Prefix::from_number(0xAC));
        std::fs::rename(&aside, &manifest).expect("moved");
        assert_eq!(refreshed().await, Refreshed::Opened);
        assert_eq!(served(), Prefix::from_number(0xAB));
        std::fs::rename(&manifest, &aside).expect("moved");
        assert_eq!(refreshed().await, Refreshed::Missing);
        assert_eq!(served(), Prefix::from_number(0xAB));
        std::fs::rename(&aside, &manifest).expect("moved");
        assert_eq!(refreshed().await, Refreshed::Unchanged);
    }
}
