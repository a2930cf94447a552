//! One line of a range: its hash's suffix and its count. Ranges are made while a benchmark runs on the same machine, so
//! lines are sorted and written without an allocation each.

use prefix_tar::protocol::mode::Mode;

/// Characters of the longest suffix.
const SUFFIX_CHARACTERS_MAX: usize = Mode::Sha1.suffix_characters();

/// A line with the largest suffix and the largest count, and what separates it from the next.
pub(super) const LINE_BYTES_MAX: usize =
    SUFFIX_CHARACTERS_MAX + 1 + COUNT_DIGITS_MAX + SEPARATOR.len();

/// Digits of a count.
const COUNT_DIGITS_MAX: usize = 10;

/// What is between two lines.
pub(super) const SEPARATOR: &[u8] = b"\r\n";

/// The values of a suffix's first three characters.
const HIGH_VALUES: usize = 1 << 12;

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// The two hex digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0xF]];
        byte += 1;
    }
    pairs
};

/// A suffix of 140 bits and its count. An NTLM hash uses the first 108 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The first 12 bits of the suffix.
    high: u16,
    /// The other 128 bits.
    low: u128,
    count: u64,
}

impl Line {
    /// A line whose suffix begins with the last 12 bits of `high`.
    pub(super) const fn new(high: u16, low: u128, count: u64) -> Self {
        Self {
            high: high & (HIGH_VALUES as u16 - 1),
            low,
            count,
        }
    }

    /// Writes the line, with a suffix of so many characters, and the separator. Returns how many bytes they have.
    pub(super) fn write<const SUFFIX_CHARACTERS: usize>(
        &self,
        place: &mut [u8; LINE_BYTES_MAX],
    ) -> usize {
        place[0] = DIGITS[usize::from(self.high >> 8)];
        place[1..3].copy_from_slice(&PAIRS[usize::from(self.high & 0xFF)]);
        let (pairs, _) = place[3..SUFFIX_CHARACTERS].as_chunks_mut();
        for (pair, byte) in pairs.iter_mut().zip(self.low.to_be_bytes()) {
            *pair = PAIRS[usize::from(byte)];
        }
        place[SUFFIX_CHARACTERS] = b':';
        let first_digit = SUFFIX_CHARACTERS + 1;
        let digits = self.count.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut rest = self.count;
        for digit in place[first_digit..first_digit + digits].iter_mut().rev() {
            *digit = DIGITS[(rest % 10) as usize];
            rest /= 10;
        }
        let end = first_digit + digits;
        place[end..end + SEPARATOR.len()].copy_from_slice(SEPARATOR);
        end + SEPARATOR.len()
    }
}

/// Sets `order` to the indexes of lines in the order of their suffixes. The first 12 bits of random suffixes put almost
/// every line into its place, which is faster than a comparison sort; an insertion sort does the rest.
pub(super) fn sort(lines: &[Line], order: &mut Vec<u32>) {
    let mut places = [0_u32; HIGH_VALUES];
    for line in lines {
        places[usize::from(line.high)] += 1;
    }
    let mut before = 0;
    for place in &mut places {
        before += std::mem::replace(place, before);
    }
    order.resize(lines.len(), 0);
    for (index, line) in (0..).zip(lines) {
        let place = &mut places[usize::from(line.high)];
        order[*place as usize] = index;
        *place += 1;
    }
    let suffix = |index: u32| {
        let line = &lines[index as usize];
        (line.high, line.low)
    };
    for end in 1..order.len() {
        let index = order[end];
        let mut place = end;
        while place > 0 && suffix(order[place - 1]) > suffix(index) {
            order[place] = order[place - 1];
            place -= 1;
        }
        order[place] = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_the_suffix_in_hex_and_the_count(high: u16, low: u128, count in 0..10_000_000_000_u64) {
            let mut place = [0; LINE_BYTES_MAX];
            let line = Line::new(high, low, count);
            let bytes = line.write::<35>(&mut place);
            let expected = format!("{:03X}{low:032X}:{count}\r\n", high & 0xFFF);
            prop_assert_eq!(String::from_utf8_lossy(&place[..bytes]), expected);
            let bytes = line.write::<27>(&mut place);
            let expected = format!("{:03X}{:024X}:{count}\r\n", high & 0xFFF, low >> 32);
            prop_assert_eq!(String::from_utf8_lossy(&place[..bytes]), expected);
        }

        #[test]
        fn lines_are_sorted_as_by_comparison(suffixes: Vec<(u16, u128)>) {
            let lines: Vec<Line> = suffixes.iter().map(|&(high, low)| Line::new(high % 16, low, 1)).collect();
            let mut expected = suffixes.clone();
            expected.iter_mut().for_each(|(high, _)| *high %= 16);
            expected.sort_unstable();
            let mut order = vec![7; 3];
            sort(&lines, &mut order);
            let sorted: Vec<(u16, u128)> = order
                .iter()
                .map(|&index| &lines[index as usize])
                .map(|line| (line.high, line.low))
                .collect();
            prop_assert_eq!(sorted, expected);
        }
    }
}
