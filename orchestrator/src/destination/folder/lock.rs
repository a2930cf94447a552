//! One run at a time has a folder: a lock file that says whose it is, held by the system for as long as its owner
//! lives. What is done in the folder is left to the destination.

use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The lock's name in the folder.
const LOCK_NAME: &str = ".prefix-tar-run.lock";

/// What is read of a lock file: it has about 100 bytes.
const OWNER_BYTES_MAX: u64 = 4096;

/// How often the file is opened again because its last owner has just removed it.
const OPENINGS_MAX: u32 = 100;

/// Who has a folder, or had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LockOwner {
    /// The process.
    pub(super) pid: u32,
    /// The machine that it runs on.
    pub(super) host: String,
    /// When it took the folder, in RFC 3339.
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

/// A folder that is had. It is let go when this is dropped, or when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    path: PathBuf,
    _file: File,
    took_over_from: Option<LockOwner>,
}

impl FolderLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// Another process has it, or the lock file cannot be written.
    pub(super) fn take(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(LOCK_NAME);
        let shown = path.display();
        for _ in 0..OPENINGS_MAX {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .with_context(|| format!("cannot open the lock {shown}"))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let owner = match read_owner(&mut file) {
                        Some(owner) => format!(" ({owner})"),
                        None => String::new(),
                    };
                    anyhow::bail!(
                        "another run{owner} writes to {}; wait for its end, or stop it",
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
            write_owner(&mut file).with_context(|| format!("cannot write the lock {shown}"))?;
            return Ok(Self {
                path,
                _file: file,
                took_over_from,
            });
        }
        anyhow::bail!("the lock {shown} is removed again and again by others; try again")
    }

    /// The owner that died without letting go, where there was one.
    pub(super) const fn took_over_from(&self) -> Option<&LockOwner> {
        self.took_over_from.as_ref()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Removed while it is held: nobody can have taken it in between. One that cannot be removed is stale.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the file that was locked is the one that has the name, and not one that was just removed.
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
    fn a_folder_is_had_once_at_a_time_and_the_refusal_names_the_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = FolderLock::take(folder.path()).expect("free");
        assert_eq!(lock.took_over_from(), None);
        let refusal = FolderLock::take(folder.path()).expect_err("it is had");
        let pid = format!("process {} on ", std::process::id());
        assert!(refusal.to_string().contains(&pid), "{refusal}");
        drop(lock);
        assert!(!folder.path().join(LOCK_NAME).exists());
        FolderLock::take(folder.path()).expect("free again");
    }

    #[test]
    fn a_lock_whose_owner_died_is_taken_over_and_the_owner_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = LockOwner {
            pid: 4242,
            host: "elsewhere".to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
        };
        let text = serde_json::to_vec(&owner).expect("JSON");
        for (left, known) in [(text.as_slice(), Some(&owner)), (b"{", None), (b"", None)] {
            std::fs::write(folder.path().join(LOCK_NAME), left).expect("written");
            let lock = FolderLock::take(folder.path()).expect("taken over");
            assert_eq!(lock.took_over_from(), known);
        }
    }
}
