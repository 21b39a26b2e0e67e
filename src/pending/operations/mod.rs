//! Operations in the kernel: what is known of each beside its slot, their results, and what the
//! kernel is to be told next.
//!
//! An operation has a slot until its final result has been given to its callback, so the number
//! that the kernel knows it by, its handle, never meets a stranger. Cancelling is a request (S13):
//! it is noted, and goes to the kernel with what is submitted next. Room for an operation's final
//! result and for one submission is had when it is added: cancelling and closing allocate nothing
//! (S31).

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

#[derive(Debug, Default)]
pub(super) struct Operations {
    /// By the index of the slot; where no operation was ever in the slot there is none.
    pub(super) entries: Vec<Operation>,
    /// The operations on each descriptor, and those that are on it besides.
    by_fd: ByDescriptor,
    by_second_fd: ByDescriptor,
    /// Results for which the callback has not been called yet, in order; their turns stand in the
    /// ready queue.
    results: VecDeque<QueuedResult>,
    /// Those of which the kernel is to be told something, each once.
    submissions: Vec<u32>,
    /// Operations whose final result has not come.
    pending: usize,
    pub(super) polls: usize,
    /// Polls and children of which the kernel is to let go: they have ended, or their completions
    /// may have been lost.
    orphans: Vec<Handle>,
    /// Whether some operation waits for what is free: the loop has it go on in its next iteration.
    may_resume: bool,
    /// How many entries are in the kernel: of operations, polls and children. Completions of
    /// anything else change no account (S22).
    outstanding: usize,
    /// Whether the kernel has lost a completion: then one that it does not find may have ended.
    has_lost: bool,
}

/// An operation; for watchers, polls and children, what they have in common with one.
#[derive(Debug, Default)]
pub(super) struct Operation {
    fd: i32,
    /// Its place among the operations, or the watchers, on the same descriptor.
    pub(super) link: Neighbours,
    second_fd: Option<i32>,
    second_link: Neighbours,
    pub(super) events: u32,
    /// Whether its end concerns others: the one that is chained to it, or those that take turns
    /// with it.
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

    /// What comes of a completion, by the driver where there is one.
    fn completed(&mut self, completed: Completed) -> Step {
        match &mut self.driver {
            None => Step::give(completed),
            Some(driver) => driver.completed(completed),
        }
    }

    /// What it comes to if it is cancelled while the kernel knows nothing of it.
    fn cancelled(&self) -> OpResult {
        let result = self.driver.as_ref().map_or(-libc::ECANCELED, |driver| driver.cancelled());
        OpResult::new(result, 0)
    }

    /// Drops what it kept. A submission that is still deferred stays noted: whoever has the slot
    /// then answers it.
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
    /// For `count` times `add_operation`, and whatever becomes of these operations.
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

    /// Adds an operation, which the caller submits under its handle.
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

    /// Adds work for another thread, which the caller hands over under its handle.
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

    /// Has an operation that has just been added take turns with others on its descriptor. False:
    /// it waits, and is submitted when its turn has come. O(operations on the descriptor that were
    /// added since the last one that takes turns).
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

    /// Whether operations are pending, whose final results have not come, or children are watched:
    /// the world's time goes on.
    #[inline]
    pub(crate) fn has_operations(&self) -> bool {
        self.operations.pending > 0 || self.children.watched > 0
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.operations.outstanding
    }

    /// Whether the kernel has anything of the loop's that it will tell the end of.
    #[inline]
    pub(crate) fn is_kernel_busy(&self) -> bool {
        self.operations.outstanding > 0
    }

    /// The operation that comes after `index` on a descriptor, the first after None: the newest
    /// first, which the kernel finds soonest among thousands (6.18). Those that are on it besides
    /// another, which splice from it, come last.
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
