//! Finds a suffix in a range that anybody may have sent.

use prefix_tar::engine::range_body::COUNT_DIGITS_MAX;

/// Why an answer is not a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// It is empty. No range is.
    #[error("it is empty")]
    Empty,
    /// The suffix has several counts.
    #[error("it has a hash twice, with different counts")]
    Twice,
    /// Every count is 0. Every range holds hundreds of hashes.
    #[error("it has padding only")]
    PaddingOnly,
    /// A line is not `SUFFIX:COUNT`.
    #[error("line {0} is not a suffix and a count")]
    Line(usize),
}

/// The count of `suffix` in a range, which may be padded; 0 if it is not there. Padding has a count of 0, and need not be
/// sorted. All of the answer is checked before any of it is believed: neither a captive portal's page nor a range of hashes
/// of another length must mean "not found".
///
/// # Errors
/// The answer is not a range.
pub fn count_of(answer: &[u8], suffix: &[u8]) -> Result<u64, AnswerFault> {
    let answer = answer.strip_suffix(b"\n").unwrap_or(answer);
    if answer.is_empty() {
        return Err(AnswerFault::Empty);
    }
    let (mut found, mut is_padding) = (0, true);
    for (number, line) in (1..).zip(answer.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (of, count) = parsed(line, suffix.len()).ok_or(AnswerFault::Line(number))?;
        is_padding &= count == 0;
        if of == suffix && count > 0 {
            if found > 0 && found != count {
                return Err(AnswerFault::Twice);
            }
            found = count;
        }
    }
    if is_padding {
        return Err(AnswerFault::PaddingOnly);
    }
    Ok(found)
}

fn parsed(line: &[u8], suffix_bytes: usize) -> Option<(&[u8], u64)> {
    let (suffix, after_suffix) = line.split_at_checked(suffix_bytes)?;
    let digits = after_suffix.strip_prefix(b":")?;
    let is_upper_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    let is_well_formed = suffix.iter().all(is_upper_hex)
        && (1..=COUNT_DIGITS_MAX).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit);
    let value = |count: u64, digit: &u8| count * 10 + u64::from(digit - b'0');
    is_well_formed.then(|| (suffix, digits.iter().fold(0, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUFFIX: &[u8; 35] = b"0018A45C4D1DEF81644B54AB7F969B88D65";

    fn count(lines: &str) -> Result<u64, AnswerFault> {
        count_of(lines.replace('|', "\r\n").as_bytes(), SUFFIX)
    }

    #[test]
    fn the_count_is_that_of_the_suffix_and_padding_is_not_found() {
        let (this, other) = (std::str::from_utf8(SUFFIX).expect("text"), "F".repeat(35));
        for (lines, expected) in [
            (format!("{this}:12|{other}:3"), 12),
            (format!("{other}:3|{this}:9999999999"), 9_999_999_999),
            (format!("{other}:3"), 0),
            (format!("{other}:3|{this}:0"), 0),
            (format!("{this}:7|{other}:3|{this}:0"), 7),
            (format!("{this}:7|"), 7),
            (format!("{other}:1\n{this}:7\n"), 7),
        ] {
            assert_eq!(count(&lines), Ok(expected), "{lines}");
        }
    }

    #[test]
    fn what_is_not_a_range_is_not_believed() {
        let this = std::str::from_utf8(SUFFIX).expect("text");
        for (lines, fault) in [
            (String::new(), AnswerFault::Empty),
            (format!("{this}:5|{this}:6"), AnswerFault::Twice),
            (format!("{this}:0"), AnswerFault::PaddingOnly),
            (
                format!("{}:0|{this}:00", "F".repeat(35)),
                AnswerFault::PaddingOnly,
            ),
            ("|".to_owned(), AnswerFault::Line(1)),
            ("<!DOCTYPE html>|<html>".to_owned(), AnswerFault::Line(1)),
            (format!("{this}:12||{this}:12"), AnswerFault::Line(2)),
            (
                format!("{this}:12|{}:1", this.to_lowercase()),
                AnswerFault::Line(2),
            ),
            (format!("{this}:"), AnswerFault::Line(1)),
            (format!("{this}:12345678901"), AnswerFault::Line(1)),
            (format!("{this}:-1"), AnswerFault::Line(1)),
            (format!("{this};1"), AnswerFault::Line(1)),
            (format!("{this}:1|{}", &this[..9]), AnswerFault::Line(2)),
        ] {
            assert_eq!(count(&lines), Err(fault), "{lines}");
        }
    }

    #[test]
    fn a_range_of_the_other_mode_is_not_believed() {
        let (ntlm, sha1) = (&SUFFIX[..27], &SUFFIX[..]);
        let line = |suffix: &[u8]| [suffix, b":5"].concat();
        assert_eq!(count_of(&line(ntlm), ntlm), Ok(5));
        assert_eq!(count_of(&line(ntlm), sha1), Err(AnswerFault::Line(1)));
        assert_eq!(count_of(&line(sha1), ntlm), Err(AnswerFault::Line(1)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = count_of(&answer, SUFFIX);
            let _ = count_of(&answer, &SUFFIX[..27]);
        }
    }
}
