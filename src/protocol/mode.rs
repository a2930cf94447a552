//! [`Mode`]: which hashes a range API is asked for, and an archive holds.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Characters of a hash that name its range. The suffix is the rest.
const RANGE_CHARACTERS: usize = 5;

/// Which hashes. An archive holds those of one mode, so readers take what says nothing for SHA-1, as version 0.1.0
/// meant it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// SHA-1 of the password: 40 hex characters, 35 of them in a suffix.
    #[default]
    Sha1,
    /// NTLM, MD4 of the password in UTF-16LE: 32 hex characters, 27 of them in a suffix.
    Ntlm,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Ntlm];

    /// The name in JSON, in a query and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Ntlm => "ntlm",
        }
    }

    /// What people call the hashes: `SHA-1 hashes`, `NTLM hashes`.
    pub const fn hash_name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Ntlm => "NTLM",
        }
    }

    /// Bytes of a hash.
    pub const fn hash_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Ntlm => 16,
        }
    }

    /// Hex characters of a hash.
    pub const fn hash_characters(self) -> usize {
        2 * self.hash_bytes()
    }

    /// Hex characters of a hash without the range's five.
    pub const fn suffix_characters(self) -> usize {
        self.hash_characters() - RANGE_CHARACTERS
    }

    /// The query that asks for these hashes. SHA-1 is what the API sends without one; with `mode=sha1`, it would be
    /// another key in the API's cache.
    pub const fn query(self) -> Option<&'static str> {
        match self {
            Self::Sha1 => None,
            Self::Ntlm => Some("mode=ntlm"),
        }
    }

    /// Whether this is what files that state no mode are about. They stay readable for version 0.1.0.
    pub const fn is_default(&self) -> bool {
        matches!(self, Self::Sha1)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text is not a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither `sha1` nor `ntlm`")]
pub struct NotAMode;

impl FromStr for Mode {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Self, NotAMode> {
        let mut modes = Self::ALL.into_iter();
        modes.find(|mode| mode.as_str() == text).ok_or(NotAMode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_has_one_name_in_json_and_on_the_command_line() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            let json = serde_json::to_string(&mode).expect("JSON");
            assert_eq!(json, format!("\"{mode}\""));
        }
        for text in ["", "SHA1", "sha-1", "ntlm ", "md4"] {
            assert_eq!(text.parse::<Mode>(), Err(NotAMode), "{text}");
        }
    }

    #[test]
    fn the_suffixes_have_35_and_27_characters() {
        assert_eq!(Mode::ALL.map(Mode::suffix_characters), [35, 27]);
        assert_eq!(Mode::ALL.map(Mode::hash_characters), [40, 32]);
    }
}
