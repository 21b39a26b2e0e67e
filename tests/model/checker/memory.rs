//! An allocator that counts the live allocations of each thread, and refuses on demand.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// No allocation is refused.
const NEVER: u32 = u32::MAX;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    /// The number of allocations that succeed before the others are refused.
    static UNTIL_REFUSAL: Cell<u32> = const { Cell::new(NEVER) };
    static REFUSED: Cell<u32> = const { Cell::new(0) };
}

/// The layout of the memory for posts, which is kept from one run to the next: `Chunk` in
/// `src/pending/post_box.rs`.
const CHUNK: (usize, usize) = (8 * (1 + 2047), 64);

/// The number of chunks that are kept in addition to those of threads.
pub(crate) const SPARE_CHUNKS: i64 = 64;

/// The number of live chunks.
static CHUNKS: AtomicI64 = AtomicI64::new(0);

/// The number of live chunks for posts, of all threads.
pub(crate) fn chunks() -> i64 {
    CHUNKS.load(Relaxed)
}

fn count(layout: Layout, number: i64) {
    if (layout.size(), layout.align()) == CHUNK {
        CHUNKS.fetch_add(number, Relaxed);
    } else {
        LIVE.set(LIVE.get() + number);
    }
}

fn is_refused() -> bool {
    match UNTIL_REFUSAL.get() {
        NEVER => false,
        0 => {
            REFUSED.set(REFUSED.get() + 1);
            true
        }
        left => {
            UNTIL_REFUSAL.set(left - 1);
            false
        }
    }
}

/// Calls `f` with all allocations refused after the first few; returns whether any was refused.
pub(crate) fn refuse_after<R>(few: u32, f: impl FnOnce() -> R) -> (R, bool) {
    let former = (UNTIL_REFUSAL.replace(few), REFUSED.replace(0));
    let result = f();
    UNTIL_REFUSAL.set(former.0);
    (result, REFUSED.replace(former.1) > 0)
}

/// While this value lives, no allocation is refused.
pub(crate) struct Exempt(u32);

impl Exempt {
    pub(crate) fn begin() -> Exempt {
        Exempt(UNTIL_REFUSAL.replace(NEVER))
    }
}

impl Drop for Exempt {
    fn drop(&mut self) {
        UNTIL_REFUSAL.set(self.0);
    }
}

/// The allocations less the frees of this thread, without chunks; the other side may be on another
/// thread.
pub(crate) fn live() -> i64 {
    LIVE.get()
}

// SAFETY: every call is passed on to the system's allocator, or returns null, as an allocator may.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused() {
            return std::ptr::null_mut();
        }
        count(layout, 1);
        // SAFETY: the caller's guarantees are those that `System` needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, room: *mut u8, layout: Layout) {
        count(layout, -1);
        // SAFETY: as above.
        unsafe { System.dealloc(room, layout) }
    }

    unsafe fn realloc(&self, room: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_refused() {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(room, layout, size) }
    }
}
