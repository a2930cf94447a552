//! An archive in a local folder. Only regular files are read: a FIFO would block, and a symbolic link
//! could lead out of the archive.

mod read_buffers;

use super::layout::tar_name;
use super::{Archive, Base, ReadError, StoredFile, StoredObject, TarReader};
use crate::regular_file::{self, NotRegular};
use bytes::Bytes;
use emulator::error::{StoreError, lacks_file_descriptors};
use emulator::objects::{Objects, current_generation};
use prefix_tar::protocol::crc32c::Crc32c;
use prefix_tar::protocol::prefix::Prefix;
use read_buffers::{ReadBuffer, ReadBuffers};
#[cfg(target_os = "linux")]
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Reads of single ranges that wait for the disk at once. Each has a thread.
const READS_MAX: usize = 32;

/// Reads an archive from a folder.
#[derive(Debug)]
pub struct FolderArchive {
    folder: PathBuf,
    objects: Arc<Objects>,
    /// Permits for reads that may wait for the disk.
    reads: Semaphore,
    buffers: ReadBuffers,
}

impl FolderArchive {
    /// The archive in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        let objects = Arc::new(Objects::read_only(folder.clone()));
        Self::with_objects(folder, objects)
    }

    /// The archive in `folder`, which shares the checksums that `objects` has already computed.
    pub fn with_objects(folder: PathBuf, objects: Arc<Objects>) -> Self {
        Self {
            folder,
            objects,
            reads: Semaphore::new(READS_MAX),
            buffers: ReadBuffers::default(),
        }
    }

    /// Runs blocking work on one file of the archive. A missing file is `None`.
    async fn on_file<T: Send + 'static>(
        &self,
        file: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>, ReadError> {
        let path = self.folder.join(file);
        let shown = path.display().to_string();
        let unreadable = |reason: String, is_transient: bool| ReadError::Unreadable {
            file: shown.clone(),
            reason,
            is_transient,
        };
        match tokio::task::spawn_blocking(move || work(&path)).await {
            Ok(Ok(done)) => Ok(Some(done)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(Err(error)) if lacks_file_descriptors(&error) => {
                Err(unreadable(StoreError::NoFileDescriptors.to_string(), true))
            }
            Ok(Err(error)) if is_unusable(&error) => Err(ReadError::Invalid {
                file: shown,
                reason: error.to_string(),
            }),
            Ok(Err(error)) => Err(unreadable(error.to_string(), false)),
            Err(error) => Err(unreadable(error.to_string(), false)),
        }
    }
}

#[async_trait::async_trait]
impl Archive for FolderArchive {
    async fn read(&self, file: &str, bytes_max: usize) -> Result<Option<StoredFile>, ReadError> {
        let objects = Arc::clone(&self.objects);
        let read = self
            .on_file(file, move |path| {
                open(path)?;
                Ok(match objects.read(path, bytes_max as u64) {
                    Err(StoreError::LargerThan { .. }) => None,
                    read => Some(read?),
                })
            })
            .await?;
        match read {
            None => Ok(None),
            Some(Some(found)) => Ok(found.map(|(content, generation)| StoredFile {
                content,
                generation: generation.to_string(),
            })),
            Some(None) => Err(ReadError::Invalid {
                file: self.folder.join(file).display().to_string(),
                reason: format!("it has more than {bytes_max} bytes"),
            }),
        }
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn generation(&self, file: &str) -> Result<Base, ReadError> {
        let generation = self
            .on_file(file, |path| {
                open(path)?;
                current_generation(path)
            })
            .await?;
        Ok(generation
            .flatten()
            .map(|generation| generation.to_string()))
    }

    async fn check_replaceable(&self, file: &str) -> Result<(), ReadError> {
        self.on_file(file, open).await.map(drop)
    }

    async fn object_of_length(
        &self,
        prefix: Prefix,
        content_length: u64,
    ) -> Result<Option<StoredObject>, ReadError> {
        let length = self
            .on_file(&tar_name(prefix), |path| Ok(open(path)?.metadata()?.len()))
            .await?;
        if length != Some(content_length) {
            return Ok(None);
        }
        let object = self.object(prefix).await?;
        Ok(object.filter(|object| object.content_length == content_length))
    }

    async fn object(&self, prefix: Prefix) -> Result<Option<StoredObject>, ReadError> {
        let objects = Arc::clone(&self.objects);
        let metadata = self
            .on_file(&tar_name(prefix), move |path| {
                open(path)?;
                objects.metadata(path)
            })
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
            .on_file(&tar_name(prefix), |path| path.symlink_metadata().map(drop))
            .await?;
        Ok(found.is_some())
    }

    async fn open_tar(&self, prefix: Prefix) -> Result<Option<TarReader>, ReadError> {
        let file = self.on_file(&tar_name(prefix), open).await?;
        Ok(file.map(|file| Box::new(file) as TarReader))
    }

    async fn read_tar_bytes(
        &self,
        prefix: Prefix,
        byte_range: Range<u64>,
    ) -> Result<Option<Bytes>, ReadError> {
        // What the page cache has is read at once: to hand it to another thread would take longer.
        let path = self.folder.join(tar_name(prefix));
        if let Ok((file, mut bytes)) = open_part(&path, &byte_range, &self.buffers)
            && read_cached(&file, bytes.as_mut_slice(), byte_range.start)
        {
            return Ok(Some(bytes.into()));
        }
        // A semaphore that is never closed always permits.
        let _permit = self.reads.acquire().await;
        let buffers = self.buffers.clone();
        let read = move |path: &Path| {
            let (file, mut bytes) = open_part(path, &byte_range, &buffers)?;
            file.read_exact_at(bytes.as_mut_slice(), byte_range.start)?;
            Ok(bytes.into())
        };
        self.on_file(&tar_name(prefix), read).await
    }
}

/// Opens a file that has the bytes `byte_range`, and makes room for them.
fn open_part(
    path: &Path,
    byte_range: &Range<u64>,
    buffers: &ReadBuffers,
) -> io::Result<(File, ReadBuffer)> {
    let (file, metadata) = regular_file::open(path)?;
    let file_bytes = metadata.len();
    if byte_range.end > file_bytes {
        return Err(io::Error::other(TooShort {
            file_bytes,
            needed_bytes: byte_range.end,
        }));
    }
    let length = byte_range.end.saturating_sub(byte_range.start);
    let length = usize::try_from(length).map_err(io::Error::other)?;
    Ok((file, buffers.take(length)?))
}

/// Reads from the page cache. `false` if not everything is there.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, bytes: &mut [u8], offset: u64) -> bool {
    let length = bytes.len();
    let mut slices = [io::IoSliceMut::new(bytes)];
    rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) == Ok(length)
}

/// Other systems have no such read.
#[cfg(not(target_os = "linux"))]
fn read_cached(_file: &File, _bytes: &mut [u8], _offset: u64) -> bool {
    false
}

/// The cause of an error if a file ends too early.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it has {file_bytes} bytes, and {needed_bytes} are needed")]
struct TooShort {
    file_bytes: u64,
    needed_bytes: u64,
}

/// Whether a file exists and is not what its name says.
fn is_unusable(error: &io::Error) -> bool {
    let cause = error.get_ref();
    cause.is_some_and(|cause| cause.is::<NotRegular>() || cause.is::<TooShort>())
}

fn open(path: &Path) -> io::Result<File> {
    regular_file::open(path).map(|(file, _)| file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    const PREFIX: Prefix = Prefix::from_number(0xAB);

    /// Everything that can be read under the tar's name, as the messages that come back.
    async fn errors(archive: &FolderArchive) -> Vec<String> {
        let reads = async {
            [
                archive.read("AB.tar", 100).await.map(drop),
                archive.object(PREFIX).await.map(drop),
                archive.open_tar(PREFIX).await.map(drop),
                archive.read_tar_bytes(PREFIX, 0..1).await.map(drop),
            ]
        };
        let reads = tokio::time::timeout(Duration::from_secs(20), reads);
        let reads = reads.await.expect("no read hangs");
        reads
            .into_iter()
            .map(|read| read.expect_err("nothing to read").to_string())
            .collect()
    }

    #[tokio::test]
    async fn whatever_is_not_a_regular_file_is_named_and_never_read() {
        type Make = fn(&Path) -> io::Result<()>;
        let fifo: Make = |path| Command::new("mkfifo").arg(path).status().map(drop);
        let link: Make = |path| std::os::unix::fs::symlink("other", path);
        let socket: Make = |path| std::os::unix::net::UnixListener::bind(path).map(drop);
        for (make, reason) in [
            (
                (|path| std::fs::create_dir(path)) as Make,
                "it is a directory, not a regular file",
            ),
            (fifo, "it is a FIFO, not a regular file"),
            (link, "it is a symbolic link, not a regular file"),
            (socket, "it is a socket, not a regular file"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("other"), [0; 512]).expect("written");
            let path = folder.path().join("AB.tar");
            make(&path).expect("made");
            let archive = FolderArchive::new(folder.path().to_owned());
            let expected = format!("{} is not valid: {reason}", path.display());
            for error in errors(&archive).await {
                assert!(error.starts_with(&expected), "{error}");
            }
            let has_tar = archive.has_tar(PREFIX).await;
            assert!(has_tar.expect("a look"), "{reason}: something is there");
        }
    }

    #[tokio::test]
    async fn bytes_beyond_the_end_of_a_tar_are_refused_before_memory_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("AB.tar"), [1; 512]).expect("written");
        let archive = FolderArchive::new(folder.path().to_owned());
        let bytes = archive.read_tar_bytes(PREFIX, 510..512).await;
        assert_eq!(bytes.expect("readable"), Some(Bytes::from_static(&[1, 1])));
        let error = archive.read_tar_bytes(PREFIX, 0..u64::MAX >> 1).await;
        let error = error.expect_err("too many").to_string();
        assert!(error.contains("it has 512 bytes"), "{error}");
    }
}
