//! [`FolderStore`]: a folder that the component reads from as from a bucket, through an emulator in this process that
//! changes nothing in it.

use super::ReadableStore;
use crate::archive::Archive;
use crate::archive::folder::FolderArchive;
use crate::destination::{CopySource, DestinationError};
use crate::origin::Origin;
use crate::sign::UrlSigner;
use emulator::key::ServiceAccountKey;
use emulator::permissions::{Permissions, Role};
use emulator::signature::Verifier;
use emulator::{Buckets, Emulator};
use prefix_tar::protocol::job::Download;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The bucket in the signed URLs. Only this process's emulator sees it.
const BUCKET: &str = "base";

/// The authority in the signed URLs. Nothing listens there: the embedded host calls the emulator. Its port tells it from
/// the destination's.
const AUTHORITY: &str = "localhost:1";

/// A folder to read from.
#[derive(Debug)]
pub struct FolderStore {
    folder: PathBuf,
    archive: FolderArchive,
    signer: UrlSigner,
    origin: Origin,
    expiry: Duration,
}

impl FolderStore {
    /// Opens a folder. Its URLs are valid for `expiry`.
    ///
    /// # Errors
    /// No key can be generated.
    pub async fn open(folder: &Path, expiry: Duration) -> anyhow::Result<Self> {
        let key = tokio::task::spawn_blocking(ServiceAccountKey::generate).await??;
        let buckets = Buckets::One {
            name: BUCKET.to_owned(),
            folder: folder.to_owned(),
        };
        let permissions = Permissions::of_roles(&[Role::ObjectViewer]);
        let emulator = Emulator::with_permissions(buckets, Verifier::trusting(&key)?, permissions);
        let objects = emulator.objects(BUCKET)?;
        let origin = Origin::in_process(AUTHORITY, emulator);
        Ok(Self {
            folder: folder.to_owned(),
            archive: FolderArchive::with_objects(folder.to_owned(), objects),
            signer: UrlSigner::new(&key, origin.to_string(), BUCKET.to_owned())?,
            origin,
            expiry,
        })
    }
}

#[async_trait::async_trait]
impl ReadableStore for FolderStore {
    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn archive(&self) -> &dyn Archive {
        &self.archive
    }

    async fn sign_download(
        &self,
        file: &str,
        generation: &str,
    ) -> Result<Download, DestinationError> {
        let download = self.signer.sign_download(file, generation, self.expiry);
        Ok(download.await?)
    }

    fn copy_source(&self, file: &str, generation: &str) -> Option<CopySource> {
        Some(CopySource::File {
            path: self.folder.join(file),
            generation: generation.to_owned(),
        })
    }
}
