//! Pads a body with lines of hashes that do not exist, so that its length says less about its range.

use prefix_tar::protocol::mode::Mode;
use rand::RngExt as _;
use std::ops::RangeInclusive;

/// How many lines are added. The public API's own code draws from the same numbers.
const LINES: RangeInclusive<usize> = 10..=209;

/// The hex characters of the longest suffix.
const SUFFIX_CHARACTERS_MAX: usize = Mode::Sha1.suffix_characters();

/// The digits of a suffix.
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Separates lines. None follows the last.
const SEPARATOR: &[u8] = b"\r\n";

/// Nobody has used such a password, so clients ignore the line.
const COUNT: &[u8] = b":0";

/// The body with random lines after its own. Their number comes from a generator for cryptography: a client must not
/// be able to predict how much another one gets.
pub(super) fn padded(body: &[u8], mode: Mode) -> Vec<u8> {
    let suffix_characters = mode.suffix_characters();
    let line_bytes = SEPARATOR.len() + suffix_characters + COUNT.len();
    let mut random = rand::rng();
    let lines = random.random_range(LINES);
    let mut padded = Vec::with_capacity(body.len() + lines * line_bytes);
    padded.extend_from_slice(body);
    for _ in 0..lines {
        if !padded.is_empty() {
            padded.extend_from_slice(SEPARATOR);
        }
        let suffix: [u8; SUFFIX_CHARACTERS_MAX.div_ceil(2)] = random.random();
        let digits = suffix.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
        let digits = digits.map(|digit| HEX[usize::from(digit)]);
        padded.extend(digits.take(suffix_characters));
        padded.extend_from_slice(COUNT);
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const BODY: &str =
        "0018A45C4D1DEF81644B54AB7F969B88D65:1\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:2";

    /// The lines that were added, by clients' rule: what CRLF separates.
    fn added(body: &str, mode: Mode) -> Vec<String> {
        let text = String::from_utf8(padded(body.as_bytes(), mode)).expect("text");
        let lines: Vec<_> = text
            .strip_prefix(body)
            .expect("the body")
            .split("\r\n")
            .collect();
        let skipped = usize::from(!body.is_empty());
        lines.into_iter().skip(skipped).map(str::to_owned).collect()
    }

    #[test]
    fn the_added_lines_are_suffixes_with_a_count_of_zero() {
        for mode in Mode::ALL.into_iter().cycle().take(100) {
            let lines = added(BODY, mode);
            assert!(LINES.contains(&lines.len()), "{}", lines.len());
            for line in &lines {
                let (suffix, count) = line.split_once(':').expect("two parts");
                assert_eq!((suffix.len(), count), (mode.suffix_characters(), "0"));
                let is_upper_hex = |byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
                assert!(suffix.bytes().all(is_upper_hex), "{suffix}");
            }
            let different: BTreeSet<_> = lines.iter().collect();
            assert_eq!(different.len(), lines.len());
        }
    }

    #[test]
    fn the_number_of_lines_varies_over_all_that_are_allowed() {
        let counts: BTreeSet<usize> = (0..2000).map(|_| added(BODY, Mode::Sha1).len()).collect();
        assert!(counts.len() > 150, "{counts:?}");
    }

    #[test]
    fn every_character_of_a_suffix_is_random() {
        for mode in Mode::ALL {
            let lines = added("", mode);
            assert!(LINES.contains(&lines.len()));
            for at in 0..mode.suffix_characters() {
                let seen: BTreeSet<u8> = lines.iter().map(|line| line.as_bytes()[at]).collect();
                assert!(seen.len() > 1, "character {at} is always the same");
            }
        }
    }
}
