//! Lists of the operations and watchers on a descriptor, through their entries: each comes and goes in O(1), and those on one
//! descriptor are found without a look at others (S11, S12).

use std::collections::HashMap;

use super::IndexHash;
use super::operations::Operation;
use crate::error::Result;
use crate::pending::slots::NO_SLOT;

/// A place in a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) next: u32,
    pub(super) previous: u32,
}

impl Default for Link {
    fn default() -> Link {
        Link { next: NO_SLOT, previous: NO_SLOT }
    }
}

/// A list of entries, by their indices.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> List {
        List { first: NO_SLOT, last: NO_SLOT }
    }
}

/// Which of its links an entry stands in a list by.
pub(super) type Which = fn(&mut Operation) -> &mut Link;

impl List {
    pub(super) fn is_empty(self) -> bool {
        self.first == NO_SLOT
    }

    /// Appends an entry that is in no list of the kind.
    pub(super) fn push(&mut self, entries: &mut [Operation], which: Which, index: u32) {
        *which(&mut entries[index as usize]) = Link { next: NO_SLOT, previous: self.last };
        match std::mem::replace(&mut self.last, index) {
            NO_SLOT => self.first = index,
            last => which(&mut entries[last as usize]).next = index,
        }
    }

    /// Takes an entry out of the list that it is in.
    pub(super) fn remove(&mut self, entries: &mut [Operation], which: Which, index: u32) {
        let Link { next, previous } = std::mem::take(which(&mut entries[index as usize]));
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

/// A list for each descriptor that has something on it.
#[derive(Debug, Default)]
pub(super) struct Lists(HashMap<i32, List, IndexHash>);

impl Lists {
    /// Makes sure that the next so many `push` need no memory.
    pub(super) fn reserve(&mut self, count: usize) -> Result<()> {
        Ok(self.0.try_reserve(count)?)
    }

    pub(super) fn push(&mut self, fd: i32, entries: &mut [Operation], which: Which, index: u32) {
        self.0.entry(fd).or_default().push(entries, which, index);
    }

    pub(super) fn remove(&mut self, fd: i32, entries: &mut [Operation], which: Which, index: u32) {
        let Some(list) = self.0.get_mut(&fd) else { return };
        list.remove(entries, which, index);
        if list.is_empty() {
            self.0.remove(&fd);
        }
    }

    /// The last entry on a descriptor, or `NO_SLOT`.
    pub(super) fn last(&self, fd: i32) -> u32 {
        self.0.get(&fd).map_or(NO_SLOT, |list| list.last)
    }
}
