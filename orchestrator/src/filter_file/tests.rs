use super::read::{FilterError, FilterFile, Index};
use super::write::FilterWriter;
use super::*;
use prefix_tar::protocol::prefix::Prefix;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::io::Cursor;
use xorf::Filter as _;

const KINDS: [FilterKind; 2] = [FilterKind::Fuse8, FilterKind::Fuse16];

/// Keys without order or repetition, all of one prefix.
fn keys_of(prefix: u8, count: usize, seed: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let key = || u64::from(prefix) << 56 | random.u64(..) >> 8;
    let keys: BTreeSet<u64> = std::iter::repeat_with(key).take(count).collect();
    keys.into_iter().collect()
}

/// The bytes of a file with these prefixes.
fn file_of(kind: FilterKind, prefixes: &[(u8, Vec<u64>)]) -> Vec<u8> {
    file_of_mode(kind, Mode::Sha1, prefixes)
}

fn file_of_mode(kind: FilterKind, mode: Mode, prefixes: &[(u8, Vec<u64>)]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut writer = FilterWriter::new(kind, mode, &mut out).expect("written");
    for (number, keys) in prefixes {
        let added = writer.add_prefix(Prefix::from_number(*number), keys);
        added.expect("a filter");
    }
    let keys: usize = prefixes.iter().map(|(_, keys)| keys.len()).sum();
    assert_eq!(writer.finish().expect("written"), keys as u64);
    out.into_inner()
}

fn open(bytes: &[u8]) -> Result<FilterFile, FilterError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    FilterFile::open(file.path())
}

#[test]
fn every_key_is_found_and_others_at_the_stated_rate() {
    for kind in KINDS {
        let prefixes = [0, 0x5B, 0xFF].map(|prefix| (prefix, keys_of(prefix, 20_000, 7)));
        let filter = open(&file_of(kind, &prefixes)).expect("a filter");
        assert_eq!(filter.kind(), kind);
        for key in prefixes.iter().flat_map(|(_, keys)| keys) {
            assert!(filter.contains(*key).expect("held"), "{key:X}");
        }
        let others = keys_of(0x5B, 200_000, 8);
        let found = others
            .iter()
            .filter(|key| filter.contains(**key).expect("held"));
        let expected = others.len() as f64 / f64::from(kind.one_in());
        let found = found.count() as f64;
        // Six standard deviations.
        let tolerated = 6.0 * expected.sqrt();
        assert!(
            (found - expected).abs() < tolerated,
            "{kind:?}: {found} of {expected}"
        );
        assert!(matches!(
            filter.contains(1 << 56),
            Err(FilterError::NotHeld)
        ));
    }
}

#[test]
fn a_file_states_which_hashes_its_keys_are_taken_from() {
    let prefixes = [(7, keys_of(7, 500, 1))];
    for mode in Mode::ALL {
        let bytes = file_of_mode(FilterKind::Fuse8, mode, &prefixes);
        assert_eq!(open(&bytes).expect("a filter").mode(), mode);
        // Version 0.1.0 wrote 1, and reads nothing else.
        assert_eq!(bytes[11] == 1, mode == Mode::Sha1);
    }
}

#[test]
fn the_same_keys_give_the_same_file() {
    let prefixes = [(7, keys_of(7, 500, 1))];
    for kind in KINDS {
        assert!(
            file_of(kind, &prefixes) == file_of(kind, &prefixes),
            "{kind:?}"
        );
    }
}

proptest! {
    #[test]
    fn look_ups_agree_with_the_crate_that_builds_the_filter(
        count in 1_usize..3_000,
        seed in any::<u64>(),
    ) {
        let keys = keys_of(3, count, seed);
        let built = xorf::BinaryFuse8::try_from(&keys).expect("a filter");
        let filter = open(&file_of(FilterKind::Fuse8, &[(3, keys)])).expect("a filter");
        for key in keys_of(3, 500, seed ^ 1) {
            prop_assert_eq!(filter.contains(key).expect("held"), built.contains(&key));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is(
        at in any::<prop::sample::Index>(),
        change in 1_u8..,
        is_wide in any::<bool>(),
    ) {
        let keys = keys_of(9, 300, 5);
        let mut bytes = file_of(KINDS[usize::from(is_wide)], &[(9, keys.clone())]);
        bytes[at.index(HEADER_BYTES + 300)] ^= change;
        let found = open(&bytes).and_then(|filter| filter.contains(keys[0]));
        prop_assert!(found.is_err(), "{found:?}");
    }

    #[test]
    fn a_file_of_another_length_is_noticed(bytes_max in 0_usize..9_000) {
        let whole = file_of(FilterKind::Fuse16, &[(9, keys_of(9, 300, 5))]);
        let cut = &whole[..bytes_max.min(whole.len() - 1)];
        prop_assert!(open(cut).is_err());
        prop_assert!(open(&[&whole[..], b"x"].concat()).is_err());
    }

    /// The checksum of a hostile header is right, so only the rules protect the reader.
    #[test]
    fn no_header_makes_a_look_up_panic(
        kind in 0_u8..4,
        entry in any::<[u8; ENTRY_BYTES]>(),
        shard in (any::<u32>(), 0_u32..34, any::<u32>(), any::<bool>()),
        keys in any::<u64>(),
        file_bytes in any::<u64>(),
        key in any::<u64>(),
    ) {
        let (stated_keys, shift, multiple, is_random) = shard;
        let segment_length = 1_u32.checked_shl(shift).unwrap_or(3);
        let plausible = Shard {
            offset: HEADER_BYTES as u64,
            seed: keys,
            keys: stated_keys,
            segment_length,
            first_segments_length: segment_length.wrapping_mul(multiple % 9),
            crc32c: 0,
        };
        let entry = if is_random { entry } else { plausible.to_bytes() };
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&[1, 0, kind, hash_number(Mode::Sha1)]);
        let keys = if is_random { keys } else { u64::from(stated_keys) };
        header[16..24].copy_from_slice(&keys.to_le_bytes());
        header[HEAD_BYTES..HEAD_BYTES + ENTRY_BYTES].copy_from_slice(&entry);
        let crc32c = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
        header[HEADER_BYTES - 4..].copy_from_slice(&crc32c.to_le_bytes());
        let plausible_bytes = HEADER_BYTES as u64 + plausible.fingerprints() * u64::from(kind);
        for file_bytes in [file_bytes, plausible_bytes] {
            let Ok(index) = Index::parse(&header, file_bytes) else {
                continue;
            };
            for shard in index.shards.iter().flatten() {
                let (_, positions) = shard.positions(key);
                prop_assert!(positions.iter().all(|at| *at < shard.fingerprints()));
            }
        }
    }
}

#[test]
fn another_file_and_a_later_version_are_told_apart() {
    assert!(matches!(open(b"not this"), Err(FilterError::NotAFilter)));
    assert!(matches!(open(&[0; 20_000]), Err(FilterError::NotAFilter)));
    let mut bytes = file_of(FilterKind::Fuse8, &[(9, keys_of(9, 300, 5))]);
    bytes[8] = 2;
    assert!(matches!(open(&bytes), Err(FilterError::Version(2))));
}
