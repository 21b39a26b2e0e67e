//! What all threads know of a task: whether it stands in its loop's inbox, and how many refer to it.
//!
//! A task is a post of its own: it stands in the inbox at most once, so whoever wakes it from another thread allocates nothing. While it
//! stands there, the inbox is one of those that refer to it. `make loom` checks that no wake is lost, and that the memory is freed
//! once, in every order of the steps.

use crate::threads::sync::{AtomicU32, Ordering};

#[derive(Debug)]
pub(super) struct State(AtomicU32);

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
        State(AtomicU32::new(ONE))
    }

    fn retain(&self) -> u32 {
        let before = self.0.fetch_add(ONE, Ordering::Relaxed);
        // So many can only have been leaked; one more round and the count would lie.
        assert!(before < u32::MAX / 2, "too many wakers");
        before
    }

    /// One more reference, for a waker; true for the first waker that is made. Should several threads make it at once, within a poll, all
    /// of them do so before that returns.
    pub(super) fn share(&self) -> bool {
        self.retain() & SHARED == 0 && self.0.fetch_or(SHARED, Ordering::Relaxed) & SHARED == 0
    }

    /// Whether there has been a waker. For whoever has given up the last reference.
    pub(super) fn is_shared(&self) -> bool {
        self.0.load(Ordering::Relaxed) & SHARED != 0
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
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    use super::*;
    use crate::threads::inbox::{Inbox, Link, Posts};

    /// A task, as far as its wakers know it.
    #[repr(C)]
    struct Task {
        link: Link,
        state: State,
        /// What each waker's thread has done for the task before it woke it. The order is the wake's.
        done: [AtomicBool; 2],
        /// Outlives it. Whoever uses the task looks here, so that loom finds uses which are not ordered before the end.
        freed: Arc<UnsafeCell<bool>>,
    }

    /// A loop with one task; each holder is one of those that refer to it.
    struct Bed {
        inbox: Inbox,
        task: NonNull<Task>,
        freed: Arc<UnsafeCell<bool>>,
    }

    // SAFETY: the inbox and the task's state are for all threads.
    unsafe impl Send for Bed {}
    // SAFETY: as above.
    unsafe impl Sync for Bed {}

    /// The task, which somebody refers to.
    fn used<'a>(task: NonNull<Task>) -> &'a Task {
        // SAFETY: the caller refers to it.
        let task = unsafe { task.as_ref() };
        // SAFETY: loom checks that nobody writes to it meanwhile.
        task.freed.with(|freed| assert!(!unsafe { *freed }, "used after it was freed"));
        task
    }

    fn release(task: NonNull<Task>) {
        if used(task).state.release() {
            // SAFETY: it was the last reference.
            let task = unsafe { Box::from_raw(task.as_ptr()) };
            // SAFETY: loom checks that nobody else has it.
            task.freed.with_mut(|freed| assert!(!unsafe { freed.replace(true) }, "freed twice"));
        }
    }

    impl Bed {
        fn new() -> Arc<Bed> {
            let freed = Arc::new(UnsafeCell::new(false));
            let task = Box::new(Task {
                link: Link::new(),
                state: State::new(),
                done: [AtomicBool::new(false), AtomicBool::new(false)],
                freed: freed.clone(),
            });
            Arc::new(Bed { inbox: Inbox::new(), task: NonNull::from(Box::leak(task)), freed })
        }

        /// A thread with a waker of its own.
        fn waker(bed: &Arc<Bed>, f: impl FnOnce(&Bed) + 'static) -> thread::JoinHandle<()> {
            used(bed.task).state.retain();
            let bed = bed.clone();
            thread::spawn(move || {
                f(&bed);
                release(bed.task);
            })
        }

        /// As `wake_by_ref`.
        fn wake(&self) {
            if used(self.task).state.begin_post() {
                // SAFETY: it stands in no inbox, and lives until it is taken out.
                let posted = unsafe { self.inbox.push(self.task.cast()) };
                if posted.is_none() {
                    release(self.task);
                }
            }
        }

        /// What the loop does with its mail; tells how often the task was in it.
        fn receive(&self, mut posts: Posts) -> usize {
            let mut count = 0;
            while let Some(post) = posts.pop() {
                let task = post.into_raw().cast::<Task>();
                used(task).state.taken();
                release(task);
                count += 1;
            }
            count
        }

        /// The loop's own reference goes last.
        fn end(&self, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            // SAFETY: loom checks that nobody else has it.
            assert!(self.freed.with(|freed| unsafe { *freed }), "leaked");
        }
    }

    #[test]
    fn s27_each_wake_is_followed_by_a_poll_that_sees_what_was_done_before() {
        loom::model(|| {
            let bed = Bed::new();
            let threads = [0, 1].map(|number| {
                Bed::waker(&bed, move |bed| {
                    used(bed.task).done[number].store(true, Ordering::Relaxed);
                    bed.wake();
                })
            });
            // The task is polled after a wake alone: if one were lost, this would go on for ever.
            let mut seen = 0;
            while seen < 2 {
                let count = bed.receive(bed.inbox.take());
                assert!(count <= 1, "it stands in the inbox twice");
                if count == 1 {
                    seen = used(bed.task).done.iter().filter(|done| done.load(Ordering::Relaxed)).count();
                } else {
                    thread::yield_now();
                }
            }
            release(bed.task);
            // The second wake may come after the poll that has seen all.
            bed.receive(bed.inbox.close());
            bed.end(threads);
        });
    }

    #[test]
    fn s23_wakes_against_closing_leak_nothing_and_free_once() {
        loom::model(|| {
            let bed = Bed::new();
            let threads = [
                Bed::waker(&bed, |bed| bed.wake()),
                Bed::waker(&bed, |bed| {
                    bed.wake();
                    bed.wake();
                }),
            ];
            bed.receive(bed.inbox.close());
            release(bed.task);
            bed.end(threads);
        });
    }

    #[test]
    fn s23_the_last_of_those_who_refer_to_it_frees_it_when_all_are_done_with_it() {
        loom::model(|| {
            let bed = Bed::new();
            let threads = [
                Bed::waker(&bed, |bed| {
                    used(bed.task).state.retain();
                    release(bed.task);
                }),
                Bed::waker(&bed, |bed| bed.wake()),
            ];
            bed.receive(bed.inbox.take());
            release(bed.task);
            bed.receive(bed.inbox.close());
            bed.end(threads);
        });
    }
}
