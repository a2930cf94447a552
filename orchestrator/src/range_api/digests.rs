//! [`Digests`]: the MD5 of every range that was read. It takes ten times as long as reading the range, so it is kept
//! when the range itself is not.

use crate::archive::ranges::StoredRange;
use md5::{Digest as _, Md5};
use prefix_tar::protocol::prefix::{PREFIXES, RANGES_PER_PREFIX, RangeName};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The MD5 of a body.
pub(super) type Digest = [u8; 16];

/// What a digest is of: the length and the checksum of a body as it is stored. An archive can be replaced at any time, so
/// a digest is only used for a body that looks the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredBody {
    bytes: u32,
    crc32c: u32,
}

impl StoredBody {
    /// What `range` looks like. Its checksum has been compared when it was read, so it is not computed again.
    pub(super) fn of(range: &StoredRange) -> Self {
        Self {
            // No range is that long; one that were would be told by its checksum.
            bytes: u32::try_from(range.body.len()).unwrap_or(u32::MAX),
            crc32c: range.crc32c.0,
        }
    }
}

/// A digest and what it is of.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    body: StoredBody,
    digest: Digest,
}

/// The most memory for all of them, in bytes. A prefix takes its part when one of its ranges is read.
const BYTES_MAX: usize =
    PREFIXES as usize * RANGES_PER_PREFIX as usize * size_of::<Mutex<Option<Known>>>();

const _: () = assert!(BYTES_MAX <= 40 * 1024 * 1024);

/// The digests of all prefixes.
#[derive(Debug)]
pub(super) struct Digests(Vec<OnceLock<Vec<Mutex<Option<Known>>>>>);

impl Default for Digests {
    fn default() -> Self {
        Self((0..PREFIXES).map(|_| OnceLock::new()).collect())
    }
}

impl Digests {
    /// The MD5 of `sent`, which is what is sent of the range that is stored.
    pub(super) fn of(&self, range: RangeName, stored: StoredBody, sent: &[u8]) -> Digest {
        let compute = || Md5::digest(sent).into();
        let Some(slot) = self.slot(range) else {
            return compute();
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match *slot {
            Some(known) if known.body == stored => known.digest,
            _ => {
                let digest = compute();
                *slot = Some(Known {
                    body: stored,
                    digest,
                });
                digest
            }
        }
    }

    fn slot(&self, range: RangeName) -> Option<&Mutex<Option<Known>>> {
        let prefix = self.0.get(usize::from(range.prefix().number()))?;
        prefix
            .get_or_init(|| (0..RANGES_PER_PREFIX).map(|_| Mutex::default()).collect())
            .get(usize::from(range.index()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prefix_tar::protocol::prefix::Prefix;

    #[test]
    fn a_digest_is_of_the_body_that_is_sent() {
        let digests = Digests::default();
        let [first, second] = [0, 0xFFF].map(|index| Prefix::from_number(0xFF).range(index));
        for (range, body) in [
            (first, "a"),
            (first, "a"),
            (second, "b"),
            (first, "another"),
            (first, "a"),
            (second, "b"),
        ] {
            let expected: Digest = Md5::digest(body).into();
            let stored = StoredBody {
                bytes: u32::try_from(body.len()).expect("short"),
                crc32c: crc32c::crc32c(body.as_bytes()),
            };
            let digest = digests.of(range, stored, body.as_bytes());
            assert_eq!(digest, expected, "{body}");
        }
    }
}
