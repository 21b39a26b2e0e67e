//! What a program schedules: calls, timers, hooks, and what it does with their handles.
//!
//! Each of these is O(1) unless it says otherwise, makes no system call, and is for the loop's own
//! thread. Each says ESHUTDOWN when the loop is shut down or closing; those that take a handle say
//! ENOENT when it is stale (S10); those that schedule say ENOMEM when memory is refused, which
//! drops the closure and changes nothing else. This relies on user code (a Drop, a release hook)
//! being called with no borrow held.

use std::mem::ManuallyDrop;
use std::time::Duration;

use super::{Callback, EndTogether, Held, Loop};
use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::pending::{Cancelled, HookPoint};
use crate::sys::signals::{Registration, check_catchable};
use crate::time::{self, Time};

impl Loop {
    /// Runs `f` in the next iteration, after all that is ready already (S6).
    ///
    /// From inside a callback, that is a later iteration, never the current one (S7). A closure of
    /// two words or less costs no allocation.
    #[inline]
    pub fn call_soon(&self, f: impl FnOnce(&Loop) + 'static) -> Result<Handle> {
        self.check_open()?;
        self.schedule_soon(Callback::once(f)?)
    }

    /// Runs `f` once `delay` from now: [`call_at`](Loop::call_at) with `time() + delay`, saturating
    /// (S4).
    #[inline]
    pub fn call_later(&self, delay: Duration, f: impl FnOnce(&Loop) + 'static) -> Result<Handle> {
        self.call_at(self.time() + delay, f)
    }

    /// Runs `f` once at `when`: never before, to the nanosecond (S2), and after those that were
    /// scheduled for the same time earlier (S8). A time that is past already is due in the next
    /// iteration; [`Time::NEVER`] never comes, but can be rescheduled.
    #[inline]
    pub fn call_at(&self, when: Time, f: impl FnOnce(&Loop) + 'static) -> Result<Handle> {
        self.check_open()?;
        self.schedule_at(when.as_nanos(), Callback::once(f)?)
    }

    /// Runs `f` every `period`, for the first time a period from now.
    ///
    /// The timer keeps its phase: the k-th call is due at `start + k * period`, whatever the
    /// callbacks cost. Calls that the loop came too late for are left out and counted by
    /// [`skipped`](Loop::skipped) (S16). Errors: EINVAL when the period is zero.
    pub fn call_every(&self, period: Duration, f: impl FnMut(&Loop) + 'static) -> Result<Handle> {
        let period = period_of(time::nanos(period))?;
        self.check_open()?;
        self.schedule_every(period, Callback::many(f)?)
    }

    /// Runs `f` in every iteration, at the point named: to embed other loops. Hooks run in the
    /// order in which they were added, and keep no run alive (S19). What a hook schedules may run
    /// in the same iteration.
    pub fn add_hook(&self, point: HookPoint, f: impl FnMut(&Loop) + 'static) -> Result<Handle> {
        self.check_open()?;
        self.schedule_hook(point, Callback::many(f)?)
    }

    /// Runs `f` whenever the process gets `signal` (SIGTERM and so on), until it is cancelled.
    /// Several handlers for a signal, on several loops, all run, those of one loop oldest first;
    /// like hooks, they keep no run alive (S19).
    ///
    /// A signal that comes again before `f` has run is one with the former, real-time signals too.
    /// No signal mask is changed. The former disposition is back when the last handler for the
    /// signal has gone; in a forked child it is in force at once (S33). Errors: EINVAL for a signal
    /// that cannot be caught and for SIGSEGV, SIGBUS, SIGFPE and SIGILL; ENOMEM, ESHUTDOWN.
    pub fn add_signal_handler(
        &self,
        signal: i32,
        f: impl FnMut(&Loop) + 'static,
    ) -> Result<Handle> {
        check_catchable(signal)?;
        self.check_open()?;
        self.schedule_signal(signal, Callback::many(f)?)
    }

    /// Cancels: the callback will not run again, even if it stands in the batch that is being run
    /// (S11). What it carried is dropped and its release hook runs before this returns. (Later in
    /// two cases: for a callback that is on the stack, when that returns; inside of sixteen nested
    /// releases, when the innermost returns: S14.)
    ///
    /// An operation is only asked to end, since the kernel holds its buffer: its final callback
    /// comes, with ECANCELED or what the kernel had done by then (S13), and until then it is
    /// pending.
    ///
    /// O(1), however many are pending, and allocates nothing. No system call, but for the last
    /// watcher of a descriptor for which a poll is armed: the kernel lets go of its file before
    /// this returns (S12).
    #[inline]
    pub fn cancel(&self, handle: Handle) -> Result<()> {
        self.check()?;
        self.end(handle).map(|_| ())
    }

    /// As `cancel`, and tells whether the final callback is still to come. Who calls has been
    /// checked.
    #[inline]
    pub(crate) fn end(&self, handle: Handle) -> Result<Cancelled> {
        self.check_answers()?;
        if self.schedule.borrow_mut().cancel_plain(handle)? {
            return Ok(Cancelled::Gone);
        }
        self.end_other(handle)
    }

    /// As `end`, for what has more to it than its slot.
    #[cold]
    fn end_other(&self, handle: Handle) -> Result<Cancelled> {
        if self.defers_releases() {
            let cancelled = self.schedule.borrow_mut().cancel_deferred(handle)?;
            self.release_files();
            return Ok(cancelled);
        }
        let (kind, cancelled, ended) = self.schedule.borrow_mut().cancel(handle)?;
        // Before the Drop and the release hook, which may close the descriptor. A task may have
        // several watchers.
        self.release_files();
        let _together = (kind == Kind::Task).then(|| EndTogether::begin(self));
        if let Some(ended) = ended {
            self.release_catching(ended);
        }
        Ok(cancelled)
    }

    /// Moves a timer to `when`, behind those that are due then already; the handle stays. One that
    /// stands in the batch is taken out again (S15). A repeating timer takes its phase from there
    /// (S16).
    ///
    /// Errors: EINVAL when the handle is not a timer's.
    #[inline]
    pub fn reschedule(&self, handle: Handle, when: Time) -> Result<()> {
        self.check_open()?;
        self.move_timer(handle, when)
    }

    /// As `reschedule`. Who calls, and that the loop is open, has been checked.
    #[inline]
    pub(crate) fn move_timer(&self, handle: Handle, when: Time) -> Result<()> {
        self.schedule.borrow_mut().reschedule(handle, when.as_nanos())
    }

    /// When a timer is due; inside the callback of a repeating one, its next call (S15).
    ///
    /// Errors: EINVAL when the handle is not a timer's.
    pub fn when(&self, handle: Handle) -> Result<Time> {
        self.check()?;
        self.schedule.borrow().when(handle).map(Time::from_nanos)
    }

    /// How many calls of a repeating timer were left out because the loop came too late for them; 0
    /// for other timers.
    ///
    /// Errors: EINVAL when the handle is not a timer's.
    pub fn skipped(&self, handle: Handle) -> Result<u64> {
        self.check()?;
        self.schedule.borrow().skipped(handle)
    }

    /// Whether what the handle names is still to run.
    pub fn is_pending(&self, handle: Handle) -> bool {
        self.schedule.borrow().is_pending(handle)
    }

    /// Makes a call or a timer count for [`run`](Loop::run), as it does from the start (S19).
    ///
    /// Errors: EINVAL for a hook.
    pub fn ref_(&self, handle: Handle) -> Result<()> {
        self.check()?;
        self.schedule.borrow_mut().set_referenced(handle, true)
    }

    /// Makes a call or a timer not count for [`run`](Loop::run): that returns though it is pending.
    ///
    /// Errors: EINVAL for a hook.
    pub fn unref(&self, handle: Handle) -> Result<()> {
        self.check()?;
        self.schedule.borrow_mut().set_referenced(handle, false)
    }

    /// Whether what the handle names counts for [`run`](Loop::run).
    pub fn has_ref(&self, handle: Handle) -> bool {
        self.schedule.borrow().has_ref(handle)
    }

    /// Runs `f` once when what the handle names has ended: has run for the last time, was
    /// cancelled, or was pending when the loop was closed; never while its callback is on the stack
    /// (S14). Replaces the hook there was.
    ///
    /// What the callback carries is dropped just before, so in Rust a Drop often does as well.
    pub fn on_release(&self, handle: Handle, f: impl FnOnce(&Loop) + 'static) -> Result<()> {
        self.check_open()?;
        self.set_release(handle, Some(Callback::once(f)?))
    }

    /// The earliest deadline of all timers that do not stand in the ready queue; None when there is
    /// none. O(1); after the timer that had it was cancelled, O(log n) amortized.
    pub fn next_deadline(&self) -> Option<Time> {
        self.schedule.borrow_mut().next_deadline().map(Time::from_nanos)
    }

    // In what follows, the borrow ends before the callback does, where there is no room for it. The
    // first two are always inlined: a callback is three words, which a call would pass through
    // memory.

    #[inline(always)]
    pub(crate) fn schedule_soon(&self, callback: Callback) -> Result<Handle> {
        let callback = ManuallyDrop::new(callback);
        let mut schedule = self.schedule.borrow_mut();
        // What was posted before comes before (S26).
        let posts = self.collect_posts(&mut schedule);
        if let Err(error) = posts.and_then(|()| schedule.reserve_call()) {
            drop(schedule);
            Callback::refuse(callback);
            return Err(error);
        }
        Ok(schedule.call_soon(ManuallyDrop::into_inner(callback)))
    }

    #[inline(always)]
    pub(crate) fn schedule_at(&self, when: u64, callback: Callback) -> Result<Handle> {
        let callback = ManuallyDrop::new(callback);
        let mut schedule = self.schedule.borrow_mut();
        // What was posted before comes before timers that are due at the same time (S8).
        let posts = self.collect_posts(&mut schedule);
        if let Err(error) = posts.and_then(|()| schedule.reserve_timer(when)) {
            drop(schedule);
            Callback::refuse(callback);
            return Err(error);
        }
        Ok(schedule.call_at(when, ManuallyDrop::into_inner(callback)))
    }

    pub(crate) fn schedule_every(&self, period: u64, callback: Callback) -> Result<Handle> {
        let first = self.clock.now().saturating_add(period);
        let mut schedule = self.schedule.borrow_mut();
        self.collect_posts(&mut schedule)?;
        schedule.reserve_repeating_timer(first)?;
        Ok(schedule.call_every(first, period, callback))
    }

    pub(crate) fn schedule_hook(&self, point: HookPoint, callback: Callback) -> Result<Handle> {
        let mut schedule = self.schedule.borrow_mut();
        if !self.running.get() {
            // In a run, every round of hooks begins with a sweep.
            schedule.sweep_many_hooks();
        }
        schedule.reserve_hook(point)?;
        Ok(schedule.add_hook(point, callback))
    }

    pub(crate) fn schedule_signal(&self, signal: i32, callback: Callback) -> Result<Handle> {
        let mut schedule = self.schedule.borrow_mut();
        // What has come before is for the handlers there were.
        self.collect_posts(&mut schedule)?;
        let registration = Registration::new(signal, self.shared.clone())?;
        schedule.reserve_signal()?;
        Ok(schedule.add_signal(signal, callback, registration))
    }

    /// The callback that a handle names.
    #[cfg(feature = "capi")]
    pub(crate) fn source(&self, handle: Handle) -> Result<crate::abi::source::Source> {
        self.schedule.borrow().source(handle)
    }

    pub(crate) fn set_release(&self, handle: Handle, release: Option<Callback>) -> Result<()> {
        self.schedule.borrow_mut().reserve_release(handle)?;
        let former = self.schedule.borrow_mut().on_release(handle, release)?;
        if let Some(former) = former {
            self.release_catching(Held { callback: former, release: None });
        }
        Ok(())
    }
}

/// A period, which must not be zero.
pub(crate) fn period_of(nanos: u64) -> Result<u64> {
    if nanos == 0 { Err(Error::ZERO_PERIOD) } else { Ok(nanos) }
}
