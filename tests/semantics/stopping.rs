//! S17, S18: stop and break.

use std::time::Duration;

use libc::EINVAL;
use ringloop::{HookPoint, Loop, Outcome, Time};

use crate::trace::{HOUR, START, Trace, at, errno, ns, panic, panic_in, real_loop, virtual_loop};

#[test]
fn s17_stop_lets_the_batch_finish() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(trace.note("first")).unwrap();
    lp.call_soon(|lp| lp.stop().unwrap()).unwrap();
    lp.call_soon(trace.note("third")).unwrap();
    lp.call_at(Time::default(), trace.note("due timer")).unwrap();
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    assert_eq!((trace.take(), lp.metrics().iterations), (vec!["first", "third", "due timer"], 1));
}

#[test]
fn s17_what_the_stopped_batch_scheduled_stays_for_the_next_run() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.call_soon(move |lp| {
        lp.call_soon(inner.note("call")).unwrap();
        lp.stop().unwrap();
        lp.call_at(Time::default(), inner.note("due timer")).unwrap();
        lp.call_later(ns(10), inner.note("timer")).unwrap();
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
    assert_eq!(trace.take(), Vec::<&str>::new());
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["call", "due timer", "timer"]);
}

#[test]
fn s17_stop_in_the_last_callback_is_told() {
    let lp = virtual_loop();
    lp.call_soon(|lp| lp.stop().unwrap()).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

#[test]
fn s17_stop_before_a_run_is_one_iteration_without_sleep() {
    for run in [Loop::run, Loop::run_forever] {
        let lp = virtual_loop();
        let trace = Trace::new();
        lp.call_later(ns(1000), trace.note("timer")).unwrap();
        lp.stop().unwrap();
        assert_eq!(run(&lp), Ok(Outcome::Stopped));
        assert_eq!((lp.time(), lp.metrics().iterations, trace.len()), (START, 1, 0));
        // The flag is cleared, so the next run continues to its end.
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!((lp.time(), trace.take()), (at(1000), vec!["timer"]));
    }
}

#[test]
fn s17_stop_before_a_run_still_runs_what_is_ready_once() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.call_soon(move |lp| {
        inner.add("first");
        lp.call_soon(inner.note("second")).unwrap();
    })
    .unwrap();
    lp.call_at(START, trace.note("due timer")).unwrap();
    lp.stop().unwrap();
    lp.stop().unwrap();
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    assert_eq!((trace.take(), lp.metrics().iterations), (vec!["first", "due timer"], 1));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["second"]);
}

#[test]
fn s17_stop_before_a_run_on_the_real_clock_does_not_sleep() {
    let lp = real_loop();
    lp.call_later(HOUR, |_| {}).unwrap();
    lp.stop().unwrap();
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    assert_eq!((lp.metrics().iterations, lp.metrics().asleep_ns, lp.metrics().enters), (1, 0, 0));
}

#[test]
fn s17_run_once_consumes_a_stop() {
    let lp = virtual_loop();
    lp.call_later(ns(1000), |_| {}).unwrap();
    lp.stop().unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(0));
    assert_eq!(lp.time(), START);
    assert_eq!(lp.run_once(ns(10)), Ok(0));
    assert_eq!(lp.time(), at(10), "the stop was still set");
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.time(), at(1000));
}

#[test]
fn s17_run_once_consumes_a_stop_of_its_own_callbacks() {
    let lp = virtual_loop();
    lp.call_soon(|lp| lp.stop().unwrap()).unwrap();
    lp.call_later(ns(10), |_| {}).unwrap();
    lp.call_later(ns(20), |_| {}).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.time(), at(20));
}

#[test]
fn s17_run_once_counts_every_callback_and_no_hook() {
    let lp = virtual_loop();
    lp.add_hook(HookPoint::BeforeWait, |_| {}).unwrap();
    lp.add_hook(HookPoint::AfterWait, |_| {}).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    let call = lp.call_soon(|_| {}).unwrap();
    lp.on_release(call, |_| {}).unwrap();
    let cancelled = lp.call_soon(|_| {}).unwrap();
    lp.cancel(cancelled).unwrap();
    lp.call_at(START, |_| {}).unwrap();
    lp.call_every(ns(1), |_| {}).map(|handle| lp.reschedule(handle, START)).unwrap().unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(3));
}

#[test]
fn s17_a_stop_asked_for_by_a_hook_counts_in_its_iteration() {
    for point in [HookPoint::BeforeWait, HookPoint::AfterWait] {
        let lp = virtual_loop();
        let trace = Trace::new();
        lp.add_hook(point, |lp| lp.stop().unwrap()).unwrap();
        lp.call_later(ns(10), trace.note("timer")).unwrap();
        assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
        assert_eq!(lp.metrics().iterations, 1);
        match point {
            HookPoint::BeforeWait => {
                assert_eq!((lp.time(), trace.len()), (START, 0), "the loop has slept")
            }
            HookPoint::AfterWait => assert_eq!((lp.time(), trace.len()), (at(10), 1)),
        }
    }
}

#[test]
fn s17_a_run_with_nothing_left_clears_the_stop() {
    let lp = virtual_loop();
    lp.stop().unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().iterations, 0);
    lp.call_later(ns(10), |_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.time(), at(10));
}

#[test]
fn s17_a_run_that_ends_with_a_panic_keeps_the_stop() {
    let lp = virtual_loop();
    lp.call_soon(|lp| {
        lp.stop().unwrap();
        panic("callback")
    })
    .unwrap();
    lp.call_later(ns(10), |_| {}).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("callback"));
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
    assert_eq!(lp.time(), START);
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

#[test]
fn s18_break_leaves_the_rest_of_the_batch_in_order() {
    for run in [Loop::run, Loop::run_forever] {
        let lp = virtual_loop();
        let trace = Trace::new();
        let inner = trace.clone();
        lp.call_at(Time::default(), trace.note("due timer")).unwrap();
        lp.call_soon(trace.note("first")).unwrap();
        lp.call_soon(move |lp| {
            lp.call_soon(inner.note("new")).unwrap();
            lp.break_().unwrap();
            inner.add("the callback goes on to its end");
        })
        .unwrap();
        lp.call_soon(trace.note("third")).unwrap();
        assert_eq!(run(&lp), Ok(Outcome::Broken));
        assert_eq!(trace.take(), ["first", "the callback goes on to its end"]);
        lp.call_soon(trace.note("newer")).unwrap();
        assert_eq!(lp.run_once(HOUR), Ok(4));
        assert_eq!(trace.take(), ["third", "due timer", "new", "newer"]);
        assert_eq!((lp.metrics().iterations, lp.metrics().callbacks), (2, 6));
    }
}

#[test]
fn s18_breaking_again_and_again_takes_one_callback_a_run() {
    let lp = virtual_loop();
    let trace = Trace::new();
    for order in 0..50 {
        let trace = trace.clone();
        lp.call_soon(move |lp| {
            trace.add(order);
            let trace = trace.clone();
            lp.call_soon(move |_| trace.add(100 + order)).unwrap();
            lp.break_().unwrap();
        })
        .unwrap();
    }
    for order in 0..50 {
        assert_eq!(lp.run(), Ok(Outcome::Broken));
        assert_eq!(trace.take(), [order]);
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), (100..150).collect::<Vec<_>>());
}

#[test]
fn s18_the_rest_of_a_batch_does_not_let_the_next_run_sleep() {
    let lp = virtual_loop();
    lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
    lp.call_soon(|_| {}).unwrap();
    lp.call_later(ns(10), |_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    assert!(lp.is_alive());
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.time(), START);
}

#[test]
fn s18_what_becomes_due_later_runs_after_the_rest() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    lp.call_at(Time::default(), trace.note("due timer")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["rest", "due timer"]);
}

#[test]
fn s18_break_wins_over_stop_and_both_are_cleared() {
    for stop_first in [false, true] {
        let lp = virtual_loop();
        let trace = Trace::new();
        lp.call_soon(move |lp| {
            if stop_first {
                lp.stop().unwrap();
            }
            lp.break_().unwrap();
            if !stop_first {
                lp.stop().unwrap();
            }
        })
        .unwrap();
        lp.call_soon(trace.note("rest")).unwrap();
        lp.call_later(ns(10), trace.note("timer")).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Broken));
        assert_eq!(trace.len(), 0);
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["rest", "timer"]);
    }
}

#[test]
fn s18_break_wins_over_a_stop_from_before_the_run() {
    let lp = virtual_loop();
    lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
    lp.call_soon(|_| {}).unwrap();
    lp.stop().unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

#[test]
fn s18_outside_a_running_loop_break_is_refused_and_changes_nothing() {
    let lp = virtual_loop();
    let trace = Trace::new();
    assert_eq!(errno(lp.break_()), EINVAL);
    lp.call_soon(trace.note("call")).unwrap();
    assert_eq!(errno(lp.break_()), EINVAL);
    let cancelled = lp.call_later(HOUR, |_| {}).unwrap();
    lp.on_release(cancelled, |lp| assert_eq!(errno(lp.break_()), EINVAL)).unwrap();
    lp.cancel(cancelled).unwrap();
    lp.walk(|lp, _| assert_eq!(errno(lp.break_()), EINVAL)).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["call"]);
    assert_eq!(errno(lp.break_()), EINVAL);
    lp.call_soon(trace.note("call")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["call"]);
}

#[test]
fn s18_run_once_can_be_broken_off() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(trace.note("first")).unwrap();
    lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
    lp.call_soon(trace.note("third")).unwrap();
    assert_eq!((lp.run_once(HOUR), trace.take()), (Ok(2), vec!["first"]));
    assert_eq!((lp.run_once(HOUR), trace.take()), (Ok(1), vec!["third"]));
    assert_eq!(errno(lp.break_()), EINVAL);
}

#[test]
fn s18_a_release_hook_inside_a_run_can_break_it_off() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let call = lp.call_soon(trace.note("first")).unwrap();
    lp.on_release(call, |lp| lp.break_().unwrap()).unwrap();
    lp.call_soon(trace.note("second")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    assert_eq!(trace.take(), ["first"]);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["second"]);
}

#[test]
fn s18_a_hook_can_break_the_run_off() {
    for point in [HookPoint::BeforeWait, HookPoint::AfterWait] {
        let lp = virtual_loop();
        let trace = Trace::new();
        let hook = lp.add_hook(point, |lp| lp.break_().unwrap()).unwrap();
        lp.call_soon(trace.note("call")).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Broken));
        assert_eq!(trace.len(), 0);
        lp.cancel(hook).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["call"]);
    }
}

#[test]
fn s18_a_break_ends_with_a_panic() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(|lp| {
        lp.break_().unwrap();
        panic("callback")
    })
    .unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("callback"));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["rest", "rest"]);
}
