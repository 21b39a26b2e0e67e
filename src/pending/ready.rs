//! The ready queue: one FIFO (S6), and the batch that is being run (S5 d, S7).
//!
//! A batch is what stands in the queue when it begins; what comes later waits for the next one. A
//! batch that is broken off leaves its rest at the head, for the next one (S18). References whose
//! slot has moved on are dead: they are passed over when they come up, and swept out before they
//! outnumber the living.
//!
//! Posts of other threads and results of operations stand in lists of their own, in order, and here
//! only their turns, any number in the room of one.

use std::collections::VecDeque;

use crate::error::Result;
use crate::pending::slots::{Liveness, NO_SLOT, SlotRef};

#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    queue: VecDeque<SlotRef>,
    /// How many at the head of the queue belong to the batch.
    batch: usize,
    live: usize,
}

/// A list whose members have their turns in the ready queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum List {
    Posts = u32::MAX,
    Results = NO_SLOT,
}

/// Dead references are left alone while there are fewer than this.
const SWEEP_FROM: usize = 64;

/// A slot is fetched into the cache so many callbacks before its turn: memory answers meanwhile. A
/// task's memory is fetched from a task so many before its own turn.
pub(crate) const AHEAD: usize = 8;
pub(crate) const TASK_AHEAD: usize = 4;

impl ReadyQueue {
    /// Whether nothing is ready. Dead references do not count.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether a batch has been broken off and left a rest.
    #[inline]
    pub(crate) fn has_rest(&self) -> bool {
        self.batch > 0
    }

    /// Makes sure that the next `push` needs no memory. `slots` tells whether a reference is live.
    #[inline]
    pub(crate) fn reserve(&mut self, slots: &impl Liveness) -> Result<()> {
        if self.queue.len() == self.queue.capacity() { self.make_room(slots) } else { Ok(()) }
    }

    pub(crate) fn reserve_many(&mut self, count: usize) -> Result<()> {
        Ok(self.queue.try_reserve(count)?)
    }

    #[cold]
    fn make_room(&mut self, slots: &impl Liveness) -> Result<()> {
        if self.queue.len() > 2 * self.live + SWEEP_FROM {
            self.sweep(slots);
        }
        Ok(self.queue.try_reserve(1)?)
    }

    #[cold]
    pub(crate) fn sweep(&mut self, slots: &impl Liveness) {
        self.retain(|slot| list_of(slot).is_some() || slots.is_live(slot));
    }

    fn retain(&mut self, mut stays: impl FnMut(SlotRef) -> bool) {
        let mut at = 0;
        let mut batch = 0;
        self.queue.retain(|&slot| {
            let stays = stays(slot);
            batch += usize::from(stays && at < self.batch);
            at += 1;
            stays
        });
        self.batch = batch;
    }

    /// Appends. Needs no memory after `reserve`.
    #[inline]
    pub(crate) fn push(&mut self, slot: SlotRef) {
        self.queue.push_back(slot);
        self.live += 1;
    }

    /// Appends the turn of a member of a list, in the place of a slot's index, which the list's
    /// number never is; the stamp says of how many. Needs no memory after `reserve`.
    #[inline]
    pub(crate) fn push_turn(&mut self, list: List) {
        let is_behind_batch = self.queue.len() > self.batch;
        match self.queue.back_mut() {
            Some(back) if is_behind_batch && back.index == list as u32 && back.stamp < u32::MAX => {
                back.stamp += 1
            }
            _ => self.push(SlotRef { index: list as u32, stamp: 1 }),
        }
    }

    /// Takes the turns of a list out, and tells how many these were.
    pub(crate) fn remove_turns(&mut self, list: List) -> usize {
        let (mut removed, mut entries) = (0, 0);
        self.retain(|slot| {
            let stays = slot.index != list as u32;
            removed += if stays { 0 } else { slot.stamp as usize };
            entries += usize::from(!stays);
            stays
        });
        self.live -= entries;
        removed
    }

    /// Puts another reference in the place of one, which was appended of late.
    pub(crate) fn replace(&mut self, former: SlotRef, slot: SlotRef) {
        if let Some(place) = self.queue.iter_mut().rev().find(|place| **place == former) {
            *place = slot;
        }
    }

    #[inline]
    pub(crate) fn note_cancelled(&mut self) {
        self.live -= 1;
    }

    #[inline]
    pub(crate) fn begin_batch(&mut self) {
        self.batch = self.queue.len();
    }

    /// Takes the next live reference, or a turn, out of the batch.
    #[inline]
    pub(crate) fn pop(&mut self, slots: &impl Liveness) -> Option<SlotRef> {
        while self.batch > 0 {
            let slot = self.queue.pop_front()?;
            self.batch -= 1;
            if slots.is_live(slot) {
                self.live -= 1;
                return Some(slot);
            }
            if list_of(slot).is_some() {
                return Some(self.take_turn(slot));
            }
        }
        None
    }

    /// One of those whose turn it is; the rest stay at the head.
    fn take_turn(&mut self, turns: SlotRef) -> SlotRef {
        self.live -= 1;
        if turns.stamp > 1 {
            self.put_back(SlotRef { stamp: turns.stamp - 1, ..turns });
        }
        turns
    }

    /// One that `pop` will give when it has given so many.
    #[inline]
    pub(crate) fn upcoming(&self, ahead: usize) -> Option<SlotRef> {
        if self.batch > ahead { self.queue.get(ahead).copied() } else { None }
    }

    /// Undoes the last `pop`; the room is still there.
    pub(crate) fn put_back(&mut self, slot: SlotRef) {
        self.queue.push_front(slot);
        self.batch += 1;
        self.live += 1;
    }
}

/// Whose turn it is that `pop` gave, if it is not a slot's.
#[inline]
pub(crate) fn list_of(slot: SlotRef) -> Option<List> {
    match slot.index {
        index if index == List::Posts as u32 => Some(List::Posts),
        index if index == List::Results as u32 => Some(List::Results),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s07_turns_that_are_taken_out_leave_others_in_their_batch() {
        let slot = |index| SlotRef { index, stamp: 0 };
        let is_live = |slot: SlotRef| list_of(slot).is_none();
        let mut queue = ReadyQueue::default();
        queue.push(slot(1));
        queue.push_turn(List::Posts);
        queue.push(slot(2));
        queue.begin_batch();
        queue.push_turn(List::Posts);
        queue.push(slot(3));
        queue.remove_turns(List::Posts);
        let mut batch = || {
            std::iter::from_fn(|| queue.pop(&is_live)).map(|slot| slot.index).collect::<Vec<_>>()
        };
        assert_eq!(batch(), [1, 2]);
        assert!(!queue.has_rest() && !queue.is_empty());
        queue.begin_batch();
        assert_eq!(queue.pop(&is_live), Some(slot(3)));
        assert!(queue.is_empty());
    }
}
