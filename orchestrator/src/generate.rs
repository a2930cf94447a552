//! Synthetic ranges: valid bodies of realistic sizes, the same for the same seed.
//! Serving them is `range_api`'s business.
//!
//! Every range has its own generator, seeded by the seed and the range, so a range does not depend on which
//! others are generated. Suffixes are random; how many there are is Poisson-distributed, as the number of
//! SHA-1s that begin alike is. Counts are long-tailed, as occurrences of passwords are.

use anyhow::Context as _;
use prefix_tar::prefix::{Prefix, RangeName};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Pareto, Poisson};
use sha1::{Digest as _, Sha1};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// Lines per range by default: with about 40 bytes a line, about 32 KB, as the real API had in 2023.
pub const HASHES_PER_RANGE: u32 = 800;

/// The most lines per range that can be asked for: 256 KiB holds about 6,500, and Poisson needs room above.
pub const HASHES_PER_RANGE_MAX: u32 = 6_000;

/// Passwords that are in the generated ranges, where their range is generated, with these counts:
/// so a look-up can be shown.
pub const TEST_PASSWORDS: [(&str, u64); 6] = [
    ("123456", 42_542_807),
    ("password", 10_434_004),
    ("correct horse battery staple", 384),
    ("hunter2", 29_218),
    ("prefix-tar", 7),
    ("prefix-tar-26", 1),
];

/// The shape of the counts' tail. Most passwords were seen once or twice, a few millions of times.
const COUNT_SHAPE: f64 = 0.9;

/// A count has at most ten digits.
const COUNT_MAX: u64 = 9_999_999_999;

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The same seed gives the same ranges.
    pub seed: u64,
    /// The mean number of lines in a range.
    pub hashes_per_range: u32,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 1,
            hashes_per_range: HASHES_PER_RANGE,
        }
    }
}

impl Recipe {
    /// The body of one range: sorted lines, CRLF between them and none at the end, as the real API's.
    ///
    /// # Errors
    /// `hashes_per_range` is 0 or above [`HASHES_PER_RANGE_MAX`].
    pub fn range(&self, range: RangeName) -> anyhow::Result<String> {
        anyhow::ensure!(
            (1..=HASHES_PER_RANGE_MAX).contains(&self.hashes_per_range),
            "hashes per range must be 1 to {HASHES_PER_RANGE_MAX}, not {}",
            self.hashes_per_range
        );
        let mut random = self.random(range);
        let lines = Poisson::new(f64::from(self.hashes_per_range))
            .context("a Poisson distribution with that mean")?
            .sample(&mut random)
            .max(1.0) as usize;
        let counts = Pareto::new(1.0, COUNT_SHAPE).context("a distribution of counts")?;
        let mut hashes: BTreeMap<String, u64> = (0..lines)
            .map(|_| {
                let (low, high): (u128, u16) = (random.random(), random.random());
                let suffix = format!("{:03X}{low:032X}", high & 0xFFF);
                let count = (counts.sample(&mut random) as u64).clamp(1, COUNT_MAX);
                (suffix, count)
            })
            .collect();
        hashes.extend(TEST_PASSWORDS.iter().filter_map(|(password, count)| {
            let hash = hex::encode_upper(Sha1::digest(password));
            let suffix = hash.strip_prefix(&range.to_string())?;
            Some((suffix.to_owned(), *count))
        }));
        let lines: Vec<String> = hashes
            .iter()
            .map(|(suffix, count)| format!("{suffix}:{count}"))
            .collect();
        Ok(lines.join("\r\n"))
    }

    fn random(&self, range: RangeName) -> ChaCha8Rng {
        let mut seed = [0; 32];
        let (seed_part, range_part) = seed.split_at_mut(8);
        seed_part.copy_from_slice(&self.seed.to_le_bytes());
        for (place, byte) in range_part.iter_mut().zip(range.to_string().bytes()) {
            *place = byte;
        }
        ChaCha8Rng::from_seed(seed)
    }

    /// Writes the 4,096 ranges of a prefix into `folder`, each to a file that is there only when it is whole.
    /// Answers their size in bytes.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_prefix(&self, prefix: Prefix, folder: &Path) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for range in prefix.ranges() {
            let path = folder.join(range.file_name());
            let body = self.range(range)?;
            write_whole(&path, body.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            bytes += body.len() as u64;
        }
        Ok(bytes)
    }
}

fn write_whole(path: &Path, body: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let written = std::fs::File::create(&partial)
        .and_then(|mut file| file.write_all(body))
        .and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // The error that matters is the one above; what cannot be removed cannot be helped either.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use prefix_tar::range_body::RangeCheck;

    fn range(text: &str) -> RangeName {
        text.parse().expect("a range")
    }

    #[test]
    fn every_range_is_valid_and_about_as_large_as_the_real_ones() {
        let recipe = Recipe::default();
        let mut bytes = 0;
        for range in Prefix::from_number(7).ranges().take(200) {
            let body = recipe.range(range).expect("a body");
            let mut check = RangeCheck::new();
            check.push(body.as_bytes()).expect("valid");
            let hashes = check.finish().expect("valid");
            assert!((650..950).contains(&hashes), "{hashes} lines");
            bytes += body.len();
        }
        assert!((29_000..35_000).contains(&(bytes / 200)), "{bytes}");
    }

    #[test]
    fn the_same_seed_gives_the_same_range_and_another_one_another() {
        let body = |seed| {
            let recipe = Recipe {
                seed,
                hashes_per_range: 20,
            };
            recipe.range(range("AB7FF")).expect("a body")
        };
        assert_eq!(body(1), body(1));
        assert_ne!(body(1), body(2));
    }

    #[test]
    fn the_test_passwords_are_where_a_look_up_finds_them() {
        for (password, count) in TEST_PASSWORDS {
            let hash = hex::encode_upper(Sha1::digest(password));
            let (prefix, suffix) = hash.split_at(5);
            let body = Recipe::default().range(range(prefix)).expect("a body");
            assert!(
                body.split("\r\n")
                    .any(|line| line == format!("{suffix}:{count}")),
                "{password}"
            );
        }
    }

    #[test]
    fn the_largest_recipe_stays_within_what_a_range_may_have() {
        let recipe = Recipe {
            seed: 3,
            hashes_per_range: HASHES_PER_RANGE_MAX,
        };
        let body = recipe.range(range("00000")).expect("a body");
        assert!(body.len() <= prefix_tar::limits::RANGE_BYTES_MAX);
        assert!(
            Recipe {
                seed: 3,
                hashes_per_range: 0
            }
            .range(range("00000"))
            .is_err()
        );
    }
}
