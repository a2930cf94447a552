//! [`PrefixSet`]: the prefixes of a run, parsed from the command line.

use prefix_tar::protocol::prefix::{NameError, PREFIXES, Prefix};
use std::collections::BTreeSet;
use std::str::FromStr;

/// A set of prefixes, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixSet(BTreeSet<Prefix>);

/// Why a text is not a set of prefixes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A part is not a prefix.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A span that runs backwards.
    #[error("`{0}` runs backwards; put the lower prefix first")]
    Backwards(String),
    /// A number of prefixes that is out of bounds.
    #[error("`{0}` is not a number from 1 to {PREFIXES}")]
    Count(String),
}

impl PrefixSet {
    /// All 256.
    pub fn all() -> Self {
        Self(Prefix::all().collect())
    }

    /// The first `count` prefixes; `count` is a number from 1 to 256.
    ///
    /// # Errors
    /// Any other text.
    pub fn first(count: &str) -> Result<Self, PlanError> {
        count
            .parse::<usize>()
            .ok()
            .filter(|count| (1..=usize::from(PREFIXES)).contains(count))
            .map(|count| Self(Prefix::all().take(count).collect()))
            .ok_or_else(|| PlanError::Count(count.to_owned()))
    }

    /// The prefixes in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Prefix> {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl FromStr for PrefixSet {
    type Err = PlanError;

    /// Parses a list of prefixes and spans: `00-1F,AB`.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut prefixes = BTreeSet::new();
        for part in text.split(',').map(str::trim) {
            match part.split_once('-') {
                None => {
                    prefixes.insert(part.parse()?);
                }
                Some((first, last)) => {
                    let first: Prefix = first.trim().parse()?;
                    let last: Prefix = last.trim().parse()?;
                    if first > last {
                        return Err(PlanError::Backwards(part.to_owned()));
                    }
                    prefixes.extend((first.number()..=last.number()).map(Prefix::from_number));
                }
            }
        }
        Ok(Self(prefixes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Result<String, PlanError> {
        let set: PrefixSet = text.parse()?;
        let names: Vec<String> = set.iter().map(|prefix| prefix.to_string()).collect();
        Ok(names.join(" "))
    }

    #[test]
    fn spans_and_single_prefixes_make_an_ordered_set() {
        assert_eq!(listed("AB").as_deref(), Ok("AB"));
        assert_eq!(listed("FE-FF, 00-02,01").as_deref(), Ok("00 01 02 FE FF"));
        assert_eq!("00-FF".parse(), Ok(PrefixSet::all()));
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for text in [
            "", "ZZ", "00-", "0-1F", "00,", "00-ZZ", "1F-00", "00-01-02", "ab",
        ] {
            assert!(listed(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_count_is_from_1_to_256() {
        for text in ["0", "257", "-1", "", "x", "1.5"] {
            assert!(PrefixSet::first(text).is_err(), "{text:?}");
        }
        assert_eq!(PrefixSet::first("256"), Ok(PrefixSet::all()));
        assert_eq!(PrefixSet::first("2"), "00-01".parse());
    }
}
