//! A cache of the earliest entries of one large bucket whose first entry has been cancelled.
//! Without it, asking for the earliest deadline after each cancel would read the whole bucket each
//! time.
//!
//! Gives the earliest live deadline of that bucket in O(1) amortized, provided that `forget` is
//! called for every change of the bucket except pushes. It keeps one in 64 entries, so a bucket of
//! n is read once for n / 64 cancels. Inserting, cancelling and popping cost nothing here: the next
//! query reads the entries pushed since.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Entry;
use super::chunks::{Bucket, Chunks, Mark};
use crate::error::Result;
use crate::pending::slots::Liveness;

/// The minimum of kept entries, and the share of a bucket that is kept (one in so many).
const KEPT: usize = 64;

#[derive(Default, Debug)]
pub(super) struct Front {
    /// The index and the start time of the bucket; no two buckets have both in common.
    bucket: Option<(usize, u64)>,
    /// The bucket has been read up to here.
    mark: Mark,
    /// All live entries before this time are kept, and perhaps some at this time.
    bound: u64,
    /// The target number of kept entries; at most twice as many are kept.
    count: usize,
    kept: BinaryHeap<Reverse<Entry>>,
}

impl Front {
    /// The bucket has changed other than by pushes.
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

    /// Keeps the earliest entries of a bucket without dead entries.
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

    /// Keeps an entry if it is early enough. At twice the count, the later half is dropped.
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
