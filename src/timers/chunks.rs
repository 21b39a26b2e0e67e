//! Memory for the buckets of the timer queue: chunks of a few entries, which pass from bucket to bucket.

use super::Entry;
use crate::error::{Error, Result};
use crate::handle::SlotRef;
use crate::memory::prefetch;

/// How many entries a chunk holds: with what links it, four cache lines of 64 bytes.
pub(super) const ENTRIES: usize = 15;

#[derive(Debug)]
struct Chunk {
    entries: [Entry; ENTRIES],
    filled: u32,
    next: u32,
}

/// No chunk.
const NONE: u32 = u32::MAX;

/// No entry: later than any.
const NO_ENTRY: Entry = Entry { when: u64::MAX, slot: SlotRef { index: 0, stamp: 0 } };

/// A list of chunks, whose entries stand in the order in which they were pushed.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    head: u32,
    tail: u32,
    len: usize,
    /// The earliest entry, the first of those.
    first: Entry,
}

impl Bucket {
    pub(super) const EMPTY: Bucket = Bucket { head: NONE, tail: NONE, len: 0, first: NO_ENTRY };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The earliest entry.
    #[inline]
    pub(super) fn first(&self) -> Entry {
        self.first
    }

    /// The earliest deadline.
    #[inline]
    pub(super) fn min(&self) -> u64 {
        self.first.when
    }
}

/// All chunks, those in buckets and those that are free.
#[derive(Debug)]
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
    free: u32,
}

/// The entries of one chunk, in order.
pub(super) struct Popped {
    entries: [Entry; ENTRIES],
    filled: usize,
}

impl Popped {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries[..self.filled]
    }
}

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks { chunks: Vec::new(), free: NONE }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Makes sure that there are `count` chunks, free or not.
    #[inline]
    pub(super) fn reserve(&mut self, count: usize) -> Result<()> {
        if self.chunks.len() < count { self.grow(count) } else { Ok(()) }
    }

    #[cold]
    fn grow(&mut self, count: usize) -> Result<()> {
        let missing = count - self.chunks.len();
        self.chunks.try_reserve(missing)?;
        for _ in 0..missing {
            let index = u32::try_from(self.chunks.len()).map_err(|_| Error::NO_MEMORY)?;
            if index == NONE {
                return Err(Error::NO_MEMORY);
            }
            self.chunks.push(Chunk { entries: [NO_ENTRY; ENTRIES], filled: 0, next: NONE });
            self.give(index);
        }
        Ok(())
    }

    /// Appends to a bucket. Takes one free chunk at most.
    #[inline]
    pub(super) fn push(&mut self, bucket: &mut Bucket, entry: Entry) {
        if entry.when < bucket.first.when {
            bucket.first = entry;
        }
        if bucket.tail == NONE || self.chunks[bucket.tail as usize].filled as usize == ENTRIES {
            self.extend(bucket);
        }
        let chunk = &mut self.chunks[bucket.tail as usize];
        chunk.entries[chunk.filled as usize] = entry;
        chunk.filled += 1;
        bucket.len += 1;
    }

    fn extend(&mut self, bucket: &mut Bucket) {
        let index = self.take();
        if bucket.tail == NONE {
            bucket.head = index;
        } else {
            self.chunks[bucket.tail as usize].next = index;
        }
        bucket.tail = index;
    }

    /// Takes the entries of the first chunk out of a bucket that is being emptied, and frees the chunk.
    #[inline]
    pub(super) fn pop(&mut self, bucket: &mut Bucket) -> Option<Popped> {
        let index = bucket.head;
        let chunk = self.chunks.get(index as usize)?;
        prefetch(&self.chunks, chunk.next as usize);
        let popped = Popped { entries: chunk.entries, filled: chunk.filled as usize };
        bucket.head = chunk.next;
        bucket.len -= popped.filled;
        self.give(index);
        Some(popped)
    }

    /// What stands in a bucket, in order.
    pub(super) fn iter<'a>(&'a self, bucket: &Bucket) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let chunks =
            std::iter::successors(self.chunks.get(bucket.head as usize), |chunk| self.chunks.get(chunk.next as usize));
        chunks.flat_map(|chunk| &chunk.entries[..chunk.filled as usize])
    }

    fn take(&mut self) -> u32 {
        let index = self.free;
        let chunk = &mut self.chunks[index as usize];
        self.free = chunk.next;
        chunk.filled = 0;
        chunk.next = NONE;
        index
    }

    fn give(&mut self, index: u32) {
        self.chunks[index as usize].next = self.free;
        self.free = index;
    }
}
