//! What a program schedules: calls, timers, hooks; and the functions that take their handles.
//!
//! Unless noted, each function is O(1), makes no system call, and is for the loop's own thread.
//! Each fails with ESHUTDOWN when the loop is shut down or closing. Functions that take a handle
//! fail with ENOENT when the handle is stale (S10). Functions that schedule fail with ENOMEM when
//! memory is refused; the closure is dropped and nothing else changes. User code (a Drop, a release
//! hook) must run with no borrow held.

use std::mem::ManuallyDrop;
use std::time::Duration;

use super::{Callback, EndTogether, Held, Loop};
use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::pending::{Cancelled, HookPoint};
use crate::sys::signals::{Registration, check_catchable};
use crate::time::{self, Time};

impl Loop {
    /// Runs `f` in the next iteration, after everything that is ready already (S6).
    ///
    /// Called inside a callback, that is a later iteration, never the current one (S7). A closure
    /// of at most two words costs no allocation.
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

    /// Runs `f` once at `when`: never before, to the nanosecond (S2), and after those scheduled
    /// earlier for the same time (S8). A time in the past is due in the next iteration. A timer at
    /// [`Time::NEVER`] never runs, but can be rescheduled.
    #[inline]
    pub fn call_at(&self, when: Time, f: impl FnOnce(&Loop) + 'static) -> Result<Handle> {
        self.check_open()?;
        self.schedule_at(when.as_nanos(), Callback::once(f)?)
    }

    /// Runs `f` every `period`, for the first time one period from now.
    ///
    /// The timer keeps its phase: the k-th call is due at `start + k * period`, however long the
    /// callbacks run. The loop skips calls for which it is too late and counts them in
    /// [`skipped`](Loop::skipped) (S16). Errors: EINVAL when the period is zero.
    pub fn call_every(&self, period: Duration, f: impl FnMut(&Loop) + 'static) -> Result<Handle> {
        let period = period_of(time::nanos(period))?;
        self.check_open()?;
        self.schedule_every(period, Callback::many(f)?)
    }

    /// Runs `f` in every iteration, at `point`; for embedding other loops. Hooks run in the order
    /// in which they were added, and do not keep a run alive (S19). A call that a hook schedules
    /// may run in the same iteration.
    pub fn add_hook(&self, point: HookPoint, f: impl FnMut(&Loop) + 'static) -> Result<Handle> {
        self.check_open()?;
        self.schedule_hook(point, Callback::many(f)?)
    }

    /// Runs `f` whenever the process gets `signal` (for example SIGTERM), until it is cancelled. A
    /// signal may have several handlers, on several loops. All of them run, those of one loop
    /// oldest first. Like hooks, they do not keep a run alive (S19).
    ///
    /// A signal that arrives again before `f` has run is merged with the first, real-time signals
    /// too. No signal mask changes. Removing the last handler for the signal restores the former
    /// disposition; in a forked child that disposition is in force at once (S33). Errors: EINVAL
    /// for a signal that cannot be caught and for SIGSEGV, SIGBUS, SIGFPE and SIGILL; ENOMEM,
    /// ESHUTDOWN.
    pub fn add_signal_handler(
        &self,
        signal: i32,
        f: impl FnMut(&Loop) + 'static,
    ) -> Result<Handle> {
        check_catchable(signal)?;
        self.check_open()?;
        self.schedule_signal(signal, Callback::many(f)?)
    }

    /// Cancels: the callback will not run again, even if it is in the current batch (S11). Before
    /// this returns, the values of the callback are dropped and its release hook runs. Two cases
    /// are later (S14): for a callback on the stack, when that callback returns; inside sixteen
    /// nested releases, when the innermost returns.
    ///
    /// Cancelling an operation is a request, because the kernel may still use its buffer. The
    /// operation stays pending until its final callback, which gets ECANCELED or the result that
    /// the kernel had by then (S13).
    ///
    /// O(1), whatever the number of pending entries. Allocates nothing. Makes no system call,
    /// except for the last watcher of a descriptor with an armed poll: the kernel releases the file
    /// before this returns (S12).
    #[inline]
    pub fn cancel(&self, handle: Handle) -> Result<()> {
        self.check()?;
        self.end(handle).map(|_| ())
    }

    /// As `cancel`, and returns whether a final callback follows. The caller has checked the
    /// thread.
    #[inline]
    pub(crate) fn end(&self, handle: Handle) -> Result<Cancelled> {
        self.check_answers()?;
        if self.schedule.borrow_mut().cancel_plain(handle)? {
            return Ok(Cancelled::Gone);
        }
        self.end_other(handle)
    }

    /// As `end`, for entries that need more than the release of their slot.
    #[cold]
    fn end_other(&self, handle: Handle) -> Result<Cancelled> {
        if self.defers_releases() {
            let cancelled = self.schedule.borrow_mut().cancel_deferred(handle)?;
            self.release_files();
            return Ok(cancelled);
        }
        let (kind, cancelled, ended) = self.schedule.borrow_mut().cancel(handle)?;
        // The files are released before the Drop and the release hook, which may close the
        // descriptor. A task may have several watchers.
        self.release_files();
        let _together = (kind == Kind::Task).then(|| EndTogether::begin(self));
        if let Some(ended) = ended {
            self.release_catching(ended);
        }
        Ok(cancelled)
    }

    /// Moves a timer to `when`, behind timers that are due then already; the handle stays valid. A
    /// timer in the batch leaves the batch (S15). A repeating timer takes its phase from `when`
    /// (S16).
    ///
    /// Errors: EINVAL when the handle is not a timer's.
    #[inline]
    pub fn reschedule(&self, handle: Handle, when: Time) -> Result<()> {
        self.check_open()?;
        self.move_timer(handle, when)
    }

    /// As `reschedule`. The caller has checked the thread, and that the loop is open.
    #[inline]
    pub(crate) fn move_timer(&self, handle: Handle, when: Time) -> Result<()> {
        self.schedule.borrow_mut().reschedule(handle, when.as_nanos())
    }

    /// When a timer is due; inside the callback of a repeating timer, its next call (S15).
    ///
    /// Errors: EINVAL when the handle is not a timer's.
    pub fn when(&self, handle: Handle) -> Result<Time> {
        self.check()?;
        self.schedule.borrow().when(handle).map(Time::from_nanos)
    }

    /// The number of calls of a repeating timer that the loop skipped because it was too late; 0
    /// for other timers.
    ///
    /// Errors: EINVAL when the handle is not a timer's.
    pub fn skipped(&self, handle: Handle) -> Result<u64> {
        self.check()?;
        self.schedule.borrow().skipped(handle)
    }

    /// Whether the handle's callback is still to run.
    pub fn is_pending(&self, handle: Handle) -> bool {
        self.schedule.borrow().is_pending(handle)
    }

    /// Makes a call or a timer keep [`run`](Loop::run) alive, as it does initially (S19).
    ///
    /// Errors: EINVAL for a hook.
    pub fn ref_(&self, handle: Handle) -> Result<()> {
        self.check()?;
        self.schedule.borrow_mut().set_referenced(handle, true)
    }

    /// Makes a call or a timer not keep [`run`](Loop::run) alive, which then returns while it is
    /// pending.
    ///
    /// Errors: EINVAL for a hook.
    pub fn unref(&self, handle: Handle) -> Result<()> {
        self.check()?;
        self.schedule.borrow_mut().set_referenced(handle, false)
    }

    /// Whether the handle's callback keeps [`run`](Loop::run) alive.
    pub fn has_ref(&self, handle: Handle) -> bool {
        self.schedule.borrow().has_ref(handle)
    }

    /// Runs `f` once when the entry of the handle has ended: after its last run, its cancellation,
    /// or the close of the loop; never while its callback is on the stack (S14). Replaces an
    /// earlier hook.
    ///
    /// The values of the callback are dropped just before, so in Rust a Drop often serves as well.
    pub fn on_release(&self, handle: Handle, f: impl FnOnce(&Loop) + 'static) -> Result<()> {
        self.check_open()?;
        self.set_release(handle, Some(Callback::once(f)?))
    }

    /// The earliest deadline of all timers outside the ready queue; None without such a timer.
    /// O(1); after that timer was cancelled, O(log n) amortized.
    pub fn next_deadline(&self) -> Option<Time> {
        self.schedule.borrow_mut().next_deadline().map(Time::from_nanos)
    }

    // Without space, the functions below end the borrow before they drop the callback. The first
    // two are always inlined: a callback is three words, which a call would pass through memory.

    #[inline(always)]
    pub(crate) fn schedule_soon(&self, callback: Callback) -> Result<Handle> {
        let callback = ManuallyDrop::new(callback);
        let mut schedule = self.schedule.borrow_mut();
        // Earlier posts run earlier (S26).
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
        // Earlier posts run before timers that are due at the same time (S8).
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
        // Signals that have arrived already are for the existing handlers.
        self.collect_posts(&mut schedule)?;
        let registration = Registration::new(signal, self.shared.clone())?;
        schedule.reserve_signal()?;
        Ok(schedule.add_signal(signal, callback, registration))
    }

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

/// Checks that a period is not zero.
pub(crate) fn period_of(nanos: u64) -> Result<u64> {
    if nanos == 0 { Err(Error::ZERO_PERIOD) } else { Ok(nanos) }
}
