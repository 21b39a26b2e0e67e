//! The end of pending entries: by a cancel, by the end of the loop, or in a forked child.
//!
//! An ended entry leaves its queue at once, no longer counts for `run`, and its handle is stale.
//! Its callback is handed out once, to be dropped where no borrow is held. An operation is only
//! asked to end, and ends with its final result. Ending needs no memory (S31). A running callback
//! belongs to the caller, who returns it to `finished` or `task_returned`.

use super::Schedule;
use super::callback::Callback;
use super::slots::{Held, Liveness, Location, SlotRef};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;

/// How entries end when the loop ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Operations are asked to end.
    Ask,
    /// Operations get no result. Memory that the kernel may still use is never freed.
    Now,
}

/// The result of a cancel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cancelled {
    /// The entry has ended: its callback will not run again.
    Gone,
    /// The operation has been asked to end; its final callback is still to come (S13).
    Asked,
}

impl<L: 'static> Schedule<L> {
    /// Ends a call or a timer whose callback needs no drop; otherwise returns false and changes
    /// nothing.
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

    /// Ends an entry, or asks an operation to end. Hands out the callback, unless it is on the
    /// stack: then `finished` does.
    pub(crate) fn cancel(&mut self, handle: Handle) -> Result<(Kind, Cancelled, Option<Held<L>>)> {
        let index = self.slots.find(handle)?;
        let kind = self.slots[index].kind();
        let (cancelled, held) = self.end(index);
        Ok((kind, cancelled, held))
    }

    /// As `cancel`, but the callback stays in its slot until `next_deferred` hands it out.
    /// Allocates nothing.
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

    /// Hands out the callbacks that `cancel_deferred` has ended, oldest first.
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

    /// Ends an entry, or asks an operation to end. The callback stays in the slot, whose handle is
    /// stale.
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

    /// Removes an ending entry from its queue and from the counts.
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
        // A child's entry in the kernel keeps the slot until its completion.
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
        let extra = self.extras.remove(&index)?;
        self.gap.period_ends(extra.period);
        extra.release
    }

    /// Forgets every callback without dropping it: a forked child runs no user code (S33). Returns
    /// whether there were tasks, which stay allocated.
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
            // A deferred release is still in its slot.
            std::mem::forget(self.slots.lend_callback(index));
        }
        has_tasks
    }

    /// Removes a slot from its queue: the queue counts one dead reference more, and the stamp
    /// changes.
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

    /// As `unqueue`, for entries that are not timers; false if no queue has a reference to the
    /// slot.
    #[inline(never)]
    fn leave_queues(&mut self, index: u32) -> bool {
        let is_asleep = self.is_asleep_at(index);
        if is_asleep {
            self.timers.note_cancelled();
        }
        let location = self.slots[index].location();
        match location {
            Location::Ready => self.ready.note_cancelled(),
            // The hook lists have handles, not references.
            Location::Hooks => self.dead_hooks += 1,
            _ => {}
        }
        is_asleep || location == Location::Ready
    }

    /// Removes all dead references from the queues, after the stamps of a slot have wrapped around.
    /// The slot is in no queue, except for the reference `left` in the ready queue, which the
    /// caller replaces.
    #[cold]
    pub(super) fn sweep_for(&mut self, index: u32, left: Option<SlotRef>) {
        let Schedule { slots, ready, timers, .. } = self;
        let is_live = |slot: SlotRef| slot.index != index && slots.is_live(slot);
        ready.sweep(&|slot: SlotRef| Some(slot) == left || is_live(slot));
        timers.sweep(&is_live);
    }
}
