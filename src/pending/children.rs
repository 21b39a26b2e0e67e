//! Watchers of child processes: each has an entry in the kernel under its handle, which points at
//! no memory.
//!
//! They are watchers (S11): one that is cancelled is gone, and what is left of it in the kernel is
//! an orphan, which the kernel is told to forget with what is submitted next. Its slot is the
//! loop's own until then. Room for that is had when the watcher is added.

use std::os::fd::OwnedFd;

use libc::pid_t;

use super::{Extra, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;
use crate::pending::callback::Callback;
use crate::pending::slots::{Location, SlotRef};

#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: pid_t,
    /// It, whatever becomes of its number. None where there are no pidfds.
    pub(crate) pidfd: Option<OwnedFd>,
    /// Whether somebody else has waited for it.
    pub(crate) is_gone: bool,
}

#[derive(Debug, Default)]
pub(super) struct Children {
    pub(super) watched: usize,
    /// How many have an entry in the kernel, watched or not.
    pub(super) entries: usize,
}

impl Child {
    pub(crate) fn new(pid: pid_t, pidfd: Option<OwnedFd>) -> Child {
        Child { pid, pidfd, is_gone: false }
    }
}

impl<L: 'static> Schedule<L> {
    pub(crate) fn reserve_child(&mut self) -> Result<()> {
        self.extras.try_reserve(1)?;
        self.reserve_operations(1)
    }

    /// Adds a watcher, whose entry the caller submits under its handle.
    pub(crate) fn add_child(&mut self, child: Child, callback: Callback<L>) -> Handle {
        let index = self.slots.fill(Kind::Child, Location::Unqueued, u64::MAX, callback).index;
        self.referenced += 1;
        self.children.watched += 1;
        self.child_submitted(index);
        self.add_extra(index, Extra { child: Some(child), ..Extra::default() });
        self.slots.handle(index)
    }

    fn child_submitted(&mut self, index: u32) {
        self.children.entries += 1;
        self.operations.note_descriptor(index, -1);
        self.operations.submitted(index);
    }

    pub(crate) fn child_at(&self, next: SlotRef) -> Option<&Child> {
        let is_child = self.slots[next.index].kind() == Kind::Child;
        if is_child { self.extras.get(&next.index)?.child.as_ref() } else { None }
    }

    /// The kernel says that a child has ended, or that it does not watch it any more. There is room
    /// in the ready queue.
    pub(super) fn child_changed(&mut self, index: u32, result: i32) {
        self.children.entries -= 1;
        let Some(child) = self.extras.get_mut(&index).and_then(|extra| extra.child.as_mut()) else {
            // Its watcher has ended before.
            drop(self.slots.empty(index));
            return;
        };
        child.is_gone |= result == -libc::ECHILD;
        if self.slots[index].location() == Location::Unqueued {
            self.slots[index].set_location(Location::Ready);
            self.ready.push(self.slots.reference(index));
        }
    }

    /// What was next in the batch has not ended: its entry is submitted again, by the caller under
    /// the handle, as an operation for which there is room.
    pub(crate) fn watch_again(&mut self, next: SlotRef) -> Handle {
        self.slots[next.index].set_location(Location::Unqueued);
        self.child_submitted(next.index);
        self.slots.handle(next.index)
    }

    pub(crate) fn put_back(&mut self, next: SlotRef) {
        self.ready.put_back(next);
    }

    pub(super) fn leave_child(&mut self, index: u32) {
        self.children.watched -= 1;
        self.orphan(index);
    }

    /// The kernel is told to forget all children. A watcher that does not end by that sees it from
    /// its completion.
    pub(super) fn release_children(&mut self) {
        let count = if self.children.watched > 0 { self.slots.len() } else { 0 };
        for index in 0..count {
            if self.slots[index].kind() == Kind::Child && self.slots[index].is_filled() {
                self.orphan(index);
            }
        }
    }

    fn orphan(&mut self, index: u32) {
        if self.operations.is_in_kernel(index) {
            self.operations.add_orphan(self.slots.handle(index));
        }
    }
}
