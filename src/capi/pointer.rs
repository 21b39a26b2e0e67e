//! The pointer to a loop that C has, and the only ways to what is behind it.
//!
//! `with_loop` asks first whether the calling process and thread own the loop (S29), and makes a reference after that: what is
//! behind it is one thread's alone. `public` gives what every thread may look at. `loop_t` has no fields, so there is no third way.

use std::mem::forget;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use super::{CSide, NULL_POINTER};
use crate::counted::Counted;
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::owner::Owner;
use crate::remote::Shared;
use crate::time::Clock;

/// A loop, as C knows it.
#[derive(Debug)]
pub struct loop_t(());

/// What all threads may look at.
pub(super) struct Public<'a> {
    pub(super) owner: &'a Owner,
    pub(super) clock: &'a Clock,
    pub(super) shared: &'a Counted<Shared>,
}

const _: () = {
    const fn is_for_all_threads<T: Sync>() {}
    is_for_all_threads::<Public<'_>>();
};

/// What all threads may look at of the loop behind a pointer.
///
/// # Safety
/// The pointer is null, or that of a loop that has not been closed, or was closed in a forked child.
#[inline]
pub(super) unsafe fn public<'a>(lp: *const loop_t) -> Result<Public<'a>> {
    let lp = lp.cast::<Loop>();
    if lp.is_null() {
        return Err(NULL_POINTER);
    }
    // SAFETY: the caller says that these fields are there; no reference to the others is made, which may be in use by the loop's thread.
    unsafe { Ok(Public { owner: &(*lp).owner, clock: &(*lp).clock, shared: &(*lp).shared }) }
}

/// Calls `f` with the loop behind a pointer, if the calling process and thread own it.
///
/// # Safety
/// As for `public`.
#[inline]
pub(super) unsafe fn with_loop<T>(lp: *const loop_t, f: impl FnOnce(&Loop) -> Result<T>) -> Result<T> {
    // SAFETY: as the caller says.
    unsafe { public(lp) }?.owner.check()?;
    // SAFETY: the loop is this thread's, which has not closed it; it is never borrowed mutably while C can reach it.
    f(unsafe { &*lp.cast::<Loop>() })
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

/// Ends the loop behind a pointer with `end` and frees it, if the calling thread owns it, or inherits it from one that has exited, or
/// this is a forked child.
///
/// # Safety
/// The pointer is that of a loop of `loop_new`.
pub(super) unsafe fn close(lp: *mut loop_t, end: impl FnOnce(&Loop) -> Result<()>) -> Result<()> {
    // SAFETY: as the caller says.
    let owner = unsafe { public(lp) }?.owner;
    let is_forked = !owner.process().is_current();
    if !is_forked {
        owner.is_heir()?;
    } else if owner.is_abandoned() {
        return Err(Error::FORKED);
    }
    let lp = lp.cast::<Loop>();
    // SAFETY: the loop is this thread's, or this process has no other thread.
    end(unsafe { &*lp })?;
    if is_forked {
        // SAFETY: all has ended, and nobody else is in this process.
        unsafe { free_copy(lp) };
    } else {
        // SAFETY: the pointer is the one that loop_new() made of a Box; all has ended, so no user code runs any more.
        drop(unsafe { Box::from_raw(lp) });
    }
    Ok(())
}

/// Frees a forked child's copy of a loop, but for what `public` gives: what has the pointer still, such as a Handle in C++, which
/// no hook has told of the end, gets EOWNERDEAD for it as long as the child lives.
///
/// # Safety
/// Nothing but `public` uses the loop from now on.
unsafe fn free_copy(lp: *mut Loop) {
    /// What is left of such loops, so that no tool takes them for lost.
    static ABANDONED: AtomicPtr<loop_t> = AtomicPtr::new(ptr::null_mut());

    // SAFETY: each of the three is owned twice while there are two of it, and the loop's memory is that of its Box still.
    unsafe {
        (*lp).owner.abandon();
        forget((*lp).shared.clone());
        let kept = ((&raw const (*lp).owner).read(), (&raw const (*lp).clock).read(), (&raw const (*lp).shared).read());
        ptr::drop_in_place(lp);
        (&raw mut (*lp).owner).write(kept.0);
        (&raw mut (*lp).clock).write(kept.1);
        (&raw mut (*lp).shared).write(kept.2);
        let c = CSide::default();
        c.data.set(ABANDONED.swap(lp.cast(), Relaxed).cast());
        (&raw mut (*lp).c).write(c);
    }
}
