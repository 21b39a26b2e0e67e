//! The ways of running a loop (S17 to S19, S21): until nothing is left, for ever, once.
//!
//! A loop that runs is not run again from inside (S20). The flags of stop and break are read after
//! each iteration, and are clear when a run has returned. What a run leaves is told to a host loop.

use std::time::Duration;

use super::Loop;
use super::sleep::FOREVER;
use super::thread::as_innermost;
use crate::error::{Error, Result};
use crate::time;

/// Why a run returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing that counts is left.
    Done,
    /// [`Loop::stop`] was called.
    Stopped,
    /// [`Loop::break_`] was called.
    Broken,
}

impl Loop {
    /// Runs until nothing referenced is left, or until stopped or broken off (S19).
    ///
    /// On a loop with nothing left it returns [`Outcome::Done`] without an iteration. Errors: EBUSY
    /// when the loop runs already; ESHUTDOWN; ENOMEM when memory is refused; EAGAIN when the kernel
    /// has taken no submissions for a second, for want of memory; EBADR when it had no memory to
    /// keep a completion: an operation that had it ends with EBADR when it is cancelled; what else
    /// `io_uring_enter` says. Nothing is lost on an error: run again. A signal does not end it.
    ///
    /// # Panics
    /// When a callback does and no exception handler is set; the rest of the batch stays queued
    /// (S30).
    pub fn run(&self) -> Result<Outcome> {
        self.run_to_end(false)
    }

    /// As [`run`](Loop::run), but returns only when stopped or broken off.
    ///
    /// # Panics
    /// As [`run`](Loop::run).
    pub fn run_forever(&self) -> Result<Outcome> {
        self.run_to_end(true)
    }

    /// Runs one iteration, which sleeps at most `limit` (`Duration::MAX`: without limit), and tells
    /// how many callbacks it ran; hooks do not count (S17, S19).
    ///
    /// It may come back with 0. Errors: those of [`run`](Loop::run), and EINTR when a signal ended
    /// the wait and no callback ran (S21).
    ///
    /// # Panics
    /// As [`run`](Loop::run).
    pub fn run_once(&self, limit: Duration) -> Result<usize> {
        self.iterate_once(time::nanos(limit))
    }

    pub(crate) fn iterate_once(&self, limit: u64) -> Result<usize> {
        self.check_ready_to_run()?;
        self.in_run(|is_wanted| {
            let (ran, interrupted) = self.iterate(if is_wanted { 0 } else { limit }, false)?;
            self.stopping.set(false);
            if interrupted && ran == 0 { Err(Error::INTERRUPTED) } else { Ok(ran) }
        })
    }

    fn run_to_end(&self, forever: bool) -> Result<Outcome> {
        self.check_ready_to_run()?;
        self.in_run(|is_wanted| {
            let mut limit = if is_wanted { 0 } else { FOREVER };
            let mut outcome = Outcome::Done;
            while outcome == Outcome::Done && (forever || self.is_alive()) {
                self.iterate(limit, !forever)?;
                limit = FOREVER;
                outcome = match (self.breaking.get(), self.stopping.get()) {
                    (true, _) => Outcome::Broken,
                    (false, true) => Outcome::Stopped,
                    (false, false) => Outcome::Done,
                };
            }
            self.stopping.set(false);
            Ok(outcome)
        })
    }

    fn check_ready_to_run(&self) -> Result<()> {
        self.check_open()?;
        self.tell_loss_to_host()
    }

    /// Calls `f` as a run of this loop, which is the innermost of its thread meanwhile. `f` gets
    /// whether others have woken the loop while it counted as asleep in a host loop: then the run
    /// does not begin with a sleep.
    pub(super) fn in_run<R>(&self, f: impl FnOnce(bool) -> Result<R>) -> Result<R> {
        if self.running.replace(true) {
            return Err(Error::RUNNING);
        }
        let _end = EndOfRun(self);
        self.settle();
        let is_wanted = self.shared.host_fd().is_some() && self.shared.inbox.wake_up();
        as_innermost(self, || f(is_wanted))
    }

    /// The loop stays with this thread from now on.
    #[inline]
    pub(crate) fn settle(&self) {
        let is_first = self.owner.settle();
        #[cfg(feature = "capi")]
        if is_first {
            self.link_to_thread();
        }
        #[cfg(not(feature = "capi"))]
        let _ = is_first;
    }
}

/// Ends a run, whichever way `in_run` is left.
struct EndOfRun<'a>(&'a Loop);

impl Drop for EndOfRun<'_> {
    fn drop(&mut self) {
        self.0.breaking.set(false);
        self.0.running.set(false);
        if self.0.owner.process().is_current() {
            self.0.hand_over_to_host();
        }
        if let Some(trace) = self.0.slow.trace {
            trace.flush();
        }
    }
}
