//! Timers, and the deadlines of operations and tasks (S2 to S4, S8, S15, S16).
//!
//! No timer is ready before its deadline. The loop passes times that never go back. Entries that
//! are due then leave the timer queue in the order of deadlines: timers and tasks enter the ready
//! queue, operations are cancelled.

use super::callback::Callback;
use super::slots::{Location, SlotRef};
use super::{Extra, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::observe::metrics::Metrics;

/// When a sleep ends, if nothing else ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WakeUp {
    pub(crate) time: u64,
    /// Whether this is a deadline, and not the end of a gap.
    pub(crate) is_exact: bool,
}

impl<L: 'static> Schedule<L> {
    #[inline]
    pub(crate) fn reserve_timer(&mut self, when: u64) -> Result<()> {
        self.slots.reserve()?;
        self.reserve_ready()?;
        self.reserve_timers(when)
    }

    #[inline(always)]
    pub(crate) fn call_at(&mut self, when: u64, callback: Callback<L>) -> Handle {
        self.add_timer(Kind::Timer, when, callback)
    }

    pub(crate) fn reserve_repeating_timer(&mut self, first: u64) -> Result<()> {
        self.extras.try_reserve(1)?;
        self.reserve_timer(first)
    }

    pub(crate) fn call_every(&mut self, first: u64, period: u64, callback: Callback<L>) -> Handle {
        let handle = self.add_timer(Kind::Repeat, first, callback);
        self.gap.period_begins(period);
        self.add_extra(handle.index(), Extra { period, ..Extra::default() });
        handle
    }

    #[inline(always)]
    pub(super) fn add_timer(&mut self, kind: Kind, when: u64, callback: Callback<L>) -> Handle {
        let slot = self.slots.fill(kind, location_of_timer(when), when, callback);
        self.referenced += 1;
        if when != u64::MAX {
            self.timers.insert(when, slot);
        }
        self.slots.handle(slot.index)
    }

    /// Moves a timer to another deadline, behind timers that have it already (S15).
    #[inline]
    pub(crate) fn reschedule(&mut self, handle: Handle, when: u64) -> Result<()> {
        let index = self.find_timer(handle)?;
        self.reserve_timers(when)?;
        self.unqueue(index);
        self.queue_timer(index, when);
        Ok(())
    }

    pub(crate) fn when(&self, handle: Handle) -> Result<u64> {
        Ok(self.slots[self.find_timer(handle)?].when())
    }

    pub(crate) fn skipped(&self, handle: Handle) -> Result<u64> {
        let index = self.find_timer(handle)?;
        Ok(self.extras.get(&index).map_or(0, |extra| extra.skipped))
    }

    /// Whether timers need a reading of the clock: to find the due ones, or for the lateness of
    /// timers that a broken-off batch has left.
    #[inline]
    pub(crate) fn has_timers(&self) -> bool {
        !self.timers.is_empty() || self.ready.has_rest()
    }

    /// A lower bound of all deadlines, for sleeping: the earliest deadline, or rarely that of a
    /// cancelled timer.
    pub(crate) fn wake_up_bound(&mut self) -> Option<u64> {
        let Schedule { slots, timers, .. } = self;
        timers.earliest_bound_cleaned(slots)
    }

    /// When the next sleep ends (S3): at the earliest deadline, or at the end of the gap if another
    /// deadline is between the two. None: no timer is pending.
    pub(crate) fn wake_up(&mut self) -> Option<WakeUp> {
        let bound = self.wake_up_bound()?;
        let end = self.gap.end();
        if bound >= end {
            return Some(WakeUp { time: bound, is_exact: true });
        }
        // The bound may be the deadline of a cancelled timer.
        let deadline = self.next_deadline()?;
        let is_dense = deadline < end && self.timers.has_between(deadline, end, &self.slots);
        Some(WakeUp { time: if is_dense { end } else { deadline }, is_exact: !is_dense })
    }

    /// Notes that the timeout has ended a sleep from `asleep` until `wake_up`, at `now`.
    pub(crate) fn slept(&mut self, asleep: u64, wake_up: WakeUp, now: u64) {
        if wake_up.is_exact && wake_up.time <= now {
            self.gap.measured(wake_up.time - asleep, now - wake_up.time);
        }
    }

    /// Begins a gap if a timer is due now, after a sleep. Returns whether one is.
    pub(crate) fn is_due_after_sleep(&mut self, now: u64) -> bool {
        let is_due = self.is_due(now);
        if is_due {
            self.gap.found_due(now);
        }
        is_due
    }

    /// The counters, with the measurements of the gap.
    pub(crate) fn metrics(&self) -> Metrics {
        let (wake_latency_ns, gap_ns) = self.gap.figures();
        Metrics { wake_latency_ns, gap_ns, ..self.metrics }
    }

    #[inline]
    pub(crate) fn collected_at(&self) -> u64 {
        self.collected_at
    }

    #[inline]
    pub(crate) fn is_due(&mut self, now: u64) -> bool {
        self.timers.earliest_bound().is_some_and(|bound| bound <= now)
            && self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The earliest deadline of the timers that are not ready yet.
    pub(crate) fn next_deadline(&mut self) -> Option<u64> {
        let Schedule { slots, timers, .. } = self;
        timers.earliest(slots)
    }

    /// Appends every due timer to the ready queue, in the order of deadlines (S5 c). If the ready
    /// queue cannot grow, the rest waits for the next iteration; the queue always has space for
    /// one.
    #[inline]
    pub(crate) fn collect_due(&mut self, now: u64) -> Result<()> {
        self.collected_at = now;
        loop {
            let Schedule { slots, timers, ready, .. } = self;
            if timers.earliest_bound().is_none_or(|bound| bound > now) {
                return Ok(());
            }
            if let Err(error) = ready.reserve(slots) {
                return if ready.is_empty() { Err(error) } else { Ok(()) };
            }
            let Some((when, slot)) = timers.pop_due(now, slots) else { return Ok(()) };
            if slots[slot.index].is_timer() {
                ready.push(slot);
                slots[slot.index].set_location(Location::Ready);
                self.metrics.became_ready(now - when);
            } else if slots[slot.index].is_task() {
                self.sleeper_is_due(slot, now - when);
            } else {
                self.deadline_came(slot.index);
            }
        }
    }

    #[inline]
    pub(super) fn find_timer(&self, handle: Handle) -> Result<u32> {
        let index = self.slots.find(handle)?;
        if self.slots[index].is_timer() { Ok(index) } else { Err(Error::NOT_A_TIMER) }
    }

    #[inline]
    pub(super) fn reserve_timers(&mut self, when: u64) -> Result<()> {
        let Schedule { slots, timers, .. } = self;
        timers.reserve(when, slots)
    }

    /// Inserts a slot that is in no queue into the timer queue. Needs space there.
    #[inline]
    pub(super) fn queue_timer(&mut self, index: u32, when: u64) {
        let slot = &mut self.slots[index];
        slot.set_when(when);
        slot.set_location(location_of_timer(when));
        if when != u64::MAX {
            self.timers.insert(when, self.slots.reference(index));
        }
    }

    /// Queues the next call of the repeating timer that is next in the batch: in phase and after
    /// now. Missed calls are skipped (S16). When memory is refused, the timer stays next.
    pub(super) fn rearm(&mut self, next: SlotRef) -> Result<()> {
        let when = self.slots[next.index].when();
        let period = self.extras.get(&next.index).map_or(u64::MAX, |extra| extra.period);
        let missed = self.collected_at.saturating_sub(when) / period;
        let when = when.saturating_add(period.saturating_mul(missed.saturating_add(1)));
        if let Err(error) = self.reserve_timers(when) {
            self.put_back(next);
            return Err(error);
        }
        if let Some(extra) = self.extras.get_mut(&next.index) {
            extra.skipped = extra.skipped.saturating_add(missed);
        }
        self.metrics.timers_skipped = self.metrics.timers_skipped.saturating_add(missed);
        self.queue_timer(next.index, when);
        Ok(())
    }
}

/// The location of a timer: one whose deadline is NEVER is in no queue (S4).
#[inline]
fn location_of_timer(when: u64) -> Location {
    if when == u64::MAX { Location::Unqueued } else { Location::Timers }
}
