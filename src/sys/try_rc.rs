//! Shared ownership on one thread, whose making can be refused: as `Rc`, which would abort (S31).

use std::cell::Cell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::ptr::NonNull;

use crate::sys::memory::try_box;

/// One of the owners of a `T`, which is dropped with the last of them. It is for one thread.
pub(crate) struct TryRc<T: ?Sized>(NonNull<Inner<T>>);

pub(crate) struct Inner<T: ?Sized> {
    owners: Cell<usize>,
    value: T,
}

impl<T> TryRc<T> {
    /// The first owner; the value comes back when there is no memory.
    pub(crate) fn new(value: T) -> Result<TryRc<T>, T> {
        match try_box(MaybeUninit::uninit()) {
            Ok(room) => {
                let inner = Box::write(room, Inner { owners: Cell::new(1), value });
                Ok(TryRc(NonNull::from(Box::leak(inner))))
            }
            Err(_) => Err(value),
        }
    }

    /// The value, if this is the only owner.
    pub(crate) fn into_inner(self) -> Option<T> {
        if self.inner().owners.get() > 1 {
            return None;
        }
        let inner = ManuallyDrop::new(self).0;
        // SAFETY: it came from a box, and its only owner is used up.
        Some(unsafe { Box::from_raw(inner.as_ptr()) }.value)
    }

    /// The same owner, which knows less of what it owns.
    ///
    /// # Safety
    /// `unsize` gives back its argument, unsized.
    pub(crate) unsafe fn unsize<U: ?Sized>(self, unsize: fn(*mut Inner<T>) -> *mut Inner<U>) -> TryRc<U> {
        let inner = unsize(ManuallyDrop::new(self).0.as_ptr());
        // SAFETY: it is the pointer of an owner, as the caller says.
        TryRc(unsafe { NonNull::new_unchecked(inner) })
    }
}

impl<T: ?Sized> TryRc<T> {
    fn inner(&self) -> &Inner<T> {
        // SAFETY: it lives as long as it has owners, and this is one.
        unsafe { self.0.as_ref() }
    }
}

impl<T: ?Sized> Deref for TryRc<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T: ?Sized> Clone for TryRc<T> {
    #[inline]
    fn clone(&self) -> TryRc<T> {
        let owners = &self.inner().owners;
        owners.set(owners.get().checked_add(1).expect("fewer owners than memory has room for"));
        TryRc(self.0)
    }
}

impl<T: ?Sized> Drop for TryRc<T> {
    #[inline]
    fn drop(&mut self) {
        let owners = &self.inner().owners;
        owners.set(owners.get() - 1);
        if owners.get() == 0 {
            // SAFETY: it came from a box, and the last owner is going.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl<T: ?Sized + std::fmt::Debug> std::fmt::Debug for TryRc<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_owner_drops_it_or_gets_it() {
        struct Tell<'a>(&'a Cell<u32>);
        impl Drop for Tell<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Cell::new(0);
        let Ok(first) = TryRc::new(Tell(&dropped)) else { panic!("no memory") };
        let second = first.clone();
        assert!(first.into_inner().is_none());
        assert_eq!(dropped.get(), 0);
        let value = second.into_inner();
        assert_eq!((value.is_some(), dropped.get()), (true, 0));
        drop(value);
        assert_eq!(dropped.get(), 1);
    }
}
