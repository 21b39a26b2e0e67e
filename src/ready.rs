//! The ready queue: one FIFO (S6), and the batch that is being run (S5 d, S7).
//!
//! What becomes ready stands in `incoming`. A batch takes all that stands there when it begins; what comes later waits
//! for the next batch. A batch that is broken off keeps its rest, which comes first in the next one (S18). References
//! whose slot has moved on are dead: they are passed over when they come up, and swept out before they outnumber the
//! living.

use std::collections::VecDeque;

use crate::error::Result;
use crate::handle::SlotRef;

#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    incoming: VecDeque<SlotRef>,
    batch: VecDeque<SlotRef>,
    live: usize,
}

/// Dead references are left alone while there are fewer than this.
const SWEEP_FROM: usize = 64;

impl ReadyQueue {
    /// Whether nothing is ready. Dead references do not count.
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Makes sure that the next `push` needs no memory. `is_live` tells whether a reference is.
    #[inline]
    pub(crate) fn reserve(&mut self, is_live: impl Fn(SlotRef) -> bool) -> Result<()> {
        if self.incoming.len() == self.incoming.capacity() {
            if self.incoming.len() > 2 * self.live + SWEEP_FROM {
                self.sweep(is_live);
            }
            self.incoming.try_reserve(1)?;
        }
        Ok(())
    }

    /// Drops the dead.
    #[cold]
    pub(crate) fn sweep(&mut self, is_live: impl Fn(SlotRef) -> bool) {
        self.incoming.retain(|&slot| is_live(slot));
        self.batch.retain(|&slot| is_live(slot));
    }

    /// Appends. Needs no memory after `reserve`.
    #[inline]
    pub(crate) fn push(&mut self, slot: SlotRef) {
        self.incoming.push_back(slot);
        self.live += 1;
    }

    /// One of the references in here has died.
    pub(crate) fn died(&mut self) {
        self.live -= 1;
    }

    /// Begins a batch: the rest of the last one, then all that is ready now.
    pub(crate) fn begin_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            std::mem::swap(&mut self.batch, &mut self.incoming);
        } else {
            self.batch.try_reserve(self.incoming.len())?;
            self.batch.append(&mut self.incoming);
        }
        Ok(())
    }

    /// The next live reference of the batch, which stays in it until `taken` or `died` is said of it.
    #[inline]
    pub(crate) fn next_in_batch(&mut self, is_live: impl Fn(SlotRef) -> bool) -> Option<SlotRef> {
        while let Some(&slot) = self.batch.front() {
            if is_live(slot) {
                return Some(slot);
            }
            self.batch.pop_front();
        }
        None
    }

    /// Takes the reference that `next_in_batch` gave out of the batch.
    #[inline]
    pub(crate) fn take(&mut self) {
        self.batch.pop_front();
        self.live -= 1;
    }
}
