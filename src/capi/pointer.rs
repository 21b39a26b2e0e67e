//! The pointer to a loop that C has, and the only ways to what is behind it.
//!
//! `with_loop` asks first whether the calling process and thread own the loop (S29), and makes a reference after that: what is
//! behind it is one thread's alone. `public` gives what every thread may look at. `loop_t` has no fields, so there is no third way.

use std::mem::forget;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use super::{CSide, NULL_POINTER};
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::sys::owner::Owner;
use crate::sys::try_arc::TryArc;
use crate::threads::remote::Shared;
use crate::time::Clock;

/// A loop, as C knows it.
#[derive(Debug)]
pub struct loop_t(());

/// What all threads may look at.
pub(super) struct Public<'a> {
    pub(super) owner: &'a Owner,
    pub(super) clock: &'a Clock,
    pub(super) shared: &'a TryArc<Shared>,
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
    if is_forked && !owner.is_of_this_thread() {
        // Another thread has forked: the loop's may have been anywhere, and is not here to go on. All of it is leaked.
        owner.leave_to_nobody();
        // SAFETY: nothing but `public` uses the loop from now on, and this word, which no other thread of this process does.
        unsafe { keep_abandoned(lp) };
        return Ok(());
    }
    // SAFETY: the loop is this thread's, here or in the process that has forked.
    end(unsafe { &*lp })?;
    // SAFETY: as above.
    unsafe { &*lp }.unlink_from_thread();
    // A release hook may have forked meanwhile, and this may be the child.
    if !owner.process().is_current() {
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
    // SAFETY: each of the three is owned twice while there are two of it, and the loop's memory is that of its Box still.
    unsafe {
        (*lp).owner.abandon();
        forget((*lp).shared.clone());
        let kept = ((&raw const (*lp).owner).read(), (&raw const (*lp).clock).read(), (&raw const (*lp).shared).read());
        ptr::drop_in_place(lp);
        (&raw mut (*lp).owner).write(kept.0);
        (&raw mut (*lp).clock).write(kept.1);
        (&raw mut (*lp).shared).write(kept.2);
        (&raw mut (*lp).c).write(CSide::default());
        keep_abandoned(lp);
    }
}

/// Keeps what is left of a loop in a forked child, so that no tool takes it for lost.
///
/// # Safety
/// Nothing but `public` uses the loop from now on.
unsafe fn keep_abandoned(lp: *mut Loop) {
    static ABANDONED: AtomicPtr<loop_t> = AtomicPtr::new(ptr::null_mut());

    // SAFETY: the caller says so.
    unsafe { &(*lp).c.data }.set(ABANDONED.swap(lp.cast(), Relaxed).cast());
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use libc::EOWNERDEAD;

    use super::*;
    use crate::capi::lifecycle::{loop_close, loop_new};

    /// A pointer that goes to other threads, as those of C do.
    struct Pointer(*mut loop_t);

    // SAFETY: what is done with it is for any thread.
    unsafe impl Send for Pointer {}

    #[test]
    fn s33_a_child_that_another_thread_forked_leaks_what_is_borrowed() {
        let (tell, told) = channel();
        let (end, ends) = channel::<()>();
        let owner = std::thread::spawn(move || {
            let mut made = ptr::null_mut();
            // SAFETY: the loop is used by this thread, and by a child, which says so.
            unsafe {
                assert_eq!(loop_new(ptr::null(), &mut made), 0);
                let lp = &*made.cast::<Loop>();
                let borrowed = (lp.schedule.borrow_mut(), lp.ring.borrow_mut());
                tell.send(Pointer(made)).unwrap();
                let _ = ends.recv();
                drop(borrowed);
                assert_eq!(loop_close(made), 0);
            }
        });
        let Pointer(lp) = told.recv().unwrap();
        // SAFETY: the child calls what is made for it, and leaves by _exit; the loop is open as long as its thread waits.
        let child = unsafe {
            match libc::fork() {
                0 => {
                    libc::alarm(20);
                    let closed = (loop_close(lp), loop_close(lp));
                    libc::_exit(i32::from(closed != (0, -EOWNERDEAD)))
                }
                child => child,
            }
        };
        let mut status = -1;
        // SAFETY: the status is written to a live variable.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        drop(end);
        owner.join().unwrap();
    }
}
