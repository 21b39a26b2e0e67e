//! What comes to a schedule from outside: the posts of other threads, and signals.

use libc::c_int;

use super::{Extra, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;
use crate::pending::callback::Callback;
use crate::pending::ready::List;
use crate::pending::slots::{Held, Location, Slots};
use crate::sys::signals::Registration;
use crate::threads::inbox::{Post, Posts};

impl<L: 'static> Schedule<L> {
    /// Makes sure that the next `add_post` needs no memory.
    pub(crate) fn reserve_post(&mut self) -> Result<()> {
        self.reserve_ready()
    }

    /// Puts a post at the end of the ready queue.
    pub(crate) fn add_post(&mut self, post: Post) {
        self.posts.push(post);
        self.ready.push_turn(List::Posts);
        self.referenced += 1;
        self.metrics.posts += 1;
    }

    /// Makes sure that the next `add_delayed_post` needs no memory.
    pub(crate) fn reserve_delayed_post(&mut self, when: u64) -> Result<()> {
        self.extras.try_reserve(1)?;
        self.reserve_timer(when)
    }

    /// Queues what another thread has posted for a later time.
    pub(crate) fn add_delayed_post(&mut self, when: u64, held: Held<L>) {
        let Held { callback, release } = held;
        let handle = self.call_at(when, callback);
        if release.is_some() {
            self.slots[handle.index()].set_has_extra(true);
            self.extras.insert(handle.index(), Extra { release, ..Extra::default() });
        }
        self.metrics.posts += 1;
    }

    /// Takes the post whose turn it is.
    #[inline]
    pub(crate) fn take_post(&mut self) -> Option<Post> {
        self.metrics.callbacks += 1;
        self.referenced -= 1;
        self.posts.pop()
    }

    /// Takes all posts, which have ended.
    pub(crate) fn end_posts(&mut self) -> Posts {
        self.referenced -= self.posts.count();
        self.ready.remove_turns(List::Posts);
        std::mem::replace(&mut self.posts, Posts::NONE)
    }

    /// Makes sure that the next `add_signal` needs no memory.
    pub(crate) fn reserve_signal(&mut self) -> Result<()> {
        self.extras.try_reserve(1)?;
        self.slots.reserve()?;
        Ok(self.signals.try_reserve(1)?)
    }

    pub(crate) fn add_signal(&mut self, signal: c_int, callback: Callback<L>, registration: Registration) -> Handle {
        let slot = self.slots.fill(Kind::Signal, Location::Unqueued, u64::MAX, callback);
        let handle = self.slots.handle(slot.index);
        self.slots[slot.index].set_has_extra(true);
        self.extras.insert(slot.index, Extra { signal: Some(registration), ..Extra::default() });
        self.signals.push((signal, handle));
        handle
    }

    /// The signal of the handler in a slot.
    pub(super) fn signal_of(&self, index: u32) -> c_int {
        self.signals.iter().find(|(_, handle)| handle.index() == index).map_or(0, |(signal, _)| *signal)
    }

    /// Appends the handlers of the signals that have come to the ready queue, the oldest first; bit 0 is signal 1. One that
    /// stands there already is not appended again. If memory is refused, none is: the signal will be told to all of them.
    pub(crate) fn signals_came(&mut self, came: u64) -> Result<()> {
        let Schedule { signals, slots, ready, .. } = self;
        let is_due = |slots: &Slots<L>, (signal, handle): (c_int, Handle)| {
            came >> (signal - 1) & 1 == 1 && slots[handle.index()].location() == Location::Unqueued
        };
        ready.reserve_many(signals.iter().filter(|&&handler| is_due(slots, handler)).count())?;
        for &(signal, handle) in signals.iter() {
            if is_due(slots, (signal, handle)) {
                slots[handle.index()].set_location(Location::Ready);
                ready.push(slots.reference(handle.index()));
            }
        }
        Ok(())
    }

    /// A signal handler ends: the process's handler does not know it any more.
    pub(super) fn leave_signal(&mut self, index: u32) {
        self.signals.retain(|(_, handle)| handle.index() != index);
        if let Some(extra) = self.extras.get_mut(&index) {
            extra.signal = None;
        }
    }
}
