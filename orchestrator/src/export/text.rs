//! [`TextSink`]: one sorted list of `HASH:COUNT` lines, as the official downloader writes it.

use super::RangeSink;
use super::line::lines;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RangeName;
use std::io::{self, Write};

/// Writes a line for every hash, each with LF at its end.
#[derive(Debug)]
pub struct TextSink<Out> {
    out: Out,
    mode: Mode,
    /// The lines of one range.
    text: Vec<u8>,
    hashes: u64,
}

impl<Out: Write> TextSink<Out> {
    /// Writes hashes of `mode` to `out`, a range at a time.
    pub const fn new(out: Out, mode: Mode) -> Self {
        Self {
            out,
            mode,
            text: Vec::new(),
            hashes: 0,
        }
    }

    /// The hashes so far.
    pub const fn hashes(&self) -> u64 {
        self.hashes
    }

    /// Flushes what is written.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<u64> {
        self.out.flush()?;
        Ok(self.hashes)
    }
}

impl<Out: Write> RangeSink for TextSink<Out> {
    fn range(&mut self, range: RangeName, body: &[u8]) -> io::Result<()> {
        let range = range.to_string();
        self.text.clear();
        for line in lines(body, self.mode) {
            self.text.extend_from_slice(range.as_bytes());
            self.text.extend_from_slice(line.text);
            self.text.push(b'\n');
            self.hashes += 1;
        }
        self.out.write_all(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_whole_hash_and_a_line_feed() {
        let mut sink = TextSink::new(Vec::new(), Mode::Sha1);
        let (one, two) = ("0".repeat(35), "F".repeat(35));
        for (range, body) in [
            ("00000", format!("{one}:1\r\n{two}:20")),
            ("ABCDE", format!("{two}:9999999999\r\n")),
        ] {
            let range = range.parse().expect("a range");
            sink.range(range, body.as_bytes()).expect("written");
        }
        let text = String::from_utf8(sink.out).expect("text");
        let expected = format!("00000{one}:1\n00000{two}:20\nABCDE{two}:9999999999\n");
        assert_eq!(text, expected);
        assert_eq!(sink.hashes, 3);
    }
}
