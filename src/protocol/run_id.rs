//! [`RunId`]: names one run of the orchestrator, in everything that the run writes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The length of a run id: `20261125T031700Z-1a2b3c4d`.
const RUN_ID_BYTES: usize = 25;

/// The UTC time at which a run began and eight random hex characters: `20261125T031700Z-1a2b3c4d`.
/// Later runs sort after earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(extend("pattern" = "^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$"))
)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// A text is not the id of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run id has the form 20261125T031700Z-1a2b3c4d")]
pub struct RunIdError;

impl RunId {
    /// The id of a run that begins at `time` (`20261125T031700Z`). `random` distinguishes it from
    /// others of the same second.
    ///
    /// # Errors
    /// `time` has another form.
    pub fn new(time: &str, random: u32) -> Result<Self, RunIdError> {
        format!("{time}-{random:08x}").parse()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, RunIdError> {
        let is_right = |(at, byte): (usize, u8)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            16 => byte == b'-',
            0..=14 => byte.is_ascii_digit(),
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        if text.len() == RUN_ID_BYTES && text.bytes().enumerate().all(is_right) {
            Ok(Self(text.to_owned()))
        } else {
            Err(RunIdError)
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = RunIdError;

    fn try_from(text: String) -> Result<Self, RunIdError> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_has_one_form() {
        let id = RunId::new("20261125T031700Z", 0x1a2b_3c4d).expect("an id");
        assert_eq!(id.to_string(), "20261125T031700Z-1a2b3c4d");
        assert_eq!(id.as_str().parse(), Ok(id));
        for text in [
            "",
            "20261125T031700Z",
            "20261125T031700Z-1A2B3C4D",
            "2026-11-25T03:17-1a2b3c4d",
            "20261125T031700Z-1a2b3c4d\n",
            "../../../etc/passwd-x1234",
        ] {
            assert_eq!(text.parse::<RunId>(), Err(RunIdError), "{text:?}");
        }
    }
}
