//! Encodes a picture as PNG (<https://www.w3.org/TR/png-3/>), with the deflate that the program has anyway.

use super::charts::{NotDrawn, Size, memory_pixels};
use crate::timeline::Timeline;
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use std::io::{self, Write};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n'];

/// 8 bits a sample, truecolour, and the only methods of compression, filtering and no interlacing (11.2.1).
const FORMAT: [u8; 5] = [8, 2, 0, 0, 0];

/// Bytes of a pixel.
const PIXEL_BYTES: usize = 3;

/// Each line begins with its filter; none.
const NO_FILTER: u8 = 0;

/// Why a picture could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// It could not be drawn.
    #[error(transparent)]
    Drawing(#[from] NotDrawn),
    /// It could not be written.
    #[error(transparent)]
    Writing(#[from] io::Error),
}

/// Writes the picture of memory as PNG.
///
/// # Errors
/// It cannot be drawn, or `out` refuses it.
pub fn memory_png(
    timeline: &Timeline<'_>,
    size: Size,
    out: &mut dyn Write,
) -> Result<(), PngError> {
    let pixels = memory_pixels(timeline, size)?;
    Ok(write(&pixels, size, out)?)
}

fn write(pixels: &[u8], size: Size, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&SIGNATURE)?;
    let mut header = Vec::with_capacity(13);
    header.extend(size.width.to_be_bytes());
    header.extend(size.height.to_be_bytes());
    header.extend(FORMAT);
    write_chunk(out, *b"IHDR", &header)?;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    for line in pixels.chunks(size.width as usize * PIXEL_BYTES) {
        encoder.write_all(&[NO_FILTER])?;
        encoder.write_all(line)?;
    }
    write_chunk(out, *b"IDAT", &encoder.finish()?)?;
    write_chunk(out, *b"IEND", &[])
}

/// Writes a chunk: its length, its type, its data and the CRC of type and data (5.3).
fn write_chunk(out: &mut dyn Write, kind: [u8; 4], data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut crc = Crc::new();
    crc.update(&kind);
    crc.update(data);
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&kind)?;
    out.write_all(data)?;
    out.write_all(&crc.sum().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn chunks_have_their_crc_and_the_pixels_come_back() {
        let size = Size {
            width: 2,
            height: 3,
        };
        let pixels: Vec<u8> = (0..18).collect();
        let mut png = Vec::new();
        write(&pixels, size, &mut png).expect("written");
        let (signature, mut rest) = png.split_at(8);
        assert_eq!(signature, SIGNATURE);
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().expect("4 bytes")) as usize;
            let (chunk, after) = rest.split_at(12 + length);
            let mut crc = Crc::new();
            crc.update(&chunk[4..8 + length]);
            assert_eq!(chunk[8 + length..], crc.sum().to_be_bytes());
            chunks.push((chunk[4..8].to_vec(), chunk[8..8 + length].to_vec()));
            rest = after;
        }
        let kinds: Vec<&[u8]> = chunks.iter().map(|(kind, _)| kind.as_slice()).collect();
        assert_eq!(kinds, [b"IHDR", b"IDAT", b"IEND"]);
        assert_eq!(chunks[0].1, [0, 0, 0, 2, 0, 0, 0, 3, 8, 2, 0, 0, 0]);
        let mut lines = Vec::new();
        flate2::read::ZlibDecoder::new(chunks[1].1.as_slice())
            .read_to_end(&mut lines)
            .expect("zlib");
        let expected: Vec<u8> = pixels
            .chunks(6)
            .flat_map(|line| [&[0], line].concat())
            .collect();
        assert_eq!(lines, expected);
        // The CRC of an empty IEND, as every PNG ends (Annex D).
        assert!(png.ends_with(&[0xAE, 0x42, 0x60, 0x82]));
    }
}
