//! [`StagedFolder`]: a folder that a command fills. It appears whole or not at all.

use super::staged_file::folder_of;
use anyhow::Context as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The permissions of a folder, which the umask reduces.
const MODE: u32 = 0o777;

/// How the names of staged folders begin.
const STAGED_NAME_PREFIX: &str = ".prefix-tar-export-";

/// A folder under a temporary name. If it is not kept, it is removed.
pub(super) struct StagedFolder {
    path: PathBuf,
    staged: TempDir,
}

impl StagedFolder {
    /// Prepares a folder at `path`, where nothing or an empty folder is.
    ///
    /// # Errors
    /// Something else is there, or the folder around it does not exist or is not writable.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let is_free = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(_) => path.symlink_metadata().is_err(),
        };
        anyhow::ensure!(is_free, "cannot create {shown}: something is there already");
        let staged = tempfile::Builder::new()
            .prefix(STAGED_NAME_PREFIX)
            .permissions(Permissions::from_mode(MODE))
            .tempdir_in(folder_of(path))
            .with_context(|| format!("cannot create {shown}"))?;
        Ok(Self {
            path: path.to_owned(),
            staged,
        })
    }

    /// Where to write the files.
    pub(super) fn path(&self) -> &Path {
        self.staged.path()
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// The name cannot be given. The folder is removed.
    pub(super) fn keep(self) -> anyhow::Result<()> {
        std::fs::rename(self.staged.path(), &self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        // Nothing is left under the temporary name.
        let _ = self.staged.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    }

    #[test]
    fn a_folder_appears_when_it_is_kept_and_replaces_only_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ranges");
        let fill = |staged: &StagedFolder| std::fs::write(staged.path().join("00000.txt"), "x");
        let staged = StagedFolder::create(&path).expect("created");
        fill(&staged).expect("written");
        drop(staged);
        assert_eq!(names_in(folder.path()), Vec::<String>::new());

        std::fs::create_dir(&path).expect("a folder");
        let staged = StagedFolder::create(&path).expect("created");
        fill(&staged).expect("written");
        staged.keep().expect("kept");
        assert_eq!(names_in(folder.path()), ["ranges"]);
        assert_eq!(names_in(&path), ["00000.txt"]);
        assert!(StagedFolder::create(&path).is_err());
        assert!(StagedFolder::create(&path.join("00000.txt")).is_err());
    }
}
