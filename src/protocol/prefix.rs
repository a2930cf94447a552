//! Names: the two-character [`Prefix`] and the five-character [`RangeName`].

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Ranges in one prefix: 16^3.
pub const RANGES_PER_PREFIX: u16 = 4096;

/// Prefixes in the whole corpus: 16^2.
pub const PREFIXES: u16 = 256;

/// Two upper-case hex characters, `00`..`FF`: the unit of one invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(extend("pattern" = "^[0-9A-F]{2}$"))
)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(u8);

impl Prefix {
    /// The prefix with this number: 0 is `00`, 255 is `FF`.
    pub const fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// The prefix's number, 0..=255.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All 256 prefixes in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The range at `index` (0..4096) of this prefix. Only the low twelve bits of `index` are used.
    pub const fn range(self, index: u16) -> RangeName {
        RangeName((self.0 as u32) << 12 | (index as u32 & 0xFFF))
    }

    /// The 4,096 ranges of this prefix in order.
    pub fn ranges(self) -> impl Iterator<Item = RangeName> {
        (0..RANGES_PER_PREFIX).map(move |index| self.range(index))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02X}", self.0)
    }
}

/// Why a text is not a prefix or a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not two upper-case hex characters.
    #[error("`{0}` is not a prefix: two upper-case hex characters, 00 to FF")]
    Prefix(String),
    /// Not five upper-case hex characters.
    #[error("`{0}` is not a range: five upper-case hex characters, 00000 to FFFFF")]
    Range(String),
}

fn parse_upper_hex(text: &str, digits: usize) -> Option<u32> {
    let well_formed = text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    well_formed
        .then(|| u32::from_str_radix(text, 16).ok())
        .flatten()
}

impl FromStr for Prefix {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse_upper_hex(text, 2)
            .and_then(|number| u8::try_from(number).ok())
            .map(Self)
            .ok_or_else(|| NameError::Prefix(text.to_owned()))
    }
}

impl TryFrom<String> for Prefix {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

/// Five upper-case hex characters, `00000`..`FFFFF`: the first five of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(extend("pattern" = "^[0-9A-F]{5}$"))
)]
#[serde(try_from = "String", into = "String")]
pub struct RangeName(u32);

impl RangeName {
    /// The prefix that this range belongs to.
    pub const fn prefix(self) -> Prefix {
        Prefix((self.0 >> 12) as u8)
    }

    /// The range's index in its prefix, 0..4096.
    pub const fn index(self) -> u16 {
        (self.0 & 0xFFF) as u16
    }

    /// The name of the range's file, in a tar and on disk: `AB7FF.txt`, as in the official
    /// downloader.
    pub fn file_name(self) -> String {
        format!("{self}.txt")
    }
}

impl fmt::Display for RangeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:05X}", self.0)
    }
}

impl FromStr for RangeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse_upper_hex(text, 5)
            .map(Self)
            .ok_or_else(|| NameError::Range(text.to_owned()))
    }
}

impl TryFrom<String> for RangeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<RangeName> for String {
    fn from(range: RangeName) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_survives_a_round_trip() {
        assert_eq!(Prefix::all().count(), usize::from(PREFIXES));
        for prefix in Prefix::all() {
            assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
    }

    #[test]
    fn a_prefix_must_be_two_upper_case_hex_characters() {
        for text in ["", "A", "ab", "ZZ", "ABC", "+A", "A ", "É"] {
            assert_eq!(
                text.parse::<Prefix>(),
                Err(NameError::Prefix(text.to_owned()))
            );
        }
    }

    #[test]
    fn a_prefix_lists_its_ranges_in_order() {
        let prefix: Prefix = "AB".parse().expect("AB is a prefix");
        let names: Vec<String> = prefix.ranges().map(|range| range.to_string()).collect();
        assert_eq!(names.len(), 4096);
        assert_eq!(names.first().map(String::as_str), Some("AB000"));
        assert_eq!(names.last().map(String::as_str), Some("ABFFF"));
        assert!(names.is_sorted());
        assert!(prefix.ranges().all(|range| range.prefix() == prefix));
        assert_eq!(prefix.range(0x7FF).file_name(), "AB7FF.txt");
        assert_eq!(prefix.range(0x7FF).index(), 0x7FF);
    }
}
