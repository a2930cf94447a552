//! Counts what is allocated on the heap, for the recording. The allocator itself is the standard library's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

#[global_allocator]
static ALLOCATOR: Counting = Counting {
    live_bytes: AtomicUsize::new(0),
    peak_bytes: AtomicUsize::new(0),
};

/// The bytes that are allocated now.
pub(super) fn live_bytes() -> u64 {
    ALLOCATOR.live_bytes.load(Ordering::Relaxed) as u64
}

/// The most bytes that were allocated at once.
pub(super) fn peak_bytes() -> u64 {
    ALLOCATOR.peak_bytes.load(Ordering::Relaxed) as u64
}

/// The standard library's allocator, with counters. The guest has one thread, so its atomics are plain memory.
struct Counting {
    live_bytes: AtomicUsize,
    peak_bytes: AtomicUsize,
}

impl Counting {
    fn add(&self, bytes: usize) {
        let live = self.live_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if live > self.peak_bytes.load(Ordering::Relaxed) {
            self.peak_bytes.store(live, Ordering::Relaxed);
        }
    }

    fn subtract(&self, bytes: usize) {
        self.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator can only be wrapped by implementing the unsafe trait GlobalAlloc"
)]
// SAFETY: every call goes to `System` with the caller's arguments, and its result is returned, both unchanged. Counting
// touches two integers and cannot allocate, panic or unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.subtract(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.subtract(layout.size());
        self.add(size);
        // SAFETY: the caller keeps the contract of `realloc`; the pointer came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
