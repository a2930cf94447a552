//! [`BucketStore`]: a path in a bucket that the component reads from.

use super::ReadableStore;
use crate::archive::Archive;
use crate::archive::bucket::BucketArchive;
use crate::destination::{CopySource, DestinationError};
use crate::gcs::client::BucketClient;
use crate::origin::Origin;
use prefix_tar::protocol::job::Download;
use std::sync::Arc;
use std::time::Duration;

/// A path in a bucket to read from.
#[derive(Debug)]
pub struct BucketStore {
    client: Arc<BucketClient>,
    archive: BucketArchive,
    expiry: Duration,
}

impl BucketStore {
    /// The path of `client`. Its URLs are valid for `expiry`.
    pub fn new(client: BucketClient, expiry: Duration) -> Self {
        let client = Arc::new(client);
        Self {
            archive: BucketArchive::new(Arc::clone(&client)),
            client,
            expiry,
        }
    }
}

#[async_trait::async_trait]
impl ReadableStore for BucketStore {
    fn origin(&self) -> &Origin {
        self.client.origin()
    }

    fn archive(&self) -> &dyn Archive {
        &self.archive
    }

    async fn sign_download(
        &self,
        file: &str,
        generation: &str,
    ) -> Result<Download, DestinationError> {
        let download = self.client.sign_download(file, generation, self.expiry);
        Ok(download.await?)
    }

    fn copy_source(&self, file: &str, generation: &str) -> Option<CopySource> {
        let path = self.client.path();
        Some(CopySource::Object {
            origin: self.client.origin().to_string(),
            path: format!("{}/{}", path.bucket(), path.object(file)),
            generation: generation.to_owned(),
        })
    }
}
