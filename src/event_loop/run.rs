//! The ways of running a loop (S17 to S19, S21): until nothing is left, for ever, once.

use std::time::Duration;

use super::Loop;
use super::sleep::FOREVER;
use super::thread::Running;
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
        let run = Run::begin(self)?;
        let (ran, interrupted) = self.iterate(if run.is_wanted { 0 } else { limit }, false)?;
        self.stopping.set(false);
        if interrupted && ran == 0 { Err(Error::INTERRUPTED) } else { Ok(ran) }
    }

    /// An iteration on the way to the last final callback, which nothing stops or breaks off.
    pub(crate) fn iterate_in_shutdown(&self) -> Result<()> {
        self.stopping.set(false);
        self.breaking.set(false);
        self.iterate(FOREVER, false).map(|_| ())
    }

    pub(super) fn run_to_end(&self, forever: bool) -> Result<Outcome> {
        let run = Run::begin(self)?;
        let mut limit = if run.is_wanted { 0 } else { FOREVER };
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

/// One run, from beginning to end, whichever way it ends.
pub(crate) struct Run<'a> {
    lp: &'a Loop,
    /// Whether others have woken the loop while it counted as asleep in a host loop: then this run
    /// does not begin with a sleep.
    is_wanted: bool,
    _innermost: Running<'a>,
}

impl<'a> Run<'a> {
    fn begin(lp: &'a Loop) -> Result<Run<'a>> {
        lp.check_open()?;
        lp.tell_loss_to_host()?;
        Run::enter(lp)
    }

    /// As `begin`, for a loop that takes nothing new any more.
    pub(crate) fn enter(lp: &'a Loop) -> Result<Run<'a>> {
        if lp.running.replace(true) {
            return Err(Error::RUNNING);
        }
        lp.settle();
        let is_wanted = lp.wake_up_from_host();
        Ok(Run { lp, is_wanted, _innermost: Running::enter(lp) })
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.lp.breaking.set(false);
        self.lp.running.set(false);
        if self.lp.owner.process().is_current() {
            self.lp.hand_over_to_host();
        }
        if let Some(trace) = self.lp.slow.trace() {
            trace.flush();
        }
    }
}
