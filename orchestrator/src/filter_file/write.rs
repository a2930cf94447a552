//! [`FilterWriter`]: builds filters and writes them, a prefix at a time.

use super::{FilterKind, HEAD_BYTES, HEADER_BYTES, MAGIC, Shard, VERSION, hash_number};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{PREFIXES, Prefix};
use std::io::{self, Seek, SeekFrom, Write};
use xorf::{BinaryFuse8, BinaryFuse16, DmaSerializable};

/// The fingerprints that are encoded at once.
const FINGERPRINTS_AT_ONCE: usize = 32 * 1024;

/// Writes a filter file. Its header is written last, so a file that is not finished has none.
#[derive(Debug)]
pub struct FilterWriter<Out> {
    out: Out,
    kind: FilterKind,
    mode: Mode,
    shards: Vec<Shard>,
    /// Where the next fingerprints begin.
    offset: u64,
    keys: u64,
}

impl<Out: Write + Seek> FilterWriter<Out> {
    /// Begins a file with hashes of `mode`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(kind: FilterKind, mode: Mode, mut out: Out) -> io::Result<Self> {
        out.write_all(&[0; HEADER_BYTES])?;
        Ok(Self {
            out,
            kind,
            mode,
            shards: vec![Shard::default(); usize::from(PREFIXES)],
            offset: HEADER_BYTES as u64,
            keys: 0,
        })
    }

    /// Builds the filter of a prefix, greater than the ones before, and writes its fingerprints. No key may be there
    /// twice.
    ///
    /// # Errors
    /// There are no keys, no filter exists for them, or it cannot be written.
    pub fn add_prefix(&mut self, prefix: Prefix, keys: &[u64]) -> io::Result<()> {
        let key_count = u32::try_from(keys.len()).map_err(io::Error::other)?;
        if keys.is_empty() {
            return Err(io::Error::other("a filter needs keys"));
        }
        let (mut shard, crc32c) = match self.kind {
            FilterKind::Fuse8 => {
                let filter = BinaryFuse8::try_from(keys).map_err(io::Error::other)?;
                (
                    described(&filter),
                    self.write(&filter.fingerprints, |print| [print])?,
                )
            }
            FilterKind::Fuse16 => {
                let filter = BinaryFuse16::try_from(keys).map_err(io::Error::other)?;
                (
                    described(&filter),
                    self.write(&filter.fingerprints, u16::to_le_bytes)?,
                )
            }
        };
        shard.keys = key_count;
        shard.crc32c = crc32c;
        shard.offset = self.offset;
        self.offset += shard.fingerprints() * u64::from(self.kind.fingerprint_bytes());
        self.keys += u64::from(key_count);
        if let Some(place) = self.shards.get_mut(usize::from(prefix.number())) {
            *place = shard;
        }
        Ok(())
    }

    /// Writes fingerprints and returns their checksum.
    fn write<Print: Copy, const BYTES: usize>(
        &mut self,
        fingerprints: &[Print],
        encode: impl Fn(Print) -> [u8; BYTES],
    ) -> io::Result<u32> {
        let mut crc32c = 0;
        let mut encoded = Vec::with_capacity(FINGERPRINTS_AT_ONCE * BYTES);
        for some in fingerprints.chunks(FINGERPRINTS_AT_ONCE) {
            encoded.clear();
            encoded.extend(some.iter().flat_map(|print| encode(*print)));
            crc32c = crc32c::crc32c_append(crc32c, &encoded);
            self.out.write_all(&encoded)?;
        }
        Ok(crc32c)
    }

    /// Writes the header and returns the number of keys.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<u64> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        let (width, hash) = (self.kind.fingerprint_bytes(), hash_number(self.mode));
        header.extend([width, hash, 0, 0, 0, 0]);
        header.extend(self.keys.to_le_bytes());
        debug_assert_eq!(header.len(), HEAD_BYTES);
        header.extend(self.shards.iter().flat_map(|shard| shard.to_bytes()));
        header.extend(crc32c::crc32c(&header).to_le_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()?;
        Ok(self.keys)
    }
}

/// What `xorf` says of a filter: its seed (8 bytes), the length of a segment (4), that minus 1 (4), and the sum of the
/// lengths of the first segments (4).
fn described<Filter: DmaSerializable>(filter: &Filter) -> Shard {
    let mut descriptor = vec![0; Filter::DESCRIPTOR_LEN];
    filter.dma_copy_descriptor_to(&mut descriptor);
    let word = |at: usize| {
        let bytes = descriptor.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().map_or(0, u32::from_le_bytes)
    };
    let seed = descriptor.first_chunk().copied();
    Shard {
        seed: seed.map_or(0, u64::from_le_bytes),
        segment_length: word(8),
        first_segments_length: word(16),
        ..Shard::default()
    }
}
