//! Tasks in a forked child: S33.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use libc::EOWNERDEAD;
use ringloop::task::yield_now;
use ringloop::{Loop, Outcome};

use super::{both_ways, hold, turn, waiting};
use crate::support::Watch;
use crate::trace::{Trace, errno, virtual_loop};

/// What the child of a fork does; tells its exit status.
fn in_child(f: impl FnOnce()) -> i32 {
    // SAFETY: the child checks something and leaves by _exit; glibc lets it allocate, whatever the other threads held.
    match unsafe { libc::fork() } {
        0 => {
            let checked = catch_unwind(AssertUnwindSafe(f));
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(checked.is_err())) }
        }
        child => {
            let mut status = -1;
            // SAFETY: the child is this thread's own, and `status` is a live variable.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status
        }
    }
}

#[test]
fn s33_a_wake_in_a_forked_child_does_nothing() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (gate, join) = waiting(&lp);
    let held = lp.spawn(hold(trace.clone(), "dropped")).unwrap();
    turn(&lp);
    let waker = gate.waker();
    let status = in_child(|| {
        waker.wake_by_ref();
        drop(waker.clone());
        Waker::wake(waker.clone());
        join.abort();
        held.abort();
        let lp = lp.in_child();
        assert_eq!(errno(lp.run()), EOWNERDEAD);
        assert_eq!(errno(lp.run_until_complete(async {})), EOWNERDEAD);
        assert_eq!(lp.spawn(async {}).err().unwrap().raw_os_error(), EOWNERDEAD);
        assert!(lp.close().is_ok());
        assert!(!held.is_finished() && trace.len() == 0, "no user code of the loop's runs in the child");
        drop((held, join, waker, gate));
        assert_eq!(trace.len(), 0);
    });
    assert_eq!(status, 0, "a check in the child failed");
}

#[test]
fn s33_a_wake_in_a_forked_child_leaves_the_parents_loop_alone() {
    let watch = Watch::begin();
    let lp = Loop::new().unwrap();
    let (gate, join) = waiting(&lp);
    gate.0.is_open.set(true);
    let waker = gate.waker();
    // The loop counts as asleep for others, so that a wake would write to what the processes share.
    assert!(lp.fd().is_ok());
    let wakes = lp.metrics().wakes;
    let status = in_child(|| {
        waker.wake_by_ref();
        Waker::wake(waker.clone());
        assert_eq!(lp.metrics().wakes, wakes);
        std::mem::forget(watch);
    });
    assert_eq!((status, lp.run_once(Duration::ZERO)), (0, Ok(0)));
    assert!(!join.is_finished());
    waker.wake();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(join.is_finished());
}

/// A future that forks while it is polled or dropped: the child leaves the run, and drops nothing of the loop's.
#[test]
fn s33_the_child_of_a_poll_that_forks_runs_nothing_of_the_loops() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Fork {
        ThenPending,
        ThenReady,
        ThenPanic,
        InDrop,
    }
    struct OnDrop<F: Fn()>(F);
    impl<F: Fn()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    for how in [Fork::ThenPending, Fork::ThenReady, Fork::ThenPanic, Fork::InDrop] {
        for lp in both_ways() {
            let trace = Trace::new();
            let child = Rc::new(Cell::new(-1));
            let place = Rc::clone(&child);
            // SAFETY: the child does as `in_child` says.
            let fork = move || place.set(unsafe { libc::fork() });
            let (in_future, output) = (trace.on_drop("future"), trace.on_drop("output"));
            let other = lp.spawn(hold(trace.clone(), "other task"));
            let join = lp.spawn(async move {
                yield_now().await;
                let _in_future = in_future;
                let _forks = (how == Fork::InDrop).then(|| OnDrop(fork.clone()));
                if how != Fork::InDrop {
                    fork();
                }
                match how {
                    Fork::ThenPending => std::future::pending().await,
                    Fork::ThenPanic => crate::trace::panic("after the fork"),
                    _ => {}
                }
                output
            });
            // A panic is the join handle's; what is detached is dropped at the end.
            let join = (how == Fork::ThenPanic).then_some(join.unwrap());
            turn(&lp);
            let ran = lp.run_once(Duration::ZERO);
            if child.get() == 0 {
                let checked = catch_unwind(AssertUnwindSafe(|| {
                    assert_eq!(errno(ran), EOWNERDEAD);
                    assert!(lp.in_child().close().is_ok());
                    // What the poll itself, or the Drop, was about to do is done: it stands on the stack.
                    let expected: &[&str] = match how {
                        Fork::ThenPending => &[],
                        Fork::ThenPanic => &["future", "output"],
                        Fork::ThenReady | Fork::InDrop => &["future"],
                    };
                    assert_eq!(trace.take(), expected, "{how:?}");
                }));
                // SAFETY: ends the process.
                unsafe { libc::_exit(i32::from(checked.is_err())) }
            }
            let mut status = -1;
            // SAFETY: the child is this thread's own, and `status` is a live variable.
            assert_eq!(unsafe { libc::waitpid(child.get(), &mut status, 0) }, child.get());
            assert_eq!((status, ran), (0, Ok(1)), "{how:?}: a check in the child failed");
            drop((join, other, lp));
        }
    }
}

#[test]
fn s33_a_future_that_borrowed_is_never_dropped_in_the_child() {
    for lp in both_ways() {
        let trace = Trace::new();
        let child = Cell::new(-1);
        let ended = lp.run_until_complete(async {
            let _dropped = trace.on_drop("dropped");
            // SAFETY: the child does as `in_child` says.
            child.set(unsafe { libc::fork() });
            yield_now().await;
        });
        if child.get() == 0 {
            let checked = catch_unwind(AssertUnwindSafe(|| {
                assert_eq!((errno(ended), trace.len()), (EOWNERDEAD, 0));
                assert!(lp.in_child().close().is_ok());
                // What it borrowed may be gone by now.
                assert_eq!(trace.len(), 0);
            }));
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(checked.is_err())) }
        }
        let mut status = -1;
        // SAFETY: the child is this thread's own, and `status` is a live variable.
        assert_eq!(unsafe { libc::waitpid(child.get(), &mut status, 0) }, child.get());
        assert_eq!((status, ended, trace.take()), (0, Ok(()), vec!["dropped"]));
    }
}
