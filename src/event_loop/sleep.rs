//! S5 (a): submits queued entries, and sleeps if nothing is ready.
//!
//! A loop with a virtual clock jumps to the next deadline instead (S36). A sleep relies on
//! `threads::inbox` for wakes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Loop, Schedule};
use crate::error::{Error, Result};
use crate::kernel::{Kernel, Waited};
use crate::pending::WakeUp;
use crate::time::{self, Clock};

/// No limit for the sleep of an iteration.
pub(super) const FOREVER: u64 = u64::MAX;

/// The result of step (a).
pub(super) struct Waiting {
    pub(super) interrupted: bool,
    /// The last reading of the clock, if any.
    pub(super) now: Option<u64>,
}

impl Loop {
    /// S5 (a): submits queued entries, and sleeps if nothing is ready; with `while_alive`, only if
    /// something referenced is pending (S19).
    #[inline(always)]
    pub(super) fn wait(
        &self,
        schedule: &mut Schedule,
        kernel: &mut Kernel,
        limit: u64,
        while_alive: bool,
    ) -> Result<Waiting> {
        // A hook may have ended the last referenced entry: then `run` must not sleep.
        let limit = if while_alive && !schedule.is_alive() { 0 } else { limit };
        let waiting = self.submit_and_wait(schedule, kernel, limit);
        if waiting.is_err() && kernel.take_loss() {
            schedule.completion_lost();
        }
        waiting
    }

    #[inline(always)]
    fn submit_and_wait(
        &self,
        schedule: &mut Schedule,
        kernel: &mut Kernel,
        limit: u64,
    ) -> Result<Waiting> {
        let limit = if schedule.has_submissions() {
            self.submit_deferred_first(schedule, kernel, limit)?
        } else {
            limit
        };
        if limit == 0 || self.is_busy(schedule) || self.finds_posts(kernel) {
            kernel.submit()?;
            return Ok(Waiting { interrupted: false, now: None });
        }
        let now = self.clock.now();
        if schedule.is_due(now) {
            kernel.submit()?;
            return Ok(Waiting { interrupted: false, now: Some(now) });
        }
        match &self.clock {
            Clock::Monotonic => self.sleep(schedule, kernel, now, now.saturating_add(limit)),
            Clock::Virtual(clock) => self.jump(clock, schedule, kernel, now, limit),
        }
    }

    /// Submits deferred cancels and re-arms. Entries that the kernel refuses at the moment wait for
    /// the next iteration. When memory is refused, the loop first collects existing completions
    /// without sleeping.
    #[cold]
    fn submit_deferred_first(
        &self,
        schedule: &mut Schedule,
        kernel: &mut Kernel,
        limit: u64,
    ) -> Result<u64> {
        if kernel.has_loss() {
            // A cancel has met the loss, and does not fail for it.
            return Err(Error::COMPLETION_LOST);
        }
        match self.submit_deferred(schedule, kernel) {
            // Some operations continue in the next iteration.
            Ok(()) if schedule.has_submissions() => Ok(0),
            Ok(()) | Err(Error::NO_SUBMISSION) => Ok(limit),
            Err(Error::NO_MEMORY) if kernel.has_completions() => Ok(0),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn must_not_sleep(&self, schedule: &Schedule) -> bool {
        self.is_busy(schedule) || self.shared.inbox.has_posts()
    }

    #[inline]
    fn is_busy(&self, schedule: &Schedule) -> bool {
        self.stopping.get() || self.breaking.get() || schedule.is_ready()
    }

    /// Looks for posts; in a flood, lets some gather before.
    #[inline]
    fn finds_posts(&self, kernel: &mut Kernel) -> bool {
        if self.flood.is_due() && !kernel.has_completions() {
            self.flood.pause();
        }
        self.shared.inbox.has_posts()
    }

    /// The time on CLOCK_MONOTONIC at which a timer ends the sleep: `slack` later than its
    /// deadline, or automatic (S3). Timers on a virtual clock end no sleep.
    #[inline(always)]
    pub(super) fn wake_up(&self, schedule: &mut Schedule) -> WakeUp {
        let wake_up = match (&self.clock, self.slack) {
            (Clock::Virtual(_), _) => None,
            _ if !schedule.has_timers() => None,
            (Clock::Monotonic, None) => schedule.wake_up(),
            (Clock::Monotonic, Some(slack)) => schedule.wake_up_bound().map(|deadline| WakeUp {
                time: deadline.saturating_add(slack),
                is_exact: slack == 0 && self.spin == 0,
            }),
        };
        wake_up.unwrap_or(WakeUp { time: FOREVER, is_exact: false })
    }

    /// Sleeps from `now` until a completion or a due timer, at the latest until `limit`, on
    /// CLOCK_MONOTONIC.
    #[cold]
    fn sleep(
        &self,
        schedule: &mut Schedule,
        kernel: &mut Kernel,
        mut now: u64,
        limit: u64,
    ) -> Result<Waiting> {
        let is_virtual = matches!(self.clock, Clock::Virtual(_));
        loop {
            let timer = self.wake_up(schedule);
            let until = timer.time.min(limit);
            let wake_up = if until == FOREVER { FOREVER } else { until.saturating_sub(self.spin) };
            let mut waited = Waited::Completed;
            now = self.spin(kernel, now, until);
            let would_sleep = now < wake_up && !kernel.has_completions();
            if would_sleep {
                // Must precede `fall_asleep`: from then on, other threads write to the eventfd.
                kernel.watch_wakes(self.shared.eventfd())?;
            }
            let asleep = now;
            let is_wanted = if would_sleep && self.shared.inbox.fall_asleep() {
                let traced = self.slow.trace.map(|trace| (trace, time::monotonic()));
                let result = kernel.wait(wake_up);
                let is_wanted = self.shared.inbox.wake_up();
                if let Some((trace, asleep)) = traced {
                    trace.sleep(asleep, is_wanted);
                }
                waited = result?;
                now = time::monotonic();
                schedule.metrics.asleep_ns += if is_virtual { 0 } else { now - asleep };
                is_wanted
            } else {
                kernel.submit_or_pause(wake_up)?;
                now = time::monotonic();
                self.shared.inbox.wake_up()
            };
            // The iteration takes the others, after the posts.
            let has_come = kernel.reap_own();
            let interrupted = waited == Waited::Interrupted;
            if !interrupted && !has_come {
                now = self.spin(kernel, now, until);
            }
            let is_due = !is_virtual && schedule.has_timers() && {
                let by_other = is_wanted || interrupted || has_come || timer.time > limit;
                if would_sleep && !by_other {
                    schedule.slept(asleep, timer, now);
                }
                if would_sleep { schedule.is_due_after_sleep(now) } else { schedule.is_due(now) }
            };
            // Usually one round. Another follows when only the timeout of a cancelled timer has
            // expired.
            let is_awake = is_wanted
                || interrupted
                || has_come
                || now >= limit
                || self.must_not_sleep(schedule);
            if is_awake || is_due {
                return Ok(Waiting { interrupted, now: Some(now) });
            }
        }
    }

    /// Moves a virtual clock to the next deadline instead of sleeping (S36). Without a deadline,
    /// sleeps in real time.
    #[cold]
    fn jump(
        &self,
        clock: &AtomicU64,
        schedule: &mut Schedule,
        kernel: &mut Kernel,
        now: u64,
        limit: u64,
    ) -> Result<Waiting> {
        let deadline = schedule.next_deadline();
        // Virtual time must not advance while operations are in flight.
        if schedule.has_operations() || deadline.is_none() && limit == FOREVER {
            let asleep = time::monotonic();
            let waiting = self.sleep(schedule, kernel, asleep, asleep.saturating_add(limit))?;
            return Ok(Waiting { now: Some(now), ..waiting });
        }
        if schedule.is_kernel_busy() {
            // Descriptors that are ready now come before the jump.
            kernel.submit()?;
            if kernel.has_completions() {
                return Ok(Waiting { interrupted: false, now: Some(now) });
            }
        }
        if self.shared.inbox.wake_up() {
            kernel.submit()?;
            return Ok(Waiting { interrupted: false, now: Some(now) });
        }
        let slack = self.slack.unwrap_or(0);
        let until = deadline.map_or(FOREVER, |deadline| deadline.saturating_add(slack));
        let until = until.min(now.saturating_add(limit));
        clock.store(until, Relaxed);
        schedule.metrics.asleep_ns += until - now;
        Ok(Waiting { interrupted: false, now: Some(until) })
    }

    /// Polls the ring and the clock instead of sleeping, from `now` for up to the loop's `spin`.
    /// Returns the time of the last reading.
    fn spin(&self, kernel: &mut Kernel, now: u64, until: u64) -> u64 {
        let mut last = now;
        while last < until
            && last - now < self.spin
            && !kernel.has_completions()
            && !self.shared.inbox.is_wanted()
        {
            std::hint::spin_loop();
            last = time::monotonic();
        }
        last
    }
}
