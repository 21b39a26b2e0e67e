//! The slots behind the handles: the state of each entry, and its callback.
//!
//! A slot has two parts, 40 bytes together. The 16 bytes that most functions read (generation,
//! stamp, deadline) are in one array, so that the cache holds very many of them. The callback is in
//! another, which is accessed twice: when the slot is filled and when it runs.
//!
//! The queues refer to a slot by index and stamp. Removing a slot from a queue changes its stamp,
//! which makes the reference in the queue dead; it is dropped when it comes up. So cancelling is
//! O(1) (S11). Stamps wrap around after 2^21 changes of one slot; the queues are swept then, so
//! that no dead reference can seem live.

use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::pending::callback::Callback;
use crate::sys::memory::prefetch;

/// A reference from a queue to a slot, live only while the slot has this stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SlotRef {
    pub(crate) index: u32,
    pub(crate) stamp: u32,
}

/// Tells which references in a queue are live.
pub(crate) trait Liveness {
    fn is_live(&self, slot: SlotRef) -> bool;

    /// `is_live` will be called soon.
    fn prefetch(&self, _slot: SlotRef) {}
}

impl<F: Fn(SlotRef) -> bool> Liveness for F {
    fn is_live(&self, slot: SlotRef) -> bool {
        self(slot)
    }
}

/// The queue that a slot is in, or the reason why it is in none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Location {
    Free,
    /// Cancelled while its callback is on the stack; emptied when that returns.
    Ended,
    /// Not found by a handle: used by the loop itself.
    Internal,
    Timers,
    Ready,
    Hooks,
    /// In no queue: a timer whose deadline is `NEVER`, a signal handler without a signal, an
    /// operation without a deadline.
    Unqueued,
}

/// The frequently read part of a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The deadline of a timer or an operation, else `u64::MAX`; in a free slot, the next free one.
    when: u64,
    generation: u32,
    state: u32,
}

// The bits of `Slot::state`: five bits for the kind, then the location, whether it counts for
// `run`, whether it has an `Extra`, whether its callback needs a drop; the rest is the stamp.
const KIND: u32 = 0b1_1111;
const LOCATION_SHIFT: u32 = 5;
const LOCATION: u32 = 0b111 << LOCATION_SHIFT;
const REFERENCED: u32 = 1 << 8;
const HAS_EXTRA: u32 = 1 << 9;
const NEEDS_DROP: u32 = 1 << 10;
const STAMP_SHIFT: u32 = 11;
const STAMP: u32 = u32::MAX << STAMP_SHIFT;

/// The callbacks of an ended slot, to be dropped where no borrow is held.
#[derive(Debug)]
pub(crate) struct Held<L: 'static> {
    pub(crate) callback: Callback<L>,
    pub(crate) release: Option<Callback<L>>,
}

impl<L: 'static> Held<L> {
    pub(crate) const EMPTY: Held<L> = Held { callback: Callback::EMPTY, release: None };

    /// Whether dropping it does nothing.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.release.is_none() && !self.callback.needs_drop()
    }
}

/// No slot has this index or a greater one; the ready queue uses those for turns.
pub(crate) const NO_SLOT: u32 = u32::MAX - 1;
/// Greater handles would collide with the numbers of the ring's own requests.
const LAST_GENERATION: u32 = i32::MAX as u32 - 16;
const LAST_STAMP: u32 = u32::MAX >> STAMP_SHIFT;

/// All slots of a loop.
#[derive(Debug)]
pub(crate) struct Slots<L: 'static> {
    slots: Vec<Slot>,
    /// The callback of each slot; in a free one, the remains of a callback that needs no drop.
    callbacks: Vec<Callback<L>>,
    free: u32,
    first_generation: u32,
}

impl<L: 'static> Slots<L> {
    /// `seed` distinguishes loops: handles of loops with different seeds rarely share a generation.
    pub(crate) fn new(seed: u64) -> Slots<L> {
        // Fibonacci hashing spreads neighbouring seeds. Half of all generations stay ahead of the
        // first.
        let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 34;
        Slots {
            slots: Vec::new(),
            callbacks: Vec::new(),
            free: NO_SLOT,
            first_generation: 1 + spread as u32,
        }
    }

    /// Ensures that the next `fill` needs no memory. O(1) amortized; allocates only when more is
    /// pending than ever before.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Result<()> {
        if self.free == NO_SLOT { self.grow() } else { Ok(()) }
    }

    /// As `reserve`, for the next `count`. Returns the highest index of these slots.
    pub(crate) fn reserve_many(&mut self, count: usize) -> Result<u32> {
        let mut next = self.free;
        let mut highest = 0;
        for _ in 0..count {
            if next == NO_SLOT {
                // The new slot is first in the free list, and is counted here.
                self.grow()?;
                highest = highest.max(self.free);
            } else {
                highest = highest.max(next);
                next = self.slots[next as usize].when as u32;
            }
        }
        Ok(highest)
    }

    fn grow(&mut self) -> Result<()> {
        let index = u32::try_from(self.slots.len()).map_err(|_| Error::NO_MEMORY)?;
        if index >= NO_SLOT {
            return Err(Error::NO_MEMORY);
        }
        self.slots.try_reserve(1)?;
        self.callbacks.try_reserve(1)?;
        self.slots.push(Slot {
            when: u64::from(self.free),
            generation: self.first_generation,
            state: 0,
        });
        self.callbacks.push(Callback::EMPTY);
        self.free = index;
        Ok(())
    }

    /// Fills the reserved slot. The caller adds it to the queue that `location` names.
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        kind: Kind,
        location: Location,
        when: u64,
        callback: Callback<L>,
    ) -> SlotRef {
        let index = self.free;
        let mut state = kind as u32 | (location as u32) << LOCATION_SHIFT;
        if kind.can_be_referenced() {
            state |= REFERENCED;
        }
        if callback.needs_drop() {
            state |= NEEDS_DROP;
        }
        callback.put_over(&mut self.callbacks[index as usize]);
        let slot = &mut self.slots[index as usize];
        self.free = slot.when as u32;
        slot.when = when;
        slot.state = slot.state & STAMP | state;
        SlotRef { index, stamp: slot.stamp() }
    }

    /// Empties a slot: its handle becomes stale, and its generation never returns. No queue may
    /// have a live reference to it.
    #[inline]
    pub(crate) fn empty(&mut self, index: u32) -> Callback<L> {
        self.discard(index);
        self.callbacks[index as usize].take()
    }

    /// As `empty`, for a callback that needs no drop: it stays in the slot and is ignored.
    #[inline]
    pub(crate) fn discard(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation += 1;
        slot.set_location(Location::Free);
        if slot.generation != LAST_GENERATION {
            slot.when = u64::from(self.free);
            self.free = index;
        }
    }

    #[inline]
    pub(crate) fn find(&self, handle: Handle) -> Result<u32> {
        match self.slots.get(handle.index() as usize) {
            Some(slot) if slot.names(handle) => Ok(handle.index()),
            _ => Err(Error::STALE_HANDLE),
        }
    }

    /// The index of the slot of a number from the kernel, also for the loop's own slots and ended
    /// ones.
    #[inline]
    pub(crate) fn find_in_use(&self, handle: Handle) -> Option<u32> {
        let slot = self.slots.get(handle.index() as usize)?;
        let is_it =
            i64::from(slot.generation) == handle.generation() && slot.location() != Location::Free;
        is_it.then_some(handle.index())
    }

    #[inline]
    pub(crate) fn handle(&self, index: u32) -> Handle {
        Handle::new(index, self.slots[index as usize].generation)
    }

    #[inline]
    pub(crate) fn callback(&self, index: u32) -> &Callback<L> {
        &self.callbacks[index as usize]
    }

    /// Moves an unqueued task to the ready queue, for which the reference is returned. None: the
    /// task is elsewhere, or has ended.
    #[inline]
    pub(crate) fn wake(&mut self, handle: Handle) -> Option<SlotRef> {
        let slot = self.slots.get_mut(handle.index() as usize)?;
        let is_aside = slot.location() == Location::Unqueued
            && i64::from(slot.generation) == handle.generation();
        is_aside.then(|| {
            slot.set_location(Location::Ready);
            SlotRef { index: handle.index(), stamp: slot.stamp() }
        })
    }

    /// Takes a task out of its queue, to be polled; returns its handle and its callback.
    #[inline]
    pub(crate) fn begin_task(&mut self, index: u32) -> (Handle, Callback<L>) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.is_task());
        slot.set_location(Location::Unqueued);
        (Handle::new(index, slot.generation), self.lend_callback(index))
    }

    /// Takes a callback out while it runs.
    #[inline]
    pub(crate) fn lend_callback(&mut self, index: u32) -> Callback<L> {
        self.callbacks[index as usize].lend()
    }

    /// Puts a callback back in the place of its stand-in.
    #[inline]
    pub(crate) fn return_callback(&mut self, index: u32, callback: &mut Callback<L>) {
        let place = &mut self.callbacks[index as usize];
        callback.take().put_over(place);
    }

    /// Makes every reference to a slot dead. False when the stamps wrap around: the caller then
    /// removes all dead references, and those to this slot, from the queues.
    #[inline]
    #[must_use]
    pub(crate) fn restamp(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index as usize];
        let is_last = slot.stamp() == LAST_STAMP;
        slot.state = slot.state.wrapping_add(1 << STAMP_SHIFT);
        !is_last
    }

    /// Whether a reference is to an entry that runs once and has no `Extra`.
    #[inline]
    pub(crate) fn is_plain(&self, slot: SlotRef) -> bool {
        self.slots.get(slot.index as usize).is_some_and(Slot::is_plain)
    }

    #[inline]
    pub(crate) fn is_task(&self, slot: SlotRef) -> bool {
        self.slots.get(slot.index as usize).is_some_and(Slot::is_task)
    }

    #[inline]
    pub(crate) fn prefetch_all(&self, slot: SlotRef) {
        prefetch(&self.slots, slot.index as usize);
        prefetch(&self.callbacks, slot.index as usize);
    }

    /// Prefetches the task of a slot, if it has one. The slot itself has been prefetched.
    #[inline]
    pub(crate) fn prefetch_task(&self, slot: SlotRef) {
        if self.is_task(slot) {
            self.callbacks[slot.index as usize].prefetch();
        }
    }

    #[inline]
    pub(crate) fn reference(&self, index: u32) -> SlotRef {
        SlotRef { index, stamp: self.slots[index as usize].stamp() }
    }

    /// As if a slot had been removed from queues until its last stamp.
    #[cfg(test)]
    pub(crate) fn use_up_stamps(&mut self, index: u32) {
        self.slots[index as usize].state |= STAMP;
    }

    pub(crate) fn len(&self) -> u32 {
        self.slots.len() as u32
    }
}

impl<L: 'static> Liveness for Slots<L> {
    #[inline]
    fn is_live(&self, slot: SlotRef) -> bool {
        // A reference beyond the table is never live.
        self.slots.get(slot.index as usize).is_some_and(|known| known.stamp() == slot.stamp)
    }

    #[inline]
    fn prefetch(&self, slot: SlotRef) {
        prefetch(&self.slots, slot.index as usize);
    }
}

impl Slot {
    #[inline]
    fn stamp(&self) -> u32 {
        self.state >> STAMP_SHIFT
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.state & KIND {
            0 => Kind::Call,
            1 => Kind::Timer,
            2 => Kind::Hook,
            3 => Kind::Repeat,
            4 => Kind::Operation,
            6 => Kind::Signal,
            8 => Kind::Work,
            10 => Kind::Watch,
            12 => Kind::Child,
            14 => Kind::Poll,
            _ => Kind::Task,
        }
    }

    #[inline]
    pub(crate) fn is_timer(&self) -> bool {
        self.state & u32::from(Kind::TIMER) != 0
    }

    #[inline]
    pub(crate) fn is_task(&self) -> bool {
        self.state & KIND == Kind::Task as u32
    }

    /// Whether it runs once and has no `Extra`.
    #[inline]
    fn is_plain(&self) -> bool {
        self.state & (u32::from(Kind::STAYS) | HAS_EXTRA) == 0
    }

    /// Whether it is a plain call or timer whose callback needs no drop.
    #[inline]
    pub(crate) fn is_plain_data(&self) -> bool {
        self.state & (KIND & !u32::from(Kind::TIMER) | HAS_EXTRA | NEEDS_DROP) == 0
    }

    #[inline]
    pub(crate) fn location(&self) -> Location {
        match (self.state & LOCATION) >> LOCATION_SHIFT {
            0 => Location::Free,
            1 => Location::Ended,
            2 => Location::Internal,
            3 => Location::Timers,
            4 => Location::Ready,
            5 => Location::Hooks,
            _ => Location::Unqueued,
        }
    }

    #[inline]
    pub(crate) fn set_location(&mut self, location: Location) {
        self.state = self.state & !LOCATION | (location as u32) << LOCATION_SHIFT;
    }

    /// Whether the slot has an entry of the user that has not ended.
    #[inline]
    pub(crate) fn is_filled(&self) -> bool {
        !matches!(self.location(), Location::Free | Location::Ended | Location::Internal)
    }

    #[inline]
    pub(crate) fn is_referenced(&self) -> bool {
        self.state & REFERENCED != 0
    }

    pub(crate) fn set_referenced(&mut self, referenced: bool) {
        self.state = if referenced { self.state | REFERENCED } else { self.state & !REFERENCED };
    }

    #[inline]
    pub(crate) fn has_extra(&self) -> bool {
        self.state & HAS_EXTRA != 0
    }

    /// Notes an `Extra`, until the slot is filled again.
    pub(crate) fn note_extra(&mut self) {
        self.state |= HAS_EXTRA;
    }

    /// The deadline of a timer, else `u64::MAX`.
    #[inline]
    pub(crate) fn when(&self) -> u64 {
        self.when
    }

    #[inline]
    pub(crate) fn set_when(&mut self, when: u64) {
        self.when = when;
    }

    #[inline]
    fn names(&self, handle: Handle) -> bool {
        i64::from(self.generation) == handle.generation() && self.is_filled()
    }
}

impl<L: 'static> std::ops::Index<u32> for Slots<L> {
    type Output = Slot;
    fn index(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }
}

impl<L: 'static> std::ops::IndexMut<u32> for Slots<L> {
    fn index_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(slots: &mut Slots<()>) -> u32 {
        slots.reserve().unwrap();
        slots.fill(Kind::Call, Location::Unqueued, 0, Callback::EMPTY).index
    }

    #[test]
    fn s10_a_slot_that_has_used_up_its_generations_is_retired() {
        let mut slots = Slots::new(7);
        let index = fill(&mut slots);
        slots[index].generation = LAST_GENERATION - 1;
        let last = slots.handle(index);
        slots.empty(index);
        assert!(slots.find(last).is_err());
        let other = fill(&mut slots);
        assert_ne!(other, index, "the slot was filled in a generation after its last");
    }

    #[test]
    fn s10_loops_start_their_generations_apart() {
        let mut first: Vec<u32> =
            (0..1000).map(|seed| Slots::<()>::new(seed).first_generation).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 1000);
        assert!(first.iter().all(|&generation| generation <= LAST_GENERATION / 2 + 1));
    }
}
