//! No two ranges of a prefix have the same body: a cache or a proxy that answers one range with another's is found
//! out. A body does not say which range it is of, so this is as much as can be known of it.
//!
//! Ranges are told apart by the suffix of their first hash: 140 random bits, of which 64 are kept.

use crate::prefix::RangeName;
use crate::range_body::SUFFIX_BYTES;
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::Hasher as _;

/// The first hashes of the ranges that were seen.
#[derive(Debug, Default)]
pub struct FirstHashes(HashMap<u64, RangeName>);

impl FirstHashes {
    /// Takes note of the suffix that a range begins with.
    ///
    /// # Errors
    /// Another range began with it before.
    pub fn add(&mut self, range: RangeName, first: &[u8; SUFFIX_BYTES]) -> Result<(), RangeName> {
        let mut hasher = DefaultHasher::new();
        hasher.write(first);
        match self.0.entry(hasher.finish()) {
            Entry::Occupied(before) if *before.get() != range => Err(*before.get()),
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(free) => {
                free.insert(range);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::Prefix;

    #[test]
    fn a_range_may_come_again_and_no_other_may_begin_as_it_does() {
        let mut seen = FirstHashes::default();
        let [one, other] = [1, 2].map(|index| Prefix::from_number(0xAB).range(index));
        let (a, b) = ([b'A'; SUFFIX_BYTES], [b'B'; SUFFIX_BYTES]);
        assert_eq!(seen.add(one, &a), Ok(()));
        assert_eq!(seen.add(one, &a), Ok(()));
        assert_eq!(seen.add(other, &a), Err(one));
        assert_eq!(seen.add(other, &b), Ok(()));
    }
}
