//! [`TarChecksum`]: the CRC32C of a tar, put together from those of its parts.
//!
//! The report has a checksum for each range, so that a single range can be read and checked later.
//! To compute them beside the tar's own would mean to read every byte twice. Instead, each part of
//! the tar is read once, and the tar's checksum follows from the parts': with `|` for
//! concatenation,
//!
//! ```text
//! crc(a | b) = crc(a) * x^(8 * length of b) + crc(b)
//! ```
//!
//! in the polynomials modulo CRC32C's (Castagnoli, 0x1EDC6F41), whose bits are reflected as in RFC
//! 3720.

use super::checksum::Crc32cStream;
use crate::protocol::crc32c::Crc32c;

/// CRC32C's polynomial without its highest term, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The polynomial 1, reflected.
const ONE: u32 = 1 << 31;

/// `POWERS[n]` is `x^(8 * 2^n)`: it moves a checksum past 2^n bytes. There is one for each bit of a
/// length.
const POWERS: [u32; u64::BITS as usize] = {
    let mut powers = [0; u64::BITS as usize];
    // x^8: eight places to the right of 1, because the bits are reflected.
    let mut power = ONE >> 8;
    let mut bit = 0;
    while bit < powers.len() {
        powers[bit] = power;
        power = multiply(power, power);
        bit += 1;
    }
    powers
};

/// The product of two polynomials.
const fn multiply(left: u32, right: u32) -> u32 {
    let (mut product, mut shifted, mut bits) = (0, right, left);
    while bits != 0 {
        // The highest bit is the lowest power.
        if bits & ONE != 0 {
            product ^= shifted;
        }
        bits <<= 1;
        shifted = if shifted & 1 == 0 {
            shifted >> 1
        } else {
            shifted >> 1 ^ POLYNOMIAL
        };
    }
    product
}

/// A checksum moved past `bytes` bytes.
fn shifted(crc32c: u32, bytes: u64) -> u32 {
    let (mut moved, mut left, mut bit) = (crc32c, bytes, 0);
    while left != 0 {
        if left & 1 == 1 {
            moved = multiply(POWERS[bit], moved);
        }
        left >>= 1;
        bit += 1;
    }
    moved
}

/// The checksum of two texts in a row, of which the second has `second_bytes` bytes.
fn concatenated(first: u32, second: u32, second_bytes: u64) -> u32 {
    shifted(first, second_bytes) ^ second
}

/// The checksum of a text and `count` zeros.
fn followed_by_zeros(crc32c: u32, count: u64) -> u32 {
    // Zeros only move the register, which is the checksum inverted.
    !shifted(!crc32c, count)
}

/// The checksum of the tar so far, and of the range whose data are being added.
#[derive(Debug, Default)]
pub struct TarChecksum {
    tar: u32,
    data: Crc32cStream,
    data_bytes: u64,
}

impl TarChecksum {
    /// Adds the header of an entry.
    pub fn push_header(&mut self, header: &[u8]) {
        self.tar = crc32c::crc32c_append(self.tar, header);
    }

    /// Adds a piece of an entry's data.
    pub fn push_data(&mut self, piece: &[u8]) {
        self.data.push(piece);
        self.data_bytes += piece.len() as u64;
    }

    /// Ends an entry's data and returns their checksum.
    pub fn end_data(&mut self) -> Crc32c {
        let data = self.data.checksum();
        self.tar = concatenated(self.tar, data, self.data_bytes);
        self.data.restart();
        self.data_bytes = 0;
        Crc32c(data)
    }

    /// Adds zeros: padding, and the end of the tar.
    pub fn push_zeros(&mut self, count: u64) {
        self.tar = followed_by_zeros(self.tar, count);
    }

    /// The tar's checksum.
    pub const fn checksum(&self) -> Crc32c {
        Crc32c(self.tar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_table_over_any_entries(
            entries in proptest::collection::vec(
                (
                    proptest::collection::vec(any::<u8>(), 0..600),
                    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4000), 0..6),
                    0_u64..2000,
                ),
                0..5,
            ),
        ) {
            let (mut checksum, mut tar) = (TarChecksum::default(), Vec::new());
            for (header, pieces, zeros) in entries {
                checksum.push_header(&header);
                tar.extend(header);
                for piece in &pieces {
                    checksum.push_data(piece);
                }
                let data = pieces.concat();
                prop_assert_eq!(checksum.end_data(), Crc32c(crc32c::crc32c(&data)));
                tar.extend(data);
                checksum.push_zeros(zeros);
                tar.resize(tar.len() + zeros as usize, 0);
                prop_assert_eq!(checksum.checksum(), Crc32c(crc32c::crc32c(&tar)));
            }
        }

        #[test]
        fn a_checksum_moves_past_any_length(crc32c: u32, first: u32, second: u32) {
            let (first, second) = (u64::from(first), u64::from(second) << 20);
            prop_assert_eq!(
                shifted(shifted(crc32c, first), second),
                shifted(crc32c, first + second)
            );
            prop_assert_eq!(shifted(crc32c, 0), crc32c);
        }
    }
}
