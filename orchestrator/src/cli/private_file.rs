//! Warns about files with secrets that other users of the machine can read or write.

use super::print_status;
use crate::archive::location::ArchiveLocation;
use crate::sign;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Reading and writing by the group and by others.
const GROUP_AND_OTHERS: u32 = 0o066;

/// Reading and writing by others.
const OTHERS: u32 = 0o006;

/// Warns if more users than its owner can read or write this file.
pub(super) fn warn_if_shared(path: &Path) {
    // If it cannot be inspected, it cannot be read either, and that error says more.
    let Ok(metadata) = std::fs::metadata(path) else {
        return;
    };
    let user = nix::unistd::geteuid().as_raw();
    if metadata.is_file() && is_shared(metadata.mode(), metadata.uid(), user) {
        print_status(&format!(
            "warning: other users can read or write {0}, which holds a secret; run `chmod 600 {0}`",
            path.display()
        ));
    }
}

/// Warns about the key file that signs for a bucket.
pub(super) fn warn_about_credentials(archive: &ArchiveLocation) {
    if matches!(archive, ArchiveLocation::Bucket(_))
        && let Some(path) = sign::key_file()
    {
        warn_if_shared(&path);
    }
}

/// Of another user's file, the group may be how we can read it: Kubernetes mounts secrets as files
/// of root that belong to the pod's group.
const fn is_shared(mode: u32, owner: u32, user: u32) -> bool {
    let shared = if owner == user {
        GROUP_AND_OTHERS
    } else {
        OTHERS
    };
    mode & shared != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_shared_if_more_than_its_owner_and_we_can_read_or_write_it() {
        for (mode, owner, shared) in [
            (0o100_600, 7, false),
            (0o100_400, 7, false),
            (0o100_700, 7, false),
            (0o100_640, 7, true),
            (0o100_620, 7, true),
            (0o100_604, 7, true),
            (0o100_602, 7, true),
            // In a pod: root's, readable by the pod's group.
            (0o100_440, 0, false),
            (0o100_444, 0, true),
        ] {
            assert_eq!(is_shared(mode, owner, 7), shared, "{mode:o} of {owner}");
        }
    }
}
