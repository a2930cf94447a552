//! The lines of a body that is known to be valid, and the hashes that they stand for.

use prefix_tar::engine::range_body::SUFFIX_BYTES;
use prefix_tar::protocol::prefix::RangeName;

/// Bytes of a SHA-1.
pub const HASH_BYTES: usize = 20;

/// One line of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'body> {
    /// `SUFFIX:COUNT`, without the line's end.
    pub text: &'body [u8],
    /// The hash without its range.
    pub suffix: &'body [u8; SUFFIX_BYTES],
    /// The count's digits.
    digits: &'body [u8],
}

impl Line<'_> {
    /// How often the hash occurs.
    pub fn count(&self) -> u64 {
        // Ten digits, which a valid line has at most, do not overflow.
        (self.digits.iter()).fold(0, |count, digit| count * 10 + u64::from(digit & 0xF))
    }
}

/// The lines of a valid body.
pub fn lines(body: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (suffix, after_suffix) = rest.split_first_chunk()?;
        let digits = after_suffix.get(1..)?;
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let (digits, after) = digits.split_at(count.count());
        let text = rest.get(..SUFFIX_BYTES + 1 + digits.len())?;
        rest = after.get(b"\r\n".len()..).unwrap_or_default();
        Some(Line {
            text,
            suffix,
            digits,
        })
    })
}

/// The whole hash of a line.
pub fn hash(range: RangeName, suffix: &[u8; SUFFIX_BYTES]) -> [u8; HASH_BYTES] {
    let number = number_of(range);
    let mut hash = [0; HASH_BYTES];
    let [first, second, third, others @ ..] = &mut hash;
    *first = (number >> 12) as u8;
    *second = (number >> 4) as u8;
    *third = (number << 4) as u8 | value(suffix[0]);
    let (pairs, _) = suffix[1..].as_chunks();
    for (byte, [high, low]) in others.iter_mut().zip(pairs) {
        *byte = value(*high) << 4 | value(*low);
    }
    hash
}

/// The first 64 bits of a line's hash: those of the range, and 11 characters of the suffix.
pub fn first_64_bits(range: RangeName, suffix: &[u8; SUFFIX_BYTES]) -> u64 {
    let characters = suffix.iter().take(11);
    characters.fold(u64::from(number_of(range)), |bits, digit| {
        bits << 4 | u64::from(value(*digit))
    })
}

/// The range's 20 bits as a number.
fn number_of(range: RangeName) -> u32 {
    u32::from(range.prefix().number()) << 12 | u32::from(range.index())
}

/// The value of an upper-case hex digit.
const fn value(digit: u8) -> u8 {
    // The low four bits of `A` are 1.
    (digit & 0xF) + 9 * (digit >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_those_of_the_text_with_and_without_a_line_end_at_the_end(
            entries in proptest::collection::vec(("[0-9A-F]{35}", 1_u64..=9_999_999_999), 0..20),
            ended in any::<bool>(),
        ) {
            let texts: Vec<String> =
                entries.iter().map(|(suffix, count)| format!("{suffix}:{count}")).collect();
            let mut body = texts.join("\r\n");
            if ended && !body.is_empty() {
                body += "\r\n";
            }
            let found: Vec<Line<'_>> = lines(body.as_bytes()).collect();
            prop_assert_eq!(found.len(), entries.len());
            for (line, ((suffix, count), text)) in found.iter().zip(entries.iter().zip(&texts)) {
                prop_assert_eq!(line.suffix, suffix.as_bytes());
                prop_assert_eq!(line.count(), *count);
                prop_assert_eq!(line.text, text.as_bytes());
            }
        }

        #[test]
        fn a_hash_is_its_range_and_its_suffix(bytes in any::<[u8; HASH_BYTES]>()) {
            let text = hex::encode_upper(bytes);
            let range = text[..5].parse().expect("a range");
            let suffix = text.as_bytes()[5..].try_into().expect("a suffix");
            prop_assert_eq!(hash(range, &suffix), bytes);
            let first = u64::from_str_radix(&text[..16], 16).expect("a number");
            prop_assert_eq!(first_64_bits(range, &suffix), first);
        }

        #[test]
        fn any_bytes_end_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(lines(&body).count() <= body.len());
        }
    }
}
