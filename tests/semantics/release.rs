//! S14: release hooks.

use std::rc::Rc;

use libc::ENOENT;
use ringloop::{HookPoint, Loop, Outcome, Time};

use crate::trace::{
    HOUR, START, Trace, at, check_stale, errno, later, ns, panic, panic_in, payload, virtual_loop,
};

#[test]
fn s14_a_release_hook_runs_once_when_a_one_shot_has_run() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let captured = trace.on_drop("drop");
    let inner = trace.clone();
    let call = lp.call_soon(move |_| {
        inner.add("call");
        let _moved = &captured;
    });
    lp.on_release(call.unwrap(), trace.note("release of call")).unwrap();
    let timer = lp.call_later(ns(1), trace.note("timer")).unwrap();
    lp.on_release(timer, trace.note("release of timer")).unwrap();
    assert_eq!(trace.take(), Vec::<&str>::new());
    let _ = lp.run().unwrap();
    assert_eq!(trace.take(), ["call", "drop", "release of call", "timer", "release of timer"]);
    lp.close().unwrap();
    assert_eq!(trace.take(), Vec::<&str>::new());
}

#[test]
fn s14_a_release_hook_runs_when_its_callback_returns_not_later() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let first = lp.call_soon(trace.note("first")).unwrap();
    lp.call_soon(trace.note("second")).unwrap();
    lp.on_release(first, trace.note("release of first")).unwrap();
    let _ = lp.run().unwrap();
    assert_eq!(trace.take(), ["first", "release of first", "second"]);
}

#[test]
fn s14_a_release_hook_runs_before_cancel_returns() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let captured = trace.on_drop("drop");
    let timer = lp.call_later(HOUR, move |_| drop(captured)).unwrap();
    lp.on_release(timer, trace.note("release")).unwrap();
    lp.cancel(timer).unwrap();
    assert_eq!(trace.take(), ["drop", "release"]);
    assert_eq!(errno(lp.cancel(timer)), ENOENT);
    lp.close().unwrap();
    assert_eq!(trace.take(), Vec::<&str>::new());
}

#[test]
fn s14_a_release_hook_runs_when_cancelled_in_the_batch() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (victim, inner) = later();
    let inner_trace = trace.clone();
    lp.call_soon(move |lp| {
        lp.cancel(inner.get().unwrap()).unwrap();
        inner_trace.add("cancel has returned");
    })
    .unwrap();
    victim.set(Some(lp.call_soon(|_| panic!("a cancelled call has run")).unwrap()));
    lp.on_release(victim.get().unwrap(), trace.note("release")).unwrap();
    let _ = lp.run().unwrap();
    assert_eq!(trace.take(), ["release", "cancel has returned"]);
}

#[test]
fn s14_a_release_hook_of_a_repeating_timer_waits_for_the_last_call() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let repeating = lp.call_every(ns(10), trace.note("call")).unwrap();
    lp.on_release(repeating, trace.note("release")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(trace.take(), ["call", "call"]);
    lp.cancel(repeating).unwrap();
    assert_eq!(trace.take(), ["release"]);
}

#[test]
fn s14_a_release_hook_never_runs_while_its_callback_is_on_the_stack() {
    let lp = virtual_loop();
    let trace = Trace::new();
    for point in [None, Some(HookPoint::BeforeWait), Some(HookPoint::AfterWait)] {
        let (own, inner) = later();
        let inner_trace = trace.clone();
        let captured = trace.on_drop("drop");
        let callback = move |lp: &Loop| {
            lp.cancel(inner.get().unwrap()).unwrap();
            inner_trace.add("cancel has returned");
            let _carried = &captured;
        };
        let handle = match point {
            None => lp.call_every(ns(10), callback),
            Some(point) => lp.add_hook(point, callback),
        };
        own.set(Some(handle.unwrap()));
        lp.on_release(handle.unwrap(), trace.note("release")).unwrap();
        assert_eq!(lp.run_once(ns(10)), Ok(usize::from(point.is_none())));
        assert_eq!(trace.take(), ["cancel has returned", "drop", "release"]);
    }
}

#[test]
fn s14_a_release_hook_waits_for_its_callback_even_if_another_loop_cancels() {
    // The callback of a repeating timer runs another loop; a callback of the other loop cancels the
    // timer.
    let lp = Rc::new(virtual_loop());
    let trace = Trace::new();
    let (own, inner) = later();
    let (inner_trace, outer) = (trace.clone(), Rc::downgrade(&lp));
    let repeating = lp.call_every(ns(10), move |_| {
        let other = virtual_loop();
        let (own, outer, trace) = (Rc::clone(&inner), outer.clone(), inner_trace.clone());
        other
            .call_soon(move |_| {
                outer.upgrade().unwrap().cancel(own.get().unwrap()).unwrap();
                trace.add("cancel has returned");
            })
            .unwrap();
        let _ = other.run().unwrap();
        inner_trace.add("callback returns");
    });
    own.set(Some(repeating.unwrap()));
    lp.on_release(repeating.unwrap(), trace.note("release")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["cancel has returned", "callback returns", "release"]);
}

#[test]
fn s14_a_release_hook_runs_at_close() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let token = Rc::new(());
    for handle in [
        lp.call_soon(trace.note("callback")).unwrap(),
        lp.call_later(ns(5), trace.note("callback")).unwrap(),
        lp.call_at(Time::NEVER, trace.note("callback")).unwrap(),
        lp.call_every(ns(5), trace.note("callback")).unwrap(),
        lp.add_hook(HookPoint::BeforeWait, trace.note("callback")).unwrap(),
        lp.add_hook(HookPoint::AfterWait, trace.note("callback")).unwrap(),
    ] {
        let (trace, token) = (trace.clone(), Rc::clone(&token));
        lp.on_release(handle, move |_| {
            drop(token);
            trace.add("release");
        })
        .unwrap();
    }
    lp.close().unwrap();
    assert_eq!(trace.take(), ["release"; 6]);
    assert_eq!(Rc::strong_count(&token), 1);
}

#[test]
fn s14_a_release_hook_may_call_any_function() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (victim, inner) = later();
    let inner_trace = trace.clone();
    let handle = lp.call_later(HOUR, |_| {}).unwrap();
    victim.set(Some(lp.call_later(HOUR, |_| panic!("a cancelled timer has run")).unwrap()));
    lp.on_release(victim.get().unwrap(), trace.note("release of victim")).unwrap();
    lp.on_release(handle, move |lp| {
        check_stale(lp, handle);
        lp.cancel(inner.get().unwrap()).unwrap();
        lp.call_soon(inner_trace.note("call")).unwrap();
        let timer = lp.call_later(ns(5), inner_trace.note("timer")).unwrap();
        lp.reschedule(timer, at(7)).unwrap();
        lp.walk(|_, _| {}).unwrap();
        assert_eq!(
            (lp.metrics().timers_cancelled, lp.time(), lp.current_handle()),
            (2, START, None)
        );
        lp.stop().unwrap();
        inner_trace.add("release");
    })
    .unwrap();
    lp.cancel(handle).unwrap();
    assert_eq!(trace.take(), ["release of victim", "release"]);
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((trace.take(), lp.time()), (vec!["call", "timer"], at(7)));
}

#[test]
fn s14_a_release_hook_that_is_replaced_is_dropped_without_being_run() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let handle = lp.call_soon(|_| {}).unwrap();
    let captured = trace.on_drop("drop of the first");
    lp.on_release(handle, move |_| {
        let _carried = &captured;
        panic!("a hook that was replaced has run");
    })
    .unwrap();
    lp.on_release(handle, trace.note("second")).unwrap();
    assert_eq!(trace.take(), ["drop of the first"]);
    let _ = lp.run().unwrap();
    assert_eq!(trace.take(), ["second"]);
}

#[test]
fn s14_a_release_hook_can_be_set_in_the_callback_of_a_repeating_timer() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.call_every(ns(10), move |lp| {
        lp.on_release(lp.current_handle().unwrap(), inner.note("release")).unwrap();
        lp.cancel(lp.current_handle().unwrap()).unwrap();
        inner.add("callback returns");
    })
    .unwrap();
    let _ = lp.run().unwrap();
    assert_eq!(trace.take(), ["callback returns", "release"]);
}

#[test]
fn s14_a_release_hook_runs_once_though_its_callback_panics() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let call = lp.call_soon(|_| panic("callback")).unwrap();
    lp.on_release(call, trace.note("release")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("callback"));
    assert_eq!(trace.take(), ["release"]);
    let repeating = lp.call_every(ns(1), |lp| {
        lp.cancel(lp.current_handle().unwrap()).unwrap();
        panic("callback")
    });
    lp.on_release(repeating.unwrap(), trace.note("release")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("callback"));
    assert_eq!(trace.take(), ["release"]);
}

#[test]
fn s14_a_repeating_timer_that_panics_is_not_released() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let repeating = lp.call_every(ns(10), |_| panic("callback")).unwrap();
    lp.on_release(repeating, trace.note("release")).unwrap();
    let seen = Trace::new();
    let inner = seen.clone();
    lp.set_exception_handler(move |_, caught| inner.add(payload(&*caught))).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(
        (seen.take(), trace.len(), lp.is_pending(repeating)),
        (vec!["callback"; 2], 0, true)
    );
}
