//! The ways of running a loop (S17 to S19, S21): until nothing is left, until stopped, once.
//!
//! A running loop cannot be run again from inside (S20). The flags of `stop` and `break_` are read
//! after each iteration, and are clear when a run has returned. The end of a run updates the
//! descriptor of a host loop.

use std::time::Duration;

use super::Loop;
use super::sleep::FOREVER;
use super::thread::as_innermost;
use crate::error::{Error, Result};
use crate::time;

/// Why a run returned: the result of [`Loop::run`] and [`Loop::run_forever`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing referenced is left.
    Done,
    /// [`Loop::stop`] was called.
    Stopped,
    /// [`Loop::break_`] was called.
    Broken,
}

impl Loop {
    /// Runs until nothing referenced is left, or until `stop` or `break_` (S19).
    ///
    /// A loop with nothing left returns [`Outcome::Done`] without an iteration. Errors: EBUSY when
    /// the loop is running already; ESHUTDOWN; ENOMEM when memory is refused; EAGAIN when for a
    /// second the kernel has had no memory to take submissions; EBADR when the kernel had no memory
    /// to keep a completion: the operation of that completion ends with EBADR when it is cancelled;
    /// other errors of `io_uring_enter`. An error loses nothing: run again. A signal does not end
    /// the run.
    ///
    /// # Panics
    /// If a callback panics and no exception handler is set. The rest of the batch stays queued
    /// (S30).
    pub fn run(&self) -> Result<Outcome> {
        self.run_to_end(false)
    }

    /// As [`run`](Loop::run), but returns only after `stop` or `break_`.
    ///
    /// # Panics
    /// As [`run`](Loop::run).
    pub fn run_forever(&self) -> Result<Outcome> {
        self.run_to_end(true)
    }

    /// Runs one iteration, which sleeps at most `limit` (`Duration::MAX`: without limit). Returns
    /// the number of callbacks that ran, hooks not included (S17, S19).
    ///
    /// The number may be 0. Errors: those of [`run`](Loop::run), and EINTR when a signal ended the
    /// wait and no callback ran (S21).
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

    /// Calls `f` as a run of this loop, the innermost running loop of the thread meanwhile. `f`
    /// gets whether a remote has woken the loop while the host loop counted as asleep; such a run
    /// does not begin with a sleep.
    pub(super) fn in_run<R>(&self, f: impl FnOnce(bool) -> Result<R>) -> Result<R> {
        if self.running.replace(true) {
            return Err(Error::RUNNING);
        }
        let _end = EndOfRun(self);
        self.settle();
        let is_wanted = self.shared.host_fd().is_some() && self.host_woke();
        as_innermost(self, || f(is_wanted))
    }

    /// Binds the loop to this thread.
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

/// Ends a run, however `in_run` is left.
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
