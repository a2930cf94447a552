//! Stages files: a file is written under a temporary name and gets its final name only when it is
//! complete.
//!
//! The writer holds a lock on the file. A staged file without a lock was left behind by a killed
//! process and can be removed.

use crate::objects::open_without_waiting;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

/// How the names of staged files begin. Object names must not.
const STAGED_NAME_PREFIX: &str = ".prefix-tar-upload-";

/// How many levels of folders are searched for abandoned files.
const DEPTH_MAX: usize = 16;

/// Whether this is the name of a staged file.
pub(crate) fn is_staged_name(name: &OsStr) -> bool {
    name.as_encoded_bytes()
        .starts_with(STAGED_NAME_PREFIX.as_bytes())
}

/// Creates a staged file in `folder`, to be written, synced and persisted under its final name.
///
/// Dropping it removes it. After a kill, it is removed when the folder is next opened as a bucket.
///
/// # Errors
/// The folder is not writable.
pub fn create_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let staged = tempfile::Builder::new()
        .prefix(STAGED_NAME_PREFIX)
        .permissions(default_permissions())
        .tempfile_in(folder)?;
    // On a file system without locks this fails, but then the file is never removed as abandoned.
    let _ = staged.as_file().try_lock();
    Ok(staged)
}

/// Leaves the permissions to the umask. `tempfile` would make the file private to its owner.
fn default_permissions() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::Permissions::from_mode(0o666)
}

/// Removes the staged files in `folder` and below that no process holds a lock on. Failures are
/// logged.
pub(crate) fn remove_abandoned(folder: &Path) {
    remove_abandoned_below(folder, DEPTH_MAX);
}

fn remove_abandoned_below(folder: &Path, depth: usize) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        // This is the entry's own type: symbolic links are not followed.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth > 0 {
            remove_abandoned_below(&path, depth - 1);
        }
        // Opening anything but a file could wait forever.
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_staged_name(&entry.file_name()) {
            continue;
        }
        let is_abandoned = open_without_waiting(&path).is_ok_and(|file| file.try_lock().is_ok());
        if is_abandoned && let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove an abandoned upload");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abandoned_files_are_removed_and_files_in_progress_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let in_progress = create_in(folder.path()).expect("created");
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
        assert!(in_progress.path().exists());
    }

    #[test]
    fn a_pipe_or_a_link_with_a_staged_name_is_left_alone() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().expect("a folder");
        let fifo = folder.path().join(".prefix-tar-upload-fifo");
        let link = folder.path().join(".prefix-tar-upload-link");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
        remove_abandoned(folder.path());
        assert!(fifo.exists() && link.is_symlink());
    }
}
