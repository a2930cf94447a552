//! [`PasswordHash`]: the SHA-1 of a password, which is nearly as secret as the password.

use prefix_tar::engine::range_body::SUFFIX_BYTES;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use sha1::{Digest as _, Sha1};
use std::fmt;
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of a SHA-1.
const HASH_BYTES: usize = 20;

/// A hash that is in no log and cleared from memory.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash([u8; HASH_BYTES]);

impl PasswordHash {
    /// The hash of a password, whatever its bytes are.
    pub fn of_password(password: &[u8]) -> Self {
        Self(Sha1::digest(password).into())
    }

    /// Parses 40 hex characters, of either case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut hash = Self([0; HASH_BYTES]);
        hex::decode_to_slice(text, &mut hash.0).ok()?;
        Some(hash)
    }

    /// The range that the hash is in: its first 20 bits.
    pub const fn range(&self) -> RangeName {
        let [first, second, third, ..] = self.0;
        let index = (second as u16) << 4 | (third as u16) >> 4;
        Prefix::from_number(first).range(index)
    }

    /// The rest of the hash, as ranges have it: 35 upper-case hex characters.
    pub fn suffix(&self) -> Zeroizing<[u8; SUFFIX_BYTES]> {
        let mut suffix = Zeroizing::new([0; SUFFIX_BYTES]);
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
        for (place, digit) in suffix.iter_mut().zip(digits.skip(5)) {
            *place = match digit {
                0..=9 => b'0' + digit,
                _ => b'A' + digit - 10,
            };
        }
        suffix
    }

    /// The key of the hash in a filter.
    pub const fn first_64_bits(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PasswordHash")
    }
}

impl Drop for PasswordHash {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_password_is_hashed_as_it_is() {
        let hash = PasswordHash::of_password(b"password");
        assert_eq!(hash.range().to_string(), "5BAA6");
        assert_eq!(&*hash.suffix(), b"1E4C9B93F3F0682250B6CF8331B7EE68FD8");
        assert_eq!(hash.first_64_bits(), 0x5BAA_61E4_C9B9_3F3F);
        assert_ne!(hash, PasswordHash::of_password(b"password "));
        assert_eq!(format!("{hash:?}"), "PasswordHash");
    }

    #[test]
    fn a_hash_has_40_hex_characters() {
        let text = b"5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8";
        let hash = PasswordHash::of_password(b"password");
        assert_eq!(PasswordHash::parse(text), Some(hash.clone()));
        assert_eq!(PasswordHash::parse(&text.to_ascii_uppercase()), Some(hash));
        for text in [&b""[..], &text[1..], b"password", &[b'x'; 40], &[b'A'; 41]] {
            assert_eq!(PasswordHash::parse(text), None);
        }
    }

    proptest! {
        #[test]
        fn range_and_suffix_are_the_hash(bytes in any::<[u8; HASH_BYTES]>()) {
            let hash = PasswordHash(bytes);
            let suffix = String::from_utf8(hash.suffix().to_vec()).expect("text");
            prop_assert_eq!(format!("{}{suffix}", hash.range()), hex::encode_upper(bytes));
        }
    }
}
