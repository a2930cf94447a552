//! Reads archives from a folder or a bucket, through the trait [`Archive`]. Nothing here writes.

pub mod bucket;
pub mod folder;
pub mod layout;
pub mod location;
pub mod manifest;
pub mod measurements;
pub mod ranges;
pub mod run_record;

use crate::gcs::client::BucketClient;
use crate::gcs::options::ObjectOptions;
use crate::verify::tar_check::check_tar;
use bucket::BucketArchive;
use bytes::Bytes;
use folder::FolderArchive;
use layout::{MANIFEST_NAME, MEASUREMENTS_NAME, RUN_RECORD_NAME, report_name};
use location::ArchiveLocation;
use manifest::Manifest;
use measurements::{MEASUREMENTS_BYTES_MAX, Measurements};
use prefix_tar::limits::REPORT_BYTES_MAX;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use run_record::{RUN_RECORD_BYTES_MAX, RunRecord};
use serde::de::DeserializeOwned;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A manifest, in bytes. With 256 objects it has about 40 KB.
pub const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

/// What a conditional write expects to find: the generation of a file, or `None` for no file.
pub type Base = Option<String>;

/// A small file that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its content.
    pub content: Vec<u8>,
    /// Its generation.
    pub generation: String,
}

/// A file of the archive's books, and what a write that replaces it expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// What the file says; `None` if it is missing or not valid.
    pub value: Option<T>,
    /// The state that was read.
    pub base: Base,
}

/// An object's metadata in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// The length in bytes.
    pub content_length: u64,
    /// The checksum.
    pub crc32c: Crc32c,
    /// The generation.
    pub generation: String,
    /// The ETag, if the store gives one.
    pub etag: Option<String>,
}

impl StoredObject {
    /// Whether the object is the tar that `report` describes.
    pub fn matches(&self, report: &Report) -> bool {
        self.content_length == report.content_length && self.crc32c == report.crc32c
    }
}

/// The index of a tar that was read from end to end, and every range of which is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarIndex {
    /// The size of each range in bytes, in order.
    pub range_bytes: Vec<u32>,
    /// The checksum of each range's data, in order.
    pub range_crc32c: Vec<Crc32c>,
    /// Hashes.
    pub hashes: u64,
    /// Data of all ranges in bytes.
    pub data_bytes: u64,
    /// The tar's length in bytes.
    pub content_length: u64,
    /// The tar's checksum.
    pub crc32c: Crc32c,
}

impl TarIndex {
    /// Whether `report` says the same of the tar and of each range in it.
    pub fn is_in(&self, report: &Report) -> bool {
        self.content_length == report.content_length
            && self.crc32c == report.crc32c
            && self.hashes == report.hashes
            && self.range_bytes == report.range_bytes
            && self.range_crc32c == report.range_crc32c
    }

    /// Whether this is the index of `object`.
    pub fn is_of(&self, object: &StoredObject) -> bool {
        self.content_length == object.content_length && self.crc32c == object.crc32c
    }
}

/// Why a file of an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file may exist, but the folder or the store did not deliver it.
    #[error("cannot read {file}: {reason}")]
    Unreadable {
        /// The file's path or URL, without a query.
        file: String,
        /// What came back.
        reason: String,
        /// Whether another attempt may succeed.
        is_transient: bool,
    },
    /// The file exists, but is not what its name says.
    #[error("{file} is not valid: {reason}")]
    Invalid {
        /// The file's path or URL, without a query.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The cause of an [`io::Error`](std::io::Error) of a [`TarReader`]: what was read so far belongs
/// to a tar that is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was replaced while it was read")]
pub struct Replaced;

/// The bytes of a tar, for a thread that may block. If the tar may be another one by now, reading
/// fails with [`Replaced`].
pub type TarReader = Box<dyn Read + Send>;

/// An archive in a folder or a bucket. `Ok(None)` always means that the file does not exist.
#[async_trait::async_trait]
pub trait Archive: Send + Sync {
    /// Reads a small file whole, at most `bytes_max` of it.
    ///
    /// # Errors
    /// The file exists but cannot be read, or is larger.
    async fn read(&self, file: &str, bytes_max: usize) -> Result<Option<StoredFile>, ReadError>;

    /// Whether reading a tar costs no transfer: it is on this machine.
    fn is_local(&self) -> bool {
        false
    }

    /// The generation of any file of the archive, without reading it.
    ///
    /// # Errors
    /// The store or the folder does not say.
    async fn generation(&self, file: &str) -> Result<Base, ReadError>;

    /// Checks that nothing has the name of `file` that a write could not replace.
    ///
    /// # Errors
    /// Something has. In a bucket, nothing can.
    async fn check_replaceable(&self, _file: &str) -> Result<(), ReadError> {
        Ok(())
    }

    /// Whether the account may not read `file`, so that it seems to be absent.
    ///
    /// # Errors
    /// The store or the folder cannot be read.
    async fn is_denied(&self, _file: &str) -> Result<bool, ReadError> {
        Ok(false)
    }

    /// The metadata of a prefix's tar. In a folder, this may read the whole tar for its checksum.
    ///
    /// # Errors
    /// The store or the folder cannot be read.
    async fn object(&self, prefix: Prefix) -> Result<Option<StoredObject>, ReadError>;

    /// The metadata of a prefix's tar, if it has this length in bytes. A tar of another length is not read.
    ///
    /// # Errors
    /// The store or the folder cannot be read.
    async fn object_of_length(
        &self,
        prefix: Prefix,
        content_length: u64,
    ) -> Result<Option<StoredObject>, ReadError> {
        let object = self.object(prefix).await?;
        Ok(object.filter(|object| object.content_length == content_length))
    }

    /// Whether a prefix has a tar.
    ///
    /// # Errors
    /// The store or the folder cannot be read.
    async fn has_tar(&self, prefix: Prefix) -> Result<bool, ReadError>;

    /// Opens a prefix's tar from its beginning.
    ///
    /// # Errors
    /// The tar exists but cannot be opened.
    async fn open_tar(&self, prefix: Prefix) -> Result<Option<TarReader>, ReadError>;

    /// Reads the bytes `byte_range` of a prefix's tar: exactly as many as asked for.
    ///
    /// # Errors
    /// The tar exists but cannot be read, or ends earlier.
    async fn read_tar_bytes(
        &self,
        prefix: Prefix,
        byte_range: Range<u64>,
    ) -> Result<Option<Bytes>, ReadError>;

    /// Reads a prefix's tar of this mode from end to end: its index, or what is wrong with it.
    ///
    /// # Errors
    /// The tar exists but cannot be read.
    async fn index_tar(
        &self,
        prefix: Prefix,
        mode: Mode,
    ) -> Result<Option<Result<TarIndex, String>>, ReadError> {
        match self.open_tar(prefix).await? {
            Some(tar) => index(tar, prefix, mode).await.map(Some),
            None => Ok(None),
        }
    }

    /// The manifest.
    ///
    /// # Errors
    /// It exists, but cannot be read or is not a manifest.
    async fn manifest(&self) -> Result<Option<Manifest>, ReadError> {
        let file = self.read(MANIFEST_NAME, MANIFEST_BYTES_MAX).await?;
        file.map(|file| parse(MANIFEST_NAME, &file.content))
            .transpose()
    }

    /// The record of the latest run.
    ///
    /// # Errors
    /// It exists, but cannot be read or is not a record of a run.
    async fn run_record(&self) -> Result<Option<RunRecord>, ReadError> {
        let file = self.read(RUN_RECORD_NAME, RUN_RECORD_BYTES_MAX).await?;
        file.map(|file| parse(RUN_RECORD_NAME, &file.content))
            .transpose()
    }

    /// The report of a prefix.
    ///
    /// # Errors
    /// It exists, but cannot be read or is not a report.
    async fn report(&self, prefix: Prefix) -> Result<Option<Report>, ReadError> {
        let name = report_name(prefix);
        let file = self.read(&name, REPORT_BYTES_MAX).await?;
        file.map(|file| parse(&name, &file.content)).transpose()
    }
}

/// Reads a tar on a thread that may block.
async fn index(
    tar: TarReader,
    prefix: Prefix,
    mode: Mode,
) -> Result<Result<TarIndex, String>, ReadError> {
    let unreadable = |reason: String| ReadError::Unreadable {
        file: layout::tar_name(prefix),
        reason,
        is_transient: true,
    };
    let check = tokio::task::spawn_blocking(move || check_tar(tar, prefix, mode, None))
        .await
        .map_err(|error| unreadable(error.to_string()))?;
    if let Some(error) = check.unreadable {
        return Err(unreadable(error.to_string()));
    }
    if !check.is_whole() {
        let lines = check.damages.into_lines();
        return Ok(Err(lines.join("; ")));
    }
    Ok(Ok(TarIndex {
        range_bytes: check.range_bytes,
        range_crc32c: check.range_crc32c,
        hashes: check.hashes,
        data_bytes: check.data_bytes,
        content_length: check.content_length,
        crc32c: check.crc32c,
    }))
}

/// Reads the manifest for a run that will replace it.
///
/// # Errors
/// It cannot be read.
pub async fn manifest_to_replace(archive: &dyn Archive) -> Result<Versioned<Manifest>, ReadError> {
    versioned(archive, MANIFEST_NAME, MANIFEST_BYTES_MAX).await
}

/// Reads a report for a run that may replace it.
///
/// # Errors
/// It cannot be read.
pub async fn report_to_replace(
    archive: &dyn Archive,
    prefix: Prefix,
) -> Result<Versioned<Report>, ReadError> {
    versioned(archive, &report_name(prefix), REPORT_BYTES_MAX).await
}

/// The report of a prefix and the generation of its tar, if the report breaks no rule and fits the tar.
///
/// # Errors
/// The archive cannot be read.
pub async fn whole(
    prefix: Prefix,
    archive: &dyn Archive,
) -> Result<Option<(Report, String)>, ReadError> {
    let report = report_to_replace(archive, prefix).await?.value;
    let Some(report) = report.filter(|report| report.prefix == prefix) else {
        return Ok(None);
    };
    if let Err(fault) = report.check() {
        tracing::warn!(%prefix, %fault, "a report is not valid and counts as missing");
        return Ok(None);
    }
    let object = archive.object_of_length(prefix, report.content_length);
    let object = object.await?;
    Ok(object
        .filter(|object| object.matches(&report))
        .map(|object| {
            let generation = object.generation;
            let report = Report {
                generation: Some(generation.clone()),
                ..report
            };
            (report, generation)
        }))
}

/// Reads the record of the latest run.
///
/// # Errors
/// It cannot be read.
pub async fn run_record(archive: &dyn Archive) -> Result<Versioned<RunRecord>, ReadError> {
    versioned(archive, RUN_RECORD_NAME, RUN_RECORD_BYTES_MAX).await
}

/// Reads the measurements for a run that will replace them.
///
/// # Errors
/// They cannot be read.
pub async fn measurements_to_replace(
    archive: &dyn Archive,
) -> Result<Versioned<Measurements>, ReadError> {
    versioned(archive, MEASUREMENTS_NAME, MEASUREMENTS_BYTES_MAX).await
}

/// Reads the measurements of the latest run; `None` if there are none.
///
/// # Errors
/// They cannot be read, or are not valid.
pub async fn measurements(archive: &dyn Archive) -> Result<Option<Measurements>, ReadError> {
    let file = archive
        .read(MEASUREMENTS_NAME, MEASUREMENTS_BYTES_MAX)
        .await?;
    let measurements: Option<Measurements> = file
        .map(|file| parse(MEASUREMENTS_NAME, &file.content))
        .transpose()?;
    match measurements {
        Some(measurements) if !measurements.is_consistent() => Err(ReadError::Invalid {
            file: MEASUREMENTS_NAME.to_owned(),
            reason: "its lists do not fit each other".to_owned(),
        }),
        measurements => Ok(measurements),
    }
}

/// Reads a file that a run may replace. A file that is not valid, or too long, has no value, but a generation.
async fn versioned<T: DeserializeOwned>(
    archive: &dyn Archive,
    name: &str,
    bytes_max: usize,
) -> Result<Versioned<T>, ReadError> {
    let (parsed, base) = match archive.read(name, bytes_max).await {
        Ok(None) => (Ok(None), None),
        Ok(Some(file)) => (parse(name, &file.content).map(Some), Some(file.generation)),
        // If its generation cannot be told either, it is no regular file, and nothing can replace it.
        Err(error @ ReadError::Invalid { .. }) => (Err(error), archive.generation(name).await?),
        Err(error) => return Err(error),
    };
    let value = parsed.unwrap_or_else(|error| {
        tracing::warn!(%error, "an invalid file counts as missing");
        None
    });
    Ok(Versioned { value, base })
}

fn parse<T: DeserializeOwned>(file: &str, text: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(text).map_err(|error| ReadError::Invalid {
        file: file.to_owned(),
        reason: error.to_string(),
    })
}

/// Opens the archive at `location` for reading. `options` and `ca_file` concern buckets.
///
/// # Errors
/// The folder does not exist, or the bucket's endpoint or credentials cannot be used.
pub fn open(
    location: &ArchiveLocation,
    options: &ObjectOptions,
    ca_file: Option<&Path>,
) -> anyhow::Result<Arc<dyn Archive>> {
    Ok(match location {
        ArchiveLocation::Folder(folder) => {
            anyhow::ensure!(folder.is_dir(), "{} is not a folder", folder.display());
            Arc::new(FolderArchive::new(folder.clone()))
        }
        ArchiveLocation::Bucket(path) => {
            let client = BucketClient::open(path.clone(), options, ca_file)?;
            Arc::new(BucketArchive::new(Arc::new(client)).for_reading_only())
        }
    })
}
