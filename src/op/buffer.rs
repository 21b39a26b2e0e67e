//! Memory that an operation reads from or writes to.
//!
//! It is given to the operation and comes back with the result, since it is the kernel's meanwhile.

use std::rc::Rc;
use std::sync::Arc;

/// What an operation takes its data from.
///
/// # Safety
/// The bytes stay where they are, and what they are, when the value is moved, until it is dropped or borrowed mutably.
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

// SAFETY: moving a counted reference leaves what it refers to where it is, and nobody can change that.
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

/// What an operation puts its data into. A `Box<[u8]>` is overwritten from its beginning; a `Vec<u8>` is appended to, in the capacity
/// that it has to spare, and its length is set.
///
/// # Safety
/// The room stays where it is, and nothing else uses it, when the value is moved, until it is dropped or borrowed.
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
