//! stdout for data that somebody needs all of. Unlike a line of a result, none of it is dropped if
//! the reader is slow.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

/// Opens stdout. Writing to it waits for the reader, so only a thread that may block writes to it.
///
/// # Errors
/// The system gives no other descriptor for it.
pub(super) fn open() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}
