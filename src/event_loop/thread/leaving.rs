//! The loops behind a pointer that a thread owns and has not closed when it exits (S25).
//!
//! A ring is bound to its thread. After the thread has exited, enter and register fail with EEXIST
//! for other threads (6.1 to 6.18), so that nothing can learn when a device has completed a read or
//! write. So the exiting thread waits for its devices, at most a second. This relies on
//! `close_raw`, which removes a loop from the list before it frees it. Loops owned by Rust are not
//! in the list: their own thread drops them.

use std::cell::Cell;

use nix::unistd::{getpid, gettid};

use super::Link;
use crate::event_loop::Loop;
use crate::sys::owner;
use crate::time::monotonic;

/// The neighbours of a loop in the list of its thread's loops: an intrusive list node.
#[derive(Debug, Default)]
pub(in crate::event_loop) struct Links {
    next: Link,
    previous: Link,
    is_linked: Cell<bool>,
}

thread_local! {
    /// The head of the thread's list.
    static FIRST: Link = const { Link::new() };
}

/// The longest wait for devices when a thread exits, whatever the number of its loops. The data
/// that devices use after this is never released.
const LIMIT_NS: u64 = 1_000_000_000;

impl Loop {
    /// Puts the loop into the list of this thread, which handles the list when it exits.
    #[cold]
    pub(in crate::event_loop) fn link_to_thread(&self) {
        // A thread that has handled its list must not add to it: another thread may close and free
        // the loop later.
        if !self.is_raw() || !owner::before_exit(wait_for_devices) {
            return;
        }
        FIRST.with(|first| {
            let (links, next) = (&self.raw.links, first.get());
            links.is_linked.set(true);
            links.next.set(next);
            if let Some(next) = next {
                next.raw.links.previous.set(Some(self));
            }
            first.set(Some(self));
        });
    }

    /// The loop has a new thread; the list has ended with the former thread.
    #[cold]
    pub(in crate::event_loop) fn forget_thread(&self) {
        self.raw.links.is_linked.set(false);
    }

    /// Removes the loop from the list.
    pub(in crate::event_loop) fn unlink_from_thread(&self) {
        let links = &self.raw.links;
        if !links.is_linked.replace(false) {
            return;
        }
        let (next, previous) = (links.next.get(), links.previous.get());
        match previous {
            Some(previous) => previous.raw.links.next.set(next),
            None => FIRST.with(|first| first.set(next)),
        }
        if let Some(next) = next {
            next.raw.links.previous.set(previous);
        }
    }
}

/// Runs before the thread counts as exited. Removes its loops from the list, because destructors of
/// thread-specific data may close some of them later, and other threads may close their neighbours.
fn wait_for_devices() {
    let until = monotonic().saturating_add(LIMIT_NS);
    // The destructors of the main thread run at process exit, where buffers no longer matter.
    let is_main = gettid() == getpid();
    FIRST.with(|first| {
        let mut at = first.get();
        first.set(None);
        while let Some(lp) = at {
            at = lp.raw.links.next.get();
            lp.raw.links.is_linked.set(false);
            if !is_main && lp.owner.check().is_ok() {
                lp.wait_for_devices(until);
            }
        }
    });
}
