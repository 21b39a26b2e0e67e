//! What all threads know of a task: whether it stands in its loop's inbox, and how many refer to it.
//!
//! A task is a post of its own: it stands in the inbox at most once, so whoever wakes it from another thread allocates nothing. While it
//! stands there, the inbox is one of those that refer to it. `make loom` checks that no wake is lost, and that the memory is freed
//! once, in every order of the steps.

use crate::sync::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct State(AtomicUsize);

/// It stands in the inbox, or is on its way there or out of it.
const POSTED: usize = 1;
/// One of those that refer to it.
const ONE: usize = 2;

/// Whether one alone refers to it. A post that an inbox has refused leaves `POSTED` behind.
fn is_one(word: usize) -> bool {
    word & !POSTED == ONE
}

impl State {
    /// With one reference.
    pub(super) fn new() -> State {
        State(AtomicUsize::new(ONE))
    }

    pub(super) fn retain(&self) {
        let before = self.0.fetch_add(ONE, Ordering::Relaxed);
        // So many can only have been leaked; one more round and the count would lie.
        assert!(before < usize::MAX / 2, "too many wakers");
    }

    /// Gives a reference up; true if it was the last one.
    pub(super) fn release(&self) -> bool {
        // Who alone has a reference need not tell anybody; nobody else can make one.
        if is_one(self.0.load(Ordering::Acquire)) {
            return true;
        }
        let is_last = is_one(self.0.fetch_sub(ONE, Ordering::Release));
        if is_last {
            // What the others did comes before the end. A fence would do; a thread sanitizer knows none.
            self.0.load(Ordering::Acquire);
        }
        is_last
    }

    /// Begins a post of the task, which the inbox then refers to; false if it stands there already. In that case, too, whoever takes
    /// it from there sees what was done before: it is a change of the word that `taken` reads.
    pub(super) fn begin_post(&self) -> bool {
        let is_new = self.0.fetch_or(POSTED, Ordering::AcqRel) & POSTED == 0;
        if is_new {
            self.retain();
        }
        is_new
    }

    /// The task has come out of the inbox, and can be posted again. What its wakers did before is seen from here on.
    pub(super) fn taken(&self) {
        self.0.fetch_and(!POSTED, Ordering::AcqRel);
    }
}

#[cfg(all(test, loom))]
mod tests {
    use std::ptr::NonNull;

    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::inbox::{Inbox, Link};

    /// A task, as far as its wakers know it. Dropping it twice, or using it afterwards, is found by loom's `Arc` and cell.
    #[repr(C)]
    struct Task {
        link: Link,
        state: State,
        /// What a waker's thread has done for the task before it woke it.
        data: [UnsafeCell<bool>; 2],
        freed: Arc<UnsafeCell<bool>>,
    }

    fn release(task: NonNull<Task>) {
        // SAFETY: a reference is held until here.
        if unsafe { task.as_ref() }.state.release() {
            // SAFETY: it was the last one.
            let task = unsafe { Box::from_raw(task.as_ptr()) };
            task.freed.with_mut(|freed| {
                // SAFETY: loom checks that nobody else has it.
                assert!(!unsafe { freed.replace(true) }, "freed twice");
            });
        }
    }

    fn wake(task: NonNull<Task>, inbox: &Inbox) {
        // SAFETY: a reference is held until here.
        if unsafe { task.as_ref() }.state.begin_post() {
            // SAFETY: it stands in no inbox, and lives until it is taken out.
            let posted = unsafe { inbox.push(task.cast()) };
            if posted.is_none() {
                release(task);
            }
        }
        release(task);
    }

    /// What the loop does with its mail; tells whether the task was woken.
    fn take(inbox: &Inbox) -> bool {
        let mut posts = inbox.take();
        let mut woken = false;
        while let Some(post) = posts.pop() {
            let task = post.into_raw().cast::<Task>();
            // SAFETY: the inbox refers to it.
            unsafe { task.as_ref() }.state.taken();
            release(task);
            woken = true;
        }
        woken
    }

    /// Two threads wake a task, while its loop looks at its mail, ends the task and closes.
    #[test]
    fn s27_no_wake_is_lost_and_the_task_is_freed_once() {
        loom::model(|| {
            let freed = Arc::new(UnsafeCell::new(false));
            let inbox = Arc::new(Inbox::new());
            let task = Box::new(Task {
                link: Link::new(),
                state: State::new(),
                data: [UnsafeCell::new(false), UnsafeCell::new(false)],
                freed: freed.clone(),
            });
            let task = NonNull::from(Box::leak(task)).as_ptr().addr();
            let at = |address: usize| NonNull::new(std::ptr::with_exposed_provenance_mut::<Task>(address)).unwrap();
            // SAFETY: it has not been freed.
            let state = |address| &unsafe { at(address).as_ref() }.state;
            let wakers: Vec<_> = (0..2)
                .map(|number| {
                    state(task).retain();
                    let inbox = inbox.clone();
                    thread::spawn(move || {
                        // SAFETY: loom checks that nobody else has it.
                        unsafe { at(task).as_ref() }.data[number].with_mut(|data| unsafe { *data = true });
                        wake(at(task), &inbox);
                    })
                })
                .collect();
            take(&inbox);
            for waker in wakers {
                waker.join().unwrap();
            }
            // Each wake has been seen, or is there to be seen now.
            take(&inbox);
            for data in 0..2 {
                // SAFETY: loom checks that nobody else writes to it.
                assert!(unsafe { at(task).as_ref() }.data[data].with(|data| unsafe { *data }));
            }
            assert!(!take(&inbox));
            release(at(task));
            // SAFETY: loom checks that nobody else has it.
            assert!(freed.with(|freed| unsafe { *freed }), "leaked");
        });
    }

    /// The poll that follows a wake sees what was done before it: here the loop sees it as soon as it takes the post.
    #[test]
    fn s26_what_was_done_before_a_wake_is_seen_after_it() {
        loom::model(|| {
            let freed = Arc::new(UnsafeCell::new(false));
            let inbox = Arc::new(Inbox::new());
            let done =
                Arc::new([loom::sync::atomic::AtomicBool::new(false), loom::sync::atomic::AtomicBool::new(false)]);
            let task = Box::new(Task {
                link: Link::new(),
                state: State::new(),
                data: [UnsafeCell::new(false), UnsafeCell::new(false)],
                freed: freed.clone(),
            });
            let task = NonNull::from(Box::leak(task)).as_ptr().expose_provenance();
            let at = |address: usize| NonNull::new(std::ptr::with_exposed_provenance_mut::<Task>(address)).unwrap();
            let wakers: Vec<_> = (0..2)
                .map(|number| {
                    // SAFETY: it has not been freed.
                    unsafe { at(task).as_ref() }.state.retain();
                    let (inbox, done) = (inbox.clone(), done.clone());
                    thread::spawn(move || {
                        done[number].store(true, Ordering::Relaxed);
                        wake(at(task), &inbox);
                    })
                })
                .collect();
            // The loop polls after each wake until all is done: then the last wake has been of use.
            let mut seen = 0;
            while seen < 2 {
                if take(&inbox) {
                    seen = done.iter().filter(|done| done.load(Ordering::Relaxed)).count();
                } else {
                    thread::yield_now();
                }
            }
            for waker in wakers {
                waker.join().unwrap();
            }
            take(&inbox);
            release(at(task));
            // SAFETY: loom checks that nobody else has it.
            assert!(freed.with(|freed| unsafe { *freed }), "leaked");
        });
    }

    /// A wake against the closing of the loop: the task is freed once, by whoever is last.
    #[test]
    fn s23_a_wake_against_closing_leaks_nothing() {
        loom::model(|| {
            let freed = Arc::new(UnsafeCell::new(false));
            let inbox = Arc::new(Inbox::new());
            let task = Box::new(Task {
                link: Link::new(),
                state: State::new(),
                data: [UnsafeCell::new(false), UnsafeCell::new(false)],
                freed: freed.clone(),
            });
            let task = NonNull::from(Box::leak(task)).as_ptr().expose_provenance();
            let at = |address: usize| NonNull::new(std::ptr::with_exposed_provenance_mut::<Task>(address)).unwrap();
            // SAFETY: it has not been freed.
            unsafe { at(task).as_ref() }.state.retain();
            let waker = {
                let inbox = inbox.clone();
                thread::spawn(move || wake(at(task), &inbox))
            };
            let mut posts = inbox.close();
            while let Some(post) = posts.pop() {
                let task = post.into_raw().cast::<Task>();
                // SAFETY: the inbox refers to it.
                unsafe { task.as_ref() }.state.taken();
                release(task);
            }
            release(at(task));
            waker.join().unwrap();
            // SAFETY: loom checks that nobody else has it.
            assert!(freed.with(|freed| unsafe { *freed }), "leaked");
        });
    }
}
