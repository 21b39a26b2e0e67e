//! The atomic part of a task: whether it is in its loop's inbox, and the number of references to
//! it.
//!
//! A task is its own post: it is in the inbox at most once, with a reference from there. `make
//! loom` checks that no wake is lost, and that the memory is freed once, in every order of steps.

use crate::threads::sync::{AtomicU32, Ordering};

#[derive(Debug)]
pub(super) struct State {
    word: AtomicU32,
    /// Each use reads it and the end writes it, so that loom checks their order, and that there is
    /// an end.
    #[cfg(loom)]
    life: loom::sync::Arc<loom::cell::UnsafeCell<()>>,
}

/// The task is in the inbox, or on its way there or out of it.
const POSTED: u32 = 1;
/// It has, or has had, wakers that are not borrowed from a poll.
const SHARED: u32 = 2;
/// One reference.
const ONE: u32 = 4;

/// Whether there is exactly one reference. A post that an inbox has refused leaves `POSTED` set.
fn is_one(word: u32) -> bool {
    word & !(POSTED | SHARED) == ONE
}

impl State {
    /// With one reference.
    pub(super) fn new() -> State {
        State {
            word: AtomicU32::new(ONE),
            #[cfg(loom)]
            life: loom::sync::Arc::new(loom::cell::UnsafeCell::new(())),
        }
    }

    #[inline]
    fn word(&self) -> &AtomicU32 {
        #[cfg(loom)]
        self.life.with(|_| ());
        &self.word
    }

    fn retain(&self) -> u32 {
        let before = self.word().fetch_add(ONE, Ordering::Relaxed);
        // So many references can only have leaked; further ones would overflow the count.
        assert!(before < u32::MAX / 2, "too many wakers");
        before
    }

    /// Adds a reference for a waker; true for the first waker. If several threads make it at once,
    /// within a poll, all of them do so before the poll returns.
    pub(super) fn share(&self) -> bool {
        self.retain() & SHARED == 0 && self.word().fetch_or(SHARED, Ordering::Relaxed) & SHARED == 0
    }

    /// Whether there has been a waker. For the holder of the last reference.
    #[inline]
    pub(super) fn is_shared(&self) -> bool {
        self.word().load(Ordering::Relaxed) & SHARED != 0
    }

    /// Drops a reference; true if it was the last one, and then all uses by others happened before.
    #[inline]
    pub(super) fn release(&self) -> bool {
        // The holder of the only reference needs no atomic write, because no one else can add one.
        let is_last = is_one(self.word().load(Ordering::Acquire))
            || is_one(self.word().fetch_sub(ONE, Ordering::AcqRel));
        #[cfg(loom)]
        if is_last {
            self.life.with_mut(|_| ());
        }
        is_last
    }

    /// Begins a post of the task, with a reference for the inbox; false if it is there already. In
    /// both cases, the taker sees all earlier writes, because this changes the word that `taken`
    /// reads.
    pub(super) fn begin_post(&self) -> bool {
        let is_new = self.word().fetch_or(POSTED, Ordering::AcqRel) & POSTED == 0;
        if is_new {
            self.retain();
        }
        is_new
    }

    /// The task has left the inbox; all earlier writes of its wakers are visible from here on.
    pub(super) fn taken(&self) {
        self.word().fetch_and(!POSTED, Ordering::AcqRel);
    }
}
