//! [`FilterFile`]: looks hashes up in a filter file, and trusts nothing in it that it has not checked.
//!
//! What the file says decides neither how much memory is taken nor which byte is read outside of it: the fingerprints of
//! a prefix are compared with their checksum piece by piece, and then three of them are read.

use super::{
    ENTRY_BYTES, FilterKind, HEAD_BYTES, HEADER_BYTES, MAGIC, Shard, VERSION, hash_number,
};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{PREFIXES, Prefix};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Fingerprints are compared with their checksum in pieces of this many bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Why a filter file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It is another file.
    #[error("it is not a filter file")]
    NotAFilter,
    /// A later version wrote it.
    #[error("it has version {0} of the format, and this program reads version {VERSION}")]
    Version(u16),
    /// Its content contradicts itself.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The hash's prefix was not exported.
    #[error("it does not hold this hash's prefix")]
    NotHeld,
    /// The system does not deliver it.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// A filter file that is open.
#[derive(Debug)]
pub struct FilterFile {
    file: File,
    index: Index,
    /// Whether the fingerprints of a prefix were compared with their checksum.
    is_checked: Vec<AtomicBool>,
}

/// What the header of a file says, if it is valid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) kind: FilterKind,
    pub(super) mode: Mode,
    /// In the order of their prefixes.
    pub(super) shards: Vec<Option<Shard>>,
}

impl Index {
    /// Reads the header of a file that has `file_bytes`.
    pub(super) fn parse(header: &[u8; HEADER_BYTES], file_bytes: u64) -> Result<Self, FilterError> {
        let head = Fields(header);
        if head.bytes(0) != MAGIC {
            return Err(FilterError::NotAFilter);
        }
        let version = u16::from_le_bytes(head.bytes(8));
        if version != VERSION {
            return Err(FilterError::Version(version));
        }
        let (checksummed, checksum) = header.split_at(HEADER_BYTES - 4);
        if crc32c::crc32c(checksummed).to_le_bytes() != checksum {
            return Err(FilterError::Damaged("its index has another checksum"));
        }
        let [fingerprint_bytes, hash, reserved @ ..] = head.bytes::<6>(10);
        let kind = FilterKind::of_fingerprint_bytes(fingerprint_bytes);
        let mut modes = Mode::ALL.into_iter();
        let mode = modes.find(|mode| hash_number(*mode) == hash);
        let (kind, mode) = kind
            .zip(mode)
            .filter(|_| reserved == [0; 4])
            .ok_or(FilterError::Damaged("its kind is not known"))?;
        let (entries, _) = checksummed
            .get(HEAD_BYTES..)
            .unwrap_or_default()
            .as_chunks::<ENTRY_BYTES>();
        let index = Self {
            kind,
            mode,
            shards: entries.iter().map(shard_of).collect(),
        };
        index.check(u64::from_le_bytes(head.bytes(16)), file_bytes)?;
        Ok(index)
    }

    /// Checks that the shards fill the file without gaps, and that no position of a key is outside of its shard.
    fn check(&self, keys: u64, file_bytes: u64) -> Result<(), FilterError> {
        let mut end = HEADER_BYTES as u64;
        let mut sum = 0;
        for shard in self.shards.iter().flatten() {
            if !shard.is_consistent() || shard.offset != end {
                return Err(FilterError::Damaged("its index contradicts itself"));
            }
            // Neither sum overflows: there are 256 numbers of less than 2^35.
            end += shard.fingerprints() * u64::from(self.kind.fingerprint_bytes());
            sum += u64::from(shard.keys);
        }
        if end != file_bytes {
            return Err(FilterError::Damaged("its length is not that of its index"));
        }
        if sum != keys || sum == 0 {
            return Err(FilterError::Damaged("its keys are not those of its index"));
        }
        Ok(())
    }
}

/// Fields of a header.
struct Fields<'header>(&'header [u8; HEADER_BYTES]);

impl Fields<'_> {
    /// The bytes from `at` on.
    fn bytes<const BYTES: usize>(&self, at: usize) -> [u8; BYTES] {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().unwrap_or([0; BYTES])
    }
}

fn shard_of(entry: &[u8; ENTRY_BYTES]) -> Option<Shard> {
    (*entry != [0; ENTRY_BYTES]).then(|| Shard::from_bytes(entry))
}

impl FilterFile {
    /// Opens a filter file and checks its header.
    ///
    /// # Errors
    /// It cannot be read, or is not a valid filter file.
    pub fn open(path: &Path) -> Result<Self, FilterError> {
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => FilterError::NotAFilter,
                _ => error.into(),
            })?;
        Ok(Self {
            file,
            index: Index::parse(&header, file_bytes)?,
            is_checked: (0..PREFIXES).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    /// The size of its fingerprints.
    pub const fn kind(&self) -> FilterKind {
        self.index.kind
    }

    /// Which hashes its keys are taken from.
    pub const fn mode(&self) -> Mode {
        self.index.mode
    }

    /// Whether a hash with these first 64 bits is in the corpus: certainly not, or probably.
    ///
    /// # Errors
    /// The file does not hold the prefix of the hash, is damaged there, or cannot be read.
    pub fn contains(&self, key: u64) -> Result<bool, FilterError> {
        let number = (key >> 56) as u8;
        let shard = self.index.shards.get(usize::from(number)).copied();
        let shard = shard.flatten().ok_or(FilterError::NotHeld)?;
        self.check_shard(Prefix::from_number(number), &shard)?;
        let (fingerprint, positions) = shard.positions(key);
        let mut rest = fingerprint;
        for position in positions {
            rest ^= self.fingerprint(&shard, position)?;
        }
        // Only the low bits of the key's fingerprint count.
        let bits = 8 * u32::from(self.kind().fingerprint_bytes());
        Ok(rest.trailing_zeros() >= bits)
    }

    fn fingerprint(&self, shard: &Shard, position: u64) -> io::Result<u64> {
        let width = self.kind().fingerprint_bytes();
        let mut bytes = [0; 8];
        let used = bytes.get_mut(..usize::from(width)).unwrap_or_default();
        let offset = shard.offset + position * u64::from(width);
        self.file.read_exact_at(used, offset)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Compares the fingerprints of a prefix with their checksum, once.
    fn check_shard(&self, prefix: Prefix, shard: &Shard) -> Result<(), FilterError> {
        let is_checked = self.is_checked.get(usize::from(prefix.number()));
        if is_checked.is_some_and(|checked| checked.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let end = shard.offset + shard.fingerprints() * u64::from(self.kind().fingerprint_bytes());
        let mut piece = vec![0; PIECE_BYTES];
        let (mut at, mut crc32c) = (shard.offset, 0);
        while at < end {
            let bytes = usize::try_from(end - at).unwrap_or(PIECE_BYTES);
            let piece = piece.get_mut(..bytes.min(PIECE_BYTES)).unwrap_or_default();
            self.file.read_exact_at(piece, at)?;
            crc32c = crc32c::crc32c_append(crc32c, piece);
            at += piece.len() as u64;
        }
        if crc32c != shard.crc32c {
            return Err(FilterError::Damaged(
                "its fingerprints have another checksum",
            ));
        }
        if let Some(checked) = is_checked {
            checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
