//! The queue agrees with a sorted list, leaves cancelled timers, and needs no memory when timers
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

/// Deadlines and times at all distances, many of them equal, many in the past.
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
    // Occasionally many are cancelled, so that a sweep follows.
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
    /// Checks that every entry is in its place, and counted.
    fn check(&self) {
        let mut stored = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            stored += bucket.len();
            for entry in self.chunks.iter(bucket) {
                assert!(entry.when > self.base && entry.when >= bucket.min());
                assert_eq!(Digit::of(entry.when, self.base).index(), index);
            }
        }
        assert_eq!(stored, self.stored);
        let taken_out = self.past.len() + self.due.len() - self.popped + self.equal.len();
        assert_eq!(self.live + self.dead, stored + taken_out);
    }
}

/// Every slot is live.
fn all(_: SlotRef) -> bool {
    true
}

fn insert(timers: &mut Timers, when: u64, index: u32) {
    timers.reserve(when, &all).unwrap();
    timers.insert(when, SlotRef { index, stamp: 0 });
}

/// Takes out the due timers, and marks them in the slots.
fn pop_all(timers: &mut Timers, now: u64) -> Vec<u32> {
    std::iter::from_fn(|| timers.pop_due(now, &all)).map(|(_, slot)| slot.index).collect()
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
    let add = |timers: &mut Timers, index| {
        timers.reserve(deadline(index), &slots).unwrap();
        timers.insert(deadline(index), SlotRef { index, stamp: 0 });
        live.borrow_mut().insert((deadline(index), index));
    };
    (0..COUNT).for_each(|index| add(&mut timers, index));
    // Each cancel is of the earliest; occasionally another is added, earlier or later than the kept
    // ones.
    for index in COUNT..2 * COUNT {
        if index % 3 == 0 {
            add(&mut timers, index);
        }
        if index > COUNT + COUNT / 2 && index % 1000 == 0 {
            // Time advances and opens the bucket.
            let now = live.borrow().first().unwrap().0 + 1000;
            while let Some((when, slot)) = timers.pop_due(now, &slots) {
                let first = live.borrow_mut().pop_first();
                assert_eq!(first, Some((when, slot.index)));
            }
        }
        live.borrow_mut().pop_first();
        timers.note_cancelled();
        let first = live.borrow().first().map(|&(when, _)| when);
        assert_eq!(timers.earliest(&slots), first, "{index}");
    }
    assert!(looked_at.get() < 200 * u64::from(COUNT), "{} for {COUNT} cancels", looked_at.get());
}

#[test]
fn s08_what_has_been_taken_out_goes_before_what_was_scheduled_since() {
    // A few are sorted, many with one deadline stay in order.
    for count in [3, 300] {
        let mut timers = Timers::new(0);
        (0..count).for_each(|index| insert(&mut timers, 1000, index));
        assert_eq!(timers.pop_due(1000, &all).map(|(_, slot)| slot.index), Some(0));
        insert(&mut timers, 1000, count);
        insert(&mut timers, 999, count + 1);
        let expected: Vec<u32> = [count + 1].into_iter().chain(1..=count).collect();
        assert_eq!(pop_all(&mut timers, 1000), expected);
    }
}

#[test]
fn s08_many_at_once_leave_in_order() {
    let mut timers = Timers::new(0);
    let deadline = |n: u32| u64::from(n.wrapping_mul(2_654_435_761) >> 12);
    let count = if cfg!(miri) { 500 } else { 50_000 };
    let mut expected: Vec<u32> = (0..count).collect();
    expected.iter().for_each(|&index| insert(&mut timers, deadline(index), index));
    expected.sort_by_key(|&index| deadline(index));
    let times = [0, 1, 77, 5_000, 70_000, 1 << 20];
    assert_eq!(times.map(|now| pop_all(&mut timers, now)).concat(), expected);
}

#[test]
fn s31_taking_timers_out_needs_no_memory() {
    for count in [1, 10, 100, 1000, 10_000] {
        let start = 1 << 36;
        let mut timers = Timers::new(0);
        for index in 0..count {
            // At all distances from the start of the bucket, so that opening it fills all levels
            // below.
            insert(&mut timers, start + (1 << (index % 36)) + u64::from(index), index);
        }
        let memory = |timers: &Timers| (timers.chunks.len(), timers.due.capacity());
        let before = memory(&timers);
        let taken: usize =
            (0..2000).map(|step| pop_all(&mut timers, start + (step << 26)).len()).sum();
        assert_eq!((taken, memory(&timers)), (count as usize, before));
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
