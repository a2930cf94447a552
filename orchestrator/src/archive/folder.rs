//! An archive in a local folder.

use super::layout::tar_name;
use super::{Archive, Base, ReadError, StoredFile, StoredObject, TarReader};
use emulator::error::StoreError;
use emulator::objects::{Objects, current_generation};
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::prefix::Prefix;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads an archive from a folder.
#[derive(Debug)]
pub struct FolderArchive {
    folder: PathBuf,
    objects: Arc<Objects>,
}

impl FolderArchive {
    /// The archive in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        let objects = Arc::new(Objects::read_only(folder.clone()));
        Self { folder, objects }
    }

    /// The archive in `folder`, which shares the checksums that `objects` has already computed.
    pub const fn with_objects(folder: PathBuf, objects: Arc<Objects>) -> Self {
        Self { folder, objects }
    }

    /// Runs blocking work on one file of the archive. A missing file is `None`.
    async fn on_file<T: Send + 'static>(
        &self,
        file: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>, ReadError> {
        let path = self.folder.join(file);
        let shown = path.display().to_string();
        let unreadable = |reason: String| ReadError::Unreadable {
            file: shown.clone(),
            reason,
            is_transient: false,
        };
        match tokio::task::spawn_blocking(move || work(&path)).await {
            Ok(Ok(done)) => Ok(Some(done)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(Err(error)) => Err(unreadable(error.to_string())),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}

#[async_trait::async_trait]
impl Archive for FolderArchive {
    async fn read(&self, file: &str, bytes_max: usize) -> Result<Option<StoredFile>, ReadError> {
        let objects = Arc::clone(&self.objects);
        let read = self
            .on_file(file, move |path| {
                Ok(match objects.read(path, bytes_max as u64) {
                    Err(StoreError::LargerThan { .. }) => None,
                    read => Some(read?),
                })
            })
            .await?;
        match read.flatten() {
            Some(found) => Ok(found.map(|(content, generation)| StoredFile {
                content,
                generation: generation.to_string(),
            })),
            None => Err(ReadError::Invalid {
                file: self.folder.join(file).display().to_string(),
                reason: format!("it has more than {bytes_max} bytes"),
            }),
        }
    }

    async fn generation(&self, file: &str) -> Result<Base, ReadError> {
        let generation = self.on_file(file, current_generation).await?;
        Ok(generation
            .flatten()
            .map(|generation| generation.to_string()))
    }

    async fn object(&self, prefix: Prefix) -> Result<Option<StoredObject>, ReadError> {
        let objects = Arc::clone(&self.objects);
        let metadata = self
            .on_file(&tar_name(prefix), move |path| objects.metadata(path))
            .await?
            .flatten();
        Ok(metadata.map(|metadata| StoredObject {
            content_length: metadata.content_length,
            crc32c: Crc32c(metadata.crc32c.0),
            generation: metadata.generation.to_string(),
            etag: Some(metadata.etag()),
        }))
    }

    async fn has_tar(&self, prefix: Prefix) -> Result<bool, ReadError> {
        let found = self
            .on_file(&tar_name(prefix), |path| std::fs::metadata(path).map(drop))
            .await?;
        Ok(found.is_some())
    }

    async fn open_tar(&self, prefix: Prefix) -> Result<Option<TarReader>, ReadError> {
        let file = self
            .on_file(&tar_name(prefix), |path| File::open(path))
            .await?;
        Ok(file.map(|file| Box::new(file) as TarReader))
    }

    async fn read_tar_bytes(
        &self,
        prefix: Prefix,
        byte_range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let read = move |path: &Path| {
            let length = byte_range.end.saturating_sub(byte_range.start);
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            File::open(path)?.read_exact_at(&mut bytes, byte_range.start)?;
            Ok(bytes)
        };
        self.on_file(&tar_name(prefix), read).await
    }
}
