//! Operations in the kernel: their data beside the slot, their results, and deferred submissions.
//!
//! An operation keeps its slot until its callback has the final result, so the kernel's number for
//! it, its handle, never matches another entry. Cancelling is a request (S13), which goes to the
//! kernel with the next submission. Adding an operation reserves the space for its final result and
//! one submission: cancelling and closing allocate nothing (S31).

mod completions;
pub(super) mod descriptors;
mod stage;
mod submissions;

use std::collections::VecDeque;

use self::descriptors::{ByDescriptor, Neighbours};
use self::stage::Stage;
pub(crate) use self::submissions::DeferredSubmission;
use super::Schedule;
use crate::abi::completion::Completed;
use crate::abi::handle::{Handle, Kind};
use crate::abi::sqe::Sqe;
use crate::error::{Error, Result};
use crate::pending::callback::Callback;
use crate::pending::driver::{Driver, Step};
use crate::pending::event::OpResult;
use crate::pending::slots::{Location, NO_SLOT};

/// All operations of a loop, with polls and children, which have entries in the kernel too.
#[derive(Debug, Default)]
pub(super) struct Operations {
    /// By slot index. The vector ends at the highest slot that had an operation.
    pub(super) entries: Vec<Operation>,
    /// The operations on each descriptor, and those that use it as their second one.
    by_fd: ByDescriptor,
    by_second_fd: ByDescriptor,
    /// Results whose callbacks have not been called yet, in order; their turns are in the ready
    /// queue.
    results: VecDeque<QueuedResult>,
    /// The slots with a deferred submission, each once.
    submissions: Vec<u32>,
    /// The number of operations without a final result.
    pending: usize,
    pub(super) polls: usize,
    /// Polls and children to cancel: they have ended, or their completions may have been lost.
    orphans: Vec<Handle>,
    /// Whether an operation waits for a resource that is free: the next iteration resumes it.
    may_resume: bool,
    /// The number of entries in the kernel: of operations, polls and children. Other completions
    /// change no count (S22).
    outstanding: usize,
    /// Whether the kernel has lost a completion: then an operation that it does not find may have
    /// ended.
    has_lost: bool,
}

/// The kernel-side state of one slot: of an operation, or of a watcher, a poll or a child, which
/// use the same fields.
#[derive(Debug, Default)]
pub(super) struct Operation {
    fd: i32,
    /// Its links in the list of operations, or of watchers, on the same descriptor.
    pub(super) link: Neighbours,
    second_fd: Option<i32>,
    second_link: Neighbours,
    pub(super) events: u32,
    /// Whether its end starts others: the operation chained to it, or those that take turns with
    /// it.
    is_linked: bool,
    /// The operation that begins when this one has ended.
    chained: Option<Handle>,
    /// Whether others that take turns on its descriptor wait for the end of this one.
    takes_turns: bool,
    /// The neighbours in the line of operations that take turns. The first has begun.
    ahead: Option<u32>,
    behind: Option<u32>,
    gives_descriptor: bool,
    may_outlive_thread: bool,
    stage: Stage,
    is_to_end: bool,
    timed_out: bool,
    /// The number of cancels for which the kernel did not find it.
    refusals: u16,
    is_deferred: bool,
    driver: Option<Box<dyn Driver>>,
}

impl Operations {
    /// Adds a slot to the deferred submissions, once. Needs reserved space.
    pub(super) fn defer_submission(&mut self, index: u32) {
        let operation = &mut self.entries[index as usize];
        if !operation.is_deferred {
            operation.is_deferred = true;
            self.submissions.push(index);
        }
    }

    /// The entry of a slot has been queued for the kernel.
    pub(super) fn submitted(&mut self, index: u32) {
        self.entries[index as usize].stage = Stage::Submitted;
        self.outstanding += 1;
    }

    /// The entry of a slot has left the kernel, and waits or is idle.
    fn left_kernel(&mut self, index: u32, stage: Stage) {
        self.entries[index as usize].stage = stage;
        // After `give_up_on_kernel`, nothing is counted.
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Cancels the entry of a poll or a child with the next submission, once. Needs reserved space.
    pub(super) fn add_orphan(&mut self, handle: Handle) {
        let entry = &mut self.entries[handle.index() as usize];
        if entry.stage.ask() {
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
    pub(super) fn link(&mut self) -> &mut Neighbours {
        &mut self.link
    }

    fn second_link(&mut self) -> &mut Neighbours {
        &mut self.second_link
    }

    /// Translates a completion, through the driver if there is one.
    fn completed(&mut self, completed: Completed) -> Step {
        match &mut self.driver {
            None => Step::give(completed),
            Some(driver) => driver.completed(completed),
        }
    }

    /// The result of a cancel while the operation is not in the kernel.
    fn cancelled(&self) -> OpResult {
        let result = self.driver.as_ref().map_or(-libc::ECANCELED, |driver| driver.cancelled());
        OpResult::new(result, 0)
    }

    /// Drops its data. A deferred submission stays noted; the next user of the slot ignores it.
    pub(super) fn clear(&mut self) {
        *self = Operation { is_deferred: self.is_deferred, ..Operation::default() };
    }
}

#[derive(Clone, Copy, Debug)]
struct QueuedResult {
    index: u32,
    given: OpResult,
}

impl<L: 'static> Schedule<L> {
    /// Reserves for `count` calls of `add_operation` and the further life of these operations.
    pub(crate) fn reserve_operations(&mut self, count: usize) -> Result<()> {
        let highest = self.slots.reserve_many(count)? as usize;
        let Operations {
            entries,
            by_fd,
            by_second_fd,
            results,
            submissions,
            orphans,
            pending,
            polls,
            ..
        } = &mut self.operations;
        if highest >= entries.len() {
            entries.try_reserve(highest + 1 - entries.len())?;
            entries.resize_with(highest + 1, Operation::default);
        }
        by_fd.reserve(count)?;
        by_second_fd.reserve(count)?;
        results.try_reserve(*pending + count)?;
        orphans.try_reserve(*polls + self.children.entries + count)?;
        Ok(submissions.try_reserve(*pending + *polls + count)?)
    }

    /// Adds an operation. The caller submits it under its handle.
    pub(crate) fn add_operation(
        &mut self,
        sqe: &Sqe,
        driver: Option<Box<dyn Driver>>,
        callback: Callback<L>,
    ) -> Handle {
        let operation = Operation {
            fd: sqe.descriptor(),
            second_fd: sqe.second_descriptor(),
            gives_descriptor: sqe.gives_descriptor(),
            may_outlive_thread: sqe.may_outlive_thread(),
            driver,
            ..Operation::default()
        };
        let handle = self.add(Kind::Operation, operation, callback);
        self.operations.submitted(handle.index());
        handle
    }

    /// Adds work for another thread. The caller starts it under its handle.
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

    /// Makes a new operation take turns with others on its descriptor. False: it waits, and is
    /// submitted at its turn. O(operations added on the descriptor since the last one that takes
    /// turns).
    #[cold]
    pub(crate) fn has_turn(&mut self, handle: Handle) -> bool {
        let index = handle.index();
        let entries = &mut self.operations.entries;
        let previous = |index: u32| {
            Some(entries[index as usize].link.previous).filter(|&index| index != NO_SLOT)
        };
        let ahead = std::iter::successors(previous(index), |&index| previous(index))
            .find(|&other| entries[other as usize].takes_turns);
        let operation = &mut entries[index as usize];
        (operation.is_linked, operation.takes_turns, operation.ahead) = (true, true, ahead);
        let Some(ahead) = ahead else { return true };
        entries[ahead as usize].behind = Some(index);
        self.operations.left_kernel(index, Stage::Waiting);
        false
    }

    /// Whether operations without a final result or watched children exist. Virtual time must not
    /// advance then.
    #[inline]
    pub(crate) fn has_operations(&self) -> bool {
        self.operations.pending > 0 || self.children.watched > 0
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.operations.outstanding
    }

    /// Whether the kernel has entries of the loop whose completions are to come.
    #[inline]
    pub(crate) fn is_kernel_busy(&self) -> bool {
        self.operations.outstanding > 0
    }

    /// The operation after `index` on a descriptor; with None, the first. The order is newest
    /// first, which the kernel finds soonest among thousands (6.18). Operations that have the
    /// descriptor as their second one (a splice from it) come last.
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
        // Operations with the descriptor as first and second one have come already.
        while next != NO_SLOT && entries[next as usize].fd == fd {
            next = entries[next as usize].second_link.previous;
        }
        Some(next).filter(|&next| next != NO_SLOT)
    }

    pub(crate) fn count_on(&self, fd: i32) -> usize {
        std::iter::successors(self.next_on(fd, None), |&index| self.next_on(fd, Some(index)))
            .count()
    }

    pub(crate) fn has_results_to_come(&self) -> bool {
        self.operations.pending > 0 || !self.operations.results.is_empty()
    }

    fn find_operation(&self, handle: Handle) -> Result<u32> {
        let index = self.slots.find(handle)?;
        let is_one = self.slots[index].kind() == Kind::Operation;
        if is_one { Ok(index) } else { Err(Error::NOT_AN_OPERATION) }
    }

    pub(super) fn descriptor_of(&self, index: u32) -> Option<i32> {
        let is_one = matches!(self.slots[index].kind(), Kind::Operation | Kind::Watch);
        is_one.then(|| self.operations.entries[index as usize].fd)
    }
}
