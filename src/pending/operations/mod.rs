//! Operations in the kernel: what is known of each beside its slot, their results, and what the kernel is to be told next.
//!
//! An operation has a slot until its final result has been given to its callback, so the number that the kernel knows it by,
//! its handle, never meets a stranger. Cancelling is a request (S13): it is noted, and goes to the kernel with what is
//! submitted next. Room for an operation's final result and for one errand is had when it is added: cancelling and closing
//! allocate nothing (S31).

pub(super) mod descriptors;
mod stage;

use std::collections::VecDeque;

use self::descriptors::{Link, Lists};
use self::stage::Stage;
use super::{Call, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::abi::sqe::Sqe;
use crate::error::{Error, Result};
use crate::kernel::uring::{CANCEL_REPLY, Completed};
use crate::op::{close_unseen, descriptor_of, gives_descriptor, may_outlive_thread, number, second_descriptor_of};
use crate::pending::callback::Callback;
use crate::pending::driver::{Driver, Step};
use crate::pending::event::{Event, MORE, OpResult, TIMED_OUT};
use crate::pending::ready::List;
use crate::pending::slots::{Held, Location, NO_SLOT};

/// What the kernel says to itself when a thread of its own was interrupted, by a request to cancel as a rule; a splice lets it
/// out (6.18).
const RESTART_FIRST: i32 = 512;
const RESTART_LAST: i32 = 516;

/// What is known of the operations of a loop.
#[derive(Debug, Default)]
pub(super) struct Operations {
    /// By the index of the slot; where no operation was ever in the slot there is none.
    pub(super) entries: Vec<Operation>,
    /// The operations on each descriptor, and those that are on it besides.
    by_fd: Lists,
    by_second_fd: Lists,
    /// Results for which the callback has not been called yet, in order; their turns stand in the ready queue.
    results: VecDeque<Outcome>,
    /// Those of which the kernel is to be told something, each once.
    submissions: Vec<u32>,
    /// Operations whose final result has not come.
    pending: usize,
    /// Polls for watchers.
    polls: usize,
    /// Polls and children of which the kernel is to let go: they have ended, or their completions may have been lost.
    orphans: Vec<Handle>,
    /// Whether some operation waits for what is free: the loop has it go on in its next iteration.
    may_resume: bool,
    /// How many entries are in the kernel: of operations, polls and children. Completions of anything else change no account (S22).
    outstanding: usize,
    /// Whether the kernel has lost a completion: then one that it does not find may have ended.
    has_lost: bool,
}

/// An operation; for watchers, polls and children, what they have in common with one.
#[derive(Debug, Default)]
pub(super) struct Operation {
    fd: i32,
    /// Its place among the operations, or the watchers, on the same descriptor.
    pub(super) link: Link,
    /// Another descriptor that it is on.
    second_fd: Option<i32>,
    second_link: Link,
    /// What a watcher asks for.
    pub(super) events: u32,
    /// Whether its end concerns others: the one that is chained to it, or those that take turns with it.
    is_linked: bool,
    /// The one that begins when this one has ended.
    chained: Option<Handle>,
    /// Whether another that takes turns on its descriptor waits until this one has ended.
    takes_turns: bool,
    /// Those before and behind it in the line of those that take turns. The first has begun.
    ahead: Option<u32>,
    behind: Option<u32>,
    gives_descriptor: bool,
    may_outlive_thread: bool,
    stage: Stage,
    /// Whether somebody has asked for its end.
    is_to_end: bool,
    timed_out: bool,
    /// How often the kernel has not found it, to cancel it.
    refusals: u16,
    is_deferred: bool,
    driver: Option<Box<dyn Driver>>,
}

impl Operations {
    /// Has the kernel told of this one with what is submitted next. There is room for it.
    pub(super) fn defer_submission(&mut self, index: u32) {
        let operation = &mut self.entries[index as usize];
        if !operation.is_deferred {
            operation.is_deferred = true;
            self.submissions.push(index);
        }
    }

    pub(super) fn add_poll(&mut self, index: u32, fd: i32) {
        self.polls += 1;
        self.note_descriptor(index, fd);
    }

    pub(super) fn remove_poll(&mut self, index: u32) {
        self.polls -= 1;
        self.entries[index as usize].clear();
    }

    /// The entry in a slot has been queued for the kernel.
    pub(super) fn submitted(&mut self, index: u32) {
        self.entries[index as usize].stage = Stage::Submitted;
        self.outstanding += 1;
    }

    /// The kernel has let go of the entry in a slot, which now waits, or is idle.
    fn left_kernel(&mut self, index: u32, stage: Stage) {
        self.entries[index as usize].stage = stage;
        // Once the kernel has been given up, nothing is counted any more.
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Has the kernel told to let go of the entry of a poll or a child, once. There is room for it.
    pub(super) fn add_orphan(&mut self, handle: Handle) {
        let entry = &mut self.entries[handle.index() as usize];
        if entry.stage == Stage::Submitted {
            entry.stage = Stage::Cancelling;
            self.orphans.push(handle);
        }
    }

    pub(super) fn note_descriptor(&mut self, index: u32, fd: i32) {
        self.entries[index as usize].clear();
        self.entries[index as usize].fd = fd;
    }

    pub(super) fn descriptor(&self, index: u32) -> i32 {
        self.entries[index as usize].fd
    }

    pub(super) fn is_in_kernel(&self, index: u32) -> bool {
        self.entries[index as usize].stage.is_in_kernel()
    }
}

impl Operation {
    pub(super) fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn second_link(&mut self) -> &mut Link {
        &mut self.second_link
    }

    /// Drops what it kept. An errand that is still to be run stays noted: whoever has the slot then answers it.
    fn clear(&mut self) {
        *self = Operation { is_deferred: self.is_deferred, ..Operation::default() };
    }
}

/// What the kernel has not found so often it has given to a device, which nothing cancels: it ends by itself. What it has in its hands
/// for a moment it finds before that, also behind thousands of others, of which it does 20 at a time (6.18).
const MOST_REFUSALS: u16 = 4096;

/// A result on its way to the callback.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    index: u32,
    given: OpResult,
}

/// What the kernel is to be told.
pub(crate) enum DeferredSubmission {
    Submit(Sqe, Handle),
    Cancel(Handle),
    /// A poll shall wait for other events.
    Update(Handle, u32),
}

impl<L: 'static> Schedule<L> {
    /// Makes sure that the next `count` times `add_operation` need no memory, nor whatever becomes of these operations.
    pub(crate) fn reserve_operations(&mut self, count: usize) -> Result<()> {
        let highest = self.slots.reserve_many(count)? as usize;
        let Operations { entries, by_fd, by_second_fd, results, submissions, orphans, pending, polls, .. } =
            &mut self.operations;
        if highest >= entries.len() {
            entries.try_reserve(highest + 1 - entries.len())?;
            entries.resize_with(highest + 1, Operation::default);
        }
        by_fd.reserve(count)?;
        by_second_fd.reserve(count)?;
        results.try_reserve(*pending + count)?;
        orphans.try_reserve(*polls + self.children.entries() + count)?;
        Ok(submissions.try_reserve(*pending + *polls + count)?)
    }

    /// Adds an operation, which the caller submits under its handle.
    pub(crate) fn add_operation(
        &mut self,
        sqe: &Sqe,
        driver: Option<Box<dyn Driver>>,
        callback: Callback<L>,
    ) -> Handle {
        let operation = Operation {
            fd: descriptor_of(sqe),
            second_fd: second_descriptor_of(sqe),
            gives_descriptor: gives_descriptor(sqe),
            may_outlive_thread: may_outlive_thread(sqe),
            driver,
            ..Operation::default()
        };
        let handle = self.add(Kind::Operation, operation, callback);
        self.operations.submitted(handle.index());
        handle
    }

    /// Adds work for another thread, which the caller hands over under its handle; `reserve_operations` comes before.
    pub(crate) fn add_work(&mut self, driver: Box<dyn Driver>, callback: Callback<L>) -> Handle {
        let operation = Operation { fd: -1, driver: Some(driver), ..Operation::default() };
        self.add(Kind::Work, operation, callback)
    }

    fn add(&mut self, kind: Kind, operation: Operation, callback: Callback<L>) -> Handle {
        let index = self.slots.fill(kind, Location::Unqueued, u64::MAX, callback).index;
        self.referenced += 1;
        let Operations { entries, by_fd, by_second_fd, pending, .. } = &mut self.operations;
        let Operation { fd, second_fd, .. } = operation;
        let is_deferred = entries[index as usize].is_deferred;
        entries[index as usize] = Operation { stage: Stage::Waiting, is_deferred, ..operation };
        by_fd.push(fd, entries, Operation::link, index);
        if let Some(second_fd) = second_fd {
            by_second_fd.push(second_fd, entries, Operation::second_link, index);
        }
        *pending += 1;
        self.slots.handle(index)
    }

    /// Notes that `second` begins when `first` has ended.
    pub(crate) fn chain(&mut self, first: Handle, second: Handle) {
        let operation = &mut self.operations.entries[first.index() as usize];
        (operation.is_linked, operation.chained) = (true, Some(second));
        self.operations.entries[second.index() as usize].stage = Stage::Chained;
    }

    /// Has an operation that has just been added take turns with others on its descriptor. False: it waits, and is an errand when its
    /// turn has come. O(operations on the descriptor that were added since the last one that takes turns).
    #[cold]
    pub(crate) fn has_turn(&mut self, handle: Handle) -> bool {
        let index = handle.index();
        let entries = &mut self.operations.entries;
        let previous = |index: u32| Some(entries[index as usize].link.previous).filter(|&index| index != NO_SLOT);
        let ahead = std::iter::successors(previous(index), |&index| previous(index))
            .find(|&other| entries[other as usize].takes_turns);
        let operation = &mut entries[index as usize];
        (operation.is_linked, operation.takes_turns, operation.ahead) = (true, true, ahead);
        let Some(ahead) = ahead else { return true };
        entries[ahead as usize].behind = Some(index);
        self.operations.left_kernel(index, Stage::Waiting);
        false
    }

    /// Makes sure that so many completions can be taken.
    #[inline]
    pub(crate) fn reserve_completions(&mut self, count: usize) -> Result<()> {
        let Operations { results, pending, .. } = &mut self.operations;
        // One may give a result and its end at once.
        results.try_reserve(2 * count + *pending)?;
        // A poll may make all watchers of its descriptor ready; no watcher stands in the queue twice.
        self.ready.reserve_many(count + self.watches.watchers)
    }

    /// Takes what the kernel says of an entry.
    #[inline]
    pub(crate) fn completed(&mut self, completed: Completed) {
        if completed.number & CANCEL_REPLY != 0 {
            if let Some(lost) = self.not_cancelled(completed) {
                self.give(lost, OpResult::new(-libc::EBADR, 0));
                self.look_for_resumable(lost);
            }
            return;
        }
        let Some(index) = self.find_in_kernel(completed.number) else { return };
        if completed.flags & MORE == 0 {
            let is_operation = self.slots[index].kind().is_operation();
            self.operations.left_kernel(index, if is_operation { Stage::Waiting } else { Stage::Idle });
        }
        match self.slots[index].kind() {
            Kind::Child => return self.child_changed(index, completed.result),
            Kind::Poll => return self.poll_completed(index, completed.result),
            _ => {}
        }
        let operation = &mut self.operations.entries[index as usize];
        let step = match &mut operation.driver {
            None => Step::give(completed),
            Some(driver) => driver.completed(completed),
        };
        // What would go on, at once or when something has come back, ends instead when it has been asked to.
        let goes_on = operation.stage == Stage::Waiting && step.given.is_none_or(|given| !given.is_final());
        let is_to_end = goes_on && operation.is_to_end;
        let cancelled = operation.driver.as_ref().filter(|_| is_to_end).map(|driver| driver.cancelled());
        if let Some(given) = step.given {
            self.give(index, given);
        }
        match cancelled {
            Some(result) => self.give(index, OpResult::new(result, 0)),
            None if step.again => self.operations.defer_submission(index),
            None => {}
        }
        self.look_for_resumable(index);
    }

    /// The index of the slot whose entry in the kernel has this number. None: it is that of something else, such as the tag of a registered
    /// resource.
    #[inline]
    fn find_in_kernel(&self, number: u64) -> Option<u32> {
        let index = Handle::from_raw(number as i64).and_then(|handle| self.slots.find_in_use(handle))?;
        self.operations.entries.get(index as usize).filter(|entry| entry.stage.is_in_kernel()).map(|_| index)
    }

    /// The kernel refuses to cancel. When it says that it does not know an operation that has not ended, it had that in its hands just
    /// then (a receive that had data at once and is to be tried again: 6.18): it is asked once more. After so many refusals, once a
    /// completion has been lost, it was this operation's: that is named, and the kernel has let go of it.
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
        let was_asked = operation.stage == Stage::Cancelling;
        if was_asked {
            operation.stage = Stage::Submitted;
        }
        if !self.slots[index].kind().is_operation() {
            // A poll or a child. Its completion came before this answer, if it was not lost.
            if was_asked && self.operations.has_lost {
                self.completed(Completed { number: number & !CANCEL_REPLY, result: -libc::ECANCELED, flags: 0 });
            }
            return None;
        }
        operation.refusals = MOST_REFUSALS.min(operation.refusals + 1);
        if operation.refusals < MOST_REFUSALS {
            self.operations.defer_submission(index);
            return None;
        }
        // A device may have what is read or written.
        let is_lost = self.operations.has_lost && !operation.may_outlive_thread;
        if is_lost {
            self.operations.left_kernel(index, Stage::Waiting);
        }
        is_lost.then_some(index)
    }

    /// The kernel has lost a completion, it does not say which. What has been asked to end is asked again: by now it may have ended.
    /// Polls and children are asked for, too: watchers go on, whichever it was.
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
            if *stage == Stage::Cancelling {
                *stage = Stage::Submitted;
            }
            if is_operation {
                self.operations.defer_submission(index);
            } else {
                self.operations.add_orphan(self.slots.handle(index));
            }
        }
    }

    /// The callback has returned from a result that is not the final one.
    #[inline]
    pub(super) fn result_seen(&mut self, index: u32, given: OpResult) {
        let Some(driver) = &mut self.operations.entries[index as usize].driver else { return };
        driver.seen(given);
        self.look_for_resumable(index);
    }

    /// An operation may have given back what others wait for.
    fn look_for_resumable(&mut self, index: u32) {
        let driver = self.operations.entries[index as usize].driver.as_ref();
        self.note_resumable(driver.is_some_and(|driver| driver.may_resume_others()));
    }

    /// Notes whether some operation waits for what is free.
    pub(crate) fn note_resumable(&mut self, may_resume: bool) {
        self.operations.may_resume |= may_resume;
    }

    /// Whether some operation may wait for what is free; it is not noted any more.
    pub(crate) fn take_resumable(&mut self) -> bool {
        std::mem::take(&mut self.operations.may_resume)
    }

    /// Has an operation go on that waited for something; false if it has ended.
    pub(crate) fn resume(&mut self, handle: Handle) -> bool {
        let is_pending = |&index: &u32| self.operations.entries[index as usize].stage != Stage::Idle;
        let index = self.slots.find_in_use(handle).filter(is_pending);
        index.into_iter().for_each(|index| self.operations.defer_submission(index));
        index.is_some()
    }

    /// Takes it that work is done. There is room for the result.
    pub(crate) fn work_done(&mut self, handle: Handle) {
        if let Some(index) = self.slots.find_in_use(handle) {
            self.give(index, OpResult::new(0, 0));
        }
    }

    /// Appends a result to the ready queue. There is room for it.
    #[inline]
    fn give(&mut self, index: u32, mut given: OpResult) {
        if given.is_final() {
            let Operation { is_to_end, timed_out, .. } = self.operations.entries[index as usize];
            if matches!(given.result.saturating_neg(), libc::EINTR | RESTART_FIRST..=RESTART_LAST) {
                given.result = if is_to_end { -libc::ECANCELED } else { -libc::EINTR };
            }
            if timed_out {
                given.flags |= TIMED_OUT;
                given.result = if given.result == -libc::ECANCELED { -libc::ETIMEDOUT } else { given.result };
            }
            self.operation_ended(index);
        }
        self.operations.results.push_back(Outcome { index, given });
        self.ready.push_turn(List::Results);
    }

    /// The kernel has let go of an operation. Its slot stays until the callback has had the result.
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

    /// Has those begin that waited for the end of an operation.
    #[cold]
    fn linked_operation_ended(&mut self, index: u32) {
        let entries = &mut self.operations.entries;
        let operation = &mut entries[index as usize];
        operation.takes_turns = false;
        let (ahead, behind, chained) = (operation.ahead.take(), operation.behind.take(), operation.chained.take());
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
        if *stage == Stage::Chained {
            *stage = Stage::Submitted;
        }
        if *is_to_end {
            // The kernel would not have found it before: it had not begun.
            self.operations.defer_submission(next);
        }
    }

    /// Takes the result whose turn it is, and the callback for it.
    #[inline]
    pub(crate) fn take_result(&mut self) -> Option<Call<L>> {
        let Outcome { index, given } = self.operations.results.pop_front()?;
        self.metrics.callbacks += 1;
        let event = Event::Completed(given);
        if !given.is_final() {
            return Some(Call { event, ..self.borrow_out(index) });
        }
        self.referenced -= usize::from(self.slots[index].is_referenced());
        self.operations.entries[index as usize].clear();
        let release = if self.slots[index].has_extra() { self.remove_extra(index) } else { None };
        let (handle, kind) = (self.slots.handle(index), self.slots[index].kind());
        let callback = self.slots.empty(index);
        let handle = Some(handle);
        Some(Call { callback, handle, kind, due: None, index, release, stays: false, event })
    }

    /// Asks for an operation's end (S13). Its final callback is still to come.
    pub(super) fn ask_to_end(&mut self, index: u32) {
        let operation = &mut self.operations.entries[index as usize];
        let may_end = operation.stage != Stage::Idle && !operation.is_to_end;
        if may_end && operation.driver.as_mut().is_none_or(|driver| driver.withdraw()) {
            operation.is_to_end = true;
            self.operations.defer_submission(index);
        }
    }

    /// The deadline of an operation has come (S13).
    pub(super) fn deadline_came(&mut self, index: u32) {
        self.slots[index].set_location(Location::Unqueued);
        let operation = &mut self.operations.entries[index as usize];
        operation.timed_out |= !operation.is_to_end;
        self.ask_to_end(index);
    }

    /// Gives an operation a deadline, or none (`u64::MAX`).
    pub(crate) fn set_deadline(&mut self, handle: Handle, when: u64) -> Result<()> {
        let index = self.find_operation(handle)?;
        // To remove one takes no memory.
        if when != u64::MAX {
            self.reserve_timers(when)?;
        }
        self.remove_deadline(index);
        if self.operations.entries[index as usize].stage != Stage::Idle {
            self.queue_timer(index, when);
        }
        Ok(())
    }

    fn remove_deadline(&mut self, index: u32) {
        if self.slots[index].location() == Location::Timers {
            self.unqueue(index);
            self.slots[index].set_location(Location::Unqueued);
        }
    }

    /// Whether the kernel is to be told something.
    #[inline]
    pub(crate) fn has_submissions(&self) -> bool {
        !self.operations.submissions.is_empty() || self.operations.may_resume || self.has_orphans()
    }

    /// The same, but for what comes of a look at those that wait, and for orphans.
    pub(crate) fn has_submissions_now(&self) -> bool {
        !self.operations.submissions.is_empty()
    }

    /// Whether the kernel is to be told to let go of what has ended.
    #[inline]
    pub(crate) fn has_orphans(&self) -> bool {
        !self.operations.orphans.is_empty()
    }

    /// The next of those that the kernel is to let go of.
    pub(crate) fn next_orphan(&mut self) -> Option<Handle> {
        loop {
            let orphan = self.operations.orphans.pop()?;
            if self.find_in_kernel(number(orphan)).is_some() {
                return Some(orphan);
            }
        }
    }

    /// What the kernel is to be told next. None: that one has settled itself. When memory is refused it stays for later.
    pub(crate) fn next_submission(&mut self) -> Result<Option<DeferredSubmission>> {
        let Some(&next) = self.operations.submissions.last() else { return Ok(None) };
        if !self.operations.is_in_kernel(next)
            && let Err(error) = self.reserve_completions(1)
        {
            // Who is in the kernel needs no room, and closing waits for it.
            let other = self.operations.submissions.iter().position(|&index| self.operations.is_in_kernel(index));
            let last = self.operations.submissions.len() - 1;
            self.operations.submissions.swap(other.ok_or(error)?, last);
        }
        let Some(index) = self.operations.submissions.pop() else { return Ok(None) };
        let operation = &mut self.operations.entries[index as usize];
        operation.is_deferred = false;
        if self.slots[index].kind() == Kind::Poll {
            return Ok(self.submission_of_poll(index));
        }
        match operation.stage {
            Stage::Submitted if operation.is_to_end => {
                operation.stage = Stage::Cancelling;
                return Ok(Some(DeferredSubmission::Cancel(self.slots.handle(index))));
            }
            // One in a chain that has not begun is asked when it begins.
            Stage::Idle | Stage::Chained | Stage::Submitted | Stage::Cancelling => return Ok(None),
            Stage::Waiting => {}
        }
        let Some(driver) = &mut operation.driver else { return Ok(None) };
        if operation.is_to_end {
            let given = OpResult::new(driver.cancelled(), 0);
            self.give(index, given);
            return Ok(None);
        }
        // An errand of whoever had the slot before does not change whose turn it is.
        if operation.ahead.is_some() {
            return Ok(None);
        }
        let Some(sqe) = driver.entry() else { return Ok(None) };
        self.operations.submitted(index);
        Ok(Some(DeferredSubmission::Submit(sqe, self.slots.handle(index))))
    }

    /// Whether operations are pending, whose final results have not come, or children are watched: the world's time goes on.
    #[inline]
    pub(crate) fn has_operations(&self) -> bool {
        self.operations.pending > 0 || self.has_children()
    }

    /// How many entries in the kernel have a completion to come.
    pub(crate) fn outstanding(&self) -> usize {
        self.operations.outstanding
    }

    /// Whether the kernel has anything of the loop's that it will tell the end of.
    #[inline]
    pub(crate) fn is_kernel_busy(&self) -> bool {
        self.operations.outstanding > 0
    }

    /// Whether a close has to wait for the kernel.
    pub(crate) fn has_to_drain(&self) -> bool {
        if !self.operations.has_lost {
            return self.is_kernel_busy();
        }
        // The count is wrong by what was lost. Polls have no memory that the kernel uses, and end with the ring.
        let holds_memory = |(index, entry): (usize, &Operation)| {
            entry.stage.is_in_kernel()
                && entry.refusals < MOST_REFUSALS
                && self.slots[index as u32].kind().is_operation()
        };
        self.operations.entries.iter().enumerate().any(holds_memory)
    }

    /// The kernel has not taken the entry with this number, and never will.
    pub(crate) fn was_not_taken(&mut self, number: u64) {
        let index = self.find_in_kernel(number).filter(|&index| self.slots[index].kind().is_operation());
        index.into_iter().for_each(|index| self.operations.left_kernel(index, Stage::Waiting));
    }

    /// Nothing more comes from the kernel.
    pub(crate) fn give_up_on_kernel(&mut self) {
        self.operations.outstanding = 0;
    }

    /// Asks for the end of what a device may be busy with; false if there is nothing of that kind.
    #[cfg(feature = "capi")]
    pub(crate) fn ask_devices_to_end(&mut self) -> bool {
        let mut are_there = false;
        for index in 0..self.operations.entries.len() as u32 {
            let Operation { stage, may_outlive_thread, .. } = self.operations.entries[index as usize];
            if stage.is_in_kernel() && may_outlive_thread {
                are_there = true;
                self.ask_to_end(index);
            }
        }
        are_there
    }

    /// Asks the kernel to let go of everything, polls for watchers included.
    pub(crate) fn ask_all_to_end(&mut self) {
        self.stop_watching();
        for index in 0..self.operations.entries.len() as u32 {
            if self.slots[index].kind().is_operation() {
                self.ask_to_end(index);
            }
        }
        self.release_children();
    }

    /// Has watchers wait again after all.
    pub(crate) fn rearm_polls(&mut self) {
        self.watches.is_closing = false;
        self.send_all_polls();
    }

    /// Takes a result that nobody will see out of the queue; the descriptor, if it is a fresh one.
    pub(crate) fn discard_result(&mut self) -> Option<Option<i32>> {
        let Outcome { index, given } = self.operations.results.pop_front()?;
        Some(self.result_discarded(index, given))
    }

    /// Nobody will see a result; the descriptor, if it is a fresh one.
    fn result_discarded(&mut self, index: u32, given: OpResult) -> Option<i32> {
        let operation = &mut self.operations.entries[index as usize];
        operation.driver.iter_mut().for_each(|driver| driver.discarded(given.result));
        (given.result >= 0 && operation.gives_descriptor).then_some(given.result)
    }

    /// As `completed`, when there is no room: the result is lost, as closing the loop loses it.
    pub(crate) fn discard(&mut self, completed: Completed) {
        if completed.number & CANCEL_REPLY != 0 {
            self.not_cancelled(completed).into_iter().for_each(|lost| self.operation_ended(lost));
            return;
        }
        let is_last = completed.flags & MORE == 0;
        let Some(index) = self.find_in_kernel(completed.number) else { return };
        let is_operation = self.slots[index].kind().is_operation();
        if is_last {
            self.operations.left_kernel(index, if is_operation { Stage::Waiting } else { Stage::Idle });
        }
        if !is_operation {
            return;
        }
        // The driver knows the meaning of the result: an accept may have waited for readiness, or for time.
        let driver = &mut self.operations.entries[index as usize].driver;
        let given = driver.as_mut().map_or(Step::give(completed).given, |driver| driver.completed(completed).given);
        given.and_then(|given| self.result_discarded(index, given)).into_iter().for_each(close_unseen);
        if is_last {
            self.operation_ended(index);
        }
    }

    /// The thread has exited that the ring was bound to, and with it all that it had in the kernel.
    pub(crate) fn kernel_has_let_go(&mut self) {
        self.operations.outstanding = 0;
        // But for what hardware may be busy with: that is never released.
        for entry in &mut self.operations.entries {
            if entry.stage.is_in_kernel() && !entry.may_outlive_thread {
                entry.stage = Stage::Waiting;
            }
        }
    }

    /// The operation that comes after `index` on a descriptor, the first after None: the newest first, which the kernel finds soonest among
    /// thousands (6.18). Those that are on it besides another, which splice from it, come last.
    pub(crate) fn next_on(&self, fd: i32, index: Option<u32>) -> Option<u32> {
        let Operations { entries, by_fd, by_second_fd, .. } = &self.operations;
        let entry = index.map(|index| &entries[index as usize]);
        let mut next = match entry {
            Some(entry) if entry.fd != fd => entry.second_link.previous,
            entry => match entry.map_or(by_fd.last(fd), |entry| entry.link.previous) {
                NO_SLOT => by_second_fd.last(fd),
                next => return Some(next),
            },
        };
        // On it twice: it has come already.
        while next != NO_SLOT && entries[next as usize].fd == fd {
            next = entries[next as usize].second_link.previous;
        }
        Some(next).filter(|&next| next != NO_SLOT)
    }

    /// Ends an operation that the kernel does not have; else it is named, so that the kernel can be asked, if it has not been.
    pub(crate) fn end_on_the_spot(&mut self, index: u32) -> Result<Option<Handle>> {
        if !self.operations.is_in_kernel(index) {
            self.reserve_completions(1)?;
        }
        let operation = &mut self.operations.entries[index as usize];
        operation.is_to_end = true;
        match operation.stage {
            Stage::Submitted => {
                operation.stage = Stage::Cancelling;
                return Ok(Some(self.slots.handle(index)));
            }
            Stage::Chained | Stage::Cancelling => return Ok(None),
            Stage::Idle | Stage::Waiting => {}
        }
        let result = self.operations.entries[index as usize].driver.as_ref().map(|driver| driver.cancelled());
        self.give(index, OpResult::new(result.unwrap_or(-libc::ECANCELED), 0));
        Ok(None)
    }

    /// How many operations on a descriptor have not ended.
    pub(crate) fn count_on(&self, fd: i32) -> usize {
        std::iter::successors(self.next_on(fd, None), |&index| self.next_on(fd, Some(index))).count()
    }

    /// Whether callbacks of operations are to come.
    pub(crate) fn has_results_to_come(&self) -> bool {
        self.operations.pending > 0 || !self.operations.results.is_empty()
    }

    /// Ends an operation that will see no result any more; unless the kernel may hold what it kept.
    pub(super) fn end_operation(&mut self, index: u32) -> Option<Held<L>> {
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

    /// The index of the slot of an operation.
    fn find_operation(&self, handle: Handle) -> Result<u32> {
        let index = self.slots.find(handle)?;
        if self.slots[index].kind() == Kind::Operation { Ok(index) } else { Err(Error::NOT_AN_OPERATION) }
    }

    /// The descriptor that an operation is on.
    pub(super) fn descriptor_of(&self, index: u32) -> Option<i32> {
        let is_one = matches!(self.slots[index].kind(), Kind::Operation | Kind::Watch);
        is_one.then(|| self.operations.entries[index as usize].fd)
    }
}
