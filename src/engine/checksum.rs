//! Computes the CRC32C of a long stream at memory speed, without a CRC instruction.
//!
//! WebAssembly has no such instruction, and table lookups would take a quarter of an invocation's
//! CPU time.
//!
//! The stream is a polynomial in blocks of 128 bits, `X = x^128`. Modulo the CRC's polynomial
//! (0x1EDC6F41), with the exponents below,
//!
//! ```text
//! X^209 = X^144 + X^54 + X^39 + X^14 + 1
//! ```
//!
//! So a block can be removed if it is added to the blocks 65, 155, 170, 195 and 209 places later:
//! the remainder stays the same. This folding only needs XOR of whole blocks, which vector
//! instructions do. At the end the last 209 blocks remain, and their CRC is computed with tables,
//! once.
//!
//! A search found the exponents: six terms (the polynomial is a multiple of `x + 1`, so the number
//! of terms is even) that lie close together. A test checks the identity.

/// A block, in bytes.
const BLOCK_BYTES: usize = 16;

/// How many places later a folded block is added.
const TAPS: [usize; 5] = [65, 155, 170, 195, 209];

/// Blocks to remember: as far as the farthest tap reaches.
const HISTORY_BLOCKS: usize = 209;

const HISTORY_BYTES: usize = HISTORY_BLOCKS * BLOCK_BYTES;

/// Bytes folded at once. No tap may reach into them.
const STRIDE_BYTES: usize = 64 * BLOCK_BYTES;

/// Bytes folded in one step of the loop: enough vectors to outweigh the computation of addresses.
const GROUP_BYTES: usize = 64;

const GROUPS: usize = STRIDE_BYTES / GROUP_BYTES;

/// Bytes folded before the history moves back to the front.
const FOLDED_BYTES_MAX: usize = 16 * STRIDE_BYTES;

const _: () = assert!(STRIDE_BYTES < TAPS[0] * BLOCK_BYTES && TAPS[4] == HISTORY_BLOCKS);

/// The CRC32C of the bytes pushed so far.
#[derive(Debug)]
pub struct Crc32cStream {
    /// The history, followed by the strides folded since it moved to the front.
    blocks: Vec<u8>,
    /// The end of the folded strides in `blocks`.
    end: usize,
    /// The incomplete last stride.
    partial: Vec<u8>,
    is_first: bool,
}

impl Default for Crc32cStream {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc32cStream {
    /// The checksum of an empty stream. It takes about 20 KiB of memory.
    pub fn new() -> Self {
        Self {
            blocks: vec![0; HISTORY_BYTES + FOLDED_BYTES_MAX],
            end: HISTORY_BYTES,
            partial: Vec::with_capacity(STRIDE_BYTES),
            is_first: true,
        }
    }

    /// Begins another stream.
    pub fn restart(&mut self) {
        if let Some(history) = self.blocks.get_mut(..HISTORY_BYTES) {
            history.fill(0);
        }
        self.end = HISTORY_BYTES;
        self.partial.clear();
        self.is_first = true;
    }

    /// Appends bytes to the stream.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if !self.partial.is_empty() {
            let missing = STRIDE_BYTES - self.partial.len();
            let (head, rest) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(head);
            if self.partial.len() < STRIDE_BYTES {
                return;
            }
            bytes = rest;
            let stride = std::mem::take(&mut self.partial);
            self.fold(&stride);
            self.partial = stride;
            self.partial.clear();
        }
        let (strides, rest) = bytes.as_chunks::<STRIDE_BYTES>();
        for stride in strides {
            self.fold(stride);
        }
        self.partial.extend_from_slice(rest);
    }

    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    fn fold(&mut self, stride: &[u8]) {
        if self.end + STRIDE_BYTES > self.blocks.len() {
            let history = self.end - HISTORY_BYTES..self.end;
            self.blocks.copy_within(history, 0);
            self.end = HISTORY_BYTES;
        }
        let (before, after) = self.blocks.split_at_mut(self.end);
        let tap = |tap: usize| groups(&before[before.len() - tap * BLOCK_BYTES..]);
        let taps = TAPS.map(tap);
        let (stride, out) = (groups(stride), groups_mut(after));
        for group in 0..GROUPS {
            let mut folded = stride[group];
            for tap in taps {
                for (byte, added) in folded.iter_mut().zip(tap[group]) {
                    *byte ^= added;
                }
            }
            out[group] = folded;
        }
        if self.is_first {
            // The CRC register starts with ones, which equals ones added to the first 32 bits.
            self.is_first = false;
            for byte in &mut out[0][..4] {
                *byte ^= 0xFF;
            }
        }
        self.end += STRIDE_BYTES;
    }

    /// The last blocks. They are not folded, so what folding them has added to one another is removed.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    fn unfolded(&self) -> [u8; HISTORY_BYTES] {
        let history = &self.blocks[self.end - HISTORY_BYTES..self.end];
        let mut left = [0; HISTORY_BYTES];
        left.copy_from_slice(history);
        let (from, _) = history.as_chunks::<BLOCK_BYTES>();
        let (to, _) = left.as_chunks_mut::<BLOCK_BYTES>();
        for tap in TAPS {
            for (to, from) in to[tap..].iter_mut().zip(from) {
                for (byte, added) in to.iter_mut().zip(from) {
                    *byte ^= added;
                }
            }
        }
        left
    }

    /// The checksum of the bytes pushed so far.
    pub fn checksum(&self) -> u32 {
        if self.is_first {
            return crc32c::crc32c(&self.partial);
        }
        let left = self.unfolded();
        // The register starts with zeros here; the crate takes it inverted.
        let register = crc32c::crc32c_append(u32::MAX, &left);
        crc32c::crc32c_append(register, &self.partial)
    }
}

/// The first stride of `bytes`, in groups.
fn groups(bytes: &[u8]) -> &[[u8; GROUP_BYTES]] {
    &bytes.as_chunks().0[..GROUPS]
}

fn groups_mut(bytes: &mut [u8]) -> &mut [[u8; GROUP_BYTES]] {
    &mut bytes.as_chunks_mut().0[..GROUPS]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_identity_holds() {
        const POLYNOMIAL: u64 = 0x1_1EDC_6F41;
        let power = |blocks: usize| {
            (0..blocks * 128).fold(1_u64, |value, _| {
                let doubled = value << 1;
                if doubled >> 32 == 1 {
                    doubled ^ POLYNOMIAL
                } else {
                    doubled
                }
            })
        };
        let sum = TAPS.iter().fold(power(HISTORY_BLOCKS), |sum, tap| {
            sum ^ power(HISTORY_BLOCKS - tap)
        });
        assert_eq!(sum, 0);
    }

    #[test]
    fn the_published_check_value_comes_out() {
        let mut stream = Crc32cStream::new();
        stream.push(b"123456789");
        assert_eq!(stream.checksum(), 0xE306_9283);
    }

    proptest! {
        #[test]
        fn agrees_with_the_table_for_any_division_of_the_stream(
            bytes in proptest::collection::vec(any::<u8>(), 0..60_000),
            pieces in proptest::collection::vec(1_usize..9_000, 1..20),
        ) {
            let mut stream = Crc32cStream::new();
            let mut rest = bytes.as_slice();
            for piece in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                stream.push(now);
                rest = later;
                let pushed = bytes.len() - rest.len();
                prop_assert_eq!(stream.checksum(), crc32c::crc32c(&bytes[..pushed]));
            }
        }
    }
}
