//! The timer queue: finds the earliest deadline. It uses no kernel, no clock and no callback.
//!
//! The queue is a radix heap. All deadlines are after `base`, the time up to which everything has
//! been taken out. Buckets are indexed by the highest digit (of six bits) in which a deadline
//! differs from `base`, and by the value of that digit. Time only moves forward, so a bucket never
//! changes its place: when time has passed its end, all of it is due; when time is inside it, due
//! entries are taken out and the rest goes to the buckets of lower digits. Insert is O(1). A timer
//! moves at most once for each digit of its distance (two or three times for seconds), always
//! between sequential runs of memory.
//!
//! Equal deadlines are in one bucket in the order of scheduling, which opening and sorting preserve
//! (S8). Cancelling does not access the queue: the slot's stamp makes the reference dead (O(1),
//! S11). Dead references are dropped when they come up, or swept out before they are twice as many
//! as the live ones.

mod chunks;
mod front;
#[cfg(test)]
mod tests;

use self::chunks::{Bucket, Chunks};
use self::front::Front;
use crate::error::Result;
use crate::pending::slots::{Liveness, SlotRef};

/// A timer in the queue: its deadline and its slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    when: u64,
    slot: SlotRef,
}

/// A timer whose deadline was not after `base` when it was scheduled, and its rank among such
/// timers.
#[derive(Clone, Copy, Debug)]
struct Past {
    entry: Entry,
    order: u64,
}

/// The timer queue.
#[derive(Default, Debug)]
pub(crate) struct Timers {
    base: u64,
    /// `LEVELS * DIGITS` buckets, once there has been a timer.
    buckets: Vec<Bucket>,
    /// A bit for each level that is not empty, and for each bucket of the level.
    filled_levels: u16,
    filled: [u64; LEVELS],
    chunks: Chunks,
    /// The number of entries in the buckets, and the number for which there are chunks.
    stored: usize,
    room: usize,
    /// Sorted once it is being popped, the next one last.
    past: Vec<Past>,
    past_is_sorted: bool,
    past_orders: u64,
    /// Entries taken out of a bucket, in the order of deadlines, and the number of those that have
    /// been popped; at most `SORTED`.
    due: Vec<Entry>,
    popped: usize,
    /// The rest of a bucket of equal deadlines that is being popped.
    equal: Bucket,
    front: Front,
    live: usize,
    dead: usize,
}

/// A level for each digit of a deadline, a bucket for each value of the digit.
const BITS: usize = 6;
const DIGITS: usize = 1 << BITS;
const LEVELS: usize = 64usize.div_ceil(BITS);

/// No sweep while there are fewer dead references than this.
const SWEEP_FROM: usize = 64;

/// A slot is prefetched so many timers before its turn, to hide the memory latency.
const AHEAD: usize = 16;

/// Opening a bucket of at most so many entries prefetches their slots.
const FETCHED: usize = 1024;

/// The search for a second deadline looks at so many entries.
const LOOKED_AT: usize = 64;

/// A bucket of at most so many entries is sorted to give out the due ones; a larger one is first
/// distributed to lower levels. The standard library sorts so many stably without heap memory.
const SORTED: usize = 128;

/// The digit that selects a bucket: its level, and its value.
#[derive(Clone, Copy)]
struct Digit {
    level: usize,
    value: usize,
}

impl Digit {
    /// The digit of `when`, which is not before `base`.
    #[inline]
    fn of(when: u64, base: u64) -> Digit {
        let differing = (when ^ base) | 1;
        let level = (63 - differing.leading_zeros() as usize) / BITS;
        Digit { level, value: (when >> (BITS * level)) as usize % DIGITS }
    }

    #[inline]
    fn index(self) -> usize {
        self.level * DIGITS + self.value
    }

    fn start(self, base: u64) -> u64 {
        let above = u64::MAX.checked_shl((BITS * (self.level + 1)) as u32).unwrap_or(0);
        base & above | (self.value as u64) << (BITS * self.level)
    }

    fn end(self, base: u64) -> u64 {
        self.start(base) | !(u64::MAX << (BITS * self.level))
    }
}

/// The numbers of the bits that are set, the lowest first.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = mask.checked_ilog2().map(|_| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(lowest)
    })
}

impl Timers {
    pub(crate) fn new(base: u64) -> Timers {
        Timers { base, ..Timers::default() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Ensures that the next `insert`, of a timer for `when`, needs no memory, nor any call before
    /// it: a scheduled timer runs even if no more memory is available. This costs up to a chunk for
    /// each bucket, 180 KiB in total. `slots` knows which references are live.
    #[inline]
    pub(crate) fn reserve(&mut self, when: u64, slots: &impl Liveness) -> Result<()> {
        if self.dead > SWEEP_FROM && self.dead > 2 * self.live {
            self.sweep(slots);
        }
        if when <= self.base {
            self.past.try_reserve(1)?;
        }
        let stored = self.stored + self.equal.len() + 1;
        if stored > self.room { self.make_room(stored) } else { Ok(()) }
    }

    #[cold]
    fn make_room(&mut self, stored: usize) -> Result<()> {
        if self.buckets.is_empty() {
            self.set_up()?;
        }
        // Every bucket may end in an incomplete chunk.
        let ends = LEVELS * DIGITS;
        self.chunks.reserve(stored / chunks::ENTRIES + stored.min(ends) + 1)?;
        // The inverse: the number of entries for which the chunks suffice.
        let full = self.chunks.len().checked_sub(ends + 1);
        self.room =
            full.map_or(stored, |full| stored.max(full * chunks::ENTRIES + chunks::ENTRIES - 1));
        Ok(())
    }

    #[cold]
    fn set_up(&mut self) -> Result<()> {
        self.due.try_reserve_exact(SORTED)?;
        self.buckets.try_reserve_exact(LEVELS * DIGITS)?;
        self.buckets.resize(LEVELS * DIGITS, Bucket::EMPTY);
        Ok(())
    }

    /// Queues a slot behind all others with the same deadline. Needs no memory after `reserve`.
    #[inline]
    pub(crate) fn insert(&mut self, when: u64, slot: SlotRef) {
        let entry = Entry { when, slot };
        self.live += 1;
        if when > self.base {
            self.stored += 1;
            self.store(entry);
        } else {
            self.past_orders += 1;
            self.past.push(Past { entry, order: self.past_orders });
            self.past_is_sorted = false;
        }
    }

    #[inline]
    pub(crate) fn note_cancelled(&mut self) {
        self.live -= 1;
        self.dead += 1;
    }

    /// A lower bound of all deadlines: the earliest one, or that of a cancelled timer. None when no
    /// timer is pending. O(1).
    #[inline]
    pub(crate) fn earliest_bound(&self) -> Option<u64> {
        if self.live == 0 {
            return None;
        }
        if self.has_taken_out() {
            return Some(self.base);
        }
        self.lowest().map(|digit| self.buckets[digit.index()].min())
    }

    #[inline]
    fn has_taken_out(&self) -> bool {
        !self.past.is_empty() || self.popped < self.due.len() || self.equal.len() > 0
    }

    /// As `earliest_bound`, but gives the deadline of a cancelled timer only if its bucket is
    /// large. O(1).
    pub(crate) fn earliest_bound_cleaned(&mut self, slots: &impl Liveness) -> Option<u64> {
        while let Some(digit) = self.lowest() {
            let bucket = &self.buckets[digit.index()];
            if bucket.len() > SORTED || slots.is_live(bucket.first.slot) {
                break;
            }
            self.sweep_bucket(digit, slots);
        }
        self.earliest_bound()
    }

    /// Whether a timer is due after `after`, at the latest at `until`. Looks at `LOOKED_AT` entries
    /// at most, the earliest buckets first.
    pub(crate) fn has_between(&self, after: u64, until: u64, slots: &impl Liveness) -> bool {
        let mut left = LOOKED_AT;
        for level in bits(self.filled_levels.into()) {
            for value in bits(self.filled[level]) {
                let bucket = &self.buckets[Digit { level, value }.index()];
                if bucket.min() > until {
                    return false;
                }
                for entry in self.chunks.iter(bucket) {
                    if (after + 1..=until).contains(&entry.when) && slots.is_live(entry.slot) {
                        return true;
                    }
                    left -= 1;
                    if left == 0 {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// The earliest deadline. O(1); O(log n) amortized after the timer that had it was cancelled.
    pub(crate) fn earliest(&mut self, slots: &impl Liveness) -> Option<u64> {
        if self.live == 0 {
            return None;
        }
        if self.has_taken_out() {
            self.sweep_taken_out(slots);
            let past = self.past.iter().map(|past| &past.entry);
            let out = past.chain(&self.due[self.popped..]).chain(self.chunks.iter(&self.equal));
            if let Some(when) = out.map(|entry| entry.when).min() {
                return Some(when);
            }
        }
        while let Some(digit) = self.lowest() {
            let bucket = &self.buckets[digit.index()];
            if slots.is_live(bucket.first.slot) {
                return Some(bucket.min());
            }
            if let Some(when) = self.earliest_of_rest(digit, slots) {
                return Some(when);
            }
        }
        None
    }

    /// The earliest deadline of a bucket whose first timer was cancelled. None: dead entries have
    /// been swept out, and the caller tries again.
    #[cold]
    #[inline(never)]
    fn earliest_of_rest(&mut self, digit: Digit, slots: &impl Liveness) -> Option<u64> {
        let id = (digit.index(), digit.start(self.base));
        let is_large = |timers: &Timers| timers.buckets[id.0].len() > SORTED;
        if is_large(self)
            && let Some(when) = self.front.earliest(id, &self.buckets[id.0], &self.chunks, slots)
        {
            return Some(when);
        }
        self.sweep_bucket(digit, slots);
        if is_large(self) {
            // Without memory, the next query sweeps again.
            let _ = self.front.keep(id, &self.buckets[id.0], &self.chunks);
        }
        None
    }

    /// Takes out the earliest timer that is due at `now`, with its deadline.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: u64, slots: &impl Liveness) -> Option<(u64, SlotRef)> {
        while let Some(Entry { when, slot }) = self.next_due(now, slots) {
            if slots.is_live(slot) {
                self.live -= 1;
                return Some((when, slot));
            }
            self.dead -= 1;
        }
        None
    }

    #[inline]
    fn next_due(&mut self, now: u64, slots: &impl Liveness) -> Option<Entry> {
        while self.popped == self.due.len() {
            let is_past_first = !self.past.is_empty() && self.equal.len() == 0;
            if is_past_first || !self.refill(now, slots) {
                return self.next_past(u64::MAX);
            }
            self.due.iter().take(AHEAD).for_each(|entry| slots.prefetch(entry.slot));
        }
        if !self.past.is_empty()
            && let Some(past) = self.next_past(self.due[self.popped].when)
        {
            return Some(past);
        }
        if let Some(ahead) = self.due.get(self.popped + AHEAD) {
            slots.prefetch(ahead.slot);
        }
        self.popped += 1;
        Some(self.due[self.popped - 1])
    }

    /// The first timer that was past when it was scheduled, if it is due before `limit`. Such
    /// timers are before all in the buckets. Entries that were taken out of buckets are older, so
    /// at equal deadlines they go first.
    #[cold]
    fn next_past(&mut self, limit: u64) -> Option<Entry> {
        if !self.past_is_sorted {
            // The key contains the order, so an unstable sort preserves it; a stable sort would
            // need memory.
            self.past.sort_unstable_by_key(|past| std::cmp::Reverse((past.entry.when, past.order)));
            self.past_is_sorted = true;
        }
        self.past.pop_if(|past| past.entry.when < limit).map(|past| past.entry)
    }

    /// Takes some entries that are due at `now` out of the buckets, in the order of deadlines;
    /// false when none is due. `base` advances, at most to `now`, and never past a deadline that
    /// stays in the buckets. Entries close to the new `base` are stored again at lower levels.
    fn refill(&mut self, now: u64, slots: &impl Liveness) -> bool {
        self.due.clear();
        self.popped = 0;
        if self.equal.len() > 0 {
            self.take_equal();
            return true;
        }
        let Some(digit) = self.lowest() else {
            self.base = self.base.max(now);
            return false;
        };
        let (start, end) = (digit.start(self.base), digit.end(self.base));
        if self.buckets[digit.index()].min() > now {
            // The bucket stays closed while nothing in it is due, so `base` must stay before its
            // start.
            self.base = self.base.max(now.min(start.saturating_sub(1)));
            return false;
        }
        let len = self.buckets[digit.index()].len();
        let mut bucket = self.cut_off(digit);
        if len <= SORTED {
            self.base = end.min(now);
            while let Some(chunk) = self.chunks.pop(&mut bucket) {
                for &entry in chunk.entries() {
                    if entry.when <= self.base {
                        self.due.push(entry);
                    } else {
                        self.store(entry);
                    }
                }
            }
            self.stored -= self.due.len();
            self.due.sort_by_key(|entry| entry.when);
        } else if digit.level == 0 {
            self.base = end;
            self.stored -= len;
            self.equal = bucket;
        } else {
            self.base = start;
            while let Some(chunk) = self.chunks.pop(&mut bucket) {
                for &entry in chunk.entries() {
                    self.store(entry);
                    if len <= FETCHED {
                        slots.prefetch(entry.slot);
                    }
                }
            }
        }
        true
    }

    /// Takes entries out of a bucket of equal deadlines, as many as `due` has space for.
    fn take_equal(&mut self) {
        while self.due.len() + chunks::ENTRIES <= SORTED
            && let Some(chunk) = self.chunks.pop(&mut self.equal)
        {
            self.due.extend_from_slice(chunk.entries());
        }
    }

    #[inline(always)]
    fn store(&mut self, entry: Entry) {
        let digit = Digit::of(entry.when, self.base);
        self.filled_levels |= 1 << digit.level;
        self.filled[digit.level] |= 1 << digit.value;
        self.chunks.push(&mut self.buckets[digit.index()], entry);
    }

    #[inline]
    fn lowest(&self) -> Option<Digit> {
        if self.filled_levels == 0 {
            return None;
        }
        let level = self.filled_levels.trailing_zeros() as usize;
        Some(Digit { level, value: self.filled[level].trailing_zeros() as usize })
    }

    /// Detaches a bucket, to be emptied.
    fn cut_off(&mut self, digit: Digit) -> Bucket {
        self.mark_empty(digit);
        std::mem::replace(&mut self.buckets[digit.index()], Bucket::EMPTY)
    }

    fn mark_empty(&mut self, digit: Digit) {
        self.filled[digit.level] &= !(1 << digit.value);
        if self.filled[digit.level] == 0 {
            self.filled_levels &= !(1 << digit.level);
        }
    }

    #[cold]
    pub(crate) fn sweep(&mut self, slots: &impl Liveness) {
        self.sweep_taken_out(slots);
        for level in 0..LEVELS {
            for value in 0..DIGITS {
                if self.filled[level] & 1 << value != 0 {
                    self.sweep_bucket(Digit { level, value }, slots);
                }
            }
        }
    }

    /// Removes dead entries from the lists outside the buckets.
    fn sweep_taken_out(&mut self, slots: &impl Liveness) {
        let before = self.past.len() + self.due.len() - self.popped + self.equal.len();
        self.past.retain(|past| slots.is_live(past.entry.slot));
        self.due.drain(..self.popped);
        self.popped = 0;
        self.due.retain(|entry| slots.is_live(entry.slot));
        self.chunks.retain_live(&mut self.equal, slots);
        self.dead -= before - self.past.len() - self.due.len() - self.equal.len();
    }

    fn sweep_bucket(&mut self, digit: Digit, slots: &impl Liveness) {
        self.front.forget(digit.index());
        let bucket = &mut self.buckets[digit.index()];
        let before = bucket.len();
        self.chunks.retain_live(bucket, slots);
        let dropped = before - bucket.len();
        self.dead -= dropped;
        self.stored -= dropped;
        if before == dropped {
            self.mark_empty(digit);
        }
    }
}
