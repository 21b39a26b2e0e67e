//! What a program asks of a loop as a whole, and who may ask: stop, break, the time, the handler
//! for panics, counters, and one `Info` for each pending thing.
//!
//! Each of these is for the loop's own thread, makes no system call, and changes nothing where it
//! is refused (S29). A walk shows everything that was pending when it began and still is; no borrow
//! is held while the caller's function runs. `check` and its like rely on `sys::owner`.

use std::any::Any;

use super::{Loop, Phase, UserCode};
use crate::abi::handle::Handle;
use crate::error::{Error, Result};
use crate::observe::inspect::Info;
use crate::observe::metrics::Metrics;
use crate::sys::memory::try_box;
use crate::time::Time;

impl Loop {
    /// Makes the current run return after its current batch; without a run, the next one after
    /// exactly one iteration that does not sleep (S17). The flag clears when a run returns. O(1),
    /// no system call.
    ///
    /// Errors: ESHUTDOWN while the loop is being closed.
    pub fn stop(&self) -> Result<()> {
        self.check()?;
        self.stopping.set(true);
        Ok(())
    }

    /// Makes the current run return after the current callback; the rest of the batch stays queued,
    /// in order, for the next run. It wins over [`stop`](Loop::stop) (S18). O(1), no system call.
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

    /// Whether [`run`](Loop::run) would wait or work: something referenced is pending.
    pub fn is_alive(&self) -> bool {
        // Once the loop is shut down, a signal that has come is nobody's.
        self.schedule.borrow().is_alive()
            || self.phase.get() == Phase::Open && self.shared.inbox.has_posts()
    }

    /// The handle of the callback that is running, if one is: also of one that runs once, though
    /// that is stale by then. A post of another thread has none.
    pub fn current_handle(&self) -> Option<Handle> {
        self.current.get()
    }

    /// Gives the loop a handler for panics in callbacks, hooks and what they carry, and for those
    /// of tasks that nobody joins: it gets the payload, and the loop goes on (S30, S41). Replaces
    /// the handler there was. A panic in the handler itself leaves the run. Errors: ESHUTDOWN,
    /// ENOMEM.
    pub fn set_exception_handler(
        &self,
        handler: impl FnMut(&Loop, Box<dyn Any + Send>) + 'static,
    ) -> Result<()> {
        self.check_open()?;
        self.exception_handler.set(Some(try_box(handler)?));
        Ok(())
    }

    /// Lets panics of callbacks leave the run again. Errors: ESHUTDOWN.
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
        let metrics = self.schedule.borrow().metrics;
        Metrics {
            submitted: traffic.submitted,
            completed: traffic.completed,
            enters: traffic.enters,
            overflows: traffic.overflows,
            wakes: self.shared.wakes(),
            ..metrics
        }
    }

    /// Shows everything that is pending to `f`, in no order that is promised: to find leaks. `f`
    /// may call anything, cancel included; what it schedules may or may not be shown. Posts of
    /// other threads have no handles and are not shown, but for delayed ones. O(n). Errors:
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

    /// Who may call, and whether the loop still answers (S29).
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        self.owner.check()?;
        self.check_answers()
    }

    /// Whether the loop still answers. Who calls has been checked.
    #[inline]
    pub(crate) fn check_answers(&self) -> Result<()> {
        if self.phase.get() >= Phase::Closing { Err(Error::SHUT_DOWN) } else { Ok(()) }
    }

    /// As `check`, for what adds something.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        self.owner.check()?;
        self.check_accepts()
    }

    /// Whether the loop takes something new. Who calls has been checked.
    #[inline]
    pub(crate) fn check_accepts(&self) -> Result<()> {
        if self.phase.get() == Phase::Open { Ok(()) } else { Err(Error::SHUT_DOWN) }
    }

    /// As `check`, for what must not happen while code of the user's is on the stack.
    pub(crate) fn check_idle(&self) -> Result<()> {
        self.check()?;
        if self.running.get() || self.user_code.get() > 0 { Err(Error::RUNNING) } else { Ok(()) }
    }
}
