//! Where other threads leave posts for a loop, and how they know whether it has to be woken (S23,
//! S26, S27).
//!
//! All of it is one word: the address of the post that came last, with the loop's sleep, its latch,
//! and whether signals have come in the three lowest bits. Posts are linked into a stack by
//! compare-and-swap, so that a thread which is stopped half-way hides nobody else's post. The loop
//! takes them all at once and turns them round: then they stand in the order in which the word took
//! them, which is the order of posting for each thread, and for all threads as far as they can
//! tell.
//!
//! `unsafe` lives here because the word is an address: the stack that it leads to belongs to
//! whoever takes it out, in one step.
//!
//! # No wakeup is lost
//!
//! The loop falls asleep by changing the word from 0, which says that there is nothing for it, to
//! `ASLEEP`, in one step. Whoever posts, latches or signals changes the word too, and takes
//! `ASLEEP` out in the same step. The changes of one word have one order, so there are two cases.
//! The post came first: the loop finds the word not 0, and does not sleep. The sleep came first:
//! the poster finds `ASLEEP`, and wakes the loop. The wake itself is a write to an eventfd whose
//! poll stands in the ring, so it also ends a sleep that has not quite begun.
//!
//! Of many posters one finds `ASLEEP`, so many posts cost one wake, and none is sent to a loop that
//! is awake.
//!
//! Closing puts `CLOSED` in the place of the posts, which nothing takes out again: a post is either
//! in what was there, or refused. Sleep and signals go on, for the final callbacks that a shutdown
//! waits for. `make loom` checks all this in every order of the steps.

use std::ptr;

use super::sync::{AtomicPtr, Ordering};
use crate::pending::chain::{Chain, Element, Linked};

#[derive(Debug)]
pub(crate) struct Inbox<T> {
    /// The post that came last, if there is one, or `CLOSED`; and the flags below.
    word: AtomicPtr<T>,
}

/// The loop sleeps, or is about to, and nobody has woken it yet. There are no posts then.
const ASLEEP: usize = 1;
/// The next sleep is to return at once (S27).
const LATCHED: usize = 2;
/// Signals have come that the loop has not looked at.
const SIGNALLED: usize = 4;

/// Stands for the last post of an inbox that takes no more: an address that no post has.
const CLOSED: usize = 8;

/// Whether an inbox with this word takes no more.
fn is_closed<T>(word: *mut T) -> bool {
    word.addr() & !(ASLEEP | LATCHED | SIGNALLED) == CLOSED
}

/// The post in an inbox's word, or null.
fn last_post<T>(word: *mut T) -> *mut T {
    if is_closed(word) {
        return ptr::null_mut();
    }
    word.map_addr(|address| address & !(ASLEEP | LATCHED | SIGNALLED))
}

fn has_flag<T>(word: *mut T, flag: usize) -> bool {
    word.addr() & flag != 0
}

/// The flags in an inbox's word.
fn flags<T>(word: *mut T) -> usize {
    word.addr() & (ASLEEP | LATCHED | SIGNALLED)
}

/// Whether there is anything in a word but the first two flags. A post's address has a bit above
/// `CLOSED`.
#[inline]
fn has_posts<T>(word: *mut T) -> bool {
    word.addr() & !(ASLEEP | LATCHED | CLOSED) != 0
}

impl<T: Linked> Inbox<T> {
    pub(crate) fn new() -> Inbox<T> {
        // The link sees to it.
        const { assert!(align_of::<T>() > (ASLEEP | LATCHED | SIGNALLED)) };
        Inbox { word: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Adds a post, and tells whether the loop must be woken now; it comes back when the inbox is
    /// closed. Any thread.
    pub(crate) fn push(&self, post: Element<T>) -> Result<bool, Element<T>> {
        let must_wake = self.change(|word| {
            post.put_before(last_post(word));
            post.as_ptr().map_addr(|address| address | flags(word) & !ASLEEP)
        });
        match must_wake {
            Some(must_wake) => {
                // It is the inbox's from here on.
                post.into_raw();
                Ok(must_wake)
            }
            None => Err(post),
        }
    }

    /// Makes this sleep or the next one return at once, and tells whether the loop must be woken
    /// for that; None when the inbox is closed. Any thread, and signal handlers.
    pub(crate) fn latch(&self) -> Option<bool> {
        self.change(|word| word.map_addr(|address| address & !ASLEEP | LATCHED))
    }

    /// Says that a signal has come, or that work has been done after closing, and tells whether the
    /// loop must be woken for that. Any thread, signal handlers, and a closed inbox too.
    pub(crate) fn signal(&self) -> bool {
        let signalled = |word: *mut T| word.map_addr(|address| address & !ASLEEP | SIGNALLED);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            match self.word.compare_exchange_weak(
                word,
                signalled(word),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return has_flag(word, ASLEEP),
                Err(other) => word = other,
            }
        }
    }

    /// Changes the word to one without `ASLEEP`, and tells whether it was there; None when the
    /// inbox is closed. What the loop did before it fell asleep is seen then.
    fn change(&self, mut to: impl FnMut(*mut T) -> *mut T) -> Option<bool> {
        let mut word = self.word.load(Ordering::Relaxed);
        while !is_closed(word) {
            match self.word.compare_exchange_weak(
                word,
                to(word),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(has_flag(word, ASLEEP)),
                Err(other) => word = other,
            }
        }
        None
    }

    /// Whether there are posts, or signals have come. The loop's thread, and costs a load.
    #[inline]
    pub(crate) fn has_posts(&self) -> bool {
        has_posts(self.word.load(Ordering::Relaxed))
    }

    /// Whether there are posts, or the latch is set. The loop's thread.
    pub(crate) fn is_wanted(&self) -> bool {
        has_flag(self.word.load(Ordering::Relaxed), LATCHED) || self.has_posts()
    }

    /// Takes all posts, and that signals have come; the latch stays. The loop's thread.
    pub(crate) fn take(&self) -> Chain<T> {
        let stays = |word| if is_closed(word) { LATCHED | CLOSED } else { LATCHED };
        self.take_out(|word| has_posts(word).then(|| word.addr() & stays(word)))
    }

    /// Takes all posts, and lets nobody post any more; that signals have come stays. The loop's
    /// thread.
    pub(crate) fn close(&self) -> Chain<T> {
        self.take_out(|word| (!is_closed(word)).then(|| CLOSED | word.addr() & SIGNALLED))
    }

    /// Takes all posts, unless there is nothing to be left in the place of the word.
    fn take_out(&self, rest: impl Fn(*mut T) -> Option<usize>) -> Chain<T> {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Some(rest) = rest(word).map(ptr::without_provenance_mut) {
            match self.word.compare_exchange_weak(word, rest, Ordering::Acquire, Ordering::Relaxed)
            {
                // SAFETY: `push` has put each post before the one that was there, and the inbox has
                // them no more.
                Ok(_) => return unsafe { Chain::of_stack(last_post(word)) },
                Err(other) => word = other,
            }
        }
        Chain::NONE
    }

    /// Whether the loop may sleep now; then `wake_up` comes next. The loop's thread.
    pub(crate) fn fall_asleep(&self) -> bool {
        let is_closed = is_closed(self.word.load(Ordering::Relaxed));
        let awake: *mut T = ptr::without_provenance_mut(if is_closed { CLOSED } else { 0 });
        let asleep = awake.map_addr(|address| address | ASLEEP);
        match self.word.compare_exchange(awake, asleep, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => true,
            Err(word) => word == asleep,
        }
    }

    /// The loop is awake again, which also ends the latch. Whether somebody wanted it to be. The
    /// loop's thread.
    pub(crate) fn wake_up(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while has_flag(word, ASLEEP | LATCHED) {
            let awake = word.map_addr(|address| address & !(ASLEEP | LATCHED));
            match self.word.compare_exchange_weak(word, awake, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(other) => word = other,
            }
        }
        has_flag(word, LATCHED) || self.has_posts()
    }
}

/// A post that says who posted it, and when.
#[cfg(test)]
mod note {
    use std::ptr::NonNull;

    use crate::pending::chain::{Element, Link, Linked};

    pub(super) struct Note {
        link: Link<Note>,
        thread: usize,
        turn: usize,
    }

    // SAFETY: the link is in it.
    unsafe impl Linked for Note {
        fn link(&self) -> &Link<Note> {
            &self.link
        }
    }

    pub(super) fn write(thread: usize, turn: usize) -> Element<Note> {
        let note = Box::new(Note { link: Link::new(), thread, turn });
        // SAFETY: the note is fresh, and stays where it is until `read` frees it.
        unsafe { Element::from_raw(NonNull::from(Box::leak(note))) }
    }

    pub(super) fn read(note: Element<Note>) -> (usize, usize) {
        // SAFETY: `write` has boxed it, and its owner gives it up.
        let note = unsafe { Box::from_raw(note.into_raw().as_ptr()) };
        (note.thread, note.turn)
    }
}

#[cfg(all(test, not(loom)))]
mod wake_tests {
    use super::*;

    #[test]
    fn s26_of_many_one_finds_the_loop_asleep() {
        for latch_first in [false, true] {
            let inbox = Inbox::new();
            let push = || inbox.push(note::write(0, 0)).ok();
            assert!(inbox.fall_asleep() && inbox.fall_asleep());
            let first = if latch_first { inbox.latch() } else { push() };
            assert_eq!(first, Some(true));
            assert_eq!((push(), inbox.latch(), push()), (Some(false), Some(false), Some(false)));
            assert!(!inbox.fall_asleep() && inbox.wake_up());
            let mut posts = inbox.take();
            while let Some(post) = posts.pop() {
                note::read(post);
            }
            assert!(inbox.fall_asleep());
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::atomic::AtomicBool;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    /// An inbox, and what stands for the eventfd: readable or not.
    struct Bed {
        inbox: Inbox<note::Note>,
        readable: Mutex<bool>,
        changed: Condvar,
    }

    impl Bed {
        fn new() -> Arc<Bed> {
            Arc::new(Bed {
                inbox: Inbox::new(),
                readable: Mutex::new(false),
                changed: Condvar::new(),
            })
        }

        /// Posts a note; false when the inbox is closed.
        fn post(&self, thread: usize, turn: usize) -> bool {
            let posted = self.inbox.push(note::write(thread, turn));
            self.wake(*posted.as_ref().unwrap_or(&false));
            posted.map_err(note::read).is_ok()
        }

        fn wake(&self, is_asleep: bool) {
            if is_asleep {
                *self.readable.lock().unwrap() = true;
                self.changed.notify_one();
            }
        }

        /// Sleeps as a loop does, until the eventfd is readable, and makes it unreadable.
        fn sleep(&self) -> bool {
            if self.inbox.fall_asleep() {
                let mut readable = self.readable.lock().unwrap();
                while !*readable {
                    readable = self.changed.wait(readable).unwrap();
                }
                *readable = false;
            }
            self.inbox.wake_up()
        }
    }

    fn read(mut posts: Chain<note::Note>, seen: &mut Vec<(usize, usize)>) {
        seen.extend(std::iter::from_fn(|| posts.pop()).map(note::read));
    }

    #[test]
    fn s26_every_post_arrives_once_and_in_order_and_ends_a_sleep() {
        loom::model(|| {
            let bed = Bed::new();
            let posters: Vec<_> = [2, 1]
                .into_iter()
                .enumerate()
                .map(|(id, count)| {
                    let bed = Arc::clone(&bed);
                    thread::spawn(move || (0..count).for_each(|turn| assert!(bed.post(id, turn))))
                })
                .collect();
            let mut seen = Vec::new();
            while seen.len() < 3 {
                // It would never return if a wakeup were lost.
                assert!(bed.sleep());
                read(bed.inbox.take(), &mut seen);
            }
            posters.into_iter().for_each(|poster| poster.join().unwrap());
            assert!(!bed.inbox.is_wanted());
            assert_eq!(
                seen.iter().filter(|note| note.0 == 0).map(|note| note.1).collect::<Vec<_>>(),
                [0, 1]
            );
        });
    }

    #[test]
    fn s27_a_wakeup_ends_this_sleep_or_the_next_beside_posts() {
        loom::model(|| {
            let bed = Bed::new();
            let (waker, poster) = (Arc::clone(&bed), Arc::clone(&bed));
            let waker = thread::spawn(move || waker.wake(waker.inbox.latch().unwrap()));
            let poster = thread::spawn(move || assert!(poster.post(0, 0)));
            let mut seen = Vec::new();
            assert!(bed.sleep());
            read(bed.inbox.take(), &mut seen);
            waker.join().unwrap();
            poster.join().unwrap();
            // What has not ended that sleep ends this one.
            if seen.is_empty() || bed.inbox.is_wanted() {
                assert!(bed.sleep());
                read(bed.inbox.take(), &mut seen);
            }
            assert_eq!(seen, [(0, 0)]);
            assert!(!bed.inbox.is_wanted() && bed.inbox.fall_asleep());
        });
    }

    #[test]
    fn s22_a_signal_ends_a_sleep_after_closing_and_is_not_lost_by_closing() {
        loom::model(|| {
            let bed = Bed::new();
            let signaller = Arc::clone(&bed);
            let signaller = thread::spawn(move || signaller.wake(signaller.inbox.signal()));
            assert!(bed.inbox.close().first().is_none());
            // It would never return if the signal were lost.
            assert!(bed.sleep() && bed.inbox.has_posts());
            signaller.join().unwrap();
            assert!(
                bed.inbox.take().first().is_none() && !bed.inbox.is_wanted() && !bed.post(0, 0)
            );
            assert!(bed.inbox.fall_asleep());
        });
    }

    #[test]
    fn s22_work_that_is_done_against_closing_is_told_once() {
        loom::model(|| {
            let bed = Bed::new();
            let told_later = Arc::new(AtomicBool::new(false));
            let worker = {
                let (bed, told_later) = (Arc::clone(&bed), Arc::clone(&told_later));
                thread::spawn(move || {
                    if !bed.post(0, 0) {
                        told_later.store(true, Ordering::Relaxed);
                        bed.wake(bed.inbox.signal());
                    }
                })
            };
            let mut seen = Vec::new();
            read(bed.inbox.close(), &mut seen);
            if seen.is_empty() {
                // It would never return if the signal were lost.
                assert!(
                    bed.sleep()
                        && bed.inbox.take().first().is_none()
                        && told_later.load(Ordering::Relaxed)
                );
            }
            worker.join().unwrap();
            assert_ne!(seen.is_empty(), !told_later.load(Ordering::Relaxed));
        });
    }

    #[test]
    fn s23_a_post_against_closing_is_taken_or_refused() {
        loom::model(|| {
            let bed = Bed::new();
            let poster = {
                let bed = Arc::clone(&bed);
                thread::spawn(move || usize::from(bed.post(0, 0)) + usize::from(bed.post(0, 1)))
            };
            let mut seen = Vec::new();
            read(bed.inbox.take(), &mut seen);
            read(bed.inbox.close(), &mut seen);
            assert_eq!(poster.join().unwrap(), seen.len());
            assert!(!bed.post(1, 0) && bed.inbox.latch().is_none());
            assert!(
                !bed.inbox.has_posts()
                    && bed.inbox.take().first().is_none()
                    && bed.inbox.close().first().is_none()
            );
        });
    }
}
