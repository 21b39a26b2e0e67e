//! S5 to S9: the steps of an iteration, and the order of callbacks.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use ringloop::{HookPoint, Loop, Outcome, Sqe, Time};

use crate::trace::{HOUR, Random, START, Trace, at, ms, note_time, ns, real_loop, virtual_loop};

/// Schedules itself again, `left` more times.
fn again(lp: &Loop, left: u32) {
    if left > 0 {
        lp.call_soon(move |lp| again(lp, left - 1)).unwrap();
    }
}

#[test]
fn s05_the_loop_does_not_sleep_when_a_callback_is_ready() {
    let lp = virtual_loop();
    lp.call_later(ns(1000), |_| {}).unwrap();
    lp.call_soon(|_| {}).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!((lp.time(), lp.metrics().asleep_ns), (START, 0));
}

#[test]
fn s05_the_loop_does_not_sleep_when_a_stop_is_asked_for() {
    let lp = virtual_loop();
    lp.call_later(ns(1000), |_| {}).unwrap();
    lp.stop().unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(0));
    assert_eq!((lp.time(), lp.metrics().asleep_ns), (START, 0));
}

#[test]
fn s05_the_loop_does_not_sleep_when_a_timer_is_due() {
    let lp = virtual_loop();
    lp.call_later(ns(1000), |_| {}).unwrap();
    lp.call_at(START, |_| {}).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!((lp.time(), lp.metrics().asleep_ns), (START, 0));
}

#[test]
fn s05_a_cancelled_call_does_not_keep_the_loop_awake() {
    let lp = virtual_loop();
    lp.call_later(ns(1000), |_| {}).unwrap();
    let call = lp.call_soon(|_| {}).unwrap();
    let due = lp.call_at(START, |_| {}).unwrap();
    lp.cancel(call).unwrap();
    lp.cancel(due).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!((lp.time(), lp.metrics().iterations), (at(1000), 1));
}

#[test]
fn s05_a_timer_that_is_cancelled_does_not_wake_the_loop() {
    let lp = virtual_loop();
    let times = Trace::new();
    let cancelled = lp.call_later(ns(10), |_| {}).unwrap();
    lp.call_later(ns(20), note_time(&times)).unwrap();
    lp.cancel(cancelled).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(times.take(), [at(20)]);
}

#[test]
fn s05_an_iteration_sleeps_at_most_its_limit() {
    let lp = virtual_loop();
    lp.call_later(ns(1000), |_| {}).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    assert_eq!(lp.time(), START);
    assert_eq!(lp.run_once(ns(1)), Ok(0));
    assert_eq!(lp.time(), at(1));
    assert_eq!(lp.run_once(ns(998)), Ok(0));
    assert_eq!(lp.run_once(ns(1)), Ok(1));
    assert_eq!((lp.time(), lp.metrics().asleep_ns, lp.metrics().iterations), (at(1000), 1000, 4));
}

#[test]
fn s05_the_steps_of_an_iteration_come_in_their_order() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let note = |what: &'static str| {
        let trace = trace.clone();
        move |lp: &Loop| trace.add((what, lp.time(), lp.next_deadline()))
    };
    lp.add_hook(HookPoint::AfterWait, note("after the wait")).unwrap();
    lp.add_hook(HookPoint::BeforeWait, note("before the wait")).unwrap();
    lp.call_at(at(10), note("timer")).unwrap();
    lp.call_at(at(99), |_| {}).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(
        trace.take(),
        [
            ("before the wait", START, Some(at(10))),
            // The timer is in the ready queue by now.
            ("after the wait", at(10), Some(at(99))),
            ("timer", at(10), Some(at(99))),
        ]
    );
}

#[test]
fn s05_what_a_hook_schedules_before_the_wait_runs_in_the_same_iteration_without_sleep() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (inner, once) = (trace.clone(), Cell::new(false));
    lp.add_hook(HookPoint::BeforeWait, move |lp| {
        if !once.replace(true) {
            lp.call_soon(inner.note("call")).unwrap();
            lp.call_at(START, inner.note("due timer")).unwrap();
        }
    })
    .unwrap();
    lp.call_later(ns(1000), trace.note("later timer")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!((trace.take(), lp.time()), (vec!["call", "due timer"], START));
}

#[test]
fn s05_what_a_hook_schedules_after_the_wait_runs_in_the_same_iteration_behind_the_due_timers() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (inner, once) = (trace.clone(), Cell::new(false));
    lp.add_hook(HookPoint::AfterWait, move |lp| {
        if !once.replace(true) {
            lp.call_soon(inner.note("call")).unwrap();
        }
    })
    .unwrap();
    lp.call_later(ns(1000), trace.note("timer")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(trace.take(), ["timer", "call"]);
}

#[test]
fn s05_due_timers_become_ready_in_deadline_order() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let mut random = Random(5);
    let mut expected: Vec<(u64, usize)> =
        (0..1000).map(|order| (random.below(START.as_nanos()), order)).collect();
    for &(when, order) in &expected {
        let trace = trace.clone();
        lp.call_at(Time::from_nanos(when), move |_| trace.add((when, order))).unwrap();
    }
    expected.sort_unstable();
    assert_eq!(lp.run_once(HOUR), Ok(1000));
    assert_eq!(trace.take(), expected);
}

#[test]
fn s05_an_iteration_runs_exactly_what_stood_in_the_ready_queue() {
    let lp = virtual_loop();
    let trace = Trace::new();
    for _ in 0..3 {
        let trace = trace.clone();
        lp.call_soon(move |lp| {
            trace.add("first");
            for _ in 0..2 {
                let trace = trace.clone();
                lp.call_soon(move |lp| {
                    trace.add("second");
                    lp.call_soon(trace.note("third")).unwrap();
                })
                .unwrap();
            }
        })
        .unwrap();
    }
    assert_eq!((lp.run_once(HOUR), trace.take()), (Ok(3), vec!["first"; 3]));
    assert_eq!((lp.run_once(HOUR), trace.take()), (Ok(6), vec!["second"; 6]));
    assert_eq!((lp.run_once(HOUR), trace.take()), (Ok(6), vec!["third"; 6]));
    assert!(!lp.is_alive());
}

#[test]
fn s05_a_busy_loop_does_not_enter_the_kernel() {
    let lp = real_loop();
    lp.call_later(HOUR, |_| {}).unwrap();
    lp.call_soon(|lp| again(lp, 100_000)).unwrap();
    for _ in 0..100_001 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
    assert_eq!((lp.metrics().enters, lp.metrics().submitted), (0, 0));
}

#[test]
fn s05_an_iteration_that_sleeps_is_one_entry_into_the_kernel_timers_included() {
    let lp = real_loop();
    lp.call_soon(|lp| {
        for delay in (0..100).rev() {
            lp.call_later(HOUR + ms(delay), |_| {}).unwrap();
        }
    })
    .unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(
        (lp.metrics().enters, lp.metrics().submitted),
        (0, 0),
        "scheduling timers makes no system call"
    );
    // With a limit the loop sleeps for sure; a timer might be due before the loop sleeps.
    assert_eq!(lp.run_once(ms(2)), Ok(0));
    // Submitted: the timeout, and once in the life of the loop the poll for wakes by other threads.
    assert_eq!((lp.metrics().enters, lp.metrics().submitted, lp.metrics().completed), (1, 2, 1));
}

#[test]
fn s05_the_sleep_ends_at_the_earliest_deadline_whatever_the_kernel_was_told_before() {
    let lp = real_loop();
    // With the descriptor, a flush submits deadlines to the kernel without a sleep.
    lp.fd().unwrap();
    let far = lp.call_later(HOUR, |_| {}).unwrap();
    for round in 0..50 {
        lp.flush().unwrap();
        // This deadline is earlier than the kernel's. Later the timer gets a later deadline, which
        // is not submitted to the kernel.
        lp.reschedule(far, lp.time() + HOUR / (round + 2)).unwrap();
        lp.flush().unwrap();
        let when = lp.time() + ns(200_000);
        lp.call_at(when, |_| {}).unwrap();
        if round % 2 == 0 {
            lp.flush().unwrap();
        }
        assert_eq!(lp.run_once(HOUR), Ok(1));
        assert!(lp.time() >= when);
        lp.reschedule(far, lp.time() + HOUR).unwrap();
    }
}

#[test]
fn s05_a_sleep_is_not_cut_short_by_what_the_kernel_was_told_before() {
    let lp = real_loop();
    lp.fd().unwrap();
    for _ in 0..20 {
        let when = lp.time() + ms(2);
        let timer = lp.call_later(ns(100_000), |_| {}).unwrap();
        lp.flush().unwrap();
        lp.reschedule(timer, when).unwrap();
        assert_eq!(lp.run_once(HOUR), Ok(1));
        assert!(lp.time() >= when);
    }
}

#[test]
fn s05_a_due_timer_that_was_cancelled_does_not_keep_the_loop_awake() {
    let lp = real_loop();
    for _ in 0..5 {
        let due = lp.call_at(Time::default(), |_| panic!("a cancelled timer has run")).unwrap();
        lp.call_later(HOUR, |_| {}).unwrap();
        lp.cancel(due).unwrap();
        let (begin, before) = (lp.time(), lp.metrics().enters);
        assert_eq!(lp.run_once(ms(5)), Ok(0));
        assert!(lp.time() >= begin + ms(5) && lp.metrics().enters == before + 1);
    }
}

#[test]
fn s06_the_ready_queue_is_one_fifo() {
    let lp = virtual_loop();
    let trace = Trace::new();
    for order in 0..10_000 {
        let trace = trace.clone();
        lp.call_soon(move |_| trace.add(order)).unwrap();
    }
    assert_eq!(lp.run_once(HOUR), Ok(10_000));
    assert_eq!(trace.take(), (0..10_000).collect::<Vec<_>>());
}

#[test]
fn s06_a_timer_that_is_due_already_runs_after_an_earlier_call_soon() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(trace.note("call")).unwrap();
    lp.call_at(Time::default(), trace.note("timer")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(trace.take(), ["call", "timer"]);
}

#[test]
fn s06_a_due_timer_becomes_ready_when_the_iteration_collects_it() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_at(Time::default(), trace.note("timer")).unwrap();
    lp.call_soon(trace.note("call")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(trace.take(), ["call", "timer"]);
}

#[test]
fn s06_calls_from_inside_a_batch_stand_before_the_timers_of_the_next_iteration() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.call_soon(move |lp| {
        lp.call_later(Duration::ZERO, inner.note("timer")).unwrap();
        lp.call_soon(inner.note("call")).unwrap();
    })
    .unwrap();
    let _ = lp.run().unwrap();
    assert_eq!(trace.take(), ["call", "timer"]);
    assert_eq!(lp.metrics().iterations, 2);
}

#[test]
fn s06_what_is_left_of_a_batch_stands_before_everything_newer() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.call_soon(move |lp| {
        lp.call_soon(inner.note("newer call")).unwrap();
        lp.call_at(Time::default(), inner.note("due timer")).unwrap();
        lp.break_().unwrap();
    })
    .unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    lp.call_soon(trace.note("newest call")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(4));
    assert_eq!(trace.take(), ["rest", "newer call", "newest call", "due timer"]);
}

#[test]
fn s07_rescheduling_starves_nobody() {
    fn again_and_again(lp: &Loop, done: Rc<Cell<bool>>) {
        if !done.get() {
            lp.call_soon(move |lp| again_and_again(lp, done)).unwrap();
        }
    }
    let lp = real_loop();
    let done = Rc::new(Cell::new(false));
    let (inner, timer) = (Rc::clone(&done), Rc::clone(&done));
    lp.call_soon(move |lp| {
        lp.call_later(ms(3), move |_| timer.set(true)).unwrap();
        again_and_again(lp, inner);
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(done.get() && lp.metrics().iterations > 2);
}

#[test]
fn s07_what_a_callback_schedules_runs_in_a_later_iteration() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.call_soon(move |lp| {
        let note = || {
            let trace = inner.clone();
            move |lp: &Loop| trace.add(lp.metrics().iterations)
        };
        lp.call_soon(note()).unwrap();
        lp.call_later(Duration::ZERO, note()).unwrap();
        lp.call_at(Time::default(), note()).unwrap();
        let handle = lp.call_every(ns(1), note()).unwrap();
        lp.reschedule(handle, Time::default()).unwrap();
        lp.unref(handle).unwrap();
    })
    .unwrap();
    lp.call_soon(|_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), [2, 2, 2, 2]);
}

#[test]
fn s07_a_timer_armed_again_without_delay_starves_nobody() {
    fn arm(lp: &Loop, ran: Trace<Time>) {
        let when = lp.time();
        lp.call_at(when, move |lp| {
            ran.add(lp.time());
            arm(lp, ran.clone());
        })
        .unwrap();
    }
    let lp = virtual_loop();
    let ran = Trace::new();
    arm(&lp, ran.clone());
    lp.call_soon(|lp| again(lp, 49)).unwrap();
    for _ in 0..50 {
        assert_eq!(lp.run_once(HOUR), Ok(2), "one call and one timer in each iteration");
    }
    assert_eq!(ran.take(), [START; 50]);
}

#[test]
fn s07_a_repeating_timer_rescheduled_to_now_runs_once_an_iteration() {
    let lp = virtual_loop();
    let handle = Rc::new(Cell::new(None));
    let inner = Rc::clone(&handle);
    let repeating = lp
        .call_every(ns(10), move |lp| lp.reschedule(inner.get().unwrap(), lp.time()).unwrap())
        .unwrap();
    handle.set(Some(repeating));
    for _ in 0..50 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
    assert_eq!((lp.time(), lp.metrics().timers_skipped), (at(10), 0));
}

#[test]
fn s07_a_timer_due_by_now_waits_for_the_next_iteration_when_the_batch_took_long() {
    // The deadline passes while the batch runs, after the due timers have been collected, so the
    // timer is not in the batch.
    let lp = real_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.add_hook(HookPoint::AfterWait, move |lp| {
        lp.call_later(ms(2), inner.note("timer")).unwrap();
        lp.cancel(lp.current_handle().unwrap()).unwrap();
    })
    .unwrap();
    lp.call_soon(|lp| while lp.next_deadline().unwrap() > lp.time() {}).unwrap();
    lp.call_soon(trace.note("call")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(trace.take(), ["call"]);
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(trace.take(), ["timer"]);
}

#[test]
fn s08_equal_deadlines_run_in_the_order_of_scheduling() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let mut random = Random(8);
    let mut expected = Vec::new();
    let mut handles = Vec::new();
    for order in 0..2000 {
        let when = at(10 * random.below(5));
        let inner = trace.clone();
        handles.push(lp.call_at(when, move |_| inner.add((when, order))).unwrap());
        expected.push((when, order));
    }
    // Cancelling some timers must not change the order of the others.
    for order in (0..2000).rev().filter(|order| order % 3 == 0) {
        lp.cancel(handles[order]).unwrap();
        expected.remove(order);
    }
    expected.sort_unstable();
    let _ = lp.run().unwrap();
    assert_eq!(trace.take(), expected);
    assert_eq!(lp.metrics().iterations, 5);
}

#[test]
fn s08_equal_deadlines_keep_their_order_however_they_came_about() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_at(at(100), trace.note("first")).unwrap();
    let moved = lp.call_at(at(7), trace.note("fourth")).unwrap();
    lp.call_later(ns(100), trace.note("second")).unwrap();
    let inner = trace.clone();
    lp.call_at(at(50), move |lp| {
        lp.call_later(ns(50), inner.note("fifth")).unwrap();
    })
    .unwrap();
    let every = lp.call_every(ns(100), trace.note("third")).unwrap();
    lp.unref(every).unwrap();
    lp.reschedule(moved, at(100)).unwrap();
    let _ = lp.run().unwrap();
    assert_eq!(trace.take(), ["first", "second", "third", "fourth", "fifth"]);
}

#[test]
fn s08_a_repeating_timer_is_scheduled_anew_when_its_callback_begins() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.call_at(at(20), trace.note("scheduled at the start")).unwrap();
    lp.call_at(at(10), move |lp| {
        lp.call_at(at(20), inner.note("scheduled before the first call")).unwrap();
    })
    .unwrap();
    let inner = trace.clone();
    let repeating = lp
        .call_every(ns(10), move |lp| {
            inner.add("repeating");
            if lp.time() == at(10) {
                lp.call_at(at(20), inner.note("scheduled in the first call")).unwrap();
            }
        })
        .unwrap();
    lp.unref(repeating).unwrap();
    let _ = lp.run().unwrap();
    assert_eq!(
        trace.take(),
        [
            "repeating",
            "scheduled at the start",
            "scheduled before the first call",
            "repeating",
            "scheduled in the first call"
        ]
    );
}

#[test]
fn s08_deadlines_that_are_past_and_equal_keep_their_order_too() {
    let lp = virtual_loop();
    let trace = Trace::new();
    for order in 0..100 {
        let trace = trace.clone();
        lp.call_at(Time::from_nanos(order % 2), move |_| trace.add(order)).unwrap();
    }
    assert_eq!(lp.run_once(HOUR), Ok(100));
    assert_eq!(
        trace.take(),
        (0..50).map(|n| 2 * n).chain((0..50).map(|n| 2 * n + 1)).collect::<Vec<_>>()
    );
}

/// Submits an operation that completes as soon as the kernel has it.
fn nop(lp: &Loop, f: impl Fn() + 'static) {
    // SAFETY: a NOP has no pointers.
    unsafe { lp.submit(&Sqe::default(), move |_, _| f()) }.unwrap();
}

#[test]
fn s05_posts_come_before_completions_after_a_sleep() {
    // The loop spins instead of sleeping until another thread wakes it, and submits only then.
    let lp = Loop::builder().spin(Duration::from_secs(20)).build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (before, waits) = mpsc::channel();
    lp.add_hook(HookPoint::BeforeWait, move |_| before.send(()).unwrap()).unwrap();
    let by_completion = Arc::clone(&seen);
    nop(&lp, move || by_completion.lock().unwrap().push("completion"));
    let (remote, by_post) = (lp.remote(), Arc::clone(&seen));
    let poster = thread::spawn(move || {
        waits.recv().unwrap();
        // The test proves nothing if the post comes before the spin begins.
        thread::sleep(ms(2));
        remote.call_soon(move |_| by_post.lock().unwrap().push("post")).unwrap();
    });
    assert_eq!(lp.run_once(HOUR), Ok(2));
    poster.join().unwrap();
    assert_eq!(*seen.lock().unwrap(), ["post", "completion"]);
}

#[test]
fn s09_a_batch_of_completions_is_bounded_after_a_sleep() {
    let lp = Loop::builder().sq_entries(1024).build().unwrap();
    (0..1000).for_each(|_| nop(&lp, || ()));
    assert_eq!(lp.run_once(HOUR), Ok(256));
    assert_eq!(lp.metrics().completed, 256);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().callbacks, 1000);
}

#[test]
fn s09_a_batch_of_completions_is_bounded_in_a_host_loop() {
    let lp = Loop::builder().sq_entries(1024).build().unwrap();
    lp.fd().unwrap();
    (0..1000).for_each(|_| nop(&lp, || ()));
    lp.flush().unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(256));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().callbacks, 1000);
}

#[test]
fn s09_timers_are_not_bounded() {
    let lp = virtual_loop();
    for _ in 0..100_000 {
        lp.call_later(ns(10), |_| {}).unwrap();
    }
    assert_eq!(lp.run_once(HOUR), Ok(100_000));
}

#[test]
fn s05_a_timer_that_was_cancelled_costs_no_system_call() {
    let lp = real_loop();
    let now = lp.time();
    for n in 1..=60 {
        let timer = lp.call_at(now + ns(n * 100_000), |_| {}).unwrap();
        if n % 4 != 0 {
            lp.cancel(timer).unwrap();
        }
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let metrics = lp.metrics();
    assert!(
        metrics.enters <= metrics.iterations,
        "{} calls, {} iterations",
        metrics.enters,
        metrics.iterations
    );
}
