//! What all threads know of a task: whether it stands in its loop's inbox, and how many refer to
//! it.
//!
//! A task is a post of its own: it stands in the inbox at most once, and the inbox refers to it
//! meanwhile. `make loom` checks that no wake is lost, and that the memory is freed once, in every
//! order of the steps.

use crate::threads::sync::{AtomicU32, Ordering};

#[derive(Debug)]
pub(super) struct State {
    word: AtomicU32,
    /// Each use reads it and the end writes it: loom checks their order, and that there is an end.
    #[cfg(loom)]
    life: loom::sync::Arc<loom::cell::UnsafeCell<()>>,
}

/// It stands in the inbox, or is on its way there or out of it.
const POSTED: u32 = 1;
/// It has, or has had, wakers that are not borrowed from a poll.
const SHARED: u32 = 2;
/// One of those that refer to it.
const ONE: u32 = 4;

/// Whether one alone refers to it. A post that an inbox has refused leaves `POSTED` behind.
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
        // So many can only have been leaked; one more round and the count would lie.
        assert!(before < u32::MAX / 2, "too many wakers");
        before
    }

    /// One more reference, for a waker; true for the first waker that is made. Should several
    /// threads make it at once, within a poll, all of them do so before that returns.
    pub(super) fn share(&self) -> bool {
        self.retain() & SHARED == 0 && self.word().fetch_or(SHARED, Ordering::Relaxed) & SHARED == 0
    }

    /// Whether there has been a waker. For whoever has given up the last reference.
    #[inline]
    pub(super) fn is_shared(&self) -> bool {
        self.word().load(Ordering::Relaxed) & SHARED != 0
    }

    /// Gives a reference up; true if it was the last one: what the others did comes before that.
    #[inline]
    pub(super) fn release(&self) -> bool {
        // Who alone has a reference need not tell anybody; nobody else can make one.
        let is_last = is_one(self.word().load(Ordering::Acquire))
            || is_one(self.word().fetch_sub(ONE, Ordering::AcqRel));
        #[cfg(loom)]
        if is_last {
            self.life.with_mut(|_| ());
        }
        is_last
    }

    /// Begins a post of the task, which the inbox then refers to; false if it stands there already.
    /// In that case, too, whoever takes it from there sees what was done before: it is a change of
    /// the word that `taken` reads.
    pub(super) fn begin_post(&self) -> bool {
        let is_new = self.word().fetch_or(POSTED, Ordering::AcqRel) & POSTED == 0;
        if is_new {
            self.retain();
        }
        is_new
    }

    /// The task has come out of the inbox; what its wakers did before is seen from here on.
    pub(super) fn taken(&self) {
        self.word().fetch_and(!POSTED, Ordering::AcqRel);
    }
}
