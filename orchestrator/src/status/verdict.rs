//! [`Tally`]: what the comparisons amount to, and how sure that is.
//!
//! If a share p of all ranges differed, a sample of n would show none with a probability of at most (1 - p)^n. That is
//! below 5 % for every p of more than 1 - 0.05^(1/n): with 95 % confidence, no more than that differ. A sample that is
//! spread over the prefixes keeps this bound, because a product of shares with the same mean is greatest if they are
//! equal.

use super::compare::Evidence;
use crate::humanize::grouped;
use prefix_tar::protocol::prefix::RangeName;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How likely it has to be that the bound holds.
pub const CONFIDENCE: f64 = 0.95;

/// What was found out about an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No range of the sample differs.
    NothingNew,
    /// At least one range of the sample differs.
    New,
    /// A run has begun and not ended, or something is missing: the next run has something to do.
    Incomplete,
    /// There is no archive yet.
    NoArchive,
    /// It could not be told.
    Unknown,
}

/// What was found out about one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the same.
    Same(Evidence),
    /// Its body is another one.
    Differs,
    /// It could not be compared, for this reason.
    Unknown(String),
}

/// The outcomes of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many are the same, by what shows it.
    pub same: BTreeMap<Evidence, u32>,
    /// The ranges that differ.
    pub differing: BTreeSet<RangeName>,
    /// How many could not be compared, by the reason.
    pub unknown: BTreeMap<String, u32>,
}

impl Tally {
    /// Adds the outcome of a range.
    pub fn add(&mut self, range: RangeName, outcome: Outcome) {
        match outcome {
            Outcome::Same(evidence) => *self.same.entry(evidence).or_default() += 1,
            Outcome::Differs => {
                self.differing.insert(range);
            }
            Outcome::Unknown(reason) => *self.unknown.entry(reason).or_default() += 1,
        }
    }

    /// Ranges that are the same.
    pub fn same(&self) -> u32 {
        self.same.values().sum()
    }

    /// Ranges that differ.
    pub fn differing(&self) -> u32 {
        u32::try_from(self.differing.len()).unwrap_or(u32::MAX)
    }

    /// Ranges that could not be compared.
    pub fn unknown(&self) -> u32 {
        self.unknown.values().sum()
    }

    /// Ranges in the sample.
    pub fn ranges(&self) -> u32 {
        self.same() + self.differing() + self.unknown()
    }

    /// A range that differs is certain. That none does is certain only of ranges that were compared.
    pub fn verdict(&self) -> Verdict {
        if self.differing() > 0 {
            Verdict::New
        } else if self.unknown() > 0 || self.ranges() == 0 {
            Verdict::Unknown
        } else {
            Verdict::NothingNew
        }
    }

    /// The share of ranges that differ at most, with a confidence of [`CONFIDENCE`]; `None` unless nothing is new.
    pub fn differing_share_max(&self) -> Option<f64> {
        (self.verdict() == Verdict::NothingNew).then(|| share_max(self.ranges()))
    }

    /// The verdict in one line. The archive holds `held` ranges.
    pub fn summary(&self, held: u64) -> String {
        let ranges = self.ranges();
        let (shown, unknown) = (grouped(ranges.into()), grouped(self.unknown().into()));
        match self.verdict() {
            Verdict::NothingNew if u64::from(ranges) == held => {
                format!(
                    "nothing new in {shown} of {shown} ranges, which are all that the archive holds"
                )
            }
            Verdict::NothingNew => format!(
                "nothing new in {shown} of {shown} ranges: with {:.0} % confidence fewer than {} % differ",
                CONFIDENCE * 100.0,
                percent_above(share_max(ranges)),
            ),
            Verdict::New => {
                let differing = grouped(self.differing().into());
                let verb = if self.differing() == 1 {
                    "differs"
                } else {
                    "differ"
                };
                let rest = match self.unknown() {
                    0 => String::new(),
                    _ => format!("; {unknown} could not be compared"),
                };
                format!("new: {differing} of {shown} ranges {verb}{rest}")
            }
            _ => {
                let rest = match self.same() {
                    0 => String::new(),
                    same => format!("; nothing new in the other {}", grouped(same.into())),
                };
                format!("could not tell: {unknown} of {shown} ranges could not be compared{rest}")
            }
        }
    }
}

/// The largest share of ranges that may differ although `ranges` of them do not, with a confidence of [`CONFIDENCE`]. It
/// is exact for ranges that are drawn independently.
fn share_max(ranges: u32) -> f64 {
    1.0 - (1.0 - CONFIDENCE).powf(1.0 / f64::from(ranges))
}

/// A share in percent, rounded up: in whole percent, or to one digit if it is less than one.
fn percent_above(share: f64) -> String {
    let (mut scaled, mut decimals) = (share * 100.0, 0);
    while scaled < 1.0 && decimals < 9 {
        scaled *= 10.0;
        decimals += 1;
    }
    // A whole number may be a little more than itself.
    let rounded = (scaled - 1e-9).ceil() / 10_f64.powi(decimals);
    rounded.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prefix_tar::protocol::prefix::Prefix;
    use proptest::prelude::*;

    fn tally(same: u32, differing: u16, unknown: u32) -> Tally {
        let mut tally = Tally::default();
        let range = |index| Prefix::from_number(0xAB).range(index);
        for _ in 0..same {
            tally.add(range(0), Outcome::Same(Evidence::Etag));
        }
        for index in 0..differing {
            tally.add(range(index), Outcome::Differs);
        }
        for _ in 0..unknown {
            tally.add(range(0), Outcome::Unknown("down".to_owned()));
        }
        tally
    }

    #[test]
    fn a_difference_decides_then_a_range_that_could_not_be_compared() {
        for (same, differing, unknown, verdict, summary) in [
            (
                64,
                0,
                0,
                Verdict::NothingNew,
                "nothing new in 64 of 64 ranges: with 95 % confidence fewer than 5 % differ",
            ),
            (
                1,
                0,
                0,
                Verdict::NothingNew,
                "nothing new in 1 of 1 ranges: with 95 % confidence fewer than 95 % differ",
            ),
            (
                300,
                0,
                0,
                Verdict::NothingNew,
                "nothing new in 300 of 300 ranges: with 95 % confidence fewer than 1 % differ",
            ),
            (
                1_000,
                0,
                0,
                Verdict::NothingNew,
                "nothing new in 1,000 of 1,000 ranges: with 95 % confidence fewer than 0.3 % differ",
            ),
            (
                4_096,
                0,
                0,
                Verdict::NothingNew,
                "nothing new in 4,096 of 4,096 ranges, which are all that the archive holds",
            ),
            (63, 1, 0, Verdict::New, "new: 1 of 64 ranges differs"),
            (0, 64, 0, Verdict::New, "new: 64 of 64 ranges differ"),
            (
                60,
                1,
                3,
                Verdict::New,
                "new: 1 of 64 ranges differs; 3 could not be compared",
            ),
            (
                61,
                0,
                3,
                Verdict::Unknown,
                "could not tell: 3 of 64 ranges could not be compared; nothing new in the other 61",
            ),
            (
                0,
                0,
                64,
                Verdict::Unknown,
                "could not tell: 64 of 64 ranges could not be compared",
            ),
        ] {
            let tally = tally(same, differing, unknown);
            assert_eq!(
                (tally.verdict(), tally.summary(4_096).as_str()),
                (verdict, summary)
            );
            let is_nothing_new = verdict == Verdict::NothingNew;
            assert_eq!(tally.differing_share_max().is_some(), is_nothing_new);
        }
        assert_eq!(Tally::default().verdict(), Verdict::Unknown);
    }

    proptest! {
        #[test]
        fn the_bound_is_the_share_of_which_a_sample_shows_none_once_in_twenty(ranges in 1_u32..100_000) {
            let share = share_max(ranges);
            prop_assert!(share > 0.0 && share < 1.0);
            let shows_none = (1.0 - share).powf(f64::from(ranges));
            prop_assert!((shows_none - 0.05).abs() < 1e-6, "{shows_none}");
            prop_assert!(share > share_max(ranges + 1));
            let shown: f64 = percent_above(share).parse().expect("a number");
            prop_assert!(shown + 1e-9 >= share * 100.0 && shown <= share * 200.0, "{shown} for {share}");
        }
    }
}
