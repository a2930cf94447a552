//! [`StagedFile`]: a file that a command writes at its end, for example a trace. It appears whole or not at all.

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
        // Its new name would take the place of a device or a pipe, for every program.
        let is_replaceable = path.metadata().map_or(true, |present| present.is_file());
        anyhow::ensure!(
            is_replaceable,
            "cannot create {shown}: it is a device or a pipe; without --out, the output goes to stdout"
        );
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
    fn a_device_is_not_replaced() {
        let error = StagedFile::create(Path::new("/dev/null")).err();
        let error = error.expect("it is refused").to_string();
        assert!(error.contains("a device or a pipe"), "{error}");
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
