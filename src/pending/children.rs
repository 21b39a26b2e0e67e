//! Watchers of child processes (S11). Each has an entry in the kernel under its handle, which
//! points at no memory.
//!
//! A cancelled watcher ends at once. Its entry in the kernel, an orphan, is cancelled with the next
//! submission, and keeps the slot until its completion. Adding a watcher reserves the space for
//! that. This file does not reap children.

use std::os::fd::OwnedFd;

use libc::pid_t;

use super::{Extra, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;
use crate::pending::callback::Callback;
use crate::pending::slots::{Location, SlotRef};

/// A watched child process.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: pid_t,
    /// Identifies the process even if its PID is reused. None where there are no pidfds.
    pub(crate) pidfd: Option<OwnedFd>,
    /// Whether someone else has reaped the child.
    pub(crate) is_gone: bool,
}

#[derive(Debug, Default)]
pub(super) struct Children {
    pub(super) watched: usize,
    /// The number of entries in the kernel, watched or not.
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

    /// Adds a watcher. The caller submits its entry under the handle.
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

    /// Handles a completion: the child has ended, or is no longer watched. Needs space in the ready
    /// queue.
    pub(super) fn child_changed(&mut self, index: u32, result: i32) {
        self.children.entries -= 1;
        let Some(child) = self.extras.get_mut(&index).and_then(|extra| extra.child.as_mut()) else {
            // The watcher has ended already.
            drop(self.slots.empty(index));
            return;
        };
        child.is_gone |= result == -libc::ECHILD;
        if self.slots[index].location() == Location::Unqueued {
            self.slots[index].set_location(Location::Ready);
            self.ready.push(self.slots.reference(index));
        }
    }

    /// For a child that has not ended: the caller submits its entry again, under the handle. Needs
    /// the space of an operation.
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

    /// Cancels the entries of all children. A watcher that is still alive gets its completion.
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
