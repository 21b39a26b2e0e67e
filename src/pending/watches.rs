//! Watchers of descriptors: level-triggered readiness (S12).
//!
//! All watchers of a descriptor share one poll in the kernel, for the events that any of them asks
//! for. It completes once, since the kernel has no level-triggered poll of another kind; the
//! watchers that it concerns are made ready in the order in which they were registered (S6), and it
//! is armed again with what is submitted next, when their callbacks have run. A poll has a slot of
//! its own, which no handle of the user's finds: what the kernel says of one that has ended meets
//! nobody.

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

#[derive(Debug, Default)]
pub(super) struct Watches {
    by_fd: HashMap<i32, Watched, IndexHash>,
    pub(super) watchers: usize,
    /// While the loop waits for the kernel to let go of everything, no poll is armed.
    pub(super) is_closing: bool,
    /// Whether the kernel is to let go of a file whose last watcher has ended.
    holds_file: bool,
}

#[derive(Debug)]
struct Watched {
    /// In the order in which they were registered.
    watchers: EntryList,
    /// The slot of the poll, and what it is armed for.
    poll: u32,
    armed: u32,
    /// All that the watchers ask for; since one of them ended or asks for less, perhaps more.
    wanted: u32,
    asks_for_less: bool,
}

/// These are reported whether they are asked for or not.
const ALWAYS: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) as u32;

/// In a slot's `when`, above the events: the watcher ends with them.
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
        // Without a watcher by then, that ends it again.
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

    /// Changes what a watcher asks for. What is queued for it and is asked for no more is dropped.
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

    /// A watcher ends, and with the last one on its descriptor the poll.
    pub(super) fn leave_watch(&mut self, index: u32) {
        let fd = self.operations.descriptor(index);
        let Some(watched) = self.watches.by_fd.get_mut(&fd) else { return };
        self.watches.watchers -= 1;
        watched.watchers.remove(&mut self.operations.entries, Operation::link, index);
        watched.asks_for_less = true;
        if watched.watchers.is_empty() {
            // What is watched under this number next may be another file, which the poll knows
            // nothing of.
            self.end_poll_on(fd);
        }
    }

    /// The poll of a descriptor that is watched no more ends. Its slot stays until the kernel has
    /// let go.
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

    /// Whether the kernel is to let go of a file whose last watcher has ended; it is not noted any
    /// more.
    #[inline]
    pub(crate) fn take_file_to_release(&mut self) -> bool {
        std::mem::take(&mut self.watches.holds_file)
    }

    /// A poll has completed: makes those ready whom it concerns. There is room for all watchers in
    /// the ready queue.
    pub(super) fn poll_completed(&mut self, poll: u32, result: i32) {
        let Schedule { slots, ready, watches, operations, .. } = self;
        let watched = watches.by_fd.get(&operations.descriptor(poll));
        let Some(watched) = watched.filter(|watched| watched.poll == poll) else {
            self.free_poll(poll);
            return;
        };
        // It is armed again when the callbacks have run.
        operations.defer_submission(poll);
        let (events, last) = match result {
            0.. => (result as u32, 0),
            // For other events (before 5.17), or because the loop is being closed.
            _ if result == -libc::ECANCELED => return,
            // It could not be armed: the descriptor is closed, or can be polled no more.
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

    /// The kernel has refused to change or to cancel a poll that it has: it had been woken, for
    /// events that may be gone by the time it looks, and then it goes on to wait for what it was
    /// armed for (6.18). It is asked once more, unless it completes.
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
        // Without one, its watchers have ended, and it is an orphan.
        let watched = by_fd.get_mut(&fd).filter(|watched| watched.poll == poll)?;
        if watched.watchers.is_empty() {
            // Room was made for a watcher that has not come.
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
        Some(DeferredSubmission::Submit(Entry::pointless(sqe), handle))
    }

    /// No poll is armed from here on, and those that are end. Whether there are any.
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
