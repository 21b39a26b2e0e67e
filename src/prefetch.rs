//! Tells the processor what will be read soon, where it can be told.

#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// Has the element at `index` fetched into the cache, if there is one; costs an instruction a cache line and waits for nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        for offset in (0..size_of::<T>()).step_by(CACHE_LINE) {
            // SAFETY: the address is inside of an element, and SSE is on every x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast::<i8>().add(offset)) }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}
