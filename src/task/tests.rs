//! Wakers of a task on several threads, checked with loom in every order of their steps. `State`
//! finds uses after the end, and leaks.

use std::future::{Pending, pending};
use std::task::Waker;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::body::{self, JoinHandle, Slotted};
use crate::abi::handle::Handle;
use crate::event_loop::{Loop, Shared};
use crate::pending::posts::{Post, Posts};
use crate::sys::fork::Process;
use crate::sys::memory::TryArc;

/// A loop with one task.
struct Bed<'a> {
    shared: &'a TryArc<Shared>,
    slotted: Slotted<'a, Pending<()>>,
    join: JoinHandle<()>,
}

/// Checks a test bed in every order.
fn check(f: impl Fn(Bed<'_>) + Send + Sync + 'static) {
    loom::model(move || {
        let shared = Shared::new(Process::current().unwrap(), false, None).unwrap();
        let (slotted, join) = body::make(pending(), &shared).unwrap();
        slotted.task.set_slot(Handle::new(0, 1));
        f(Bed { shared: &shared, slotted, join });
    });
}

impl Bed<'_> {
    /// A thread with its own waker.
    fn waker(&self, f: impl FnOnce(Waker) + 'static) -> thread::JoinHandle<()> {
        let waker = self.slotted.task.waker().clone();
        thread::spawn(move || f(waker))
    }

    /// The loop's thread drops its references, then closes the inbox.
    fn end(self, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
        drop((self.slotted, self.join));
        receive(self.shared.inbox.close());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Handles posts as the loop does; returns how often the task was among them.
fn receive(mut posts: Posts<Loop>) -> usize {
    std::iter::from_fn(|| posts.pop()).map(Post::unpack).count()
}

#[test]
fn s27_each_wake_is_followed_by_a_poll_that_sees_what_was_done_before() {
    check(|bed| {
        let done = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let threads = done.clone().map(|done| {
            bed.waker(move |waker| {
                // The wake alone provides the order.
                done.store(true, Ordering::Relaxed);
                waker.wake_by_ref();
            })
        });
        // The task is polled only after a wake: if one were lost, this would never end.
        let mut seen = 0;
        while seen < 2 {
            let count = receive(bed.shared.inbox.take(|_| {}));
            assert!(count <= 1, "it stands in the inbox twice");
            if count == 1 {
                seen = done.iter().filter(|done| done.load(Ordering::Relaxed)).count();
            } else {
                thread::yield_now();
            }
        }
        // The second wake may come after the poll that has seen everything.
        bed.end(threads);
    });
}

#[test]
fn s23_wakes_against_closing_leak_nothing_and_free_once() {
    check(|bed| {
        let threads = [
            bed.waker(|waker| waker.wake()),
            bed.waker(|waker| {
                waker.wake_by_ref();
                waker.wake_by_ref();
            }),
        ];
        receive(bed.shared.inbox.close());
        bed.end(threads);
    });
}

#[test]
fn s23_the_last_of_those_who_refer_to_it_frees_it_when_all_are_done_with_it() {
    check(|bed| {
        let threads = [bed.waker(|waker| drop(waker.clone())), bed.waker(|waker| waker.wake())];
        receive(bed.shared.inbox.take(|_| {}));
        bed.end(threads);
    });
}
