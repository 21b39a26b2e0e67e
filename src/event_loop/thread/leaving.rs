//! The loops behind a pointer that a thread owns and has not closed when it exits, for others to
//! close (S25).
//!
//! A ring is bound to its thread. Once that has exited, nobody can ask the kernel any more when a
//! device has done what it was asked to read or write: enter and register say EEXIST to others (6.1
//! to 6.18). So the thread asks itself, as the last thing it does, and waits for a second at most.
//! This relies on `close_raw`, which takes a loop out of the list before it frees it. It does
//! nothing for a loop that Rust owns, which is dropped by its own thread.

use std::cell::Cell;

use nix::unistd::{getpid, gettid};

use super::Link;
use crate::event_loop::Loop;
use crate::sys::owner;
use crate::time::monotonic;

/// The neighbours of a loop among those that its thread has made use of.
#[derive(Debug, Default)]
pub(in crate::event_loop) struct Links {
    next: Link,
    previous: Link,
    is_linked: Cell<bool>,
}

thread_local! {
    /// The first of them.
    static FIRST: Link = const { Link::new() };
}

/// A thread's exit waits for devices so long at most, whatever the number of its loops: what they
/// have then is never released.
const LIMIT_NS: u64 = 1_000_000_000;

impl Loop {
    /// The loop stays with this thread from now on, which has something to do for it when it exits.
    #[cold]
    pub(in crate::event_loop) fn link_to_thread(&self) {
        // A thread that is past this has no use for the list: who comes after it may close, and
        // free, what stands in it.
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

    /// The loop is another thread's from now on: the list has gone with the one that has exited.
    #[cold]
    pub(in crate::event_loop) fn forget_thread(&self) {
        self.raw.links.is_linked.set(false);
    }

    /// The loop ends.
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

/// What a thread does before it counts as exited. Its loops leave the list: it may close some of
/// them later, in the destructors of thread-specific data, and others may close their neighbours by
/// then.
fn wait_for_devices() {
    let until = monotonic().saturating_add(LIMIT_NS);
    // The main thread's destructors run when the process ends, which needs no buffers any more.
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
