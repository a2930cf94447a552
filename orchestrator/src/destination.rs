//! Where a run writes its archive: signed uploads for the component, and conditional writes of the books.

pub mod bucket;
pub mod folder;

use crate::archive::layout::tar_name;
use crate::archive::{Archive, Base, ReadError};
use crate::gcs::client::RequestError;
use crate::origin::Origin;
use crate::sign::SignError;
use emulator::error::StoreError;
use prefix_tar::protocol::failure::{Failure, FailureKind};
use prefix_tar::protocol::job::{Download, Upload};
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar::protocol::signed_url::SignedUrl;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How much longer a signed URL lives than the invocation that uses it.
pub(crate) const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

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
        /// What came back.
        cause: StoreError,
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
    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Sign(error) => error.is_transient(),
            Self::Request(error) => error.is_transient(),
            Self::Read(ReadError::Unreadable { is_transient, .. }) => *is_transient,
            Self::Read(ReadError::Invalid { .. }) | Self::Other(_) => false,
            // Only somebody who moves it away can mend that.
            Self::File {
                cause: StoreError::NotAFile { .. },
                ..
            } => false,
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

/// Permission to write one small file once.
#[derive(Debug)]
pub struct WritePermit {
    /// The file.
    pub file: String,
    /// What it may replace.
    pub base: Base,
    /// The signed URL of a bucket, and the headers that go with it.
    pub signed: Option<(SignedUrl, BTreeMap<String, String>)>,
}

/// A tar that a store can copy by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// An object in a bucket.
    Object {
        /// The store's origin.
        origin: String,
        /// `bucket/object`.
        path: String,
        /// The object's generation.
        generation: String,
    },
    /// A local file.
    File {
        /// Its path.
        path: PathBuf,
        /// Its generation.
        generation: String,
    },
}

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The file has this content and this generation.
    Done {
        /// The generation.
        generation: String,
    },
    /// The file is not in the state that the write expected: somebody else has written it.
    Conflict,
}

/// Where a run writes its archive.
#[async_trait::async_trait]
pub trait Destination: Send + Sync {
    /// The origin that the component uploads to.
    fn origin(&self) -> &Origin;

    /// Reads what the archive already holds.
    fn archive(&self) -> &dyn Archive;

    /// Whether other processes can write to the archive at the same time. A folder is locked; a bucket is not.
    fn is_shared(&self) -> bool;

    /// How long an upload URL is valid after its signature.
    fn upload_life(&self) -> Duration;

    /// Signs the PUT of a prefix's tar. It can only replace `base`.
    async fn sign_upload(&self, prefix: Prefix, base: &Base) -> Result<Upload, DestinationError>;

    /// Signs the GET of a file of this generation.
    async fn sign_download(
        &self,
        file: &str,
        generation: &str,
    ) -> Result<Download, DestinationError>;

    /// Whether the store can copy a tar from there by itself.
    fn can_copy(&self, _from: &CopySource) -> bool {
        false
    }

    /// Prepares a copy of a tar to a prefix's. It can only replace `base`.
    async fn permit_copy(
        &self,
        prefix: Prefix,
        _from: &CopySource,
        _base: Base,
    ) -> Result<WritePermit, DestinationError> {
        Err(cannot_copy(&tar_name(prefix)))
    }

    /// Copies a tar, whole or not at all.
    async fn copy(
        &self,
        permit: WritePermit,
        _from: &CopySource,
    ) -> Result<Written, DestinationError> {
        Err(cannot_copy(&permit.file))
    }

    /// Removes the tar of a prefix if it still has this generation: it is not what was sent.
    async fn discard(&self, prefix: Prefix, generation: &str) -> Result<(), DestinationError>;

    /// Prepares a write of a small file that can only replace `base`. In a bucket, it can only be used for five
    /// minutes, whatever happens to this process.
    async fn permit_write(&self, file: &str, base: Base) -> Result<WritePermit, DestinationError>;

    /// Writes a small file, whole or not at all.
    async fn write(
        &self,
        permit: WritePermit,
        content: Vec<u8>,
    ) -> Result<Written, DestinationError>;

    /// The owner of a stale lock that this run took over, if there was one.
    fn took_over_from(&self) -> Option<String> {
        None
    }

    /// Waits for uploads that have not ended yet.
    async fn close(&self) {}
}

fn cannot_copy(file: &str) -> DestinationError {
    DestinationError::Other(format!("{file} cannot be copied from there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_may_have_room_later_but_a_folder_does_not_become_a_file() {
        let error = |cause| DestinationError::File {
            operation: "write",
            file: "/srv/pwned/00.json".to_owned(),
            cause,
        };
        assert!(error(StoreError::NoSpaceLeft).is_transient());
        let folder = StoreError::NotAFile {
            file: "00.json".to_owned(),
            kind: "folder",
        };
        assert!(!error(folder).is_transient());
    }
}
