//! [`RangeSource`]: where the served ranges come from.

use crate::generate::{Generator, GeneratorConfig, RangeBuffer};
use crate::regular_file;
use bytes::Bytes;
use prefix_tar::protocol::mode::Mode;
use prefix_tar::protocol::prefix::RangeName;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest file that is served, in bytes. It exceeds the largest range, so that a test can serve
/// one that is too long.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The last second that an HTTP date can name, the end of the year 9999, since 1970.
const HTTP_DATE_MAX: u64 = 253_402_300_799;

/// When synthetic ranges were last modified, in seconds since 1970: 2026-01-01. The same seed gives the same tars.
const SYNTHETIC_MODIFIED: u64 = 1_767_225_600;

/// Buffers of synthetic ranges that are kept for later ones: for the largest window. They take about 20 MB.
const SPARE_BUFFERS_MAX: usize = 128;

/// Where ranges come from.
#[derive(Debug)]
pub struct RangeSource {
    kind: Kind,
    mode: Mode,
}

#[derive(Debug)]
enum Kind {
    Folder(PathBuf),
    Synthetic(Box<Synthetic>),
}

/// A generator, and buffers for what it makes.
#[derive(Debug)]
struct Synthetic {
    generator: Generator,
    spare: Spare,
}

/// Buffers that no body uses.
type Spare = Arc<Mutex<Vec<RangeBuffer>>>;

/// A range that exists.
pub(super) struct FoundRange<'source> {
    pub(super) modified: SystemTime,
    /// A strong ETag, in quotes.
    pub(super) etag: String,
    content: Content<'source>,
}

enum Content<'source> {
    File(File, u64),
    Synthetic(&'source Synthetic, RangeName),
}

impl RangeSource {
    /// A folder with a file for each range of SHA-1 hashes.
    pub const fn folder(folder: PathBuf) -> Self {
        Self::folder_of(Mode::Sha1, folder)
    }

    /// A folder with a file for each range. No file says of which mode it is.
    pub const fn folder_of(mode: Mode, folder: PathBuf) -> Self {
        Self {
            kind: Kind::Folder(folder),
            mode,
        }
    }

    /// Which hashes it has.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Synthetic ranges, made on request.
    ///
    /// # Errors
    /// As [`GeneratorConfig::generator`].
    pub fn synthetic(config: GeneratorConfig) -> anyhow::Result<Self> {
        let synthetic = Synthetic {
            generator: config.generator()?,
            spare: Spare::default(),
        };
        Ok(Self {
            kind: Kind::Synthetic(Box::new(synthetic)),
            mode: config.mode,
        })
    }

    /// Finds a range without reading or making it.
    pub(super) fn find(&self, range: RangeName) -> io::Result<FoundRange<'_>> {
        match &self.kind {
            Kind::Folder(folder) => {
                let (file, metadata) = regular_file::open(&folder.join(range.file_name()))?;
                find_file(file, &metadata)
            }
            Kind::Synthetic(synthetic) => {
                let config = synthetic.generator.config();
                let (seed, hashes) = (config.seed, config.hashes_per_range);
                Ok(FoundRange {
                    modified: UNIX_EPOCH + Duration::from_secs(SYNTHETIC_MODIFIED),
                    etag: match self.mode {
                        Mode::Sha1 => format!("\"{range}-{seed:x}-{hashes:x}\""),
                        Mode::Ntlm => format!("\"{range}-{seed:x}-{hashes:x}-ntlm\""),
                    },
                    content: Content::Synthetic(synthetic, range),
                })
            }
        }
    }

    /// Whether finding and reading a range can block.
    pub(super) const fn blocks(&self) -> bool {
        matches!(self.kind, Kind::Folder(_))
    }
}

fn find_file<'source>(file: File, metadata: &Metadata) -> io::Result<FoundRange<'source>> {
    let bytes = metadata.len();
    if bytes > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "the file has {bytes} bytes; at most {FILE_BYTES_MAX} are served"
        )));
    }
    let seconds = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
        .min(HTTP_DATE_MAX);
    Ok(FoundRange {
        modified: UNIX_EPOCH + Duration::from_secs(seconds),
        etag: format!("\"{seconds:x}-{bytes:x}\""),
        content: Content::File(file, bytes),
    })
}

impl FoundRange<'_> {
    /// Reads or makes the body.
    pub(super) fn body(self) -> io::Result<Bytes> {
        match self.content {
            Content::File(mut file, bytes) => {
                let mut body = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0) + 1);
                file.read_to_end(&mut body)?;
                Ok(body.into())
            }
            Content::Synthetic(synthetic, range) => Ok(synthetic.body(range)),
        }
    }
}

impl Synthetic {
    fn body(&self, range: RangeName) -> Bytes {
        let spare = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut buffer = spare.unwrap_or_default();
        self.generator.make(range, &mut buffer);
        Bytes::from_owner(LentBuffer {
            buffer,
            spare: Arc::clone(&self.spare),
        })
    }
}

/// A buffer whose body is being sent. It is spare again when this is dropped.
struct LentBuffer {
    buffer: RangeBuffer,
    spare: Spare,
}

impl AsRef<[u8]> for LentBuffer {
    fn as_ref(&self) -> &[u8] {
        self.buffer.body()
    }
}

impl Drop for LentBuffer {
    fn drop(&mut self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS_MAX {
            spare.push(std::mem::take(&mut self.buffer));
        }
    }
}
