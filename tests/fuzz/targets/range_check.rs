//! The range check gives the same verdict however a body is cut, and its verdict is that of a check written for
//! reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefix_tar::range_body::{RangeBodyError, RangeCheck};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_bytes, body) = input;
    let whole = check(body, body.len().max(1));
    assert_eq!(whole, check(body, usize::from(piece_bytes).max(1)));
    assert_eq!(whole.ok(), read(body));
});

fn check(body: &[u8], piece_bytes: usize) -> Result<u64, RangeBodyError> {
    let mut check = RangeCheck::new();
    body.chunks(piece_bytes)
        .try_for_each(|piece| check.push(piece))?;
    check.finish()
}

/// How many hashes a body has, if it is valid.
fn read(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let text = text.strip_suffix("\r\n").unwrap_or(text);
    let (mut previous, mut hashes) = ("", 0);
    for line in text.split("\r\n") {
        let (suffix, count) = line.split_once(':')?;
        let is_suffix = suffix.len() == 35
            && suffix
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        let is_count = (1..=10).contains(&count.len())
            && count.bytes().all(|byte| byte.is_ascii_digit())
            && !count.starts_with('0');
        if !is_suffix || !is_count || suffix <= previous {
            return None;
        }
        previous = suffix;
        hashes += 1;
    }
    Some(hashes)
}
