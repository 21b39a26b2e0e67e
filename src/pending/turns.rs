//! From the ready queue to a call: takes the next entry of the batch, hands its callback out, and
//! takes it back after the call.
//!
//! The caller runs the call with no borrow held, and returns it before it takes the next one.

use super::Schedule;
use super::callback::Callback;
use super::event::Event;
use super::ready::AHEAD;
use super::slots::{Held, Location, SlotRef};
use crate::abi::handle::{Handle, Kind};
use crate::error::Result;

/// A callback that was taken out to be run, with its event.
#[derive(Debug)]
pub(crate) struct Call<L: 'static> {
    pub(crate) callback: Callback<L>,
    /// None for a post.
    pub(crate) handle: Option<Handle>,
    pub(crate) kind: Kind,
    /// The deadline of a timer.
    pub(crate) due: Option<u64>,
    pub(crate) event: Event,
    release: Option<Callback<L>>,
    /// The slot to which the callback returns, if any.
    slot: Option<u32>,
}

impl<L: 'static> Call<L> {
    /// The last call of an entry that has left its slot, or never had one.
    pub(crate) fn last(handle: Option<Handle>, kind: Kind, held: Held<L>, event: Event) -> Call<L> {
        let Held { callback, release } = held;
        Call { callback, handle, kind, due: None, event, release, slot: None }
    }
}

impl<L: 'static> Schedule<L> {
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    #[inline]
    pub(crate) fn begin_batch(&mut self) {
        self.ready.begin_batch();
    }

    /// Takes the next reference out of the batch. The caller then takes its callback, too.
    #[inline(always)]
    pub(crate) fn next_in_batch(&mut self) -> Option<SlotRef> {
        let Schedule { slots, ready, .. } = self;
        if let Some(upcoming) = ready.upcoming(AHEAD) {
            slots.prefetch_all(upcoming);
        }
        ready.pop(slots)
    }

    /// Whether the next entry runs once and has no release hook, so that `take_plain` can replace
    /// `take_call`.
    #[inline]
    pub(crate) fn is_plain(&self, next: SlotRef) -> bool {
        self.slots.is_plain(next)
    }

    /// Ends the next entry, which is plain, and hands its callback out.
    #[inline]
    pub(crate) fn take_plain(&mut self, next: SlotRef) -> (Handle, Callback<L>) {
        let slot = &self.slots[next.index];
        self.metrics.callbacks += 1;
        self.metrics.timers_fired += u64::from(slot.is_timer());
        self.referenced -= usize::from(slot.is_referenced());
        (self.slots.handle(next.index), self.slots.empty(next.index))
    }

    /// Hands out the callback of the next entry, of any kind. When memory is refused, the entry
    /// stays next.
    pub(crate) fn take_call(&mut self, next: SlotRef) -> Result<Call<L>> {
        let index = next.index;
        let slot = &self.slots[index];
        let (kind, due) = (slot.kind(), slot.is_timer().then(|| slot.when()));
        match kind {
            Kind::Signal | Kind::Task => {
                self.metrics.callbacks += 1;
                self.slots[index].set_location(Location::Unqueued);
                let event = match kind {
                    Kind::Signal => Event::Signal(self.signal_of(index)),
                    _ => Event::Turn,
                };
                Ok(self.borrow_out(index, event))
            }
            Kind::Watch => Ok(self.take_watch(index)),
            Kind::Repeat => {
                self.rearm(next)?;
                self.metrics.callbacks += 1;
                self.metrics.timers_fired += 1;
                Ok(Call { due, ..self.borrow_out(index, Event::Turn) })
            }
            _ => {
                if kind == Kind::Child {
                    self.leave_child(index);
                }
                let release = self.remove_extra(index);
                let (handle, callback) = self.take_plain(next);
                let held = Held { callback, release };
                Ok(Call { due, ..Call::last(Some(handle), kind, held, Event::Turn) })
            }
        }
    }

    /// Takes a call back after it has run: a repeating callback returns to its slot, others are
    /// handed out for release.
    #[inline]
    pub(crate) fn finished(&mut self, call: Call<L>) -> Held<L> {
        let Call { mut callback, release, slot, event, .. } = call;
        let Some(index) = slot else { return Held { callback, release } };
        if self.on_stack.take() != Some(index) {
            // A task that has left its slot.
            return Held { callback, release };
        }
        if let Event::Completed(result) = event {
            self.result_seen(index, result);
        }
        if self.slots[index].location() == Location::Ended {
            return Held { callback, ..self.empty(index) };
        }
        self.slots.return_callback(index, &mut callback);
        Held::EMPTY
    }

    /// Takes a callback out of its slot while it runs.
    pub(super) fn borrow_out(&mut self, index: u32, event: Event) -> Call<L> {
        self.on_stack = Some(index);
        let (handle, kind) = (Some(self.slots.handle(index)), self.slots[index].kind());
        let callback = self.slots.lend_callback(index);
        Call { callback, handle, kind, due: None, event, release: None, slot: Some(index) }
    }
}
