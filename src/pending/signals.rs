//! Handlers of signals: a slot and a registration with the process's handler for each.

use libc::c_int;

use super::{Extra, Schedule};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;
use crate::pending::callback::Callback;
use crate::pending::slots::{Location, Slots};
use crate::sys::signals::Registration;

impl<L: 'static> Schedule<L> {
    /// Makes sure that the next `add_signal` needs no memory.
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
        self.slots[slot.index].set_has_extra(true);
        self.extras.insert(slot.index, Extra { signal: Some(registration), ..Extra::default() });
        self.signals.push((signal, handle));
        handle
    }

    /// The signal of the handler in a slot.
    pub(super) fn signal_of(&self, index: u32) -> c_int {
        self.signals
            .iter()
            .find(|(_, handle)| handle.index() == index)
            .map_or(0, |(signal, _)| *signal)
    }

    /// Appends the handlers of the signals that have come to the ready queue, the oldest first; bit
    /// 0 is signal 1. One that stands there already is not appended again. If memory is refused,
    /// none is: the signal will be told to all of them.
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
