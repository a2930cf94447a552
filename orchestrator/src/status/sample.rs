//! Draws ranges at random, spread as evenly as possible over the prefixes.

use fastrand::Rng;
use prefix_tar::protocol::prefix::{Prefix, RANGES_PER_PREFIX, RangeName};
use std::collections::BTreeSet;

/// Draws `samples` different ranges of these prefixes, or all if there are fewer. Any two prefixes give the same number
/// or one more, and within a prefix every range is as likely as any other.
pub fn draw(prefixes: &BTreeSet<Prefix>, samples: u32, random: &mut Rng) -> Vec<RangeName> {
    let mut prefixes: Vec<Prefix> = prefixes.iter().copied().collect();
    random.shuffle(&mut prefixes);
    let ranges = prefixes.len() * usize::from(RANGES_PER_PREFIX);
    let samples = usize::try_from(samples).map_or(ranges, |samples| samples.min(ranges));
    let (each, one_more) = match prefixes.len() {
        0 => return Vec::new(),
        count => (samples / count, samples % count),
    };
    let mut drawn = Vec::with_capacity(samples);
    for (place, prefix) in prefixes.into_iter().enumerate() {
        let count = each + usize::from(place < one_more);
        let indexes = random.choose_multiple(0..RANGES_PER_PREFIX, count);
        drawn.extend(indexes.into_iter().map(|index| prefix.range(index)));
    }
    // If not all of them can be asked, those that are should not have their prefixes in common.
    random.shuffle(&mut drawn);
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn prefixes() -> impl Strategy<Value = BTreeSet<Prefix>> {
        proptest::collection::btree_set(any::<u8>().prop_map(Prefix::from_number), 0..=256)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_sample_has_different_ranges_spread_evenly_over_the_prefixes(
            prefixes in prefixes(),
            samples in 0_u32..6_000,
            seed in any::<u64>(),
        ) {
            let drawn = draw(&prefixes, samples, &mut Rng::with_seed(seed));
            let all = prefixes.len() * usize::from(RANGES_PER_PREFIX);
            prop_assert_eq!(drawn.len(), all.min(samples as usize));
            let different: BTreeSet<String> = drawn.iter().map(ToString::to_string).collect();
            prop_assert_eq!(different.len(), drawn.len());
            let mut counts: BTreeMap<Prefix, usize> =
                prefixes.iter().map(|prefix| (*prefix, 0)).collect();
            for range in drawn {
                *counts.get_mut(&range.prefix()).expect("a prefix of the archive") += 1;
            }
            let (least, most) = (counts.values().min(), counts.values().max());
            if let (Some(least), Some(most)) = (least, most) {
                prop_assert!(most - least <= 1, "{least} to {most}");
            }
        }
    }

    #[test]
    fn every_draw_is_another_and_reaches_every_part() {
        let prefixes: BTreeSet<Prefix> = Prefix::all().collect();
        let mut random = Rng::with_seed(7);
        let (mut seen, mut indexes, mut draws) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for _ in 0..100 {
            let drawn = draw(&prefixes, 64, &mut random);
            seen.extend(drawn.iter().map(|range| range.prefix()));
            indexes.extend(drawn.iter().map(|range| range.index() / 64));
            draws.insert(format!("{drawn:?}"));
        }
        assert_eq!((seen.len(), indexes.len(), draws.len()), (256, 64, 100));
    }
}
