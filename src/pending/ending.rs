//! The end of what is pending: by a cancel, by the end of the loop, in a forked child.
//!
//! What ends leaves its queue at once, counts for `run` no more, and its handle is stale; what it
//! held is handed out once, to be dropped where no borrow is held. An operation is asked to end,
//! and ends with its final result. Ending needs no memory (S31). A callback that is on the stack is
//! the caller's, who gives it back to `finished` or `task_returned`.

use super::Schedule;
use super::callback::Callback;
use super::slots::{Held, Liveness, Location, SlotRef};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Operations are asked to.
    Ask,
    /// They will see no result any more. What the kernel may still use is never freed.
    Now,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cancelled {
    /// It has ended: its callback will not run again.
    Gone,
    /// It is an operation, which the kernel has been asked to end: its final callback is still to
    /// come (S13).
    Asked,
}

impl<L: 'static> Schedule<L> {
    /// Ends what a handle names, if it is a call or a timer that leaves nothing to be dropped; else
    /// false, and nothing has changed.
    #[inline]
    pub(crate) fn cancel_plain(&mut self, handle: Handle) -> Result<bool> {
        let index = self.slots.find(handle)?;
        let is_plain = self.slots[index].is_plain_data();
        if is_plain {
            debug_assert!(!self.slots.callback(index).needs_drop());
            self.leave(index);
            self.slots.discard(index);
        }
        Ok(is_plain)
    }

    /// Ends what a handle names, or asks an operation to end. What it held is handed out if it has
    /// to be dropped, and unless its callback is on the stack: `finished` does it then.
    pub(crate) fn cancel(&mut self, handle: Handle) -> Result<(Kind, Cancelled, Option<Held<L>>)> {
        let index = self.slots.find(handle)?;
        let kind = self.slots[index].kind();
        let (cancelled, held) = self.end(index);
        Ok((kind, cancelled, held))
    }

    /// As `cancel`; but what would be handed out stays in its slot until `next_deferred` hands it
    /// out. Allocates nothing.
    pub(crate) fn cancel_deferred(&mut self, handle: Handle) -> Result<Cancelled> {
        let index = self.slots.find(handle)?;
        let cancelled = self.detach(index);
        if cancelled == Cancelled::Gone && self.on_stack != Some(index) {
            self.slots[index].set_when(u64::MAX);
            match self.deferred {
                Some((_, last)) => self.slots[last].set_when(index.into()),
                None => self.deferred = Some((index, index)),
            }
            self.deferred = self.deferred.map(|(first, _)| (first, index));
        }
        Ok(cancelled)
    }

    /// Hands out what `cancel_deferred` has ended, the oldest first.
    pub(crate) fn next_deferred(&mut self) -> Option<Held<L>> {
        let (first, last) = self.deferred?;
        self.deferred = (first != last).then(|| (self.slots[first].when() as u32, last));
        Some(self.empty(first))
    }

    pub(crate) fn end_at(&mut self, index: u32, end: End) -> Option<Held<L>> {
        match (self.slots[index].kind(), end) {
            (kind, End::Now) if kind.is_operation() => self.end_operation(index),
            _ => self.end(index).1,
        }
    }

    #[cold]
    pub(super) fn end(&mut self, index: u32) -> (Cancelled, Option<Held<L>>) {
        let cancelled = self.detach(index);
        let is_there = cancelled == Cancelled::Gone && self.on_stack != Some(index);
        (cancelled, is_there.then(|| self.empty(index)))
    }

    /// Ends what stands in a slot, or asks an operation to end. What it held is still there, and
    /// its handle is stale.
    pub(super) fn detach(&mut self, index: u32) -> Cancelled {
        if self.slots[index].kind().is_operation() {
            self.ask_to_end(index);
            return Cancelled::Asked;
        }
        self.leave(index);
        match self.slots[index].kind() {
            Kind::Signal => self.leave_signal(index),
            Kind::Watch => self.leave_watch(index),
            Kind::Child => self.leave_child(index),
            _ => {}
        }
        self.slots[index].set_location(Location::Ended);
        Cancelled::Gone
    }

    /// What ends leaves its queue, and does not count any more.
    #[inline(always)]
    pub(super) fn leave(&mut self, index: u32) {
        self.unqueue(index);
        let slot = &self.slots[index];
        self.referenced -= usize::from(slot.is_referenced());
        self.metrics.timers_cancelled += u64::from(slot.is_timer());
    }

    #[inline]
    pub(super) fn empty(&mut self, index: u32) -> Held<L> {
        let release = if self.slots[index].has_extra() { self.remove_extra(index) } else { None };
        // The entry of a child in the kernel keeps the slot until its completion has come.
        let is_held =
            self.slots[index].kind() == Kind::Child && self.operations.is_in_kernel(index);
        let callback = if is_held {
            self.slots[index].set_location(Location::Internal);
            self.slots.lend_callback(index)
        } else {
            self.slots.empty(index)
        };
        Held { callback, release }
    }

    #[cold]
    pub(super) fn remove_extra(&mut self, index: u32) -> Option<Callback<L>> {
        self.extras.remove(&index).and_then(|extra| extra.release)
    }

    /// Forgets every callback without dropping what it carries: a forked child runs no user code
    /// (S33). Tells whether there were tasks, which then neither end nor go.
    pub(crate) fn forget_all(&mut self) -> bool {
        let has_tasks = (0..self.slots.len())
            .any(|at| self.slots[at].is_task() && self.slots[at].location() != Location::Free);
        for (_, extra) in self.extras.drain() {
            std::mem::forget((extra.release, extra.child));
        }
        for index in 0..self.slots.len() {
            if self.is_filled(index) {
                std::mem::forget(self.end_at(index, End::Now));
            }
            // That of what waits for its release is in its slot still.
            std::mem::forget(self.slots.lend_callback(index));
        }
        has_tasks
    }

    /// Takes a slot out of its queue: tells the queue that its reference is dead, and makes it so.
    #[inline]
    pub(super) fn unqueue(&mut self, index: u32) {
        if self.slots[index].location() == Location::Timers {
            self.timers.note_cancelled();
        } else if !self.leave_queues(index) {
            return;
        }
        if !self.slots.restamp(index) {
            self.sweep_for(index, None);
        }
    }

    /// As `unqueue`, for what is no timer; false if it is in no queue that has a reference to it.
    #[inline(never)]
    fn leave_queues(&mut self, index: u32) -> bool {
        let is_asleep = self.is_asleep_at(index);
        if is_asleep {
            self.timers.note_cancelled();
        }
        let location = self.slots[index].location();
        match location {
            Location::Ready => self.ready.note_cancelled(),
            // They are known by their handles.
            Location::Hooks => self.dead_hooks += 1,
            _ => {}
        }
        is_asleep || location == Location::Ready
    }

    /// Rids the queues of all that is dead, when the stamps of a slot have come round. It is in no
    /// queue; but a reference in the ready queue may be left, for the caller to replace.
    #[cold]
    pub(super) fn sweep_for(&mut self, index: u32, left: Option<SlotRef>) {
        let Schedule { slots, ready, timers, .. } = self;
        let is_live = |slot: SlotRef| slot.index != index && slots.is_live(slot);
        ready.sweep(&|slot: SlotRef| Some(slot) == left || is_live(slot));
        timers.sweep(&is_live);
    }
}
