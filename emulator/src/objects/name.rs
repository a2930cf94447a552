//! Maps the names of objects to files, and refuses names that would lead out of the bucket.

use crate::error::StoreError;
use crate::staging;
use std::path::{Component, Path, PathBuf};

/// GCS's limit on the length of an object's name, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// The file of the object `name` in the bucket `folder`.
pub(super) fn file_of(folder: &Path, name: &str) -> Result<PathBuf, StoreError> {
    let invalid = StoreError::InvalidArgument("The object's name is not valid here.");
    let relative = Path::new(name);
    let is_plain = relative.components().all(|part| match part {
        Component::Normal(part) => !staging::is_staged_name(part),
        _ => false,
    });
    // Parsing drops repeated slashes and dots, which would give one file several names.
    let is_canonical = relative
        .components()
        .map(|part| part.as_os_str().len() + 1)
        .sum::<usize>()
        == name.len() + 1;
    if name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.contains(['\0', '\\'])
        || !is_plain
        || !is_canonical
    {
        return Err(invalid);
    }
    let path = folder.join(relative);
    if is_inside(folder, &path)? {
        Ok(path)
    } else {
        Err(invalid)
    }
}

/// Whether the nearest existing folder above `path` really lies in `folder`: a symbolic link could
/// lead elsewhere.
fn is_inside(folder: &Path, path: &Path) -> Result<bool, StoreError> {
    let real = path
        .ancestors()
        .skip(1)
        .find_map(|parent| parent.canonicalize().ok())
        .ok_or(StoreError::NoSuchBucket)?;
    let root = folder
        .canonicalize()
        .map_err(|_| StoreError::NoSuchBucket)?;
    Ok(real.starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_cannot_lead_out_of_the_bucket() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "./a",
            "a/./b",
            "a\0b",
            "a\\b",
            ".prefix-tar-upload-x",
            "a/.prefix-tar-upload-x",
            &"a".repeat(1025),
        ] {
            let refused = file_of(folder.path(), name);
            assert!(
                matches!(refused, Err(StoreError::InvalidArgument(_))),
                "{name:?}"
            );
        }
        let outside = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).expect("a link");
        assert!(matches!(
            file_of(folder.path(), "link/x"),
            Err(StoreError::InvalidArgument(_))
        ));
        assert!(file_of(folder.path(), "a/b c/Ä.tar").is_ok());
    }
}
