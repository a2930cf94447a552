//! [`FolderLock`]: an exclusive lock on a folder, so that only one run at a time writes to it.
//!
//! The lock file names its owner. The system releases the lock when the owner's process ends, however
//! it ends.

use anyhow::Context as _;
use jiff::Timestamp;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The name of the lock file.
const LOCK_NAME: &str = ".prefix-tar-run.lock";

/// The part of a lock file that is read, in bytes. It has about 100.
const OWNER_BYTES_MAX: u64 = 4096;

/// Attempts at opening the lock file. An attempt fails if the last owner removes the file meanwhile.
const OPEN_ATTEMPTS_MAX: u32 = 100;

/// The present or a former owner of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LockOwner {
    /// The process id.
    pub(super) pid: u32,
    /// The name of the machine that the process runs on.
    pub(super) host: String,
    /// When the process took the lock, in RFC 3339.
    pub(super) since: String,
}

impl LockOwner {
    fn this_process() -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        Self {
            pid: std::process::id(),
            host: host.to_string_lossy().into_owned(),
            since: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
    }
}

impl fmt::Display for LockOwner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, host, since } = self;
        write!(formatter, "process {pid} on {host}, since {since}")
    }
}

/// An exclusive lock on a folder. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct FolderLock {
    path: PathBuf,
    _file: File,
    took_over_from: Option<LockOwner>,
}

impl FolderLock {
    /// Locks the folder without waiting.
    ///
    /// # Errors
    /// Another process holds the lock, or the lock file cannot be opened or written.
    pub(super) fn acquire(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(LOCK_NAME);
        let shown = path.display();
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                // A link could lead to a file that must not be overwritten, and a FIFO would block.
                .custom_flags(O_NOFOLLOW | O_NONBLOCK)
                .open(&path)
                .with_context(|| format!("cannot open the lock file {shown}"))?;
            anyhow::ensure!(
                file.metadata().is_ok_and(|metadata| metadata.is_file()),
                "the lock file {shown} is not a regular file; remove it"
            );
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let owner = match read_owner(&mut file) {
                        Some(owner) => format!(" ({owner})"),
                        None => String::new(),
                    };
                    anyhow::bail!(
                        "another run{owner} is writing to {}; wait until it ends, or stop it",
                        folder.display()
                    );
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {shown}"));
                }
            }
            if !is_still_at(&file, &path) {
                continue;
            }
            let took_over_from = read_owner(&mut file);
            write_owner(&mut file)
                .with_context(|| format!("cannot write the lock file {shown}"))?;
            return Ok(Self {
                path,
                _file: file,
                took_over_from,
            });
        }
        anyhow::bail!(
            "cannot lock {shown}: other runs removed it {OPEN_ATTEMPTS_MAX} times; try again"
        )
    }

    /// The owner that died while holding the lock, if there was one.
    pub(super) const fn took_over_from(&self) -> Option<&LockOwner> {
        self.took_over_from.as_ref()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // The lock is still held, so this removes no other owner's file. A file that stays behind is
        // stale, and the next run takes it over.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the locked file still has its name. If not, its last owner has just removed it.
fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(locked), Ok(named)) => (locked.dev(), locked.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn read_owner(file: &mut File) -> Option<LockOwner> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(OWNER_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn write_owner(file: &mut File) -> std::io::Result<()> {
    let text = serde_json::to_vec(&LockOwner::this_process())?;
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_the_refusal_names_the_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = FolderLock::acquire(folder.path()).expect("free");
        assert_eq!(lock.took_over_from(), None);
        let refusal = FolderLock::acquire(folder.path()).expect_err("locked");
        let pid = format!("process {} on ", std::process::id());
        assert!(refusal.to_string().contains(&pid), "{refusal}");
        drop(lock);
        assert!(!folder.path().join(LOCK_NAME).exists());
        FolderLock::acquire(folder.path()).expect("free again");
    }

    #[test]
    fn a_link_under_the_lock_s_name_is_refused_and_its_target_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let tar = folder.path().join("00.tar");
        std::fs::write(&tar, "a tar").expect("written");
        std::os::unix::fs::symlink("00.tar", folder.path().join(LOCK_NAME)).expect("a link");
        let refusal = FolderLock::acquire(folder.path()).expect_err("a link");
        assert!(refusal.to_string().contains("cannot open the lock file"));
        assert_eq!(std::fs::read_to_string(&tar).expect("a tar"), "a tar");
    }

    #[test]
    fn a_lock_whose_owner_died_is_taken_over_and_names_that_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = LockOwner {
            pid: 4242,
            host: "elsewhere".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
        };
        let text = serde_json::to_vec(&owner).expect("JSON");
        for (left, known) in [(text.as_slice(), Some(&owner)), (b"{", None), (b"", None)] {
            std::fs::write(folder.path().join(LOCK_NAME), left).expect("written");
            let lock = FolderLock::acquire(folder.path()).expect("taken over");
            assert_eq!(lock.took_over_from(), known);
        }
    }
}
