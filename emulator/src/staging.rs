//! Stages files: a file is written under a temporary name and gets its final name only when it is
//! complete.
//!
//! The writer holds a lock on the file. A staged file without a lock was left behind by a killed
//! process and can be removed.

use crate::objects::open_without_waiting;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// How the names of staged files begin. Object names must not.
const STAGED_NAME_PREFIX: &str = ".prefix-tar-upload-";

/// The permissions of a file, which the umask reduces. `tempfile` would make it private to its owner.
const DEFAULT_MODE: u32 = 0o666;

/// The permissions of a file that only its owner can read or write.
const PRIVATE_MODE: u32 = 0o600;

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
    let staged = create_with_mode(folder, DEFAULT_MODE)?;
    // On a file system without locks this fails, but then the file is never removed as abandoned.
    let _ = staged.as_file().try_lock();
    Ok(staged)
}

/// Creates a file that only its owner can read or write, from its first byte on. It appears at
/// `path` when `write` has written all of it, and never replaces another file.
///
/// # Errors
/// There is a file at `path`, the folder is not writable, or `write` failed: then nothing is left.
pub fn create_private(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut staged = create_with_mode(folder, PRIVATE_MODE)?;
    write(staged.as_file_mut())?;
    staged.as_file().sync_all()?;
    staged.persist_noclobber(path)?;
    File::open(folder)?.sync_all()
}

/// `tempfile` hides which error the system gave, and a caller has to tell a lack of file descriptors from others.
fn create_with_mode(folder: &Path, mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let mut refusal = None;
    tempfile::Builder::new()
        .prefix(STAGED_NAME_PREFIX)
        .make_in(folder, |path| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create_new(true).mode(mode);
            options
                .open(path)
                .inspect_err(|error| refusal = error.raw_os_error())
        })
        .map_err(|error| refusal.map_or(error, io::Error::from_raw_os_error))
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
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_the_system_refused_can_be_told_from_the_error() {
        let error = create_in(Path::new("/proc/nowhere")).expect_err("no such folder");
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::NOENT.raw_os_error())
        );
    }

    /// The files of a folder, with their permissions.
    fn files_of(folder: &Path) -> Vec<(String, u32)> {
        std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let mode = entry.metadata().expect("metadata").permissions().mode();
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, mode & 0o777)
            })
            .collect()
    }

    #[test]
    fn a_private_file_is_private_from_its_first_byte_and_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        create_private(&path, |file| {
            file.write_all(b"half")?;
            let [(name, mode)] = files_of(folder.path()).try_into().expect("one file");
            assert!(is_staged_name(name.as_ref()), "{name} is not complete");
            assert_eq!(mode, 0o600);
            file.write_all(b" and half")
        })
        .expect("written");
        assert_eq!(files_of(folder.path()), [("key".to_owned(), 0o600)]);
        assert_eq!(std::fs::read(&path).expect("a file"), b"half and half");
    }

    #[test]
    fn a_private_file_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let written = create_private(&path, |file| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(
            written.map_err(|error| error.kind()),
            Err(io::ErrorKind::StorageFull)
        );
        assert_eq!(files_of(folder.path()), []);
    }

    #[test]
    fn a_private_file_does_not_replace_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let written = create_private(&path, |file| {
            // Another process is faster.
            std::fs::write(&path, b"theirs")?;
            file.write_all(b"ours")
        });
        assert_eq!(
            written.map_err(|error| error.kind()),
            Err(io::ErrorKind::AlreadyExists)
        );
        assert_eq!(std::fs::read(&path).expect("a file"), b"theirs");
        assert_eq!(files_of(folder.path()).len(), 1);
    }

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
