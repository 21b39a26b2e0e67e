//! Lists of the operations and watchers on a descriptor, through their entries: each comes and goes
//! in O(1), and those on one descriptor are found without a look at others (S11, S12).

use std::collections::HashMap;

use super::Operation;
use crate::error::Result;
use crate::pending::IndexHash;
use crate::pending::slots::NO_SLOT;

/// A place in a list.
#[derive(Clone, Copy, Debug)]
pub(in crate::pending) struct Link {
    pub(in crate::pending) next: u32,
    pub(in crate::pending) previous: u32,
}

impl Default for Link {
    fn default() -> Link {
        Link { next: NO_SLOT, previous: NO_SLOT }
    }
}

/// A list of entries, by their indices.
#[derive(Clone, Copy, Debug)]
pub(in crate::pending) struct List {
    pub(in crate::pending) first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> List {
        List { first: NO_SLOT, last: NO_SLOT }
    }
}

/// Which of its links an entry stands in a list by.
pub(in crate::pending) type Which = fn(&mut Operation) -> &mut Link;

impl List {
    pub(in crate::pending) fn is_empty(self) -> bool {
        self.first == NO_SLOT
    }

    /// Appends an entry that is in no list of the kind.
    pub(in crate::pending) fn push(&mut self, entries: &mut [Operation], which: Which, index: u32) {
        *which(&mut entries[index as usize]) = Link { next: NO_SLOT, previous: self.last };
        match std::mem::replace(&mut self.last, index) {
            NO_SLOT => self.first = index,
            last => which(&mut entries[last as usize]).next = index,
        }
    }

    /// Takes an entry out of the list that it is in.
    pub(in crate::pending) fn remove(
        &mut self,
        entries: &mut [Operation],
        which: Which,
        index: u32,
    ) {
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
pub(in crate::pending) struct Lists(HashMap<i32, List, IndexHash>);

impl Lists {
    /// Makes sure that the next so many `push` need no memory.
    pub(in crate::pending) fn reserve(&mut self, count: usize) -> Result<()> {
        Ok(self.0.try_reserve(count)?)
    }

    pub(in crate::pending) fn push(
        &mut self,
        fd: i32,
        entries: &mut [Operation],
        which: Which,
        index: u32,
    ) {
        self.0.entry(fd).or_default().push(entries, which, index);
    }

    pub(in crate::pending) fn remove(
        &mut self,
        fd: i32,
        entries: &mut [Operation],
        which: Which,
        index: u32,
    ) {
        let Some(list) = self.0.get_mut(&fd) else { return };
        list.remove(entries, which, index);
        if list.is_empty() {
            self.0.remove(&fd);
        }
    }

    /// The last entry on a descriptor, or `NO_SLOT`.
    pub(in crate::pending) fn last(&self, fd: i32) -> u32 {
        self.0.get(&fd).map_or(NO_SLOT, |list| list.last)
    }
}
