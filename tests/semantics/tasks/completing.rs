//! run_until_complete: the future that it runs, its end, and the owner of the future afterwards.

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};
use std::pin::pin;
use std::rc::Rc;
use std::thread;

use libc::{EBUSY, ECANCELED};
use ringloop::task::{self, sleep, yield_now};
use ringloop::{Handle, Kind, Loop, Outcome};

use super::{Gate, both_ways, hold, turn};
use crate::trace::{
    Bomb, HOUR, START, Trace, errno, ms, ns, panic, panic_in, payload, real_loop, virtual_loop,
};

/// The handle of the only task.
fn only_task(lp: &Loop) -> Handle {
    let mut found = Vec::new();
    lp.walk(|_, info| found.extend((info.kind() == Kind::Task).then_some(info.handle()))).unwrap();
    assert_eq!(found.len(), 1);
    found[0]
}

#[test]
fn s42_a_future_borrows_what_it_likes() {
    for lp in both_ways() {
        let (text, mut list, lp) = (String::from("borrowed"), vec![1], &*lp);
        let length = lp.run_until_complete(async {
            yield_now().await;
            list.push(2);
            let timer = lp.call_later(ns(1), |_| {}).unwrap();
            assert!(lp.is_running() && lp.is_pending(timer));
            sleep(ns(2)).await.unwrap();
            assert!(!lp.is_pending(timer));
            &text[..3]
        });
        assert_eq!((length, list), (Ok("bor"), vec![1, 2]));
        assert_eq!((lp.is_running(), lp.is_alive(), lp.time()), (false, false, START + ns(2)));
        assert_eq!(lp.run_until_complete(ready(5)), Ok(5));
    }
}

#[test]
fn s20_a_future_is_not_run_inside_of_a_run() {
    for lp in both_ways() {
        let trace = Trace::new();
        lp.run_until_complete(async {
            let held = trace.on_drop("dropped");
            assert_eq!(errno(lp.run_until_complete(async move { drop(held) })), EBUSY);
            assert_eq!((trace.take(), errno(lp.run())), (vec!["dropped"], EBUSY));
            // Another loop may run.
            let other = virtual_loop();
            assert_eq!(other.run_until_complete(async { sleep(HOUR).await.is_ok() }), Ok(true));
        })
        .unwrap();
        let mut refused = 0;
        lp.call_soon(|_| {}).unwrap();
        lp.walk(|lp, _| refused = errno(lp.run_until_complete(async {}))).unwrap();
        assert_eq!(refused, EBUSY);
    }
}

#[test]
fn s42_the_batch_in_which_the_future_completes_is_run_to_its_end_and_the_rest_waits() {
    for lp in both_ways() {
        let trace = Trace::new();
        let pending = lp.run_until_complete(async {
            let (inner, later) = (trace.clone(), trace.clone());
            Loop::with_running(|lp| {
                lp.unwrap().call_soon(move |lp| {
                    inner.add("same batch");
                    lp.call_soon(later.note("next run")).unwrap();
                })
            })
            .unwrap();
            // In the batch, the call is before this task, and the new task is behind it.
            let inner = trace.clone();
            let join = task::spawn(async move {
                inner.add("task in the same batch");
                yield_now().await;
                inner.add("task in the next run");
            });
            yield_now().await;
            trace.add("complete");
            join.ok()
        });
        assert_eq!(trace.take(), ["same batch", "task in the same batch", "complete"]);
        assert!(!pending.unwrap().unwrap().is_finished() && lp.is_alive());
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["next run", "task in the next run"]);
    }
}

#[test]
fn s42_stop_ends_it_and_the_future_is_dropped() {
    for lp in both_ways() {
        for is_broken in [false, true] {
            for before in [false, true] {
                let trace = Trace::new();
                let end = move |lp: &Loop| {
                    if is_broken { lp.break_().unwrap() } else { lp.stop().unwrap() }
                };
                if before && !is_broken {
                    end(&lp);
                } else {
                    lp.call_soon(end).unwrap();
                }
                lp.call_soon(trace.note("rest of the batch")).unwrap();
                let borrowed = trace.clone();
                let ended = lp.run_until_complete(async {
                    let _dropped = borrowed.on_drop("dropped");
                    borrowed.add("polled");
                    pending::<()>().await;
                });
                assert_eq!(errno(ended), ECANCELED);
                let expected: &[&str] =
                    if is_broken { &[] } else { &["rest of the batch", "polled", "dropped"] };
                assert_eq!(trace.take(), expected);
                assert_eq!((lp.is_running(), lp.is_alive()), (false, is_broken));
                assert_eq!(lp.run(), Ok(Outcome::Done));
                assert_eq!(
                    trace.take(),
                    if is_broken { vec!["rest of the batch"] } else { vec![] }
                );
            }
        }
    }
}

#[test]
fn s42_a_future_that_is_given_by_reference_goes_on_afterwards() {
    for lp in both_ways() {
        let trace = Trace::new();
        let inner = trace.clone();
        let mut future = pin!(async move {
            inner.add("begin");
            sleep(ns(10)).await.unwrap();
            inner.add("end");
            7
        });
        lp.call_later(ns(4), |lp| lp.stop().unwrap()).unwrap();
        assert_eq!(errno(lp.run_until_complete(future.as_mut())), ECANCELED);
        assert_eq!((trace.take(), lp.time()), (vec!["begin"], START + ns(4)));
        assert_eq!(lp.run_until_complete(future.as_mut()), Ok(7));
        assert_eq!((trace.take(), lp.time()), (vec!["end"], START + ns(10)));
    }
}

#[test]
fn s30_a_panic_of_the_future_comes_up_and_the_loop_can_be_used() {
    for lp in both_ways() {
        for is_handled in [false, true] {
            let trace = Trace::new();
            if is_handled {
                lp.set_exception_handler(|_, _| panic!("the caller gets the panic")).unwrap();
            }
            let dropped = trace.on_drop("dropped");
            let result = panic_in(|| {
                lp.run_until_complete(async move {
                    let _dropped = dropped;
                    yield_now().await;
                    panic("in the future");
                })
            });
            assert_eq!((result, trace.take()), (Some("in the future"), vec!["dropped"]));
            let result = panic_in(|| {
                lp.run_until_complete(async {
                    let _bomb = Bomb("in its drop");
                })
            });
            assert_eq!(result, Some("in its drop"));
            assert!(!lp.is_running() && !lp.is_alive());
            assert_eq!(lp.run_until_complete(ready(1)), Ok(1));
        }
    }
}

#[test]
fn s30_a_panic_of_a_callback_drops_the_future() {
    for lp in both_ways() {
        let trace = Trace::new();
        lp.call_later(ns(1), |_| panic("callback")).unwrap();
        let result = panic_in(|| lp.run_until_complete(hold(trace.clone(), "dropped")));
        assert_eq!((result, trace.take()), (Some("callback"), vec!["dropped"]));
        assert!(!lp.is_running() && !lp.is_alive());
        // Two panics at once do not abort the process: the next run reports the second (S41).
        lp.call_later(ns(1), |_| panic("callback")).unwrap();
        let result = panic_in(|| {
            lp.run_until_complete(async {
                let _bomb = Bomb("in its drop");
                pending::<()>().await;
            })
        });
        assert_eq!((result, lp.run()), (Some("callback"), Ok(Outcome::Done)));
        assert_eq!(lp.run_until_complete(ready(1)), Ok(1));
    }
}

#[test]
fn s42_a_panic_behind_the_end_of_the_future_leaves_no_stop_behind() {
    for lp in both_ways() {
        let gate = Gate::default();
        let opens = gate.clone();
        lp.call_later(ns(1), move |lp| {
            opens.open();
            lp.call_soon(|_| panic("behind")).unwrap();
        })
        .unwrap();
        assert_eq!(panic_in(|| lp.run_until_complete(gate)), Some("behind"));
        assert_eq!(lp.run_until_complete(async { sleep(HOUR).await.is_ok() }), Ok(true));
    }
}

#[test]
fn s30_a_panic_in_the_drop_of_a_future_that_is_stopped_is_not_lost() {
    for lp in both_ways() {
        lp.call_later(ns(1), |lp| lp.stop().unwrap()).unwrap();
        let result = panic_in(|| {
            lp.run_until_complete(async {
                let _bomb = Bomb("in its drop");
                pending::<()>().await;
            })
        });
        assert_eq!((result, lp.is_alive()), (Some("in its drop"), false));
        assert_eq!(lp.run_until_complete(ready(1)), Ok(1));
    }
}

#[test]
fn s11_it_ends_when_its_task_is_cancelled() {
    for lp in both_ways() {
        let trace = Trace::new();
        // The task is cancelled before its first poll, and later.
        for delay in [ns(0), ns(5)] {
            let start = lp.time();
            let cancel = |lp: &Loop| lp.cancel(only_task(lp)).unwrap();
            if delay.is_zero() { lp.call_soon(cancel) } else { lp.call_later(delay, cancel) }
                .unwrap();
            assert_eq!(errno(lp.run_until_complete(hold(trace.clone(), "dropped"))), ECANCELED);
            assert_eq!(trace.take(), if delay.is_zero() { vec![] } else { vec!["dropped"] });
            assert_eq!((lp.time() - start, lp.is_alive()), (delay, false));
        }
        // No stop is left for the next run.
        assert_eq!(lp.run_until_complete(async { sleep(HOUR).await.is_ok() }), Ok(true));
    }
}

#[test]
fn s11_it_ends_when_its_task_is_cancelled_from_inside_of_another_loop() {
    for lp in both_ways() {
        let (outer, trace) = (Rc::new(lp), Trace::new());
        let (inner, noted) = (Rc::clone(&outer), trace.clone());
        outer
            .call_later(ns(1), move |_| {
                let nested = virtual_loop();
                let (outer, noted) = (Rc::clone(&inner), noted.clone());
                nested.call_soon(move |_| outer.cancel(only_task(&outer)).unwrap()).unwrap();
                nested.call_later(ns(1), noted.note("the inner loop goes on")).unwrap();
                assert_eq!(nested.run(), Ok(Outcome::Done));
            })
            .unwrap();
        // It is an error if the run takes this long.
        let late = outer.call_later(HOUR, |lp| lp.stop().unwrap()).unwrap();
        assert_eq!(errno(outer.run_until_complete(hold(trace.clone(), "dropped"))), ECANCELED);
        assert_eq!(trace.take(), ["dropped", "the inner loop goes on"]);
        assert!(outer.is_pending(late));
    }
}

#[test]
fn s26_it_ends_when_its_task_is_cancelled_by_another_thread() {
    let lp = real_loop();
    let trace = Trace::new();
    let remote = lp.remote();
    let other = thread::spawn(move || {
        thread::sleep(ms(1));
        remote.call_soon(|lp| lp.cancel(only_task(lp)).unwrap()).unwrap();
    });
    let ended = lp.run_until_complete(hold(trace.clone(), "dropped"));
    other.join().unwrap();
    // The thread may have cancelled the task before its first poll.
    assert_eq!((errno(ended), trace.take().len() <= 1), (ECANCELED, true));
}

#[test]
fn s23_a_waker_of_a_future_that_borrowed_outlives_it() {
    let lp = virtual_loop();
    let gate = Gate::default();
    {
        let text = String::from("gone");
        let inner = &gate;
        lp.call_later(ns(1), |lp| lp.stop().unwrap()).unwrap();
        let ended = lp.run_until_complete(async {
            inner.clone().await;
            drop(text.clone());
        });
        assert_eq!(errno(ended), ECANCELED);
    }
    let waker = gate.waker();
    waker.wake_by_ref();
    thread::spawn(move || waker.wake()).join().unwrap();
    gate.open();
    while turn(&lp) > 0 {}
    assert_eq!(gate.polls(), 1);
}

/// The loop moves between runs; its tasks stay in their places.
#[test]
fn s23_the_loop_moves_between_runs() {
    let lp = virtual_loop();
    let gate = Gate::default();
    let waits = gate.clone();
    let sum = Rc::new(RefCell::new(Vec::new()));
    let inner = Rc::clone(&sum);
    let join = lp.spawn(async move {
        waits.await;
        let slept = sleep(HOUR).await;
        inner.borrow_mut().push(Loop::with_running(|lp| lp.unwrap().time()));
        slept.is_ok()
    });
    turn(&lp);
    gate.open();
    let moved = Box::new(lp.into_inner());
    turn(&moved);
    let again = *moved;
    let moved = Cell::new(Some(again));
    let lp = moved.take().unwrap();
    assert_eq!(
        lp.run_until_complete(join.unwrap()).unwrap().map_err(|error| error.to_string()),
        Ok(true)
    );
    assert_eq!(*sum.borrow(), [START + HOUR]);
}

#[test]
fn s30_a_panic_of_a_task_that_is_awaited_is_passed_on_by_hand() {
    let lp = virtual_loop();
    let caught = lp.run_until_complete(async {
        let join = task::spawn(async { panic("inner") }).unwrap();
        let result: Result<(), _> = join.await;
        payload(&*result.unwrap_err().into_payload().unwrap())
    });
    assert_eq!(caught, Ok("inner"));
}

#[test]
fn s17_a_stop_before_a_panic_is_kept_while_the_future_waits() {
    for lp in both_ways() {
        lp.call_soon(|lp| {
            lp.stop().unwrap();
            panic("callback")
        })
        .unwrap();
        assert_eq!(panic_in(|| lp.run_until_complete(pending::<()>())), Some("callback"));
        lp.call_later(ms(1), |_| {}).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Stopped));
        assert_eq!(lp.run(), Ok(Outcome::Done));
    }
}

#[test]
fn s17_a_stop_in_the_drop_of_the_future_is_for_the_next_run() {
    struct StopOnDrop<'a>(&'a Loop);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.stop().unwrap();
        }
    }
    for lp in both_ways() {
        lp.call_soon(|lp| lp.stop().unwrap()).unwrap();
        let stopped = lp.run_until_complete(async {
            let _stop = StopOnDrop(&lp);
            pending::<()>().await;
        });
        assert_eq!(errno(stopped), ECANCELED);
        lp.call_later(ms(1), |_| {}).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Stopped));
        assert_eq!(lp.run(), Ok(Outcome::Done));
    }
}
