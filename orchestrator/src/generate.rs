//! Generates synthetic ranges of realistic size; the same seed gives the same bytes.
//!
//! Every range has a generator of its own, seeded by the seed and the range's name, so no range depends
//! on which others are generated. Suffixes are random and their number is Poisson-distributed, like the
//! number of SHA-1 hashes that share a range. Counts are long-tailed, like the occurrences of
//! passwords.

use anyhow::Context as _;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Pareto, Poisson};
use sha1::{Digest as _, Sha1};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// Lines per range by default: about 75 KB, as in the real API in 2026. A line has about 39 bytes.
pub const HASHES_PER_RANGE: u32 = 1_950;

/// The largest mean of lines per range: 256 KiB hold about 6,500, and the Poisson distribution needs
/// room above its mean.
pub const HASHES_PER_RANGE_MAX: u32 = 6_000;

/// Passwords and their counts. Each is in its range whenever that range is generated, so look-ups
/// can be tested.
pub const TEST_PASSWORDS: [(&str, u64); 6] = [
    ("123456", 42_542_807),
    ("password", 10_434_004),
    ("correct horse battery staple", 384),
    ("hunter2", 29_218),
    ("prefix-tar", 7),
    ("prefix-tar-26", 1),
];

/// The shape of the counts' tail: most passwords were seen once or twice, a few of them millions of times.
const COUNT_SHAPE: f64 = 0.9;

/// A count has at most ten digits.
const COUNT_MAX: u64 = 9_999_999_999;

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct GeneratorConfig {
    /// The same seed gives the same ranges.
    pub seed: u64,
    /// The mean number of lines in a range.
    pub hashes_per_range: u32,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            hashes_per_range: HASHES_PER_RANGE,
        }
    }
}

impl GeneratorConfig {
    /// The body of one range: sorted lines, CRLF between them and none at the end, like the real API's.
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

    /// Writes the 4,096 ranges of a prefix into `folder`; a file appears only when it is whole. Returns
    /// their size in bytes.
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
        // The first error matters. A partial file that cannot be removed, either, has to stay.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use prefix_tar::engine::range_body::RangeCheck;

    fn range(text: &str) -> RangeName {
        text.parse().expect("a range")
    }

    #[test]
    fn every_range_is_valid_and_has_a_realistic_size() {
        let config = GeneratorConfig::default();
        let mut bytes = 0;
        for range in Prefix::from_number(7).ranges().take(200) {
            let body = config.range(range).expect("a body");
            let mut check = RangeCheck::new();
            check.push(body.as_bytes()).expect("valid");
            let hashes = check.finish().expect("valid");
            assert!((1_700..2_200).contains(&hashes), "{hashes} lines");
            bytes += body.len();
        }
        assert!((72_000..78_000).contains(&(bytes / 200)), "{bytes}");
    }

    #[test]
    fn the_same_seed_gives_the_same_range_and_another_seed_another() {
        let body = |seed| {
            let config = GeneratorConfig {
                seed,
                hashes_per_range: 20,
            };
            config.range(range("AB7FF")).expect("a body")
        };
        assert_eq!(body(1), body(1));
        assert_ne!(body(1), body(2));
    }

    #[test]
    fn a_look_up_finds_the_test_passwords() {
        for (password, count) in TEST_PASSWORDS {
            let hash = hex::encode_upper(Sha1::digest(password));
            let (prefix, suffix) = hash.split_at(5);
            let body = GeneratorConfig::default()
                .range(range(prefix))
                .expect("a body");
            assert!(
                body.split("\r\n")
                    .any(|line| line == format!("{suffix}:{count}")),
                "{password}"
            );
        }
    }

    #[test]
    fn the_largest_mean_stays_below_the_longest_range() {
        let config = GeneratorConfig {
            seed: 3,
            hashes_per_range: HASHES_PER_RANGE_MAX,
        };
        let body = config.range(range("00000")).expect("a body");
        assert!(body.len() <= prefix_tar::limits::RANGE_BYTES_MAX);
        assert!(
            GeneratorConfig {
                seed: 3,
                hashes_per_range: 0
            }
            .range(range("00000"))
            .is_err()
        );
    }
}
