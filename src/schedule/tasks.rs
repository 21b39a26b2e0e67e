//! Tasks: a slot each, which stands in the ready queue while its task is woken.
//!
//! A task that is woken again before it has had its turn is polled once. Waking needs memory only where the ready queue has to grow.

use std::mem::ManuallyDrop;

use super::Schedule;
use crate::callback::Callback;
use crate::error::Result;
use crate::handle::{Handle, Kind};
use crate::slots::{Held, Place, SlotRef};

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
        self.slots[next.index].set_place(Place::Aside);
        self.on_stack = Some(next.index);
        (self.slots.handle(next.index), self.slots.lend(next.index))
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
        let Ok(index) = self.slots.find(handle) else { return };
        if self.slots[index].place() == Place::Aside {
            self.slots[index].set_place(Place::Ready);
            self.ready.push(self.slots.reference(index));
        }
    }
}
