//! Counts what is allocated on the heap, as a whole and by [`Phase`], for the recording. The allocator itself is the
//! standard library's.

use crate::limits::HEAP_HEADER_BYTES;
use crate::protocol::phase::{Phase, PhaseHeap};
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::poll_fn;
use std::pin::pin;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The guest has one thread, so that its atomics are plain memory.
static HEAP: Counter = Counter::new();
static PHASES: [Counter; Phase::ALL.len()] = [const { Counter::new() }; Phase::ALL.len()];
static PHASE: AtomicU8 = AtomicU8::new(Phase::Other as u8);

/// The bytes that are allocated now.
pub(super) fn live_bytes() -> u64 {
    HEAP.live_bytes.load(Relaxed) as u64
}

/// The most bytes that were allocated at once.
pub(super) fn peak_bytes() -> u64 {
    HEAP.peak_bytes.load(Relaxed) as u64
}

/// What each phase allocated.
pub(super) fn phases() -> Vec<PhaseHeap> {
    let phases = Phase::ALL.into_iter().zip(&PHASES);
    phases
        .map(|(phase, counter)| PhaseHeap {
            phase,
            allocations: counter.allocations.load(Relaxed),
            allocated_bytes: counter.allocated_bytes.load(Relaxed),
            peak_bytes: counter.peak_bytes.load(Relaxed) as u64,
        })
        .collect()
}

/// Attributes to `phase` what `work` allocates.
pub(super) fn within<T>(phase: Phase, work: impl FnOnce() -> T) -> T {
    let outer = PHASE.swap(phase as u8, Relaxed);
    let result = work();
    PHASE.store(outer, Relaxed);
    result
}

/// Attributes to `phase` what `work` allocates whenever it is polled.
pub(super) async fn during<T>(phase: Phase, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| within(phase, || work.as_mut().poll(context))).await
}

/// The allocations of one phase, or of all.
struct Counter {
    allocations: AtomicU64,
    allocated_bytes: AtomicU64,
    live_bytes: AtomicUsize,
    peak_bytes: AtomicUsize,
}

impl Counter {
    const fn new() -> Self {
        Self {
            allocations: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            live_bytes: AtomicUsize::new(0),
            peak_bytes: AtomicUsize::new(0),
        }
    }

    fn add(&self, bytes: usize) {
        self.allocations.fetch_add(1, Relaxed);
        self.allocated_bytes.fetch_add(bytes as u64, Relaxed);
        let live = self.live_bytes.fetch_add(bytes, Relaxed) + bytes;
        if live > self.peak_bytes.load(Relaxed) {
            self.peak_bytes.store(live, Relaxed);
        }
    }

    fn subtract(&self, bytes: usize) {
        self.live_bytes.fetch_sub(bytes, Relaxed);
    }
}

fn add(phase: u8, bytes: usize) {
    HEAP.add(bytes);
    if let Some(counter) = PHASES.get(usize::from(phase)) {
        counter.add(bytes);
    }
}

fn subtract(phase: u8, bytes: usize) {
    HEAP.subtract(bytes);
    if let Some(counter) = PHASES.get(usize::from(phase)) {
        counter.subtract(bytes);
    }
}

/// The layout of an allocation with its header, and the offset of the bytes that the caller asked for. The header's first
/// byte is the phase that allocated. The offset is at least [`HEAP_HEADER_BYTES`], and depends on the alignment only.
fn with_header(layout: Layout) -> Option<(Layout, usize)> {
    Layout::new::<Header>().extend(layout).ok()
}

/// As wide as the alignment that most allocations have anyway.
type Header = u64;

const _: () = assert!(size_of::<Header>() == HEAP_HEADER_BYTES);

/// The standard library's allocator, with counters and a header before each allocation.
struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator can only be wrapped by implementing the unsafe trait GlobalAlloc"
)]
impl Counting {
    /// Counts an allocation, and returns the pointer for its caller.
    ///
    /// # Safety
    /// `base` is null, or begins `offset` + `bytes` bytes that `System` has allocated; `offset` is at least 1.
    unsafe fn begin(base: *mut u8, offset: usize, bytes: usize) -> *mut u8 {
        if base.is_null() {
            return base;
        }
        let phase = PHASE.load(Relaxed);
        add(phase, bytes);
        // SAFETY: both the first byte and the one at `offset`, or the end if `bytes` is 0, are in the allocation.
        unsafe {
            base.write(phase);
            base.add(offset)
        }
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator can only be wrapped by implementing the unsafe trait GlobalAlloc"
)]
// SAFETY: every allocation is one of `System` for a layout that `Layout::extend` made of a header and the caller's
// layout, so the returned pointer has the caller's size and alignment. `dealloc` and `realloc` get the caller's layout
// again, which by their contract is the one of the allocation, and so find the same offset and the same base. Counting
// touches integers only, and cannot allocate, panic or unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((whole, offset)) = with_header(layout) else {
            return null_mut();
        };
        // SAFETY: `whole` is not empty, because it has the header, and `begin` gets what was allocated for it.
        unsafe { Self::begin(System.alloc(whole), offset, layout.size()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((whole, offset)) = with_header(layout) else {
            return null_mut();
        };
        // SAFETY: as in `alloc`. `begin` writes to the header only, so the caller's bytes stay zero.
        unsafe { Self::begin(System.alloc_zeroed(whole), offset, layout.size()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some((whole, offset)) = with_header(layout) else {
            return;
        };
        // SAFETY: `alloc` returned `pointer` for this layout, so the base is `offset` before it and has the header.
        unsafe {
            let base = pointer.sub(offset);
            subtract(base.read(), layout.size());
            System.dealloc(base, whole);
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let changed = Layout::from_size_align(size, layout.align()).ok();
        let (Some((whole, offset)), Some((changed, _))) =
            (with_header(layout), changed.and_then(with_header))
        else {
            return null_mut();
        };
        // SAFETY: as in `dealloc`; the new size is that of a valid layout with the same alignment, so `offset` is the
        // same. If `System` returns null, the old allocation stays as it is, and stays counted.
        unsafe {
            let base = pointer.sub(offset);
            let phase = base.read();
            let moved = System.realloc(base, whole, changed.size());
            if !moved.is_null() {
                subtract(phase, layout.size());
            }
            Self::begin(moved, offset, size)
        }
    }
}
