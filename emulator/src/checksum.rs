//! Computes and parses the CRC32C checksums of objects.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::fmt;

/// A CRC32C (Castagnoli). Its text form is GCS's: the base64 of the big-endian value.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Crc32c(pub u32);

impl Crc32c {
    /// Extends a checksum by the bytes that follow. It starts from [`Crc32c::default`], the
    /// checksum of no bytes.
    #[must_use]
    pub fn append(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }

    /// Parses the text form; `None` if the text is not the base64 of four bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text).ok()?;
        let bytes = <[u8; 4]>::try_from(bytes).ok()?;
        Some(Self(u32::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Crc32c {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BASE64_STANDARD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for Crc32c {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Crc32c({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_can_be_computed_in_pieces() {
        let whole = Crc32c::default().append(b"123456789");
        assert_eq!(whole, Crc32c(0xE306_9283));
        assert_eq!(Crc32c::default().append(b"1234").append(b"56789"), whole);
    }

    #[test]
    fn the_text_form_of_a_checksum_parses_back() {
        for value in [0, 1, 0xC994_65AA, u32::MAX] {
            let text = Crc32c(value).to_string();
            assert_eq!(Crc32c::parse(&text), Some(Crc32c(value)), "{text}");
        }
        assert_eq!(Crc32c::parse("yZRl"), None);
        assert_eq!(Crc32c::parse("not base64"), None);
    }
}
