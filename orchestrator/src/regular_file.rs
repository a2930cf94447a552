//! Opens regular files, and nothing else: a FIFO would block, and a symbolic link could lead anywhere.

use nix::libc::{ELOOP, ENXIO, O_NOFOLLOW, O_NONBLOCK};
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The cause of an error if something other than a regular file has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is a {0}, not a regular file")]
pub(crate) struct NotRegular(&'static str);

/// Opens a file for reading. It never blocks.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOFOLLOW)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(ELOOP) => io::Error::other(NotRegular("symbolic link")),
            Some(ENXIO) => io::Error::other(NotRegular("socket")),
            _ => error,
        })?;
    let metadata = file.metadata()?;
    let file_type = metadata.file_type();
    if file_type.is_file() {
        Ok((file, metadata))
    } else {
        Err(io::Error::other(NotRegular(kind_of(file_type))))
    }
}

fn kind_of(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "directory"
    } else if file_type.is_fifo() {
        "FIFO"
    } else {
        "special file"
    }
}
