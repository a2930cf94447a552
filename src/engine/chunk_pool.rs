//! Holds range bodies in equal chunks of memory, limited in number and reused.
//!
//! Bodies are consumed in order, so the pool has a head: the range that everything waits for. Part
//! of the pool ([`BODY_POOL_HEAD_BYTES`]) is reserved for the head. Another part is reserved for
//! the length sample: the first ranges, which the tar's length is estimated from. Their bodies stay
//! in memory until the sample is complete and the upload starts. The other ranges share what
//! remains. When that is used up, they wait until they become the head or memory is returned. So a
//! full pool cannot stop an invocation, whatever the source answers.

use crate::limits::{
    BODY_POOL_BYTES_MAX, BODY_POOL_HEAD_BYTES, BODY_POOL_SAMPLE_BYTES, CHUNK_BYTES,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};

const CHUNKS_MAX: usize = BODY_POOL_BYTES_MAX / CHUNK_BYTES;
const HEAD_CHUNKS: usize = BODY_POOL_HEAD_BYTES / CHUNK_BYTES;
const SAMPLE_CHUNKS: usize = BODY_POOL_SAMPLE_BYTES / CHUNK_BYTES;

type Chunk = Box<[u8]>;

/// The pool of one invocation.
#[derive(Debug)]
pub struct ChunkPool {
    free: RefCell<Vec<Chunk>>,
    in_use: Cell<usize>,
    head: Cell<u16>,
    reserved_for_sample: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl ChunkPool {
    /// An empty pool whose head is range 0.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            free: RefCell::default(),
            in_use: Cell::new(0),
            head: Cell::new(0),
            reserved_for_sample: Cell::new(SAMPLE_CHUNKS),
            waiting: RefCell::default(),
        })
    }

    /// The memory of the chunks that hold bodies, in bytes.
    pub const fn bytes_in_use(&self) -> usize {
        self.in_use.get() * CHUNK_BYTES
    }

    /// Sets the index of the range that may use the head's reserve: the first incomplete one.
    pub fn set_head(&self, index: u16) {
        self.head.set(index);
        self.wake_all();
    }

    /// Counts `body` as part of the length sample, and shrinks the sample's reserve by its size.
    pub fn count_sampled(&self, body: &BodyBytes) {
        let reserved = self.reserved_for_sample.get();
        self.reserved_for_sample
            .set(reserved.saturating_sub(body.chunks.len()));
        self.wake_all();
    }

    /// Releases the sample's reserve: the sample is complete.
    pub fn end_sample(&self) {
        self.reserved_for_sample.set(0);
        self.wake_all();
    }

    fn wake_all(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    fn has_room(&self, index: u16, chunks: usize) -> bool {
        let reserved = if index == self.head.get() {
            0
        } else {
            HEAD_CHUNKS + self.reserved_for_sample.get()
        };
        self.in_use.get() + chunks + reserved <= CHUNKS_MAX
    }

    fn take(&self, chunks: usize, into: &mut Vec<Chunk>) {
        self.in_use.set(self.in_use.get() + chunks);
        let mut free = self.free.borrow_mut();
        into.extend((0..chunks).map(|_| {
            free.pop()
                .unwrap_or_else(|| vec![0; CHUNK_BYTES].into_boxed_slice())
        }));
    }

    fn give_back(&self, chunks: &mut Vec<Chunk>) {
        self.in_use.set(self.in_use.get() - chunks.len());
        self.free.borrow_mut().append(chunks);
        self.wake_all();
    }
}

/// The bytes of a body, in chunks of a pool. Dropping it returns the chunks.
#[derive(Debug)]
pub struct BodyBytes {
    pool: Rc<ChunkPool>,
    index: u16,
    chunks: Vec<Chunk>,
    len: usize,
}

/// More bytes than [`BodyBytes::make_room`] has made room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for the bytes")]
pub struct NoRoom;

impl BodyBytes {
    /// An empty body for the range at `index`.
    pub fn new(pool: &Rc<ChunkPool>, index: u16) -> Self {
        Self {
            pool: Rc::clone(pool),
            index,
            chunks: Vec::new(),
            len: 0,
        }
    }

    /// The length, in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the body is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes the bytes and keeps their room.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Bytes that can be appended without making room.
    pub fn room(&self) -> usize {
        self.chunks.len() * CHUNK_BYTES - self.len
    }

    /// Waits until at least `bytes` more bytes can be appended.
    pub async fn make_room(&mut self, bytes: usize) {
        let missing = bytes.saturating_sub(self.room()).div_ceil(CHUNK_BYTES);
        if missing == 0 {
            return;
        }
        std::future::poll_fn(|context| {
            if self.pool.has_room(self.index, missing) {
                self.pool.take(missing, &mut self.chunks);
                return Poll::Ready(());
            }
            self.pool.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Appends bytes, for which there must be room.
    ///
    /// # Errors
    /// There is not enough room. Nothing is appended.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), NoRoom> {
        if bytes.len() > self.room() {
            return Err(NoRoom);
        }
        while !bytes.is_empty() {
            let free = self.free_slice();
            let fitting = free.len().min(bytes.len());
            let (now, later) = bytes.split_at(fitting);
            free[..fitting].copy_from_slice(now);
            self.len += fitting;
            bytes = later;
        }
        Ok(())
    }

    /// The free rest of the current chunk, for a decoder to write to. Empty if there is no room.
    pub fn free_slice(&mut self) -> &mut [u8] {
        let (chunk, at) = (self.len / CHUNK_BYTES, self.len % CHUNK_BYTES);
        match self.chunks.get_mut(chunk) {
            Some(chunk) => &mut chunk[at..],
            None => &mut [],
        }
    }

    /// Appends the first `bytes` bytes written to [`Self::free_slice`].
    ///
    /// # Errors
    /// There is not enough room. Nothing is appended.
    pub fn advance(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes > self.room() {
            return Err(NoRoom);
        }
        self.len += bytes;
        Ok(())
    }

    /// The bytes in order, in pieces of at most one chunk.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self.len;
        self.chunks.iter().map_while(move |chunk| {
            let piece = chunk.get(..left.min(CHUNK_BYTES))?;
            left -= piece.len();
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// The last `COUNT` bytes, if there are that many.
    pub fn last_bytes<const COUNT: usize>(&self) -> Option<[u8; COUNT]> {
        let first = self.len.checked_sub(COUNT)?;
        let mut last = [0; COUNT];
        for (place, at) in last.iter_mut().zip(first..) {
            *place = *self.chunks.get(at / CHUNK_BYTES)?.get(at % CHUNK_BYTES)?;
        }
        Some(last)
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        self.pool.give_back(&mut self.chunks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::task::noop_waker_ref;
    use proptest::prelude::*;
    use std::pin::pin;
    use std::task::Context;

    fn fills(body: &mut BodyBytes, bytes: usize) -> bool {
        body.make_room(bytes).now_or_never().is_some()
    }

    fn pool_after_sample() -> Rc<ChunkPool> {
        let pool = ChunkPool::new();
        pool.end_sample();
        pool
    }

    #[test]
    fn a_sample_of_the_largest_ranges_fits_into_a_pool_that_others_have_filled() {
        let pool = ChunkPool::new();
        let mut later = Vec::new();
        for index in 9.. {
            let mut body = BodyBytes::new(&pool, index);
            if !fills(&mut body, CHUNK_BYTES) {
                break;
            }
            later.push(body);
        }
        assert!(!later.is_empty());
        let mut sample = crate::engine::length::LengthSample::default();
        let mut sampled = Vec::new();
        for index in 0.. {
            pool.set_head(index);
            let mut received = BodyBytes::new(&pool, index);
            assert!(fills(&mut received, crate::limits::RANGE_WIRE_BYTES_MAX));
            // A last chunk with a single byte wastes the most.
            let range_bytes = crate::limits::RANGE_BYTES_MAX - CHUNK_BYTES + 1;
            let mut decoded = BodyBytes::new(&pool, index);
            assert!(fills(&mut decoded, range_bytes));
            drop(received);
            pool.count_sampled(&decoded);
            sampled.push(decoded);
            sample.add(range_bytes as u64);
            if sample.is_complete() {
                break;
            }
        }
    }

    #[test]
    fn only_the_head_may_use_its_reserve() {
        let pool = pool_after_sample();
        let mut later = BodyBytes::new(&pool, 7);
        assert!(fills(
            &mut later,
            BODY_POOL_BYTES_MAX - BODY_POOL_HEAD_BYTES
        ));
        let mut also_later = BodyBytes::new(&pool, 8);
        assert!(!fills(&mut also_later, 1));
        let mut head = BodyBytes::new(&pool, 0);
        assert!(fills(&mut head, BODY_POOL_HEAD_BYTES));
        assert!(!fills(&mut head, BODY_POOL_HEAD_BYTES + 1));
    }

    #[test]
    fn a_waiting_range_wakes_when_it_becomes_the_head_or_memory_is_returned() {
        let pool = pool_after_sample();
        let mut first = BodyBytes::new(&pool, 7);
        assert!(fills(
            &mut first,
            BODY_POOL_BYTES_MAX - BODY_POOL_HEAD_BYTES
        ));

        let (counter, count) = futures_counter();
        let mut context = Context::from_waker(&counter);
        let mut second = BodyBytes::new(&pool, 8);
        {
            let mut waits = pin!(second.make_room(1));
            assert!(waits.as_mut().poll(&mut context).is_pending());
            pool.set_head(8);
            assert_eq!(count(), 1);
            assert!(waits.as_mut().poll(&mut context).is_ready());
        }
        let mut third = BodyBytes::new(&pool, 9);
        let mut waits = pin!(third.make_room(1));
        assert!(waits.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert_eq!(count(), 2);
        assert!(
            waits
                .as_mut()
                .poll(&mut Context::from_waker(noop_waker_ref()))
                .is_ready()
        );
    }

    fn futures_counter() -> (Waker, impl Fn() -> usize) {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = std::sync::Arc::new(Count(0.into()));
        let waker = Waker::from(std::sync::Arc::clone(&count));
        (waker, move || {
            count.0.load(std::sync::atomic::Ordering::Relaxed)
        })
    }

    proptest! {
        #[test]
        fn appended_pieces_read_back_as_one_body(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20_000), 0..8),
        ) {
            let pool = ChunkPool::new();
            let mut body = BodyBytes::new(&pool, 0);
            for piece in &pieces {
                prop_assert!(fills(&mut body, piece.len()));
                prop_assert_eq!(body.append(piece), Ok(()));
            }
            let expected: Vec<u8> = pieces.concat();
            prop_assert_eq!(body.len(), expected.len());
            prop_assert_eq!(body.last_bytes::<4>(), expected.last_chunk::<4>().copied());
            prop_assert_eq!(body.pieces().collect::<Vec<_>>().concat(), expected);
            drop(body);
            prop_assert_eq!(pool.in_use.get(), 0);
        }

        #[test]
        fn chunks_are_reused_within_the_limit(
            sizes in proptest::collection::vec(0..=crate::limits::RANGE_BYTES_MAX, 1..60),
        ) {
            let pool = pool_after_sample();
            let mut held = std::collections::VecDeque::new();
            for (index, size) in sizes.iter().enumerate() {
                let index = u16::try_from(index).expect("few sizes");
                let mut body = BodyBytes::new(&pool, index);
                while !fills(&mut body, *size) {
                    prop_assert!(held.pop_front().is_some(), "the head waits although nothing is held");
                    pool.set_head(index);
                }
                held.push_back(body);
                prop_assert!(pool.in_use.get() + pool.free.borrow().len() <= CHUNKS_MAX);
            }
        }
    }
}
