//! Generates synthetic ranges of realistic size; the same seed gives the same bytes.
//!
//! Every range has a generator of its own, seeded by the seed and the range's name, so no range depends
//! on which others are generated. Suffixes are random and their number is Poisson-distributed, like the
//! number of hashes that share a range. Counts are long-tailed, like the occurrences of
//! passwords.

mod counts;
mod line;

use crate::nt_hash::nt_hash;
use anyhow::Context as _;
use counts::Counts;
use line::{LINE_BYTES_MAX, Line, SEPARATOR, sort};
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::{Prefix, RangeName};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Poisson};
use sha1::{Digest as _, Sha1};
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

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct GeneratorConfig {
    /// The same seed gives the same ranges.
    pub seed: u64,
    /// The mean number of lines in a range.
    pub hashes_per_range: u32,
    /// Which hashes to make.
    pub mode: Mode,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            hashes_per_range: HASHES_PER_RANGE,
            mode: Mode::Sha1,
        }
    }
}

impl GeneratorConfig {
    /// Prepares to generate.
    ///
    /// # Errors
    /// `hashes_per_range` is 0 or above [`HASHES_PER_RANGE_MAX`].
    pub fn generator(self) -> anyhow::Result<Generator> {
        anyhow::ensure!(
            (1..=HASHES_PER_RANGE_MAX).contains(&self.hashes_per_range),
            "hashes per range must be 1 to {HASHES_PER_RANGE_MAX}, not {}",
            self.hashes_per_range
        );
        let lines = Poisson::new(f64::from(self.hashes_per_range));
        Ok(Generator {
            config: self,
            lines: lines.context("a Poisson distribution with that mean")?,
            counts: Counts::new(),
            test_lines: TEST_PASSWORDS
                .map(|(password, count)| test_line(password, count, self.mode)),
        })
    }
}

/// Generates ranges.
#[derive(Clone, Debug)]
pub struct Generator {
    config: GeneratorConfig,
    /// The number of lines of a range.
    lines: Poisson<f64>,
    counts: Counts,
    /// The test passwords, and the numbers of their ranges.
    test_lines: [(u32, Line); TEST_PASSWORDS.len()],
}

impl Generator {
    /// What is generated.
    pub const fn config(&self) -> GeneratorConfig {
        self.config
    }

    /// Makes the body of one range: sorted lines, CRLF between them and none at the end, like the real API's.
    pub fn make(&self, range: RangeName, buffer: &mut RangeBuffer) {
        let mut random = self.random(range);
        let lines = self.lines.sample(&mut random).max(1.0) as usize;
        buffer.lines.clear();
        for _ in 0..lines {
            let (low, high): (u128, u16) = (random.random(), random.random());
            let count = self.counts.draw(&mut random);
            buffer.lines.push(Line::new(high, low, count));
        }
        let number = u32::from(range.prefix().number()) << 12 | u32::from(range.index());
        let test_lines = self.test_lines.iter().filter(|(of, _)| *of == number);
        buffer.lines.extend(test_lines.map(|(_, line)| *line));
        match self.config.mode {
            Mode::Sha1 => buffer.write_lines::<{ Mode::Sha1.suffix_characters() }>(),
            Mode::Ntlm => buffer.write_lines::<{ Mode::Ntlm.suffix_characters() }>(),
        }
    }

    fn random(&self, range: RangeName) -> ChaCha8Rng {
        let mut seed = [0; 32];
        let (seed_part, range_part) = seed.split_at_mut(8);
        seed_part.copy_from_slice(&self.config.seed.to_le_bytes());
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
        let mut buffer = RangeBuffer::default();
        for range in prefix.ranges() {
            let path = folder.join(range.file_name());
            self.make(range, &mut buffer);
            write_whole(&path, buffer.body())
                .with_context(|| format!("cannot write {}", path.display()))?;
            bytes += buffer.body().len() as u64;
        }
        Ok(bytes)
    }
}

/// Memory for one range, to be reused: allocating it for each would take longer than making the range.
#[derive(Debug, Default)]
pub struct RangeBuffer {
    lines: Vec<Line>,
    /// Indexes of the lines in the order of their suffixes.
    order: Vec<u32>,
    /// The body, with room for longer ones after it.
    bytes: Vec<u8>,
    body_bytes: usize,
}

impl RangeBuffer {
    /// The body that was made last.
    pub fn body(&self) -> &[u8] {
        &self.bytes[..self.body_bytes]
    }

    fn write_lines<const SUFFIX_CHARACTERS: usize>(&mut self) {
        sort(&self.lines, &mut self.order);
        let bytes_max = self.lines.len() * LINE_BYTES_MAX;
        if self.bytes.len() < bytes_max {
            self.bytes.resize(bytes_max, 0);
        }
        let mut end = 0;
        for &index in &self.order {
            // There is room for the longest line after any number of lines before it.
            if let Some(place) = self.bytes[end..].first_chunk_mut() {
                end += self.lines[index as usize].write::<SUFFIX_CHARACTERS>(place);
            }
        }
        self.body_bytes = end - SEPARATOR.len();
    }
}

/// The number of a password's range, and its line.
fn test_line(password: &str, count: u64, mode: Mode) -> (u32, Line) {
    let hash: [u8; 20] = match mode {
        Mode::Sha1 => Sha1::digest(password).into(),
        Mode::Ntlm => {
            // A line does not show the bits that a shorter hash lacks.
            let mut padded = [0; 20];
            for (place, byte) in padded.iter_mut().zip(nt_hash(password)) {
                *place = byte;
            }
            padded
        }
    };
    let [a, b, c, d, low @ ..] = hash;
    let high = u32::from_be_bytes([a, b, c, d]);
    let line = Line::new(high as u16, u128::from_be_bytes(low), count);
    (high >> 12, line)
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
    use rand_distr::Pareto;
    use std::collections::BTreeMap;

    fn range(text: &str) -> RangeName {
        text.parse().expect("a range")
    }

    fn generator(seed: u64, hashes_per_range: u32) -> Generator {
        generator_of(Mode::Sha1, seed, hashes_per_range)
    }

    fn generator_of(mode: Mode, seed: u64, hashes_per_range: u32) -> Generator {
        let config = GeneratorConfig {
            seed,
            hashes_per_range,
            mode,
        };
        config.generator().expect("a generator")
    }

    fn hash_of(password: &str, mode: Mode) -> String {
        match mode {
            Mode::Sha1 => hex::encode_upper(Sha1::digest(password)),
            Mode::Ntlm => hex::encode_upper(nt_hash(password)),
        }
    }

    fn test_lines_of(range: RangeName, mode: Mode) -> impl Iterator<Item = (String, u64)> {
        TEST_PASSWORDS
            .into_iter()
            .filter_map(move |(password, count)| {
                let hash = hash_of(password, mode);
                let suffix = hash.strip_prefix(&range.to_string())?;
                Some((suffix.to_owned(), count))
            })
    }

    fn body(generator: &Generator, range: RangeName) -> String {
        let mut buffer = RangeBuffer::default();
        generator.make(range, &mut buffer);
        String::from_utf8(buffer.body().to_vec()).expect("ASCII")
    }

    /// The same range, made in the obvious way. Of SHA-1, it is what version 0.1.0 wrote.
    fn naive(generator: &Generator, range: RangeName) -> String {
        let mut random = generator.random(range);
        let mean = f64::from(generator.config.hashes_per_range);
        let lines = Poisson::new(mean).expect("a distribution");
        let lines = lines.sample(&mut random).max(1.0) as usize;
        let counts = Pareto::new(1.0, 0.9).expect("a distribution");
        let mut hashes: BTreeMap<String, u64> = (0..lines)
            .map(|_| {
                let (low, high): (u128, u16) = (random.random(), random.random());
                let count: f64 = counts.sample(&mut random);
                let suffix = match generator.config.mode {
                    Mode::Sha1 => format!("{:03X}{low:032X}", high & 0xFFF),
                    Mode::Ntlm => format!("{:03X}{:024X}", high & 0xFFF, low >> 32),
                };
                (suffix, (count as u64).clamp(1, 9_999_999_999))
            })
            .collect();
        hashes.extend(test_lines_of(range, generator.config.mode));
        let lines: Vec<String> = hashes
            .iter()
            .map(|(suffix, count)| format!("{suffix}:{count}"))
            .collect();
        lines.join("\r\n")
    }

    #[test]
    fn the_bytes_of_a_seed_stay_what_they_are() {
        let tests = |mode| {
            TEST_PASSWORDS.map(|(password, _)| {
                let hash = hash_of(password, mode);
                range(&hash[..5])
            })
        };
        for (seed, mean, mode) in [
            (1, HASHES_PER_RANGE, Mode::Sha1),
            (u64::MAX, 12, Mode::Sha1),
            (7, 3, Mode::Sha1),
            (26, 6_000, Mode::Sha1),
            (1, HASHES_PER_RANGE, Mode::Ntlm),
            (7, 3, Mode::Ntlm),
        ] {
            let generator = generator_of(mode, seed, mean);
            let ranges = Prefix::from_number(7).ranges().step_by(64);
            let mut buffer = RangeBuffer::default();
            for range in ranges.chain(tests(mode)) {
                generator.make(range, &mut buffer);
                let expected = naive(&generator, range);
                assert!(
                    buffer.body() == expected.as_bytes(),
                    "{range} of seed {seed}, {mode}"
                );
            }
        }
    }

    #[test]
    fn every_range_is_valid_and_has_a_realistic_size() {
        for (mode, sizes) in [(Mode::Sha1, 72_000..78_000), (Mode::Ntlm, 56_000..62_000)] {
            let generator = generator_of(mode, 1, HASHES_PER_RANGE);
            let mut bytes = 0;
            for range in Prefix::from_number(7).ranges().take(200) {
                let body = body(&generator, range);
                let mut check = RangeCheck::new(mode);
                check.push(body.as_bytes()).expect("valid");
                let hashes = check.finish().expect("valid");
                assert!((1_700..2_200).contains(&hashes), "{hashes} lines");
                bytes += body.len();
            }
            assert!(sizes.contains(&(bytes / 200)), "{mode}: {bytes}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_range_and_another_seed_another() {
        let body = |seed| body(&generator(seed, 20), range("AB7FF"));
        assert_eq!(body(1), body(1));
        assert_ne!(body(1), body(2));
    }

    #[test]
    fn a_look_up_finds_the_test_passwords() {
        for mode in Mode::ALL {
            for (password, count) in TEST_PASSWORDS {
                let hash = hash_of(password, mode);
                let (prefix, suffix) = hash.split_at(5);
                let body = body(&generator_of(mode, 1, HASHES_PER_RANGE), range(prefix));
                let line = format!("{suffix}:{count}");
                let is_found = body.split("\r\n").any(|found| found == line);
                assert!(is_found, "{password}, {mode}");
            }
        }
    }

    #[test]
    fn the_largest_mean_stays_below_the_longest_range() {
        let body = body(&generator(3, HASHES_PER_RANGE_MAX), range("00000"));
        assert!(body.len() <= prefix_tar::limits::RANGE_BYTES_MAX);
        let none = GeneratorConfig {
            seed: 3,
            hashes_per_range: 0,
            mode: Mode::Sha1,
        };
        assert!(none.generator().is_err());
    }
}
