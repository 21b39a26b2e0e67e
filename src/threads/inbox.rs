//! The inbox: posts of other threads for a loop, and whether the loop must be woken (S23, S26,
//! S27).
//!
//! The inbox is one word: the address of the last post, with three flags in the lowest bits: the
//! loop sleeps, the latch is set, signals have arrived. Posts are linked into a stack, so a thread
//! that stops half-way hides no post of others. The loop takes all posts at once and reverses them,
//! into the order in which they changed the word.
//!
//! No wakeup is lost. The loop falls asleep by changing the word from 0, which means that there is
//! nothing for it, to `ASLEEP`, in one step. Posting, latching and signalling change the word and
//! clear `ASLEEP` in the same step. All changes of a word have one order. If the post came first,
//! the loop finds a word other than 0 and does not sleep. If the sleep came first, the poster finds
//! `ASLEEP` and wakes the loop. Only one of many posters finds it, so many posts cost one wake. The
//! wake is a write to an eventfd with a poll in the ring, so it also ends a sleep that has not
//! quite begun.
//!
//! Closing replaces the posts by `CLOSED`, which stays: a post is either taken or refused. Sleep
//! and signals continue to work, for the final callbacks of a shutdown. `make loom` checks all this
//! in every order of the steps.
//!
//! `unsafe` is here because the word is an address: the stack behind it belongs to the thread that
//! takes it out, in one step.

use std::ptr;

use super::sync::{AtomicPtr, Ordering};
use crate::pending::chain::{Chain, Element, Linked};

#[derive(Debug)]
pub(crate) struct Inbox<T> {
    /// The last post, if there is one, or `CLOSED`; and the flags below.
    word: AtomicPtr<T>,
}

/// The loop sleeps, or is about to, and has not been woken. There are no posts then.
const ASLEEP: usize = 1;
/// The next sleep must return at once (S27).
const LATCHED: usize = 2;
/// Signals have arrived that the loop has not handled.
const SIGNALLED: usize = 4;

/// In the place of the last post in a closed inbox: an address that no post has.
const CLOSED: usize = 8;

const FLAGS: usize = ASLEEP | LATCHED | SIGNALLED;

/// Whether an inbox with this word is closed.
fn is_closed<T>(word: *mut T) -> bool {
    word.addr() & !FLAGS == CLOSED
}

/// The post in an inbox's word, or null.
fn last_post<T>(word: *mut T) -> *mut T {
    if is_closed(word) { ptr::null_mut() } else { with_flags(word, FLAGS, 0) }
}

fn with_flags<T>(word: *mut T, cleared: usize, set: usize) -> *mut T {
    word.map_addr(|address| address & !cleared | set)
}

fn has_flag<T>(word: *mut T, flag: usize) -> bool {
    word.addr() & flag != 0
}

/// Whether a word has more than the first two flags. A post's address has a bit above `CLOSED`.
#[inline]
fn has_posts<T>(word: *mut T) -> bool {
    word.addr() & !(ASLEEP | LATCHED | CLOSED) != 0
}

impl<T: Linked> Inbox<T> {
    pub(crate) fn new() -> Inbox<T> {
        // `Link` has this alignment.
        const { assert!(align_of::<T>() > FLAGS) };
        Inbox { word: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Adds a post, and returns whether the loop must be woken now; returns the post if the inbox
    /// is closed. Any thread.
    pub(crate) fn push(&self, mut post: Element<T>) -> Result<bool, Element<T>> {
        let must_wake = self.tell(|word| {
            post.put_before(last_post(word));
            with_flags(post.as_ptr(), 0, word.addr() & FLAGS & !ASLEEP)
        });
        let Some(must_wake) = must_wake else { return Err(post) };
        // The inbox owns the post from here on.
        post.into_raw();
        Ok(must_wake)
    }

    /// Makes the current or the next sleep return at once. Returns whether the loop must be woken
    /// for that; None when the inbox is closed. Any thread, and signal handlers.
    pub(crate) fn latch(&self) -> Option<bool> {
        self.tell(|word| with_flags(word, ASLEEP, LATCHED))
    }

    /// Notes that a signal has arrived, or that work completed after closing. Returns whether the
    /// loop must be woken for that. Any thread, signal handlers, also on a closed inbox.
    pub(crate) fn signal(&self) -> bool {
        let signalled = |word| Some(with_flags(word, ASLEEP, SIGNALLED));
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, signalled);
        before.is_ok_and(|word| has_flag(word, ASLEEP))
    }

    /// Changes the word to one without `ASLEEP`, and returns whether it had that; None when the
    /// inbox is closed. The loop's actions before it fell asleep are visible then.
    fn tell(&self, mut to: impl FnMut(*mut T) -> *mut T) -> Option<bool> {
        let to = |word| (!is_closed(word)).then(|| to(word));
        let before = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, to).ok()?;
        Some(has_flag(before, ASLEEP))
    }

    /// Whether there are posts, or signals have arrived. The loop's thread; costs a load.
    #[inline]
    pub(crate) fn has_posts(&self) -> bool {
        has_posts(self.word.load(Ordering::Relaxed))
    }

    /// Whether there are posts, or the latch is set. The loop's thread.
    pub(crate) fn is_wanted(&self) -> bool {
        has_flag(self.word.load(Ordering::Relaxed), LATCHED) || self.has_posts()
    }

    /// Takes all posts, and clears the flag of signals; the latch stays. The loop's thread.
    /// Shows each post to `see`, the last one first.
    pub(crate) fn take(&self, see: impl FnMut(&T)) -> Chain<T> {
        let stays = |word| if is_closed(word) { LATCHED | CLOSED } else { LATCHED };
        self.take_out(|word| has_posts(word).then(|| word.addr() & stays(word)), see)
    }

    /// Takes all posts, and refuses further ones; the flag of signals stays. The loop's thread.
    pub(crate) fn close(&self) -> Chain<T> {
        self.take_out(|word| (!is_closed(word)).then(|| CLOSED | word.addr() & SIGNALLED), |_| {})
    }

    /// Takes all posts and leaves `rest` in the word, unless `rest` is None.
    fn take_out(&self, rest: impl Fn(*mut T) -> Option<usize>, see: impl FnMut(&T)) -> Chain<T> {
        let rest = |word| rest(word).map(ptr::without_provenance_mut);
        match self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, rest) {
            // SAFETY: `push` guarantees that each post links to the previous one, and the exchange
            // has removed them from the inbox.
            Ok(word) => unsafe { Chain::of_stack(last_post(word), see) },
            Err(_) => Chain::NONE,
        }
    }

    /// Whether the loop may sleep now; then `wake_up` must follow. The loop's thread.
    pub(crate) fn fall_asleep(&self) -> bool {
        let is_closed = is_closed(self.word.load(Ordering::Relaxed));
        let awake: *mut T = ptr::without_provenance_mut(if is_closed { CLOSED } else { 0 });
        let asleep = with_flags(awake, 0, ASLEEP);
        match self.word.compare_exchange(awake, asleep, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => true,
            Err(word) => word == asleep,
        }
    }

    /// The loop is awake again, which also clears the latch. Returns whether the loop was woken.
    /// The loop's thread.
    pub(crate) fn wake_up(&self) -> bool {
        let awake =
            |word| has_flag(word, ASLEEP | LATCHED).then(|| with_flags(word, ASLEEP | LATCHED, 0));
        let (Ok(before) | Err(before)) =
            self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, awake);
        has_flag(before, LATCHED) || self.has_posts()
    }
}

#[cfg(all(test, loom))]
mod tests {
    use std::ptr::NonNull;

    use loom::sync::atomic::AtomicBool;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread::{self, JoinHandle};

    use super::*;
    use crate::pending::chain::Link;

    /// A post with its thread and its number.
    struct Note {
        link: Link<Note>,
        thread: usize,
        turn: usize,
    }

    // SAFETY: the link is a field of the note.
    unsafe impl Linked for Note {
        fn link(&self) -> &Link<Note> {
            &self.link
        }
    }

    impl Note {
        fn write(thread: usize, turn: usize) -> Element<Note> {
            let note = Box::new(Note { link: Link::new(), thread, turn });
            // SAFETY: the note is new, and stays in place until `read` frees it.
            unsafe { Element::from_raw(NonNull::from(Box::leak(note))) }
        }

        fn read(note: Element<Note>) -> (usize, usize) {
            // SAFETY: `write` has boxed it, and its owner gives it up.
            let note = unsafe { Box::from_raw(note.into_raw().as_ptr()) };
            (note.thread, note.turn)
        }
    }

    /// An inbox, and a substitute for the eventfd: readable or not.
    struct Bed {
        inbox: Inbox<Note>,
        readable: Mutex<bool>,
        changed: Condvar,
    }

    impl Bed {
        /// Posts a note; false when the inbox is closed.
        fn post(&self, thread: usize, turn: usize) -> bool {
            let posted = self.inbox.push(Note::write(thread, turn));
            self.wake(*posted.as_ref().unwrap_or(&false));
            posted.map_err(Note::read).is_ok()
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

    /// Runs a test in every order of the steps.
    fn model(test: fn(&Arc<Bed>)) {
        loom::model(move || {
            let (readable, changed) = (Mutex::new(false), Condvar::new());
            test(&Arc::new(Bed { inbox: Inbox::new(), readable, changed }));
        });
    }

    fn spawn<R: 'static>(bed: &Arc<Bed>, f: impl FnOnce(&Bed) -> R + 'static) -> JoinHandle<R> {
        let bed = Arc::clone(bed);
        thread::spawn(move || f(&bed))
    }

    fn read(mut posts: Chain<Note>) -> Vec<(usize, usize)> {
        std::iter::from_fn(|| posts.pop()).map(Note::read).collect()
    }

    #[test]
    fn s26_every_post_arrives_once_and_in_order_and_ends_a_sleep() {
        model(|bed| {
            let posters = [(0, 2), (1, 1)].map(|(id, count)| {
                spawn(bed, move |bed| (0..count).for_each(|turn| assert!(bed.post(id, turn))))
            });
            let mut seen = Vec::new();
            while seen.len() < 3 {
                // This would never return if a wakeup were lost.
                assert!(bed.sleep());
                seen.extend(read(bed.inbox.take(|_| {})));
            }
            posters.into_iter().for_each(|poster| poster.join().unwrap());
            assert!(!bed.inbox.is_wanted());
            seen.retain(|note| note.0 == 0);
            assert_eq!(seen, [(0, 0), (0, 1)]);
        });
    }

    #[test]
    fn s27_a_wakeup_ends_this_sleep_or_the_next_beside_posts() {
        model(|bed| {
            let waker = spawn(bed, |bed| bed.wake(bed.inbox.latch().unwrap()));
            let poster = spawn(bed, |bed| assert!(bed.post(0, 0)));
            assert!(bed.sleep());
            let mut seen = read(bed.inbox.take(|_| {}));
            waker.join().unwrap();
            poster.join().unwrap();
            // A wakeup that has not ended that sleep ends this one.
            if seen.is_empty() || bed.inbox.is_wanted() {
                assert!(bed.sleep());
                seen.extend(read(bed.inbox.take(|_| {})));
            }
            assert_eq!(seen, [(0, 0)]);
            assert!(!bed.inbox.is_wanted() && bed.inbox.fall_asleep());
        });
    }

    #[test]
    fn s22_a_signal_ends_a_sleep_after_closing_and_is_not_lost_by_closing() {
        model(|bed| {
            let signaller = spawn(bed, |bed| bed.wake(bed.inbox.signal()));
            assert_eq!(read(bed.inbox.close()), []);
            // This would never return if the signal were lost.
            assert!(bed.sleep() && bed.inbox.has_posts());
            signaller.join().unwrap();
            assert_eq!(read(bed.inbox.take(|_| {})), []);
            assert!(!bed.inbox.is_wanted() && !bed.post(0, 0) && bed.inbox.fall_asleep());
        });
    }

    #[test]
    fn s22_work_that_is_done_against_closing_is_told_once() {
        model(|bed| {
            let told_later = Arc::new(AtomicBool::new(false));
            let tells_later = Arc::clone(&told_later);
            let worker = spawn(bed, move |bed| {
                if !bed.post(0, 0) {
                    tells_later.store(true, Ordering::Relaxed);
                    bed.wake(bed.inbox.signal());
                }
            });
            let is_told = !read(bed.inbox.close()).is_empty();
            if !is_told {
                // This would never return if the signal were lost.
                assert!(bed.sleep());
                assert_eq!(read(bed.inbox.take(|_| {})), []);
                assert!(told_later.load(Ordering::Relaxed));
            }
            worker.join().unwrap();
            assert_ne!(is_told, told_later.load(Ordering::Relaxed));
        });
    }

    #[test]
    fn s23_a_post_against_closing_is_taken_or_refused() {
        model(|bed| {
            let post_two = |bed: &Bed| usize::from(bed.post(0, 0)) + usize::from(bed.post(0, 1));
            let poster = spawn(bed, post_two);
            let seen = read(bed.inbox.take(|_| {})).len() + read(bed.inbox.close()).len();
            assert_eq!(poster.join().unwrap(), seen);
            assert!(!bed.post(1, 0) && bed.inbox.latch().is_none() && !bed.inbox.has_posts());
            assert_eq!((read(bed.inbox.take(|_| {})), read(bed.inbox.close())), (vec![], vec![]));
        });
    }
}
