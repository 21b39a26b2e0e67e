//! Handles, generations, and the slots behind them (S10).
//!
//! A handle is a slot's index and the generation in which the slot was filled. Ending what the slot holds moves the
//! generation on, so an old handle meets another number and is refused; a slot whose generations are used up is never
//! filled again. Generations start at a number of the loop's own, so that a handle of another loop is refused too,
//! nearly always (the two would have to use the same slot in the same generation).
//!
//! A slot also carries a stamp. The queues refer to a slot by index and stamp, and whatever takes a slot out of a
//! queue moves the stamp on: what stands in the queue is then known to be dead, and is dropped when it comes up.
//! That is how cancelling costs O(1) however much is pending (S11).

use std::num::NonZeroI64;

use crate::callback::Callback;
use crate::error::{Error, Result};

/// Names something that was scheduled on a loop. Safe to keep for ever: once its thing has ended it names nothing,
/// and every function says ENOENT to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle(NonZeroI64);

impl Handle {
    fn new(index: u32, generation: u32) -> Handle {
        let bits = i64::from(generation) << 32 | i64::from(index);
        Handle(NonZeroI64::new(bits).expect("a generation is never zero"))
    }

    /// The number that C knows this handle by. It is positive.
    pub fn as_raw(self) -> i64 {
        self.0.get()
    }

    /// The handle that C knows by this number. Any number may be given: one that is no handle is refused when it is
    /// used.
    pub fn from_raw(raw: i64) -> Option<Handle> {
        NonZeroI64::new(raw).map(Handle)
    }

    fn index(self) -> u32 {
        self.0.get() as u32
    }

    fn generation(self) -> i64 {
        self.0.get() >> 32
    }
}

/// A slot as the queues know it: right only while the slot still has this stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotRef {
    pub(crate) index: u32,
    pub(crate) stamp: u32,
}

/// What kind of thing was scheduled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A `call_soon`.
    Call = 1,
    /// A `call_later` or `call_at`.
    Timer = 2,
    /// A `call_every`.
    Repeat = 3,
    /// A hook before or after the wait.
    Hook = 4,
}

impl Kind {
    pub(crate) fn is_timer(self) -> bool {
        matches!(self, Kind::Timer | Kind::Repeat)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Call => "call",
            Kind::Timer => "timer",
            Kind::Repeat => "repeating timer",
            Kind::Hook => "hook",
        }
    }
}

/// Where a filled slot stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Nothing is in the slot.
    Free,
    /// In the timer queue.
    Timers,
    /// In the ready queue.
    Ready,
    /// In one of the lists of hooks.
    Hooks,
    /// In no queue: its deadline is `NEVER`, or its callback is on the stack.
    Aside,
    /// Cancelled while its callback is on the stack; it is emptied when that returns.
    Ended,
}

/// What few things need and the others do not pay for.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// Zero unless it repeats.
    pub(crate) period: u64,
    pub(crate) skipped: u64,
    pub(crate) release: Option<Callback>,
}

/// Room for one thing that was scheduled.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) callback: Callback,
    /// The deadline of a timer, else `u64::MAX`.
    pub(crate) when: u64,
    pub(crate) extra: Option<Box<Extra>>,
    generation: u32,
    pub(crate) stamp: u32,
    next_free: u32,
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) referenced: bool,
}

/// What a slot held when it ended, to be dropped where no borrow is held.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) callback: Callback,
    pub(crate) extra: Option<Box<Extra>>,
}

impl Ended {
    /// Whether dropping it does nothing.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.extra.is_none() && !self.callback.needs_drop()
    }
}

const NO_SLOT: u32 = u32::MAX;
const LAST_GENERATION: u32 = i32::MAX as u32;

/// All slots of a loop.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: u32,
    first_generation: u32,
}

impl Slots {
    /// `seed` tells loops apart: handles of loops with different seeds seldom have a generation in common.
    pub(crate) fn new(seed: u64) -> Slots {
        // Fibonacci hashing spreads neighbouring seeds; half of all generations stay ahead of the first.
        let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 34;
        Slots { slots: Vec::new(), free: NO_SLOT, first_generation: 1 + spread as u32 }
    }

    /// Makes sure that the next `fill` needs no memory. O(1), amortized; allocates only when more is pending than ever
    /// before.
    #[inline]
    pub(crate) fn reserve(&mut self) -> Result<()> {
        if self.free == NO_SLOT { self.grow() } else { Ok(()) }
    }

    #[cold]
    fn grow(&mut self) -> Result<()> {
        let index = u32::try_from(self.slots.len()).map_err(|_| Error::NO_MEMORY)?;
        if index == NO_SLOT {
            return Err(Error::NO_MEMORY);
        }
        self.slots.try_reserve(1)?;
        self.slots.push(Slot {
            callback: Callback::EMPTY,
            when: u64::MAX,
            extra: None,
            generation: self.first_generation,
            stamp: 0,
            next_free: NO_SLOT,
            kind: Kind::Call,
            place: Place::Free,
            referenced: false,
        });
        self.free = index;
        Ok(())
    }

    /// Fills the slot that `reserve` made sure of.
    #[inline]
    pub(crate) fn fill(&mut self, kind: Kind, when: u64, callback: Callback) -> u32 {
        let index = self.free;
        let slot = &mut self.slots[index as usize];
        self.free = slot.next_free;
        slot.callback = callback;
        slot.when = when;
        slot.kind = kind;
        slot.place = Place::Aside;
        slot.referenced = kind != Kind::Hook;
        index
    }

    /// Empties a slot: its handle is stale from here on, and its generation never comes back.
    pub(crate) fn empty(&mut self, index: u32) -> Ended {
        self.retire_handle(index);
        let slot = &mut self.slots[index as usize];
        slot.place = Place::Free;
        slot.stamp = slot.stamp.wrapping_add(1);
        if slot.generation != LAST_GENERATION {
            slot.next_free = self.free;
            self.free = index;
        }
        Ended { callback: std::mem::replace(&mut slot.callback, Callback::EMPTY), extra: slot.extra.take() }
    }

    /// Makes a slot's handle stale while the slot stays filled.
    fn retire_handle(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.place != Place::Ended {
            slot.generation += 1;
        }
    }

    /// Marks a slot whose callback is on the stack as ended: the handle is stale, the slot is emptied later.
    pub(crate) fn end_later(&mut self, index: u32) {
        self.retire_handle(index);
        self.slots[index as usize].place = Place::Ended;
    }

    /// The index of the slot that a handle names.
    pub(crate) fn find(&self, handle: Handle) -> Result<u32> {
        match self.slots.get(handle.index() as usize) {
            Some(slot) if slot.names(handle) => Ok(handle.index()),
            _ => Err(Error::STALE_HANDLE),
        }
    }

    /// The handle of a filled slot.
    pub(crate) fn handle(&self, index: u32) -> Handle {
        Handle::new(index, self.slots[index as usize].generation)
    }

    /// A reference for a queue, which makes every earlier one dead.
    pub(crate) fn restamp(&mut self, index: u32) -> SlotRef {
        let slot = &mut self.slots[index as usize];
        slot.stamp = slot.stamp.wrapping_add(1);
        SlotRef { index, stamp: slot.stamp }
    }

    /// Whether a reference is still right.
    pub(crate) fn is_live(&self, slot: SlotRef) -> bool {
        self.slots[slot.index as usize].stamp == slot.stamp
    }

    pub(crate) fn len(&self) -> u32 {
        self.slots.len() as u32
    }
}

impl Slot {
    fn names(&self, handle: Handle) -> bool {
        i64::from(self.generation) == handle.generation() && !matches!(self.place, Place::Free | Place::Ended)
    }
}

impl std::ops::Index<u32> for Slots {
    type Output = Slot;
    fn index(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Slots {
    fn index_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(slots: &mut Slots) -> u32 {
        slots.reserve().unwrap();
        slots.fill(Kind::Call, 0, Callback::EMPTY)
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
    fn s10_a_generation_is_never_used_twice() {
        let mut slots = Slots::new(7);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let index = fill(&mut slots);
            assert!(seen.insert(slots.handle(index)));
            slots.empty(index);
        }
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn s10_loops_start_their_generations_apart() {
        let mut first: Vec<u32> = (0..1000).map(|seed| Slots::new(seed).first_generation).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 1000);
        assert!(first.iter().all(|&generation| generation <= LAST_GENERATION / 2 + 1));
    }
}
