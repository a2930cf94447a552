//! [`Crc32c`]: a checksum in the text form of GCS.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A CRC32C (Castagnoli). Its text form is that of GCS: base64 of the big-endian value.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(extend("pattern" = "^[A-Za-z0-9+/]{5}[AQgw]==$"))
)]
#[serde(try_from = "String", into = "String")]
pub struct Crc32c(pub u32);

impl fmt::Display for Crc32c {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(self.0.to_be_bytes());
        formatter.write_str(&text)
    }
}

impl fmt::Debug for Crc32c {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Crc32c({self})")
    }
}

/// The text is not a CRC32C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a CRC32C is the base64 of four bytes")]
pub struct Crc32cError;

impl std::str::FromStr for Crc32c {
    type Err = Crc32cError;

    fn from_str(text: &str) -> Result<Self, Crc32cError> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            .map(|bytes| Self(u32::from_be_bytes(bytes)))
            .ok_or(Crc32cError)
    }
}

impl TryFrom<String> for Crc32c {
    type Error = Crc32cError;

    fn try_from(text: String) -> Result<Self, Crc32cError> {
        text.parse()
    }
}

impl From<Crc32c> for String {
    fn from(crc32c: Crc32c) -> Self {
        crc32c.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_checksum_survives_a_round_trip(value in any::<u32>()) {
            prop_assert_eq!(Crc32c(value).to_string().parse(), Ok(Crc32c(value)));
        }
    }
}
