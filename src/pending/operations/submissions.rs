//! Deferred submissions: cancels, re-arms and removals of orphans that go with the next submission.
//!
//! Cancelling is a request (S13): it is noted here, in reserved space, and goes to the kernel in
//! the loop's next iteration. No function here calls the kernel.

use super::Operation;
use super::completions::MOST_REFUSALS;
use super::stage::Stage;
use crate::abi::completion::number;
use crate::abi::handle::{Handle, Kind};
use crate::abi::sqe::Entry;
use crate::error::Result;
use crate::pending::Schedule;
use crate::pending::event::OpResult;
use crate::pending::slots::{Held, Location};

/// A deferred request to the kernel.
pub(crate) enum DeferredSubmission {
    Submit(Entry, Handle),
    Cancel(Handle),
    /// Changes the events of a poll.
    Update(Handle, u32),
}

impl<L: 'static> Schedule<L> {
    /// Asks an operation to end (S13). Its final callback is still to come.
    pub(crate) fn ask_to_end(&mut self, index: u32) {
        let operation = &mut self.operations.entries[index as usize];
        let may_end = operation.stage != Stage::Idle && !operation.is_to_end;
        if may_end && operation.driver.as_mut().is_none_or(|driver| driver.withdraw()) {
            operation.is_to_end = true;
            self.operations.defer_submission(index);
        }
    }

    pub(crate) fn deadline_came(&mut self, index: u32) {
        self.slots[index].set_location(Location::Unqueued);
        let operation = &mut self.operations.entries[index as usize];
        operation.timed_out |= !operation.is_to_end;
        self.ask_to_end(index);
    }

    /// Sets an operation's deadline, or removes it (`u64::MAX`).
    pub(crate) fn set_deadline(&mut self, handle: Handle, when: u64) -> Result<()> {
        let index = self.find_operation(handle)?;
        // Removing a deadline needs no memory.
        if when != u64::MAX {
            self.reserve_timers(when)?;
        }
        self.remove_deadline(index);
        if self.operations.entries[index as usize].stage != Stage::Idle {
            self.queue_timer(index, when);
        }
        Ok(())
    }

    pub(super) fn remove_deadline(&mut self, index: u32) {
        if self.slots[index].location() == Location::Timers {
            self.unqueue(index);
            self.slots[index].set_location(Location::Unqueued);
        }
    }

    #[inline]
    pub(crate) fn has_submissions(&self) -> bool {
        !self.operations.submissions.is_empty() || self.operations.may_resume || self.has_orphans()
    }

    /// The same, without resumable operations and orphans.
    pub(crate) fn has_submissions_now(&self) -> bool {
        !self.operations.submissions.is_empty()
    }

    /// Whether ended entries are still to be cancelled in the kernel.
    #[inline]
    pub(crate) fn has_orphans(&self) -> bool {
        !self.operations.orphans.is_empty()
    }

    pub(crate) fn next_orphan(&mut self) -> Option<Handle> {
        loop {
            let orphan = self.operations.orphans.pop()?;
            if self.find_in_kernel(number(orphan)).is_some() {
                return Some(orphan);
            }
        }
    }

    /// The next deferred request. None: nothing is to be submitted for this slot. When memory is
    /// refused, the request stays deferred.
    pub(crate) fn next_submission(&mut self) -> Result<Option<DeferredSubmission>> {
        let Some(&next) = self.operations.submissions.last() else { return Ok(None) };
        if !self.operations.is_in_kernel(next)
            && let Err(error) = self.reserve_completions(1)
        {
            // An operation in the kernel needs no space here, and closing waits for it.
            let other = self
                .operations
                .submissions
                .iter()
                .position(|&index| self.operations.is_in_kernel(index));
            let last = self.operations.submissions.len() - 1;
            self.operations.submissions.swap(other.ok_or(error)?, last);
        }
        let Some(index) = self.operations.submissions.pop() else { return Ok(None) };
        let operation = &mut self.operations.entries[index as usize];
        operation.is_deferred = false;
        if self.slots[index].kind() == Kind::Poll {
            return Ok(self.submission_of_poll(index));
        }
        if operation.stage != Stage::Waiting {
            let is_to_ask = operation.is_to_end && operation.stage.ask();
            return Ok(is_to_ask.then(|| DeferredSubmission::Cancel(self.slots.handle(index))));
        }
        let Some(driver) = &mut operation.driver else { return Ok(None) };
        if operation.is_to_end {
            let given = OpResult::new(driver.cancelled(), 0);
            self.give(index, given);
            return Ok(None);
        }
        // A submission that a former user of the slot deferred does not change the turns.
        if operation.ahead.is_some() {
            return Ok(None);
        }
        let Some(entry) = driver.entry() else { return Ok(None) };
        self.operations.submitted(index);
        Ok(Some(DeferredSubmission::Submit(entry, self.slots.handle(index))))
    }

    /// Whether a close has to wait for the kernel.
    pub(crate) fn has_to_drain(&self) -> bool {
        if !self.operations.has_lost {
            return self.is_kernel_busy();
        }
        // The count is wrong by the lost completions. The kernel uses no memory of polls, which end
        // with the ring.
        let holds_memory = |(index, entry): (usize, &Operation)| {
            entry.stage.is_in_kernel()
                && entry.refusals < MOST_REFUSALS
                && self.slots[index as u32].kind().is_operation()
        };
        self.operations.entries.iter().enumerate().any(holds_memory)
    }

    pub(crate) fn give_up_on_kernel(&mut self) {
        self.operations.outstanding = 0;
    }

    /// Asks operations that a device may be working on to end; false if there are none.
    #[cfg(feature = "capi")]
    pub(crate) fn ask_devices_to_end(&mut self) -> bool {
        let mut are_there = false;
        for index in 0..self.operations.entries.len() as u32 {
            let Operation { stage, may_outlive_thread, .. } =
                self.operations.entries[index as usize];
            if stage.is_in_kernel() && may_outlive_thread {
                are_there = true;
                self.ask_to_end(index);
            }
        }
        are_there
    }

    /// Asks everything in the kernel to end, polls of watchers included.
    pub(crate) fn ask_all_to_end(&mut self) {
        self.stop_watching();
        for index in 0..self.operations.entries.len() as u32 {
            if self.slots[index].kind().is_operation() {
                self.ask_to_end(index);
            }
        }
        self.release_children();
    }

    /// Arms polls again after a close that failed.
    pub(crate) fn rearm_polls(&mut self) {
        self.watches.is_closing = false;
        self.send_all_polls();
    }

    /// The thread that the ring was bound to has exited, which ended its entries in the kernel.
    pub(crate) fn kernel_has_let_go(&mut self) {
        self.operations.outstanding = 0;
        // Except entries that a device may be working on: their memory is never released.
        for entry in &mut self.operations.entries {
            if entry.stage.is_in_kernel() && !entry.may_outlive_thread {
                entry.stage = Stage::Waiting;
            }
        }
    }

    /// Ends an operation that is not in the kernel. Otherwise returns its handle to be cancelled,
    /// unless a cancel is under way.
    pub(crate) fn end_on_the_spot(&mut self, index: u32) -> Result<Option<Handle>> {
        if !self.operations.is_in_kernel(index) {
            self.reserve_completions(1)?;
        }
        let operation = &mut self.operations.entries[index as usize];
        operation.is_to_end = true;
        if operation.stage.is_in_kernel() {
            return Ok(operation.stage.ask().then(|| self.slots.handle(index)));
        }
        let given = operation.cancelled();
        self.give(index, given);
        Ok(None)
    }

    /// Ends an operation without a result, except when the kernel may use its memory: then that
    /// leaks.
    pub(crate) fn end_operation(&mut self, index: u32) -> Option<Held<L>> {
        self.leave(index);
        let operation = &mut self.operations.entries[index as usize];
        let is_held = operation.stage.is_in_kernel();
        if is_held {
            std::mem::forget(operation.driver.take());
        }
        operation.clear();
        let held = self.empty(index);
        if is_held {
            std::mem::forget(held);
            return None;
        }
        Some(held)
    }
}
