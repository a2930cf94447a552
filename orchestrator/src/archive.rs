//! Reads archives from a folder or a bucket, through the trait [`Archive`]. Nothing here writes.

pub mod bucket;
pub mod folder;
pub mod layout;
pub mod location;
pub mod manifest;

use crate::gcs::client::BucketClient;
use crate::gcs::options::ObjectOptions;
use bucket::BucketArchive;
use folder::FolderArchive;
use layout::{MANIFEST_NAME, report_name};
use location::ArchiveLocation;
use manifest::Manifest;
use prefix_tar::limits::REPORT_BYTES_MAX;
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A manifest, in bytes. With 256 objects it has about 40 KB.
pub const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

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

impl ReadError {
    /// What is wrong, without the file's name: `cannot be read: permission denied`.
    pub fn problem(&self) -> String {
        match self {
            Self::Unreadable { reason, .. } => format!("cannot be read: {reason}"),
            Self::Invalid { reason, .. } => format!("is not valid: {reason}"),
        }
    }
}

/// The bytes of a tar, for a thread that may block.
pub type TarReader = Box<dyn Read + Send>;

/// An archive in a folder or a bucket. `Ok(None)` always means that the file does not exist.
#[async_trait::async_trait]
pub trait Archive: Send + Sync {
    /// Reads a small file whole, at most `bytes_max` of it.
    ///
    /// # Errors
    /// The file exists but cannot be read, or is larger.
    async fn read(&self, file: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, ReadError>;

    /// The metadata of a prefix's tar. In a folder, this may read the whole tar for its checksum.
    ///
    /// # Errors
    /// The store or the folder cannot be read.
    async fn object(&self, prefix: Prefix) -> Result<Option<StoredObject>, ReadError>;

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
    ) -> Result<Option<Vec<u8>>, ReadError>;

    /// The manifest.
    ///
    /// # Errors
    /// It exists, but cannot be read or is not a manifest.
    async fn manifest(&self) -> Result<Option<Manifest>, ReadError> {
        let text = self.read(MANIFEST_NAME, MANIFEST_BYTES_MAX).await?;
        text.map(|text| parse(MANIFEST_NAME, &text)).transpose()
    }

    /// The report of a prefix.
    ///
    /// # Errors
    /// It exists, but cannot be read or is not a report.
    async fn report(&self, prefix: Prefix) -> Result<Option<Report>, ReadError> {
        let file = report_name(prefix);
        let text = self.read(&file, REPORT_BYTES_MAX).await?;
        text.map(|text| parse(&file, &text)).transpose()
    }
}

fn parse<T: DeserializeOwned>(file: &str, text: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(text).map_err(|error| ReadError::Invalid {
        file: file.to_owned(),
        reason: error.to_string(),
    })
}

/// Treats a file that exists but is not valid as missing: a run replaces it.
///
/// # Errors
/// The file cannot be read.
pub fn valid_or_missing<T>(read: Result<Option<T>, ReadError>) -> Result<Option<T>, ReadError> {
    match read {
        Err(error @ ReadError::Invalid { .. }) => {
            tracing::warn!(%error, "an invalid file counts as missing");
            Ok(None)
        }
        read => read,
    }
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
            Arc::new(BucketArchive::new(Arc::new(client)))
        }
    })
}
