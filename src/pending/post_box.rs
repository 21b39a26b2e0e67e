//! Memory for posts, which one thread allocates and another frees.
//!
//! Freeing memory of another thread costs malloc more than the post itself. So each thread
//! allocates its posts from chunks, in order, and the thread that takes the last post of a chunk
//! frees the chunk. A thread that has posted keeps one chunk until it exits. Larger values are
//! allocated separately.
//!
//! `unsafe` is here because a chunk is untyped memory: each cell belongs to one box, from its
//! allocation until the box is opened.

use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;

use crate::sys::memory::{Owners, TryArc, try_room};

/// The owner of a value in such memory.
#[derive(Debug)]
pub(crate) struct PostBox<T>(NonNull<Packed<T>>);

/// A value, and the chunk that contains it; None if it was allocated separately.
#[repr(C)]
struct Packed<T> {
    value: T,
    chunk: Option<TryArc<Chunk>>,
}

/// `POSTS_IN_CHUNK` cells for small values. Each has its own cache line, because one thread writes
/// it and another reads it.
type Chunk = [UnsafeCell<Room>; POSTS_IN_CHUNK];

/// Space for a value of up to seven words, and the word behind it.
#[repr(align(64))]
struct Room {
    _words: MaybeUninit<[usize; 8]>,
}

/// 16 KiB, with the count.
const POSTS_IN_CHUNK: usize = 255;

// The chunk of a thread, with its remaining owners: each cell is given out with one owner of the
// chunk, the last cell first.
thread_local!(static CURRENT: Owners<Chunk> = const { Owners::none() });

impl<T> PostBox<T> {
    /// Whether a value fits into a chunk's cell.
    const IS_SMALL: bool = size_of::<Packed<T>>() <= size_of::<Room>()
        && align_of::<Packed<T>>() <= align_of::<Room>();

    /// Packs a value; returns it if memory is refused.
    #[inline]
    pub(crate) fn new(value: T) -> Result<PostBox<T>, T> {
        let room = if Self::IS_SMALL { room_in_chunk() } else { None };
        let Some((room, chunk)) = room else { return PostBox::alone(value) };
        let packed = room.cast::<Packed<T>>();
        // SAFETY: `room_in_chunk` gives this cell only to this caller, and `IS_SMALL` shows that a
        // `Packed<T>` fits into it.
        unsafe { packed.write(Packed { value, chunk: Some(chunk) }) };
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

// SAFETY: a box owns its value, and `TryArc` lets any thread free the chunk.
unsafe impl<T: Send> Send for PostBox<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for PostBox<T> {}

/// The next cell of this thread's chunk. None: memory is refused, or the thread's destructors have
/// run.
#[inline]
fn room_in_chunk() -> Option<(NonNull<Room>, TryArc<Chunk>)> {
    let room = |owners: &Owners<Chunk>| match owners.take() {
        Some(chunk) => Some((NonNull::from(&chunk[owners.count()]).cast(), chunk)),
        None => room_in_fresh_chunk(owners),
    };
    CURRENT.try_with(room).unwrap_or(None)
}

#[cold]
#[inline(never)]
fn room_in_fresh_chunk(owners: &Owners<Chunk>) -> Option<(NonNull<Room>, TryArc<Chunk>)> {
    owners
        .refill(
            [const { UnsafeCell::new(Room { _words: MaybeUninit::uninit() }) }; POSTS_IN_CHUNK],
            POSTS_IN_CHUNK,
        )
        .ok()?;
    let chunk = owners.take()?;
    Some((NonNull::from(&chunk[owners.count()]).cast(), chunk))
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
