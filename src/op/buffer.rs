//! Buffers: memory that an operation reads from or writes to.
//!
//! A buffer is moved into the operation and comes back with the result, because the kernel uses it
//! in between.
//!
//! `unsafe` is here because an implementation of [`Buffer`] or [`BufferMut`] guarantees that the
//! memory keeps its address when the value is moved.

use std::rc::Rc;
use std::sync::Arc;

use nix::errno::Errno;

use super::operation::Outcome;
use crate::error::{Error, Result, Sentence};

/// A buffer from which an operation takes its data.
///
/// # Safety
/// The bytes keep their address and their values when the value is moved, until it is dropped or
/// borrowed mutably.
pub unsafe trait Buffer: 'static {
    /// All of the bytes.
    fn bytes(&self) -> &[u8];
}

// SAFETY: static memory keeps its address and its bytes.
unsafe impl Buffer for &'static [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: static memory keeps its address and its bytes.
unsafe impl<const N: usize> Buffer for &'static [u8; N] {
    fn bytes(&self) -> &[u8] {
        *self
    }
}

// SAFETY: static memory keeps its address and its bytes.
unsafe impl Buffer for &'static str {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

// SAFETY: `Vec` guarantees that its elements keep their address when the vector is moved.
unsafe impl Buffer for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: `String` is a vector of bytes, whose elements keep their address when it is moved.
unsafe impl Buffer for String {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

// SAFETY: `Box` guarantees that its contents keep their address when the box is moved.
unsafe impl Buffer for Box<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: `Rc` guarantees that its contents keep their address when it is moved, and are immutable.
unsafe impl Buffer for Rc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

// SAFETY: `Arc` guarantees that its contents keep their address when it is moved, and are
// immutable.
unsafe impl Buffer for Arc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A buffer into which an operation writes its data. A `Box<[u8]>` is overwritten from its
/// beginning. A `Vec<u8>` is appended to, within its spare capacity, and its length is set.
///
/// # Safety
/// The space keeps its address, and nothing else uses it, when the value is moved, until it is
/// dropped or borrowed.
pub unsafe trait BufferMut: 'static {
    /// The address of the space for data, and its size in bytes. Constant until `filled` is called.
    fn room(&mut self) -> (*mut u8, usize);

    /// Notes that `count` bytes have been written, from the beginning of the space.
    ///
    /// # Safety
    /// The bytes have been written, and fit into the space.
    unsafe fn filled(&mut self, count: usize);
}

// SAFETY: `Box` guarantees that its contents keep their address when the box is moved.
unsafe impl BufferMut for Box<[u8]> {
    fn room(&mut self) -> (*mut u8, usize) {
        (self.as_mut_ptr(), self.len())
    }

    unsafe fn filled(&mut self, _: usize) {}
}

// SAFETY: `Vec` guarantees that its elements and its capacity keep their address when it is moved.
unsafe impl BufferMut for Vec<u8> {
    fn room(&mut self) -> (*mut u8, usize) {
        let spare = self.spare_capacity_mut();
        (spare.as_mut_ptr().cast(), spare.len())
    }

    unsafe fn filled(&mut self, count: usize) {
        // SAFETY: the caller guarantees that `count` bytes of the spare capacity have been written.
        unsafe { self.set_len(self.len() + count) }
    }
}

/// Checks that a length fits into the result, an `i32`.
pub(crate) fn length(length: usize) -> Result<u32> {
    if i32::try_from(length).is_ok() { Ok(length as u32) } else { Err(Error::TOO_LONG) }
}

/// The space in a buffer. An empty one is refused: its result would look like the end of the data.
pub(crate) fn room(buffer: &mut impl BufferMut) -> Result<(*mut u8, u32)> {
    match buffer.room() {
        (_, 0) => Err(Error::new(Errno::EINVAL, Sentence::NoRoom)),
        (room, bytes) => Ok((room, length(bytes)?)),
    }
}

/// A buffer with data that an operation has written, and whose length is not set yet.
pub(crate) struct Filled<B> {
    buffer: B,
    /// The number of bytes written.
    count: Result<usize>,
}

impl<B: BufferMut> Filled<B> {
    /// The data of an operation with this outcome, as far as the buffer has space.
    pub(super) fn new(mut buffer: B, outcome: &Outcome) -> Filled<B> {
        let (_, room) = buffer.room();
        Filled { buffer, count: outcome.count().map(|count| count.min(room)) }
    }

    /// A buffer with a copy of some bytes, as far as it has space.
    pub(crate) fn copied(mut buffer: B, from: &[u8]) -> Filled<B> {
        let (to, room) = buffer.room();
        let count = room.min(from.len());
        // SAFETY: `room` guarantees so much space, which only this buffer uses.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), count) };
        Filled { buffer, count: Ok(count) }
    }

    /// The bytes.
    pub(crate) fn bytes(&mut self) -> Result<&[u8]> {
        // SAFETY: `new` and `copied` guarantee that `count` bytes of the space have been written.
        self.count.map(|count| unsafe { std::slice::from_raw_parts(self.buffer.room().0, count) })
    }

    pub(crate) fn count(&self) -> Result<usize> {
        self.count
    }

    /// The buffer, with the length set.
    pub(crate) fn into_buffer(mut self) -> B {
        if let Ok(count) = self.count {
            // SAFETY: `new` and `copied` guarantee that `count` bytes of the space have been
            // written.
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

/// A buffer whose beginning has been filled already.
pub(crate) struct Part<B> {
    buffer: B,
    filled: usize,
}

impl<B: BufferMut> Part<B> {
    pub(crate) fn new(buffer: B) -> Part<B> {
        Part { buffer, filled: 0 }
    }

    pub(crate) fn into_buffer(mut self) -> B {
        // SAFETY: each call of `filled` guaranteed that its bytes have been written.
        unsafe { self.buffer.filled(self.filled) };
        self.buffer
    }
}

// SAFETY: the inner buffer guarantees its space, and this is the rest of it.
unsafe impl<B: BufferMut> BufferMut for Part<B> {
    fn room(&mut self) -> (*mut u8, usize) {
        let (room, length) = self.buffer.room();
        // So many bytes have been filled.
        (room.wrapping_add(self.filled), length - self.filled)
    }

    unsafe fn filled(&mut self, count: usize) {
        self.filled += count;
    }
}

/// A buffer whose beginning has been sent already: its bytes are the rest.
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

// SAFETY: the inner buffer guarantees its bytes, and these are the rest of them.
unsafe impl<B: Buffer> Buffer for Rest<B> {
    fn bytes(&self) -> &[u8] {
        self.buffer.bytes().get(self.done..).unwrap_or_default()
    }
}
