//! Compresses ranges. They are hex digits in random order, so only a code per character gains anything.

use super::coding::Coding;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use std::io;
use zlib_rs::{DeflateConfig, Method, ReturnCode, Strategy, compress_bound, compress_slice};

/// gzip without a search for repetitions, of which there are none: with it, a range takes twice as long and becomes no
/// smaller.
const GZIP: DeflateConfig = DeflateConfig {
    level: 2,
    method: Method::Deflated,
    // 32 KiB, the most, and 16 for gzip's header and trailer (zlib's deflateInit2).
    window_bits: 15 + 16,
    mem_level: 8,
    strategy: Strategy::HuffmanOnly,
};

/// What gzip's header and trailer take beyond zlib's, which `compress_bound` allows for, in bytes (RFC 1952, 2.2).
const GZIP_EXTRA_BYTES: usize = 12;

/// Brotli's effort. Qualities from 3 to 5 take up to four times as long and save at most 0.6 %.
const BROTLI_QUALITY: i32 = 2;

/// Brotli's window, as an exponent: 256 KiB hold every range.
const BROTLI_WINDOW_BITS: i32 = 18;

/// Compresses a body. That takes half a millisecond, or one for Brotli: on another thread it would take no less of a
/// processor, and each thread that ever did it would keep its own memory.
pub(super) fn compress(body: Bytes, coding: Coding) -> io::Result<Bytes> {
    let compressed = match coding {
        Coding::Identity => return Ok(body),
        Coding::Gzip => gzip(&body)?,
        Coding::Brotli => {
            let mut compressed = Vec::with_capacity(body.len() * 2 / 3);
            let parameters = BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                lgwin: BROTLI_WINDOW_BITS,
                size_hint: body.len(),
                ..BrotliEncoderParams::default()
            };
            brotli::BrotliCompress(&mut &*body, &mut compressed, &parameters)?;
            compressed
        }
    };
    // What is cached has just the room that it needs. Shortened instead, it would leave a hole behind it.
    Ok(Bytes::copy_from_slice(&compressed))
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressed = vec![0; compress_bound(body.len()) + GZIP_EXTRA_BYTES];
    let (written, code) = compress_slice(&mut compressed, body, GZIP);
    if code != ReturnCode::Ok {
        return Err(io::Error::other(format!("gzip failed: {code:?}")));
    }
    let bytes = written.len();
    compressed.truncate(bytes);
    Ok(compressed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{GeneratorConfig, RangeBuffer};
    use prefix_tar::protocol::prefix::Prefix;
    use proptest::prelude::*;
    use std::io::{Read as _, Write as _};

    fn compressed(body: &[u8], coding: Coding) -> Bytes {
        compress(Bytes::copy_from_slice(body), coding).expect("compressed")
    }

    fn decoded(compressed: &[u8], coding: Coding) -> Vec<u8> {
        let mut decoded = Vec::new();
        let read = match coding {
            Coding::Identity => return compressed.to_vec(),
            Coding::Gzip => flate2::read::GzDecoder::new(compressed).read_to_end(&mut decoded),
            Coding::Brotli => brotli::Decompressor::new(compressed, 4096).read_to_end(&mut decoded),
        };
        read.expect("decoded");
        decoded
    }

    #[test]
    fn a_search_for_repetitions_would_make_a_range_no_smaller() {
        let generator = GeneratorConfig::default().generator().expect("a generator");
        let mut buffer = RangeBuffer::default();
        generator.make(Prefix::from_number(0xAB).range(7), &mut buffer);
        let range = buffer.body();
        let mut searched = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        searched.write_all(range).expect("compressed");
        let searched = searched.finish().expect("compressed").len();
        for coding in [Coding::Gzip, Coding::Brotli] {
            let compressed = compressed(range, coding);
            assert!(compressed.len() <= searched, "{coding:?}");
            assert_eq!(decoded(&compressed, coding), range);
        }
    }

    proptest! {
        #[test]
        fn any_body_is_the_same_when_it_is_decoded(body in proptest::collection::vec(any::<u8>(), 0..3000)) {
            for coding in [Coding::Identity, Coding::Gzip, Coding::Brotli] {
                prop_assert_eq!(&decoded(&compressed(&body, coding), coding), &body);
            }
        }
    }
}
