//! Tasks in a forked child: S33.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libc::EOWNERDEAD;
use ringloop::task::yield_now;
use ringloop::{Loop, Outcome};

use super::{both_ways, hold, turn, waiting};
use crate::support::{Watch, Watched};
use crate::trace::{Bomb, HOUR, OnDrop, Trace, errno, panic, virtual_loop};

/// Runs `f` in the child of a fork; returns the wait status of the child.
fn in_child(f: impl FnOnce()) -> i32 {
    // SAFETY: the child only runs checks and leaves by _exit; glibc allows allocation in the child,
    // whatever locks the other threads held.
    match unsafe { libc::fork() } {
        0 => {
            let checked = catch_unwind(AssertUnwindSafe(f));
            // SAFETY: _exit takes any number.
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
        assert!(
            !held.is_finished() && trace.len() == 0,
            "no user code of the loop runs in the child"
        );
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
    // For other threads the loop is asleep: a wake would write to the shared descriptor.
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

/// Forks when it is polled or dropped. It is ready at once.
struct Forks {
    child: Rc<Cell<i32>>,
    in_drop: bool,
    output: Option<OnDrop<&'static str>>,
    _held: OnDrop<&'static str>,
}

impl Forks {
    fn fork(&self) {
        // SAFETY: the child leaves by _exit, as in `in_child`.
        self.child.set(unsafe { libc::fork() });
    }
}

impl Future for Forks {
    type Output = OnDrop<&'static str>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.in_drop {
            self.fork();
        }
        Poll::Ready(self.output.take().unwrap())
    }
}

impl Drop for Forks {
    fn drop(&mut self) {
        if self.in_drop {
            self.fork();
        }
    }
}

/// Runs an iteration that forks, and checks the child: both processes return to this function.
fn check_child(lp: Watched, child: &Cell<i32>, trace: &Trace, expected: &[&str]) {
    let ran = lp.run_once(Duration::ZERO);
    if child.get() == 0 {
        let checked = catch_unwind(AssertUnwindSafe(|| {
            assert_eq!(errno(ran), EOWNERDEAD);
            assert!(lp.in_child().close().is_ok());
            assert_eq!(trace.take(), expected);
        }));
        // SAFETY: _exit takes any number.
        unsafe { libc::_exit(i32::from(checked.is_err())) }
    }
    let mut status = -1;
    // SAFETY: the child is this thread's own, and `status` is a live variable.
    assert_eq!(unsafe { libc::waitpid(child.get(), &mut status, 0) }, child.get());
    assert_eq!((status, ran), (0, Ok(2)), "a check in the child failed");
}

#[test]
fn s33_the_child_of_a_task_that_forks_drops_neither_future_nor_output() {
    for in_drop in [false, true] {
        for lp in both_ways() {
            let (trace, child) = (Trace::new(), Rc::new(Cell::new(-1)));
            let (output, held) = (Some(trace.on_drop("output")), trace.on_drop("future"));
            drop(lp.spawn(Forks { child: Rc::clone(&child), in_drop, output, _held: held }));
            drop(lp.spawn(hold(trace.clone(), "other task")));
            // A Drop that is on the stack continues.
            check_child(lp, &child, &trace, if in_drop { &["future"] } else { &[] });
        }
    }
}

#[test]
fn s33_the_child_of_a_task_that_forks_and_is_pending_or_panics_drops_no_future() {
    for panics in [false, true] {
        for lp in both_ways() {
            let (trace, child) = (Trace::new(), Rc::new(Cell::new(-1)));
            let (held, place) = (trace.on_drop("future"), Rc::clone(&child));
            let join = lp.spawn(async move {
                let _held = &held;
                // SAFETY: the child leaves by _exit, as in `in_child`.
                place.set(unsafe { libc::fork() });
                if panics {
                    panic("after the fork");
                }
                std::future::pending::<()>().await;
            });
            drop(lp.spawn(hold(trace.clone(), "other task")));
            // A panic drops the future before the loop catches the panic.
            check_child(lp, &child, &trace, if panics { &["future"] } else { &[] });
            drop(join);
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
            // SAFETY: the child leaves by _exit, as in `in_child`.
            child.set(unsafe { libc::fork() });
            yield_now().await;
        });
        if child.get() == 0 {
            let checked = catch_unwind(AssertUnwindSafe(|| {
                assert_eq!((errno(ended), trace.len()), (EOWNERDEAD, 0));
                assert!(lp.in_child().close().is_ok());
                // The values that the future borrowed may no longer exist.
                assert_eq!(trace.len(), 0);
            }));
            // SAFETY: _exit takes any number.
            unsafe { libc::_exit(i32::from(checked.is_err())) }
        }
        let mut status = -1;
        // SAFETY: the child is this thread's own, and `status` is a live variable.
        assert_eq!(unsafe { libc::waitpid(child.get(), &mut status, 0) }, child.get());
        assert_eq!((status, ended, trace.take()), (0, Ok(()), vec!["dropped"]));
    }
}

/// The tasks of a loop that the child has closed are forgotten: not ended, and without a loop.
#[test]
fn s33_a_task_is_aborted_and_woken_in_the_child_after_its_loop_is_closed() {
    for lp in both_ways() {
        let trace = Trace::new();
        // The first task has no waker: a waker would keep the part of the loop that threads share.
        let join = lp.spawn(hold(trace.clone(), "dropped")).unwrap();
        let (sender, receiver) = ringloop::task::oneshot::<()>().unwrap();
        let waits = lp.spawn(receiver).unwrap();
        let slept = lp.spawn(ringloop::task::sleep(HOUR)).unwrap();
        turn(&lp);
        let status = in_child(move || {
            assert!(lp.in_child().close().is_ok());
            // Freed memory may be in use again by now.
            let other = Loop::new().unwrap();
            let room: Vec<[u8; 100]> = vec![[0xff; 100]; 100];
            join.abort();
            let woken = catch_unwind(AssertUnwindSafe(|| {
                other.run_until_complete(async { waits.abort() })
            }));
            sender.send(()).unwrap();
            slept.abort();
            assert!(matches!(woken, Ok(Ok(()))) && !join.is_finished() && room.len() == 100);
            drop((join, waits, slept));
            assert_eq!(trace.len(), 0);
        });
        assert_eq!(status, 0, "a check in the child failed");
    }
}

/// Forks when it is dropped.
struct ForksInDrop(Rc<Cell<i32>>);

impl Drop for ForksInDrop {
    fn drop(&mut self) {
        // SAFETY: the child leaves by _exit, as in `in_child`.
        self.0.set(unsafe { libc::fork() });
    }
}

#[test]
fn s33_no_release_hook_runs_in_the_child_of_a_drop_that_forks() {
    for is_task in [true, false] {
        for lp in both_ways() {
            let (trace, child) = (Trace::new(), Rc::new(Cell::new(-1)));
            let forks = ForksInDrop(Rc::clone(&child));
            let handle = if is_task {
                let join = lp.spawn(async move {
                    let _forks = &forks;
                    std::future::pending::<()>().await;
                });
                join.unwrap().handle()
            } else {
                lp.call_later(HOUR, move |_| drop(forks)).unwrap()
            };
            lp.on_release(handle, trace.note("hook")).unwrap();
            lp.call_soon(move |lp| lp.cancel(handle).unwrap()).unwrap();
            let ran = lp.run_once(Duration::ZERO);
            if child.get() == 0 {
                let checked = catch_unwind(AssertUnwindSafe(|| {
                    assert_eq!((errno(ran), trace.take()), (EOWNERDEAD, vec![]));
                    assert!(lp.in_child().close().is_ok());
                    assert_eq!(trace.len(), 0);
                }));
                // SAFETY: _exit takes any number.
                unsafe { libc::_exit(i32::from(checked.is_err())) }
            }
            let mut status = -1;
            // SAFETY: the child is this thread's own, and `status` is a live variable.
            assert_eq!(unsafe { libc::waitpid(child.get(), &mut status, 0) }, child.get());
            assert_eq!((status, trace.take()), (0, vec!["hook"]), "a check in the child failed");
        }
    }
}

/// A release hook forks after a panic in a callback, in a detached task, or in the Drop of a
/// cancelled timer. In the last case, the hook itself forks and panics.
#[test]
fn s33_a_panic_is_not_handled_in_the_child_of_a_hook_that_forks() {
    for (case, is_handled) in (0..4).flat_map(|case| [(case, true), (case, false)]) {
        let lp = virtual_loop();
        let (trace, child) = (Trace::new(), Rc::new(Cell::new(-1)));
        if is_handled {
            let mut note = trace.note("handled");
            lp.set_exception_handler(move |lp, _| note(lp)).unwrap();
        }
        let handle = match case {
            0 => lp.call_soon(|_| panic("in the callback")).unwrap(),
            1 => lp.spawn(async { panic("in the task") }).map(|join| join.handle()).unwrap(),
            _ => {
                let bomb = (case == 2).then(|| Bomb("in the Drop"));
                lp.call_later(HOUR, move |_| drop(bomb)).unwrap()
            }
        };
        let forked = Rc::clone(&child);
        lp.on_release(handle, move |_| {
            // SAFETY: the child leaves by _exit, as in `in_child`.
            forked.set(unsafe { libc::fork() });
            if case == 3 {
                panic("in the hook");
            }
        })
        .unwrap();
        if case > 1 {
            lp.call_soon(move |lp| lp.cancel(handle).unwrap()).unwrap();
        }
        let ran = catch_unwind(AssertUnwindSafe(|| lp.run_once(Duration::ZERO)));
        if child.get() == 0 {
            let checked = catch_unwind(AssertUnwindSafe(|| {
                assert_eq!((errno(ran.unwrap()), trace.take()), (EOWNERDEAD, vec![]));
                assert!(lp.in_child().close().is_ok());
            }));
            // SAFETY: _exit takes any number.
            unsafe { libc::_exit(i32::from(checked.is_err())) }
        }
        let mut status = -1;
        // SAFETY: the child is this thread's own, and `status` is a live variable.
        assert_eq!(unsafe { libc::waitpid(child.get(), &mut status, 0) }, child.get());
        assert_eq!(status, 0, "a check in the child failed: {case}, {is_handled}");
        // Without a handler, only the panic hook gets the panic of the task (S41).
        let is_caught = is_handled || case == 1;
        assert_eq!((ran.is_ok(), trace.len()), (is_caught, usize::from(is_handled)));
    }
}
