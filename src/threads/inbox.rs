//! Where other threads leave posts for a loop, and how they know whether it has to be woken (S23, S26, S27).
//!
//! All of it is one word: the address of the post that came last, with the loop's sleep, its latch, and whether signals have
//! come in the three lowest bits. Posts are linked into a stack by compare-and-swap, so that a thread which is stopped half-way
//! hides nobody else's post. The loop takes them all at once and turns them round: then they stand in the order in which the word took them,
//! which is the order of posting for each thread, and for all threads as far as they can tell.
//!
//! # No wakeup is lost
//!
//! The loop falls asleep by changing the word from 0, which says that there is nothing for it, to `ASLEEP`, in one step.
//! Whoever posts, latches or signals changes the word too, and takes `ASLEEP` out in the same step. The changes of one word have one
//! order, so there are two cases. The post came first: the loop finds the word not 0, and does not sleep. The sleep came
//! first: the poster finds `ASLEEP`, and wakes the loop. The wake itself is a write to an eventfd whose poll stands in the
//! ring, so it also ends a sleep that has not quite begun.
//!
//! Of many posters one finds `ASLEEP`, so many posts cost one wake, and none is sent to a loop that is awake.
//!
//! Closing puts `CLOSED` in the place of the posts, which nothing takes out again: a post is either in what was there, or refused.
//! Sleep and signals go on, for the final callbacks that a shutdown waits for.
//! `make loom` checks all this in every order of the steps.

use std::ptr::{self, NonNull};

use super::sync::{AtomicPtr, Ordering};

/// The links of a post, which stand at its beginning. Aligned so that an address leaves three bits to the inbox.
#[derive(Debug)]
#[repr(align(8))]
pub(crate) struct Link {
    next: *mut Link,
}

impl Link {
    pub(crate) fn new() -> Link {
        Link { next: ptr::null_mut() }
    }
}

/// A post that has come out of an inbox or a list: its owner's alone. It is leaked when it is dropped.
#[derive(Debug)]
pub(crate) struct Post(NonNull<Link>);

/// Posts in the order of posting, each of them with its owner's rights. What is left when it is dropped is leaked.
#[derive(Debug)]
pub(crate) struct Posts {
    first: *mut Link,
    /// The last one, if there is a first.
    last: *mut Link,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    /// The post that came last, if there is one, or `CLOSED`; and the flags below.
    word: AtomicPtr<Link>,
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
fn is_closed(word: *mut Link) -> bool {
    word.addr() & !(ASLEEP | LATCHED | SIGNALLED) == CLOSED
}

/// The post in an inbox's word, or null.
fn last_post(word: *mut Link) -> *mut Link {
    if is_closed(word) {
        return ptr::null_mut();
    }
    word.map_addr(|address| address & !(ASLEEP | LATCHED | SIGNALLED))
}

fn has_flag(word: *mut Link, flag: usize) -> bool {
    word.addr() & flag != 0
}

/// The flags in an inbox's word.
fn flags(word: *mut Link) -> usize {
    word.addr() & (ASLEEP | LATCHED | SIGNALLED)
}

/// Whether there is anything in a word but the first two flags. A post's address has a bit above `CLOSED`.
#[inline]
fn has_posts(word: *mut Link) -> bool {
    word.addr() & !(ASLEEP | LATCHED | CLOSED) != 0
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { word: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Adds a post, and tells whether the loop must be woken now; None when the inbox is closed. Any thread.
    ///
    /// # Safety
    /// The post is the caller's alone, and stays where it is until it comes out of `Posts`; then it is whose it comes to.
    pub(crate) unsafe fn push(&self, post: NonNull<Link>) -> Option<bool> {
        self.change(|word| {
            // SAFETY: until it is linked, the post is the caller's alone.
            unsafe { (*post.as_ptr()).next = last_post(word) };
            post.as_ptr().map_addr(|address| address | flags(word) & !ASLEEP)
        })
    }

    /// Makes this sleep or the next one return at once, and tells whether the loop must be woken for that; None when the
    /// inbox is closed. Any thread, and signal handlers.
    pub(crate) fn latch(&self) -> Option<bool> {
        self.change(|word| word.map_addr(|address| address & !ASLEEP | LATCHED))
    }

    /// Says that a signal has come, or that work has been done after closing, and tells whether the loop must be woken for that. Any
    /// thread, signal handlers, and a closed inbox too.
    pub(crate) fn signal(&self) -> bool {
        let signalled = |word: *mut Link| word.map_addr(|address| address & !ASLEEP | SIGNALLED);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            match self.word.compare_exchange_weak(word, signalled(word), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return has_flag(word, ASLEEP),
                Err(other) => word = other,
            }
        }
    }

    /// Changes the word to one without `ASLEEP`, and tells whether it was there; None when the inbox is closed. What the loop
    /// did before it fell asleep is seen then.
    fn change(&self, mut to: impl FnMut(*mut Link) -> *mut Link) -> Option<bool> {
        let mut word = self.word.load(Ordering::Relaxed);
        while !is_closed(word) {
            match self.word.compare_exchange_weak(word, to(word), Ordering::AcqRel, Ordering::Relaxed) {
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

    /// Whether there is mail, or the latch is set. The loop's thread.
    pub(crate) fn is_wanted(&self) -> bool {
        has_flag(self.word.load(Ordering::Relaxed), LATCHED) || self.has_posts()
    }

    /// Takes all posts, and that signals have come; the latch stays. The loop's thread.
    pub(crate) fn take(&self) -> Posts {
        let mut taken = self.word.load(Ordering::Relaxed);
        while has_posts(taken) {
            let stays = if is_closed(taken) { LATCHED | CLOSED } else { LATCHED };
            let rest = ptr::without_provenance_mut(taken.addr() & stays);
            match self.word.compare_exchange_weak(taken, rest, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Posts::linked_to(last_post(taken)),
                Err(other) => taken = other,
            }
        }
        Posts::NONE
    }

    /// Puts posts that were taken back, before all that have come since. O(n). The loop's thread.
    pub(crate) fn put_back(&self, posts: Posts) {
        if posts.first.is_null() {
            return;
        }
        let before = Posts::linked_to(posts.first).first;
        let mut word = self.word.load(Ordering::Acquire);
        while last_post(word).is_null() {
            let with_flags = before.map_addr(|address| address | flags(word));
            match self.word.compare_exchange_weak(word, with_flags, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
        let mut oldest = last_post(word);
        // SAFETY: what is linked lives, and nobody but the loop reads or changes the links.
        unsafe {
            while !(*oldest).next.is_null() {
                oldest = (*oldest).next;
            }
            (*oldest).next = before;
        }
    }

    /// Takes all posts, and lets nobody post any more; that signals have come stays. The loop's thread.
    pub(crate) fn close(&self) -> Posts {
        let mut word = self.word.load(Ordering::Relaxed);
        while !is_closed(word) {
            let closed = ptr::without_provenance_mut(CLOSED | word.addr() & SIGNALLED);
            match self.word.compare_exchange_weak(word, closed, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Posts::linked_to(last_post(word)),
                Err(other) => word = other,
            }
        }
        Posts::NONE
    }

    /// Whether the loop may sleep now; then `wake_up` comes next. The loop's thread.
    pub(crate) fn fall_asleep(&self) -> bool {
        let is_closed = is_closed(self.word.load(Ordering::Relaxed));
        let awake: *mut Link = ptr::without_provenance_mut(if is_closed { CLOSED } else { 0 });
        let asleep = awake.map_addr(|address| address | ASLEEP);
        match self.word.compare_exchange(awake, asleep, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => true,
            Err(word) => word == asleep,
        }
    }

    /// The loop is awake again, which also ends the latch. Whether somebody wanted it to be. The loop's thread.
    pub(crate) fn wake_up(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while has_flag(word, ASLEEP | LATCHED) {
            let awake = word.map_addr(|address| address & !(ASLEEP | LATCHED));
            match self.word.compare_exchange_weak(word, awake, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => word = other,
            }
        }
        has_flag(word, LATCHED) || self.has_posts()
    }
}

impl Posts {
    pub(crate) const NONE: Posts = Posts { first: ptr::null_mut(), last: ptr::null_mut() };

    /// The posts that end in `last`, as they were linked: the last one first.
    fn linked_to(last: *mut Link) -> Posts {
        let (mut first, mut rest) = (ptr::null_mut(), last);
        while !rest.is_null() {
            // SAFETY: what was linked lives until it is taken out of here, and nobody else has it any more.
            let next = unsafe { std::mem::replace(&mut (*rest).next, first) };
            (first, rest) = (rest, next);
        }
        Posts { first, last }
    }

    /// Puts a post at the end.
    pub(crate) fn push(&mut self, post: Post) {
        let post = post.0.as_ptr();
        // SAFETY: the post is ours alone, and so is what is in here.
        unsafe {
            (*post).next = ptr::null_mut();
            if self.first.is_null() {
                self.first = post;
            } else {
                (*self.last).next = post;
            }
        }
        self.last = post;
    }

    /// How many they are. O(n).
    pub(crate) fn count(&self) -> usize {
        let (mut count, mut at) = (0, self.first);
        // SAFETY: the posts in here are ours.
        while let Some(link) = unsafe { at.as_ref() } {
            (count, at) = (count + 1, link.next);
        }
        count
    }

    /// The first post, which stays there.
    pub(crate) fn first(&self) -> Option<NonNull<Link>> {
        NonNull::new(self.first)
    }

    /// Takes the first post out.
    pub(crate) fn pop(&mut self) -> Option<Post> {
        let first = self.first()?;
        // SAFETY: the posts in here are ours.
        self.first = unsafe { (*first.as_ptr()).next };
        Some(Post(first))
    }
}

impl Post {
    /// Where it is.
    pub(crate) fn at(&self) -> NonNull<Link> {
        self.0
    }

    /// Where it is. Whoever takes it from there owns it.
    pub(crate) fn into_raw(self) -> NonNull<Link> {
        self.0
    }
}

// SAFETY: a post is handed from thread to thread by the swaps, which order what is written to it; what it carries is
// for those who make posts to vouch for.
unsafe impl Send for Inbox {}
// SAFETY: as above.
unsafe impl Sync for Inbox {}

#[cfg(all(test, not(loom)))]
mod wake_tests {
    use super::*;

    fn push(inbox: &Inbox) -> Option<bool> {
        let link = Box::leak(Box::new(Link::new()));
        // SAFETY: the post is fresh, and nobody else has it. It is leaked.
        unsafe { inbox.push(NonNull::from(link)) }
    }

    #[test]
    fn s26_of_many_one_finds_the_loop_asleep() {
        for latch_first in [false, true] {
            let inbox = Inbox::new();
            assert!(inbox.fall_asleep() && inbox.fall_asleep());
            let first = if latch_first { inbox.latch() } else { push(&inbox) };
            assert_eq!(first, Some(true));
            assert_eq!((push(&inbox), inbox.latch(), push(&inbox)), (Some(false), Some(false), Some(false)));
            assert!(!inbox.fall_asleep() && inbox.wake_up());
            inbox.take();
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
        inbox: Inbox,
        readable: Mutex<bool>,
        changed: Condvar,
    }

    /// A post that says who posted it, and when.
    #[repr(C)]
    struct Note {
        link: Link,
        thread: usize,
        turn: usize,
    }

    impl Bed {
        fn new() -> Arc<Bed> {
            Arc::new(Bed { inbox: Inbox::new(), readable: Mutex::new(false), changed: Condvar::new() })
        }

        /// Posts a note; false when the inbox is closed.
        fn post(&self, thread: usize, turn: usize) -> bool {
            let note = Box::into_raw(Box::new(Note { link: Link::new(), thread, turn }));
            // SAFETY: the note is fresh, and its link is at its beginning.
            let posted = unsafe { self.inbox.push(NonNull::new_unchecked(note.cast())) };
            if posted.is_none() {
                // SAFETY: it was refused, so it is still ours.
                drop(unsafe { Box::from_raw(note) });
            }
            self.wake(posted == Some(true));
            posted.is_some()
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

    fn read_one(posts: &mut Posts, seen: &mut Vec<(usize, usize)>) -> bool {
        let Some(post) = posts.pop() else { return false };
        // SAFETY: every post in these tests is a boxed note, and this one is ours now.
        let note = unsafe { Box::from_raw(post.into_raw().as_ptr().cast::<Note>()) };
        seen.push((note.thread, note.turn));
        true
    }

    fn read(mut posts: Posts, seen: &mut Vec<(usize, usize)>) {
        while read_one(&mut posts, seen) {}
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
            assert_eq!(seen.iter().filter(|note| note.0 == 0).map(|note| note.1).collect::<Vec<_>>(), [0, 1]);
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
    fn s26_what_is_put_back_comes_before_what_came_meanwhile() {
        loom::model(|| {
            let bed = Bed::new();
            (0..2).for_each(|turn| assert!(bed.post(0, turn)));
            let poster = Arc::clone(&bed);
            let poster = thread::spawn(move || (2..4).for_each(|turn| assert!(poster.post(0, turn))));
            let mut seen = Vec::new();
            let mut taken = bed.inbox.take();
            read_one(&mut taken, &mut seen);
            bed.inbox.put_back(taken);
            while seen.len() < 4 {
                assert!(bed.sleep());
                read(bed.inbox.take(), &mut seen);
            }
            poster.join().unwrap();
            assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (0, 3)]);
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
            assert!(bed.inbox.take().first().is_none() && !bed.inbox.is_wanted() && !bed.post(0, 0));
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
                assert!(bed.sleep() && bed.inbox.take().first().is_none() && told_later.load(Ordering::Relaxed));
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
                !bed.inbox.has_posts() && bed.inbox.take().first().is_none() && bed.inbox.close().first().is_none()
            );
        });
    }
}
