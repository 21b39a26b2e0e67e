//! S19 to S21: references that keep a run alive, nesting, signals.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use libc::{EBUSY, EINTR, EINVAL};
use ringloop::{HookPoint, Loop, Outcome, task};

use crate::signal::{self, Interruptions};
use crate::support::Watched;
use crate::trace::{
    HOUR, START, Trace, at, errno, monotonic, ms, note_time, ns, panic, panic_in, real_loop,
    virtual_loop,
};

#[test]
fn s19_run_returns_when_nothing_referenced_is_left() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.call_soon(move |lp| {
        lp.call_later(ns(10), inner.note("timer")).unwrap();
    })
    .unwrap();
    assert!(lp.is_alive());
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((trace.take(), lp.is_alive(), lp.metrics().iterations), (vec!["timer"], false, 2));
}

#[test]
fn s19_run_with_nothing_left_runs_no_iteration() {
    let lp = virtual_loop();
    lp.add_hook(HookPoint::BeforeWait, |_| panic!("a hook has run")).unwrap();
    lp.add_hook(HookPoint::AfterWait, |_| panic!("a hook has run")).unwrap();
    for unreferenced in
        [lp.call_soon(|_| {}), lp.call_later(ns(1), |_| {}), lp.call_every(ns(1), |_| {})]
    {
        lp.unref(unreferenced.unwrap()).unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((lp.metrics().iterations, lp.metrics().enters, lp.time()), (0, 0, START));
}

#[test]
fn s19_what_is_unreferenced_still_runs_while_something_else_lives() {
    let lp = virtual_loop();
    let times = Trace::new();
    let every = lp.call_every(ns(10), note_time(&times)).unwrap();
    lp.unref(every).unwrap();
    lp.call_later(ns(25), |_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(times.take(), [at(10), at(20)]);
    assert!(lp.is_pending(every) && !lp.has_ref(every));
}

#[test]
fn s19_unref_and_ref_are_not_counted() {
    let lp = virtual_loop();
    let timer = lp.call_later(ns(10), |_| {}).unwrap();
    let other = lp.call_later(ns(20), |_| {}).unwrap();
    for _ in 0..3 {
        lp.unref(timer).unwrap();
        assert!(!lp.has_ref(timer) && lp.has_ref(other) && lp.is_alive());
    }
    lp.cancel(timer).unwrap();
    assert!(lp.is_alive(), "cancelling an unreferenced timer took another's reference");
    lp.unref(other).unwrap();
    assert!(!lp.is_alive());
    for _ in 0..3 {
        lp.ref_(other).unwrap();
        assert!(lp.has_ref(other) && lp.is_alive());
    }
    lp.cancel(other).unwrap();
    assert!(!lp.is_alive(), "a reference is left without a timer");
}

#[test]
fn s19_what_ran_unreferenced_takes_no_reference_with_it() {
    let lp = virtual_loop();
    let call = lp.call_soon(|_| {}).unwrap();
    lp.unref(call).unwrap();
    let timer = lp.call_later(ns(10), |_| {}).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert!(lp.is_alive());
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(!lp.is_pending(timer));
}

#[test]
fn s19_a_repeating_timer_that_unreferences_itself_ends_the_run() {
    let lp = virtual_loop();
    let every = lp.call_every(ns(10), |lp| {
        if lp.time() >= at(30) {
            lp.unref(lp.current_handle().unwrap()).unwrap();
        }
    });
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((lp.time(), lp.is_pending(every.unwrap())), (at(30), true));
    lp.ref_(every.unwrap()).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.time(), at(40));
}

#[test]
fn s19_a_timer_stays_unreferenced_through_reschedule_and_repetition() {
    let lp = virtual_loop();
    let every = lp.call_every(ns(10), |_| {}).unwrap();
    lp.unref(every).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert!(!lp.has_ref(every) && !lp.is_alive());
    lp.reschedule(every, at(100)).unwrap();
    assert!(!lp.has_ref(every) && !lp.is_alive());
}

#[test]
fn s19_a_hook_that_ends_the_last_thing_before_the_wait_ends_the_run() {
    // On the real clock, because a failure would be a sleep without limit.
    let lp = real_loop();
    let last = lp.call_later(HOUR, |_| {}).unwrap();
    lp.add_hook(HookPoint::BeforeWait, move |lp| {
        let _ = lp.cancel(last);
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().iterations, 1);
}

#[test]
fn s19_a_hook_has_no_reference() {
    let lp = virtual_loop();
    let hook = lp.add_hook(HookPoint::BeforeWait, |_| {}).unwrap();
    assert!(!lp.has_ref(hook));
    assert_eq!(errno(lp.ref_(hook)), EINVAL);
    assert_eq!(errno(lp.unref(hook)), EINVAL);
    lp.cancel(hook).unwrap();
    assert!(!lp.is_alive());
}

#[test]
fn s19_run_forever_goes_on_with_nothing_referenced() {
    let lp = virtual_loop();
    let stop = lp.call_later(ns(50), |lp| lp.stop().unwrap()).unwrap();
    lp.unref(stop).unwrap();
    lp.call_soon(|_| {}).unwrap();
    assert!(lp.is_alive());
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    assert_eq!(lp.time(), at(50));
    let breaking = lp.call_later(ns(50), |lp| lp.break_().unwrap()).unwrap();
    lp.unref(breaking).unwrap();
    assert!(!lp.is_alive());
    assert_eq!(lp.run_forever(), Ok(Outcome::Broken));
}

#[test]
fn s19_run_once_sleeps_all_of_its_limit_when_nothing_wakes_it() {
    let lp = real_loop();
    let begin = monotonic();
    assert_eq!(lp.run_once(ms(20)), Ok(0));
    assert!(monotonic() >= begin + ms(20));
    let m = lp.metrics();
    assert_eq!((m.iterations, m.enters), (1, 1));
    assert!(m.asleep_ns >= 20_000_000, "{}", m.asleep_ns);
    // The same with a timer that is later than the limit.
    lp.call_later(HOUR, |_| {}).unwrap();
    let begin = monotonic();
    assert_eq!(lp.run_once(ns(1_234_567)), Ok(0));
    assert!(monotonic() >= begin + ns(1_234_567));
}

#[test]
fn s19_run_once_sleeps_all_of_its_limit_though_a_cancelled_timer_was_armed() {
    // The kernel has the deadline of a timer that is cancelled before the loop sleeps. Nothing is
    // left that may wake the loop.
    let lp = real_loop();
    lp.fd().unwrap();
    let timer = lp.call_later(ms(3), |_| {}).unwrap();
    lp.flush().unwrap();
    lp.cancel(timer).unwrap();
    let begin = monotonic();
    assert_eq!(lp.run_once(ms(30)), Ok(0));
    assert!(monotonic() >= begin + ms(30), "the loop woke up for a cancelled timer");
}

#[test]
fn s19_run_once_on_an_empty_loop_is_an_iteration() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.add_hook(HookPoint::BeforeWait, trace.note("hook")).unwrap();
    assert_eq!(lp.run_once(ns(10)), Ok(0));
    assert_eq!((lp.time(), lp.metrics().iterations, trace.take()), (at(10), 1, vec!["hook"]));
}

/// Checks that each function that runs the loop returns EBUSY.
fn check_busy(lp: &Loop) {
    assert!(lp.is_running());
    assert_eq!(errno(lp.run()), EBUSY);
    assert_eq!(errno(lp.run_forever()), EBUSY);
    assert_eq!(errno(lp.run_once(Duration::ZERO)), EBUSY);
    assert_eq!(errno(lp.shutdown()), EBUSY);
    assert!(lp.is_running(), "a refused run ended the current run");
}

#[test]
fn s20_running_a_running_loop_is_refused_everywhere() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let check = |what: &'static str| {
        let trace = trace.clone();
        move |lp: &Loop| {
            check_busy(lp);
            trace.add(what);
        }
    };
    let in_handler = check("exception handler");
    lp.set_exception_handler(move |lp, _| in_handler(lp)).unwrap();
    let in_report = check("slow callback");
    let first = Cell::new(true);
    lp.set_slow_callback(ns(1), move |lp, _| {
        if first.take() {
            in_report(lp);
        }
    })
    .unwrap();
    let before = lp.add_hook(HookPoint::BeforeWait, check("hook")).unwrap();
    let after = lp.add_hook(HookPoint::AfterWait, check("hook")).unwrap();
    let call = lp.call_soon(check("call")).unwrap();
    lp.on_release(call, check("release")).unwrap();
    lp.call_soon(|_| panic("callback")).unwrap();
    lp.call_at(START, check("timer")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(3));
    assert!(!lp.is_running());
    lp.cancel(before).unwrap();
    lp.cancel(after).unwrap();
    let mut seen = trace.take();
    seen.sort_unstable();
    assert_eq!(
        seen,
        ["call", "exception handler", "hook", "hook", "release", "slow callback", "timer"]
    );
    // The refusals have lost nothing.
    lp.call_soon(trace.note("call")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

#[test]
fn s20_a_refused_run_leaves_stop_and_break_alone() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(|lp| {
        lp.stop().unwrap();
        check_busy(lp);
    })
    .unwrap();
    lp.call_later(ns(10), trace.note("timer")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
    lp.call_soon(|lp| {
        lp.break_().unwrap();
        check_busy(lp);
    })
    .unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    assert_eq!(trace.len(), 0);
}

#[test]
fn s20_another_loop_may_be_run_inside_a_callback_while_the_outer_one_waits() {
    let outer = virtual_loop();
    let trace = Trace::new();
    let inner_trace = trace.clone();
    outer
        .call_soon(move |outer| {
            let inner = virtual_loop();
            inner.call_soon(inner_trace.note("inner call")).unwrap();
            inner.call_later(HOUR, inner_trace.note("inner timer")).unwrap();
            // A call that the nested run schedules on the outer loop runs there, later.
            outer.call_soon(inner_trace.note("outer, scheduled while nested")).unwrap();
            assert_eq!(inner.run(), Ok(Outcome::Done));
            assert_eq!((inner.time(), outer.time()), (START + HOUR, START));
            assert!(outer.is_running() && !inner.is_running());
            inner_trace.add("nested run returns");
        })
        .unwrap();
    outer.call_soon(trace.note("outer call")).unwrap();
    outer.call_at(START, trace.note("outer timer")).unwrap();
    assert_eq!(outer.run(), Ok(Outcome::Done));
    assert_eq!(
        trace.take(),
        [
            "inner call",
            "inner timer",
            "nested run returns",
            "outer call",
            "outer timer",
            "outer, scheduled while nested"
        ]
    );
    assert_eq!((outer.metrics().iterations, outer.metrics().callbacks), (2, 4));
}

#[test]
fn s20_the_outer_loop_cannot_be_run_by_a_callback_of_the_inner_one() {
    let outer = Rc::new(virtual_loop());
    let weak = Rc::downgrade(&outer);
    outer
        .call_soon(move |_| {
            let inner = virtual_loop();
            inner.call_soon(move |inner| check_both_busy(inner, &weak.upgrade().unwrap())).unwrap();
            assert_eq!(inner.run(), Ok(Outcome::Done));
        })
        .unwrap();
    assert_eq!(outer.run(), Ok(Outcome::Done));

    fn check_both_busy(inner: &Loop, outer: &Loop) {
        check_busy(inner);
        check_busy(outer);
    }
}

#[test]
fn s20_stop_and_break_are_for_the_loop_they_are_said_to() {
    let outer = Rc::new(virtual_loop());
    let trace = Trace::new();
    let (weak, inner_trace) = (Rc::downgrade(&outer), trace.clone());
    outer
        .call_soon(move |_| {
            let inner = virtual_loop();
            inner.call_soon(move |_| weak.upgrade().unwrap().break_().unwrap()).unwrap();
            inner.call_soon(inner_trace.note("inner")).unwrap();
            assert_eq!(inner.run(), Ok(Outcome::Done));
            inner.call_soon(|inner| inner.stop().unwrap()).unwrap();
            inner.call_later(ns(10), |_| {}).unwrap();
            assert_eq!(inner.run(), Ok(Outcome::Stopped));
        })
        .unwrap();
    outer.call_soon(trace.note("outer rest")).unwrap();
    assert_eq!(outer.run(), Ok(Outcome::Broken));
    assert_eq!(trace.take(), ["inner"]);
    assert_eq!(outer.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["outer rest"]);
}

#[test]
fn s20_the_innermost_running_loop_is_known() {
    fn is_innermost(lp: &Loop) -> bool {
        Loop::with_running(|running| running.is_some_and(|running| std::ptr::eq(running, lp)))
    }
    assert!(Loop::with_running(|running| running.is_none()));
    let outer = virtual_loop();
    outer
        .call_soon(|outer| {
            assert!(is_innermost(outer));
            let inner = virtual_loop();
            inner.call_soon(|inner| assert!(is_innermost(inner))).unwrap();
            inner.call_soon(|_| panic("callback")).unwrap();
            assert!(is_innermost(outer), "the inner loop does not run yet");
            assert_eq!(panic_in(|| inner.run()), Some("callback"));
            assert!(is_innermost(outer), "a panic has ended the inner loop");
        })
        .unwrap();
    assert_eq!(outer.run(), Ok(Outcome::Done));
    assert!(Loop::with_running(|running| running.is_none()));
}

const SIGNALS: [(libc::c_int, libc::c_int); 2] =
    [(libc::SIGUSR1, 0), (libc::SIGUSR2, libc::SA_RESTART)];

#[test]
fn s21_run_once_says_that_a_signal_ended_its_wait() {
    for (signal, flags) in SIGNALS {
        let lp = real_loop();
        let timer = lp.call_later(HOUR, |_| {}).unwrap();
        let _interruptions = Interruptions::begin(signal, flags);
        // The first wait also submits the timeout; the others have nothing to submit.
        for iteration in 1..=5 {
            assert_eq!(errno(lp.run_once(HOUR)), EINTR);
            assert_eq!((lp.metrics().iterations, lp.metrics().callbacks), (iteration, 0));
        }
        assert!(lp.is_pending(timer));
        lp.call_soon(|_| {}).unwrap();
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
}

#[test]
fn s21_a_loop_spins_before_its_wait_and_not_after_a_signal() {
    let spin = ms(20);
    let lp = Watched::new(Loop::builder().spin(spin).build().unwrap());
    let _interruptions = Interruptions::begin(libc::SIGUSR1, 0);
    let spins_once = |_| {
        let begin = monotonic();
        assert_eq!(errno(lp.run_once(HOUR)), EINTR);
        monotonic() - begin < 2 * spin
    };
    // A busy machine may slow down some of the rounds.
    assert!((0..50).any(spins_once));
}

#[test]
fn s21_run_once_without_a_timer_is_interrupted_too() {
    let lp = real_loop();
    let _interruptions = Interruptions::begin(libc::SIGUSR1, 0);
    for _ in 0..3 {
        assert_eq!(errno(lp.run_once(Duration::MAX)), EINTR);
        assert_eq!(errno(lp.run_once(HOUR)), EINTR);
    }
}

#[test]
fn s21_run_once_is_not_interrupted_when_a_callback_ran_or_it_did_not_sleep() {
    let lp = real_loop();
    let _interruptions = Interruptions::begin(libc::SIGUSR1, 0);
    let begin = signal::received();
    lp.call_later(ms(20), |_| {}).unwrap();
    let result = loop {
        match lp.run_once(HOUR) {
            Err(error) => assert_eq!(error.raw_os_error(), EINTR),
            Ok(ran) => break ran,
        }
    };
    assert_eq!(result, 1);
    let before = signal::received();
    assert!(before > begin);
    while signal::received() < before + 3 {
        assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
        lp.call_soon(|_| {}).unwrap();
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
}

#[test]
fn s21_one_signal_is_enough() {
    for submits in [true, false] {
        // A signal that comes before the loop sleeps interrupts nothing; then the test tries again.
        let interrupted = (0..50).any(|_| {
            let lp = real_loop();
            if !submits {
                // The kernel has the deadline already, so the wait has nothing to submit.
                lp.call_later(ms(500), |_| {}).unwrap();
                lp.fd().unwrap();
            }
            let _interruption = Interruptions::once(libc::SIGUSR1, ms(20));
            match lp.run_once(ms(500)) {
                Err(error) => error.raw_os_error() == EINTR,
                Ok(_) => false,
            }
        });
        assert!(interrupted, "50 signals came, and no wait returned EINTR");
    }
}

#[test]
fn s21_an_interrupted_wait_after_which_a_callback_ran_is_no_error() {
    let lp = real_loop();
    let _interruptions = Interruptions::begin(libc::SIGUSR1, 0);
    lp.add_hook(HookPoint::AfterWait, |lp| assert!(lp.call_soon(|_| {}).is_ok())).unwrap();
    for _ in 0..5 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
    assert!(lp.metrics().asleep_ns > 0);
}

#[test]
fn s21_an_interrupted_wait_goes_on_in_run_and_run_forever() {
    for run in [Loop::run, Loop::run_forever] {
        for (signal, flags) in SIGNALS {
            let lp = real_loop();
            let period = ms(10);
            lp.call_every(period, move |lp| {
                assert!(lp.time() + period >= lp.when(lp.current_handle().unwrap()).unwrap());
                // The iterations that did not reach this callback were ended by a signal.
                let m = lp.metrics();
                if m.iterations >= m.timers_fired + 5 {
                    lp.stop().unwrap();
                }
            })
            .unwrap();
            let _interruptions = Interruptions::begin(signal, flags);
            assert_eq!(run(&lp), Ok(Outcome::Stopped));
        }
    }
}

#[test]
fn s21_an_interruption_does_not_use_up_a_stop() {
    let lp = real_loop();
    let _interruptions = Interruptions::begin(libc::SIGUSR1, 0);
    assert_eq!(errno(lp.run_once(HOUR)), EINTR);
    lp.stop().unwrap();
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    assert_eq!(lp.metrics().iterations, 2);
}

#[test]
fn s20_the_current_loop_is_the_innermost_that_runs_and_can_be_kept() {
    assert_eq!(errno(Loop::current()), EINVAL);
    let (outer, inner) = (virtual_loop(), Rc::new(virtual_loop()));
    let kept = outer.run_until_complete(async {
        let current = Loop::current()?;
        let trace = Trace::new();
        assert_eq!((current.time(), current.with(Loop::is_running)), (Ok(at(0)), Ok(true)));
        current.call_later(ns(5), trace.note("timer"))?;
        current.call_soon(trace.note("call"))?;
        let task = current.spawn(async { 7 })?;
        let cancelled = current.call_at(at(1), trace.note("cancelled"))?;
        current.cancel(cancelled)?;
        task::sleep(ns(10)).await?;
        assert_eq!(
            (trace.take(), task.await.unwrap(), current.time()),
            (vec!["call", "timer"], 7, Ok(at(10)))
        );
        // While another loop runs inside, the other loop is the current one.
        let (nested, kept) = (Rc::clone(&inner), current.clone());
        let told = Rc::new(Cell::new(false));
        let tell = Rc::clone(&told);
        current.call_soon(move |_| {
            nested
                .call_soon(move |lp| {
                    assert_eq!(errno(kept.time()), EINVAL);
                    let is_it = Loop::current().unwrap().with(|current| std::ptr::eq(current, lp));
                    tell.set(is_it == Ok(true));
                })
                .unwrap();
            assert_eq!(nested.run(), Ok(Outcome::Done));
        })?;
        task::yield_now().await;
        task::yield_now().await;
        assert!(told.get());
        ringloop::Result::Ok(current)
    });
    let kept = kept.unwrap().unwrap();
    // The loop is between two runs, and then closed.
    assert_eq!(errno(kept.call_soon(|_| {})), EINVAL);
    kept.remote().call_soon(|_| {}).unwrap();
    outer.close().unwrap();
    assert_eq!((errno(kept.time()), errno(kept.remote().wakeup())), (EINVAL, libc::ESHUTDOWN));
}
