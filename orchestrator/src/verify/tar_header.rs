//! Judges the header of an entry: ustar form, name, mode, owner and size.

use super::text::quoted;
use prefix_tar::engine::tar::BLOCK_BYTES;
use prefix_tar::limits::RANGE_BYTES_MAX;
use prefix_tar::protocol::prefix::RangeName;

/// Whether all bytes are zero.
pub(super) fn is_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Whether an octal field is zero or empty.
fn is_number_zero(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, b'0' | b' ' | 0))
}

/// The size in the header of `range`, which begins at byte `at`.
///
/// # Errors
/// The block is not the header that the component writes for this range.
pub(super) fn entry_size(
    block: &[u8; BLOCK_BYTES],
    range: RangeName,
    at: u64,
) -> Result<u32, String> {
    let header = tar::Header::from_byte_slice(block);
    let name = range.file_name();
    let Some(ustar) = header
        .as_ustar()
        .filter(|_| is_octal(header) && is_checksummed(header))
    else {
        return Err(format!(
            "has no ustar header at byte {at}, where that of {name} should be"
        ));
    };
    if ustar.typeflag != *b"0" {
        let kind = quoted(&ustar.typeflag);
        return Err(format!(
            "has an entry of type {kind} at byte {at}, where the file {name} should be"
        ));
    }
    let path = header.path_bytes();
    if *path != *name.as_bytes() {
        let found = quoted(&path);
        return Err(format!("has entry {found} where {name} should be"));
    }
    let is_plain = header.mode().ok() == Some(0o644)
        && header.uid().ok() == Some(0)
        && header.gid().ok() == Some(0)
        && header.mtime().is_ok()
        && is_zeros(ustar.name.get(name.len()..).unwrap_or_default())
        && is_zeros(&ustar.linkname)
        && is_number_zero(&ustar.dev_major)
        && is_number_zero(&ustar.dev_minor)
        && is_zeros(&ustar.prefix)
        && is_zeros(&ustar.pad)
        && is_zeros(&ustar.uname)
        && is_zeros(&ustar.gname);
    if !is_plain {
        return Err(format!(
            "has an entry {name} that is not a regular file of mode 0644 and owner 0"
        ));
    }
    header
        .entry_size()
        .ok()
        .and_then(|size| u32::try_from(size).ok())
        .filter(|size| *size as usize <= RANGE_BYTES_MAX)
        .ok_or_else(|| format!("has an entry {name} that is larger than {RANGE_BYTES_MAX} bytes"))
}

/// Whether all numbers are octal. GNU's binary numbers are no ustar.
fn is_octal(header: &tar::Header) -> bool {
    let old = header.as_old();
    [
        &old.mode[..],
        &old.uid,
        &old.gid,
        &old.size,
        &old.mtime,
        &old.cksum,
    ]
    .iter()
    .all(|field| {
        field
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0))
    })
}

/// Whether the header's checksum is right: the sum of its bytes, with spaces in place of the
/// checksum.
fn is_checksummed(header: &tar::Header) -> bool {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let field = &header.as_old().cksum;
    let spaces = field.len() as u32 * u32::from(b' ');
    header.cksum().ok() == Some(sum(header.as_bytes()) - sum(field) + spaces)
}
