//! Decodes gzip bodies (RFC 1952), of one member or several, with a limit on the decoded size.
//!
//! A body is decoded once it is complete, and without waiting. So only one inflater with its 32 KiB
//! window exists at a time, not one per request in flight.

use crate::engine::chunk_pool::BodyBytes;
use crate::limits::{INFLATE_DISCARDED_BYTES, RANGE_BYTES_MAX};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, Read};

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// Not gzip, cut off, damaged, or followed by other bytes.
    #[error("the gzip body is damaged or cut off")]
    Damaged,
    /// It decodes to more than a range may have.
    #[error("the gzip body decodes to more than {RANGE_BYTES_MAX} bytes")]
    TooLarge,
}

/// How the data are divided into members. Each member ends with its checksum and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// All data are in the last member. The body cannot be cut without being damaged, or empty.
    One,
    /// An earlier member has data, too. A body that is cut after it looks complete.
    Several,
}

/// Decodes `body` into `decoded`, which must be empty. It waits until there is room for the data.
///
/// # Errors
/// The body is damaged, other bytes follow it, or it decodes to more than a range may have.
pub async fn inflate(body: &BodyBytes, decoded: &mut BodyBytes) -> Result<Members, InflateError> {
    let stated = stated_bytes(body)?;
    if stated <= RANGE_BYTES_MAX {
        decoded.make_room(stated).await;
    }
    let bytes = decode(body, decoded)?;
    if bytes > decoded.len() {
        // There are earlier members. Decoding again costs time for such bodies only, and no decoder
        // has to exist while this waits for room.
        decoded.clear();
        decoded.make_room(bytes).await;
        decode(body, decoded)?;
    }
    Ok(match bytes == stated {
        true => Members::One,
        false => Members::Several,
    })
}

/// The decoded size of the last member in bytes, which the last four bytes of a body state. In a
/// body that was cut off, they are arbitrary.
fn stated_bytes(body: &BodyBytes) -> Result<usize, InflateError> {
    let stated = body.last_bytes::<4>().ok_or(InflateError::Damaged)?;
    usize::try_from(u32::from_le_bytes(stated)).map_err(|_| InflateError::TooLarge)
}

/// Decodes as much of `body` as `decoded` has room for. Returns the size of all of it.
fn decode(body: &BodyBytes, decoded: &mut BodyBytes) -> Result<usize, InflateError> {
    let mut decoder = MultiGzDecoder::new(Pieces::new(body.pieces()));
    let mut discarded = [0; INFLATE_DISCARDED_BYTES];
    let mut bytes = 0;
    loop {
        let free = decoded.free_slice();
        let fits = !free.is_empty();
        let into = if fits { free } else { &mut discarded };
        // Zero is the end of the last member, whose checksum and size are as stated.
        let read = decoder.read(into).map_err(|_| InflateError::Damaged)?;
        if read == 0 {
            return Ok(bytes);
        }
        bytes += read;
        if bytes > RANGE_BYTES_MAX {
            return Err(InflateError::TooLarge);
        }
        if fits {
            decoded.advance(read).map_err(|_| InflateError::Damaged)?;
        }
    }
}

/// The pieces of a body as one reader.
#[derive(Debug)]
struct Pieces<'body, Rest> {
    piece: &'body [u8],
    rest: Rest,
}

impl<'body, Rest: Iterator<Item = &'body [u8]>> Pieces<'body, Rest> {
    const fn new(rest: Rest) -> Self {
        Self { piece: &[], rest }
    }
}

impl<'body, Rest: Iterator<Item = &'body [u8]>> BufRead for Pieces<'body, Rest> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece.is_empty() {
            self.piece = self.rest.next().unwrap_or_default();
        }
        Ok(self.piece)
    }

    fn consume(&mut self, bytes: usize) {
        self.piece = self.piece.get(bytes..).unwrap_or_default();
    }
}

impl<'body, Rest: Iterator<Item = &'body [u8]>> Read for Pieces<'body, Rest> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::chunk_pool::ChunkPool;
    use crate::limits::{BODY_POOL_BYTES_MAX, BODY_POOL_HEAD_BYTES, CHUNK_BYTES};
    use flate2::{Compression, GzBuilder};
    use futures::FutureExt as _;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::rc::Rc;

    fn gzip_with(data: &[u8], builder: GzBuilder) -> Vec<u8> {
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(data).expect("written");
        encoder.finish().expect("finished")
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        gzip_with(data, GzBuilder::new())
    }

    /// One gzip body with a member for each part.
    fn members(parts: &[Vec<u8>]) -> Vec<u8> {
        parts.iter().flat_map(|part| gzip(part)).collect()
    }

    fn body(bytes: &[u8], index: u16, pool: &Rc<ChunkPool>) -> BodyBytes {
        let mut body = BodyBytes::new(pool, index);
        body.make_room(bytes.len()).now_or_never().expect("room");
        body.append(bytes).expect("room");
        body
    }

    fn decode_in(pool: &Rc<ChunkPool>, bytes: &[u8]) -> Result<(Vec<u8>, Members), InflateError> {
        let compressed = body(bytes, 0, pool);
        let mut decoded = BodyBytes::new(pool, 0);
        let inflating = inflate(&compressed, &mut decoded).now_or_never();
        let members = inflating.expect("room")?;
        Ok((decoded.pieces().collect::<Vec<_>>().concat(), members))
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, InflateError> {
        decode_in(&ChunkPool::new(), bytes).map(|(data, _)| data)
    }

    #[test]
    fn optional_header_fields_are_skipped() {
        let builder = GzBuilder::new()
            .extra(vec![7; 300])
            .filename("AB7FF.txt")
            .comment("a comment");
        let bytes = gzip_with(b"0123456789", builder);
        assert_eq!(decode(&bytes), Ok(b"0123456789".to_vec()));
    }

    #[test]
    fn a_gzip_bomb_is_rejected_by_its_stated_and_its_actual_size() {
        let bomb = gzip(&vec![b'A'; RANGE_BYTES_MAX + 1]);
        assert_eq!(decode(&bomb), Err(InflateError::TooLarge));
        let mut lying = bomb;
        let at = lying.len() - 4;
        lying[at..].copy_from_slice(&100_u32.to_le_bytes());
        assert_eq!(decode(&lying), Err(InflateError::TooLarge));
        let mut short = gzip(&[b'A'; 1000]);
        let at = short.len() - 4;
        short[at..].copy_from_slice(&100_u32.to_le_bytes());
        assert_eq!(decode(&short), Err(InflateError::Damaged));
        let largest = vec![b'A'; RANGE_BYTES_MAX];
        assert_eq!(decode(&gzip(&largest)), Ok(largest));
    }

    #[test]
    fn the_limit_applies_to_all_members_together() {
        let half = vec![b'A'; RANGE_BYTES_MAX / 2];
        let largest = members(&[half.clone(), half.clone()]);
        assert_eq!(decode(&largest), Ok([half.clone(), half.clone()].concat()));
        for parts in [
            vec![half.clone(), half.clone(), vec![b'A']],
            vec![vec![b'A'], half.clone(), half],
        ] {
            assert_eq!(decode(&members(&parts)), Err(InflateError::TooLarge));
        }
    }

    #[test]
    fn a_body_of_several_members_fits_into_the_reserve_of_the_head() {
        let pool = ChunkPool::new();
        pool.end_sample();
        let mut others = BodyBytes::new(&pool, 7);
        let others_bytes = BODY_POOL_BYTES_MAX - BODY_POOL_HEAD_BYTES;
        let room = others.make_room(others_bytes).now_or_never();
        room.expect("room");
        let part = vec![b'A'; RANGE_BYTES_MAX / 64];
        let padding = GzBuilder::new().extra(vec![0; 4000]);
        let mut bytes = members(&vec![part; 63]);
        bytes.extend(gzip_with(&[b'A'; RANGE_BYTES_MAX / 64], padding));
        let (data, division) = decode_in(&pool, &bytes).expect("decoded");
        assert_eq!((data.len(), division), (RANGE_BYTES_MAX, Members::Several));
    }

    #[test]
    fn a_body_of_several_members_waits_for_room_and_takes_no_more_than_its_data() {
        let pool = ChunkPool::new();
        pool.end_sample();
        let parts = [vec![b'A'; 5 * CHUNK_BYTES], vec![b'B'; 10]];
        let compressed = body(&members(&parts), 7, &pool);
        let mut decoded = BodyBytes::new(&pool, 7);
        let mut others = BodyBytes::new(&pool, 8);
        let others_bytes = BODY_POOL_BYTES_MAX - BODY_POOL_HEAD_BYTES - 3 * CHUNK_BYTES;
        others.make_room(others_bytes).now_or_never().expect("room");
        {
            let mut inflating = std::pin::pin!(inflate(&compressed, &mut decoded));
            assert_eq!(inflating.as_mut().now_or_never(), None, "no room yet");
            drop(others);
            assert_eq!(inflating.now_or_never(), Some(Ok(Members::Several)));
        }
        assert_eq!(decoded.len(), 5 * CHUNK_BYTES + 10);
        assert_eq!(decoded.room(), CHUNK_BYTES - 10);
        assert_eq!(
            decoded.pieces().collect::<Vec<_>>().concat(),
            parts.concat()
        );
    }

    #[test]
    fn members_without_data_do_not_count() {
        let decoded = |parts: &[&[u8]]| {
            let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
            let (data, division) = decode_in(&ChunkPool::new(), &members(&parts)).expect("decoded");
            assert_eq!(data, parts.concat());
            division
        };
        assert_eq!(decoded(&[b"data"]), Members::One);
        assert_eq!(decoded(&[b"", b"data"]), Members::One);
        // Without its last member, this body looks complete, and it is.
        assert_eq!(decoded(&[b"data", b""]), Members::Several);
        assert_eq!(decoded(&[b"data", b"more"]), Members::Several);
        let empty = members(&vec![Vec::new(); RANGE_BYTES_MAX / 20]);
        assert_eq!(decode(&empty), Ok(Vec::new()));
    }

    #[test]
    fn bytes_after_the_last_member_are_damage() {
        for garbage in [&[0][..], &[0; 512], b"\x1f", b"\x1f\x8b\x08", b"<html>"] {
            let mut bytes = members(&[b"one".to_vec(), b"two".to_vec()]);
            bytes.extend_from_slice(garbage);
            assert_eq!(decode(&bytes), Err(InflateError::Damaged), "{garbage:?}");
        }
    }

    fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let part = proptest::collection::vec(0_u8..16, 0..10_000);
        proptest::collection::vec(part, 1..6)
    }

    proptest! {
        #[test]
        fn compressed_data_survive_a_round_trip(
            data in proptest::collection::vec(0_u8..16, 0..60_000),
        ) {
            prop_assert_eq!(decode(&gzip(&data)), Ok(data));
        }

        #[test]
        fn concatenated_members_decode_to_concatenated_data(parts in parts()) {
            prop_assert_eq!(decode(&members(&parts)), Ok(parts.concat()));
        }

        #[test]
        fn damage_anywhere_is_detected(
            parts in parts(),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
            cut in any::<bool>(),
        ) {
            let mut damaged = Vec::new();
            let mut ends = Vec::new();
            for part in &parts {
                damaged.extend(gzip(part));
                ends.push(damaged.len());
            }
            let at = at.index(damaged.len());
            if cut { damaged.truncate(at) } else { damaged[at] ^= flip }
            // Changes to a header's time, operating system or text flag do not affect the data. A
            // cut between two members leaves a complete body.
            let left = match ends.iter().position(|end| cut && *end == at) {
                Some(last) => last + 1,
                None => parts.len(),
            };
            if let Ok(decoded) = decode(&damaged) {
                prop_assert_eq!(decoded, parts[..left].concat());
            }
        }

        #[test]
        fn bombs_of_several_members_are_rejected(
            parts in proptest::collection::vec(RANGE_BYTES_MAX / 4..RANGE_BYTES_MAX, 4..8),
            more in 1_usize..100,
        ) {
            let mut parts: Vec<Vec<u8>> = parts.iter().map(|bytes| vec![b'A'; *bytes]).collect();
            parts.push(vec![b'A'; more]);
            prop_assert_eq!(decode(&members(&parts)), Err(InflateError::TooLarge));
        }
    }
}
