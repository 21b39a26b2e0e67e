//! Boxes that can be refused, and hints to the processor about what will be read soon.

use std::alloc::{Layout, alloc};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

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
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new(value));
    }
    // SAFETY: the layout's size is not zero.
    let room = NonNull::new(unsafe { alloc(layout) }.cast::<MaybeUninit<T>>()).ok_or(Error::NO_MEMORY)?;
    // SAFETY: `room` is fresh from the global allocator with the layout of a `T`.
    Ok(Box::write(unsafe { Box::from_raw(room.as_ptr()) }, value))
}
