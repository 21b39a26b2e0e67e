//! The queue agrees with a sorted list, leaves the dead alone, and needs no memory when timers
//! leave.

use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Cancel(usize),
    /// Cancels all but every n-th.
    CancelMost(usize),
    Take(u64),
}

/// Deadlines and times at all distances, many of them equal, many of them past.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..40u64,
        0..100_000u64,
        0..1_000_000_000u64,
        any::<u64>().prop_map(|bits| bits >> (bits % 64)),
        Just(u64::MAX - 1),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => time().prop_map(Step::Insert),
        4 => (0..500usize).prop_map(Step::Cancel),
        1 => time().prop_map(Step::Take),
    ];
    // Now and then so many are cancelled that the dead are swept out.
    let most = (2..40usize).prop_map(Step::CancelMost);
    proptest::collection::vec(prop_oneof![150 => step, 1 => most], 0..1200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn s08_the_queue_agrees_with_a_sorted_list(start in time(), steps in steps()) {
        let mut timers = Timers::new(start);
        let mut model: Vec<(u64, u32)> = Vec::new();
        let mut live = HashSet::new();
        let mut next = 0;
        let mut now = start;
        for step in steps {
            if !matches!(step, Step::Insert(_) | Step::Cancel(_)) {
                timers.check();
            }
            match step {
                Step::Insert(when) => {
                    timers.reserve(when, &|slot: SlotRef| live.contains(&slot.index)).unwrap();
                    timers.insert(when, SlotRef { index: next, stamp: 0 });
                    live.insert(next);
                    let at = model.partition_point(|&(other, _)| other <= when);
                    model.insert(at, (when, next));
                    next += 1;
                }
                Step::Cancel(at) if !model.is_empty() => {
                    let (_, index) = model.remove(at % model.len());
                    live.remove(&index);
                    timers.note_cancelled();
                }
                Step::Cancel(_) => {}
                Step::CancelMost(n) => {
                    let all = std::mem::take(&mut model).into_iter().enumerate();
                    let (kept, cancelled): (Vec<_>, Vec<_>) = all.partition(|(at, _)| at % n == 0);
                    model = kept.into_iter().map(|(_, timer)| timer).collect();
                    for (_, (_, index)) in cancelled {
                        live.remove(&index);
                        timers.note_cancelled();
                    }
                }
                Step::Take(time) => {
                    now = now.max(time);
                    let due = model.partition_point(|&(when, _)| when <= now);
                    for (when, index) in model.drain(..due) {
                        let next = timers.pop_due(now, &|slot: SlotRef| live.contains(&slot.index));
                        prop_assert_eq!(next, Some((when, SlotRef { index, stamp: 0 })));
                        live.remove(&index);
                    }
                    let next = timers.pop_due(now, &|slot: SlotRef| live.contains(&slot.index));
                    prop_assert_eq!(next, None);
                }
            }
            let first = model.first().map(|&(when, _)| when);
            let bound = timers.earliest_bound();
            prop_assert!(bound.is_none() == first.is_none());
            prop_assert!(bound <= first || first.is_some_and(|first| first <= now));
            prop_assert_eq!(timers.earliest(&|slot: SlotRef| live.contains(&slot.index)), first);
            prop_assert_eq!(timers.is_empty(), model.is_empty());
        }
    }
}

impl Timers {
    /// That everything is where it belongs, and counted.
    fn check(&self) {
        let mut stored = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            stored += bucket.len();
            for entry in self.chunks.iter(bucket) {
                assert!(entry.when > self.base && entry.when >= bucket.min());
                assert_eq!(Location::of(entry.when, self.base).index(), index);
            }
        }
        assert_eq!(stored, self.stored);
        let taken_out = self.past.len() + self.due.len() - self.popped + self.equal.len();
        assert_eq!(self.live + self.dead, stored + taken_out);
    }
}

#[test]
fn s11_the_earliest_is_cheap_to_ask_for_after_cancels() {
    const COUNT: u32 = 100_000;
    let looked_at = Cell::new(0u64);
    let live = RefCell::new(BTreeSet::new());
    let deadline = |index: u32| (1 << 40) + u64::from(index.wrapping_mul(2_654_435_761) >> 8);
    let slots = |slot: SlotRef| {
        looked_at.set(looked_at.get() + 1);
        live.borrow().contains(&(deadline(slot.index), slot.index))
    };
    let mut timers = Timers::new(0);
    let insert = |timers: &mut Timers, index| {
        timers.reserve(deadline(index), &slots).unwrap();
        timers.insert(deadline(index), SlotRef { index, stamp: 0 });
        live.borrow_mut().insert((deadline(index), index));
    };
    (0..COUNT).for_each(|index| insert(&mut timers, index));
    // Each cancel is of the earliest; now and then another one comes, earlier or later than what is
    // kept.
    for index in COUNT..2 * COUNT {
        if index % 3 == 0 {
            insert(&mut timers, index);
        }
        if index > COUNT + COUNT / 2 && index % 1000 == 0 {
            // Time goes on, and opens the bucket.
            let now = live.borrow().first().unwrap().0 + 1000;
            while let Some((when, slot)) = timers.pop_due(now, &slots) {
                let first = live.borrow_mut().pop_first();
                assert_eq!(first, Some((when, slot.index)));
            }
        }
        let earliest = live.borrow_mut().pop_first().unwrap();
        timers.note_cancelled();
        assert_eq!(
            timers.earliest(&slots),
            live.borrow().first().map(|&(when, _)| when),
            "{index}, after {earliest:?}"
        );
    }
    assert!(looked_at.get() < 200 * u64::from(COUNT), "{} for {COUNT} cancels", looked_at.get());
}

#[test]
fn s08_what_has_been_taken_out_goes_before_what_was_scheduled_since() {
    // Few are sorted, many with one deadline are kept as they are.
    for count in [3, 300] {
        let mut timers = Timers::new(0);
        let insert = |timers: &mut Timers, when, index| {
            timers.reserve(when, &|_: SlotRef| true).unwrap();
            timers.insert(when, SlotRef { index, stamp: 0 });
        };
        (0..count).for_each(|index| insert(&mut timers, 1000, index));
        let mut taken = Vec::new();
        while let Some((_, slot)) = timers.pop_due(1000, &|_: SlotRef| true) {
            taken.push(slot.index);
            if slot.index == 0 {
                insert(&mut timers, 1000, count);
                insert(&mut timers, 999, count + 1);
            }
        }
        let expected: Vec<u32> = [0, count + 1].into_iter().chain(1..=count).collect();
        assert_eq!(taken, expected);
    }
}

#[test]
fn s08_many_at_once_leave_in_order() {
    let mut timers = Timers::new(0);
    let deadline = |n: u32| u64::from(n.wrapping_mul(2_654_435_761) >> 12);
    for index in 0..50_000 {
        timers.reserve(deadline(index), &|_: SlotRef| true).unwrap();
        timers.insert(deadline(index), SlotRef { index, stamp: 0 });
    }
    let mut expected: Vec<u32> = (0..50_000).collect();
    expected.sort_by_key(|&index| deadline(index));
    let mut taken = Vec::new();
    for now in [0, 1, 77, 5_000, 70_000, 1 << 20] {
        while let Some((when, slot)) = timers.pop_due(now, &|_: SlotRef| true) {
            assert!(when <= now);
            taken.push(slot.index);
        }
    }
    assert_eq!(taken, expected);
}

#[test]
fn s31_taking_timers_out_needs_no_memory() {
    for count in [1, 10, 100, 1000, 10_000] {
        let start = 1 << 36;
        let mut timers = Timers::new(0);
        for index in 0..count {
            // At all distances from the start of the bucket, so that it is opened to all the levels
            // below.
            let when = start + (1 << (index % 36)) + u64::from(index);
            timers.reserve(when, &|_: SlotRef| true).unwrap();
            timers.insert(when, SlotRef { index, stamp: 0 });
        }
        let (chunks, due) = (timers.chunks.len(), timers.due.capacity());
        let mut taken = 0;
        for step in 0..2000 {
            while timers.pop_due(start + (step << 26), &|_: SlotRef| true).is_some() {
                taken += 1;
            }
        }
        assert_eq!(taken, count);
        assert_eq!(
            (timers.chunks.len(), timers.due.capacity()),
            (chunks, due),
            "more memory was taken"
        );
    }
}

#[test]
fn s11_cancelling_for_ever_needs_no_memory_for_ever() {
    let mut timers = Timers::new(0);
    for n in 0..1_000_000u32 {
        let when = 1_000_000_000 + u64::from(n) * 4001;
        timers.reserve(when, &|slot: SlotRef| slot.index >= n).unwrap();
        timers.insert(when, SlotRef { index: n, stamp: 0 });
        timers.note_cancelled();
    }
    assert!(timers.chunks.len() < 300, "{}", timers.chunks.len());
}
