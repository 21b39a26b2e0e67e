//! The connection of a loop and its thread: moving a new loop to a thread (S25), and the innermost
//! running loop (S20).
//!
//! `unsafe` is here because a thread finds its loops through a pointer. The code that puts a loop
//! into a link removes it before the loop ends or moves.

#[cfg(feature = "capi")]
pub(super) mod leaving;

use std::cell::Cell;
use std::ptr;

use crate::error::{Error, Result};
use crate::event_loop::builder::Builder;
use crate::event_loop::remote::Remote;
use crate::event_loop::{Loop, Phase};

/// A new loop that belongs to no thread yet.
#[derive(Debug)]
pub struct DetachedLoop(Loop);

// SAFETY: `build_detached` guarantees that nothing is scheduled and the ring is bound to no thread,
// and until a thread adopts the loop, only remotes reach it.
unsafe impl Send for DetachedLoop {}

impl Builder {
    /// Makes a loop that belongs to no thread yet, for another thread to adopt (S25). Errors of
    /// [`Builder::build`] occur here, not in that thread.
    pub fn build_detached(self) -> Result<DetachedLoop> {
        self.build().map(DetachedLoop)
    }
}

impl DetachedLoop {
    /// Makes the calling thread the owner of the loop. Errors: EOWNERDEAD in a forked child,
    /// ENOMEM; the loop, in which nothing is pending, is dropped then.
    pub fn adopt(self) -> Result<Loop> {
        self.0.adopt()?;
        Ok(self.0)
    }

    /// A handle to the loop for other threads. Posts wait for the loop's first run.
    pub fn remote(&self) -> Remote {
        self.0.remote()
    }
}

impl Loop {
    /// Takes over a loop that has not run yet.
    pub(crate) fn adopt(&self) -> Result<()> {
        self.owner.check_adoptable()?;
        if self.kernel.borrow().is_bound() {
            return Err(Error::BOUND);
        }
        if self.phase.get() != Phase::Open {
            return Err(Error::SHUT_DOWN);
        }
        // A thread that ends when the loop is closed, such as an executor thread, must not own the
        // loop.
        self.executor.check_elsewhere()?;
        self.owner.adopt()
    }
}

/// A pointer to a loop of this thread, or null.
#[derive(Debug, Default)]
struct Link(Cell<*const Loop>);

impl Link {
    const fn new() -> Link {
        Link(Cell::new(ptr::null()))
    }

    #[inline]
    fn get(&self) -> Option<&Loop> {
        // SAFETY: a loop in a link is alive, because `as_innermost` borrows it as long as it is the
        // innermost, and `close_raw` calls `unlink_from_thread` before it frees a loop.
        unsafe { self.0.get().as_ref() }
    }

    #[cfg(feature = "capi")]
    fn set(&self, to: Option<&Loop>) {
        self.0.set(to.map_or(ptr::null(), ptr::from_ref));
    }
}

thread_local!(static INNERMOST: Link = const { Link::new() });

/// Calls `f` while this loop is the innermost running loop of the thread.
#[inline]
pub(super) fn as_innermost<R>(lp: &Loop, f: impl FnOnce() -> R) -> R {
    let _restore = Outer(INNERMOST.with(|innermost| innermost.0.replace(lp)));
    f()
}

/// Restores the former innermost loop when dropped.
struct Outer(*const Loop);

impl Drop for Outer {
    fn drop(&mut self) {
        INNERMOST.with(|innermost| innermost.0.set(self.0));
    }
}

impl Loop {
    /// Calls `f` with the innermost running loop of this thread, if there is one.
    // A run nested in `f` restores the link before `f` returns.
    #[inline]
    pub fn with_running<R>(f: impl FnOnce(Option<&Loop>) -> R) -> R {
        INNERMOST.with(|innermost| f(innermost.get()))
    }
}
