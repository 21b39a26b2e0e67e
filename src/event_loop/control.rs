//! Functions for a loop as a whole: stop, break, the time, the handler for panics, counters, and
//! one `Info` for each pending entry; and the checks of callers.
//!
//! Unless noted, each is for the loop's own thread, makes no system call, and changes nothing on an
//! error (S29). A walk shows every entry that was pending at its start and still is. The caller's
//! function runs with no borrow held. The checks rely on `sys::owner`.

use std::any::Any;

use super::{Loop, Phase, UserCode};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::observe::inspect::Info;
use crate::observe::metrics::Metrics;
use crate::sys::memory::try_box;
use crate::time::Time;

impl Loop {
    /// Makes the current run return after its current batch. Outside a run, makes the next run
    /// return after exactly one iteration, which does not sleep (S17). The flag clears when a run
    /// returns. O(1), no system call.
    ///
    /// Errors: ESHUTDOWN while the loop is being closed.
    pub fn stop(&self) -> Result<()> {
        self.check()?;
        self.stopping.set(true);
        Ok(())
    }

    /// Makes the current run return after the current callback. The rest of the batch stays queued,
    /// in order, for the next run. Takes precedence over [`stop`](Loop::stop) (S18). O(1), no
    /// system call.
    ///
    /// Errors: EINVAL when the loop is not running.
    pub fn break_(&self) -> Result<()> {
        self.check()?;
        if !self.running.get() {
            return Err(Error::NOT_RUNNING);
        }
        self.breaking.set(true);
        Ok(())
    }

    /// Whether the loop is inside a run.
    pub fn is_running(&self) -> bool {
        self.running.get()
    }

    /// Whether something referenced is pending, so that [`run`](Loop::run) would wait or work.
    pub fn is_alive(&self) -> bool {
        // After a shutdown, signals have no handler.
        self.schedule.borrow().is_alive()
            || self.phase.get() == Phase::Open && self.shared.inbox.has_posts()
    }

    /// The handle of the running callback, if any; the handle of a callback that runs once is stale
    /// by then. A post of another thread has no handle.
    pub fn current_handle(&self) -> Option<Handle> {
        self.current.get()
    }

    /// Sets a handler for panics in callbacks and hooks, in the Drop of their values, and in tasks
    /// that nothing joins. The handler gets the payload, and the loop continues (S30, S41).
    /// Replaces an earlier handler. A panic in the handler itself unwinds out of the run. Errors:
    /// ESHUTDOWN, ENOMEM.
    pub fn set_exception_handler(
        &self,
        handler: impl FnMut(&Loop, Box<dyn Any + Send>) + 'static,
    ) -> Result<()> {
        self.check_open()?;
        self.exception_handler.set(Some(try_box(handler)?));
        Ok(())
    }

    /// Removes the handler: panics of callbacks unwind out of the run again. Errors: ESHUTDOWN.
    pub fn clear_exception_handler(&self) -> Result<()> {
        self.check()?;
        self.exception_handler.set(None);
        Ok(())
    }

    /// The time, read from the clock at each call (S1): CLOCK_MONOTONIC, or the virtual clock of a
    /// loop that has one. About 25 ns.
    pub fn time(&self) -> Time {
        Time::from_nanos(self.clock.now())
    }

    /// The counters since the loop was made (S35).
    pub fn metrics(&self) -> Metrics {
        let traffic = self.kernel.borrow().traffic();
        let metrics = self.schedule.borrow().metrics();
        Metrics {
            gap_ns: if self.slack.is_some() { 0 } else { metrics.gap_ns },
            submitted: traffic.submitted,
            completed: traffic.completed,
            enters: traffic.enters,
            overflows: traffic.overflows,
            wakes: self.shared.wakes(),
            ..metrics
        }
    }

    /// Calls `f` for each pending entry, in no particular order, for example to find leaks. `f` may
    /// call any function, also `cancel`. Entries that `f` schedules may or may not be shown. Posts
    /// of other threads have no handles and are not shown, except for delayed ones. O(n). Errors:
    /// ESHUTDOWN while closing.
    pub fn walk(&self, mut f: impl FnMut(&Loop, &Info)) -> Result<()> {
        self.check()?;
        let _user_code = UserCode::begin(self);
        self.walk_pending(|info| {
            f(self, info);
            self.check_not_forked()
        })
    }

    pub(crate) fn walk_pending(&self, mut f: impl FnMut(&Info) -> Result<()>) -> Result<()> {
        let slots = self.schedule.borrow().len();
        for index in 0..slots {
            let info = self.schedule.borrow().info(index);
            if let Some(info) = info {
                f(&info)?;
            }
        }
        Ok(())
    }

    /// Checks the calling thread and process, and that the loop is not being closed (S29).
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        self.owner.check()?;
        self.check_answers()
    }

    /// Checks that the loop is not being closed. The caller has checked the thread.
    #[inline]
    pub(crate) fn check_answers(&self) -> Result<()> {
        if self.phase.get() >= Phase::Closing { Err(Error::SHUT_DOWN) } else { Ok(()) }
    }

    /// As `check`, for functions that schedule something.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        self.owner.check()?;
        self.check_accepts()
    }

    /// Checks that the loop accepts new entries. The caller has checked the thread.
    #[inline]
    pub(crate) fn check_accepts(&self) -> Result<()> {
        if self.phase.get() == Phase::Open { Ok(()) } else { Err(Error::SHUT_DOWN) }
    }

    /// As `check`, for functions that must not run while user code is on the stack.
    pub(crate) fn check_idle(&self) -> Result<()> {
        self.check()?;
        if self.running.get() || self.user_code.get() > 0 { Err(Error::RUNNING) } else { Ok(()) }
    }
}
