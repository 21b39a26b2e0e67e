//! Shared ownership whose making can be refused: as `Arc`, which would abort (S31).

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Result;
use crate::sys::memory::try_box;

/// One of the owners of a `T`, which is dropped with the last of them.
pub(crate) struct TryArc<T> {
    inner: NonNull<Inner<T>>,
}

pub(crate) struct Inner<T> {
    owners: AtomicUsize,
    value: T,
}

impl<T> TryArc<T> {
    /// Whether two are the same.
    pub(crate) fn is_same(this: &TryArc<T>, other: &TryArc<T>) -> bool {
        this.inner == other.inner
    }

    pub(crate) fn new(value: T) -> Result<TryArc<T>> {
        let inner = try_box(Inner { owners: AtomicUsize::new(1), value })?;
        Ok(TryArc { inner: NonNull::from(Box::leak(inner)) })
    }

    /// This owner as a pointer, for C. It owns on until `from_raw`.
    pub(crate) fn into_raw(self) -> *mut Inner<T> {
        std::mem::ManuallyDrop::new(self).inner.as_ptr()
    }

    /// Where it is. No owner more; tells those that are the same, and is good for `from_raw` while there is an owner.
    pub(crate) fn as_raw(this: &TryArc<T>) -> NonNull<Inner<T>> {
        this.inner
    }

    /// The owner behind a pointer.
    ///
    /// # Safety
    /// The pointer came from `into_raw`, and this is the only use of that owner; or it is forgotten, and there is another owner
    /// meanwhile.
    pub(crate) unsafe fn from_raw(inner: NonNull<Inner<T>>) -> TryArc<T> {
        TryArc { inner }
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: it lives as long as it has owners, and this is one.
        unsafe { self.inner.as_ref() }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for TryArc<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner().value.fmt(f)
    }
}

impl<T> Deref for TryArc<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Clone for TryArc<T> {
    fn clone(&self) -> TryArc<T> {
        let before = self.inner().owners.fetch_add(1, Ordering::Relaxed);
        // So many can only have been leaked; one more round and the count would lie.
        assert!(before < usize::MAX / 2, "too many owners");
        TryArc { inner: self.inner }
    }
}

impl<T> Drop for TryArc<T> {
    fn drop(&mut self) {
        if self.inner().owners.fetch_sub(1, Ordering::Release) == 1 {
            // What the other owners did with it comes before its end. A fence would do; a thread sanitizer knows none.
            self.inner().owners.load(Ordering::Acquire);
            // SAFETY: it came from a Box, and the last owner is going.
            drop(unsafe { Box::from_raw(self.inner.as_ptr()) });
        }
    }
}

// SAFETY: owners on several threads share the value, and the last one drops it: as for Arc.
unsafe impl<T: Send + Sync> Send for TryArc<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for TryArc<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_last_owner_drops_it() {
        struct Tell<'a>(&'a Cell<u32>);
        impl Drop for Tell<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Cell::new(0);
        let first = TryArc::new(Tell(&dropped)).unwrap();
        let second = first.clone();
        drop(first);
        assert_eq!(dropped.get(), 0);
        drop(second);
        assert_eq!(dropped.get(), 1);
    }
}
