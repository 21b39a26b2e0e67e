//! Fallible allocation: boxes and shared ownership without the aborts of `Box::new`, `Arc::new` and
//! `Rc::new` (S31). Also prefetch hints for the processor.
//!
//! [`TryArc`] and [`TryRc`] correspond to `Arc` and `Rc`: the last owner drops the value. There are
//! no weak owners, and only the last owner has mutable access. A [`Published`] value is never
//! freed.
//!
//! `unsafe` is here because a fallible allocation begins as memory without a value, and shared
//! ownership as a pointer.

use std::alloc::{Layout, alloc};
use std::cell::{Cell, UnsafeCell};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Boxes a value; fails with ENOMEM where `Box::new` aborts (S31).
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>> {
    Ok(Box::write(try_room()?, value))
}

/// The same without the value.
pub(crate) fn try_room<T>() -> Result<Box<MaybeUninit<T>>> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new_uninit());
    }
    // SAFETY: the layout is that of a `T` of non-zero size, and the global allocator guarantees
    // that its memory can be that of a Box.
    unsafe {
        let room = NonNull::new(alloc(layout).cast::<MaybeUninit<T>>()).ok_or(Error::NO_MEMORY)?;
        Ok(Box::from_raw(room.as_ptr()))
    }
}

/// A pointer to a box that any thread may read once it is published. The box is never freed.
/// Reading is async-signal-safe.
pub(crate) struct Published<T>(AtomicPtr<T>);

impl<T: Send + Sync + 'static> Published<T> {
    pub(crate) const fn none() -> Published<T> {
        Published(AtomicPtr::new(ptr::null_mut()))
    }

    /// The last published value.
    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: `replace` publishes only boxes, which nothing frees afterwards.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Publishes a box in the place of `former`. Drops the box if `former` is not the last
    /// published value.
    pub(crate) fn replace(&self, former: Option<&'static T>, fresh: Box<T>) {
        let former = former.map_or(ptr::null_mut(), |former| ptr::from_ref(former).cast_mut());
        let fresh = Box::into_raw(fresh);
        if self.0.compare_exchange(former, fresh, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // SAFETY: the exchange failed, so this function still owns the box.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

/// An owner of a `T`, on any thread.
pub(crate) type TryArc<T> = Counted<T, AtomicUsize>;

/// An owner of a `T`; all owners are on one thread.
pub(crate) type TryRc<T> = Counted<T, Cell<usize>>;

/// An owner of a value, with the counter type `C`.
pub(crate) struct Counted<T: ?Sized, C: Count>(NonNull<Inner<T, C>>);

/// In a cell, so that a reference to all of it permits freeing it.
pub(crate) struct Inner<T: ?Sized, C = AtomicUsize>(UnsafeCell<Content<C, T>>);

struct Content<C, T: ?Sized> {
    owners: C,
    value: T,
}

/// A counter of owners.
pub(crate) trait Count {
    const ONE: Self;

    fn add(&self, owners: usize);

    /// Returns whether none is left. Then all earlier actions of owners happened before.
    fn subtract(&self, owners: usize) -> bool;

    fn is_one(&self) -> bool;
}

impl<T, C: Count> Counted<T, C> {
    pub(crate) fn new(value: T) -> Result<Counted<T, C>> {
        Counted::new_or_back(value).map_err(|_| Error::NO_MEMORY)
    }

    /// As `new`, but returns the value when memory is refused.
    pub(crate) fn new_or_back(value: T) -> std::result::Result<Counted<T, C>, T> {
        match try_room() {
            Ok(room) => {
                let inner =
                    Box::write(room, Inner(UnsafeCell::new(Content { owners: C::ONE, value })));
                Ok(Counted(NonNull::from(Box::leak(inner))))
            }
            Err(_) => Err(value),
        }
    }

    /// The value, if this is the only owner.
    pub(crate) fn into_inner(self) -> Option<T> {
        if !self.content().owners.is_one() {
            return None;
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: `new_or_back` took it from a box, and this, its only owner, is consumed.
        Some(unsafe { Box::from_raw(this.0.as_ptr()) }.0.into_inner().value)
    }

    /// This owner as a pointer, for C; it stays an owner until `from_raw`.
    pub(crate) fn into_raw(self) -> NonNull<Inner<T, C>> {
        ManuallyDrop::new(self).0
    }

    /// The address, without adding an owner. Equal for owners of the same value; usable for
    /// `from_raw` while there is an owner.
    pub(crate) fn as_raw(this: &Counted<T, C>) -> NonNull<Inner<T, C>> {
        this.0
    }

    /// The owner behind a pointer.
    ///
    /// # Safety
    /// The pointer came from `into_raw`, and that owner is used only here; or the result is
    /// forgotten, and another owner exists meanwhile.
    pub(crate) unsafe fn from_raw(inner: NonNull<Inner<T, C>>) -> Counted<T, C> {
        Counted(inner)
    }

    /// The same owner with an unsized type; `unsize` can only return its argument.
    pub(crate) fn unsize<U: ?Sized>(
        self,
        unsize: for<'a> fn(&'a Inner<T, C>) -> &'a Inner<U, C>,
    ) -> Counted<U, C> {
        Counted(NonNull::from(unsize(ManuallyDrop::new(self).inner())))
    }
}

impl<T: ?Sized, C: Count> Counted<T, C> {
    /// Whether two own the same value.
    pub(crate) fn is_same(this: &Counted<T, C>, other: &Counted<T, C>) -> bool {
        ptr::addr_eq(this.0.as_ptr(), other.0.as_ptr())
    }

    fn inner(&self) -> &Inner<T, C> {
        // SAFETY: the value lives as long as it has owners, and `self` is one.
        unsafe { self.0.as_ref() }
    }

    fn content(&self) -> &Content<C, T> {
        // SAFETY: only the last owner has mutable access, and `self` is an owner.
        unsafe { &*self.inner().0.get() }
    }
}

impl<T: ?Sized, C: Count> Deref for Counted<T, C> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.content().value
    }
}

impl<T: ?Sized, C: Count> Clone for Counted<T, C> {
    #[inline]
    fn clone(&self) -> Counted<T, C> {
        self.content().owners.add(1);
        Counted(self.0)
    }
}

impl<T: ?Sized, C: Count> Drop for Counted<T, C> {
    #[inline]
    fn drop(&mut self) {
        if self.content().owners.subtract(1) {
            // SAFETY: `new_or_back` took it from a box, and the counter shows that this is the last
            // owner.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl<T: ?Sized + std::fmt::Debug, C: Count> std::fmt::Debug for Counted<T, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: as for Arc: threads share the value, which is `Sync`, and any may drop it, as it is
// `Send`.
unsafe impl<T: ?Sized + Send + Sync> Send for TryArc<T> {}
// SAFETY: as for Arc: a shared owner gives only shared access to the value, which is `Sync`.
unsafe impl<T: ?Sized + Send + Sync> Sync for TryArc<T> {}

// The cell is only for freeing: no one can see a half-changed value through it.
impl<T: ?Sized + RefUnwindSafe, C: Count> UnwindSafe for Counted<T, C> {}
impl<T: ?Sized + RefUnwindSafe, C: Count> RefUnwindSafe for Counted<T, C> {}

impl Count for AtomicUsize {
    const ONE: AtomicUsize = AtomicUsize::new(1);

    #[inline]
    fn add(&self, owners: usize) {
        let before = self.fetch_add(owners, Ordering::Relaxed);
        // So many owners can only have leaked; further ones would overflow the count.
        assert!(before < usize::MAX / 2, "too many owners");
    }

    #[inline]
    fn subtract(&self, owners: usize) -> bool {
        let is_last = self.fetch_sub(owners, Ordering::Release) == owners;
        if is_last {
            // The actions of other owners happen before the end. A fence would do, but the thread
            // sanitizer does not support fences.
            self.load(Ordering::Acquire);
        }
        is_last
    }

    fn is_one(&self) -> bool {
        self.load(Ordering::Acquire) == 1
    }
}

impl Count for Cell<usize> {
    const ONE: Cell<usize> = Cell::new(1);

    #[inline]
    fn add(&self, owners: usize) {
        self.set(self.get().checked_add(owners).expect("fewer owners than memory has room for"));
    }

    #[inline]
    fn subtract(&self, owners: usize) -> bool {
        self.set(self.get() - owners);
        self.get() == 0
    }

    fn is_one(&self) -> bool {
        self.get() == 1
    }
}

#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// Prefetches the element at `index` into the cache, if there is one. Costs an instruction for each
/// cache line and does not wait.
#[inline(always)]
pub(crate) fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        prefetch_at(ptr::from_ref(element).cast(), size_of::<T>().div_ceil(CACHE_LINE));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}

/// Prefetches `lines` cache lines. Invalid addresses are ignored.
#[inline(always)]
pub(crate) fn prefetch_at(address: *const u8, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has SSE, and a prefetch permits any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.wrapping_add(line * CACHE_LINE).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn the_last_owner_drops_it_or_gets_it<C: Count>() {
        struct Tell<'a>(&'a Cell<u32>);
        impl Drop for Tell<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Cell::new(0);
        let first = Counted::<_, C>::new(Tell(&dropped)).unwrap();
        let second = first.clone();
        assert!(first.into_inner().is_none());
        assert_eq!(dropped.get(), 0);
        let value = second.into_inner();
        assert_eq!((value.is_some(), dropped.get()), (true, 0));
        drop(Counted::<_, C>::new(value).unwrap());
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn the_last_owner_drops_the_value_or_gets_it() {
        the_last_owner_drops_it_or_gets_it::<AtomicUsize>();
        the_last_owner_drops_it_or_gets_it::<Cell<usize>>();
    }

    #[test]
    fn an_owner_that_knows_less_owns_on() {
        let first = TryRc::new("text".to_owned()).unwrap();
        let second: TryRc<dyn std::fmt::Debug> = first.clone().unsize(|inner| inner);
        drop(first);
        assert_eq!(format!("{second:?}"), "\"text\"");
    }
}
