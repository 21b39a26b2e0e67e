//! Aborting a task in every state that it may be in: S10, S11, S14, S30.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::thread;

use ringloop::task::{self, JoinHandle, sleep, yield_now};
use ringloop::{Loop, Outcome};

use super::{Gate, both_ways, hold, turn, waiting};
use crate::trace::{
    Bomb, HOUR, START, Trace, check_stale, errno, later, payload, real_loop, virtual_loop,
};

/// The outcome of a task: "output", "aborted", the string of its panic; or "pending".
fn end_of<T>(join: &mut JoinHandle<T>) -> &'static str {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match Pin::new(join).poll(&mut context) {
        Poll::Pending => "pending",
        Poll::Ready(Ok(_)) => "output",
        Poll::Ready(Err(error)) if error.is_cancelled() => "aborted",
        Poll::Ready(Err(error)) => payload(&*error.into_payload().unwrap()),
    }
}

/// A task that adds "polled" and "dropped" to the trace.
fn noting(lp: &Loop, trace: &Trace) -> (Gate, JoinHandle<()>) {
    let gate = Gate::default();
    let (waits, dropped, trace) = (gate.clone(), trace.on_drop("dropped"), trace.clone());
    let join = lp.spawn(async move {
        let _dropped = dropped;
        let mut waits = std::pin::pin!(waits);
        poll_fn(|context| {
            trace.add("polled");
            waits.as_mut().poll(context)
        })
        .await;
    });
    (gate, join.unwrap())
}

type Abort = fn(&Loop, &JoinHandle<()>);

/// The ways to abort a task inside a run.
const INSIDE: [Abort; 2] = [|_, join| join.abort(), |lp, join| lp.cancel(join.handle()).unwrap()];

#[test]
fn s39_a_task_that_is_aborted_before_its_first_poll_is_never_polled() {
    for abort in INSIDE {
        for lp in both_ways() {
            let trace = Trace::new();
            let inner = trace.clone();
            lp.call_soon(move |lp| {
                let (_gate, mut join) = noting(lp, &inner);
                abort(lp, &join);
                assert_eq!((inner.take(), end_of(&mut join)), (vec!["dropped"], "aborted"));
            })
            .unwrap();
            assert_eq!(lp.run(), Ok(Outcome::Done));
            assert_eq!(trace.len(), 0);
        }
    }
}

#[test]
fn s39_an_aborted_task_has_been_dropped_when_abort_returns() {
    for abort in INSIDE {
        for lp in both_ways() {
            let trace = Trace::new();
            let (_gate, mut join) = noting(&lp, &trace);
            turn(&lp);
            let inner = trace.clone();
            lp.call_soon(move |lp| {
                abort(lp, &join);
                inner.add("abort has returned");
                assert!(join.is_finished());
                check_stale(lp, join.handle());
                join.abort();
                assert_eq!(end_of(&mut join), "aborted");
                join.abort();
            })
            .unwrap();
            assert_eq!(lp.run(), Ok(Outcome::Done));
            assert_eq!(trace.take(), ["polled", "dropped", "abort has returned"]);
        }
    }
}

#[test]
fn s39_a_woken_task_is_aborted_in_the_queue_and_in_the_batch() {
    for abort in INSIDE {
        for lp in both_ways() {
            for in_batch in [false, true] {
                let trace = Trace::new();
                let (gate, join) = noting(&lp, &trace);
                turn(&lp);
                assert_eq!(trace.take(), ["polled"]);
                let wake = move |_: &Loop| gate.open();
                if in_batch {
                    // The task is behind the call that aborts it, in the same batch.
                    lp.call_soon(move |lp| {
                        lp.call_soon(move |lp| abort(lp, &join)).unwrap();
                        wake(lp);
                    })
                } else {
                    lp.call_soon(move |lp| {
                        wake(lp);
                        abort(lp, &join);
                    })
                }
                .unwrap();
                lp.call_soon(trace.note("other")).unwrap();
                assert_eq!(lp.run(), Ok(Outcome::Done));
                let expected = if in_batch { ["other", "dropped"] } else { ["dropped", "other"] };
                assert_eq!(trace.take(), expected);
            }
        }
    }
}

#[test]
fn s39_a_task_that_aborts_itself_ends_when_its_poll_returns() {
    for abort in INSIDE {
        for lp in both_ways() {
            for is_woken in [false, true] {
                for is_ready in [false, true] {
                    let trace = Trace::new();
                    let (dropped, inner) = (trace.on_drop("dropped"), trace.clone());
                    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
                    let place = Rc::clone(&own);
                    let join = lp.spawn(async move {
                        let _dropped = dropped;
                        poll_fn(|context| {
                            inner.add("polled");
                            if is_woken {
                                context.waker().wake_by_ref();
                            }
                            let join = own.borrow();
                            let join = join.as_ref().unwrap();
                            Loop::with_running(|lp| abort(lp.unwrap(), join));
                            assert!(!join.is_finished());
                            // A second abort has no effect.
                            join.abort();
                            inner.add("returned");
                            if is_ready { Poll::Ready(()) } else { Poll::Pending }
                        })
                        .await;
                    });
                    *place.borrow_mut() = Some(join.unwrap());
                    assert_eq!(lp.run(), Ok(Outcome::Done));
                    assert_eq!(trace.take(), ["polled", "returned", "dropped"]);
                    let mut join = place.borrow_mut().take().unwrap();
                    assert_eq!(end_of(&mut join), if is_ready { "output" } else { "aborted" });
                }
            }
        }
    }
}

#[test]
fn s39_aborting_a_task_that_has_ended_changes_nothing() {
    let lp = virtual_loop();
    let join = lp.spawn(async { 5 });
    let join = join.unwrap();
    turn(&lp);
    // Another task uses the slot now.
    let (_gate, other) = waiting(&lp);
    join.abort();
    let inner = Rc::new(Cell::new(Some(join)));
    let place = Rc::clone(&inner);
    lp.call_soon(move |lp| {
        let join = place.take().unwrap();
        join.abort();
        check_stale(lp, join.handle());
        assert!(join.is_finished());
        place.set(Some(join));
    })
    .unwrap();
    turn(&lp);
    assert_eq!(end_of(&mut inner.take().unwrap()), "output");
    assert!(!other.is_finished());
}

#[test]
fn s39_a_task_that_is_aborted_outside_of_a_run_ends_in_the_next_iteration() {
    for lp in both_ways() {
        for is_referenced in [true, false] {
            let trace = Trace::new();
            let (gate, mut join) = noting(&lp, &trace);
            turn(&lp);
            if !is_referenced {
                lp.unref(join.handle()).unwrap();
            }
            trace.take();
            join.abort();
            join.abort();
            gate.open();
            assert_eq!((trace.len(), join.is_finished(), lp.is_alive()), (0, false, true));
            assert_eq!(lp.run(), Ok(Outcome::Done));
            assert_eq!((trace.take(), end_of(&mut join)), (vec!["dropped"], "aborted"));
            // Loop::cancel ends the task at once.
            let (_gate, mut join) = noting(&lp, &trace);
            lp.cancel(join.handle()).unwrap();
            assert_eq!(
                (trace.take(), end_of(&mut join), lp.is_alive()),
                (vec!["dropped"], "aborted", false)
            );
        }
    }
}

#[test]
fn s39_a_task_that_is_aborted_outside_of_a_run_ends_before_its_first_poll_and_without_a_join_handle()
 {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (_gate, join) = noting(&lp, &trace);
    join.abort();
    drop(join);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["dropped"]);
    // The task may also end with the loop.
    let (_gate, join) = noting(&lp, &trace);
    join.abort();
    lp.close().unwrap();
    assert_eq!((trace.take(), join.is_finished()), (vec!["dropped"], true));
    join.abort();
}

#[test]
fn s39_a_task_is_aborted_from_inside_of_another_loop() {
    for lp in both_ways() {
        let trace = Trace::new();
        let (_gate, join) = noting(&lp, &trace);
        let inner = trace.clone();
        lp.call_soon(move |_| {
            let nested = virtual_loop();
            let noted = inner.clone();
            nested
                .call_soon(move |_| {
                    join.abort();
                    noted.add(if join.is_finished() { "too early" } else { "aborted" });
                })
                .unwrap();
            assert_eq!(nested.run(), Ok(Outcome::Done));
        })
        .unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["polled", "aborted", "dropped"]);
    }
}

#[test]
fn s26_a_task_is_aborted_by_another_thread_with_its_handle() {
    let lp = real_loop();
    let (gate, mut join) = waiting(&lp);
    let (here, remote, handle) = (thread::current().id(), lp.remote(), join.handle());
    let place = Rc::new(Cell::new(None));
    let inner = Rc::clone(&place);
    lp.on_release(handle, move |_| inner.set(Some(thread::current().id()))).unwrap();
    let other =
        thread::spawn(move || remote.call_soon(move |lp| lp.cancel(handle).unwrap()).unwrap());
    assert_eq!(lp.run(), Ok(Outcome::Done));
    other.join().unwrap();
    assert_eq!((place.get(), end_of(&mut join), gate.polls()), (Some(here), "aborted", 1));
}

#[test]
fn s39_the_locals_of_an_aborted_task_are_dropped_in_reverse_order() {
    for lp in both_ways() {
        let trace = Trace::new();
        let inner = trace.clone();
        let captured = trace.on_drop("captured");
        let join = lp.spawn(async move {
            let _captured = &captured;
            let _first = inner.on_drop("first");
            let _second = inner.on_drop("second");
            hold(inner.clone(), "awaited").await;
        });
        turn(&lp);
        lp.cancel(join.unwrap().handle()).unwrap();
        assert_eq!(trace.take(), ["awaited", "second", "first", "captured"]);
    }
}

#[test]
fn s30_a_task_is_aborted_by_the_drop_of_another() {
    struct Aborts(JoinHandle<()>, Trace);
    impl Drop for Aborts {
        fn drop(&mut self) {
            self.0.abort();
            self.1.add(if self.0.is_finished() { "ended" } else { "to end" });
        }
    }
    for lp in both_ways() {
        let trace = Trace::new();
        // Each task holds the one before it, so the last one holds all of them.
        let (_gate, mut join) = noting(&lp, &trace);
        for _ in 0..3 {
            let aborts = Aborts(join, trace.clone());
            join = lp
                .spawn(async move {
                    let _aborts = aborts;
                    std::future::pending::<()>().await;
                })
                .unwrap();
        }
        turn(&lp);
        trace.take();
        lp.call_soon(move |_| join.abort()).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["dropped", "ended", "ended", "ended"]);
    }
}

#[test]
fn s30_a_drop_uses_the_loop_while_its_task_is_aborted() {
    struct Uses(Trace);
    impl Drop for Uses {
        fn drop(&mut self) {
            let used = Loop::with_running(|lp| {
                let lp = lp.unwrap();
                let trace = self.0.clone();
                drop(task::spawn(async move {
                    sleep(HOUR).await.unwrap();
                    trace.add("spawned in a drop");
                }));
                lp.call_soon(self.0.note("called")).unwrap();
                lp.run().is_err() && lp.run_until_complete(async {}).is_err()
            });
            assert!(used);
        }
    }
    for lp in both_ways() {
        let trace = Trace::new();
        let uses = Uses(trace.clone());
        let join = lp.spawn(async move {
            let _uses = uses;
            std::future::pending::<()>().await;
        });
        let join = join.unwrap();
        lp.call_soon(move |_| join.abort()).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!((trace.take(), lp.time()), (vec!["called", "spawned in a drop"], START + HOUR));
    }
}

#[test]
fn s30_a_panic_in_the_drop_of_an_aborted_future_is_the_join_handles() {
    for abort in INSIDE {
        for lp in both_ways() {
            let trace = Trace::new();
            let dropped = trace.on_drop("the others");
            let join = lp.spawn(async move {
                let (_dropped, _bomb) = (dropped, Bomb("in drop"));
                std::future::pending::<()>().await;
            });
            let mut join = join.unwrap();
            turn(&lp);
            lp.call_soon(move |lp| {
                abort(lp, &join);
                assert_eq!(end_of(&mut join), "in drop");
            })
            .unwrap();
            assert_eq!(lp.run(), Ok(Outcome::Done));
            assert_eq!(trace.take(), ["the others"]);
        }
    }
}

#[test]
fn s41_a_panic_in_the_drop_of_a_detached_future_ends_no_run() {
    for lp in both_ways() {
        let spawn = |lp: &Loop| {
            let join = lp.spawn(async {
                let _bomb = Bomb("in drop");
                std::future::pending::<()>().await;
            });
            let handle = join.unwrap().handle();
            turn(lp);
            handle
        };
        let handle = spawn(&lp);
        assert_eq!(lp.cancel(handle), Ok(()));
        check_stale(&lp, handle);
        // The task cancels itself, and ends when its poll returns.
        drop(lp.spawn(async {
            let _bomb = Bomb("own");
            Loop::with_running(|lp| lp.unwrap().cancel(lp.unwrap().current_handle().unwrap()))
                .unwrap();
            std::future::pending::<()>().await;
        }));
        assert_eq!(lp.run(), Ok(Outcome::Done));
        let trace = Trace::new();
        let inner = trace.clone();
        lp.set_exception_handler(move |_, caught| inner.add(payload(&*caught))).unwrap();
        let handle = spawn(&lp);
        lp.call_soon(move |lp| lp.cancel(handle).unwrap()).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["in drop"]);
    }
}

#[test]
fn s30_a_future_holds_its_own_join_handle() {
    for lp in both_ways() {
        let spawn = |lp: &Loop, trace: &Trace, is_ready: bool| {
            let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
            let (place, dropped) = (Rc::clone(&own), trace.on_drop("dropped"));
            let join = lp.spawn(async move {
                let _dropped = dropped;
                // The handle stays in the future; a task that awaits itself would wait forever.
                let _own = own;
                yield_now().await;
                if !is_ready {
                    std::future::pending::<()>().await;
                }
            });
            let join = join.unwrap();
            let handle = join.handle();
            *place.borrow_mut() = Some(join);
            handle
        };
        let trace = Trace::new();
        spawn(&lp, &trace, true);
        assert_eq!((lp.run(), trace.take()), (Ok(Outcome::Done), vec!["dropped"]));
        let handle = spawn(&lp, &trace, false);
        turn(&lp);
        lp.cancel(handle).unwrap();
        assert_eq!(errno(lp.cancel(handle)), libc::ENOENT);
        assert_eq!(trace.take(), ["dropped"]);
        spawn(&lp, &trace, false);
        turn(&lp);
        lp.close().unwrap();
        assert_eq!(trace.take(), ["dropped"]);
    }
}

/// A task that awaits itself waits until it is aborted; it waits with its own waker.
#[test]
fn s30_a_task_awaits_itself() {
    for lp in both_ways() {
        let trace = Trace::new();
        let (own, place) = (Rc::new(Cell::new(None::<JoinHandle<()>>)), later());
        let (inner, dropped) = (Rc::clone(&own), trace.on_drop("dropped"));
        let join = lp.spawn(async move {
            let _dropped = dropped;
            let itself = inner.take().unwrap();
            itself.await.unwrap();
        });
        let join = join.unwrap();
        place.0.set(Some(join.handle()));
        own.set(Some(join));
        assert_eq!((turn(&lp), turn(&lp)), (1, 0));
        lp.cancel(place.1.get().unwrap()).unwrap();
        assert_eq!((trace.take(), lp.run()), (vec!["dropped"], Ok(Outcome::Done)));
    }
}
