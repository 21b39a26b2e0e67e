//! The ready queue: one FIFO (S6), and the current batch (S5 d, S7).
//!
//! A batch is the contents of the queue at its beginning; later entries wait for the next batch. A
//! batch that is broken off leaves its rest at the head, for the next one (S18). References whose
//! slot has changed are dead: `pop` skips them, and a sweep removes them before they outnumber the
//! live ones. Posts and results of operations are in lists of their own, in order; this queue has
//! only their turns, consecutive ones in a single entry.

use std::collections::VecDeque;

use crate::error::Result;
use crate::pending::slots::{Liveness, NO_SLOT, SlotRef};

/// The queue of slots and turns that are ready to run.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    queue: VecDeque<SlotRef>,
    /// The number of entries at the head that belong to the batch.
    batch: usize,
    live: usize,
}

/// A list outside the ready queue whose members have turns in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum List {
    Posts = u32::MAX,
    Results = NO_SLOT,
}

/// No sweep while there are fewer dead references than this.
const SWEEP_FROM: usize = 64;

/// A slot is prefetched so many callbacks before its turn, to hide the memory latency. A task's
/// memory is prefetched `TASK_AHEAD` callbacks before its turn.
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

    /// Ensures that the next `push` needs no memory. `slots` knows which references are live.
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

    /// Appends a reference. Needs no memory after `reserve`.
    #[inline]
    pub(crate) fn push(&mut self, slot: SlotRef) {
        self.queue.push_back(slot);
        self.live += 1;
    }

    /// Appends turns of a list: the list's number is in the place of a slot's index, which never
    /// has that value, and the stamp counts the turns. Needs no memory after `reserve`.
    #[inline]
    pub(crate) fn push_turns(&mut self, list: List, count: u32) {
        if count == 0 {
            return;
        }
        let is_behind_batch = self.queue.len() > self.batch;
        let back =
            self.queue.back_mut().filter(|back| is_behind_batch && back.index == list as u32);
        match back.and_then(|back| Some((back.stamp.checked_add(count)?, back))) {
            Some((stamp, back)) => back.stamp = stamp,
            None => self.push(SlotRef { index: list as u32, stamp: count }),
        }
    }

    /// Removes the turns of a list, and returns their number.
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

    /// Replaces a recently appended reference by another.
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

    /// Takes one turn; the rest stay at the head.
    fn take_turn(&mut self, turns: SlotRef) -> SlotRef {
        self.live -= 1;
        if turns.stamp > 1 {
            self.put_back(SlotRef { stamp: turns.stamp - 1, ..turns });
        }
        turns
    }

    /// The entry that `pop` will return after `ahead` others.
    #[inline]
    pub(crate) fn upcoming(&self, ahead: usize) -> Option<SlotRef> {
        if self.batch > ahead { self.queue.get(ahead).copied() } else { None }
    }

    /// Undoes the last `pop`, whose space is still free.
    pub(crate) fn put_back(&mut self, slot: SlotRef) {
        self.queue.push_front(slot);
        self.batch += 1;
        self.live += 1;
    }
}

/// The list whose turn `pop` has returned, if it is not a slot.
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
        queue.push_turns(List::Posts, 1);
        queue.push(slot(2));
        queue.begin_batch();
        queue.push_turns(List::Posts, 1);
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
