//! Wakers of a task on several threads, checked with loom in every order of their steps. `State`
//! finds uses after the end, and leaks.

use std::future::{Pending, pending};
use std::task::Waker;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::body::{self, Output, Slotted};
use crate::abi::handle::Handle;
use crate::event_loop::{Loop, Shared};
use crate::pending::posts::{Post, Posts};
use crate::sys::fork::Process;
use crate::sys::memory::TryArc;

/// A loop with one task.
struct Bed {
    shared: TryArc<Shared>,
    slotted: Slotted<Pending<()>>,
    output: Output<()>,
}

impl Bed {
    fn new() -> Bed {
        let shared = Shared::new(Process::current().unwrap(), false, None).unwrap();
        let (slotted, output) = body::make(pending(), &shared).unwrap();
        output.set_slot(Handle::new(0, 1));
        Bed { shared, slotted, output }
    }

    /// A thread with a waker of its own.
    fn waker(&self, f: impl FnOnce(Waker) + 'static) -> thread::JoinHandle<()> {
        let waker = self.output.waker().clone();
        thread::spawn(move || f(waker))
    }

    /// The loop's thread gives up its references, then closes the inbox.
    fn end(self, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
        drop((self.slotted, self.output));
        receive(self.shared.inbox.close());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// What the loop does with posts; tells how often the task was among them.
fn receive(mut posts: Posts<Loop>) -> usize {
    std::iter::from_fn(|| posts.pop()).map(Post::unpack).count()
}

#[test]
fn s27_each_wake_is_followed_by_a_poll_that_sees_what_was_done_before() {
    loom::model(|| {
        let bed = Bed::new();
        let done = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let threads = done.clone().map(|done| {
            bed.waker(move |waker| {
                // The order is the wake's.
                done.store(true, Ordering::Relaxed);
                waker.wake_by_ref();
            })
        });
        // The task is polled after a wake alone: if one were lost, this would go on for ever.
        let mut seen = 0;
        while seen < 2 {
            let count = receive(bed.shared.inbox.take());
            assert!(count <= 1, "it stands in the inbox twice");
            if count == 1 {
                seen = done.iter().filter(|done| done.load(Ordering::Relaxed)).count();
            } else {
                thread::yield_now();
            }
        }
        // The second wake may come after the poll that has seen all.
        bed.end(threads);
    });
}

#[test]
fn s23_wakes_against_closing_leak_nothing_and_free_once() {
    loom::model(|| {
        let bed = Bed::new();
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
    loom::model(|| {
        let bed = Bed::new();
        let threads = [bed.waker(|waker| drop(waker.clone())), bed.waker(|waker| waker.wake())];
        receive(bed.shared.inbox.take());
        bed.end(threads);
    });
}
