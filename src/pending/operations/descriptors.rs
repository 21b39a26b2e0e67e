//! Lists of the operations and watchers on each descriptor, linked through their entries (S11,
//! S12).
//!
//! Adding and removing are O(1); finding those on one descriptor does not depend on others.

use std::collections::HashMap;

use super::Operation;
use crate::error::Result;
use crate::pending::IndexHash;
use crate::pending::slots::NO_SLOT;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbours {
    pub(crate) next: u32,
    pub(crate) previous: u32,
}

impl Default for Neighbours {
    fn default() -> Neighbours {
        Neighbours { next: NO_SLOT, previous: NO_SLOT }
    }
}

/// A doubly linked list of entries, by index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryList {
    pub(crate) first: u32,
    last: u32,
}

impl Default for EntryList {
    fn default() -> EntryList {
        EntryList { first: NO_SLOT, last: NO_SLOT }
    }
}

/// Selects the links of an entry that a list uses.
pub(crate) type Which = fn(&mut Operation) -> &mut Neighbours;

impl EntryList {
    pub(crate) fn is_empty(self) -> bool {
        self.first == NO_SLOT
    }

    pub(crate) fn push(&mut self, entries: &mut [Operation], which: Which, index: u32) {
        *which(&mut entries[index as usize]) = Neighbours { next: NO_SLOT, previous: self.last };
        match std::mem::replace(&mut self.last, index) {
            NO_SLOT => self.first = index,
            last => which(&mut entries[last as usize]).next = index,
        }
    }

    pub(crate) fn remove(&mut self, entries: &mut [Operation], which: Which, index: u32) {
        let Neighbours { next, previous } = std::mem::take(which(&mut entries[index as usize]));
        match previous {
            NO_SLOT => self.first = next,
            _ => which(&mut entries[previous as usize]).next = next,
        }
        match next {
            NO_SLOT => self.last = previous,
            _ => which(&mut entries[next as usize]).previous = previous,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct ByDescriptor(HashMap<i32, EntryList, IndexHash>);

impl ByDescriptor {
    pub(crate) fn reserve(&mut self, count: usize) -> Result<()> {
        Ok(self.0.try_reserve(count)?)
    }

    pub(crate) fn push(&mut self, fd: i32, entries: &mut [Operation], which: Which, index: u32) {
        self.0.entry(fd).or_default().push(entries, which, index);
    }

    pub(crate) fn remove(&mut self, fd: i32, entries: &mut [Operation], which: Which, index: u32) {
        let Some(list) = self.0.get_mut(&fd) else { return };
        list.remove(entries, which, index);
        if list.is_empty() {
            self.0.remove(&fd);
        }
    }

    pub(crate) fn last(&self, fd: i32) -> u32 {
        self.0.get(&fd).map_or(NO_SLOT, |list| list.last)
    }
}
