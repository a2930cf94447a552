//! [`StagedFile`]: a file that a command writes at its end, for example a trace. It appears whole or not at all.

use crate::archive::layout::{MANIFEST_NAME, RUN_RECORD_NAME, is_archive_name};
use anyhow::Context as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file that is created when the command begins, so that a mistyped path costs no work.
pub(super) struct StagedFile {
    path: PathBuf,
    staged: NamedTempFile,
}

impl StagedFile {
    /// Prepares a file at `path`. What is there now stays until [`Self::write`].
    ///
    /// # Errors
    /// It is something else than a file, or its folder does not exist or is not writable.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        anyhow::ensure!(!path.is_dir(), "cannot create {shown}: it is a folder");
        // The new file would take the place of a link, a device or a pipe, for every program.
        if let Ok(present) = path.symlink_metadata() {
            anyhow::ensure!(
                !present.is_symlink(),
                "cannot create {shown}: it is a symbolic link; name the file that it leads to"
            );
            anyhow::ensure!(
                present.is_file(),
                "cannot create {shown}: it is a device or a pipe, not a file"
            );
            anyhow::ensure!(
                !is_of_archive(path),
                "cannot create {shown}: it is a file of an archive"
            );
        }
        let staged = emulator::staging::create_in(folder_of(path))
            .with_context(|| format!("cannot create {shown}"))?;
        Ok(Self {
            path: path.to_owned(),
            staged,
        })
    }

    /// The file to write to. If it is not kept, it is removed.
    ///
    /// # Errors
    /// The system gives no other descriptor for it.
    pub(super) fn file(&self) -> io::Result<File> {
        self.staged.as_file().try_clone()
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// The name cannot be given; then what was there stays.
    pub(super) fn keep(self) -> anyhow::Result<()> {
        let shown = self.path.display();
        self.staged
            .persist(&self.path)
            .map_err(|error| error.error)
            .with_context(|| format!("cannot write {shown}"))?;
        Ok(())
    }

    /// Writes the file and gives it its name.
    ///
    /// # Errors
    /// It could not be written; then what was there stays.
    pub(super) fn write(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let shown = self.path.display().to_string();
        let mut out = BufWriter::new(self.staged.as_file_mut());
        write(&mut out)
            .and_then(|()| out.flush())
            .with_context(|| format!("cannot write {shown}"))?;
        drop(out);
        self.keep()
    }
}

/// Whether a file has a name of an archive's, beside a manifest or the record of a run.
fn is_of_archive(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let folder = folder_of(path);
    name.is_some_and(is_archive_name)
        && [MANIFEST_NAME, RUN_RECORD_NAME]
            .iter()
            .any(|book| folder.join(book).exists())
}

/// The folder that a path is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace.json");
        let broken = StagedFile::create(&path).expect("created").write(|out| {
            out.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(broken.is_err());
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            0
        );
        for text in ["one", "two"] {
            let file = StagedFile::create(&path).expect("created");
            file.write(|out| out.write_all(text.as_bytes()))
                .expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
        }
        let error = StagedFile::create(&folder.path().join("missing/trace.json"));
        assert!(error.is_err());
        assert!(StagedFile::create(folder.path()).is_err());
    }

    #[test]
    fn only_files_that_are_nothing_else_are_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |path: &Path, reason: &str| {
            let error = StagedFile::create(path).err().expect("it is refused");
            assert!(error.to_string().contains(reason), "{error}");
        };
        refused(Path::new("/dev/null"), "a device or a pipe");
        let [list, link, tar] =
            ["list.txt", "link.txt", "AB.tar"].map(|name| folder.path().join(name));
        std::fs::write(&list, "").expect("written");
        std::os::unix::fs::symlink(&list, &link).expect("a link");
        refused(&link, "a symbolic link");
        std::fs::write(&tar, "").expect("written");
        assert!(StagedFile::create(&tar).is_ok(), "there is no archive");
        let manifest = folder.path().join(MANIFEST_NAME);
        std::fs::write(&manifest, "{}").expect("written");
        refused(&tar, "a file of an archive");
        refused(&manifest, "a file of an archive");
        assert!(StagedFile::create(&list).is_ok());
    }

    #[test]
    fn a_file_that_is_written_elsewhere_appears_when_it_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list.txt");
        for is_kept in [false, true] {
            let staged = StagedFile::create(&path).expect("created");
            let mut file = staged.file().expect("a file");
            file.write_all(b"text").expect("written");
            if is_kept {
                staged.keep().expect("kept");
            } else {
                drop(staged);
            }
            let left = std::fs::read_dir(folder.path()).expect("a folder").count();
            assert_eq!((left, path.exists()), (usize::from(is_kept), is_kept));
        }
    }
}
