//! The end of a loop with tasks: S14, S22, S23, S30, S34.

use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use libc::EINVAL;
use ringloop::task::{self, JoinHandle, sleep};
use ringloop::{Loop, Outcome};

use super::{Gate, both_ways, hold, turn, waiting};
use crate::support::Watched;
use crate::trace::{Bomb, HOUR, Trace, panic_in, payload, real_loop, virtual_loop};

type End = fn(Watched);

const ENDS: [End; 4] = [
    |lp| lp.close().unwrap(),
    drop,
    |lp| lp.into_inner().close_within(Duration::ZERO).unwrap(),
    |lp| {
        lp.shutdown().unwrap();
        lp.close().unwrap();
    },
];

#[test]
fn s48_the_futures_of_all_tasks_are_dropped_once_and_nothing_is_polled() {
    for end in ENDS {
        for lp in both_ways() {
            let trace = Trace::new();
            let mut joins = Vec::new();
            // The tasks: ready for the first time, pending, woken, woken by another thread, asleep,
            // aborted outside a run.
            let gates = [(); 6].map(|()| Gate::default());
            for (number, gate) in gates.iter().enumerate() {
                let (dropped, waits) = (trace.on_drop(number), gate.clone());
                let join = lp.spawn(async move {
                    let _dropped = dropped;
                    if number == 4 {
                        sleep(HOUR).await.unwrap();
                    }
                    waits.await;
                });
                joins.push(join.unwrap());
                if number == 0 {
                    lp.cancel(joins[0].handle()).unwrap();
                    assert_eq!(trace.take(), [0]);
                    let dropped = trace.on_drop(0);
                    joins[0] = lp.spawn(async move { drop(dropped) }).unwrap();
                }
            }
            let polled = turn(&lp);
            assert_eq!((polled, trace.take()), (6, vec![0]));
            let again = trace.on_drop(0);
            joins[0] = lp.spawn(async move { drop(again) }).unwrap();
            let woken = gates[2].clone();
            lp.call_soon(move |_| woken.wake()).unwrap();
            turn(&lp);
            // The call ran first; the new task has ended in the same iteration.
            trace.take();
            let polls: Vec<u32> = gates.iter().map(Gate::polls).collect();
            let waker = gates[3].waker();
            thread::spawn(move || waker.wake()).join().unwrap();
            joins[5].abort();
            end(lp);
            let mut dropped = trace.take();
            dropped.sort_unstable();
            assert_eq!(dropped, [1, 2, 3, 4, 5]);
            assert_eq!(gates.iter().map(Gate::polls).collect::<Vec<_>>(), polls);
            assert!(joins.iter().all(JoinHandle::is_finished));
        }
    }
}

#[test]
fn s48_who_awaits_a_task_of_a_loop_that_is_closed_is_told() {
    for end in ENDS {
        let (lp, other) = (virtual_loop(), virtual_loop());
        let (_gate, join) = waiting(&lp);
        let told = other.spawn(async move { join.await.unwrap_err().is_cancelled() }).unwrap();
        turn(&other);
        end(lp);
        assert!(matches!(other.run_until_complete(told), Ok(Ok(true))));
    }
}

#[test]
fn s48_a_drop_uses_tasks_while_its_loop_is_closed() {
    struct Uses {
        trace: Trace,
        other: Option<JoinHandle<()>>,
        wakes: Gate,
    }
    impl Drop for Uses {
        fn drop(&mut self) {
            // No loop is running.
            let spawned = task::spawn(hold(self.trace.clone(), "never polled"));
            assert_eq!(spawned.err().unwrap().raw_os_error(), EINVAL);
            drop(sleep(HOUR));
            self.wakes.wake();
            if let Some(other) = self.other.take() {
                other.abort();
                // The other task is dropped later, or was dropped before.
                drop(other);
            }
            let nested = virtual_loop();
            assert_eq!(nested.run_until_complete(async { sleep(HOUR).await.is_ok() }), Ok(true));
            self.trace.add("used");
        }
    }
    for end in ENDS {
        for lp in both_ways() {
            let trace = Trace::new();
            let mut other = None;
            for _ in 0..3 {
                let gate = Gate::default();
                let uses = Uses { trace: trace.clone(), other: other.take(), wakes: gate.clone() };
                let join = lp.spawn(async move {
                    let _uses = uses;
                    gate.await;
                });
                other = Some(join.unwrap());
            }
            turn(&lp);
            end(lp);
            assert_eq!(trace.take(), ["used"; 3]);
            assert!(other.unwrap().is_finished());
        }
    }
}

#[test]
fn s14_a_release_hook_of_a_task_cannot_spawn_while_the_loop_is_closed() {
    for lp in both_ways() {
        let trace = Trace::new();
        let join = lp.spawn(hold(trace.clone(), "dropped")).unwrap();
        turn(&lp);
        let inner = trace.clone();
        lp.on_release(join.handle(), move |lp| {
            let dropped = inner.on_drop("refused");
            assert!(lp.spawn(async move { drop(dropped) }).is_err());
            assert!(lp.run_until_complete(async {}).is_err());
            inner.add("released");
        })
        .unwrap();
        lp.close().unwrap();
        assert_eq!(trace.take(), ["dropped", "refused", "released"]);
    }
}

#[test]
fn s30_a_panic_in_the_drop_of_a_future_keeps_no_other_from_its_end() {
    for is_joined in [false, true] {
        for is_handled in [false, true] {
            let lp = virtual_loop();
            let trace = Trace::new();
            let inner = trace.clone();
            if is_handled {
                lp.set_exception_handler(move |_, caught| inner.add(payload(&*caught))).unwrap();
            }
            let mut joins = Vec::new();
            for _ in 0..3 {
                let dropped = trace.on_drop("dropped");
                let join = lp.spawn(async move {
                    let (_dropped, _bomb) = (dropped, Bomb("bomb"));
                    std::future::pending::<()>().await;
                });
                joins.extend(is_joined.then_some(join.unwrap()));
            }
            turn(&lp);
            let caught = panic_in(|| lp.close());
            assert_eq!(caught, None);
            let expected: &[&str] = if is_joined || !is_handled {
                &["dropped"; 3]
            } else {
                &["dropped", "bomb"].repeat(3)
            };
            assert_eq!(trace.take(), expected);
            assert!(joins.iter().all(JoinHandle::is_finished));
        }
    }
}

#[test]
fn s48_tasks_that_hold_each_other_are_freed() {
    for lp in both_ways() {
        let trace = Trace::new();
        let ring: Rc<RefCell<Vec<JoinHandle<()>>>> = Rc::default();
        for number in 0..4 {
            let (inner, dropped) = (Rc::clone(&ring), trace.on_drop(number));
            let join = lp.spawn(async move {
                let _dropped = dropped;
                let next = inner.borrow_mut().pop().unwrap();
                next.await.unwrap();
            });
            ring.borrow_mut().push(join.unwrap());
        }
        ring.borrow_mut().rotate_left(1);
        turn(&lp);
        lp.close().unwrap();
        let mut dropped = trace.take();
        dropped.sort_unstable();
        assert_eq!(dropped, [0, 1, 2, 3]);
    }
}

#[test]
fn s48_tasks_are_dropped_by_a_panic_that_drops_the_loop() {
    let trace = Trace::new();
    let inner = trace.clone();
    let caught = panic_in(move || {
        let lp = virtual_loop();
        drop(lp.spawn(hold(inner.clone(), "dropped")));
        drop(lp.spawn(async {
            let _bomb = Bomb("second panic");
            std::future::pending::<()>().await;
        }));
        turn(&lp);
        crate::trace::panic("first panic");
    });
    assert_eq!((caught, trace.take()), (Some("first panic"), vec!["dropped"]));
}

#[test]
fn s34_the_debug_mode_lists_pending_tasks_by_the_names_of_their_futures() {
    const CHILD: &str = "RINGLOOP_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let lp = real_loop();
        drop(lp.spawn(Gate::default()));
        drop(lp.spawn(async {}));
        turn(&lp);
        lp.close().unwrap();
        return;
    }
    let name =
        "tasks::ending::s34_the_debug_mode_lists_pending_tasks_by_the_names_of_their_futures";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env("RINGLOOP_DEBUG", "1");
    let output = child.output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|line| line.contains("pending at close")).collect();
    let [line] = lines[..] else { panic!("{lines:#?}") };
    assert!(
        line.starts_with("ringloop: pending at close: task ")
            && line.contains("tasks::Gate, handle "),
        "{line}"
    );
    assert!(!line.contains("due"), "{line}");
}

#[test]
fn s19_a_run_goes_on_until_the_last_task_has_ended() {
    for lp in both_ways() {
        let trace = Trace::new();
        fn chain(left: u32, trace: Trace<u32>) {
            if left > 0 {
                drop(task::spawn(async move {
                    sleep(HOUR).await.unwrap();
                    trace.add(left);
                    chain(left - 1, trace);
                }));
            }
        }
        let inner = trace.clone();
        lp.call_soon(move |_: &Loop| chain(3, inner)).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), [3, 2, 1]);
    }
}
