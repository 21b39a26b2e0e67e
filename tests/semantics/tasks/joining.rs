//! Join handles: the outcome of a task, and the owner of its panics (S30).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringloop::task::{self, JoinError, JoinHandle, yield_now};
use ringloop::{Loop, Outcome};

use super::{Gate, both_ways, turn, waiting};
use crate::trace::{Bomb, Trace, panic, panic_in, payload, virtual_loop};

/// The outcome of a task that another task awaits.
fn awaited<T: 'static>(lp: &Loop, join: JoinHandle<T>) -> Result<T, JoinError> {
    let place = Rc::new(Cell::new(None));
    let inner = Rc::clone(&place);
    drop(lp.spawn(async move { inner.set(Some(join.await)) }));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    place.take().expect("the join handle has been ready")
}

#[test]
fn a_join_handle_gives_the_output() {
    for lp in both_ways() {
        let join = lp.spawn(async { "before it is awaited" }).unwrap();
        turn(&lp);
        assert!(join.is_finished());
        assert_eq!(awaited(&lp, join).unwrap(), "before it is awaited");
        let join = lp.spawn(async {
            yield_now().await;
            yield_now().await;
            vec![String::from("while it is awaited")]
        });
        assert_eq!(awaited(&lp, join.unwrap()).unwrap(), ["while it is awaited"]);
        assert!(!lp.is_alive());
    }
}

#[test]
fn s07_who_awaits_a_task_is_polled_in_the_iteration_after_its_end() {
    for lp in both_ways() {
        let (gate, join) = waiting(&lp);
        let trace = Trace::new();
        let inner = trace.clone();
        drop(lp.spawn(async move {
            join.await.unwrap();
            inner.add("joined");
        }));
        turn(&lp);
        lp.call_soon(move |_| gate.open()).unwrap();
        assert_eq!((turn(&lp), turn(&lp), trace.len()), (1, 1, 0));
        assert_eq!((turn(&lp), trace.take()), (1, vec!["joined"]));
    }
}

#[test]
fn a_join_handle_is_awaited_by_a_task_of_another_loop() {
    let outer = virtual_loop();
    let (gate, join) = waiting(&outer);
    let inner = Rc::new(virtual_loop());
    let waiter = inner.spawn(async move { join.await.is_ok() }).unwrap();
    let nested = Rc::clone(&inner);
    outer
        .call_soon(move |_| {
            // The waiter begins to wait in a run of its own loop, not of the task's loop.
            assert_eq!(turn(&nested), 1);
            gate.open();
        })
        .unwrap();
    assert_eq!(outer.run(), Ok(Outcome::Done));
    assert!(!waiter.is_finished());
    assert_eq!(turn(&inner), 1);
    assert!(waiter.is_finished());
    // Either the loop of the waiter is dropped first, or the loop of the task.
    for waiter_first in [false, true] {
        let (outer, inner) = (virtual_loop(), Rc::new(virtual_loop()));
        let (gate, join) = waiting(&outer);
        let waiter = inner.spawn(async move { join.await.is_ok() }).unwrap();
        turn(&inner);
        let ends = move || {
            gate.open();
            drop(outer);
        };
        if waiter_first {
            drop(inner);
            ends();
        } else {
            ends();
            assert_eq!((turn(&inner), waiter.is_finished()), (1, true));
        }
    }
}

#[test]
fn a_join_handle_that_is_dropped_lets_the_task_go_on() {
    for lp in both_ways() {
        let trace = Trace::new();
        let spawn = || {
            let (gate, output, inner) =
                (Gate::default(), trace.on_drop("output dropped"), trace.clone());
            let waits = gate.clone();
            let join = lp.spawn(async move {
                waits.await;
                inner.add("end");
                output
            });
            (gate, join.unwrap())
        };
        let (gate, join) = spawn();
        drop(join);
        turn(&lp);
        gate.open();
        turn(&lp);
        assert_eq!(trace.take(), ["end", "output dropped"]);
        let (gate, join) = spawn();
        gate.open();
        turn(&lp);
        assert_eq!(trace.take(), ["end"], "the join handle has the output");
        drop(join);
        assert_eq!(trace.take(), ["output dropped"]);
        // The join handle is dropped while a task awaits it.
        let (gate, join) = spawn();
        let (_stays, waiter) = waiting(&lp);
        let waits = lp.spawn(async move { drop(join.await) }).unwrap();
        turn(&lp);
        lp.cancel(waits.handle()).unwrap();
        gate.open();
        while turn(&lp) > 0 {}
        assert_eq!(trace.take(), ["end", "output dropped"]);
        assert!(!waiter.is_finished());
    }
}

#[test]
fn a_join_handle_is_kept_after_its_loop() {
    let lp = virtual_loop();
    let (_gate, pending) = waiting(&lp);
    let ended = lp.spawn(async { 6 });
    turn(&lp);
    lp.close().unwrap();
    pending.abort();
    assert!(pending.is_finished() && format!("{pending:?}").contains("is_finished: true"));
    let other = virtual_loop();
    assert!(awaited(&other, pending).unwrap_err().is_cancelled());
    assert_eq!(awaited(&other, ended.unwrap()).unwrap(), 6);
}

#[test]
fn a_join_handle_that_was_ready_panics_when_it_is_polled_again() {
    let lp = virtual_loop();
    let mut join = lp.spawn(async {}).unwrap();
    turn(&lp);
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut join).poll(&mut context).is_ready());
    assert!(panic_in(|| Pin::new(&mut join).poll(&mut context)).is_some());
    assert!(join.is_finished());
    join.abort();
}

#[test]
fn a_join_handle_wakes_who_polled_it_last() {
    for lp in both_ways() {
        let (gate, join) = waiting(&lp);
        let join = Rc::new(RefCell::new(join));
        let polls = Rc::new(RefCell::new([0, 0]));
        for number in 0..2 {
            let (join, polls) = (Rc::clone(&join), Rc::clone(&polls));
            drop(lp.spawn(std::future::poll_fn(move |context| {
                polls.borrow_mut()[number] += 1;
                Pin::new(&mut *join.borrow_mut()).poll(context).map(drop)
            })));
        }
        turn(&lp);
        gate.open();
        while turn(&lp) > 0 {}
        assert_eq!(*polls.borrow(), [1, 2]);
    }
}

#[test]
fn s41_a_panic_of_a_task_is_the_join_handles() {
    for lp in both_ways() {
        let trace = Trace::new();
        let (dropped, others) = (trace.on_drop("local"), trace.clone());
        let panics = lp.spawn(async move {
            let _dropped = dropped;
            yield_now().await;
            panic("in a poll");
        });
        lp.call_soon(others.note("other")).unwrap();
        let result: Result<(), JoinError> = awaited(&lp, panics.unwrap());
        let error = result.unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert_eq!(error.to_string(), "the task panicked: in a poll");
        assert_eq!(format!("{error:?}"), "the task panicked: in a poll");
        assert_eq!(payload(&*error.into_payload().unwrap()), "in a poll");
        assert_eq!(trace.take(), ["other", "local"]);
        // The Drop of a local panics at the end of the task.
        let join = lp.spawn(async {
            let _bomb = Bomb("in a local's drop");
            5
        });
        let error = awaited(&lp, join.unwrap()).unwrap_err();
        assert_eq!(payload(&*error.into_payload().unwrap()), "in a local's drop");
        let join = lp.spawn(async { std::panic::resume_unwind(Box::new(5)) });
        let error: JoinError = awaited::<()>(&lp, join.unwrap()).unwrap_err();
        assert_eq!((error.to_string(), error.is_panic()), ("the task panicked".to_owned(), true));
        let join =
            lp.spawn(async { std::panic::resume_unwind(Box::new(String::from("a string"))) });
        assert_eq!(
            awaited::<()>(&lp, join.unwrap()).unwrap_err().to_string(),
            "the task panicked: a string"
        );
    }
}

/// A future whose Drop panics after the future was ready: the captured bomb is dropped with the
/// future, the output before or after it.
struct Explodes(Bomb);

impl Future for Explodes {
    type Output = &'static str;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<&'static str> {
        Poll::Ready(self.0.0)
    }
}

#[test]
fn s41_a_panic_in_the_drop_of_a_future_that_is_ready_is_the_join_handles() {
    for lp in both_ways() {
        let join = lp.spawn(Explodes(Bomb("in the future's drop")));
        let error = awaited(&lp, join.unwrap()).unwrap_err();
        assert_eq!(payload(&*error.into_payload().unwrap()), "in the future's drop");
    }
}

#[test]
fn s41_a_panic_in_a_waker_is_the_loops() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: std::sync::Arc<Panics>) {
            panic("in wake");
        }
    }
    for lp in both_ways() {
        let (gate, mut join) = waiting(&lp);
        let waker = Waker::from(std::sync::Arc::new(Panics));
        assert!(Pin::new(&mut join).poll(&mut Context::from_waker(&waker)).is_pending());
        gate.open();
        assert_eq!(panic_in(|| lp.run()), Some("in wake"));
        assert!(join.is_finished() && !lp.is_alive());
        assert_eq!(awaited(&lp, join).map_err(|_| ()), Ok(()));
    }
}

#[test]
fn a_task_spawns_and_joins_many() {
    for lp in both_ways() {
        let sum = lp.run_until_complete(async {
            let mut joins = Vec::new();
            for number in 0..1000_u64 {
                joins.push(task::spawn(async move {
                    for _ in 0..number % 5 {
                        yield_now().await;
                    }
                    number
                }));
            }
            let mut sum = 0;
            for join in joins {
                sum += join.unwrap().await.unwrap();
            }
            sum
        });
        assert_eq!((sum, lp.is_alive()), (Ok(499_500), false));
    }
}
