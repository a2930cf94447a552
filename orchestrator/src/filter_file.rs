//! The file format of filters: whether a hash is in the corpus, probably, in about 9 or 18 bits per hash.
//!
//! A filter is a binary fuse filter (Graf and Lemire 2022, <https://arxiv.org/abs/2201.01174>) per prefix, so that one can
//! be built and checked without the memory for all of them. Its keys are the first 64 bits of each hash. A hash that is
//! in the corpus is always found; one that is not is found with a probability of 1/256 (`fuse8`) or 1/65,536 (`fuse16`).
//!
//! A file is a header, an index and fingerprints. Numbers are little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 2 | the version, 1 |
//! | 1 | bytes of a fingerprint: 1 or 2 |
//! | 1 | the hash: 1 for SHA-1, 2 for NTLM, which version 0.1.0 of the program refuses |
//! | 4 | 0 |
//! | 8 | keys in the file |
//! | 256 * 32 | an entry per prefix, in order: `Shard` |
//! | 4 | the CRC32C of all of the above |
//! | the rest | the fingerprints of each prefix, in order, without gaps |
//!
//! An entry consists of the offset of the fingerprints in the file (8 bytes), the seed (8), the number of keys (4), the
//! length of a segment (4), the sum of the lengths of the segments in which a key's first fingerprint can be (4), and the
//! CRC32C of the fingerprints (4). An entry of zeros is a prefix that the file does not hold.
//!
//! A key is looked up as in the crate `xorf`, and in Lemire's libraries for C and Go: `Shard::positions`.

pub mod read;
#[cfg(test)]
mod tests;
pub mod write;

use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::PREFIXES;

/// How a file begins. Like PNG's, it shows if a transfer has changed line ends.
pub const MAGIC: [u8; 8] = *b"PTFUSE\r\n";

/// The version of the format.
const VERSION: u16 = 1;

/// The number of the hash that keys are taken from.
const fn hash_number(mode: Mode) -> u8 {
    match mode {
        Mode::Sha1 => 1,
        Mode::Ntlm => 2,
    }
}

/// What precedes the index, in bytes.
const HEAD_BYTES: usize = 24;

/// An entry of the index, in bytes.
const ENTRY_BYTES: usize = 32;

/// Header, index and checksum, in bytes.
const HEADER_BYTES: usize = HEAD_BYTES + PREFIXES as usize * ENTRY_BYTES + 4;

/// Segments that a key's fingerprints are in.
const ARITY: u64 = 3;

/// The longest segment, in fingerprints; more do not fit a processor's cache.
const SEGMENT_LENGTH_MAX: u32 = 1 << 18;

/// The size of a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterKind {
    /// 8 bits.
    Fuse8,
    /// 16 bits.
    Fuse16,
}

impl FilterKind {
    /// The bytes of a fingerprint.
    const fn fingerprint_bytes(self) -> u8 {
        match self {
            Self::Fuse8 => 1,
            Self::Fuse16 => 2,
        }
    }

    const fn of_fingerprint_bytes(bytes: u8) -> Option<Self> {
        match bytes {
            1 => Some(Self::Fuse8),
            2 => Some(Self::Fuse16),
            _ => None,
        }
    }

    /// Of how many hashes that are not in the corpus one is found, on average.
    pub const fn one_in(self) -> u32 {
        1 << (8 * self.fingerprint_bytes())
    }
}

/// The filter of one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shard {
    /// Where its fingerprints begin in the file.
    offset: u64,
    seed: u64,
    keys: u32,
    /// A power of two.
    segment_length: u32,
    /// A multiple of the segment's length.
    first_segments_length: u32,
    /// Of the fingerprints.
    crc32c: u32,
}

impl Shard {
    /// How many fingerprints it has.
    const fn fingerprints(&self) -> u64 {
        self.first_segments_length as u64 + (ARITY - 1) * self.segment_length as u64
    }

    /// Whether every position of every key is one of a fingerprint.
    const fn is_consistent(&self) -> bool {
        self.keys > 0
            && self.segment_length.is_power_of_two()
            && self.segment_length <= SEGMENT_LENGTH_MAX
            && self.first_segments_length > 0
            && self
                .first_segments_length
                .is_multiple_of(self.segment_length)
    }

    /// The fingerprint of a key, in its low bits, and the positions of the three that it must be the exclusive or of.
    const fn positions(&self, key: u64) -> (u64, [u64; 3]) {
        let hash = mix(key.wrapping_add(self.seed));
        let mask = self.segment_length as u64 - 1;
        let first = ((hash as u128 * self.first_segments_length as u128) >> 64) as u64;
        let second = (first + self.segment_length as u64) ^ ((hash >> 18) & mask);
        let third = (first + 2 * self.segment_length as u64) ^ (hash & mask);
        (hash ^ (hash >> 32), [first, second, third])
    }

    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let words = [
            self.keys,
            self.segment_length,
            self.first_segments_length,
            self.crc32c,
        ];
        let fields = [self.offset, self.seed].map(u64::to_le_bytes).concat();
        let fields = [fields, words.map(u32::to_le_bytes).concat()].concat();
        bytes.copy_from_slice(&fields);
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let (longs, rest) = bytes.split_at(16);
        let (longs, _) = longs.as_chunks();
        let (words, _) = rest.as_chunks();
        let long = |index: usize| longs.get(index).copied().map_or(0, u64::from_le_bytes);
        let word = |index: usize| words.get(index).copied().map_or(0, u32::from_le_bytes);
        Self {
            offset: long(0),
            seed: long(1),
            keys: word(0),
            segment_length: word(1),
            first_segments_length: word(2),
            crc32c: word(3),
        }
    }
}

/// MurmurHash3's finalizer.
const fn mix(mut key: u64) -> u64 {
    key ^= key >> 33;
    key = key.wrapping_mul(0xff51_afd7_ed55_8ccd);
    key ^= key >> 33;
    key = key.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    key ^ (key >> 33)
}
