//! Where a run writes its archive: signed uploads for the component, then reports and the manifest.

pub mod bucket;
pub mod folder;

use crate::archive::manifest::Manifest;
use crate::archive::{Archive, ReadError};
use crate::gcs::client::RequestError;
use crate::origin::Origin;
use crate::sign::SignError;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::Upload;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::report::Report;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How much longer a signed URL lives than the invocation that uses it.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// Why an operation on a destination failed.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// An upload could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The store refused or lost a request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What the archive already holds cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file could not be written, removed or inspected.
    #[error("cannot {operation} {file}: {cause}")]
    File {
        /// The operation as a verb: `write`.
        operation: &'static str,
        /// The file's path.
        file: String,
        /// What the system answered.
        cause: io::Error,
    },
    /// The store confirmed a write with another checksum, or with none.
    #[error("{object} was stored with another checksum than {expected}, or without one")]
    Checksum {
        /// The object's name.
        object: String,
        /// The checksum of what was sent.
        expected: String,
    },
    /// Any other error, which a retry cannot fix.
    #[error("{0}")]
    Other(String),
}

impl DestinationError {
    fn file(operation: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::File {
            operation,
            file: path.display().to_string(),
            cause,
        }
    }

    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Sign(error) => error.is_transient(),
            Self::Request(error) => error.is_transient(),
            Self::Read(ReadError::Unreadable { is_transient, .. }) => *is_transient,
            Self::Read(ReadError::Invalid { .. }) | Self::Other(_) => false,
            // A disk that was full or busy a moment ago may have room now.
            Self::File { .. } | Self::Checksum { .. } => true,
        }
    }
}

impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        let message = error.to_string();
        if error.is_transient() {
            Self::transient(FailureKind::Destination, message)
        } else {
            Self::permanent(FailureKind::Destination, message)
        }
    }
}

/// Where a run writes its archive.
#[async_trait::async_trait]
pub trait Destination: Send + Sync {
    /// The origin that the component uploads to.
    fn origin(&self) -> &Origin;

    /// Reads what the archive already holds.
    fn archive(&self) -> &dyn Archive;

    /// Prepares a run: removes the manifest, which is no longer true.
    async fn begin(&self) -> Result<(), DestinationError>;

    /// Prepares an attempt at `prefix`: signs a PUT that replaces exactly the generation that is
    /// there now. A folder also removes the earlier report; in a bucket, its checksum distinguishes
    /// it from the new one.
    async fn prepare(&self, prefix: Prefix) -> Result<Upload, DestinationError>;

    /// Removes the tar of a prefix, which is not what was sent, if it still has this generation.
    async fn discard(&self, prefix: Prefix, generation: &str) -> Result<(), DestinationError>;

    /// Writes a report, whole or not at all.
    async fn write_report(&self, report: &Report) -> Result<(), DestinationError>;

    /// Writes the manifest, whole or not at all.
    async fn write_manifest(&self, manifest: &Manifest) -> Result<(), DestinationError>;

    /// The owner of a stale lock that this run took over, if there was one.
    fn took_over_from(&self) -> Option<String> {
        None
    }

    /// Waits for uploads that have not ended yet.
    async fn close(&self) {}
}
