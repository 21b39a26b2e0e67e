//! Memory for what one thread makes and another takes: posts.
//!
//! Freed by a thread that did not make it, memory costs malloc more than the post itself. So a thread cuts the memory for its posts
//! from chunks, one after the other, and a chunk is freed as a whole, by whoever takes the last of what is in it. A thread that has
//! posted keeps one chunk until it exits. What is too large for that is allocated alone.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::mem::{ManuallyDrop, offset_of};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A value in such memory, and its owner.
#[derive(Debug)]
pub(crate) struct PostBox<T> {
    packed: NonNull<Packed<T>>,
}

/// A value, and the chunk that it is in; null if it was allocated alone.
#[repr(C)]
struct Packed<T> {
    chunk: *mut Chunk,
    value: T,
}

/// Room for `POSTS_IN_CHUNK` small values. Each is alone in its cache line: one thread writes it, another one reads it.
#[repr(C, align(64))]
struct Chunk {
    /// How many of them have not been freed yet.
    left: AtomicUsize,
    rooms: [Room; POSTS_IN_CHUNK],
}

/// Room for a value of up to seven words, and the word before it.
#[repr(align(64))]
struct Room {
    _words: [usize; 8],
}

/// 16 KiB, with the count.
const POSTS_IN_CHUNK: usize = 255;

/// The chunk that a thread cuts its parcels from.
struct Current {
    chunk: Cell<*mut Chunk>,
    used: Cell<usize>,
}

thread_local!(static CURRENT: Current = const { Current { chunk: Cell::new(ptr::null_mut()), used: Cell::new(POSTS_IN_CHUNK) } });

impl<T> PostBox<T> {
    /// Whether a value is so small that it goes into a chunk.
    const IS_SMALL: bool = size_of::<Packed<T>>() <= size_of::<Room>() && align_of::<Packed<T>>() <= align_of::<Room>();

    /// Packs a value; gives it back if no memory can be had.
    #[inline]
    pub(crate) fn new(value: T) -> Result<PostBox<T>, T> {
        let Some((room, chunk)) =
            (if Self::IS_SMALL { room_in_chunk() } else { room_alone(Layout::new::<Packed<T>>()) })
        else {
            return Err(value);
        };
        let packed = room.cast::<Packed<T>>();
        // SAFETY: the room is ours, and has the size and the alignment.
        unsafe { packed.write(Packed { chunk, value }) };
        Ok(PostBox { packed })
    }

    /// Unpacks the value.
    #[inline]
    pub(crate) fn open(self) -> T {
        let packed = ManuallyDrop::new(self).packed;
        // SAFETY: the value is there, and is not used again: its room is freed.
        unsafe {
            let value = ptr::read(&raw const (*packed.as_ptr()).value);
            free(packed);
            value
        }
    }

    /// The value's address. The parcel owns on until `from_raw`.
    pub(crate) fn into_raw(self) -> NonNull<T> {
        let packed = ManuallyDrop::new(self).packed;
        // SAFETY: the value is inside of what is packed.
        unsafe { packed.byte_add(offset_of!(Packed<T>, value)).cast() }
    }

    /// The parcel of the value at an address.
    ///
    /// # Safety
    /// The address came from `into_raw`, and this is the only use of it.
    pub(crate) unsafe fn from_raw(value: NonNull<T>) -> PostBox<T> {
        // SAFETY: the caller says so.
        PostBox { packed: unsafe { value.byte_sub(offset_of!(Packed<T>, value)).cast() } }
    }
}

impl<T> Deref for PostBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value is there as long as its parcel.
        unsafe { &self.packed.as_ref().value }
    }
}

impl<T> Drop for PostBox<T> {
    fn drop(&mut self) {
        // SAFETY: the parcel is not used again.
        drop(PostBox { packed: self.packed }.open());
    }
}

/// Frees the room of a value that is gone.
///
/// # Safety
/// It is what `PostBox::new` made, and is not used again.
#[inline]
unsafe fn free<T>(packed: NonNull<Packed<T>>) {
    // SAFETY: the caller says so.
    unsafe {
        match NonNull::new((*packed.as_ptr()).chunk) {
            Some(chunk) => Chunk::free(chunk, 1),
            None => dealloc(packed.as_ptr().cast(), Layout::new::<Packed<T>>()),
        }
    }
}

impl Chunk {
    fn new(left: usize) -> Option<NonNull<Chunk>> {
        // SAFETY: a chunk's size is not zero.
        let chunk = NonNull::new(unsafe { alloc(Layout::new::<Chunk>()) }.cast::<Chunk>())?;
        // SAFETY: it is fresh. The rooms need no value.
        unsafe { (&raw mut (*chunk.as_ptr()).left).write(AtomicUsize::new(left)) };
        Some(chunk)
    }

    /// Frees so many of its rooms, and with the last ones itself.
    ///
    /// # Safety
    /// So many of them are the caller's, who does not use them again.
    #[inline]
    unsafe fn free(chunk: NonNull<Chunk>, rooms: usize) {
        // SAFETY: the chunk lives as long as any of its rooms.
        let before = unsafe { &(*chunk.as_ptr()).left }.fetch_sub(rooms, Ordering::Release);
        if before == rooms {
            // What others did in their rooms comes before the end of it. A fence would do; a thread sanitizer knows none.
            // SAFETY: it is freed below.
            unsafe { &(*chunk.as_ptr()).left }.load(Ordering::Acquire);
            // SAFETY: it was allocated with this layout, and nobody has a room of it any more.
            unsafe { dealloc(chunk.as_ptr().cast(), Layout::new::<Chunk>()) };
        }
    }

    /// The address of a room.
    ///
    /// # Safety
    /// The chunk lives, and has a room of this number.
    unsafe fn room(chunk: NonNull<Chunk>, at: usize) -> NonNull<u8> {
        // SAFETY: the caller says so.
        unsafe { NonNull::new_unchecked((&raw mut (*chunk.as_ptr()).rooms[at]).cast()) }
    }
}

/// The next room in this thread's chunk.
#[inline]
fn room_in_chunk() -> Option<(NonNull<u8>, *mut Chunk)> {
    // A thread that is past its destructors has no chunk any more; each of its parcels has one of its own.
    CURRENT.try_with(Current::room).unwrap_or_else(|_| {
        let chunk = Chunk::new(1)?;
        // SAFETY: it is fresh.
        Some((unsafe { Chunk::room(chunk, 0) }, chunk.as_ptr()))
    })
}

fn room_alone(layout: Layout) -> Option<(NonNull<u8>, *mut Chunk)> {
    // SAFETY: what is packed has a word at least.
    Some((NonNull::new(unsafe { alloc(layout) })?, ptr::null_mut()))
}

impl Current {
    #[inline]
    fn room(&self) -> Option<(NonNull<u8>, *mut Chunk)> {
        if self.used.get() == POSTS_IN_CHUNK {
            self.chunk.set(Chunk::new(POSTS_IN_CHUNK)?.as_ptr());
            self.used.set(0);
        }
        let (chunk, at) = (NonNull::new(self.chunk.get())?, self.used.get());
        self.used.set(at + 1);
        // SAFETY: a chunk lives until all of its rooms are freed, and this one has not been given out before.
        Some((unsafe { Chunk::room(chunk, at) }, chunk.as_ptr()))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        let unused = POSTS_IN_CHUNK - self.used.get();
        if let Some(chunk) = NonNull::new(self.chunk.get()).filter(|_| unused > 0) {
            // SAFETY: these rooms have not been given out, and will not be.
            unsafe { Chunk::free(chunk, unused) };
        }
    }
}

// SAFETY: a parcel owns its value as a Box does; the room may be freed by any thread.
unsafe impl<T: Send> Send for PostBox<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for PostBox<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    /// What a test sends: it tells when it is dropped, by the count of its owners.
    fn values<const WORDS: usize>() {
        let token = Arc::new(());
        let makers: Vec<_> = (0..3)
            .map(|_| {
                let token = Arc::clone(&token);
                let make = move |number| PostBox::new((number, Arc::clone(&token), [number; WORDS])).ok().unwrap();
                thread::spawn(move || (0..1000).map(make).collect::<Vec<_>>())
            })
            .collect();
        for parcels in makers.into_iter().map(|maker| maker.join().unwrap()) {
            for (number, parcel) in parcels.into_iter().enumerate() {
                assert_eq!(parcel.0, number);
                match number % 3 {
                    0 => drop(parcel),
                    1 => assert_eq!(parcel.open().2, [number; WORDS]),
                    // SAFETY: the address has just come from `into_raw`.
                    _ => drop(unsafe { PostBox::from_raw(parcel.into_raw()) }),
                }
            }
        }
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn small_and_large_values_are_taken_by_other_threads() {
        values::<1>();
        values::<5>();
        values::<6>();
        values::<100>();
    }

    #[test]
    fn an_alignment_of_its_own_is_kept() {
        #[repr(align(256))]
        struct Wide(u8);
        let parcel = PostBox::new(Wide(7)).ok().unwrap();
        assert_eq!(ptr::from_ref(&*parcel).addr() % 256, 0);
        assert_eq!(parcel.open().0, 7);
        const { assert!(PostBox::<[usize; 7]>::IS_SMALL && !PostBox::<[usize; 8]>::IS_SMALL) };
    }
}
