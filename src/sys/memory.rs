//! Memory that can be refused: boxes, and shared ownership. `Box::new`, `Arc::new` and `Rc::new`
//! would abort (S31).
//!
//! [`TryArc`] and [`TryRc`] are as `Arc` and `Rc`: the value lives as long as it has an owner, and
//! is dropped by the last one. They have no weak owners, and nobody gets the value mutably but the
//! last owner. What is [`Published`] is never freed.
//!
//! Besides, hints to the processor about what will be read soon.
//!
//! `unsafe` lives here because an allocation that may fail begins as memory without a value, and
//! shared ownership as a pointer.

use std::alloc::{Layout, alloc};
use std::cell::{Cell, UnsafeCell};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Boxes a value; says ENOMEM where `Box::new` would abort (S31).
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>> {
    Ok(Box::write(try_room()?, value))
}

/// The same, without the value.
pub(crate) fn try_room<T>() -> Result<Box<MaybeUninit<T>>> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new_uninit());
    }
    // SAFETY: the layout is that of a `T`, which is not of size zero; what the global allocator
    // gives for it makes a box.
    unsafe {
        let room = NonNull::new(alloc(layout).cast::<MaybeUninit<T>>()).ok_or(Error::NO_MEMORY)?;
        Ok(Box::from_raw(room.as_ptr()))
    }
}

/// A box that anybody may read once it has been published: it is never freed. Reading it is
/// async-signal-safe.
pub(crate) struct Published<T>(AtomicPtr<T>);

impl<T: Send + Sync + 'static> Published<T> {
    pub(crate) const fn none() -> Published<T> {
        Published(AtomicPtr::new(ptr::null_mut()))
    }

    /// What was published last.
    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: what is there came from a box that nobody frees.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Publishes a box in the place of `former`; it is dropped if that is not what was published
    /// last.
    pub(crate) fn replace(&self, former: Option<&'static T>, fresh: Box<T>) {
        let former = former.map_or(ptr::null_mut(), |former| ptr::from_ref(former).cast_mut());
        let fresh = Box::into_raw(fresh);
        if self.0.compare_exchange(former, fresh, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // SAFETY: it was not published, so it is still ours alone.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

/// One of the owners of a `T`, on any thread.
pub(crate) type TryArc<T> = Counted<T, AtomicUsize>;

/// One of the owners of a `T`, all of which are on one thread.
pub(crate) type TryRc<T> = Counted<T, Cell<usize>>;

/// One of the owners of a value, which `C` counts.
pub(crate) struct Counted<T: ?Sized, C: Count>(NonNull<Inner<T, C>>);

/// Owners of a value to be handed out, which have been counted at once: handing one out costs no
/// atomic instruction.
pub(crate) struct Owners<T> {
    /// The value, while some are left.
    of: Cell<Option<NonNull<Inner<T>>>>,
    left: Cell<usize>,
}

/// In a cell, so that whoever has a reference to all of it may free it.
pub(crate) struct Inner<T: ?Sized, C = AtomicUsize>(UnsafeCell<Content<C, T>>);

struct Content<C, T: ?Sized> {
    owners: C,
    value: T,
}

/// A count of owners.
pub(crate) trait Count {
    const ONE: Self;

    fn add(&self, owners: usize);

    /// Whether none is left. Then all that was done before on behalf of an owner comes before what
    /// follows.
    fn subtract(&self, owners: usize) -> bool;

    fn is_one(&self) -> bool;
}

impl<T, C: Count> Counted<T, C> {
    pub(crate) fn new(value: T) -> Result<Counted<T, C>> {
        Counted::new_or_back(value).map_err(|_| Error::NO_MEMORY)
    }

    /// As `new`; the value comes back when there is no memory.
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
        // SAFETY: it came from a box, and its only owner is used up.
        Some(unsafe { Box::from_raw(this.0.as_ptr()) }.0.into_inner().value)
    }

    /// This owner as a pointer, for C. It owns on until `from_raw`.
    pub(crate) fn into_raw(self) -> NonNull<Inner<T, C>> {
        ManuallyDrop::new(self).0
    }

    /// Where it is. No owner more; tells those that are the same, and is good for `from_raw` while
    /// there is an owner.
    pub(crate) fn as_raw(this: &Counted<T, C>) -> NonNull<Inner<T, C>> {
        this.0
    }

    /// The owner behind a pointer.
    ///
    /// # Safety
    /// The pointer came from `into_raw`, and this is the only use of that owner; or it is
    /// forgotten, and there is another owner meanwhile.
    pub(crate) unsafe fn from_raw(inner: NonNull<Inner<T, C>>) -> Counted<T, C> {
        Counted(inner)
    }

    /// The same owner, which knows less of what it owns: `unsize` has nothing to give back but its
    /// argument, unsized.
    pub(crate) fn unsize<U: ?Sized>(
        self,
        unsize: for<'a> fn(&'a Inner<T, C>) -> &'a Inner<U, C>,
    ) -> Counted<U, C> {
        Counted(NonNull::from(unsize(ManuallyDrop::new(self).inner())))
    }
}

impl<T: ?Sized, C: Count> Counted<T, C> {
    /// Whether two are the same.
    pub(crate) fn is_same(this: &Counted<T, C>, other: &Counted<T, C>) -> bool {
        ptr::addr_eq(this.0.as_ptr(), other.0.as_ptr())
    }

    fn inner(&self) -> &Inner<T, C> {
        // SAFETY: it lives as long as it has owners, and this is one.
        unsafe { self.0.as_ref() }
    }

    fn content(&self) -> &Content<C, T> {
        // SAFETY: nobody but the last owner has it mutably.
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
            // SAFETY: it came from a box, and the last owner is going.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl<T> Owners<T> {
    /// None of nothing.
    pub(crate) const fn none() -> Owners<T> {
        Owners { of: Cell::new(None), left: Cell::new(0) }
    }

    /// Owners of another value, one at least. Those of the former are dropped.
    pub(crate) fn refill(&self, value: T, count: usize) -> Result<()> {
        let first = TryArc::new(value)?;
        first.content().owners.add(count - 1);
        drop(Owners {
            of: Cell::new(self.of.replace(Some(first.into_raw()))),
            left: Cell::new(self.left.replace(count)),
        });
        Ok(())
    }

    /// How many are left.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.left.get()
    }

    /// Hands one out.
    #[inline]
    pub(crate) fn take(&self) -> Option<TryArc<T>> {
        self.left.set(self.left.get().checked_sub(1)?);
        self.of.get().map(Counted)
    }
}

impl<T> Drop for Owners<T> {
    fn drop(&mut self) {
        if let (Some(of), Some(others)) = (self.of.get(), self.left.get().checked_sub(1)) {
            let last = Counted::<T, AtomicUsize>(of);
            last.content().owners.subtract(others);
        }
    }
}

impl<T: ?Sized + std::fmt::Debug, C: Count> std::fmt::Debug for Counted<T, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: owners on several threads share the value, and the last one drops it: as for Arc.
unsafe impl<T: ?Sized + Send + Sync> Send for TryArc<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for TryArc<T> {}

// The cell is for freeing: the value is never seen half changed for it.
impl<T: ?Sized + RefUnwindSafe, C: Count> UnwindSafe for Counted<T, C> {}
impl<T: ?Sized + RefUnwindSafe, C: Count> RefUnwindSafe for Counted<T, C> {}

impl Count for AtomicUsize {
    const ONE: AtomicUsize = AtomicUsize::new(1);

    #[inline]
    fn add(&self, owners: usize) {
        let before = self.fetch_add(owners, Ordering::Relaxed);
        // So many can only have been leaked; one more round and the count would lie.
        assert!(before < usize::MAX / 2, "too many owners");
    }

    #[inline]
    fn subtract(&self, owners: usize) -> bool {
        let is_last = self.fetch_sub(owners, Ordering::Release) == owners;
        if is_last {
            // What the other owners did with it comes before its end. A fence would do; a thread
            // sanitizer knows none.
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

/// Has the element at `index` fetched into the cache, if there is one; costs an instruction a cache
/// line and waits for nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        prefetch_at(ptr::from_ref(element).cast(), size_of::<T>().div_ceil(CACHE_LINE));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}

/// Has so many lines fetched into the cache. Where nothing can be read, nothing is.
#[inline(always)]
pub(crate) fn prefetch_at(address: *const u8, lines: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..lines {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is on every x86-64, and no address is wrong for a hint.
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
    fn owners_that_were_counted_at_once_are_owners() {
        let value = std::sync::Arc::new(());
        for taken in 0..=3 {
            let owners = Owners::none();
            owners.refill(value.clone(), 3).unwrap();
            let handed_out: Vec<_> = (0..taken).map_while(|_| owners.take()).collect();
            assert_eq!((handed_out.len(), owners.count()), (taken, 3 - taken));
            drop(owners);
            assert_eq!(std::sync::Arc::strong_count(&value), if taken == 0 { 1 } else { 2 });
            drop(handed_out);
            assert_eq!(std::sync::Arc::strong_count(&value), 1);
        }
    }

    #[test]
    fn an_owner_that_knows_less_owns_on() {
        let first = TryRc::new("text".to_owned()).unwrap();
        let second: TryRc<dyn std::fmt::Debug> = first.clone().unsize(|inner| inner);
        drop(first);
        assert_eq!(format!("{second:?}"), "\"text\"");
    }
}
