//! Checks that the range check's verdict does not depend on how a body is split into chunks, and
//! that it agrees with a naive checker.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefix_tar::engine::range_body::{RangeBodyError, RangeCheck};
use prefix_tar::protocol::mode::Mode;

fuzz_target!(|input: (u8, &[u8])| {
    let (chunk_bytes, body) = input;
    for mode in Mode::ALL {
        let whole = check(mode, body, body.len().max(1));
        assert_eq!(whole, check(mode, body, usize::from(chunk_bytes).max(1)));
        assert_eq!(whole.ok(), naive_check(mode, body));
    }
});

fn check(mode: Mode, body: &[u8], chunk_bytes: usize) -> Result<u64, RangeBodyError> {
    let mut check = RangeCheck::new(mode);
    body.chunks(chunk_bytes)
        .try_for_each(|chunk| check.push(chunk))?;
    check.finish()
}

/// The naive checker. Returns the number of hashes if the body is valid.
fn naive_check(mode: Mode, body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let text = text.strip_suffix("\r\n").unwrap_or(text);
    let (mut previous, mut hashes) = ("", 0);
    for line in text.split("\r\n") {
        let (suffix, count) = line.split_once(':')?;
        let is_suffix = suffix.len() == mode.suffix_characters()
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
