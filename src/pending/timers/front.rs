//! The earliest entries of a large bucket whose first one has been cancelled: who asks for the
//! earliest deadline after each cancel does not pay for the whole bucket each time.
//!
//! It promises the earliest live deadline of the one bucket that it keeps entries of, in O(1)
//! amortized, as long as it is told (`forget`) of every change of the bucket but pushes. One in 64
//! of the bucket is kept, so that a bucket of n is gone through once for n / 64 that have died.
//! Inserting, cancelling and taking out do nothing for it: what was pushed since is looked at when
//! it is asked.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Entry;
use super::chunks::{Bucket, Chunks, Mark};
use crate::error::Result;
use crate::pending::slots::Liveness;

/// So many are kept at least, and one in so many of a bucket.
const KEPT: usize = 64;

#[derive(Default, Debug)]
pub(super) struct Front {
    /// The index of the bucket, and the time at which it starts: no other bucket ever has both.
    bucket: Option<(usize, u64)>,
    /// Up to where the bucket has been looked at.
    mark: Mark,
    /// All live entries before this time are kept, and perhaps some at this time.
    bound: u64,
    /// So many of them, twice as many at most.
    count: usize,
    kept: BinaryHeap<Reverse<Entry>>,
}

impl Front {
    /// The bucket has changed otherwise than by pushes.
    pub(super) fn forget(&mut self, index: usize) {
        if self.bucket.is_some_and(|(known, _)| known == index) {
            self.bucket = None;
            self.kept.clear();
        }
    }

    /// The earliest live deadline of a bucket, if it is known.
    pub(super) fn earliest(
        &mut self,
        id: (usize, u64),
        bucket: &Bucket,
        chunks: &Chunks,
        slots: &impl Liveness,
    ) -> Option<u64> {
        if self.bucket != Some(id) {
            return None;
        }
        chunks.iter_from(bucket, self.mark).for_each(|entry| self.push(entry));
        self.mark = bucket.end();
        while let Some(Reverse(first)) = self.kept.peek() {
            if slots.is_live(first.slot) {
                return Some(first.when);
            }
            self.kept.pop();
        }
        None
    }

    /// Keeps the earliest of a bucket, all of whose entries are live.
    pub(super) fn keep(
        &mut self,
        id: (usize, u64),
        bucket: &Bucket,
        chunks: &Chunks,
    ) -> Result<()> {
        self.bucket = None;
        self.kept.clear();
        self.count = KEPT + bucket.len() / KEPT;
        self.kept.try_reserve_exact(2 * self.count)?;
        self.bound = u64::MAX;
        chunks.iter(bucket).for_each(|entry| self.push(entry));
        self.mark = bucket.end();
        self.bucket = Some(id);
        Ok(())
    }

    /// Keeps an entry if it is early enough. There is room for twice the count: then the later half
    /// goes.
    fn push(&mut self, entry: &Entry) {
        if entry.when >= self.bound {
            return;
        }
        self.kept.push(Reverse(*entry));
        if self.kept.len() == 2 * self.count {
            let mut kept = std::mem::take(&mut self.kept).into_vec();
            kept.select_nth_unstable_by_key(self.count - 1, |Reverse(entry)| *entry);
            kept.truncate(self.count);
            self.bound = kept[self.count - 1].0.when;
            self.kept = kept.into();
        }
    }
}
