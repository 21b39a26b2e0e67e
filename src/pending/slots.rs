//! The slots behind the handles, and what the queues know of them.
//!
//! A slot is in two parts. What is asked all the time (is this handle, is this reference still
//! right?) and the deadline are 16 bytes, so that the cache holds those of very many; the callback
//! stands elsewhere, and is touched twice: when the slot is filled and when it runs. Together they
//! are 40 bytes.
//!
//! The queues refer to a slot by index and stamp, and whatever takes a slot out of a queue moves
//! the stamp on: what stands in the queue is then known to be dead, and is dropped when it comes
//! up. That is how cancelling costs O(1) however much is pending (S11). Stamps come round after
//! 2^21 moves of one slot; the queues are then rid of their dead, so that none can seem alive.

use crate::abi::handle::{Handle, Kind};
use crate::error::{Error, Result};
use crate::pending::callback::Callback;
use crate::sys::memory::prefetch;

/// A slot as the queues know it: right only while the slot still has this stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SlotRef {
    pub(crate) index: u32,
    pub(crate) stamp: u32,
}

/// Tells the queues whether the references in them are still right.
pub(crate) trait Liveness {
    fn is_live(&self, slot: SlotRef) -> bool;

    /// `is_live` will be asked soon.
    fn prefetch(&self, _slot: SlotRef) {}
}

impl<F: Fn(SlotRef) -> bool> Liveness for F {
    fn is_live(&self, slot: SlotRef) -> bool {
        self(slot)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Location {
    Free,
    /// Cancelled while its callback is on the stack; it is emptied when that returns.
    Ended,
    /// Not to be found by a handle: the loop's own.
    Internal,
    Timers,
    Ready,
    Hooks,
    /// In no queue: a timer whose deadline is `NEVER`, a signal handler whose signal has not come,
    /// an operation that has no deadline.
    Unqueued,
}

/// The part of a slot that is asked all the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The deadline of a timer or an operation, else `u64::MAX`; in a free slot, the next free one.
    when: u64,
    generation: u32,
    state: u32,
}

// What the bits of `Slot::state` say, above the five of the kind: where the slot stands, whether it
// counts for `run`, whether it has an `Extra`, whether dropping its callback does anything; the
// rest is the stamp.
const KIND: u32 = 0b1_1111;
const LOCATION_SHIFT: u32 = 5;
const LOCATION: u32 = 0b111 << LOCATION_SHIFT;
const REFERENCED: u32 = 1 << 8;
const HAS_EXTRA: u32 = 1 << 9;
const NEEDS_DROP: u32 = 1 << 10;
const STAMP_SHIFT: u32 = 11;
const STAMP: u32 = u32::MAX << STAMP_SHIFT;

/// What a slot held when it ended, to be dropped where no borrow is held.
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

/// No slot has this index or a greater one: they have meanings of their own in the ready queue.
pub(crate) const NO_SLOT: u32 = u32::MAX - 1;
/// Handles beyond would meet the numbers that the ring keeps for itself.
const LAST_GENERATION: u32 = i32::MAX as u32 - 16;
const LAST_STAMP: u32 = u32::MAX >> STAMP_SHIFT;

#[derive(Debug)]
pub(crate) struct Slots<L: 'static> {
    slots: Vec<Slot>,
    /// What is in each slot; in a free one, what is left of something that needs no drop.
    callbacks: Vec<Callback<L>>,
    free: u32,
    first_generation: u32,
}

impl<L: 'static> Slots<L> {
    /// `seed` tells loops apart: handles of loops with different seeds seldom have a generation in
    /// common.
    pub(crate) fn new(seed: u64) -> Slots<L> {
        // Fibonacci hashing spreads neighbouring seeds; half of all generations stay ahead of the
        // first.
        let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 34;
        Slots {
            slots: Vec::new(),
            callbacks: Vec::new(),
            free: NO_SLOT,
            first_generation: 1 + spread as u32,
        }
    }

    /// Makes sure that the next `fill` needs no memory. O(1), amortized; allocates only when more
    /// is pending than ever before.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Result<()> {
        if self.free == NO_SLOT { self.grow() } else { Ok(()) }
    }

    /// As `reserve`, for the next `count`. Tells the highest index of these slots.
    pub(crate) fn reserve_many(&mut self, count: usize) -> Result<u32> {
        let mut next = self.free;
        let mut highest = 0;
        for _ in 0..count {
            if next == NO_SLOT {
                // In front of the others: it is counted from here on.
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

    /// Fills the slot that `reserve` made sure of. It stands in no queue yet; the caller puts it
    /// where `location` says.
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

    /// Empties a slot: its handle is stale from here on, and its generation never comes back. The
    /// slot must be in no queue but for references that are dead.
    #[inline]
    pub(crate) fn empty(&mut self, index: u32) -> Callback<L> {
        self.discard(index);
        self.callbacks[index as usize].take()
    }

    /// As `empty`, for a callback that needs no drop: it stays where it is and means nothing any
    /// more.
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

    /// The index of the slot that a number names which came back from the kernel: also of the
    /// loop's own, and of those that end later.
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

    /// Moves a task that stands aside to the ready queue, for which the reference is; None: it is
    /// elsewhere, or has ended.
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

    /// Takes a task out of its place, to be polled: its handle, and its callback.
    #[inline]
    pub(crate) fn begin_task(&mut self, index: u32) -> (Handle, Callback<L>) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.is_task());
        slot.set_location(Location::Unqueued);
        (Handle::new(index, slot.generation), self.lend_callback(index))
    }

    /// Takes a callback out for the time that it runs.
    #[inline]
    pub(crate) fn lend_callback(&mut self, index: u32) -> Callback<L> {
        self.callbacks[index as usize].lend()
    }

    /// Puts a callback back in the place of what stands in for it.
    #[inline]
    pub(crate) fn return_callback(&mut self, index: u32, callback: &mut Callback<L>) {
        let place = &mut self.callbacks[index as usize];
        callback.take().put_over(place);
    }

    /// Makes every reference to a slot dead. False when the stamps are used up: the caller then
    /// removes all dead references from the queues, and those to this slot, so that they can start
    /// anew.
    #[inline]
    #[must_use]
    pub(crate) fn restamp(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index as usize];
        let is_last = slot.stamp() == LAST_STAMP;
        slot.state = slot.state.wrapping_add(1 << STAMP_SHIFT);
        !is_last
    }

    /// Whether a reference is to a slot with something in it that runs once and has nothing beside
    /// the slot.
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

    /// The task in the slot, if it is one, will be polled soon. The slot has been fetched.
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

    /// As if a slot had been taken out of queues until its last stamp.
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

    /// Whether it runs once and has nothing beside the slot.
    #[inline]
    fn is_plain(&self) -> bool {
        self.state & (u32::from(Kind::STAYS) | HAS_EXTRA) == 0
    }

    /// Whether it is a plain call or timer, and its callback can be forgotten.
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

    /// Whether there is something of the user's in the slot that has not ended.
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

    /// There is an `Extra` for it, until the slot is filled anew.
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
