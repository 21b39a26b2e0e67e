//! S14: releases that cause further releases, in chains of any length.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::pin::Pin;
use std::rc::Rc;
use std::thread;

use ringloop::task::{self, JoinHandle, TaskGroup, yield_now};
use ringloop::{Handle, Loop, Outcome, Time};

use crate::trace::{HOUR, Trace, panic, panic_in, payload, virtual_loop};

/// The length of a chain that would overflow any stack if each link used stack space.
const MANY: usize = 100_000;
/// The depth to which releases nest; a deeper release waits until the innermost one returns.
const NESTED: usize = 16;

/// Runs `f` on a stack of 256 KiB.
fn on_a_small_stack(f: fn()) {
    let thread = thread::Builder::new().stack_size(256 << 10).spawn(f);
    thread.unwrap().join().unwrap();
}

/// Makes timers that are never due. The release hook of each timer calls `seen` with its number,
/// cancels the next timer, and calls `seen` again.
fn chain(
    lp: &Loop,
    length: usize,
    seen: impl Fn(usize, bool) + Clone + 'static,
) -> Rc<RefCell<Vec<Handle>>> {
    let handles: Rc<RefCell<Vec<Handle>>> = Rc::default();
    for number in 0..length {
        let timer = lp.call_at(Time::NEVER, |_| unreachable!()).unwrap();
        let (all, seen) = (Rc::clone(&handles), seen.clone());
        lp.on_release(timer, move |lp| {
            seen(number, false);
            let next = all.borrow().get(number + 1).copied();
            if let Some(next) = next {
                lp.cancel(next).unwrap();
                assert!(!lp.is_pending(next), "cancel ends the timer before it returns (S11)");
            }
            seen(number, true);
        })
        .unwrap();
        handles.borrow_mut().push(timer);
    }
    handles
}

#[test]
fn s14_a_chain_of_release_hooks_takes_no_stack() {
    on_a_small_stack(|| {
        for is_inside in [false, true] {
            let lp = virtual_loop();
            let order = Rc::new(RefCell::new(Vec::new()));
            let inner = Rc::clone(&order);
            let begins = move |number: usize, returns: bool| {
                if !returns {
                    inner.borrow_mut().push(number);
                }
            };
            let handles = chain(&lp, MANY, begins);
            let first = handles.borrow()[0];
            let end = move |lp: &Loop, order: &RefCell<Vec<usize>>| {
                lp.cancel(first).unwrap();
                assert!(
                    order.borrow().iter().copied().eq(0..MANY),
                    "each hook runs once, in order, before cancel returns"
                );
            };
            if is_inside {
                let order = Rc::clone(&order);
                lp.call_soon(move |lp| end(lp, &order)).unwrap();
                assert_eq!(lp.run(), Ok(Outcome::Done));
            } else {
                end(&lp, &order);
            }
            assert!(!lp.is_alive());
        }
    });
}

#[test]
fn s14_sixteen_releases_nest_and_the_next_ones_wait() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    let handles = chain(&lp, NESTED + 4, move |number, returns| inner.add((number, returns)));
    let first = handles.borrow()[0];
    lp.cancel(first).unwrap();
    let nested = (0..NESTED).map(|number| (number, false)).chain([(NESTED - 1, true)]);
    let waiting = (NESTED..NESTED + 4).flat_map(|number| [(number, false), (number, true)]);
    let outer = (0..NESTED - 1).rev().map(|number| (number, true));
    assert_eq!(trace.take(), nested.chain(waiting).chain(outer).collect::<Vec<_>>());
}

#[test]
fn s14_a_chain_of_drops_takes_no_stack() {
    struct Next(Handle, Rc<Cell<usize>>, Rc<RefCell<Option<Loop>>>);
    impl Drop for Next {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            if let Some(lp) = &*self.2.borrow() {
                let _ = lp.cancel(self.0);
            }
        }
    }
    on_a_small_stack(|| {
        let (count, shared) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None)));
        let lp = Loop::builder().virtual_time(Time::default()).build().unwrap();
        let mut next = lp.call_soon(|_| ()).unwrap();
        for _ in 0..MANY {
            let cancels = Next(next, Rc::clone(&count), Rc::clone(&shared));
            next = lp.call_at(Time::NEVER, move |_| drop(cancels)).unwrap();
        }
        *shared.borrow_mut() = Some(lp);
        shared.borrow().as_ref().unwrap().cancel(next).unwrap();
        assert_eq!(count.get(), MANY);
        let lp = shared.take().unwrap();
        assert!(!lp.is_alive());
    });
}

#[test]
fn s30_a_panic_in_a_chain_keeps_no_hook_from_its_call() {
    const LENGTH: usize = NESTED + 10;
    for is_handled in [false, true] {
        let lp = virtual_loop();
        let (trace, order) = (Trace::new(), Trace::new());
        let (told, inner) = (trace.clone(), order.clone());
        if is_handled {
            lp.set_exception_handler(move |_, caught| told.add(payload(&*caught))).unwrap();
        }
        // The hooks that have waited for their turn panic when they return.
        let handles = chain(&lp, LENGTH, move |number, returns| match (returns, number) {
            (false, _) => inner.add(number),
            (true, NESTED) => panic("the first that waited"),
            (true, NESTED..) => panic("one behind it"),
            _ => {}
        });
        let first = handles.borrow()[0];
        let caught = panic_in(|| lp.cancel(first).unwrap());
        assert!(order.take().into_iter().eq(0..LENGTH));
        if is_handled {
            assert_eq!((caught, trace.len()), (None, LENGTH - NESTED));
        } else {
            assert_eq!((caught, trace.len()), (Some("the first that waited"), 0));
        }
        assert!(!lp.is_alive());
        lp.close().unwrap();
    }
}

/// A task with a group, whose task has a group of its own, and so on. Each task awaits its group
/// and counts its end.
fn nest(left: usize, ended: Rc<Cell<usize>>) -> Pin<Box<dyn Future<Output = Result<(), ()>>>> {
    struct Ended(Rc<Cell<usize>>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    Box::pin(async move {
        let _ended = Ended(Rc::clone(&ended));
        let group = TaskGroup::new();
        if left > 1 {
            group.spawn(nest(left - 1, ended)).unwrap();
            group.join().await.map(|_| ()).map_err(|_| ())
        } else {
            pending().await
        }
    })
}

/// Nested groups whose tasks have all been polled.
fn nested_groups(lp: &Loop, depth: usize) -> (JoinHandle<Result<(), ()>>, Rc<Cell<usize>>) {
    let ended = Rc::new(Cell::new(0));
    let outermost = lp.spawn(nest(depth, Rc::clone(&ended))).unwrap();
    while lp.run_once(std::time::Duration::ZERO).unwrap() > 0 {}
    (outermost, ended)
}

#[test]
fn s46_nested_groups_take_no_stack_when_they_are_aborted() {
    const DEPTH: usize = 20_000;
    on_a_small_stack(|| {
        // The groups end inside a run, outside a run, and with the loop.
        let lp = virtual_loop();
        let (outermost, ended) = nested_groups(&lp, DEPTH);
        let seen = Rc::clone(&ended);
        lp.call_soon(move |_| {
            outermost.abort();
            assert_eq!(seen.get(), DEPTH, "all tasks have been dropped when abort returns");
        })
        .unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));

        let (outermost, ended) = nested_groups(&lp, DEPTH);
        outermost.abort();
        assert_eq!((lp.run(), ended.get()), (Ok(Outcome::Done), DEPTH));
        let (outermost, ended) = nested_groups(&lp, DEPTH);
        drop(outermost);
        lp.shutdown().unwrap();
        assert_eq!(ended.get(), DEPTH);
        let lp = virtual_loop();
        let (outermost, ended) = nested_groups(&lp, DEPTH);
        lp.close().unwrap();
        assert!(outermost.is_finished() && ended.get() == DEPTH);
    });
}

#[test]
fn s46_a_failure_ends_nested_groups_without_stack() {
    const DEPTH: usize = 20_000;
    on_a_small_stack(|| {
        let lp = virtual_loop();
        let ended = Rc::new(Cell::new(0));
        let inner = Rc::clone(&ended);
        let result = lp.run_until_complete(async move {
            let group = TaskGroup::new();
            group.spawn(nest(DEPTH, Rc::clone(&inner))).unwrap();
            group
                .spawn(async move {
                    task::sleep(HOUR).await.unwrap();
                    Err(())
                })
                .unwrap();
            let result = group.join().await.is_err();
            (result, inner.get())
        });
        assert_eq!(result, Ok((true, DEPTH)));
        assert!(!lp.is_alive());
    });
}

#[test]
fn s39_a_chain_of_aborts_takes_no_stack() {
    struct Aborts(Option<JoinHandle<()>>, Rc<Cell<usize>>);
    impl Drop for Aborts {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            self.0.take().into_iter().for_each(|next| next.abort());
        }
    }
    on_a_small_stack(|| {
        let lp = virtual_loop();
        let count = Rc::new(Cell::new(0));
        let mut next = None;
        for _ in 0..MANY {
            let aborts = Aborts(next.take(), Rc::clone(&count));
            let join = lp.spawn(async move {
                let _aborts = aborts;
                pending::<()>().await;
            });
            next = Some(join.unwrap());
        }
        let last = next.unwrap();
        let ends = lp.run_until_complete(async {
            yield_now().await;
            last.abort();
            last.await.unwrap_err().is_cancelled()
        });
        assert_eq!((ends, count.get(), lp.is_alive()), (Ok(true), MANY, false));
    });
}

#[test]
fn s33_a_child_forked_in_nested_hooks_drops_nothing_more() {
    let lp = virtual_loop();
    let dropped = Trace::new();
    let child = Rc::new(Cell::new(-1));
    let waiting = [0, 1].map(|number| {
        let carried = dropped.on_drop(number);
        lp.call_at(Time::NEVER, move |_| drop(carried)).unwrap()
    });
    let handles = chain(&lp, NESTED - 1, |_, _| {});
    let innermost = lp.call_at(Time::NEVER, |_| unreachable!()).unwrap();
    let forked = Rc::clone(&child);
    lp.on_release(innermost, move |lp| {
        waiting.iter().for_each(|&timer| lp.cancel(timer).unwrap());
        // SAFETY: the child takes no lock that another thread might hold.
        forked.set(unsafe { libc::fork() });
    })
    .unwrap();
    handles.borrow_mut().push(innermost);
    let first = handles.borrow()[0];
    lp.cancel(first).unwrap();
    if child.get() == 0 {
        // SAFETY: `_exit` only ends the child.
        unsafe { libc::_exit(i32::from(dropped.len() != 0)) };
    }
    assert_eq!(dropped.take(), [0, 1]);
    let mut status = 0;
    // SAFETY: the child is this test's own, and `status` is a live variable.
    assert_eq!(unsafe { libc::waitpid(child.get(), &raw mut status, 0) }, child.get());
    assert_eq!(status, 0, "the child dropped a waiting callback");
}
