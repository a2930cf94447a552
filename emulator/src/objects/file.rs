//! Looks at and opens an object's file, and refuses anything else that has the object's name.
//!
//! A symbolic link could lead out of the bucket, and opening a FIFO or a device could wait forever.

use super::generation::is_absent;
use crate::error::{Access, StoreError, file_name};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The metadata of the object's file, or `None` if nothing has the object's name.
pub(super) fn look_at(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => require_file(path, metadata).map(Some),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(StoreError::of_io(Access::Read, path, &error)),
    }
}

/// Opens the object's file for reading, or returns `None` if nothing has the object's name. The
/// metadata are of the opened file.
pub(super) fn open(path: &Path) -> Result<Option<(File, Metadata)>, StoreError> {
    // Opening a device can have effects of its own, so the type is checked before as well as after.
    if look_at(path)?.is_none() {
        return Ok(None);
    }
    let opened = open_without_waiting(path).and_then(|file| {
        let metadata = file.metadata()?;
        Ok((file, metadata))
    });
    match opened {
        Ok((file, metadata)) => Ok(Some((file, require_file(path, metadata)?))),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            Err(not_a_file(path, "a symbolic link"))
        }
        Err(error) => Err(StoreError::of_io(Access::Read, path, &error)),
    }
}

/// Opens a file for reading. It follows no symbolic link in the last part of the path, and does not
/// wait for the writer of a FIFO.
pub(crate) fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn require_file(path: &Path, metadata: Metadata) -> Result<Metadata, StoreError> {
    if metadata.is_file() {
        Ok(metadata)
    } else {
        Err(not_a_file(path, kind_of(metadata.file_type())))
    }
}

fn not_a_file(path: &Path, kind: &'static str) -> StoreError {
    let file = file_name(path);
    StoreError::NotAFile { file, kind }
}

fn kind_of(file_type: FileType) -> &'static str {
    if file_type.is_symlink() {
        "a symbolic link"
    } else if file_type.is_dir() {
        "a folder"
    } else if file_type.is_fifo() {
        "a named pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType as Node, Mode, mknodat};

    /// Puts something that is not a file at `path`.
    type Make = fn(&Path);

    #[test]
    fn only_a_file_is_an_object() {
        let outside = tempfile::NamedTempFile::new().expect("a file");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("00.tar");
        let fifo: Make = |path| {
            mknodat(CWD, path, Node::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        };
        let socket: Make =
            |path| drop(std::os::unix::net::UnixListener::bind(path).expect("bound"));
        let dangling: Make = |path| std::os::unix::fs::symlink("/nowhere", path).expect("a link");
        for (make, kind) in [
            (dangling, "a symbolic link"),
            (fifo, "a named pipe"),
            (socket, "a socket"),
        ] {
            make(&path);
            assert_eq!(look_at(&path).map(drop), Err(not_a_file(&path, kind)));
            assert_eq!(open(&path).map(drop), Err(not_a_file(&path, kind)));
            std::fs::remove_file(&path).expect("removed");
        }
        std::os::unix::fs::symlink(outside.path(), &path).expect("a link");
        assert_eq!(
            open(&path).map(drop),
            Err(not_a_file(&path, "a symbolic link"))
        );
        assert_eq!(
            open(Path::new("/dev/null")).map(drop),
            Err(not_a_file(Path::new("null"), "a device"))
        );
        assert_eq!(
            open(folder.path()).map(drop),
            Err(not_a_file(folder.path(), "a folder"))
        );
        assert!(open(&folder.path().join("none")).is_ok_and(|file| file.is_none()));
        assert!(open(outside.path()).is_ok_and(|file| file.is_some()));
    }

    #[test]
    fn a_link_or_a_pipe_that_appears_at_the_last_moment_is_not_opened_either() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, fifo) = (folder.path().join("link"), folder.path().join("fifo"));
        std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
        mknodat(CWD, &fifo, Node::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        let refused = open_without_waiting(&link).expect_err("a link");
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::LOOP));
        // Without O_NONBLOCK this would wait for a writer.
        let opened = open_without_waiting(&fifo).expect("opened");
        assert!(!opened.metadata().expect("metadata").is_file());
    }
}
