//! S15, S16: rescheduling, repeating.

use std::time::Duration;

use libc::EINVAL;
use ringloop::{HookPoint, Loop, Outcome, Time};

use crate::support::Watched;
use crate::trace::{
    HOUR, START, Trace, at, be_busy, check_stale, errno, later, ms, note_time, ns, real_loop,
    virtual_loop,
};

#[test]
fn s15_a_timer_is_pending_until_its_callback_begins() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (second, inner) = later();
    let inner_trace = trace.clone();
    lp.call_at(at(10), move |lp| {
        // The second timer is behind this one in the batch.
        let second = inner.get().unwrap();
        assert!(lp.is_pending(second) && lp.has_ref(second));
        assert_eq!(lp.when(second), Ok(at(10)));
        assert_eq!(lp.skipped(second), Ok(0));
        inner_trace.add("first");
    })
    .unwrap();
    second.set(Some(lp.call_at(at(10), trace.note("second")).unwrap()));
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(trace.take(), ["first", "second"]);
}

#[test]
fn s15_rescheduling_takes_a_timer_out_of_the_batch() {
    for (target, expected) in
        [(at(50), at(50)), (at(10), at(10)), (at(0), at(10)), (Time::default(), at(10))]
    {
        let lp = virtual_loop();
        let ran = Trace::new();
        let (victim, inner) = later();
        lp.call_at(at(10), move |lp| {
            let victim = inner.get().unwrap();
            lp.reschedule(victim, target).unwrap();
            assert!(lp.is_pending(victim));
            assert_eq!(lp.when(victim), Ok(target));
            assert_eq!(lp.next_deadline(), Some(target));
        })
        .unwrap();
        victim.set(Some(lp.call_at(at(10), note_time(&ran)).unwrap()));
        assert_eq!(lp.run_once(HOUR), Ok(1), "a rescheduled timer has run in its batch");
        assert_eq!(ran.len(), 0);
        assert_eq!(lp.run_once(HOUR), Ok(1));
        assert_eq!(ran.take(), [expected]);
        assert!(!lp.is_alive());
    }
}

#[test]
fn s15_rescheduling_to_never_in_the_batch_keeps_the_timer() {
    let lp = virtual_loop();
    let ran = Trace::new();
    let (victim, inner) = later();
    lp.call_at(at(10), move |lp| lp.reschedule(inner.get().unwrap(), Time::NEVER).unwrap())
        .unwrap();
    victim.set(Some(lp.call_at(at(10), note_time(&ran)).unwrap()));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run_once(HOUR), Ok(0));
    assert!(lp.is_pending(victim.get().unwrap()));
    lp.reschedule(victim.get().unwrap(), at(20)).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
}

#[test]
fn s15_cancelling_a_timer_that_stands_in_the_batch() {
    let lp = virtual_loop();
    let (victim, inner) = later();
    lp.call_at(at(10), move |lp| {
        lp.cancel(inner.get().unwrap()).unwrap();
        check_stale(lp, inner.get().unwrap());
    })
    .unwrap();
    victim.set(Some(lp.call_at(at(10), |_| panic!("a cancelled timer has run")).unwrap()));
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

#[test]
fn s15_the_rest_of_a_broken_batch_is_still_pending() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_at(at(10), |lp| lp.break_().unwrap()).unwrap();
    let cancelled = lp.call_at(at(10), trace.note("cancelled")).unwrap();
    let moved = lp.call_at(at(10), trace.note("moved")).unwrap();
    let kept = lp.call_at(at(10), trace.note("kept")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    for handle in [cancelled, moved, kept] {
        assert_eq!((lp.is_pending(handle), lp.when(handle)), (true, Ok(at(10))));
    }
    lp.cancel(cancelled).unwrap();
    lp.reschedule(moved, at(20)).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!((trace.take(), lp.time(), lp.is_alive()), (vec!["kept", "moved"], at(20), false));
}

#[test]
fn s15_rescheduling_keeps_the_handle_and_goes_behind_others_with_the_same_deadline() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let a = lp.call_at(at(10), trace.note("a")).unwrap();
    lp.call_at(at(10), trace.note("b")).unwrap();
    let c = lp.call_at(at(5), trace.note("c")).unwrap();
    let d = lp.call_at(at(99), trace.note("d")).unwrap();
    lp.call_at(at(10), trace.note("e")).unwrap();
    lp.reschedule(d, at(10)).unwrap();
    lp.reschedule(c, at(10)).unwrap();
    // The new deadline is the timer's present one.
    lp.reschedule(a, at(10)).unwrap();
    assert!([a, c, d].iter().all(|&handle| lp.when(handle) == Ok(at(10))));
    assert_eq!(lp.run_once(HOUR), Ok(5));
    assert_eq!(trace.take(), ["b", "e", "d", "c", "a"]);
}

#[test]
fn s15_rescheduling_earlier_and_later_moves_the_timer() {
    let lp = virtual_loop();
    let ran = Trace::new();
    let note = |name: &'static str| {
        let ran = ran.clone();
        move |lp: &Loop| ran.add((name, lp.time()))
    };
    let a = lp.call_at(at(10), note("a")).unwrap();
    let b = lp.call_at(at(20), note("b")).unwrap();
    lp.call_at(at(30), note("c")).unwrap();
    lp.reschedule(a, at(40)).unwrap();
    lp.reschedule(b, at(5)).unwrap();
    assert_eq!(lp.next_deadline(), Some(at(5)));
    let _ = lp.run().unwrap();
    assert_eq!(ran.take(), [("b", at(5)), ("c", at(30)), ("a", at(40))]);
}

#[test]
fn s15_a_one_shot_is_stale_inside_its_callback() {
    let lp = virtual_loop();
    let (own, inner) = later();
    let timer = lp.call_later(ns(10), move |lp| {
        let own = inner.get().unwrap();
        check_stale(lp, own);
        // The loop still knows the running callback.
        assert_eq!(lp.current_handle(), Some(own));
        assert!(!lp.is_alive());
    });
    own.set(Some(timer.unwrap()));
    let _ = lp.run().unwrap();
    assert_eq!(lp.metrics().timers_fired, 1);
}

#[test]
fn s15_a_repeating_timer_is_live_inside_its_callback_and_its_when_is_the_next_call() {
    let lp = virtual_loop();
    let whens = Trace::new();
    let inner = whens.clone();
    let repeating = lp
        .call_every(ns(10), move |lp| {
            let own = lp.current_handle().unwrap();
            assert!(lp.is_pending(own) && lp.has_ref(own) && lp.is_alive());
            assert_eq!(lp.next_deadline(), lp.when(own).ok());
            inner.add(lp.when(own).unwrap());
        })
        .unwrap();
    assert_eq!(lp.when(repeating), Ok(at(10)));
    for _ in 0..3 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
    assert_eq!(whens.take(), [at(20), at(30), at(40)]);
    assert_eq!(lp.when(repeating), Ok(at(40)));
}

#[test]
fn s15_only_timers_have_a_deadline() {
    let lp = virtual_loop();
    let call = lp.call_soon(|_| {}).unwrap();
    let hook = lp.add_hook(HookPoint::AfterWait, |_| {}).unwrap();
    for handle in [call, hook] {
        assert_eq!(errno(lp.when(handle)), EINVAL);
        assert_eq!(errno(lp.reschedule(handle, at(5))), EINVAL);
        assert_eq!(errno(lp.skipped(handle)), EINVAL);
        assert!(lp.is_pending(handle));
    }
    assert_eq!(lp.run_once(HOUR), Ok(1));
}

#[test]
fn s16_a_repeating_timer_keeps_its_phase() {
    let lp = virtual_loop();
    let times = Trace::new();
    let repeating = lp.call_every(ns(10), note_time(&times)).unwrap();
    for k in 1..=5 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
        assert_eq!(times.take(), [at(10 * k)]);
    }
    assert_eq!(lp.skipped(repeating), Ok(0));
}

#[test]
fn s16_calls_that_the_loop_was_too_late_for_are_skipped_and_counted() {
    // With slack, timers on a virtual clock are late by exactly the slack.
    let lp = Watched::new(Loop::builder().virtual_time(START).slack(ns(35)).build().unwrap());
    let seen = Trace::new();
    let inner = seen.clone();
    let repeating = lp
        .call_every(ns(10), move |lp| {
            let own = lp.current_handle().unwrap();
            inner.add((lp.time(), lp.skipped(own).unwrap(), lp.when(own).unwrap()));
        })
        .unwrap();
    for _ in 0..3 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
    // 10 (not 20, 30, 40) at 45; 50 (not 60, 70, 80) at 85; 90 (not 100, 110, 120) at 125.
    assert_eq!(seen.take(), [(at(45), 3, at(50)), (at(85), 6, at(90)), (at(125), 9, at(130))]);
    assert_eq!((lp.skipped(repeating), lp.metrics().timers_skipped), (Ok(9), 9));
}

#[test]
fn s16_of_several_calls_that_are_due_one_runs() {
    let lp = Watched::new(Loop::builder().virtual_time(START).slack(ns(10)).build().unwrap());
    let repeating = lp.call_every(ns(10), |_| {}).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    // At 20, the call for 10 runs late. The call for 20 would be a replay, although it is due at
    // this moment.
    assert_eq!((lp.time(), lp.when(repeating), lp.skipped(repeating)), (at(20), Ok(at(30)), Ok(1)));
}

#[test]
fn s16_the_phase_holds_whatever_the_callbacks_cost() {
    let lp = real_loop();
    let period = ns(1_000_003);
    let seen = Trace::new();
    let inner = seen.clone();
    let repeating = lp
        .call_every(period, move |lp| {
            let own = lp.current_handle().unwrap();
            inner.add((lp.time(), lp.skipped(own).unwrap(), lp.when(own).unwrap()));
            be_busy(if inner.len() % 3 == 0 { ns(3_700_000) } else { ns(200_000) });
            if inner.len() == 12 {
                lp.stop().unwrap();
            }
        })
        .unwrap();
    let start = lp.when(repeating).unwrap() - Time::default();
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
    let seen = seen.take();
    for (calls, &(time, skipped, next)) in seen.iter().enumerate() {
        // `start` is the deadline of the first call: the calls so far and the skipped ones come
        // before the next one.
        let due = calls as u32 + skipped as u32;
        assert_eq!(
            next - Time::default(),
            start + period * (due + 1),
            "the phase is lost after {calls} calls"
        );
        assert!(time - Time::default() >= start + period * due, "a call came early");
    }
    let (_, skipped, _) = seen[11];
    // Three callbacks before the last one took 3.7 periods; each skips at least two calls.
    assert!(skipped >= 6, "{skipped}");
    assert_eq!((lp.skipped(repeating), lp.metrics().timers_skipped), (Ok(skipped), skipped));
}

#[test]
fn s16_rescheduling_sets_the_next_call_and_the_phase() {
    let lp = virtual_loop();
    let times = Trace::new();
    let repeating = lp.call_every(ns(10), note_time(&times)).unwrap();
    lp.reschedule(repeating, at(13)).unwrap();
    assert_eq!(lp.when(repeating), Ok(at(13)));
    for _ in 0..3 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
    assert_eq!(times.take(), [at(13), at(23), at(33)]);
    lp.reschedule(repeating, at(35)).unwrap();
    for _ in 0..2 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
    assert_eq!((times.take(), lp.skipped(repeating)), (vec![at(35), at(45)], Ok(0)));
}

#[test]
fn s16_rescheduling_inside_the_callback_sets_the_phase_too() {
    let lp = virtual_loop();
    let times = Trace::new();
    let inner = times.clone();
    let repeating = lp
        .call_every(ns(10), move |lp| {
            inner.add(lp.time());
            if inner.len() == 2 {
                lp.reschedule(lp.current_handle().unwrap(), at(27)).unwrap();
                assert_eq!(lp.when(lp.current_handle().unwrap()), Ok(at(27)));
            }
        })
        .unwrap();
    for _ in 0..4 {
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
    assert_eq!(
        (times.take(), lp.skipped(repeating)),
        (vec![at(10), at(20), at(27), at(37)], Ok(0))
    );
}

#[test]
fn s16_rescheduling_into_the_past_calls_at_once_and_skips_what_is_past() {
    let lp = virtual_loop();
    assert_eq!(lp.run_once(ns(100)), Ok(0));
    let times = Trace::new();
    let repeating = lp.call_every(ns(10), note_time(&times)).unwrap();
    lp.reschedule(repeating, at(55)).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(
        (times.take(), lp.when(repeating), lp.skipped(repeating)),
        (vec![at(100)], Ok(at(105)), Ok(4))
    );
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(times.take(), [at(105)]);
}

#[test]
fn s16_a_repeating_timer_can_pause_at_never() {
    let lp = virtual_loop();
    let times = Trace::new();
    let repeating = lp.call_every(ns(10), note_time(&times)).unwrap();
    lp.reschedule(repeating, Time::NEVER).unwrap();
    assert_eq!(lp.run_once(ns(100)), Ok(0));
    lp.reschedule(repeating, at(103)).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!((times.take(), lp.skipped(repeating)), (vec![at(103), at(113)], Ok(0)));
}

#[test]
fn s16_a_repeating_timer_taken_out_of_the_batch_loses_no_call_and_gains_none() {
    let lp = virtual_loop();
    let times = Trace::new();
    let (victim, inner) = later();
    lp.call_at(at(10), move |lp| lp.reschedule(inner.get().unwrap(), at(15)).unwrap()).unwrap();
    victim.set(Some(lp.call_every(ns(10), note_time(&times)).unwrap()));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(times.take(), [at(15), at(25)]);
}

#[test]
fn s16_a_repeating_timer_left_over_by_a_break_is_not_replayed() {
    // When the next run begins, the timer is long overdue: it is called once, and the next call is
    // in phase and in the future.
    let lp = real_loop();
    let calls = Trace::new();
    let begin = lp.time();
    lp.call_at(begin + ms(1), |lp| lp.break_().unwrap()).unwrap();
    let inner = calls.clone();
    let repeating = lp
        .call_every(ms(10), move |lp| {
            let now = lp.time();
            inner.add((now, lp.when(lp.current_handle().unwrap()).unwrap()));
            lp.break_().unwrap();
        })
        .unwrap();
    lp.reschedule(repeating, begin + ms(1)).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    assert_eq!(
        (calls.len(), lp.when(repeating)),
        (0, Ok(begin + ms(1))),
        "the timer is the rest of the batch"
    );
    be_busy(ms(35));
    let run_at = lp.time();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    let (now, next) = calls.take()[0];
    assert!(next > run_at, "at {now:?} the next call was due at {next:?} already");
    assert!(lp.skipped(repeating).unwrap() >= 3);
}

#[test]
fn s16_a_zero_period_is_refused() {
    let lp = virtual_loop();
    assert_eq!(errno(lp.call_every(Duration::ZERO, |_| {})), EINVAL);
    assert!(!lp.is_alive());
}

#[test]
fn s16_only_repeating_timers_skip() {
    let lp = virtual_loop();
    let timer = lp.call_at(Time::default(), |_| {}).unwrap();
    assert_eq!(lp.skipped(timer), Ok(0));
}

#[test]
fn s16_the_count_of_skipped_calls_saturates() {
    let lp = Watched::new(Loop::builder().virtual_time(Time::from_nanos(1 << 63)).build().unwrap());
    let repeating = lp.call_every(ns(1), |_| {}).unwrap();
    for skipped in [1 << 63, u64::MAX, u64::MAX] {
        lp.reschedule(repeating, Time::default()).unwrap();
        assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
        assert_eq!((lp.skipped(repeating), lp.metrics().timers_skipped), (Ok(skipped), skipped));
        assert_eq!(lp.when(repeating), Ok(Time::from_nanos((1 << 63) + 1)));
    }
}
