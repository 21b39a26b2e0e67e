//! The timer queue: which deadline comes first. It knows no kernel, no clock and no callback.
//!
//! A 4-ary heap ordered by deadline, then by the order of scheduling, so that equal deadlines leave it in the order in
//! which they came (S8). Cancelling does not touch it: the reference in it dies with the slot's stamp (O(1), S11), is
//! passed over when it comes up, and dead references are swept out before they outnumber the living. Insert is
//! O(log n), the earliest deadline O(1), pop O(log n).

use crate::error::Result;
use crate::handle::SlotRef;

/// One timer in the queue.
#[derive(Clone, Copy, Debug)]
struct Entry {
    when: u64,
    /// Counts schedulings: it breaks ties, and never wraps (584 years at one a nanosecond).
    order: u64,
    slot: SlotRef,
}

impl Entry {
    #[inline]
    fn key(&self) -> (u64, u64) {
        (self.when, self.order)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
    dead: usize,
    scheduled: u64,
}

const CHILDREN: usize = 4;

/// Dead references are left alone while there are fewer than this.
const SWEEP_FROM: usize = 64;

impl Timers {
    /// Makes sure that the next `insert` needs no memory. `is_live` tells whether a reference is.
    pub(crate) fn reserve(&mut self, is_live: impl Fn(SlotRef) -> bool) -> Result<()> {
        if self.dead > SWEEP_FROM && self.dead > self.heap.len() / 2 {
            self.heap.retain(|entry| is_live(entry.slot));
            self.dead = 0;
            for at in (0..self.heap.len().div_ceil(CHILDREN)).rev() {
                self.sift_down(at);
            }
        }
        Ok(self.heap.try_reserve(1)?)
    }

    /// Queues a slot behind all that have the same deadline. Needs no memory after `reserve`.
    pub(crate) fn insert(&mut self, when: u64, slot: SlotRef) {
        self.scheduled += 1;
        self.heap.push(Entry { when, order: self.scheduled, slot });
        self.sift_up(self.heap.len() - 1);
    }

    /// One of the references in here has died.
    pub(crate) fn died(&mut self) {
        self.dead += 1;
    }

    /// The earliest deadline. `is_live` tells whether a reference is.
    #[inline]
    pub(crate) fn earliest(&mut self, is_live: impl Fn(SlotRef) -> bool) -> Option<u64> {
        while let Some(first) = self.heap.first() {
            if is_live(first.slot) {
                return Some(first.when);
            }
            self.dead -= 1;
            self.pop();
        }
        None
    }

    /// Takes the earliest timer out if it is due. `is_live` tells whether a reference is.
    pub(crate) fn pop_due(&mut self, now: u64, is_live: impl Fn(SlotRef) -> bool) -> Option<SlotRef> {
        if self.earliest(is_live)? > now {
            return None;
        }
        self.pop().map(|entry| entry.slot)
    }

    fn pop(&mut self) -> Option<Entry> {
        let last = self.heap.len().checked_sub(1)?;
        self.heap.swap(0, last);
        let first = self.heap.pop();
        self.sift_down(0);
        first
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if self.heap[parent].key() <= self.heap[at].key() {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let first = at * CHILDREN + 1;
            let end = (first + CHILDREN).min(self.heap.len());
            let Some(least) = (first..end).min_by_key(|&child| self.heap[child].key()) else { break };
            if self.heap[at].key() <= self.heap[least].key() {
                break;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Cancel(usize),
        PopDue(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let deadline = prop_oneof![0..40u64, 0..1_000_000_000u64, Just(u64::MAX - 1)];
        let step = prop_oneof![
            4 => deadline.prop_map(Step::Insert),
            3 => (0..500usize).prop_map(Step::Cancel),
            1 => prop_oneof![0..60u64, 0..2_000_000_000u64].prop_map(Step::PopDue),
        ];
        proptest::collection::vec(step, 0..600)
    }

    proptest! {
        #[test]
        fn s08_the_queue_agrees_with_a_sorted_list(steps in steps()) {
            let mut timers = Timers::default();
            let mut model: Vec<(u64, u32)> = Vec::new();
            let mut live = HashSet::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Insert(when) => {
                        timers.reserve(|slot| live.contains(&slot.index)).unwrap();
                        timers.insert(when, SlotRef { index: next, stamp: 0 });
                        live.insert(next);
                        let at = model.partition_point(|&(other, _)| other <= when);
                        model.insert(at, (when, next));
                        next += 1;
                    }
                    Step::Cancel(at) if !model.is_empty() => {
                        let (_, index) = model.remove(at % model.len());
                        live.remove(&index);
                        timers.died();
                    }
                    Step::Cancel(_) => {}
                    Step::PopDue(now) => {
                        let due = model.partition_point(|&(when, _)| when <= now);
                        for (_, index) in model.drain(..due) {
                            let slot = timers.pop_due(now, |slot| live.contains(&slot.index));
                            prop_assert_eq!(slot, Some(SlotRef { index, stamp: 0 }));
                            live.remove(&index);
                        }
                        prop_assert_eq!(timers.pop_due(now, |slot| live.contains(&slot.index)), None);
                    }
                }
                let earliest = timers.earliest(|slot| live.contains(&slot.index));
                prop_assert_eq!(earliest, model.first().map(|&(when, _)| when));
            }
        }
    }

    #[test]
    fn s11_cancelling_for_ever_needs_no_memory_for_ever() {
        let mut timers = Timers::default();
        for n in 0..100_000 {
            timers.reserve(|slot| slot.index >= n).unwrap();
            timers.insert(1000, SlotRef { index: n, stamp: 0 });
            timers.died();
        }
        assert!(timers.heap.capacity() < 1000, "{}", timers.heap.capacity());
    }
}
