//! Tasks: each has a slot, which is in the ready queue while the task is woken, and also in the
//! timer queue while it waits for a time.
//!
//! A task that is woken again before its turn is polled once. Waking needs memory only when the
//! ready queue has to grow. A sleep needs no timer beside the slot, and continues when something
//! else wakes the task, because the poll may not be of the sleep.

use super::Schedule;
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;
use crate::pending::callback::Callback;
use crate::pending::ready::TASK_AHEAD;
use crate::pending::slots::{Held, Location, SlotRef};

/// Fewer slots and tasks stay in the cache without prefetching: 160 KiB of slots, and half a
/// megabyte of tasks.
const MANY: u32 = 4096;

impl<L: 'static> Schedule<L> {
    /// Adds a task, which is ready. `poll` is called at each of its turns, until it is cancelled.
    pub(crate) fn add_task(&mut self, poll: Callback<L>) -> Handle {
        let slot = self.slots.fill(Kind::Task, Location::Ready, u64::MAX, poll);
        self.referenced += 1;
        self.ready.push(slot);
        self.slots.handle(slot.index)
    }

    /// Whether the next entry is a task, for which `begin_task` can replace `take_call`.
    #[inline]
    pub(crate) fn is_task(&self, next: SlotRef) -> bool {
        self.slots.is_task(next)
    }

    /// Hands out the callback of the task whose turn it is, until `task_returned`.
    #[inline]
    pub(crate) fn begin_task(&mut self, next: SlotRef) -> (Handle, Callback<L>) {
        self.metrics.callbacks += 1;
        self.on_stack = Some(next.index);
        if self.slots.len() > MANY
            && let Some(upcoming) = self.ready.upcoming(TASK_AHEAD)
        {
            self.slots.prefetch_task(upcoming);
        }
        self.slots.begin_task(next.index)
    }

    /// Ends the task whose callback is on the stack: its handle becomes stale. The callback holds
    /// no user values any more.
    #[inline]
    pub(crate) fn complete_task(&mut self, handle: Handle) {
        let Ok(index) = self.slots.find(handle) else { return };
        if self.slots[index].has_extra() {
            drop(self.end(index));
            return;
        }
        self.leave(index);
        self.on_stack = None;
        self.slots.discard(index);
    }

    /// The callback of a task has returned. It goes back to its slot, or is handed out if the task
    /// was cancelled, or is complete and has a release hook.
    #[inline]
    pub(crate) fn task_returned(
        &mut self,
        next: SlotRef,
        callback: &mut Callback<L>,
    ) -> Option<Held<L>> {
        if self.on_stack.take().is_none() {
            // Without a slot, the task is complete.
            drop(callback.take());
            return None;
        }
        if self.slots[next.index].location() == Location::Ended {
            return Some(Held { callback: callback.take(), ..self.empty(next.index) });
        }
        self.slots.return_callback(next.index, callback);
        None
    }

    /// Appends a task to the ready queue, unless it is in there already or has ended.
    #[inline]
    pub(crate) fn wake_task(&mut self, handle: Handle) {
        if let Some(slot) = self.slots.wake(handle) {
            self.ready.push(slot);
        }
    }

    /// Wakes a task at a time. False if the task waits for another time, or has been cancelled.
    /// When memory is refused, nothing changes.
    #[inline]
    pub(crate) fn sleep_until(&mut self, handle: Handle, when: u64) -> Result<bool> {
        let index = self.slots.find(handle).ok().filter(|&index| !self.is_asleep_at(index));
        let Some(index) = index else { return Ok(false) };
        self.reserve_timers(when)?;
        if when != u64::MAX {
            self.slots[index].set_when(when);
            self.timers.insert(when, self.slots.reference(index));
        }
        Ok(true)
    }

    #[inline]
    pub(crate) fn is_asleep(&self, handle: Handle) -> bool {
        self.slots.find(handle).is_ok_and(|index| self.is_asleep_at(index))
    }

    #[inline]
    pub(super) fn is_asleep_at(&self, index: u32) -> bool {
        self.slots[index].is_task() && self.slots[index].when() != u64::MAX
    }

    /// Cancels a task's wait for a time. Its place in the ready queue stays.
    pub(crate) fn stop_sleeping(&mut self, handle: Handle) {
        let Ok(index) = self.slots.find(handle) else { return };
        if !self.is_asleep_at(index) {
            return;
        }
        self.timers.note_cancelled();
        self.slots[index].set_when(u64::MAX);
        let is_ready = self.slots[index].location() == Location::Ready;
        let former = self.slots.reference(index);
        if !self.slots.restamp(index) {
            self.sweep_for(index, is_ready.then_some(former));
        }
        if is_ready {
            self.ready.replace(former, self.slots.reference(index));
        }
    }

    /// The time has come that a task waited for. Needs space in the ready queue.
    #[inline]
    pub(super) fn sleeper_is_due(&mut self, slot: SlotRef, late: u64) {
        self.slots[slot.index].set_when(u64::MAX);
        self.metrics.timers_fired += 1;
        self.metrics.became_ready(late);
        if self.slots[slot.index].location() == Location::Unqueued {
            self.slots[slot.index].set_location(Location::Ready);
            self.ready.push(slot);
        }
    }
}
