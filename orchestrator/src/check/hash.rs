//! [`PasswordHash`]: the SHA-1 or NTLM hash of a password, which is nearly as secret as the password.

use crate::nt_hash::{NT_HASH_BYTES, nt_hash};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use sha1::{Digest as _, Sha1};
use std::fmt;
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of the longest hash, a SHA-1.
const HASH_BYTES_MAX: usize = Mode::Sha1.hash_bytes();

const _: () = assert!(NT_HASH_BYTES == Mode::Ntlm.hash_bytes() && NT_HASH_BYTES <= HASH_BYTES_MAX);

/// A hash that is in no log and cleared from memory.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    mode: Mode,
    /// What a shorter hash leaves is 0.
    bytes: [u8; HASH_BYTES_MAX],
}

/// A password that is not text, and has no NTLM hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText;

impl PasswordHash {
    /// The hash of a password. SHA-1 is one of bytes, whatever they are; NTLM is one of text, which is UTF-8 here.
    ///
    /// # Errors
    /// The password is not UTF-8, and has no NTLM hash.
    pub fn of_password(password: &[u8], mode: Mode) -> Result<Self, NotText> {
        let mut hash = Self::zero(mode);
        match mode {
            Mode::Sha1 => hash.bytes = Sha1::digest(password).into(),
            Mode::Ntlm => {
                let text = std::str::from_utf8(password).map_err(|_| NotText)?;
                hash.used().copy_from_slice(&*Zeroizing::new(nt_hash(text)));
            }
        }
        Ok(hash)
    }

    /// Parses as many hex characters as a hash of `mode` has, of either case.
    pub fn parse(text: &[u8], mode: Mode) -> Option<Self> {
        let mut hash = Self::zero(mode);
        hex::decode_to_slice(text, hash.used()).ok()?;
        Some(hash)
    }

    const fn zero(mode: Mode) -> Self {
        Self {
            mode,
            bytes: [0; HASH_BYTES_MAX],
        }
    }

    /// The bytes that a hash of its mode has.
    fn used(&mut self) -> &mut [u8] {
        let bytes = self.mode.hash_bytes();
        self.bytes.get_mut(..bytes).unwrap_or_default()
    }

    /// The range that the hash is in: its first 20 bits.
    pub const fn range(&self) -> RangeName {
        let [first, second, third, ..] = self.bytes;
        let index = (second as u16) << 4 | (third as u16) >> 4;
        Prefix::from_number(first).range(index)
    }

    /// The rest of the hash, as ranges have it: upper-case hex characters.
    pub fn suffix(&self) -> Zeroizing<Vec<u8>> {
        let characters = self.mode.suffix_characters();
        // It never grows, so no copy of its content is left behind.
        let mut suffix = Zeroizing::new(Vec::with_capacity(characters));
        let digits = self.bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
        suffix.extend(digits.skip(5).take(characters).map(|digit| match digit {
            0..=9 => b'0' + digit,
            _ => b'A' + digit - 10,
        }));
        suffix
    }

    /// The key of the hash in a filter.
    pub const fn first_64_bits(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes;
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
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(password: &[u8], mode: Mode) -> PasswordHash {
        PasswordHash::of_password(password, mode).expect("text")
    }

    #[test]
    fn a_password_is_hashed_as_it_is() {
        let hash = of(b"password", Mode::Sha1);
        assert_eq!(hash.range().to_string(), "5BAA6");
        assert_eq!(&**hash.suffix(), b"1E4C9B93F3F0682250B6CF8331B7EE68FD8");
        assert_eq!(hash.first_64_bits(), 0x5BAA_61E4_C9B9_3F3F);
        assert_ne!(hash, of(b"password ", Mode::Sha1));
        assert_eq!(format!("{hash:?}"), "PasswordHash");
    }

    #[test]
    fn the_ntlm_hash_of_a_password_is_that_of_its_text() {
        let hash = of(b"Password", Mode::Ntlm);
        assert_eq!(hash.range().to_string(), "A4F49");
        assert_eq!(&**hash.suffix(), b"C406510BDCAB6824EE7C30FD852");
        assert_eq!(hash.first_64_bits(), 0xA4F4_9C40_6510_BDCA);
        assert_eq!(of(b"", Mode::Ntlm).range().to_string(), "31D6C");
        for not_text in [&b"\xFF"[..], b"\xE9", b"\xED\xA0\x80"] {
            assert_eq!(
                PasswordHash::of_password(not_text, Mode::Ntlm),
                Err(NotText)
            );
            assert!(PasswordHash::of_password(not_text, Mode::Sha1).is_ok());
        }
    }

    #[test]
    fn a_hash_has_40_or_32_hex_characters() {
        for (text, mode) in [
            (&b"5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8"[..], Mode::Sha1),
            (b"8846f7eaee8fb117ad06bdd830b7586c", Mode::Ntlm),
        ] {
            let parse = |text: &[u8]| PasswordHash::parse(text, mode);
            let hash = of(b"password", mode);
            assert_eq!(parse(text), Some(hash.clone()));
            assert_eq!(parse(&text.to_ascii_uppercase()), Some(hash));
            for text in [&b""[..], &text[1..], b"password", &[b'x'; 40], &[b'x'; 32]] {
                assert_eq!(parse(text), None);
            }
            for other in Mode::ALL.into_iter().filter(|other| *other != mode) {
                assert_eq!(PasswordHash::parse(text, other), None);
            }
        }
    }

    proptest! {
        #[test]
        fn range_and_suffix_are_the_hash(bytes in any::<[u8; HASH_BYTES_MAX]>()) {
            for mode in Mode::ALL {
                let text = hex::encode_upper(&bytes[..mode.hash_bytes()]);
                let hash = PasswordHash::parse(text.as_bytes(), mode).expect("a hash");
                let suffix = String::from_utf8(hash.suffix().to_vec()).expect("text");
                prop_assert_eq!(format!("{}{suffix}", hash.range()), text);
            }
        }
    }
}
