//! Memory for what the kernel uses while those move that own it.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::error::Result;
use crate::sys::memory::try_box;

/// A box that may be moved while the kernel writes to what is in it: a `Box` says with every move that nobody else does.
pub(crate) struct KernelBox<T>(NonNull<T>, PhantomData<T>);

impl<T> KernelBox<T> {
    /// Moves a value to where it stays.
    pub(crate) fn new(value: T) -> Result<KernelBox<T>> {
        // SAFETY: the pointer of a box is not null.
        Ok(KernelBox(unsafe { NonNull::new_unchecked(Box::into_raw(try_box(value)?)) }, PhantomData))
    }

    /// The value, to make the pointers that the kernel gets, and to read what it has written when it has let go.
    pub(crate) fn get(&mut self) -> &mut T {
        // SAFETY: the value is there until `self` is consumed or dropped, and belongs to it.
        unsafe { self.0.as_mut() }
    }

    pub(crate) fn into_inner(self) -> T {
        let place = std::mem::ManuallyDrop::new(self);
        // SAFETY: the pointer came from a box, and is not used again.
        *unsafe { Box::from_raw(place.0.as_ptr()) }
    }
}

impl<T> Drop for KernelBox<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a box, and is not used again.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<T> std::fmt::Debug for KernelBox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
