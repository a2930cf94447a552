//! [`FilesSink`]: a file for each range, byte for byte as the source served it.

use super::RangeSink;
use super::line::lines;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RangeName;
use std::io;
use std::path::PathBuf;

/// Writes `00000.txt`, `00001.txt` and so on into a folder.
#[derive(Debug)]
pub struct FilesSink {
    folder: PathBuf,
    mode: Mode,
    hashes: u64,
}

impl FilesSink {
    /// Writes ranges of `mode` into `folder`, which exists.
    pub const fn new(folder: PathBuf, mode: Mode) -> Self {
        Self {
            folder,
            mode,
            hashes: 0,
        }
    }

    /// The hashes so far.
    pub const fn hashes(&self) -> u64 {
        self.hashes
    }
}

impl RangeSink for FilesSink {
    fn range(&mut self, range: RangeName, body: &[u8]) -> io::Result<()> {
        self.hashes += lines(body, self.mode).count() as u64;
        std::fs::write(self.folder.join(range.file_name()), body)
    }
}
