//! Watchers of descriptors: level-triggered readiness (S12).
//!
//! All watchers of a descriptor share one poll in the kernel, for the events that any of them asks for. It completes once,
//! since the kernel has no level-triggered poll of another kind; the watchers that it concerns are made ready in the order in which they
//! were registered (S6), and it is armed again with what is submitted next, when their callbacks have run. A poll has a
//! slot of its own, which no handle of the user's finds: what the kernel says of one that has ended meets nobody.

use std::collections::HashMap;

use io_uring::opcode;

use super::operations::Errand;
use super::{Call, IndexHash, Schedule};
use crate::callback::Callback;
use crate::error::{Error, Result};
use crate::handle::{Handle, Kind};
use crate::op::driver::Given;
use crate::slots::{Held, Place};
use crate::sqe::{Sqe, poll_events};

/// What is watched.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_fd: HashMap<i32, Watched, IndexHash>,
    /// How many watchers there are.
    pub(super) watchers: usize,
    /// While the loop waits for the kernel to let go of everything, no poll is armed.
    pub(super) is_closing: bool,
}

/// A descriptor that is watched.
#[derive(Debug)]
struct Watched {
    /// In the order in which they were registered.
    watchers: Vec<Watcher>,
    /// The slot of the poll, and what it is armed for.
    poll: u32,
    armed: u32,
}

#[derive(Clone, Copy, Debug)]
struct Watcher {
    index: u32,
    events: u32,
}

impl Watched {
    /// What any of the watchers asks for.
    fn events(&self) -> u32 {
        self.watchers.iter().fold(0, |all, watcher| all | watcher.events)
    }
}

/// These are reported whether they are asked for or not.
const ALWAYS: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) as u32;

/// In a slot's `when`, above the events: the watcher ends with them.
const LAST: u64 = 1 << 32;

impl Schedule {
    /// Makes sure that the next `add_watcher`, on this descriptor, needs no memory, nor whatever becomes of it.
    pub(crate) fn reserve_watcher(&mut self, fd: i32) -> Result<()> {
        // A slot for the watcher and one for the poll.
        self.reserve_operations(2)?;
        self.watches.by_fd.try_reserve(1)?;
        if let Some(watched) = self.watches.by_fd.get_mut(&fd) {
            return Ok(watched.watchers.try_reserve(1)?);
        }
        let mut watchers = Vec::new();
        watchers.try_reserve(1)?;
        let poll = self.slots.fill(Kind::Poll, Place::Internal, u64::MAX, Callback::EMPTY).index;
        self.operations.add_poll(poll, fd);
        self.watches.by_fd.insert(fd, Watched { watchers, poll, armed: 0 });
        // Without a watcher by then, that ends it again.
        self.operations.send_errand(poll);
        Ok(())
    }

    /// Adds a watcher, after `reserve_watcher`.
    pub(crate) fn add_watcher(&mut self, fd: i32, events: u32, callback: Callback) -> Handle {
        let index = self.slots.fill(Kind::Watch, Place::Aside, 0, callback).index;
        self.referenced += 1;
        self.watches.watchers += 1;
        self.operations.note_descriptor(index, fd);
        if let Some(watched) = self.watches.by_fd.get_mut(&fd) {
            watched.watchers.push(Watcher { index, events });
            self.operations.send_errand(watched.poll);
        }
        self.slots.handle(index)
    }

    /// Changes what a watcher asks for. What is queued for it and is asked for no more is dropped.
    pub(crate) fn update_watcher(&mut self, handle: Handle, events: u32) -> Result<()> {
        let index = self.find_watcher(handle)?;
        let fd = self.operations.descriptor(index);
        let Some(watched) = self.watches.by_fd.get_mut(&fd) else { return Ok(()) };
        watched
            .watchers
            .iter_mut()
            .filter(|watcher| watcher.index == index)
            .for_each(|watcher| watcher.events = events);
        let poll = watched.poll;
        let left = self.slots[index].when() & (u64::from(events | ALWAYS) | LAST);
        if self.slots[index].place() == Place::Ready && left == 0 {
            self.unqueue(index);
            self.slots[index].set_place(Place::Aside);
        }
        self.slots[index].set_when(left);
        self.operations.send_errand(poll);
        Ok(())
    }

    fn find_watcher(&self, handle: Handle) -> Result<u32> {
        let index = self.slots.find(handle)?;
        if self.slots[index].kind() == Kind::Watch { Ok(index) } else { Err(Error::NOT_A_WATCHER) }
    }

    /// The first watcher of a descriptor.
    pub(crate) fn watcher_on(&self, fd: i32) -> Option<Handle> {
        let watcher = self.watches.by_fd.get(&fd)?.watchers.first()?;
        Some(self.slots.handle(watcher.index))
    }

    /// A watcher ends. The poll of the last one on its descriptor ends with what is submitted next.
    pub(super) fn leave_watch(&mut self, index: u32) {
        let fd = self.operations.descriptor(index);
        if let Some(watched) = self.watches.by_fd.get_mut(&fd) {
            watched.watchers.retain(|watcher| watcher.index != index);
            self.watches.watchers -= 1;
            self.operations.send_errand(watched.poll);
            if watched.watchers.is_empty() {
                // What is watched under this number next may be another file, which the poll knows nothing of.
                self.watches.by_fd.remove(&fd);
            }
        }
    }

    /// A poll has completed: makes those ready whom it concerns. There is room for all watchers in the ready queue.
    pub(super) fn poll_completed(&mut self, poll: u32, result: i32) {
        let Schedule { slots, ready, watches, operations, .. } = self;
        // It is armed again when the callbacks have run.
        operations.send_errand(poll);
        let watched = watches.by_fd.get(&operations.descriptor(poll));
        let Some(watched) = watched.filter(|watched| watched.poll == poll) else { return };
        let (events, last) = match result {
            0.. => (result as u32, 0),
            // For other events (before 5.17), or because the loop is being closed.
            _ if result == -libc::ECANCELED => return,
            // It could not be armed: the descriptor is closed, or can be polled no more.
            _ if result == -libc::EBADF => (libc::POLLNVAL as u32, LAST),
            _ => (libc::POLLERR as u32, LAST),
        };
        for watcher in &watched.watchers {
            let events = events & (watcher.events | ALWAYS);
            let slot = &mut slots[watcher.index];
            if events == 0 {
                continue;
            }
            slot.set_when(slot.when() | u64::from(events) | last);
            if slot.place() == Place::Aside {
                slot.set_place(Place::Ready);
                ready.push(slots.reference(watcher.index));
            }
        }
    }

    /// Hands out the callback of a watcher whose turn it is.
    pub(super) fn take_watch(&mut self, index: u32) -> Call {
        let ready = self.slots[index].when();
        self.slots[index].set_when(0);
        self.slots[index].set_place(Place::Aside);
        self.metrics.callbacks += 1;
        let given = Given::new(self.operations.descriptor(index), ready as u32);
        if ready & LAST == 0 {
            return Call { given, ..self.borrow_out(index) };
        }
        let handle = Some(self.slots.handle(index));
        self.leave(index);
        self.leave_watch(index);
        let Held { callback, release } = self.empty(index);
        Call { callback, handle, kind: Kind::Watch, due: None, index, release, stays: false, given }
    }

    /// What the kernel is to be told of a poll.
    pub(super) fn errand_of_poll(&mut self, poll: u32) -> Option<Errand> {
        if self.slots[poll].place() != Place::Internal {
            return None;
        }
        let fd = self.operations.descriptor(poll);
        let handle = self.slots.handle(poll);
        let is_armed = self.operations.is_in_kernel(poll);
        let watched = self.watches.by_fd.get_mut(&fd).filter(|watched| watched.poll == poll);
        let Some(watched) = watched.filter(|watched| !watched.watchers.is_empty()) else {
            // Room was made for a watcher that has not come.
            if self.watches.by_fd.get(&fd).is_some_and(|watched| watched.poll == poll) {
                self.watches.by_fd.remove(&fd);
            }
            self.operations.remove_poll(poll);
            drop(self.slots.empty(poll));
            return is_armed.then_some(Errand::Cancel(handle));
        };
        if self.watches.is_closing {
            return is_armed.then_some(Errand::Cancel(handle));
        }
        let wanted = watched.events();
        if is_armed && wanted & !watched.armed == 0 {
            return None;
        }
        watched.armed = wanted;
        if is_armed {
            return Some(Errand::Update(handle, wanted));
        }
        self.operations.poll_submitted(poll);
        let sqe = Sqe { opcode: opcode::PollAdd::CODE, fd, op_flags: poll_events(wanted), ..Sqe::default() };
        Some(Errand::Submit(sqe, handle))
    }

    /// Ends a poll of a descriptor whose watchers have gone, if there is one, and names it if the kernel has it. It has an errand, one
    /// of the last.
    pub(crate) fn end_poll_on(&mut self, fd: i32) -> Option<Option<Handle>> {
        let current = self.watches.by_fd.get(&fd).map(|watched| watched.poll);
        let is_orphan = |index: u32| {
            let slot = &self.slots[index];
            slot.kind() == Kind::Poll && slot.place() == Place::Internal && Some(index) != current
        };
        let orphan = self.operations.last_errand_on(fd, is_orphan)?;
        Some(match self.errand_of_poll(orphan) {
            Some(Errand::Cancel(handle)) => Some(handle),
            _ => None,
        })
    }

    /// Has every poll looked at again.
    pub(super) fn send_all_polls(&mut self) {
        for watched in self.watches.by_fd.values() {
            self.operations.send_errand(watched.poll);
        }
    }
}
