//! [`Source`]: the bytes of a tar, through one buffer, with their number and checksum.

use prefix_tar::engine::tar::BLOCK_BYTES;
use prefix_tar::limits::CONTENT_LENGTH_MAX;
use prefix_tar::protocol::crc32c::Crc32c;
use std::io::{self, Read};

/// One read from a tar, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Why the rest of a tar is not read.
pub(super) enum Stop {
    /// The reader failed.
    Unreadable(io::Error),
    /// What follows cannot be interpreted.
    Damaged(String),
    /// The visitor wants no more ranges.
    Unwanted,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// A buffered reader that counts and checksums what it reads.
pub(super) struct Source<Reader> {
    reader: Reader,
    buffer: Vec<u8>,
    /// The bytes in the buffer before this index are consumed.
    start: usize,
    end: usize,
    bytes: u64,
    crc32c: u32,
    is_at_end: bool,
}

impl<Reader: Read> Source<Reader> {
    pub(super) fn new(reader: Reader) -> Self {
        Self {
            reader,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            bytes: 0,
            crc32c: 0,
            is_at_end: false,
        }
    }

    /// The bytes that were read so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Their checksum.
    pub(super) const fn crc32c(&self) -> Crc32c {
        Crc32c(self.crc32c)
    }

    /// Whether the reader has ended.
    pub(super) const fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// The offset of the next byte in the tar.
    pub(super) const fn position(&self) -> u64 {
        self.bytes - (self.end - self.start) as u64
    }

    /// The next bytes, at most `bytes_max`. There are none only at the end.
    pub(super) fn piece(&mut self, bytes_max: usize) -> Result<&[u8], Stop> {
        if self.start == self.end {
            self.fill()?;
        }
        let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
        Ok(unread.get(..bytes_max).unwrap_or(unread))
    }

    /// Skips bytes that [`Self::piece`] has returned.
    pub(super) const fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// The next block; `None` at the end.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, Stop> {
        let mut block = [0; BLOCK_BYTES];
        let mut rest = block.as_mut_slice();
        while !rest.is_empty() {
            let is_begun = rest.len() < BLOCK_BYTES;
            let piece = self.piece(rest.len())?;
            if piece.is_empty() {
                return if is_begun {
                    let bytes = self.bytes;
                    Err(Stop::Damaged(format!(
                        "ends inside a block, after {bytes} bytes"
                    )))
                } else {
                    Ok(None)
                };
            }
            let bytes = piece.len();
            let (filled, free) = std::mem::take(&mut rest).split_at_mut(bytes);
            filled.copy_from_slice(piece);
            rest = free;
            self.consume(bytes);
        }
        Ok(Some(block))
    }

    /// Reads into the buffer, which is consumed.
    fn fill(&mut self) -> Result<(), Stop> {
        if self.bytes > CONTENT_LENGTH_MAX {
            let damage = format!("is longer than {CONTENT_LENGTH_MAX} bytes, the longest tar");
            return Err(Stop::Damaged(damage));
        }
        let read = loop {
            match self.reader.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let new = self.buffer.get(..read).unwrap_or_default();
        self.crc32c = crc32c::crc32c_append(self.crc32c, new);
        (self.start, self.end) = (0, new.len());
        self.bytes += new.len() as u64;
        self.is_at_end = read == 0;
        Ok(())
    }
}
