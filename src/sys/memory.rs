//! Boxes that can be refused, boxes that all threads may read for ever, and hints to the processor about what will be read soon.

use std::alloc::{Layout, alloc};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::error::{Error, Result};

#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// Has the element at `index` fetched into the cache, if there is one; costs an instruction a cache line and waits for nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        prefetch_at(std::ptr::from_ref(element).cast(), size_of::<T>().div_ceil(CACHE_LINE));
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
    // SAFETY: the layout is that of a `T`, which is not of size zero; what the global allocator gives for it makes a box.
    unsafe {
        let room = NonNull::new(alloc(layout).cast::<MaybeUninit<T>>()).ok_or(Error::NO_MEMORY)?;
        Ok(Box::from_raw(room.as_ptr()))
    }
}

/// A box that anybody may read once it has been published: it is never freed. Reading it is async-signal-safe.
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

    /// Publishes a box in the place of `former`; it is dropped if that is not what was published last.
    pub(crate) fn replace(&self, former: Option<&'static T>, fresh: Box<T>) {
        let former = former.map_or(ptr::null_mut(), |former| ptr::from_ref(former).cast_mut());
        let fresh = Box::into_raw(fresh);
        if self.0.compare_exchange(former, fresh, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // SAFETY: it was not published, so it is still ours alone.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}
