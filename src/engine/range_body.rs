//! Validates a range body line by line.
//!
//! A body consists of lines of `SUFFIX:COUNT`: upper-case hex characters, 35 of a SHA-1 or 27 of an
//! NTLM hash, a colon, a decimal count from 1, CRLF. The suffixes strictly increase. The last line may
//! lack its CRLF, as in the public API. A count of 0 is padding from `Add-Padding`, so such a body is
//! not the range itself.
//!
//! The check accepts pieces of any size. It runs at memory speed, since all of the corpus passes
//! through it. Therefore the compiler knows the length of a suffix.

use crate::protocol::mode::Mode;

/// Digits of a count. No hash in the corpus occurs 10^10 times.
pub const COUNT_DIGITS_MAX: usize = 10;

const SHA1_SUFFIX_BYTES: usize = Mode::Sha1.suffix_characters();
const NTLM_SUFFIX_BYTES: usize = Mode::Ntlm.suffix_characters();

/// The longest line of any mode.
const CARRY_BYTES: usize = line_bytes_max(Mode::Sha1);

const _: () = assert!(line_bytes_max(Mode::Ntlm) <= CARRY_BYTES);

/// The longest line: suffix, colon, count, CRLF.
pub const fn line_bytes_max(mode: Mode) -> usize {
    mode.suffix_characters() + 1 + COUNT_DIGITS_MAX + 2
}

/// The shortest line: suffix, colon, one digit, CRLF.
pub const fn line_bytes_min(mode: Mode) -> usize {
    mode.suffix_characters() + 4
}

/// The shortest body, which is also the shortest line that can end one: suffix, colon, one digit.
pub const fn body_bytes_min(mode: Mode) -> usize {
    mode.suffix_characters() + 2
}

/// A fault in a body, and the line it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {fault}")]
pub struct RangeBodyError {
    /// The line's number, from 1.
    pub line: u64,
    /// The fault.
    pub fault: LineFault,
}

/// A fault in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// The body is empty.
    #[error("is missing: the body is empty")]
    Empty,
    /// The line does not begin with so many upper-case hex characters.
    #[error("does not begin with {0} upper-case hex characters")]
    Suffix(usize),
    /// The suffix has the length of another mode's.
    #[error("is of a range of {} hashes", .0.hash_name())]
    OtherMode(Mode),
    /// No colon after the suffix.
    #[error("has no colon after its suffix")]
    Colon,
    /// The count is missing, has a leading zero, is 0 or has more than ten digits.
    #[error("has no decimal count from 1 to 9999999999 after its colon")]
    Count,
    /// The line does not end in CRLF.
    #[error("does not end in CRLF")]
    LineEnd,
    /// The suffix is not greater than the previous one: unsorted or repeated.
    #[error("is not in strictly increasing order")]
    Order,
    /// The body ends inside the line.
    #[error("is cut off by the end of the body")]
    Truncated,
}

/// Checks one body, piece by piece.
///
/// ```
/// use prefix_tar::engine::range_body::RangeCheck;
/// use prefix_tar::protocol::mode::Mode;
///
/// let mut check = RangeCheck::new(Mode::Sha1);
/// check.push(b"0018A45C4D1DEF81644B54AB7F969B88D65:10\r\n00D4F6E8FA6EECAD2A3AA").unwrap();
/// check.push(b"415EEC418D38EC:2").unwrap();
/// assert_eq!(check.finish(), Ok(2));
/// ```
#[derive(Debug)]
pub struct RangeCheck(Lines);

/// The lines of one body, with suffixes of a length that the compiler knows.
#[derive(Debug)]
enum Lines {
    Sha1(LineCheck<SHA1_SUFFIX_BYTES>),
    Ntlm(LineCheck<NTLM_SUFFIX_BYTES>),
}

impl RangeCheck {
    /// A check of a new body.
    pub const fn new(mode: Mode) -> Self {
        Self(match mode {
            Mode::Sha1 => Lines::Sha1(LineCheck::new(mode)),
            Mode::Ntlm => Lines::Ntlm(LineCheck::new(mode)),
        })
    }

    /// Checks the next piece of the body.
    ///
    /// # Errors
    /// The first invalid line. The check must not be used after that.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), RangeBodyError> {
        match &mut self.0 {
            Lines::Sha1(lines) => lines.push(piece),
            Lines::Ntlm(lines) => lines.push(piece),
        }
    }

    /// Ends the body and returns its number of lines (hashes).
    ///
    /// # Errors
    /// The body is empty, or its last line is invalid or incomplete.
    pub fn finish(self) -> Result<u64, RangeBodyError> {
        match self.0 {
            Lines::Sha1(lines) => lines.finish(),
            Lines::Ntlm(lines) => lines.finish(),
        }
    }
}

/// A check of lines whose suffixes have `SUFFIX_BYTES` characters.
#[derive(Debug)]
struct LineCheck<const SUFFIX_BYTES: usize> {
    mode: Mode,
    previous: [u8; SUFFIX_BYTES],
    carry: [u8; CARRY_BYTES],
    carry_bytes: usize,
    hashes: u64,
}

impl<const SUFFIX_BYTES: usize> LineCheck<SUFFIX_BYTES> {
    /// The longest line.
    const LINE_BYTES_MAX: usize = SUFFIX_BYTES + 1 + COUNT_DIGITS_MAX + 2;

    const fn new(mode: Mode) -> Self {
        Self {
            mode,
            previous: [0; SUFFIX_BYTES],
            carry: [0; CARRY_BYTES],
            carry_bytes: 0,
            hashes: 0,
        }
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), RangeBodyError> {
        let piece = self.complete_carried_line(piece)?;
        let rest = self.check_lines(piece)?;
        // A line that is incomplete at the maximum length is invalid, whatever follows.
        let Some(carry) = self
            .carry
            .get_mut(..rest.len())
            .filter(|carry| carry.len() < Self::LINE_BYTES_MAX)
        else {
            return Err(self.fault(line_fault(rest, self.mode)));
        };
        if !rest.is_empty() {
            carry.copy_from_slice(rest);
            self.carry_bytes = rest.len();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64, RangeBodyError> {
        if self.carry_bytes > 0 {
            self.check_last_line()?;
        }
        if self.hashes == 0 {
            return Err(self.fault(LineFault::Empty));
        }
        Ok(self.hashes)
    }

    const fn fault(&self, fault: LineFault) -> RangeBodyError {
        RangeBodyError {
            line: self.hashes + 1,
            fault,
        }
    }

    /// Completes the carried line with the beginning of `piece`; returns the rest of `piece`.
    fn complete_carried_line<'piece>(
        &mut self,
        piece: &'piece [u8],
    ) -> Result<&'piece [u8], RangeBodyError> {
        if self.carry_bytes == 0 {
            return Ok(piece);
        }
        let room = Self::LINE_BYTES_MAX - self.carry_bytes;
        let candidate = piece.get(..room).unwrap_or(piece);
        let (taken, ends) = match candidate.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (candidate.len(), false),
        };
        let (head, rest) = piece.split_at(taken);
        let filled = self.carry_bytes + taken;
        if let Some(free) = self.carry.get_mut(self.carry_bytes..filled) {
            free.copy_from_slice(head);
        }
        self.carry_bytes = filled;
        if ends {
            let line = self.carry;
            let line = line.get(..filled).unwrap_or(&line);
            self.carry_bytes = 0;
            if !self.check_lines(line)?.is_empty() {
                return Err(self.fault(line_fault(line, self.mode)));
            }
        } else if filled == Self::LINE_BYTES_MAX {
            let line = self.carry.get(..filled).unwrap_or(&self.carry);
            return Err(self.fault(line_fault(line, self.mode)));
        }
        Ok(rest)
    }

    /// Checks the complete lines at the beginning of `bytes`; returns the rest, an incomplete line.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    fn check_lines<'bytes>(
        &mut self,
        mut bytes: &'bytes [u8],
    ) -> Result<&'bytes [u8], RangeBodyError> {
        loop {
            bytes = self.skip_valid_lines(bytes);
            let Some((suffix, after_suffix)) = bytes.split_first_chunk::<SUFFIX_BYTES>() else {
                return Ok(bytes);
            };
            let Some(end) = count_end(after_suffix) else {
                // The line is incomplete or invalid. The caller has the context to decide.
                return Ok(bytes);
            };
            if !is_upper_hex(suffix) {
                return Err(self.fault(line_fault(bytes, self.mode)));
            }
            if !is_greater(suffix, &self.previous) && self.hashes > 0 {
                return Err(self.fault(LineFault::Order));
            }
            self.previous = *suffix;
            self.hashes += 1;
            bytes = after_suffix.get(end..).unwrap_or_default();
        }
    }

    /// Skips valid lines at the beginning of `bytes`; returns the rest. It stops at the first line
    /// that is invalid, the first of the body, longer than usual or close to the end.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    fn skip_valid_lines<'bytes>(&mut self, mut bytes: &'bytes [u8]) -> &'bytes [u8] {
        if self.hashes == 0 {
            return bytes;
        }
        let mut previous = &self.previous;
        let mut hashes = self.hashes;
        while let Some((suffix, after_suffix)) = bytes.split_first_chunk::<SUFFIX_BYTES>() {
            let Some(([b':', window @ ..], _)) = after_suffix.split_first_chunk::<9>() else {
                break;
            };
            let Some(digits) = short_count_digits(*window) else {
                break;
            };
            if !is_upper_hex(suffix) || !is_greater(suffix, previous) {
                break;
            }
            previous = suffix;
            hashes += 1;
            bytes = &after_suffix[1 + digits + 2..];
        }
        let previous = *previous;
        self.previous = previous;
        self.hashes = hashes;
        bytes
    }

    fn check_last_line(&mut self) -> Result<(), RangeBodyError> {
        let mut line = [0; CARRY_BYTES + 2];
        let carried = self.carry;
        let carried = carried.get(..self.carry_bytes).unwrap_or(&carried);
        let is_cut = !carried.contains(&b'\n')
            && (carried.len() < body_bytes_min(self.mode) || carried.ends_with(b"\r"));
        let with_end = carried.len() + 2;
        if let Some(copy) = line.get_mut(..carried.len()) {
            copy.copy_from_slice(carried);
        }
        if let Some(end) = line.get_mut(carried.len()..with_end) {
            end.copy_from_slice(b"\r\n");
        }
        let line = line.get(..with_end).unwrap_or(&line);
        match self.check_lines(line)? {
            [] => Ok(()),
            _ => Err(self.fault(match line_fault(carried, self.mode) {
                LineFault::LineEnd | LineFault::Colon | LineFault::Count if is_cut => {
                    LineFault::Truncated
                }
                fault => fault,
            })),
        }
    }
}

/// The end of the line in the bytes after its suffix; `None` unless they start with `:COUNT` and
/// CRLF.
#[inline]
fn count_end(after_suffix: &[u8]) -> Option<usize> {
    let (b':', digits) = after_suffix.split_first()? else {
        return None;
    };
    if !matches!(digits.first()?, b'1'..=b'9') {
        return None;
    }
    let mut count = 1;
    while count <= COUNT_DIGITS_MAX {
        match digits.get(count)? {
            b'0'..=b'9' => count += 1,
            b'\r' if digits.get(count + 1) == Some(&b'\n') => return Some(count + 3),
            _ => return None,
        }
    }
    None
}

/// The digits of a count with CRLF after it, in the eight bytes after the colon; `None` if it is
/// invalid or has more than six digits. Counts vary in length, so the end of a loop over their
/// digits would be hard to predict.
#[inline]
fn short_count_digits(window: [u8; 8]) -> Option<usize> {
    const DIGITS_MAX: u32 = 6;
    const ONES: u64 = 0x0101_0101_0101_0101;
    let window = u64::from_le_bytes(window);
    // Digits have this bit and CR does not. The next line waits for this result, so the rest of the
    // check, which does not delay it, is separate.
    let digits = (!window & (ONES * 0x10)).trailing_zeros() / 8;
    // A digit becomes 0 to 9, and then at most 0x7F. All else gets the highest bit.
    let values = window ^ (ONES * 0x30);
    let others = (((values & (ONES * 0x7F)) + ONES * 0x76) | values) & (ONES * 0x80);
    let are_digits = others.trailing_zeros() / 8 == digits;
    let is_count = are_digits && values & 0xFF != 0 && digits != 0 && digits <= DIGITS_MAX;
    let end = window.unbounded_shr(digits * 8) & 0xFFFF;
    (is_count && end == u64::from(u16::from_le_bytes(*b"\r\n"))).then_some(digits as usize)
}

/// Whether all characters are `0`..`9` or `A`..`F`. Three overlapping windows of 16 let the compiler
/// use vector instructions. Of a suffix of 27, two of them are the same.
#[inline]
fn is_upper_hex<const SUFFIX_BYTES: usize>(suffix: &[u8; SUFFIX_BYTES]) -> bool {
    const LANES: usize = 16;
    let first = &suffix[..LANES];
    let second_start = LANES.min(SUFFIX_BYTES - LANES);
    let second = &suffix[second_start..second_start + LANES];
    let third = &suffix[SUFFIX_BYTES - LANES..];
    // 0 to 9 for both kinds of characters, which saves comparisons.
    let value = |byte: u8| {
        let letter = byte.wrapping_sub(b'A').saturating_add(4);
        byte.wrapping_sub(b'0').min(letter)
    };
    let mut all = true;
    for lane in 0..LANES {
        let values = [first[lane], second[lane], third[lane]].map(value);
        all &= values[0].max(values[1]).max(values[2]) < 10;
    }
    all
}

/// `suffix > previous`. Adjacent suffixes nearly always differ in the first eight characters.
#[inline]
fn is_greater<const SUFFIX_BYTES: usize>(
    suffix: &[u8; SUFFIX_BYTES],
    previous: &[u8; SUFFIX_BYTES],
) -> bool {
    let leading = |bytes: &[u8; SUFFIX_BYTES]| {
        bytes
            .first_chunk::<8>()
            .map_or(0, |chunk| u64::from_le_bytes(*chunk))
    };
    // The first character that differs decides. WebAssembly has no instruction that reverses bytes.
    let (suffix_leading, previous_leading) = (leading(suffix), leading(previous));
    let same_bits = (suffix_leading ^ previous_leading).trailing_zeros() & !7;
    if same_bits == 64 {
        return suffix > previous;
    }
    (suffix_leading >> same_bits) as u8 > (previous_leading >> same_bits) as u8
}

/// The fault in a line that [`LineCheck::check_lines`] did not accept.
#[cold]
fn line_fault(line: &[u8], mode: Mode) -> LineFault {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    let characters = line.iter().take_while(|byte| is_hex(byte)).count();
    let suffix_characters = mode.suffix_characters();
    let mut others = Mode::ALL.into_iter().filter(|other| *other != mode);
    if line.get(characters) == Some(&b':')
        && let Some(other) = others.find(|other| other.suffix_characters() == characters)
    {
        return LineFault::OtherMode(other);
    }
    if characters < suffix_characters.min(line.len()) {
        return LineFault::Suffix(suffix_characters);
    }
    let after_suffix = line.get(suffix_characters..).unwrap_or_default();
    let Some((colon, digits)) = after_suffix.split_first() else {
        return LineFault::Colon;
    };
    if *colon != b':' {
        return LineFault::Colon;
    }
    let count = digits
        .iter()
        .take_while(|digit| digit.is_ascii_digit())
        .count();
    if count == 0 || count > COUNT_DIGITS_MAX || digits.first() == Some(&b'0') {
        return LineFault::Count;
    }
    LineFault::LineEnd
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_in_pieces(mode: Mode, body: &[u8], piece_bytes: usize) -> Result<u64, RangeBodyError> {
        let mut check = RangeCheck::new(mode);
        for piece in body.chunks(piece_bytes.max(1)) {
            check.push(piece)?;
        }
        check.finish()
    }

    /// The same rule, written for readability.
    fn naive_is_valid(mode: Mode, body: &[u8]) -> bool {
        let characters = mode.suffix_characters();
        let Ok(text) = std::str::from_utf8(body) else {
            return false;
        };
        let text = text.strip_suffix("\r\n").unwrap_or(text);
        let mut previous = String::new();
        for line in text.split("\r\n") {
            let Some((suffix, count)) = line.split_once(':') else {
                return false;
            };
            let suffix_is_valid = suffix.len() == characters
                && suffix.chars().all(|c| "0123456789ABCDEF".contains(c));
            let count_is_valid = !count.is_empty()
                && count.len() <= 10
                && count.chars().all(|c| c.is_ascii_digit())
                && !count.starts_with('0');
            if !suffix_is_valid || !count_is_valid || suffix <= previous.as_str() {
                return false;
            }
            suffix.clone_into(&mut previous);
        }
        true
    }

    fn line(mode: Mode, suffix: u128, count: u64) -> String {
        let characters = mode.suffix_characters();
        format!("{suffix:0characters$X}:{count}\r\n")
    }

    fn fault(mode: Mode, body: &str) -> (u64, LineFault) {
        let error = check_in_pieces(mode, body.as_bytes(), 1 << 20).expect_err("a fault");
        for piece_bytes in 1..100 {
            assert_eq!(
                check_in_pieces(mode, body.as_bytes(), piece_bytes),
                Err(error),
                "in pieces of {piece_bytes}"
            );
        }
        (error.line, error.fault)
    }

    #[test]
    fn each_fault_is_reported_with_its_line_for_any_division_of_the_body() {
        for mode in Mode::ALL {
            each_fault_is_reported(mode);
        }
    }

    fn each_fault_is_reported(mode: Mode) {
        let characters = mode.suffix_characters();
        let two = format!("{:0characters$X}", 2);
        let good = line(mode, 1, 7);
        let lower_case = line(mode, 0xAB, 1).to_lowercase();
        let page = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>";
        // Found by fuzzing: an invalid line of the maximum length, and a line that ends before its
        // colon.
        let longest = format!("{two}:4{}\r", "x".repeat(10));
        assert_eq!(longest.len(), line_bytes_max(mode));
        for (body, at, expected) in [
            (String::new(), 1, LineFault::Empty),
            (page.to_owned(), 1, LineFault::Suffix(characters)),
            (
                format!("{good}{lower_case}"),
                2,
                LineFault::Suffix(characters),
            ),
            (format!("{good}\r\n"), 2, LineFault::Suffix(characters)),
            (format!("{good}{two};3\r\n"), 2, LineFault::Colon),
            (format!("{good}0{two}:3\r\n"), 2, LineFault::Colon),
            (format!("{two}\n"), 1, LineFault::Colon),
            (line(mode, 1, 0), 1, LineFault::Count),
            (format!("{two}:007\r\n"), 1, LineFault::Count),
            (line(mode, 1, 12_345_678_901), 1, LineFault::Count),
            (good.replace("\r\n", "\n").repeat(2), 1, LineFault::LineEnd),
            (longest, 1, LineFault::LineEnd),
            (format!("{good}{}", line(mode, 1, 9)), 2, LineFault::Order),
            (format!("{}{good}", line(mode, 2, 9)), 2, LineFault::Order),
            (format!("{good}{}", &two[..20]), 2, LineFault::Truncated),
            (format!("{good}{two}:"), 2, LineFault::Truncated),
            (format!("{good}{two}:5\r"), 2, LineFault::Truncated),
        ] {
            assert_eq!(fault(mode, &body), (at, expected), "{mode} {body}");
        }
    }

    #[test]
    fn a_body_of_the_other_mode_is_refused_by_its_name() {
        for [mode, other] in [[Mode::Sha1, Mode::Ntlm], [Mode::Ntlm, Mode::Sha1]] {
            let lines: String = (1..9).map(|suffix| line(other, suffix, 7)).collect();
            let good = line(mode, 1, 7);
            let expected = LineFault::OtherMode(other);
            assert_eq!(fault(mode, &lines), (1, expected));
            assert_eq!(fault(mode, lines.trim_end()), (1, expected));
            assert_eq!(fault(mode, line(other, 1, 7).trim_end()), (1, expected));
            assert_eq!(fault(mode, &format!("{good}{lines}")), (2, expected));
        }
        let error = fault(Mode::Ntlm, &line(Mode::Sha1, 1, 7)).1;
        assert_eq!(error.to_string(), "is of a range of SHA-1 hashes");
    }

    #[test]
    fn agrees_with_the_naive_check_on_every_byte_at_every_place_of_a_line() {
        for mode in Mode::ALL {
            let last = format!("{}:1\r\n", "F".repeat(mode.suffix_characters()));
            for count in [1, 10, 999, 123_456, 1_234_567, 9_999_999_999] {
                // The lines around it let the check skip valid lines up to the changed one.
                let changed = line(mode, 0x0123_4567_89AB_CDEF, count);
                let before = line(mode, 1, 3);
                let after = line(mode, u128::MAX >> 32, 5) + &last;
                for at in 0..changed.len() {
                    for byte in 0..=u8::MAX {
                        let mut body = [&before, &changed, &after].map(String::as_bytes).concat();
                        body[before.len() + at] = byte;
                        let is_valid = check_in_pieces(mode, &body, usize::MAX).is_ok();
                        let expected = naive_is_valid(mode, &body);
                        assert_eq!(is_valid, expected, "{mode} {count}, byte {byte} at {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_crlf_is_optional_and_the_largest_count_is_valid() {
        for mode in Mode::ALL {
            let longest = line(mode, 1, 1) + &line(mode, 2, 9_999_999_999);
            for piece_bytes in 1..120 {
                let check = |body: &str| check_in_pieces(mode, body.as_bytes(), piece_bytes);
                assert_eq!(check(&longest), Ok(2));
                assert_eq!(check(longest.trim_end()), Ok(2));
            }
        }
    }

    fn mode() -> impl Strategy<Value = Mode> {
        prop_oneof![Just(Mode::Sha1), Just(Mode::Ntlm)]
    }

    fn body() -> impl Strategy<Value = (Mode, String)> {
        mode().prop_flat_map(|mode| (Just(mode), body_of(mode)))
    }

    fn body_of(mode: Mode) -> impl Strategy<Value = String> {
        // A suffix of SHA-1 has more bits than the number.
        let bits = (4 * mode.suffix_characters()).min(128);
        let suffix = any::<u128>().prop_map(move |suffix| suffix >> (128 - bits));
        let hash = (suffix, 1_u64..100_000);
        (proptest::collection::vec(hash, 1..40), any::<bool>()).prop_map(
            move |(mut hashes, ended)| {
                hashes.sort_by_key(|(suffix, _)| *suffix);
                hashes.dedup_by_key(|(suffix, _)| *suffix);
                let text: String = hashes
                    .iter()
                    .map(|(suffix, count)| line(mode, *suffix, *count))
                    .collect();
                if ended {
                    text
                } else {
                    text.trim_end().to_owned()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn the_result_is_the_same_for_any_division_of_the_body(
            mode in mode(),
            body in "[0A]{25,37}[:0;]{0,2}[0-9]{0,12}[\r\n]{0,3}.{0,60}",
            piece_bytes in 1_usize..60,
        ) {
            let whole = check_in_pieces(mode, body.as_bytes(), 1 << 20);
            prop_assert_eq!(check_in_pieces(mode, body.as_bytes(), piece_bytes), whole);
        }

        #[test]
        fn agrees_with_the_naive_check_on_valid_bodies(
            (mode, body) in body(),
            piece_bytes in 1_usize..200,
        ) {
            let lines = body.lines().count() as u64;
            prop_assert!(naive_is_valid(mode, body.as_bytes()));
            prop_assert_eq!(check_in_pieces(mode, body.as_bytes(), piece_bytes), Ok(lines));
            for other in Mode::ALL.into_iter().filter(|other| *other != mode) {
                let error = check_in_pieces(other, body.as_bytes(), piece_bytes).err();
                let expected = RangeBodyError { line: 1, fault: LineFault::OtherMode(mode) };
                prop_assert_eq!(error, Some(expected));
            }
        }

        #[test]
        fn agrees_with_the_naive_check_on_damaged_bodies(
            (mode, body) in body(),
            piece_bytes in 1_usize..200,
            at in any::<prop::sample::Index>(),
            byte in prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'0'), Just(b'f'), any::<u8>()],
            how in 0..3,
        ) {
            let mut bytes = body.into_bytes();
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
            let result = check_in_pieces(mode, &bytes, piece_bytes);
            prop_assert_eq!(result.is_ok(), naive_is_valid(mode, &bytes));
            prop_assert_eq!(check_in_pieces(mode, &bytes, usize::MAX), result);
        }

        #[test]
        fn any_bytes_are_checked_without_a_panic(
            mode in mode(),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            piece_bytes in 1_usize..99,
        ) {
            let result = check_in_pieces(mode, &bytes, piece_bytes);
            prop_assert_eq!(result.is_ok(), naive_is_valid(mode, &bytes));
        }
    }
}
