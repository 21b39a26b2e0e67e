//! Memory for the buckets of the timer queue: chunks of 15 entries, which move from bucket to
//! bucket.
//!
//! Appending takes at most one free chunk, and emptying a bucket frees its chunks for others.
//! Chunks are never returned to the allocator before the queue is dropped.

use super::Entry;
use crate::error::{Error, Result};
use crate::pending::slots::{Liveness, SlotRef};
use crate::sys::memory::prefetch;

/// The number of entries in a chunk: with the link, 248 bytes.
pub(super) const ENTRIES: usize = 15;

/// A run of entries. Only the last chunk of a bucket may be incomplete.
#[derive(Debug)]
struct Chunk {
    entries: [Entry; ENTRIES],
    next: u32,
}

const NONE: u32 = u32::MAX;

/// No entry: later than any.
const NO_ENTRY: Entry = Entry { when: u64::MAX, slot: SlotRef { index: 0, stamp: 0 } };

/// A list of chunks, whose entries are in the order of pushing.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    head: u32,
    tail: u32,
    /// The number of chunks, and the free space of the last of them, in entries.
    chunks: u32,
    room: u32,
    /// The earliest entry; of several with its deadline, the first.
    pub(super) first: Entry,
}

impl Bucket {
    pub(super) const EMPTY: Bucket =
        Bucket { head: NONE, tail: NONE, chunks: 0, room: 0, first: NO_ENTRY };

    pub(super) fn len(&self) -> usize {
        self.chunks as usize * ENTRIES - self.room as usize
    }

    #[inline]
    pub(super) fn min(&self) -> u64 {
        self.first.when
    }

    pub(super) fn end(&self) -> Mark {
        Mark { chunk: self.tail, filled: ENTRIES - self.room as usize, len: self.len() }
    }

    fn len_of_head(&self) -> usize {
        if self.chunks == 1 { ENTRIES - self.room as usize } else { ENTRIES }
    }
}

/// A position in a bucket, valid as long as the bucket is only pushed to.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Mark {
    chunk: u32,
    filled: usize,
    len: usize,
}

/// All chunks, in buckets and free.
#[derive(Debug)]
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
    free: u32,
}

pub(super) struct Popped {
    entries: [Entry; ENTRIES],
    len: usize,
}

impl Popped {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries[..self.len]
    }
}

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks { chunks: Vec::new(), free: NONE }
    }
}

impl Default for Bucket {
    fn default() -> Bucket {
        Bucket::EMPTY
    }
}

impl Chunks {
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn reserve(&mut self, count: usize) -> Result<()> {
        let missing = count.saturating_sub(self.chunks.len());
        self.chunks.try_reserve(missing)?;
        for _ in 0..missing {
            let index = u32::try_from(self.chunks.len()).map_err(|_| Error::NO_MEMORY)?;
            if index == NONE {
                return Err(Error::NO_MEMORY);
            }
            self.chunks.push(Chunk { entries: [NO_ENTRY; ENTRIES], next: NONE });
            self.give(index);
        }
        Ok(())
    }

    /// Appends to a bucket. Takes at most one free chunk.
    #[inline]
    pub(super) fn push(&mut self, bucket: &mut Bucket, entry: Entry) {
        if entry.when < bucket.first.when {
            bucket.first = entry;
        }
        if bucket.room == 0 {
            self.extend(bucket);
        }
        self.chunks[bucket.tail as usize].entries[ENTRIES - bucket.room as usize] = entry;
        bucket.room -= 1;
    }

    #[cold]
    fn extend(&mut self, bucket: &mut Bucket) {
        let index = self.take();
        if bucket.tail == NONE {
            bucket.head = index;
        } else {
            self.chunks[bucket.tail as usize].next = index;
        }
        bucket.tail = index;
        bucket.chunks += 1;
        bucket.room = ENTRIES as u32;
    }

    /// Takes the entries of the first chunk of a bucket that is being emptied, and frees the chunk.
    #[inline]
    pub(super) fn pop(&mut self, bucket: &mut Bucket) -> Option<Popped> {
        let index = bucket.head;
        let chunk = self.chunks.get(index as usize)?;
        prefetch(&self.chunks, chunk.next as usize);
        let popped = Popped { entries: chunk.entries, len: bucket.len_of_head() };
        bucket.head = chunk.next;
        bucket.chunks -= 1;
        if bucket.chunks == 0 {
            *bucket = Bucket::EMPTY;
        }
        self.give(index);
        Some(popped)
    }

    /// Removes dead entries from a bucket and closes the gaps. Needs no memory.
    pub(super) fn retain_live(&mut self, bucket: &mut Bucket, slots: &impl Liveness) {
        let mut kept =
            Bucket { head: bucket.head, tail: bucket.head, chunks: 0, room: 0, first: NO_ENTRY };
        // The write position, never ahead of the read position.
        let (mut target, mut filled) = (bucket.head, 0);
        while bucket.chunks > 0 {
            let (index, len) = (bucket.head, bucket.len_of_head());
            let chunk = &self.chunks[index as usize];
            bucket.head = chunk.next;
            bucket.chunks -= 1;
            prefetch(&self.chunks, chunk.next as usize);
            chunk.entries[..len].iter().for_each(|entry| slots.prefetch(entry.slot));
            for at in 0..len {
                let entry = self.chunks[index as usize].entries[at];
                if filled == ENTRIES {
                    kept.tail = target;
                    kept.chunks += 1;
                    target = self.chunks[target as usize].next;
                    filled = 0;
                }
                // Liveness is as good as random, so the code below does not branch on it.
                let is_live = slots.is_live(entry.slot);
                self.chunks[target as usize].entries[filled] = entry;
                filled += usize::from(is_live);
                kept.first =
                    if is_live & (entry.when < kept.first.when) { entry } else { kept.first };
            }
        }
        let mut rest = target;
        if filled > 0 {
            kept.tail = target;
            kept.chunks += 1;
            kept.room = (ENTRIES - filled) as u32;
            rest = std::mem::replace(&mut self.chunks[target as usize].next, NONE);
        } else if kept.chunks > 0 {
            self.chunks[kept.tail as usize].next = NONE;
        }
        while rest != NONE {
            let next = self.chunks[rest as usize].next;
            self.give(rest);
            rest = next;
        }
        *bucket = if kept.chunks > 0 { kept } else { Bucket::EMPTY };
    }

    pub(super) fn iter<'a>(&'a self, bucket: &Bucket) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.iter_from(bucket, Mark { chunk: bucket.head, ..Mark::default() })
    }

    /// The entries of a bucket from a mark on, in order.
    pub(super) fn iter_from<'a>(
        &'a self,
        bucket: &Bucket,
        mark: Mark,
    ) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let chunks = std::iter::successors(self.chunks.get(mark.chunk as usize), |chunk| {
            self.chunks.get(chunk.next as usize)
        });
        chunks.flat_map(|chunk| &chunk.entries).skip(mark.filled).take(bucket.len() - mark.len)
    }

    fn take(&mut self) -> u32 {
        let index = self.free;
        self.free = std::mem::replace(&mut self.chunks[index as usize].next, NONE);
        index
    }

    fn give(&mut self, index: u32) {
        self.chunks[index as usize].next = self.free;
        self.free = index;
    }
}
