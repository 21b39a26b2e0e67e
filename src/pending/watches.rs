//! Watchers of descriptors: level-triggered readiness (S12).
//!
//! All watchers of a descriptor share one poll in the kernel, for the union of their events. It
//! completes once, because other polls of the kernel are not level-triggered. A completion makes
//! the affected watchers ready in the order of registration (S6); the poll is armed again with the
//! next submission, after their callbacks. A poll has its own slot, which no user handle finds, so
//! that a late completion is never attributed to another entry.

use std::collections::HashMap;

use super::operations::descriptors::EntryList;
use super::operations::{DeferredSubmission, Operation};
use super::{Call, IndexHash, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::abi::opcodes;
use crate::abi::sqe::{Entry, Sqe, poll_events};
use crate::error::{Error, Result};
use crate::pending::callback::Callback;
use crate::pending::event::Event;
use crate::pending::slots::{Location, NO_SLOT};

/// All watchers of a loop.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_fd: HashMap<i32, Watched, IndexHash>,
    pub(super) watchers: usize,
    /// Set while the loop waits for the kernel to release everything: no poll is armed.
    pub(super) is_closing: bool,
    /// Whether the kernel must release a file whose last watcher has ended.
    holds_file: bool,
}

/// A watched descriptor.
#[derive(Debug)]
struct Watched {
    /// In the order of registration.
    watchers: EntryList,
    /// The slot of the poll, and the events that it is armed for.
    poll: u32,
    armed: u32,
    /// A superset of the events of all watchers; exact unless `asks_for_less`.
    wanted: u32,
    asks_for_less: bool,
}

/// Events that poll always reports.
const ALWAYS: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) as u32;

/// A bit in a slot's `when`, above the events: the watcher ends with them.
const LAST: u64 = 1 << 32;

impl<L: 'static> Schedule<L> {
    pub(crate) fn reserve_watcher(&mut self, fd: i32) -> Result<()> {
        // A slot for the watcher and one for the poll.
        self.reserve_operations(2)?;
        self.watches.by_fd.try_reserve(1)?;
        if self.watches.by_fd.contains_key(&fd) {
            return Ok(());
        }
        let poll = self.slots.fill(Kind::Poll, Location::Internal, u64::MAX, Callback::EMPTY).index;
        self.operations.polls += 1;
        self.operations.note_descriptor(poll, fd);
        let watchers = EntryList::default();
        self.watches
            .by_fd
            .insert(fd, Watched { watchers, poll, armed: 0, wanted: 0, asks_for_less: false });
        // If no watcher is added, this submission ends the poll.
        self.operations.defer_submission(poll);
        Ok(())
    }

    pub(crate) fn add_watcher(&mut self, fd: i32, events: u32, callback: Callback<L>) -> Handle {
        let index = self.slots.fill(Kind::Watch, Location::Unqueued, 0, callback).index;
        self.referenced += 1;
        self.watches.watchers += 1;
        self.operations.note_descriptor(index, fd);
        let entries = &mut self.operations.entries;
        entries[index as usize].events = events;
        if let Some(watched) = self.watches.by_fd.get_mut(&fd) {
            watched.watchers.push(entries, Operation::link, index);
            watched.wanted |= events;
            self.operations.defer_submission(watched.poll);
        }
        self.slots.handle(index)
    }

    /// Changes the events of a watcher. Queued events that are no longer requested are dropped.
    pub(crate) fn update_watcher(&mut self, handle: Handle, events: u32) -> Result<()> {
        let index = self.find_watcher(handle)?;
        let fd = self.operations.descriptor(index);
        let Some(watched) = self.watches.by_fd.get_mut(&fd) else { return Ok(()) };
        let former = std::mem::replace(&mut self.operations.entries[index as usize].events, events);
        watched.wanted |= events;
        watched.asks_for_less |= former & !events != 0;
        let poll = watched.poll;
        let left = self.slots[index].when() & (u64::from(events | ALWAYS) | LAST);
        if self.slots[index].location() == Location::Ready && left == 0 {
            self.unqueue(index);
            self.slots[index].set_location(Location::Unqueued);
        }
        self.slots[index].set_when(left);
        self.operations.defer_submission(poll);
        Ok(())
    }

    fn find_watcher(&self, handle: Handle) -> Result<u32> {
        let index = self.slots.find(handle)?;
        if self.slots[index].kind() == Kind::Watch { Ok(index) } else { Err(Error::NOT_A_WATCHER) }
    }

    pub(crate) fn watcher_on(&self, fd: i32) -> Option<Handle> {
        let first = self.watches.by_fd.get(&fd)?.watchers.first;
        (first != NO_SLOT).then(|| self.slots.handle(first))
    }

    pub(crate) fn armed_poll_on(&self, fd: i32) -> Option<Handle> {
        let poll = self.watches.by_fd.get(&fd)?.poll;
        self.operations.is_in_kernel(poll).then(|| self.slots.handle(poll))
    }

    /// A watcher ends; with the last one on its descriptor, the poll ends too.
    pub(super) fn leave_watch(&mut self, index: u32) {
        let fd = self.operations.descriptor(index);
        let Some(watched) = self.watches.by_fd.get_mut(&fd) else { return };
        self.watches.watchers -= 1;
        watched.watchers.remove(&mut self.operations.entries, Operation::link, index);
        watched.asks_for_less = true;
        if watched.watchers.is_empty() {
            // The descriptor number may next belong to another file, which this poll does not
            // watch.
            self.end_poll_on(fd);
        }
    }

    /// Ends the poll of a descriptor without watchers. Its slot stays until the kernel has released
    /// it.
    fn end_poll_on(&mut self, fd: i32) {
        let Some(Watched { poll, .. }) = self.watches.by_fd.remove(&fd) else { return };
        if self.operations.is_in_kernel(poll) {
            self.operations.add_orphan(self.slots.handle(poll));
            self.watches.holds_file = true;
        } else {
            self.free_poll(poll);
        }
    }

    fn free_poll(&mut self, poll: u32) {
        self.operations.polls -= 1;
        self.operations.entries[poll as usize].clear();
        drop(self.slots.empty(poll));
    }

    /// Whether the kernel must release a file whose last watcher has ended; clears the note.
    #[inline]
    pub(crate) fn take_file_to_release(&mut self) -> bool {
        std::mem::take(&mut self.watches.holds_file)
    }

    /// A poll has completed: makes the affected watchers ready. Needs space in the ready queue for
    /// all watchers.
    pub(super) fn poll_completed(&mut self, poll: u32, result: i32) {
        let Schedule { slots, ready, watches, operations, .. } = self;
        let watched = watches.by_fd.get(&operations.descriptor(poll));
        let Some(watched) = watched.filter(|watched| watched.poll == poll) else {
            self.free_poll(poll);
            return;
        };
        // The poll is armed again after the callbacks.
        operations.defer_submission(poll);
        let (events, last) = match result {
            0.. => (result as u32, 0),
            // A change of the events (before 5.17), or the close of the loop.
            _ if result == -libc::ECANCELED => return,
            // The poll could not be armed: the descriptor is closed, or can no longer be polled.
            _ if result == -libc::EBADF => (libc::POLLNVAL as u32, LAST),
            _ => (libc::POLLERR as u32, LAST),
        };
        let mut next = watched.watchers.first;
        while next != NO_SLOT {
            let index = next;
            let entry = &operations.entries[index as usize];
            next = entry.link.next;
            let events = events & (entry.events | ALWAYS);
            let slot = &mut slots[index];
            if events == 0 {
                continue;
            }
            slot.set_when(slot.when() | u64::from(events) | last);
            if slot.location() == Location::Unqueued {
                slot.set_location(Location::Ready);
                ready.push(slots.reference(index));
            }
        }
    }

    /// The kernel has refused to change or cancel a poll. It had been woken, for events that may be
    /// gone when it checks, and then it continues with its old events (6.18). The request is
    /// repeated, unless the poll completes.
    pub(super) fn poll_not_changed(&mut self, poll: u32) {
        let watched = self.watches.by_fd.get_mut(&self.operations.descriptor(poll));
        if let Some(watched) = watched.filter(|watched| watched.poll == poll) {
            watched.armed = 0;
            self.operations.defer_submission(poll);
        }
    }

    pub(super) fn take_watch(&mut self, index: u32) -> Call<L> {
        let ready = self.slots[index].when();
        self.slots[index].set_when(0);
        self.slots[index].set_location(Location::Unqueued);
        self.metrics.callbacks += 1;
        let event = Event::Ready(self.operations.descriptor(index), ready as u32);
        if ready & LAST == 0 {
            return self.borrow_out(index, event);
        }
        let handle = Some(self.slots.handle(index));
        self.leave(index);
        self.leave_watch(index);
        Call::last(handle, Kind::Watch, self.empty(index), event)
    }

    pub(super) fn submission_of_poll(&mut self, poll: u32) -> Option<DeferredSubmission> {
        if self.slots[poll].location() != Location::Internal {
            return None;
        }
        let fd = self.operations.descriptor(poll);
        let handle = self.slots.handle(poll);
        let is_armed = self.operations.is_in_kernel(poll);
        let Schedule { watches: Watches { by_fd, is_closing, .. }, operations, .. } = self;
        // Without a watched descriptor, its watchers have ended, and the poll is an orphan.
        let watched = by_fd.get_mut(&fd).filter(|watched| watched.poll == poll)?;
        if watched.watchers.is_empty() {
            // Space was reserved for a watcher that was not added.
            self.end_poll_on(fd);
            return None;
        }
        if *is_closing {
            return is_armed.then_some(DeferredSubmission::Cancel(handle));
        }
        if is_armed && watched.wanted & !watched.armed == 0 {
            return None;
        }
        if std::mem::take(&mut watched.asks_for_less) {
            let mut next = watched.watchers.first;
            watched.wanted = 0;
            while next != NO_SLOT {
                watched.wanted |= operations.entries[next as usize].events;
                next = operations.entries[next as usize].link.next;
            }
        }
        let wanted = watched.wanted;
        watched.armed = wanted;
        if is_armed {
            return Some(DeferredSubmission::Update(handle, wanted));
        }
        operations.submitted(poll);
        let sqe =
            Sqe { opcode: opcodes::POLL_ADD, fd, op_flags: poll_events(wanted), ..Sqe::default() };
        Some(DeferredSubmission::Submit(Entry::without_pointers(sqe), handle))
    }

    /// Arms no more polls, and cancels the armed ones. Returns whether there are watchers.
    pub(crate) fn stop_watching(&mut self) -> bool {
        self.watches.is_closing = true;
        self.send_all_polls();
        self.watches.watchers > 0
    }

    pub(super) fn send_all_polls(&mut self) {
        for watched in self.watches.by_fd.values() {
            self.operations.defer_submission(watched.poll);
        }
    }
}
