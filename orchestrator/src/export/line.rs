//! The lines of a body that is known to be valid, and the hashes that they stand for.

use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RangeName;

/// Bytes of the longest hash, a SHA-1.
pub const HASH_BYTES_MAX: usize = Mode::Sha1.hash_bytes();

/// One line of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'body> {
    /// `SUFFIX:COUNT`, without the line's end.
    pub text: &'body [u8],
    /// The hash without its range.
    pub suffix: &'body [u8],
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

/// The lines of a body that is valid in `mode`.
pub fn lines(body: &[u8], mode: Mode) -> impl Iterator<Item = Line<'_>> {
    let suffix_characters = mode.suffix_characters();
    let mut rest = body;
    std::iter::from_fn(move || {
        let (suffix, after_suffix) = rest.split_at_checked(suffix_characters)?;
        let digits = after_suffix.get(1..)?;
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let (digits, after) = digits.split_at(count.count());
        let text = rest.get(..suffix_characters + 1 + digits.len())?;
        rest = after.get(b"\r\n".len()..).unwrap_or_default();
        Some(Line {
            text,
            suffix,
            digits,
        })
    })
}

/// The whole hash of a line. What a shorter one leaves is 0.
pub fn hash(range: RangeName, suffix: &[u8]) -> [u8; HASH_BYTES_MAX] {
    let number = number_of(range);
    let mut hash = [0; HASH_BYTES_MAX];
    let Some((high, low)) = suffix.split_first() else {
        return hash;
    };
    let [first, second, third, others @ ..] = &mut hash;
    *first = (number >> 12) as u8;
    *second = (number >> 4) as u8;
    *third = (number << 4) as u8 | value(*high);
    let (pairs, _) = low.as_chunks();
    for (byte, [high, low]) in others.iter_mut().zip(pairs) {
        *byte = value(*high) << 4 | value(*low);
    }
    hash
}

/// The first 64 bits of a line's hash: those of the range, and 11 characters of the suffix.
pub fn first_64_bits(range: RangeName, suffix: &[u8]) -> u64 {
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

    /// A mode, and lines of its hashes.
    fn entries() -> impl Strategy<Value = (Mode, Vec<(String, u64)>)> {
        let of = |mode: Mode, suffix| {
            let entry = (suffix, 1_u64..=9_999_999_999);
            proptest::collection::vec(entry, 0..20).prop_map(move |entries| (mode, entries))
        };
        prop_oneof![
            of(Mode::Sha1, "[0-9A-F]{35}"),
            of(Mode::Ntlm, "[0-9A-F]{27}")
        ]
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_text_with_and_without_a_line_end_at_the_end(
            (mode, entries) in entries(),
            ended in any::<bool>(),
        ) {
            let texts: Vec<String> =
                entries.iter().map(|(suffix, count)| format!("{suffix}:{count}")).collect();
            let mut body = texts.join("\r\n");
            if ended && !body.is_empty() {
                body += "\r\n";
            }
            let found: Vec<Line<'_>> = lines(body.as_bytes(), mode).collect();
            prop_assert_eq!(found.len(), entries.len());
            for (line, ((suffix, count), text)) in found.iter().zip(entries.iter().zip(&texts)) {
                prop_assert_eq!(line.suffix, suffix.as_bytes());
                prop_assert_eq!(line.count(), *count);
                prop_assert_eq!(line.text, text.as_bytes());
            }
        }

        #[test]
        fn a_hash_is_its_range_and_its_suffix(bytes in any::<[u8; HASH_BYTES_MAX]>()) {
            for mode in Mode::ALL {
                let bytes = &bytes[..mode.hash_bytes()];
                let text = hex::encode_upper(bytes);
                let range = text[..5].parse().expect("a range");
                let suffix = &text.as_bytes()[5..];
                let found = hash(range, suffix);
                prop_assert_eq!(&found[..bytes.len()], bytes);
                prop_assert!(found[bytes.len()..].iter().all(|byte| *byte == 0));
                let first = u64::from_str_radix(&text[..16], 16).expect("a number");
                prop_assert_eq!(first_64_bits(range, suffix), first);
            }
        }

        #[test]
        fn any_bytes_end_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for mode in Mode::ALL {
                prop_assert!(lines(&body, mode).count() <= body.len());
            }
        }
    }
}
