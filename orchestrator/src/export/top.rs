//! [`TopSink`]: the hashes with the highest counts, in memory that does not grow with the archive.

use super::RangeSink;
use super::line::{HASH_BYTES_MAX, hash, lines};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RangeName;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io::{self, Write};

/// The most hashes that can be kept. Each takes 32 bytes: 320 MB, about what a filter needs, too.
pub const TOP_MAX: u32 = 10_000_000;

/// A hash and its count. The greater one has the higher count, then the lower hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    count: u64,
    hash: [u8; HASH_BYTES_MAX],
}

impl Ord for Counted {
    fn cmp(&self, other: &Self) -> Ordering {
        let count = self.count.cmp(&other.count);
        count.then_with(|| other.hash.cmp(&self.hash))
    }
}

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Keeps the hashes with the highest counts.
#[derive(Debug)]
pub struct TopSink {
    /// The least of them is at the top.
    kept: BinaryHeap<Reverse<Counted>>,
    mode: Mode,
    kept_max: usize,
}

impl TopSink {
    /// Keeps at most `kept_max` hashes of `mode`, and no more than [`TOP_MAX`].
    pub fn new(kept_max: u32, mode: Mode) -> Self {
        let kept_max = kept_max.min(TOP_MAX) as usize;
        Self {
            kept: BinaryHeap::with_capacity(kept_max),
            mode,
            kept_max,
        }
    }

    fn add(&mut self, new: Counted) {
        if self.kept.len() < self.kept_max {
            self.kept.push(Reverse(new));
        } else if let Some(mut least) = self.kept.peek_mut()
            && new > least.0
        {
            *least = Reverse(new);
        }
    }

    /// Whether a hash with this count may be among the highest.
    fn may_be_kept(&self, count: u64) -> bool {
        let least = self.kept.peek();
        self.kept.len() < self.kept_max || least.is_some_and(|least| count >= least.0.count)
    }

    /// Writes `HASH:COUNT` lines, the highest count first; equal counts are in the order of their
    /// hashes. Returns how many lines there are.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(self, mut out: impl Write) -> io::Result<u64> {
        // The order is reversed once more by `Reverse`.
        let kept = self.kept.into_sorted_vec();
        let hash_bytes = self.mode.hash_bytes();
        for Reverse(counted) in &kept {
            let hash = hex::encode_upper(counted.hash.get(..hash_bytes).unwrap_or_default());
            writeln!(out, "{hash}:{}", counted.count)?;
        }
        out.flush()?;
        Ok(kept.len() as u64)
    }
}

impl RangeSink for TopSink {
    fn range(&mut self, range: RangeName, body: &[u8]) -> io::Result<()> {
        for line in lines(body, self.mode) {
            let count = line.count();
            // Nearly all lines end here, without their hash being decoded.
            if self.may_be_kept(count) {
                let hash = hash(range, line.suffix);
                self.add(Counted { count, hash });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Range and count of each hash; few ranges and counts, so that they repeat.
    fn corpus() -> impl Strategy<Value = (Mode, BTreeMap<String, u64>)> {
        let of = |mode: Mode, hash| {
            let corpus = proptest::collection::btree_map(hash, 1_u64..6, 0..60);
            corpus.prop_map(move |corpus| (mode, corpus))
        };
        prop_oneof![
            of(Mode::Sha1, "0000[0-3][0-9A-F]{35}"),
            of(Mode::Ntlm, "0000[0-3][0-9A-F]{27}"),
        ]
    }

    proptest! {
        #[test]
        fn the_top_is_that_of_the_sorted_list((mode, corpus) in corpus(), kept_max in 0_u32..70) {
            let mut sink = TopSink::new(kept_max, mode);
            for number in 0..4 {
                let range = format!("0000{number}");
                let lines: Vec<String> = corpus
                    .iter()
                    .filter_map(|(hash, count)| Some(format!("{}:{count}", hash.strip_prefix(&range)?)))
                    .collect();
                let range = range.parse().expect("a range");
                sink.range(range, lines.join("\r\n").as_bytes())?;
            }
            let mut out = Vec::new();
            let written = sink.write(&mut out)?;
            let mut sorted: Vec<(&String, &u64)> = corpus.iter().collect();
            sorted.sort_by_key(|(hash, count)| (Reverse(**count), (*hash).clone()));
            let expected: String = sorted
                .iter()
                .take(kept_max as usize)
                .map(|(hash, count)| format!("{hash}:{count}\n"))
                .collect();
            prop_assert_eq!(written, expected.lines().count() as u64);
            prop_assert_eq!(String::from_utf8(out).expect("text"), expected);
        }
    }

    #[test]
    fn a_kept_hash_takes_32_bytes() {
        assert_eq!(size_of::<Reverse<Counted>>(), 32);
    }
}
