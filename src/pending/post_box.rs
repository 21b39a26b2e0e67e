//! Memory for posts, which one thread allocates and another frees.
//!
//! Freeing memory of another thread costs malloc more than the post itself. So each thread
//! allocates its posts from chunks, in order, and the thread that takes the last post of a chunk
//! keeps the chunk for others: a flood would otherwise spend a sixth of its time on memory that
//! malloc returns to the kernel and gets back. A thread that has posted keeps one chunk until it
//! exits. Larger values are allocated separately.
//!
//! `unsafe` is here because a chunk is untyped memory: each word belongs to one box, from its
//! allocation until the box is opened.

use std::cell::{Cell, UnsafeCell};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::sys::memory::try_room;

/// The owner of a value in such memory.
#[derive(Debug)]
pub(crate) struct PostBox<T>(NonNull<Packed<T>>);

/// A value, and the chunk that contains it; None if it was allocated separately.
#[repr(C)]
struct Packed<T> {
    value: T,
    chunk: Option<Owner>,
}

/// Memory for small values, side by side: a flood of posts moves fewer cache lines from the thread
/// that writes them to the one that reads them.
#[repr(align(64))]
struct Chunk {
    owners: AtomicUsize,
    words: [UnsafeCell<MaybeUninit<usize>>; WORDS],
}

/// Together with the count, 16 KiB.
const WORDS: usize = 2047;

/// The number of words of the largest small value, and of the smallest one: link, kind and chunk.
const MOST: usize = 8;
const LEAST: usize = 3;

/// One of the owners of a chunk.
struct Owner(NonNull<Chunk>);

/// The owners of a new chunk: one for each value that may come, and the thread's own.
const OWNERS: usize = WORDS / LEAST + 1;

/// The chunk of a thread, with its own owner and those for all values that may still come.
struct Current {
    chunk: Cell<Option<NonNull<Chunk>>>,
    owners: Cell<usize>,
    /// The number of words that no box has.
    left: Cell<usize>,
}

thread_local!(static CURRENT: Current = const {
    Current { chunk: Cell::new(None), owners: Cell::new(0), left: Cell::new(0) }
});

/// Chunks without an owner: at most 1 MiB.
static SPARE: [AtomicPtr<Chunk>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];

impl<T> PostBox<T> {
    /// The number of words of a value, and whether it fits into a chunk.
    const SIZE: usize = size_of::<Packed<T>>() / size_of::<usize>();
    const IS_SMALL: bool =
        Self::SIZE >= LEAST && Self::SIZE <= MOST && align_of::<Packed<T>>() == align_of::<usize>();

    /// Packs a value; returns it if memory is refused.
    #[inline]
    pub(crate) fn new(value: T) -> Result<PostBox<T>, T> {
        let place = |current: &Current| current.take(Self::SIZE);
        let place = if Self::IS_SMALL { CURRENT.try_with(place).unwrap_or(None) } else { None };
        let Some((place, owner)) = place else { return PostBox::alone(value) };
        let packed = place.cast::<Packed<T>>();
        // SAFETY: `take` gives these words only to this caller, and `IS_SMALL` shows that they have
        // the alignment of a `Packed<T>`.
        unsafe { packed.write(Packed { value, chunk: Some(owner) }) };
        Ok(PostBox(packed))
    }

    /// The same with separate memory, for a long-lived value.
    pub(crate) fn alone(value: T) -> Result<PostBox<T>, T> {
        match try_room() {
            Ok(room) => Ok(PostBox(NonNull::from(Box::leak(Box::write(
                room,
                Packed { value, chunk: None },
            ))))),
            Err(_) => Err(value),
        }
    }

    #[inline]
    pub(crate) fn open(self) -> T {
        let packed = ManuallyDrop::new(self).0;
        // SAFETY: `new` and `alone` stored the value, `ManuallyDrop` keeps it from reuse, and
        // without a chunk it is in a Box.
        let packed = unsafe {
            match packed.as_ref().chunk {
                Some(_) => packed.read(),
                None => *Box::from_raw(packed.as_ptr()),
            }
        };
        packed.value
    }

    /// The value's address, which owns the box until `from_raw`.
    pub(crate) fn into_raw(self) -> NonNull<T> {
        ManuallyDrop::new(self).0.cast()
    }

    /// The box of the value at an address.
    ///
    /// # Safety
    /// The address came from `into_raw`, and is used only here.
    pub(crate) unsafe fn from_raw(value: NonNull<T>) -> PostBox<T> {
        PostBox(value.cast())
    }
}

impl<T> Drop for PostBox<T> {
    fn drop(&mut self) {
        // The pointer is not used again.
        drop(PostBox(self.0).open());
    }
}

// SAFETY: a box owns its value, and any thread may be a chunk's last owner.
unsafe impl<T: Send> Send for PostBox<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for PostBox<T> {}

impl Current {
    /// So many words, the last ones first, with an owner of their chunk. None: memory is refused.
    #[inline]
    fn take(&self, words: usize) -> Option<(NonNull<MaybeUninit<usize>>, Owner)> {
        if self.left.get() < words {
            self.refill()?;
        }
        let chunk = self.chunk.get()?;
        let left = self.left.get() - words;
        self.left.set(left);
        self.owners.set(self.owners.get() - 1);
        // SAFETY: this thread is an owner of the chunk: besides its own it has one for each of the
        // smallest values that fit.
        let place = unsafe { &chunk.as_ref().words[left..][..words] };
        Some((NonNull::from(place).cast(), Owner(chunk)))
    }

    #[cold]
    #[inline(never)]
    fn refill(&self) -> Option<()> {
        let chunk = spare_chunk().or_else(new_chunk)?;
        self.release();
        self.chunk.set(Some(chunk));
        self.owners.set(OWNERS);
        self.left.set(WORDS);
        Some(())
    }

    fn release(&self) {
        self.left.set(0);
        if let Some(chunk) = self.chunk.take() {
            release(chunk, self.owners.take());
        }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        self.release();
    }
}

impl Drop for Owner {
    #[inline]
    fn drop(&mut self) {
        release(self.0, 1);
    }
}

/// Takes owners from a chunk that has so many.
#[inline]
fn release(chunk: NonNull<Chunk>, owners: usize) {
    // SAFETY: a chunk is valid as long as it has owners, and the caller has some.
    let count = unsafe { &chunk.as_ref().owners };
    if count.fetch_sub(owners, Ordering::Release) == owners {
        // The actions of other owners happen before the end. A fence would do, but the thread
        // sanitizer does not support fences.
        count.load(Ordering::Acquire);
        put_by(chunk);
    }
}

/// Keeps a chunk without an owner for others, or frees it.
#[cold]
#[inline(never)]
fn put_by(chunk: NonNull<Chunk>) {
    let is_kept = |place: &AtomicPtr<Chunk>| {
        let (free, chunk) = (ptr::null_mut(), chunk.as_ptr());
        place.load(Ordering::Relaxed).is_null()
            && place.compare_exchange(free, chunk, Ordering::Release, Ordering::Relaxed).is_ok()
    };
    if !SPARE.iter().any(is_kept) {
        // SAFETY: `new_chunk` made it with a Box, and nobody else has it: it has no owner.
        drop(unsafe { Box::from_raw(chunk.as_ptr()) });
    }
}

/// A chunk that was kept, with all its owners.
fn spare_chunk() -> Option<NonNull<Chunk>> {
    let kept = SPARE.iter().filter(|place| !place.load(Ordering::Relaxed).is_null());
    let chunk = kept.map(|place| place.swap(ptr::null_mut(), Ordering::Acquire));
    let chunk = chunk.filter_map(NonNull::new).next()?;
    // SAFETY: `put_by` has left a valid chunk, and the exchange gave it to this thread only.
    unsafe { chunk.as_ref() }.owners.store(OWNERS, Ordering::Relaxed);
    Some(chunk)
}

fn new_chunk() -> Option<NonNull<Chunk>> {
    let chunk = Chunk {
        owners: AtomicUsize::new(OWNERS),
        words: [const { UnsafeCell::new(MaybeUninit::uninit()) }; WORDS],
    };
    Some(NonNull::from(Box::leak(Box::write(try_room().ok()?, chunk))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    /// Sends values to another thread; a counted token shows when they are dropped.
    fn send<const WORDS: usize>() {
        let token = Arc::new(());
        let makers = [(); 3].map(|()| {
            let token = Arc::clone(&token);
            let make =
                move |number| PostBox::new((number, token.clone(), [number; WORDS])).ok().unwrap();
            thread::spawn(move || (0..1000).map(make).collect::<Vec<_>>())
        });
        for (number, post_box) in
            makers.into_iter().flat_map(|maker| maker.join().unwrap()).enumerate()
        {
            match number % 3 {
                0 => drop(post_box),
                1 => assert_eq!(post_box.open().2, [number % 1000; WORDS]),
                _ => {
                    // SAFETY: the address has just come from `into_raw`.
                    let again = unsafe { PostBox::from_raw(post_box.into_raw()) };
                    assert_eq!(again.open().0, number % 1000);
                }
            }
        }
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn a_chunk_full_of_the_smallest_values_stays_its_thread_s() {
        // A chunk has words for this many values of two words, without a word left.
        let full = WORDS / LEAST;
        for round in 0..2 {
            let boxes: Vec<_> =
                (0..(2 + round) * full).map(|n| PostBox::new([round, n]).ok().unwrap()).collect();
            let distinct: std::collections::HashSet<_> =
                boxes.iter().map(|post_box| post_box.0).collect();
            assert_eq!(distinct.len(), boxes.len(), "two values are at one address");
            for (n, post_box) in boxes.into_iter().enumerate() {
                assert_eq!(post_box.open(), [round, n]);
            }
        }
    }

    #[test]
    fn small_and_large_values_are_taken_by_other_threads() {
        send::<1>();
        send::<5>();
        send::<6>();
        send::<100>();
    }

    #[test]
    fn an_alignment_of_its_own_is_kept() {
        #[repr(align(256))]
        struct Wide(u8);
        let wide = PostBox::new(Wide(7)).ok().unwrap().into_raw();
        assert_eq!(wide.addr().get() % 256, 0);
        // SAFETY: the address has just come from `into_raw`.
        assert_eq!(unsafe { PostBox::from_raw(wide) }.open().0, 7);
        const { assert!(PostBox::<[usize; 7]>::IS_SMALL && !PostBox::<[usize; 8]>::IS_SMALL) };
    }
}
