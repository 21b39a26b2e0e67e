//! Tasks: a slot each, which stands in the ready queue while its task is woken, and in the timer queue while it waits for a time.
//!
//! A task that is woken again before it has had its turn is polled once. Waking needs memory only where the ready queue has to grow.
//! A task that sleeps needs no timer beside its slot; woken by something else, it is taken out of the timer queue, and begins to
//! wait again if it has to.

use std::mem::ManuallyDrop;

use super::Schedule;
use crate::callback::Callback;
use crate::error::Result;
use crate::handle::{Handle, Kind};
use crate::slots::{Held, Place, SlotRef};

/// Fewer slots, and what is behind them, are in the cache anyway: these are 160 KiB, and half a megabyte of tasks.
const MANY: u32 = 4096;

impl Schedule {
    /// Makes sure that the next `add_task` needs no memory.
    #[inline]
    pub(crate) fn reserve_task(&mut self) -> Result<()> {
        self.slots.reserve()?;
        self.reserve_ready()
    }

    /// Adds a task, which is ready: `poll` is called whenever it has its turn, until it is cancelled.
    pub(crate) fn add_task(&mut self, poll: Callback) -> Handle {
        let slot = self.slots.fill(Kind::Task, Place::Ready, u64::MAX, poll);
        self.referenced += 1;
        self.ready.push(slot);
        self.slots.handle(slot.index)
    }

    /// Whether what is next is a task: then `begin_task` will do for `take_call`.
    #[inline]
    pub(crate) fn is_task(&self, next: SlotRef) -> bool {
        self.slots.is_task(next)
    }

    /// Hands out the callback of a task that has its turn. It stays in its slot, which is not emptied before `task_returned`.
    #[inline]
    pub(crate) fn begin_task(&mut self, next: SlotRef) -> (Handle, ManuallyDrop<Callback>) {
        self.metrics.callbacks += 1;
        self.on_stack = Some(next.index);
        if self.slots.len() > MANY
            && let Some(upcoming) = self.ready.upcoming_task()
        {
            self.slots.prefetch_task(upcoming);
        }
        self.slots.begin_task(next.index)
    }

    /// Ends the task whose callback is on the stack. True: its slot is empty, and what the callback held is the caller's. False: that is
    /// to come, when the callback has returned: there is a release hook, or the task was cancelled meanwhile, or its callback is
    /// not in its slot.
    #[inline]
    pub(crate) fn complete_task(&mut self, handle: Handle) -> bool {
        let Ok(index) = self.slots.find(handle) else { return false };
        if self.slots[index].has_extra() || !self.slots.callback(index).needs_drop() {
            drop(self.end(index));
            return false;
        }
        self.leave(index);
        self.on_stack = None;
        std::mem::forget(self.slots.empty(index));
        true
    }

    /// The callback of a task has returned: what the task held is handed out if it has ended and still has it.
    #[inline]
    pub(crate) fn task_returned(&mut self, next: SlotRef) -> Option<Held> {
        let is_there = self.on_stack.take() == Some(next.index);
        (is_there && self.slots[next.index].place() == Place::Ended).then(|| self.empty(next.index))
    }

    /// Makes sure that the next `wake_task` needs no memory.
    #[inline]
    pub(crate) fn reserve_wake(&mut self) -> Result<()> {
        self.reserve_ready()
    }

    /// Puts a task at the end of the ready queue, unless it stands there already or has ended.
    #[inline]
    pub(crate) fn wake_task(&mut self, handle: Handle) {
        match self.slots.wake(handle) {
            Some(slot) => self.ready.push(slot),
            None if self.is_asleep(handle) => {
                self.stop_sleeping(handle);
                self.wake_task(handle);
            }
            None => {}
        }
    }

    /// Has a task wait for a time: it is woken then. False: it waits for another one, or stands in the ready queue. When
    /// memory is refused, nothing changes.
    #[inline]
    pub(crate) fn sleep_until(&mut self, handle: Handle, when: u64) -> Result<bool> {
        let index = self.slots.find(handle)?;
        if self.slots[index].place() != Place::Aside {
            return Ok(false);
        }
        self.reserve_timers(when)?;
        self.queue_timer(index, when);
        Ok(true)
    }

    /// Whether a task waits for a time.
    #[inline]
    pub(crate) fn is_asleep(&self, handle: Handle) -> bool {
        self.slots.find(handle).is_ok_and(|index| self.slots[index].place() == Place::Timers)
    }

    /// Has a task that waits for a time wait no more.
    #[inline]
    pub(crate) fn stop_sleeping(&mut self, handle: Handle) {
        if self.is_asleep(handle) {
            self.unqueue(handle.index());
            self.slots[handle.index()].set_when(u64::MAX);
            self.slots[handle.index()].set_place(Place::Aside);
        }
    }

    /// The time has come that a task waited for, and it is ready.
    #[inline]
    pub(super) fn sleeper_is_due(&mut self, slot: SlotRef, late: u64) {
        self.slots[slot.index].set_when(u64::MAX);
        self.slots[slot.index].set_place(Place::Ready);
        self.ready.push(slot);
        self.metrics.timers_fired += 1;
        self.metrics.became_ready(late);
    }
}
