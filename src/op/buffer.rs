//! Memory that an operation reads from or writes to.
//!
//! It is given to the operation and comes back with the result, since it is the kernel's meanwhile.
//!
//! `unsafe` lives here because whoever implements [`Buffer`] or [`BufferMut`] promises that the
//! memory stays where it is when the value is moved.

use std::rc::Rc;
use std::sync::Arc;

use nix::errno::Errno;

use super::operation::Outcome;
use crate::error::{Error, Result, Sentence};

/// What an operation takes its data from.
///
/// # Safety
/// The bytes stay where they are, and what they are, when the value is moved, until it is dropped
/// or borrowed mutably.
pub unsafe trait Buffer: 'static {
    /// All of the bytes.
    fn bytes(&self) -> &[u8];
}

// SAFETY: they live for ever.
unsafe impl Buffer for &'static [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: they live for ever.
unsafe impl<const N: usize> Buffer for &'static [u8; N] {
    fn bytes(&self) -> &[u8] {
        *self
    }
}

// SAFETY: they live for ever.
unsafe impl Buffer for &'static str {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

// SAFETY: moving a vector leaves its elements where they are.
unsafe impl Buffer for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: as a vector.
unsafe impl Buffer for String {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

// SAFETY: moving a box leaves what is in it where it is.
unsafe impl Buffer for Box<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: moving a counted reference leaves what it refers to where it is, and nobody can change
// that.
unsafe impl Buffer for Rc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: as `Rc`.
unsafe impl Buffer for Arc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// What an operation puts its data into. A `Box<[u8]>` is overwritten from its beginning; a
/// `Vec<u8>` is appended to, in the capacity that it has to spare, and its length is set.
///
/// # Safety
/// The room stays where it is, and nothing else uses it, when the value is moved, until it is
/// dropped or borrowed.
pub unsafe trait BufferMut: 'static {
    /// Where data goes, and how many bytes there is room for. The same until `filled` is called.
    fn room(&mut self) -> (*mut u8, usize);

    /// Tells that so many bytes have been written, from the beginning of the room.
    ///
    /// # Safety
    /// They have been, and there is room for them.
    unsafe fn filled(&mut self, count: usize);
}

// SAFETY: moving a box leaves what is in it where it is.
unsafe impl BufferMut for Box<[u8]> {
    fn room(&mut self) -> (*mut u8, usize) {
        (self.as_mut_ptr(), self.len())
    }

    unsafe fn filled(&mut self, _: usize) {}
}

// SAFETY: moving a vector leaves its elements and its capacity where they are.
unsafe impl BufferMut for Vec<u8> {
    fn room(&mut self) -> (*mut u8, usize) {
        let spare = self.spare_capacity_mut();
        (spare.as_mut_ptr().cast(), spare.len())
    }

    unsafe fn filled(&mut self, count: usize) {
        // SAFETY: the caller says that so many have been written to the spare capacity.
        unsafe { self.set_len(self.len() + count) }
    }
}

/// A length that the result, an `i32`, can tell.
pub(crate) fn length(length: usize) -> Result<u32> {
    if i32::try_from(length).is_ok() { Ok(length as u32) } else { Err(Error::TOO_LONG) }
}

/// The room in a buffer. An empty one would have a result that looks like the end of the data.
pub(crate) fn room(buffer: &mut impl BufferMut) -> Result<(*mut u8, u32)> {
    match buffer.room() {
        (_, 0) => Err(Error::new(Errno::EINVAL, Sentence::NoRoom)),
        (room, bytes) => Ok((room, length(bytes)?)),
    }
}

/// A buffer that an operation has written to, and does not know of it yet.
pub(crate) struct Filled<B> {
    buffer: B,
    /// How many bytes are in the room of the buffer.
    count: Result<usize>,
}

impl<B: BufferMut> Filled<B> {
    /// Where the operation wrote as many bytes as it came to, as far as there is room for them.
    pub(super) fn new(mut buffer: B, outcome: &Outcome) -> Filled<B> {
        let (_, room) = buffer.room();
        Filled { buffer, count: outcome.count().map(|count| count.min(room)) }
    }

    /// A buffer that gets what there is room for of some bytes.
    pub(crate) fn copied(mut buffer: B, from: &[u8]) -> Filled<B> {
        let (to, room) = buffer.room();
        let count = room.min(from.len());
        // SAFETY: the room is the buffer's alone, which is nobody else's, and has so many bytes.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), count) };
        Filled { buffer, count: Ok(count) }
    }

    /// The bytes.
    pub(crate) fn bytes(&mut self) -> Result<&[u8]> {
        // SAFETY: the operation wrote so many to the room.
        self.count.map(|count| unsafe { std::slice::from_raw_parts(self.buffer.room().0, count) })
    }

    pub(crate) fn count(&self) -> Result<usize> {
        self.count
    }

    /// The buffer, with the bytes in it.
    pub(crate) fn into_buffer(mut self) -> B {
        if let Ok(count) = self.count {
            // SAFETY: the operation wrote so many to the room.
            unsafe { self.buffer.filled(count) };
        }
        self.buffer
    }
}

impl<B: BufferMut> From<Filled<B>> for (Result<usize>, B) {
    fn from(filled: Filled<B>) -> (Result<usize>, B) {
        (filled.count, filled.into_buffer())
    }
}

/// A buffer of which a part has been filled already.
pub(crate) struct Part<B> {
    buffer: B,
    filled: usize,
}

impl<B: BufferMut> Part<B> {
    pub(crate) fn new(buffer: B) -> Part<B> {
        Part { buffer, filled: 0 }
    }

    pub(crate) fn into_buffer(mut self) -> B {
        // SAFETY: so many bytes of the room have been written.
        unsafe { self.buffer.filled(self.filled) };
        self.buffer
    }
}

// SAFETY: as the buffer in it; the room is the rest of that.
unsafe impl<B: BufferMut> BufferMut for Part<B> {
    fn room(&mut self) -> (*mut u8, usize) {
        let (room, length) = self.buffer.room();
        // So much of the room has been filled.
        (room.wrapping_add(self.filled), length - self.filled)
    }

    unsafe fn filled(&mut self, count: usize) {
        self.filled += count;
    }
}

/// A buffer of which a part has been sent already: its bytes are the rest.
pub(crate) struct Rest<B> {
    buffer: B,
    done: usize,
}

impl<B: Buffer> Rest<B> {
    pub(crate) fn new(buffer: B) -> Rest<B> {
        Rest { buffer, done: 0 }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.done += count;
    }

    pub(crate) fn done(&self) -> usize {
        self.done
    }

    pub(crate) fn into_buffer(self) -> B {
        self.buffer
    }
}

// SAFETY: as the buffer in it.
unsafe impl<B: Buffer> Buffer for Rest<B> {
    fn bytes(&self) -> &[u8] {
        self.buffer.bytes().get(self.done..).unwrap_or_default()
    }
}
