//! Temporary files: what is being written before it has its name. Each is locked for as long as somebody writes it, so
//! what a killed process left behind is told from what is being written, and removed.
//! What is written, and when it gets its name, is left to who writes it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;

/// How temporary files are called. Object names that begin so are refused.
const TEMPORARY_PREFIX: &str = ".prefix-tar-upload-";

/// Whether a file is called as a temporary one.
pub(super) fn is_name(name: &OsStr) -> bool {
    name.as_encoded_bytes()
        .starts_with(TEMPORARY_PREFIX.as_bytes())
}

/// A file in `folder` that goes when it is dropped or, after a kill, when the folder is opened again; to be
/// written, synced and renamed.
///
/// # Errors
/// The folder cannot be written to.
pub fn file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let temporary = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(permissions())
        .tempfile_in(folder)?;
    // Says to another process that somebody writes it. Where locks are not to be had, nobody removes it either.
    let _ = temporary.as_file().try_lock();
    Ok(temporary)
}

/// As any file that is made: the user's umask decides, and not the temporary file's wish for privacy.
fn permissions() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::Permissions::from_mode(0o666)
}

/// Folders in folders that are looked through for what a killed process left.
const DEPTH_MAX: usize = 16;

/// Removes the temporary files in `folder` and below that nobody writes any more. What cannot be removed is logged.
pub(super) fn remove_abandoned(folder: &Path) {
    remove_abandoned_below(folder, DEPTH_MAX);
}

fn remove_abandoned_below(folder: &Path, depth: usize) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        // Of the entry itself: a link is not followed.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth > 0 {
            remove_abandoned_below(&path, depth - 1);
        }
        if is_folder || !is_name(&entry.file_name()) {
            continue;
        }
        let is_abandoned = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if is_abandoned && let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an abandoned upload could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_being_written_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let writing = file(folder.path()).expect("begun");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        let abandoned = ["", "a/", "a/b/"].map(|below| {
            folder
                .path()
                .join(format!("{below}.prefix-tar-upload-dead"))
        });
        for path in &abandoned {
            std::fs::write(path, b"half").expect("written");
        }
        remove_abandoned(folder.path());
        assert!(abandoned.iter().all(|path| !path.exists()));
        assert!(writing.path().exists());
    }
}
