//! The earliest entries of a large bucket whose first one has been cancelled: who asks for the
//! earliest deadline after each cancel does not pay for the whole bucket each time.
//!
//! One in 64 of the bucket is kept, so that a bucket of n is gone through once for n / 64 that have
//! died: O(1) amortized, O(log n) for what is kept. Who inserts, cancels or takes out timers does
//! nothing for it: what was pushed since is looked at by who asks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Entry;
use super::chunks::{Bucket, Chunks, Mark};
use crate::error::Result;
use crate::pending::slots::{Liveness, SlotRef};

/// So many are kept at least, and one in so many of a bucket.
const KEPT: usize = 64;

/// A deadline and the slot.
type Key = (u64, u32, u32);

#[derive(Debug)]
pub(super) struct Front {
    /// The index of the bucket, and the time at which it starts: no other bucket ever has both.
    bucket: (usize, u64),
    /// Up to where the bucket has been looked at.
    mark: Mark,
    /// All live entries before this time are kept, and perhaps some at this time.
    bound: u64,
    /// So many of them, twice as many at most.
    count: usize,
    kept: BinaryHeap<Reverse<Key>>,
}

impl Front {
    pub(super) fn new() -> Front {
        Front {
            bucket: (usize::MAX, 0),
            mark: Mark::default(),
            bound: 0,
            count: 0,
            kept: BinaryHeap::new(),
        }
    }

    /// The bucket has changed otherwise than by pushes.
    pub(super) fn forget(&mut self, index: usize) {
        if self.bucket.0 == index {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.bucket.0 = usize::MAX;
        self.kept.clear();
    }

    /// The earliest live deadline of a bucket, if it is known.
    pub(super) fn earliest(
        &mut self,
        id: (usize, u64),
        bucket: &Bucket,
        chunks: &Chunks,
        slots: &impl Liveness,
    ) -> Option<u64> {
        if self.bucket != id {
            return None;
        }
        self.look_at_rest(bucket, chunks);
        while let Some(&Reverse((when, index, stamp))) = self.kept.peek() {
            if slots.is_live(SlotRef { index, stamp }) {
                return Some(when);
            }
            self.kept.pop();
        }
        None
    }

    /// Looks at what has been pushed since.
    fn look_at_rest(&mut self, bucket: &Bucket, chunks: &Chunks) {
        chunks.iter_from(bucket, self.mark).for_each(|entry| self.push(entry));
        self.mark = bucket.end();
    }

    /// Keeps the earliest of a bucket, all of whose entries are live.
    pub(super) fn keep(
        &mut self,
        id: (usize, u64),
        bucket: &Bucket,
        chunks: &Chunks,
    ) -> Result<()> {
        self.clear();
        self.count = KEPT + bucket.len() / KEPT;
        self.kept.try_reserve_exact(2 * self.count)?;
        self.bound = u64::MAX;
        chunks.iter(bucket).for_each(|entry| self.push(entry));
        self.mark = bucket.end();
        self.bucket = id;
        Ok(())
    }

    /// Keeps an entry if it is early enough. There is room for twice the count: then the later half
    /// goes.
    fn push(&mut self, entry: &Entry) {
        if entry.when >= self.bound {
            return;
        }
        self.kept.push(Reverse(key(entry)));
        if self.kept.len() == 2 * self.count {
            let mut kept = std::mem::take(&mut self.kept).into_vec();
            let (_, &mut Reverse((last, ..)), _) =
                kept.select_nth_unstable_by_key(self.count - 1, |Reverse(key)| *key);
            kept.truncate(self.count);
            self.bound = last;
            self.kept = kept.into();
        }
    }
}

fn key(entry: &Entry) -> Key {
    (entry.when, entry.slot.index, entry.slot.stamp)
}
