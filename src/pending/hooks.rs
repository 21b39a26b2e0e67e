//! Hooks, which run in every iteration, and handlers of signals. Neither counts for `run`.
//!
//! Each hook point has a list of handles; dead ones are removed between rounds. A signal handler
//! holds a registration in `sys::signals`, which ends with the handler.

use libc::c_int;

use super::{Call, Extra, HookPoint, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;
use crate::pending::callback::Callback;
use crate::pending::event::Event;
use crate::pending::slots::{Location, Slots};
use crate::sys::signals::Registration;

impl<L: 'static> Schedule<L> {
    pub(crate) fn reserve_hook(&mut self, point: HookPoint) -> Result<()> {
        self.slots.reserve()?;
        Ok(self.hooks[point as usize - 1].try_reserve(1)?)
    }

    pub(crate) fn add_hook(&mut self, point: HookPoint, callback: Callback<L>) -> Handle {
        let slot = self.slots.fill(Kind::Hook, Location::Hooks, u64::MAX, callback);
        let handle = self.slots.handle(slot.index);
        self.hooks[point as usize - 1].push(handle);
        handle
    }

    #[inline]
    pub(crate) fn has_hooks(&self) -> bool {
        self.hooks.iter().any(|list| !list.is_empty())
    }

    /// Begins a round of hooks and returns their number.
    pub(crate) fn begin_hooks(&mut self, point: HookPoint) -> usize {
        self.sweep_hooks();
        self.hooks[point as usize - 1].len()
    }

    /// Removes the dead hooks if they are many. Not during a round, which uses the positions.
    pub(crate) fn sweep_many_hooks(&mut self) {
        if self.dead_hooks > 64 {
            self.sweep_hooks();
        }
    }

    fn sweep_hooks(&mut self) {
        let Schedule { slots, hooks, .. } = self;
        if self.dead_hooks > 0 {
            hooks.iter_mut().for_each(|list| list.retain(|&handle| slots.find(handle).is_ok()));
            self.dead_hooks = 0;
        }
    }

    /// The call of one hook of the round, unless it has been cancelled since the round began.
    pub(crate) fn hook_call(&mut self, point: HookPoint, at: usize) -> Option<Call<L>> {
        let index = self.slots.find(self.hooks[point as usize - 1][at]).ok()?;
        Some(self.borrow_out(index, Event::Turn))
    }
    pub(crate) fn reserve_signal(&mut self) -> Result<()> {
        self.extras.try_reserve(1)?;
        self.slots.reserve()?;
        Ok(self.signals.try_reserve(1)?)
    }

    pub(crate) fn add_signal(
        &mut self,
        signal: c_int,
        callback: Callback<L>,
        registration: Registration,
    ) -> Handle {
        let slot = self.slots.fill(Kind::Signal, Location::Unqueued, u64::MAX, callback);
        let handle = self.slots.handle(slot.index);
        self.add_extra(slot.index, Extra { signal: Some(registration), ..Extra::default() });
        self.signals.push((signal, handle));
        handle
    }

    pub(super) fn signal_of(&self, index: u32) -> c_int {
        let mut handlers = self.signals.iter();
        handlers.find(|(_, handle)| handle.index() == index).map_or(0, |(signal, _)| *signal)
    }

    /// Appends the handlers of `came` to the ready queue, oldest first; bit 0 is signal 1. A
    /// handler in the queue is not appended again. When memory is refused, none is appended, and
    /// the signals are delivered to all of them later.
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

    pub(super) fn leave_signal(&mut self, index: u32) {
        self.signals.retain(|(_, handle)| handle.index() != index);
        if let Some(extra) = self.extras.get_mut(&index) {
            extra.signal = None;
        }
    }
}
