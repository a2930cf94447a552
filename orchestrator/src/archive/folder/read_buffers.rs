//! [`ReadBuffers`]: memory for parts of tars that is used again and again. To allocate and to clear it for every range
//! would take 8 % of the time of an answer.
//!
//! The memory is mapped, so that what is not needed any more goes back to the system. With malloc, the holes that ranges
//! left when compressed ones took their place in the cache came to 90 MB.

use bytes::Bytes;
use memmap2::MmapMut;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that are kept for later. More are freed.
const SPARE_MAX: usize = 32;

/// A larger buffer is freed, in bytes: a range has 75 KB.
const SPARE_BYTES_MAX: usize = 256 * 1024;

/// The length of a buffer is a multiple of this, in bytes, so that the next range fits, too.
const STEP_BYTES: usize = 4 * 1024;

/// Buffers that are free.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadBuffers(Arc<Mutex<Vec<MmapMut>>>);

impl ReadBuffers {
    /// A buffer of `length` bytes, whose content may be anything that was read before.
    ///
    /// # Errors
    /// The system gives no memory.
    pub(super) fn take(&self, length: usize) -> io::Result<ReadBuffer> {
        let spare = self.lock().pop().filter(|spare| spare.len() >= length);
        let bytes = match spare {
            Some(spare) => spare,
            // No mapping is empty.
            None => MmapMut::map_anon(length.max(1).next_multiple_of(STEP_BYTES))?,
        };
        Ok(ReadBuffer {
            bytes: Some(bytes),
            length,
            free: self.clone(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<MmapMut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that becomes free when nobody has it any more.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    /// `None` only while it is dropped.
    bytes: Option<MmapMut>,
    length: usize,
    free: ReadBuffers,
}

impl ReadBuffer {
    /// The bytes to read into.
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        let bytes = self.bytes.as_deref_mut().unwrap_or_default();
        &mut bytes[..self.length]
    }
}

impl From<ReadBuffer> for Bytes {
    fn from(buffer: ReadBuffer) -> Self {
        Self::from_owner(buffer)
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes.as_deref().unwrap_or_default()[..self.length]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        let mut spare = self.free.lock();
        if let Some(bytes) = self.bytes.take()
            && spare.len() < SPARE_MAX
            && bytes.len() <= SPARE_BYTES_MAX
        {
            spare.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_its_last_reader_has_gone() {
        let buffers = ReadBuffers::default();
        let mut first = buffers.take(5000).expect("memory");
        first.as_mut_slice().fill(b'x');
        let read = Bytes::from(first);
        let (address, part) = (read.as_ptr(), read.slice(1000..));
        drop(read);
        assert_ne!(
            buffers.take(10).expect("memory").as_ref().as_ptr(),
            address,
            "it is still read"
        );
        assert!(part.iter().all(|byte| *byte == b'x'));
        drop(part);
        let again = buffers.take(6000).expect("memory");
        assert_eq!(again.as_ref().as_ptr(), address);
        assert_eq!(again.as_ref().len(), 6000);
    }

    #[test]
    fn few_and_no_large_buffers_are_kept() {
        let buffers = ReadBuffers::default();
        let taken: Vec<_> = (0..2 * SPARE_MAX)
            .map(|_| buffers.take(1).expect("memory"))
            .collect();
        drop(taken);
        assert_eq!(buffers.lock().len(), SPARE_MAX);
        buffers.lock().clear();
        drop(buffers.take(SPARE_BYTES_MAX + 1).expect("memory"));
        assert!(buffers.lock().is_empty());
    }
}
