//! Checks that gzip bodies never decode to more than a range may have, and that the bodies that are
//! accepted decode to the same data as with flate2.
#![no_main]

use flate2::Compression;
use flate2::read::{GzEncoder, MultiGzDecoder};
use futures::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use prefix_tar::engine::chunk_pool::{BodyBytes, ChunkPool};
use prefix_tar::engine::inflate::{InflateError, inflate};
use prefix_tar::limits::{RANGE_BYTES_MAX, RANGE_WIRE_BYTES_MAX};
use std::io::Read as _;

/// A body as the fuzzer writes it, or with the checksums that it does not find: members, how often
/// they repeat, and what is changed in them.
type Input<'input> = (bool, u16, Option<(u16, u8)>, Vec<&'input [u8]>);

fuzz_target!(|input: Input| {
    let (is_raw, repeats, damage, parts) = input;
    let mut bytes: Vec<u8> = match is_raw {
        true => parts.concat(),
        false => parts.into_iter().flat_map(compressed).collect(),
    };
    let most = RANGE_WIRE_BYTES_MAX / bytes.len().max(1);
    bytes = bytes.repeat(usize::from(repeats).clamp(1, most.max(1)));
    if let Some((at, flip)) = damage
        && let Some(byte) = bytes.get_mut(usize::from(at))
    {
        *byte ^= flip;
    }
    let theirs = members_decoded(&bytes);
    match decoded(&bytes) {
        Ok(data) => {
            assert!(data.len() <= RANGE_BYTES_MAX);
            assert_eq!(theirs.as_ref(), Some(&data));
        }
        Err(InflateError::Damaged | InflateError::TooLarge) => {
            assert!(theirs.is_none_or(|data| data.len() > RANGE_BYTES_MAX));
        }
    }
});

fn compressed(data: &[u8]) -> Vec<u8> {
    let mut member = Vec::new();
    let mut encoder = GzEncoder::new(data, Compression::fast());
    encoder.read_to_end(&mut member).expect("compressed data");
    member
}

fn decoded(bytes: &[u8]) -> Result<Vec<u8>, InflateError> {
    let pool = ChunkPool::new();
    let mut body = BodyBytes::new(&pool, 0);
    body.make_room(bytes.len()).now_or_never().expect("room");
    body.append(bytes).expect("room");
    let mut decoded = BodyBytes::new(&pool, 0);
    inflate(&body, &mut decoded).now_or_never().expect("room")?;
    Ok(decoded.pieces().collect::<Vec<_>>().concat())
}

/// What flate2 decodes, up to a byte more than a range may have; `None` if it finds damage.
fn members_decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let mut decoder = MultiGzDecoder::new(bytes).take(RANGE_BYTES_MAX as u64 + 1);
    decoder.read_to_end(&mut data).ok()?;
    Some(data)
}
