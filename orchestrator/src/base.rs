//! [`BaseArchive`]: the earlier archive that a run builds on. Ranges that have not changed since come from its tars, by
//! signed URLs that the orchestrator gives to the component.

pub mod bucket;
pub mod folder;

use crate::archive::layout::{report_name, tar_name};
use crate::archive::location::ArchiveLocation;
use crate::archive::{Archive, ReadError, report_to_replace, whole};
use crate::destination::{CopySource, Destination, DestinationError};
use crate::origin::Origin;
use prefix_tar::protocol::job::{self, Download};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An archive whose files can be read by signed URL.
#[async_trait::async_trait]
pub trait ReadableStore: Send + Sync {
    /// The origin that the component reads from.
    fn origin(&self) -> &Origin;

    /// Reads the archive.
    fn archive(&self) -> &dyn Archive;

    /// Signs the GET of a file of this generation.
    async fn sign_download(
        &self,
        file: &str,
        generation: &str,
    ) -> Result<Download, DestinationError>;

    /// A file of this generation, for a store that copies it by itself; `None` if it is where it should be.
    fn copy_source(&self, file: &str, generation: &str) -> Option<CopySource>;
}

/// What a prefix can be built on.
#[derive(Debug)]
pub struct Offer {
    /// The files for its job.
    pub files: job::Base,
    /// The tar to copy if nothing has changed; `None` if it stays where it is.
    pub copy: Option<CopySource>,
}

/// The place that a run writes to, read as a base.
struct InPlace(Arc<dyn Destination>);

#[async_trait::async_trait]
impl ReadableStore for InPlace {
    fn origin(&self) -> &Origin {
        self.0.origin()
    }

    fn archive(&self) -> &dyn Archive {
        self.0.archive()
    }

    async fn sign_download(
        &self,
        file: &str,
        generation: &str,
    ) -> Result<Download, DestinationError> {
        self.0.sign_download(file, generation).await
    }

    fn copy_source(&self, _file: &str, _generation: &str) -> Option<CopySource> {
        None
    }
}

/// Why an archive is no base.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBase {
    /// Nothing is there.
    #[error("there is no archive")]
    Missing,
    /// It is from another source.
    #[error("it was mirrored from {0}")]
    OtherSource(String),
    /// It has other hashes.
    #[error("it has {} hashes", .0.hash_name())]
    OtherMode(Mode),
}

/// Why a prefix cannot be built on the base.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The base does not have it whole.
    #[error("the base has no tar of it that is whole and fits its report")]
    Missing,
    /// The base's tar is from another source.
    #[error("the base's tar is from {0}")]
    OtherSource(String),
    /// The base's tar has other hashes.
    #[error("the base's tar has {} hashes", .0.hash_name())]
    OtherMode(Mode),
    /// The base's report has no checksums.
    #[error("the base's report has no checksums of single ranges, as those of version 0.1.0")]
    NoChecksums,
    /// The base's tar was read, and is not what its report says.
    #[error("the base's report of it has another index than its tar")]
    OtherIndex,
    /// The base cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its URLs cannot be signed.
    #[error(transparent)]
    Sign(#[from] DestinationError),
}

impl Unusable {
    /// Whether another attempt may find the base usable.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Read(ReadError::Unreadable { is_transient, .. }) => *is_transient,
            Self::Sign(error) => error.is_transient(),
            _ => false,
        }
    }
}

/// The base of a run.
pub struct BaseArchive {
    store: Arc<dyn ReadableStore>,
    destination: Arc<dyn Destination>,
    /// Whether the destination has refused to copy a tar.
    refuses_copies: AtomicBool,
}

impl BaseArchive {
    /// The archive that the run replaces.
    pub fn in_place(destination: Arc<dyn Destination>) -> Self {
        Self::elsewhere(Arc::new(InPlace(Arc::clone(&destination))), destination)
    }

    /// An archive at another place than `destination`.
    pub fn elsewhere(store: Arc<dyn ReadableStore>, destination: Arc<dyn Destination>) -> Self {
        Self {
            store,
            destination,
            refuses_copies: AtomicBool::new(false),
        }
    }

    /// The origin that the component reads from.
    pub fn origin(&self) -> &Origin {
        self.store.origin()
    }

    /// Notes that the destination cannot copy tars after all: they are uploaded from now on.
    pub fn give_up_copying(&self) {
        self.refuses_copies.store(true, Ordering::Relaxed);
    }

    /// Why the archive as a whole cannot be used; `None` if it can.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn unusable_because(
        &self,
        source: &str,
        mode: Mode,
    ) -> Result<Option<NoBase>, ReadError> {
        let archive = self.store.archive();
        let of_manifest = match archive.manifest().await {
            Ok(manifest) => manifest.map(|manifest| (manifest.source, manifest.mode)),
            Err(ReadError::Invalid { .. }) => None,
            Err(error) => return Err(error),
        };
        let of_run = match archive.run_record().await {
            Ok(record) => record.map(|record| (record.source, record.mode)),
            Err(ReadError::Invalid { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(match of_manifest.or(of_run) {
            None => Some(NoBase::Missing),
            Some((other, _)) if other != source => Some(NoBase::OtherSource(other)),
            Some((_, other)) if other != mode => Some(NoBase::OtherMode(other)),
            Some(_) => None,
        })
    }

    /// Checks a tar that stays or is copied as a whole: nobody has looked at its entries. In a bucket, where that would
    /// be a download, the store's checksum of the tar has to do.
    ///
    /// # Errors
    /// The tar is not what `report` says, or cannot be read.
    pub async fn check(&self, report: &Report) -> Result<(), Unusable> {
        let archive = self.store.archive();
        if !archive.is_local() {
            return Ok(());
        }
        let index = archive.index_tar(report.prefix, report.mode).await?;
        match index {
            Some(Ok(index)) if index.is_in(report) => Ok(()),
            _ => Err(Unusable::OtherIndex),
        }
    }

    /// The files of a prefix for its job.
    ///
    /// # Errors
    /// The base does not have the prefix, or not so that it can be used.
    pub async fn offer(&self, prefix: Prefix, source: &str, mode: Mode) -> Result<Offer, Unusable> {
        let archive = self.store.archive();
        let (report, generation) = whole(prefix, archive).await?.ok_or(Unusable::Missing)?;
        if report.source != source {
            return Err(Unusable::OtherSource(report.source));
        }
        if report.mode != mode {
            return Err(Unusable::OtherMode(report.mode));
        }
        if report.range_crc32c.is_empty() {
            return Err(Unusable::NoChecksums);
        }
        let versioned = report_to_replace(archive, prefix).await?;
        let report_generation = versioned.base.ok_or(Unusable::Missing)?;
        let (report_file, tar_file) = (report_name(prefix), tar_name(prefix));
        let copy = self.store.copy_source(&tar_file, &generation);
        let can_copy = |from: &CopySource| {
            !self.refuses_copies.load(Ordering::Relaxed) && self.destination.can_copy(from)
        };
        let report = self.store.sign_download(&report_file, &report_generation);
        Ok(Offer {
            files: job::Base {
                report: report.await?,
                tar: self.store.sign_download(&tar_file, &generation).await?,
                always_upload: !copy.as_ref().is_none_or(can_copy),
            },
            copy,
        })
    }
}

/// Whether two locations are the same place.
pub fn is_same_place(one: &ArchiveLocation, other: &ArchiveLocation) -> bool {
    match (one, other) {
        (ArchiveLocation::Folder(one), ArchiveLocation::Folder(other)) => {
            match (one.canonicalize(), other.canonicalize()) {
                (Ok(one), Ok(other)) => one == other,
                // What does not exist yet is what it is called.
                _ => one == other,
            }
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_folder_is_the_same_place_by_every_path_to_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        std::fs::create_dir(path.join("sub")).expect("a folder");
        let at = |path: &Path| ArchiveLocation::Folder(path.to_owned());
        assert!(is_same_place(&at(path), &at(&path.join("sub/.."))));
        assert!(!is_same_place(&at(path), &at(&path.join("sub"))));
        let missing = path.join("missing");
        assert!(is_same_place(&at(&missing), &at(&missing)));
        let bucket: ArchiveLocation = "gs://bucket/pwned".parse().expect("a location");
        assert!(is_same_place(&bucket, &bucket.clone()) && !is_same_place(&bucket, &at(path)));
    }
}
