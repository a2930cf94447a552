//! Draws the counts of hashes from a Pareto distribution: most passwords were seen once or twice, a few of them
//! millions of times.

use rand::{Rng, RngExt as _};
use rand_distr::OpenClosed01;

/// The shape of the distribution.
const SHAPE: f64 = 0.9;

/// A count has at most ten digits.
const COUNT_MAX: u64 = 9_999_999_999;

/// Equal parts of the interval from 0 to 1 for which the count is looked up.
const PARTS: usize = 4096;

/// How far [`f64::powf`] can be from the exact value, with a wide margin. A part whose ends are closer than that to
/// another count is computed.
const POWER_ERROR_MAX: f64 = 1e-9;

/// The distribution. Powers are slow, and 96 of 100 counts follow from the first 12 bits of their random number.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// The count if the random number is in this part, or 0 if it has to be computed. The last part is 1 itself.
    of_part: Vec<u8>,
}

impl Counts {
    pub(super) fn new() -> Self {
        let boundary = |part: usize| part as f64 / PARTS as f64;
        let of_part = |part| {
            let largest = power(boundary(part)) * (1.0 + POWER_ERROR_MAX);
            let smallest = power(boundary(part + 1)) * (1.0 - POWER_ERROR_MAX);
            let count = count_of(largest);
            let is_same = count == count_of(smallest);
            u8::try_from(count).ok().filter(|_| is_same).unwrap_or(0)
        };
        Self {
            of_part: (0..=PARTS).map(of_part).collect(),
        }
    }

    pub(super) fn draw(&self, random: &mut impl Rng) -> u64 {
        let number: f64 = random.sample(OpenClosed01);
        self.of(number)
    }

    fn of(&self, number: f64) -> u64 {
        match self.of_part[(number * PARTS as f64) as usize] {
            0 => count_of(power(number)),
            count => u64::from(count),
        }
    }
}

/// The value of the Pareto distribution for a random number from 0 to 1, as `rand_distr` computes it.
fn power(number: f64) -> f64 {
    number.powf(-1.0 / SHAPE)
}

fn count_of(value: f64) -> u64 {
    (value as u64).clamp(1, COUNT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution as _, Pareto};

    #[test]
    fn counts_are_those_of_the_distribution() {
        let counts = Counts::new();
        let pareto = Pareto::new(1.0, SHAPE).expect("a distribution");
        let mut random = ChaCha8Rng::seed_from_u64(26);
        let mut same = random.clone();
        for _ in 0..1_000_000 {
            let expected = count_of(pareto.sample(&mut same));
            assert_eq!(counts.draw(&mut random), expected);
        }
    }

    #[test]
    fn counts_beside_the_boundaries_of_parts_and_of_counts_are_right() {
        let counts = Counts::new();
        let parts = (1..=PARTS).map(|part| part as f64 / PARTS as f64);
        let thresholds = (1..300).map(|count| f64::from(count).powf(-SHAPE));
        for number in parts.chain(thresholds) {
            for number in [number.next_down(), number, number.next_up().min(1.0)] {
                assert_eq!(counts.of(number), count_of(power(number)), "{number}");
            }
        }
        let smallest = 1.0 / (1_u64 << 53) as f64;
        assert_eq!(counts.of(smallest), COUNT_MAX);
    }

    #[test]
    fn almost_every_count_is_looked_up() {
        let counts = Counts::new();
        let computed = counts.of_part.iter().filter(|&&count| count == 0).count();
        assert!(computed < PARTS / 20, "{computed} parts");
    }
}
