//! The pointer to a loop that C has, and the only ways to what is behind it.
//!
//! `with_loop` asks first whether the calling process and thread own the loop (S29), and makes a reference after that: what is
//! behind it is one thread's alone. `public` gives what every thread may look at. `loop_t` has no fields, so there is no third way.

use std::ptr;

use super::NULL_POINTER;
use crate::error::Result;
use crate::event_loop::Loop;
use crate::event_loop::raw::Public;

/// A loop, as C knows it.
#[derive(Debug)]
pub struct loop_t(());

/// The loop as C knows it.
#[inline]
pub(super) fn as_c(lp: &Loop) -> *mut loop_t {
    ptr::from_ref(lp).cast_mut().cast()
}

/// What all threads may look at of the loop behind a pointer.
///
/// # Safety
/// The pointer is null, or that of a loop that has not been closed, or was closed in a forked child.
#[inline]
pub(super) unsafe fn public<'a>(lp: *const loop_t) -> Result<Public<'a>> {
    if lp.is_null() {
        return Err(NULL_POINTER);
    }
    // SAFETY: the caller says so.
    Ok(unsafe { Public::of(lp.cast()) })
}

/// Calls `f` with the loop behind a pointer, if the calling process and thread own it.
///
/// # Safety
/// As for `public`.
#[inline]
pub(super) unsafe fn with_loop<T>(lp: *const loop_t, f: impl FnOnce(&Loop) -> Result<T>) -> Result<T> {
    // SAFETY: as the caller says.
    f(unsafe { public(lp) }?.enter()?)
}

/// As `with_loop`, with arguments that have been checked: what is wrong with these comes first (S29).
///
/// # Safety
/// As for `public`.
#[inline]
pub(super) unsafe fn with_args<A, T>(
    lp: *const loop_t,
    args: Result<A>,
    f: impl FnOnce(&Loop, A) -> Result<T>,
) -> Result<T> {
    let args = args?;
    // SAFETY: as the caller says.
    unsafe { with_loop(lp, |lp| f(lp, args)) }
}
