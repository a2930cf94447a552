//! Every kind of damage to a tar, and what is no damage.

use super::*;
use crate::verify::sample::{ENTRY_BYTES, report_of, tar_of};
use crate::verify::text::quoted;
use prefix_tar::limits::{CONTENT_LENGTH_MAX, RANGE_BYTES_MAX};
use proptest::prelude::*;
use std::cell::Cell;
use std::sync::LazyLock;

const PREFIX: Prefix = Prefix::from_number(0xAB);

static TAR: LazyLock<Vec<u8>> = LazyLock::new(|| tar_of(PREFIX));

/// The end of the last entry.
const END: usize = 4096 * ENTRY_BYTES;

fn lines(check: TarCheck) -> Vec<String> {
    assert!(check.unreadable.is_none(), "{:?}", check.unreadable);
    check.damages.into_lines()
}

/// The damages that are found in the changed tar without a report.
fn found(change: impl FnOnce(&mut Vec<u8>)) -> Vec<String> {
    let mut tar = TAR.clone();
    change(&mut tar);
    lines(check_tar(tar.as_slice(), PREFIX, Mode::Sha1, None))
}

/// Changes the header at `at` and corrects its checksum.
fn change_header(tar: &mut [u8], at: usize, change: impl FnOnce(&mut tar::Header)) {
    let block = tar.get_mut(at..at + BLOCK_BYTES).expect("a block");
    let mut header = tar::Header::from_byte_slice(block).clone();
    change(&mut header);
    header.set_cksum();
    block.copy_from_slice(header.as_bytes());
}

#[test]
fn a_valid_tar_is_whole_with_and_without_its_report() {
    let report = report_of(PREFIX, &TAR);
    assert_eq!(report.check(), Ok(()));
    for report_given in [None, Some(&report)] {
        let check = check_tar(TAR.as_slice(), PREFIX, Mode::Sha1, report_given);
        assert!(check.is_whole(), "{:?}", check.damages);
        assert_eq!(check.ranges, 4096);
        assert_eq!(check.hashes, report.hashes);
        assert_eq!(check.data_bytes, report.data_bytes);
        assert_eq!(check.range_bytes, report.range_bytes);
        assert_eq!(check.content_length, report.content_length);
        assert_eq!(check.crc32c, report.crc32c);
    }
}

#[test]
fn a_visitor_gets_the_valid_ranges_in_order_until_it_wants_no_more() {
    let mut tar = TAR.clone();
    tar[5 * ENTRY_BYTES + BLOCK_BYTES] = b'x';
    let size = report_of(PREFIX, &TAR).range_bytes[0] as usize;
    for wanted in [1, 5, 4_095, 9_999] {
        let mut visited = Vec::new();
        let mut visitor = |range: RangeName, body: &[u8]| {
            let at = usize::from(range.index()) * ENTRY_BYTES + BLOCK_BYTES;
            assert!(tar[at..].starts_with(body) && body.len() == size);
            visited.push(range);
            match visited.len() < wanted {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let check = visit_tar(tar.as_slice(), PREFIX, Mode::Sha1, None, Some(&mut visitor));
        assert!(!check.is_whole());
        assert_eq!(check.is_read_to_end, wanted > 4_095, "{wanted}");
        let valid = PREFIX.ranges().filter(|range| range.index() != 5);
        assert!(visited.into_iter().eq(valid.take(wanted)), "{wanted}");
    }
}

#[test]
fn zeros_up_to_a_longer_declared_length_are_no_damage() {
    assert_eq!(found(|tar| tar.resize(tar.len() + 7 * 10_240, 0)), [""; 0]);
}

#[test]
fn a_broken_header_is_named_by_its_offset_and_range() {
    let at = 5 * ENTRY_BYTES;
    let no_header = "has no ustar header at byte 5120, where that of AB005.txt should be";
    type Change = fn(&mut tar::Header);
    let of_gnu: Change = |header| {
        let (size, path) = (header.size(), "AB005.txt");
        *header = tar::Header::new_gnu();
        header.set_size(size.expect("a size"));
        header.set_path(path).expect("a path");
        header.set_mode(0o644);
    };
    let plain = "has an entry AB005.txt that is not a regular file of mode 0644 and owner 0";
    for (change, damage) in [
        (
            (|header| header.as_mut_bytes()[257] = b'x') as Change,
            no_header,
        ),
        (of_gnu, no_header),
        (|header| header.as_old_mut().size[0] = 0x80, no_header),
        (
            |header| header.as_old_mut().mtime = *b"1700000000.5",
            no_header,
        ),
        (
            |header| header.set_path("AB006.txt").expect("a path"),
            r#"has entry "AB006.txt" where AB005.txt should be"#,
        ),
        (
            |header| header.as_ustar_mut().expect("ustar").prefix[0] = b'a',
            r#"has entry "a/AB005.txt" where AB005.txt should be"#,
        ),
        (|header| header.set_mode(0o755), plain),
        (|header| header.set_uid(1), plain),
        (|header| header.set_gid(1), plain),
        (|header| header.set_username("root").expect("a name"), plain),
        (
            |header| header.set_groupname("root").expect("a name"),
            plain,
        ),
        (|header| header.as_old_mut().linkname[0] = b'/', plain),
        (|header| header.as_old_mut().name[99] = b'x', plain),
        (
            |header| header.as_ustar_mut().expect("ustar").dev_major[6] = b'8',
            plain,
        ),
        (
            |header| header.as_ustar_mut().expect("ustar").dev_minor[0] = b'8',
            plain,
        ),
        (
            |header| header.as_ustar_mut().expect("ustar").prefix[154] = b'x',
            plain,
        ),
        (
            |header| header.as_ustar_mut().expect("ustar").pad[11] = b'x',
            plain,
        ),
        (
            |header| header.set_size(RANGE_BYTES_MAX as u64 + 1),
            "has an entry AB005.txt that is larger than 262144 bytes",
        ),
    ] {
        assert_eq!(found(|tar| change_header(tar, at, change)), [damage]);
    }
    // A header whose own checksum is wrong.
    assert_eq!(found(|tar| tar[at + 140] ^= 1), [no_header]);
}

#[test]
fn every_entry_but_a_regular_file_is_refused_by_its_type() {
    for kind in *b"\x00123467gxLKSVM" {
        let damage = format!(
            "has an entry of type {} at byte 0, where the file AB000.txt should be",
            quoted(&[kind])
        );
        assert_eq!(
            found(|tar| change_header(tar, 0, |header| {
                header.as_ustar_mut().expect("ustar").typeflag = [kind];
            })),
            [damage]
        );
    }
}

#[test]
fn invalid_ranges_and_padding_are_named_and_the_rest_is_checked() {
    let body = |index: usize| index * ENTRY_BYTES + BLOCK_BYTES;
    type Change = fn(&mut Vec<u8>, fn(usize) -> usize);
    let check =
        |change: Change| found(|tar| change(tar, |index| index * ENTRY_BYTES + BLOCK_BYTES));
    assert_eq!(
        check(|tar, body| {
            tar[body(3)] = b'x';
            tar[body(9) + 200] = 1;
            tar[body(4095) + 36] = b'0';
        }),
        [
            "range AB003 is not valid: line 1 does not begin with 35 upper-case hex characters",
            "has data in the padding after range AB009",
            "range ABFFF is not valid: line 1 has no decimal count from 1 to 9999999999 after its colon",
        ]
    );
    // The body of another range, as a faulty cache returns it.
    assert_eq!(
        check(|tar, body| tar.copy_within(body(3)..body(3) + 77, body(7))),
        ["range AB007 is not valid: it is the body of AB003"]
    );
    // An empty body in a valid entry.
    let empty = found(|tar| {
        change_header(tar, 0, |header| header.set_size(0));
        tar.drain(body(0)..body(0) + BLOCK_BYTES);
        tar.resize(tar.len() + BLOCK_BYTES, 0);
    });
    assert_eq!(
        empty,
        ["range AB000 is not valid: line 1 is missing: the body is empty"]
    );
}

#[test]
fn many_damages_are_counted() {
    let found = found(|tar| {
        for index in 0..100 {
            tar[index * ENTRY_BYTES + BLOCK_BYTES] = b'x';
        }
    });
    assert_eq!(found.len(), DAMAGES_MAX + 1);
    assert_eq!(found.last().map(String::as_str), Some("and 92 more"));
}

#[test]
fn a_tar_that_is_cut_off_is_damaged() {
    for (bytes, damage) in [
        (0, "ends before range AB000 without an end marker"),
        (100, "ends inside a block, after 100 bytes"),
        (ENTRY_BYTES, "ends before range AB001 without an end marker"),
        (ENTRY_BYTES + 512 + 30, "ends inside range AB001"),
        (ENTRY_BYTES + 512, "ends inside range AB001"),
        (
            2 * ENTRY_BYTES - 1,
            "ends inside the padding after range AB001",
        ),
        (END, "ends without an end marker"),
    ] {
        assert_eq!(found(|tar| tar.truncate(bytes)), [damage], "{bytes}");
    }
    let record =
        |bytes| format!("has {bytes} bytes, which do not end with a whole record of 10240");
    for bytes in [END + 512, END + 513, END + 1024] {
        assert_eq!(found(|tar| tar.truncate(bytes)), [record(bytes)]);
    }
    let report = report_of(PREFIX, &TAR);
    let cut = check_tar(&TAR[..100], PREFIX, Mode::Sha1, Some(&report));
    let length = format!("has 100 bytes, but {} in its report", TAR.len());
    assert!(lines(cut).contains(&length));
}

#[test]
fn the_end_of_a_tar_is_checked() {
    assert_eq!(
        found(|tar| tar[END - ENTRY_BYTES..].fill(0)),
        ["ends before range ABFFF"]
    );
    assert_eq!(
        found(|tar| *tar.last_mut().expect("a byte") = 1),
        ["has data after its end marker"]
    );
    let more = "has more than 4096 entries, or data instead of its end marker";
    assert_eq!(found(|tar| tar.copy_within(..BLOCK_BYTES, END)), [more]);
}

#[test]
fn an_endless_tar_is_damaged_and_read_up_to_the_longest_tar() {
    let read = Cell::new(0);
    let endless = Counting(TAR.as_slice().chain(io::repeat(0)), &read);
    let check = check_tar(endless, PREFIX, Mode::Sha1, None);
    assert_eq!(
        lines(check),
        [format!(
            "is longer than {CONTENT_LENGTH_MAX} bytes, the longest tar"
        )]
    );
    assert!(
        read.get() < CONTENT_LENGTH_MAX + 1024 * 1024,
        "{}",
        read.get()
    );
}

/// Counts the bytes that are read.
struct Counting<'count, Inner>(Inner, &'count Cell<u64>);

impl<Inner: Read> Read for Counting<'_, Inner> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(into)?;
        self.1.set(self.1.get() + read as u64);
        Ok(read)
    }
}

#[test]
fn an_entry_of_a_gibibyte_is_refused_before_it_is_read() {
    const GIBIBYTE: u64 = 1 << 30;
    for (mut header, kind) in [
        (tar::Header::new_gnu(), b'L'),
        (tar::Header::new_gnu(), b'K'),
        (tar::Header::new_gnu(), b'S'),
        (tar::Header::new_ustar(), b'x'),
        (tar::Header::new_ustar(), b'g'),
        (tar::Header::new_ustar(), b'L'),
        (tar::Header::new_ustar(), b'0'),
    ] {
        header.set_path("AB000.txt").expect("a path");
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(GIBIBYTE);
        header.set_cksum();
        let read = Cell::new(0);
        let tar = header.as_bytes().chain(io::repeat(0).take(GIBIBYTE));
        let check = check_tar(Counting(tar, &read), PREFIX, Mode::Sha1, None);
        let kind = char::from(kind);
        assert_eq!(check.damages.into_lines().len(), 1, "{kind}");
        assert!(read.get() <= 1024 * 1024, "{kind}: {} bytes", read.get());
    }
}

#[test]
fn text_from_a_tar_is_escaped_and_short() {
    let found = found(|tar| {
        change_header(tar, 0, |header| {
            header.as_ustar_mut().expect("ustar").name = [0x1b; 100];
        });
    });
    let [found] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(found.starts_with(r#"has entry "\x1b\x1b"#), "{found}");
    assert!(found.len() < 200, "{found}");
}

/// Fails after the bytes of its first reader.
struct Failing(io::ErrorKind);

impl Read for Failing {
    fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
}

#[test]
fn a_reader_that_fails_is_not_called_damage() {
    let report = report_of(PREFIX, &TAR);
    for bytes in [0, 100, 512, 600, 1000, END, TAR.len()] {
        let reader = TAR[..bytes].chain(Failing(io::ErrorKind::ConnectionReset));
        let check = check_tar(reader, PREFIX, Mode::Sha1, Some(&report));
        assert!(check.damages.is_empty(), "{bytes}: {:?}", check.damages);
        assert!(!check.is_read_to_end && !check.is_whole());
        let kind = check.unreadable.map(|error| error.kind());
        assert_eq!(kind, Some(io::ErrorKind::ConnectionReset), "{bytes}");
    }
}

#[test]
fn damage_before_a_failure_is_kept() {
    let mut tar = TAR.clone();
    tar[BLOCK_BYTES] = b'x';
    let reader = tar[..100_000].chain(Failing(io::ErrorKind::TimedOut));
    let check = check_tar(reader, PREFIX, Mode::Sha1, None);
    assert!(check.unreadable.is_some());
    assert_eq!(check.damages.into_lines().len(), 1);
}

/// Reads a few bytes at a time, and is interrupted in between.
struct Dribbling<'bytes>(&'bytes [u8], bool);

impl Read for Dribbling<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let few = into.len().min(31);
        self.0.read(&mut into[..few])
    }
}

#[test]
fn pieces_of_any_size_give_the_same_verdict() {
    let report = report_of(PREFIX, &TAR);
    let check = check_tar(Dribbling(&TAR, false), PREFIX, Mode::Sha1, Some(&report));
    assert!(check.is_whole(), "{:?}", check.damages);
}

#[test]
fn a_tar_that_contradicts_its_report_is_damaged() {
    let report = |change: fn(&mut Report)| {
        let mut report = report_of(PREFIX, &TAR);
        change(&mut report);
        lines(check_tar(TAR.as_slice(), PREFIX, Mode::Sha1, Some(&report)))
    };
    assert_eq!(
        report(|report| report.range_bytes[7] += 1),
        ["range AB007 has another size than in its report"]
    );
    let found = report(|report| report.crc32c = Crc32c(7));
    assert!(
        found.concat().contains("but AAAABw== in its report"),
        "{found:?}"
    );
    assert_eq!(
        report(|report| report.hashes += 1),
        ["has other counts of ranges, hashes or bytes than its report"]
    );
    let length = TAR.len();
    assert_eq!(
        report(|report| report.content_length += 10_240),
        [format!(
            "has {length} bytes, but {} in its report",
            length + 10_240
        )]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_changed_byte_is_found(at in any::<prop::sample::Index>(), change in 1_u8..) {
        let report = report_of(PREFIX, &TAR);
        let mut tar = TAR.clone();
        *at.get_mut(&mut tar) ^= change;
        let check = check_tar(tar.as_slice(), PREFIX, Mode::Sha1, Some(&report));
        prop_assert!(!check.damages.is_empty());
    }

    #[test]
    fn whatever_is_no_tar_is_damaged(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(!check_tar(bytes.as_slice(), PREFIX, Mode::Sha1, None).damages.is_empty());
    }
}
