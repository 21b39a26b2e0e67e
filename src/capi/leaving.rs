//! The loops in C that a thread owns and has not closed when it exits, for others to close (S25).
//!
//! A ring is bound to its thread. Once that has exited, nobody can ask the kernel any more when a device has done what it was asked to
//! read or write: enter and register say EEXIST to others (6.1 to 6.18). So the thread asks itself, as the last thing it does. A loop in
//! Rust is dropped by its own thread.

use std::cell::Cell;
use std::ptr;

use nix::unistd::{getpid, gettid};

use crate::event_loop::Loop;
use crate::sys::owner;
use crate::time::monotonic;

/// The neighbours of a loop among those that its thread has made use of.
#[derive(Debug)]
pub(super) struct Links {
    next: Cell<*mut Loop>,
    previous: Cell<*mut Loop>,
    is_linked: Cell<bool>,
}

thread_local! {
    /// The first of them.
    static FIRST: Cell<*mut Loop> = const { Cell::new(ptr::null_mut()) };
}

/// A thread's exit waits for devices so long at most, whatever the number of its loops: what they have then is never released.
const LIMIT_NS: u64 = 1_000_000_000;

impl Default for Links {
    fn default() -> Links {
        Links { next: Cell::new(ptr::null_mut()), previous: Cell::new(ptr::null_mut()), is_linked: Cell::new(false) }
    }
}

impl Loop {
    /// The loop stays with this thread from now on, which has something to do for it when it exits.
    #[cold]
    pub(crate) fn link_to_thread(&self) {
        let this = self.as_c().cast::<Loop>();
        // A thread that is past this has no use for the list: who comes after it may close, and free, what stands in it.
        if !self.is_made_for_c() || !owner::before_exit(wait_for_devices) {
            return;
        }
        self.c.links.is_linked.set(true);
        let next = FIRST.replace(this);
        self.c.links.next.set(next);
        // SAFETY: what is linked is a loop of this thread's, which unlinks itself before it is freed.
        if let Some(next) = unsafe { next.as_ref() } {
            next.c.links.previous.set(this);
        }
    }

    /// The loop is another thread's from now on: the list has gone with the one that has exited.
    #[cold]
    pub(crate) fn forget_thread(&self) {
        self.c.links.is_linked.set(false);
    }

    /// The loop ends.
    pub(super) fn unlink_from_thread(&self) {
        if !self.c.links.is_linked.replace(false) {
            return;
        }
        let (next, previous) = (self.c.links.next.get(), self.c.links.previous.get());
        // SAFETY: as above.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.c.links.next.set(next),
            None => FIRST.set(next),
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_ref() } {
            next.c.links.previous.set(previous);
        }
    }
}

/// What a thread does before it counts as exited. Its loops leave the list: it may close some of them later, in the destructors of
/// thread-specific data, and others may close their neighbours by then.
fn wait_for_devices() {
    let until = monotonic().saturating_add(LIMIT_NS);
    // The main thread's destructors run when the process ends, which needs no buffers any more.
    let is_main = gettid() == getpid();
    let mut at = FIRST.replace(ptr::null_mut());
    // SAFETY: what is linked is a loop of this thread's that has not been closed; others may close it when the thread counts as exited.
    while let Some(lp) = unsafe { at.as_ref() } {
        at = lp.c.links.next.get();
        lp.c.links.is_linked.set(false);
        if !is_main && lp.owner.check().is_ok() {
            lp.wait_for_devices(until);
        }
    }
}
