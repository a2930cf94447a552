//! Detects a body that belongs to another range of the prefix, as a faulty cache or proxy may
//! return.
//!
//! A body does not name its range, so it can only be compared with the other bodies. They are
//! compared by the suffix of their first hash: 108 random bits or more, of which a 64-bit hash is
//! stored.

use crate::protocol::prefix::RangeName;
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::Hasher as _;

/// The first suffix of each range so far.
#[derive(Debug, Default)]
pub struct DuplicateDetector(HashMap<u64, RangeName>);

impl DuplicateDetector {
    /// Adds the first suffix of a range.
    ///
    /// # Errors
    /// Another range has the same suffix. It is returned.
    pub fn add(&mut self, range: RangeName, first: &[u8]) -> Result<(), RangeName> {
        let mut hasher = DefaultHasher::new();
        hasher.write(first);
        match self.0.entry(hasher.finish()) {
            Entry::Occupied(known) if *known.get() != range => Err(*known.get()),
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
    use crate::protocol::prefix::Prefix;

    #[test]
    fn a_range_may_repeat_but_no_other_may_have_its_first_suffix() {
        let mut seen = DuplicateDetector::default();
        let [one, other] = [1, 2].map(|index| Prefix::from_number(0xAB).range(index));
        let (a, b) = ([b'A'; 35], [b'B'; 35]);
        assert_eq!(seen.add(one, &a), Ok(()));
        assert_eq!(seen.add(one, &a), Ok(()));
        assert_eq!(seen.add(other, &a), Err(one));
        assert_eq!(seen.add(other, &b), Ok(()));
    }
}
