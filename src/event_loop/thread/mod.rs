//! A loop and its thread: on the way there (S25), which of its loops is the innermost that runs
//! (S20), and which it leaves open.
//!
//! `unsafe` lives here because a thread finds its loops through a pointer. Whoever puts a loop into
//! a link takes it out again before the loop ends or is moved.

#[cfg(feature = "capi")]
pub(super) mod leaving;

use std::cell::Cell;
use std::ptr;

use crate::error::{Error, Result};
use crate::event_loop::builder::Builder;
use crate::event_loop::remote::Remote;
use crate::event_loop::{Loop, Phase};

/// A loop on its way to the thread that will own it.
#[derive(Debug)]
pub struct DetachedLoop(Loop);

// SAFETY: a detached loop has come straight from `build_detached`: nothing is scheduled, no
// closure of any thread is in it, its ring is not bound to a thread yet, and until a thread adopts
// it nobody can reach the loop but through a remote.
unsafe impl Send for DetachedLoop {}

impl Builder {
    /// Makes a loop that belongs to no thread yet, to be taken to the one that shall run it (S25):
    /// what can fail has then failed here.
    pub fn build_detached(self) -> Result<DetachedLoop> {
        self.build().map(DetachedLoop)
    }
}

impl DetachedLoop {
    /// Makes the loop the calling thread's. Errors: EOWNERDEAD in a forked child, ENOMEM; the loop,
    /// in which nothing is pending, is dropped then.
    pub fn adopt(self) -> Result<Loop> {
        self.0.adopt()?;
        Ok(self.0)
    }

    /// The loop as other threads know it; what is posted waits for the loop's first run.
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
        // A thread that ends when the loop is closed cannot be the one that may close it.
        self.executor.check_elsewhere()?;
        self.owner.adopt()
    }
}

/// Leads to a loop of this thread's, or to none.
#[derive(Debug, Default)]
struct Link(Cell<*const Loop>);

impl Link {
    const fn new() -> Link {
        Link(Cell::new(ptr::null()))
    }

    #[inline]
    fn get(&self) -> Option<&Loop> {
        // SAFETY: a loop in a link is there: `as_innermost` borrows it while it is the innermost,
        // and `close_raw` frees none before `unlink_from_thread`.
        unsafe { self.0.get().as_ref() }
    }

    #[cfg(feature = "capi")]
    fn set(&self, to: Option<&Loop>) {
        self.0.set(to.map_or(ptr::null(), ptr::from_ref));
    }
}

thread_local!(static INNERMOST: Link = const { Link::new() });

/// Calls `f` while this loop is the innermost one that runs on the thread.
#[inline]
pub(super) fn as_innermost<R>(lp: &Loop, f: impl FnOnce() -> R) -> R {
    let _restore = Outer(INNERMOST.with(|innermost| innermost.0.replace(lp)));
    f()
}

/// The loop that is the innermost again when this is dropped.
struct Outer(*const Loop);

impl Drop for Outer {
    fn drop(&mut self) {
        INNERMOST.with(|innermost| innermost.0.set(self.0));
    }
}

impl Loop {
    /// Hands the innermost loop that is running on this thread to `f`, if there is one.
    // What is nested in `f` takes itself out again before `f` returns.
    #[inline]
    pub fn with_running<R>(f: impl FnOnce(Option<&Loop>) -> R) -> R {
        INNERMOST.with(|innermost| f(innermost.get()))
    }
}
