//! Decodes gzip bodies (RFC 1952) with a limit on the decoded size.
//!
//! A body is decoded once it is complete. So only one inflater with its 32 KiB window exists at a
//! time, not one per request in flight.

use crate::engine::chunk_pool::BodyBytes;
use crate::limits::RANGE_BYTES_MAX;
use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, Read};

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// Not gzip, cut off or damaged.
    #[error("the gzip body is damaged or cut off")]
    Damaged,
    /// It decodes to more than a range may have.
    #[error("the gzip body decodes to more than {RANGE_BYTES_MAX} bytes")]
    TooLarge,
}

/// The decoded size in bytes, which the last four bytes of a gzip body state. In a body that was
/// cut off, they are arbitrary.
///
/// # Errors
/// The body is too short, or states a larger size than a range may have.
pub fn stated_bytes(body: &BodyBytes) -> Result<usize, InflateError> {
    let stated = body.last_bytes::<4>().ok_or(InflateError::Damaged)?;
    match usize::try_from(u32::from_le_bytes(stated)) {
        Ok(bytes) if bytes <= RANGE_BYTES_MAX => Ok(bytes),
        _ => Err(InflateError::TooLarge),
    }
}

/// Decodes `body` into `decoded`, which must have room for the size that `body` states.
///
/// # Errors
/// The body is damaged: its size or checksum is not as stated, or other bytes follow.
pub fn inflate(body: &BodyBytes, decoded: &mut BodyBytes) -> Result<(), InflateError> {
    let stated = stated_bytes(body)?;
    let mut decoder = GzDecoder::new(Pieces::new(body.pieces()));
    while decoded.len() < stated {
        let left = stated - decoded.len();
        let free = decoded.free_slice();
        let fitting = free.len().min(left);
        let read = decoder
            .read(&mut free[..fitting])
            .map_err(|_| InflateError::Damaged)?;
        if read == 0 {
            return Err(InflateError::Damaged);
        }
        decoded.advance(read).map_err(|_| InflateError::Damaged)?;
    }
    // One more read makes the decoder compare the checksum. It must return nothing.
    match decoder.read(&mut [0]) {
        Ok(0) if decoder.get_mut().fill_buf().is_ok_and(<[u8]>::is_empty) => Ok(()),
        _ => Err(InflateError::Damaged),
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
    use flate2::{Compression, GzBuilder};
    use futures::FutureExt as _;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn gzip(data: &[u8], builder: GzBuilder) -> Vec<u8> {
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(data).expect("written");
        encoder.finish().expect("finished")
    }

    fn body(bytes: &[u8], index: u16, pool: &std::rc::Rc<ChunkPool>) -> BodyBytes {
        let mut body = BodyBytes::new(pool, index);
        body.make_room(bytes.len()).now_or_never().expect("room");
        body.append(bytes).expect("room");
        body
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, InflateError> {
        let pool = ChunkPool::new();
        let compressed = body(bytes, 0, &pool);
        let mut decoded = BodyBytes::new(&pool, 0);
        let stated = stated_bytes(&compressed)?;
        decoded.make_room(stated).now_or_never().expect("room");
        inflate(&compressed, &mut decoded)?;
        Ok(decoded.pieces().collect::<Vec<_>>().concat())
    }

    #[test]
    fn optional_header_fields_are_skipped() {
        let builder = GzBuilder::new()
            .extra(vec![7; 300])
            .filename("AB7FF.txt")
            .comment("a comment");
        let bytes = gzip(b"0123456789", builder);
        assert_eq!(decode(&bytes), Ok(b"0123456789".to_vec()));
    }

    #[test]
    fn a_gzip_bomb_is_rejected_by_its_stated_and_its_actual_size() {
        let bomb = gzip(&vec![b'A'; RANGE_BYTES_MAX + 1], GzBuilder::new());
        assert_eq!(decode(&bomb), Err(InflateError::TooLarge));
        let mut lying = bomb;
        let at = lying.len() - 4;
        lying[at..].copy_from_slice(&100_u32.to_le_bytes());
        assert_eq!(decode(&lying), Err(InflateError::Damaged));
        let largest = vec![b'A'; RANGE_BYTES_MAX];
        let bytes = gzip(&largest, GzBuilder::new());
        assert_eq!(decode(&bytes), Ok(largest));
    }

    proptest! {
        #[test]
        fn compressed_data_survive_a_round_trip(
            data in proptest::collection::vec(0_u8..16, 0..60_000),
        ) {
            let bytes = gzip(&data, GzBuilder::new());
            prop_assert_eq!(decode(&bytes), Ok(data));
        }

        #[test]
        fn damage_is_detected(
            data in proptest::collection::vec(0_u8..16, 1..30_000),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
            cut in any::<bool>(),
        ) {
            let whole = gzip(&data, GzBuilder::new());
            let mut damaged = whole.clone();
            let at = at.index(damaged.len());
            if cut { damaged.truncate(at) } else { damaged[at] ^= flip }
            // Changes to the header's time, operating system or text flag do not affect the data.
            if let Ok(decoded) = decode(&damaged) {
                prop_assert_eq!(decoded, data);
            }
        }
    }
}
