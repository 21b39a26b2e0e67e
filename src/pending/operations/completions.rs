//! Completions of operations: the results that they give, and the operations that an end lets
//! begin.
//!
//! A result is in a list of its own until the turn of its callback. The space for it was reserved
//! when the operation was added, or by `reserve_completions`. A cancel that the kernel does not
//! find is repeated.

use super::stage::Stage;
use super::{Operation, Operations, QueuedResult};
use crate::abi::completion::{CANCEL_REPLY, Completed, MORE, TIMED_OUT};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;
use crate::pending::event::{Event, OpResult};
use crate::pending::ready::List;
use crate::pending::slots::Held;
use crate::pending::{Call, Schedule};

/// Internal results of the kernel (ERESTARTSYS to ERESTART_RESTARTBLOCK) when a kernel thread was
/// interrupted, usually by a cancel. A splice returns them to the user (6.18).
const RESTART_FIRST: i32 = 512;
const RESTART_LAST: i32 = 516;

/// After so many cancels that found nothing, the operation is with a device and cannot be
/// cancelled: it ends by itself. A request that is only executing at the moment is found sooner,
/// also behind thousands of others, of which the kernel handles 20 at a time (6.18).
pub(super) const MOST_REFUSALS: u16 = 4096;

impl<L: 'static> Schedule<L> {
    #[inline]
    pub(crate) fn reserve_completions(&mut self, count: usize) -> Result<()> {
        let Operations { results, pending, .. } = &mut self.operations;
        // One completion may give a result and its end at once.
        results.try_reserve(2 * count + *pending)?;
        // A poll may make all watchers of its descriptor ready; each watcher is in the queue at
        // most once.
        self.ready.reserve_many(count + self.watches.watchers)
    }

    #[inline]
    pub(crate) fn completed(&mut self, completed: Completed) {
        if completed.number & CANCEL_REPLY != 0 {
            if let Some(lost) = self.not_cancelled(completed) {
                self.give(lost, OpResult::new(-libc::EBADR, 0));
                self.look_for_resumable(lost);
            }
            return;
        }
        let Some(index) = self.take_completion(completed) else { return };
        match self.slots[index].kind() {
            Kind::Child => return self.child_changed(index, completed.result),
            Kind::Poll => return self.poll_completed(index, completed.result),
            _ => {}
        }
        let operation = &mut self.operations.entries[index as usize];
        let step = operation.completed(completed);
        // An operation that would continue ends instead if it has been asked to end.
        let goes_on =
            operation.stage == Stage::Waiting && step.given.is_none_or(|given| !given.is_final());
        let cancelled = (goes_on && operation.is_to_end).then(|| operation.cancelled());
        if let Some(given) = step.given {
            self.give(index, given);
        }
        match cancelled {
            Some(given) => self.give(index, given),
            None if step.again => self.operations.defer_submission(index),
            None => {}
        }
        self.look_for_resumable(index);
    }

    /// The slot of a completion's entry. With the last completion, the entry leaves the kernel.
    #[inline]
    fn take_completion(&mut self, completed: Completed) -> Option<u32> {
        let index = self.find_in_kernel(completed.number)?;
        if completed.flags & MORE == 0 {
            let is_operation = self.slots[index].kind().is_operation();
            let stage = if is_operation { Stage::Waiting } else { Stage::Idle };
            self.operations.left_kernel(index, stage);
        }
        Some(index)
    }

    /// The index of the slot whose entry in the kernel has this number. None: the number belongs to
    /// something else, such as the tag of a registered resource.
    #[inline]
    pub(super) fn find_in_kernel(&self, number: u64) -> Option<u32> {
        let index = self.slots.find_in_use(Handle::from_raw(number as i64)?)?;
        let entry = self.operations.entries.get(index as usize)?;
        entry.stage.is_in_kernel().then_some(index)
    }

    /// The kernel has refused a cancel. If it has not found an operation that has not ended, it was
    /// executing it (a receive with data at once, which it then retries: 6.18), so the cancel is
    /// repeated. If a completion has been lost, then after `MOST_REFUSALS` refusals it was this
    /// operation's: the operation has left the kernel, and its index is returned.
    #[cold]
    fn not_cancelled(&mut self, Completed { number, result, .. }: Completed) -> Option<u32> {
        let index = self.find_in_kernel(number & !CANCEL_REPLY).filter(|_| result < 0)?;
        if self.slots[index].kind() == Kind::Poll {
            self.poll_not_changed(index);
        }
        if result != -libc::ENOENT {
            return None;
        }
        let operation = &mut self.operations.entries[index as usize];
        let was_asked = operation.stage.refused();
        if !self.slots[index].kind().is_operation() {
            // The completion of a poll or a child came before this reply, unless it was lost.
            if was_asked && self.operations.has_lost {
                self.completed(Completed {
                    number: number & !CANCEL_REPLY,
                    result: -libc::ECANCELED,
                    flags: 0,
                });
            }
            return None;
        }
        // A chained operation that has not begun is cancelled again when it begins.
        if operation.stage == Stage::Chained {
            return None;
        }
        operation.refusals = MOST_REFUSALS.min(operation.refusals + 1);
        if operation.refusals < MOST_REFUSALS {
            self.operations.defer_submission(index);
            return None;
        }
        // A device may be using the memory of a read or a write.
        let is_lost = self.operations.has_lost && !operation.may_outlive_thread;
        if is_lost {
            self.operations.left_kernel(index, Stage::Waiting);
        }
        is_lost.then_some(index)
    }

    /// The kernel has lost a completion, of an unknown entry. Cancels are repeated, because their
    /// operations may have ended. Polls and children are cancelled too, so that their watchers
    /// continue.
    #[cold]
    pub(crate) fn completion_lost(&mut self) {
        self.operations.has_lost = true;
        self.operations.orphans.clear();
        for index in 0..self.operations.entries.len() as u32 {
            let is_operation = self.slots[index].kind().is_operation();
            let Operation { stage, is_to_end, .. } = &mut self.operations.entries[index as usize];
            if !stage.is_in_kernel() || is_operation && !*is_to_end {
                continue;
            }
            stage.refused();
            if is_operation {
                self.operations.defer_submission(index);
            } else {
                self.operations.add_orphan(self.slots.handle(index));
            }
        }
    }

    #[inline]
    pub(crate) fn result_seen(&mut self, index: u32, given: OpResult) {
        let Some(driver) = &mut self.operations.entries[index as usize].driver else { return };
        driver.seen(given);
        self.look_for_resumable(index);
    }

    /// Notes whether an operation has freed a resource that others wait for.
    fn look_for_resumable(&mut self, index: u32) {
        let driver = self.operations.entries[index as usize].driver.as_ref();
        self.note_resumable(driver.is_some_and(|driver| driver.may_resume_others()));
    }

    /// Notes that an operation may wait for a free resource.
    pub(crate) fn note_resumable(&mut self, may_resume: bool) {
        self.operations.may_resume |= may_resume;
    }

    /// Whether an operation may wait for a free resource; clears the note.
    pub(crate) fn take_resumable(&mut self) -> bool {
        std::mem::take(&mut self.operations.may_resume)
    }

    /// Resumes an operation that waited for a resource; false if it has ended.
    pub(crate) fn resume(&mut self, handle: Handle) -> bool {
        let Some(index) = self.slots.find_in_use(handle) else { return false };
        let is_pending = self.operations.entries[index as usize].stage != Stage::Idle;
        if is_pending {
            self.operations.defer_submission(index);
        }
        is_pending
    }

    /// Work has ended. Needs space for the result.
    pub(crate) fn work_done(&mut self, handle: Handle) {
        if let Some(index) = self.slots.find_in_use(handle) {
            self.give(index, OpResult::new(0, 0));
        }
    }

    /// Appends a result to the ready queue. Needs space there.
    #[inline]
    pub(super) fn give(&mut self, index: u32, mut given: OpResult) {
        if given.is_final() {
            let Operation { is_to_end, timed_out, .. } = self.operations.entries[index as usize];
            if matches!(given.result.saturating_neg(), libc::EINTR | RESTART_FIRST..=RESTART_LAST) {
                given.result = if is_to_end { -libc::ECANCELED } else { -libc::EINTR };
            }
            if timed_out {
                given.flags |= TIMED_OUT;
                given.result =
                    if given.result == -libc::ECANCELED { -libc::ETIMEDOUT } else { given.result };
            }
            self.operation_ended(index);
        }
        self.operations.results.push_back(QueuedResult { index, given });
        self.ready.push_turns(List::Results, 1);
    }

    /// An operation has left the kernel. Its slot stays until the callback has the result.
    fn operation_ended(&mut self, index: u32) {
        self.remove_deadline(index);
        let Operations { entries, by_fd, by_second_fd, pending, .. } = &mut self.operations;
        *pending -= 1;
        let operation = &mut entries[index as usize];
        operation.stage = Stage::Idle;
        let Operation { fd, second_fd, .. } = *operation;
        by_fd.remove(fd, entries, Operation::link, index);
        if let Some(second_fd) = second_fd {
            by_second_fd.remove(second_fd, entries, Operation::second_link, index);
        }
        if entries[index as usize].is_linked {
            self.linked_operation_ended(index);
        }
    }

    /// Starts the operations that waited for the end of another.
    #[cold]
    fn linked_operation_ended(&mut self, index: u32) {
        let entries = &mut self.operations.entries;
        let operation = &mut entries[index as usize];
        operation.takes_turns = false;
        let (ahead, behind, chained) =
            (operation.ahead.take(), operation.behind.take(), operation.chained.take());
        if let Some(ahead) = ahead {
            entries[ahead as usize].behind = behind;
        }
        if let Some(behind) = behind {
            entries[behind as usize].ahead = ahead;
            if ahead.is_none() {
                self.operations.defer_submission(behind);
            }
        }
        let Some(next) = chained.and_then(|handle| self.slots.find_in_use(handle)) else { return };
        let Operation { stage, is_to_end, .. } = &mut self.operations.entries[next as usize];
        stage.unchain();
        if *is_to_end {
            // The kernel did not find it earlier, because it had not begun.
            self.operations.defer_submission(next);
        }
    }

    #[inline]
    pub(crate) fn take_result(&mut self) -> Option<Call<L>> {
        let QueuedResult { index, given } = self.operations.results.pop_front()?;
        self.metrics.callbacks += 1;
        let event = Event::Completed(given);
        if !given.is_final() {
            return Some(self.borrow_out(index, event));
        }
        self.referenced -= usize::from(self.slots[index].is_referenced());
        self.operations.entries[index as usize].clear();
        let release = if self.slots[index].has_extra() { self.remove_extra(index) } else { None };
        let (handle, kind) = (self.slots.handle(index), self.slots[index].kind());
        let callback = self.slots.empty(index);
        Some(Call::last(Some(handle), kind, Held { callback, release }, event))
    }

    /// The kernel has not taken the entry with this number, and never will.
    pub(crate) fn was_not_taken(&mut self, number: u64) {
        if let Some(index) = self.find_in_kernel(number)
            && self.slots[index].kind().is_operation()
        {
            self.operations.left_kernel(index, Stage::Waiting);
        }
    }

    /// Removes a result that will not be delivered; returns its descriptor, if it has a new one.
    pub(crate) fn discard_result(&mut self) -> Option<Option<i32>> {
        let QueuedResult { index, given } = self.operations.results.pop_front()?;
        Some(self.result_discarded(index, given))
    }

    /// Discards a result; returns its descriptor, if it has a new one.
    pub(super) fn result_discarded(&mut self, index: u32, given: OpResult) -> Option<i32> {
        let operation = &mut self.operations.entries[index as usize];
        operation.driver.iter_mut().for_each(|driver| driver.discarded(given.result));
        (given.result >= 0 && operation.gives_descriptor).then_some(given.result)
    }

    /// As `completed` without space: the result is lost, as when the loop is closed. Returns its
    /// descriptor, if it has a new one.
    pub(crate) fn discard(&mut self, completed: Completed) -> Option<i32> {
        if completed.number & CANCEL_REPLY != 0 {
            self.not_cancelled(completed).into_iter().for_each(|lost| self.operation_ended(lost));
            return None;
        }
        let index = self.take_completion(completed)?;
        if !self.slots[index].kind().is_operation() {
            return None;
        }
        // The driver knows the meaning of the result: an accept may have waited for readiness, or
        // for a time.
        let step = self.operations.entries[index as usize].completed(completed);
        let unseen = step.given.and_then(|given| self.result_discarded(index, given));
        if completed.flags & MORE == 0 {
            self.operation_ended(index);
        }
        unseen
    }
}
