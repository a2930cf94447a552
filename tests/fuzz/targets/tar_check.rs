//! Checks that the tar check never panics, reads what it is given, and never calls so short a tar
//! whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefix_tar::engine::tar::entry_header;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::Prefix;
use prefix_tar_fuzz::tar_check::check_tar;

fuzz_target!(|input: (Option<u16>, bool, &[u8])| {
    let (size, is_ntlm, rest) = input;
    let mode = if is_ntlm { Mode::Ntlm } else { Mode::Sha1 };
    let prefix = Prefix::from_number(0xAB);
    // Without help, the fuzzer does not get past the checksum of the first header.
    let header = size.map(|size| entry_header(prefix.range(0), size.into(), 0).expect("a header"));
    let tar: Vec<u8> = header
        .into_iter()
        .flatten()
        .chain(rest.iter().copied())
        .collect();
    let check = check_tar(tar.as_slice(), prefix, mode, None);
    assert!(check.unreadable.is_none() && !check.damages.is_empty());
    assert!(!check.is_read_to_end || check.content_length == tar.len() as u64);
    assert!(
        check
            .damages
            .into_lines()
            .iter()
            .all(|line| line.len() < 400)
    );
});
