//! Encodes the tar: ustar headers, padding, the end marker and the record size.
//!
//! ustar (POSIX.1-1988) consists of 512-byte blocks. An entry is a header block and its data,
//! padded to a block. Two zero blocks end the archive. Readers ignore what follows, so zeros can
//! pad a tar to any length.

use crate::protocol::prefix::RangeName;

/// A tar block, in bytes.
pub const BLOCK_BYTES: usize = 512;

/// A tar record, in bytes: 20 blocks, the unit that archives are padded to.
pub const RECORD_BYTES: u64 = 10_240;

/// The end marker: two zero blocks, in bytes.
pub const END_BYTES: u64 = 2 * BLOCK_BYTES as u64;

/// The header for `range`: a regular file `AB7FF.txt` of `size_bytes`, mode 0644, owner 0, modified
/// at `modified_seconds` (Unix time).
///
/// # Errors
/// The name does not fit into a header. No range has such a name.
pub fn entry_header(
    range: RangeName,
    size_bytes: u64,
    modified_seconds: u64,
) -> std::io::Result<[u8; BLOCK_BYTES]> {
    let mut header = tar::Header::new_ustar();
    header.set_path(range.file_name())?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size_bytes);
    header.set_mtime(modified_seconds);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// When the entry of `header` was modified, as Unix time. `None` if the header is not the one that [`entry_header`] makes
/// for `range` and `size_bytes`.
pub fn entry_modified(
    header: &[u8; BLOCK_BYTES],
    range: RangeName,
    size_bytes: u64,
) -> Option<u64> {
    let modified_seconds = tar::Header::from_byte_slice(header).mtime().ok()?;
    let expected = entry_header(range, size_bytes, modified_seconds).ok()?;
    (expected == *header).then_some(modified_seconds)
}

/// The padding after an entry's data, in bytes.
pub const fn padding_bytes(size_bytes: u64) -> u64 {
    size_bytes.next_multiple_of(BLOCK_BYTES as u64) - size_bytes
}

/// The size of an entry in the tar, in bytes: header, data and padding.
pub const fn entry_bytes(size_bytes: u64) -> u64 {
    BLOCK_BYTES as u64 + size_bytes + padding_bytes(size_bytes)
}

/// The shortest tar for entries of `entries_bytes` in total: with the end marker, in whole records.
pub const fn tar_bytes(entries_bytes: u64) -> u64 {
    (entries_bytes + END_BYTES).next_multiple_of(RECORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::prefix::Prefix;
    use proptest::prelude::*;
    use std::io::{Read, Write};

    fn encode(bodies: &[Vec<u8>], modified_seconds: u64, extra_records: u64) -> Vec<u8> {
        let mut tar = Vec::new();
        for (range, body) in Prefix::from_number(0xAB).ranges().zip(bodies) {
            let size_bytes = body.len() as u64;
            tar.extend(entry_header(range, size_bytes, modified_seconds).expect("a header"));
            tar.extend(body);
            tar.resize(tar.len() + padding_bytes(size_bytes) as usize, 0);
        }
        let entries_bytes: u64 = bodies
            .iter()
            .map(|body| entry_bytes(body.len() as u64))
            .sum();
        assert_eq!(tar.len() as u64, entries_bytes);
        tar.resize(
            (tar_bytes(entries_bytes) + extra_records * RECORD_BYTES) as usize,
            0,
        );
        tar
    }

    fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 0..12)
    }

    #[test]
    fn only_its_own_header_tells_when_an_entry_was_modified() {
        let range = Prefix::from_number(0xAB).range(7);
        let header = entry_header(range, 75_000, 1_767_225_600).expect("a header");
        assert_eq!(entry_modified(&header, range, 75_000), Some(1_767_225_600));
        assert_eq!(entry_modified(&header, range, 75_001), None);
        let other = Prefix::from_number(0xAB).range(8);
        assert_eq!(entry_modified(&header, other, 75_000), None);
        for at in 0..BLOCK_BYTES {
            let mut damaged = header;
            damaged[at] ^= 1;
            assert_eq!(entry_modified(&damaged, range, 75_000), None, "byte {at}");
        }
        assert_eq!(entry_modified(&[0; BLOCK_BYTES], range, 75_000), None);
    }

    proptest! {
        #[test]
        fn the_tar_crate_reads_the_tar(
            bodies in bodies(),
            modified_seconds in 0_u64..4_000_000_000,
            extra_records in 0_u64..3,
        ) {
            let bytes = encode(&bodies, modified_seconds, extra_records);
            prop_assert_eq!(bytes.len() as u64 % RECORD_BYTES, 0);
            let mut archive = tar::Archive::new(bytes.as_slice());
            let mut read = 0;
            for (index, entry) in archive.entries().expect("entries").enumerate() {
                let mut entry = entry.expect("an entry");
                let header = entry.header();
                prop_assert_eq!(header.mode().ok(), Some(0o644));
                prop_assert_eq!((header.uid().ok(), header.gid().ok()), (Some(0), Some(0)));
                prop_assert_eq!(header.mtime().ok(), Some(modified_seconds));
                prop_assert!(header.as_ustar().is_some());
                prop_assert_eq!(
                    entry.path().expect("a path").to_string_lossy().into_owned(),
                    format!("AB{index:03X}.txt")
                );
                let mut body = Vec::new();
                entry.read_to_end(&mut body).expect("a body");
                prop_assert_eq!(Some(&body), bodies.get(index));
                read += 1;
            }
            prop_assert_eq!(read, bodies.len());
        }

        #[test]
        fn an_entry_consists_of_whole_blocks(size_bytes in 0_u64..1 << 40) {
            prop_assert_eq!(entry_bytes(size_bytes) % BLOCK_BYTES as u64, 0);
            prop_assert!(padding_bytes(size_bytes) < BLOCK_BYTES as u64);
        }
    }

    #[test]
    fn gnu_tar_lists_the_tar() {
        let bodies = [b"one\r\n".to_vec(), vec![b'x'; 512], Vec::new()];
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&encode(&bodies, 1_700_000_000, 2))
            .expect("written");
        let listed = std::process::Command::new("tar")
            .args(["--utc", "--numeric-owner", "-tvf"])
            .arg(file.path())
            .output()
            .expect("GNU tar runs");
        assert!(listed.status.success(), "{listed:?}");
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for (line, (size, name)) in
            lines
                .iter()
                .zip([("5", "AB000.txt"), ("512", "AB001.txt"), ("0", "AB002.txt")])
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(
                words,
                ["-rw-r--r--", "0/0", size, "2023-11-14", "22:13", name]
            );
        }
    }
}
