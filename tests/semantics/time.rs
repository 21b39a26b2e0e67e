//! S1 to S4: the clock, timers that are never early, times without rounding, the limits of times.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Handle, HookPoint, Loop, Outcome, Time};

use crate::support::Watched;
use crate::trace::{
    HOUR, Random, START, Trace, at, be_busy, monotonic, ms, note_time, ns, real_loop, virtual_loop,
};

/// The loop's time lies between two readings of CLOCK_MONOTONIC around it.
fn check_clock(lp: &Loop) {
    for _ in 0..100 {
        let before = monotonic();
        let time = lp.time();
        let after = monotonic();
        assert!(before <= time && time <= after, "{before:?} <= {time:?} <= {after:?}");
    }
}

#[test]
fn s01_time_is_clock_monotonic_to_the_nanosecond_in_every_state() {
    let lp = real_loop();
    check_clock(&lp);
    lp.add_hook(HookPoint::BeforeWait, check_clock).unwrap();
    lp.add_hook(HookPoint::AfterWait, check_clock).unwrap();
    lp.call_soon(check_clock).unwrap();
    let timer = lp.call_later(ms(1), check_clock).unwrap();
    lp.on_release(timer, check_clock).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    check_clock(&lp);
    let pending = lp.call_later(HOUR, |_| {}).unwrap();
    lp.on_release(pending, check_clock).unwrap();
    lp.shutdown().unwrap();
    check_clock(&lp);
    lp.close().unwrap();
}

#[test]
fn s01_time_goes_on_inside_a_callback() {
    let lp = real_loop();
    let seen = Rc::new(Cell::new(Duration::ZERO));
    let inner = Rc::clone(&seen);
    lp.call_soon(move |lp| {
        let begin = lp.time();
        be_busy(ms(3));
        inner.set(lp.time() - begin);
        check_clock(lp);
    })
    .unwrap();
    let _ = lp.run().unwrap();
    assert!(seen.get() >= ms(3), "after 3 ms, the loop's time had advanced by {:?}", seen.get());
}

#[test]
fn s01_a_delay_counts_from_the_call_not_from_the_iteration() {
    let lp = real_loop();
    lp.call_soon(|lp| {
        be_busy(ms(3));
        let before = lp.time();
        let timer = lp.call_later(ms(1), |_| {}).unwrap();
        assert!(lp.when(timer).unwrap() >= before + ms(1));
        let repeating = lp.call_every(ms(1), |_| {}).unwrap();
        assert!(lp.when(repeating).unwrap() >= before + ms(1));
        lp.cancel(repeating).unwrap();
    })
    .unwrap();
    let _ = lp.run().unwrap();
}

/// Runs many timers of 1 ns to 5 ms; each checks the clock against its deadline, and schedules
/// another one.
fn run_random_timers(lp: &Watched, seed: u64) {
    fn schedule(lp: &Loop, random: &Rc<Cell<u64>>, left: &Rc<Cell<u32>>) {
        let mut numbers = Random(random.get());
        let delay = ns(match numbers.below(3) {
            0 => 1 + numbers.below(100),
            1 => 1 + numbers.below(20_000),
            _ => 1 + numbers.below(5_000_000),
        });
        let exact = numbers.below(2) == 0;
        random.set(numbers.next());
        let (random, left) = (Rc::clone(random), Rc::clone(left));
        let earliest = lp.time() + delay;
        let callback = move |lp: &Loop| {
            let (now, clock) = (lp.time(), monotonic());
            assert!(now >= earliest && clock >= earliest, "due at {earliest:?}, run at {now:?}");
            if left.get() > 0 {
                left.set(left.get() - 1);
                schedule(lp, &random, &left);
            }
        };
        let handle: Handle =
            if exact { lp.call_at(earliest, callback) } else { lp.call_later(delay, callback) }
                .unwrap();
        assert!(lp.when(handle).unwrap() >= earliest);
    }

    let (random, left) = (Rc::new(Cell::new(seed)), Rc::new(Cell::new(3000)));
    for _ in 0..200 {
        schedule(lp, &random, &left);
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().timers_fired, 3200);
}

#[test]
fn s02_no_timer_runs_early_by_the_real_clock() {
    run_random_timers(&real_loop(), 1);
}

#[test]
fn s02_no_timer_runs_early_with_slack() {
    run_random_timers(&Watched::new(Loop::builder().slack(ns(700_000)).build().unwrap()), 2);
}

#[test]
fn s02_no_timer_runs_early_while_spinning() {
    run_random_timers(&Watched::new(Loop::builder().spin(ns(50_000)).build().unwrap()), 3);
}

/// Deadlines become due while the loop reads the clock, arms its timeout and goes to sleep. Nothing
/// else would wake the loop before its limit.
#[test]
fn s02_no_deadline_falls_between_the_clock_and_the_sleep() {
    let lp = real_loop();
    let (limit, ran) = (ms(20_000), Rc::new(Cell::new(0)));
    let mut offset = 0;
    for round in 0..20_000 {
        let (begin, burst) = (monotonic(), 1 + round % 8);
        ran.set(0);
        for _ in 0..burst {
            offset = (offset + 769) % 2001;
            let (when, ran) = (lp.time() + ns(offset), Rc::clone(&ran));
            lp.call_at(when, move |lp| {
                assert!(lp.time() >= when);
                ran.set(ran.get() + 1);
            })
            .unwrap();
        }
        while ran.get() < burst {
            lp.run_once(limit).unwrap();
            assert!(monotonic() - begin < limit, "the loop overslept in round {round}");
        }
    }
}

#[test]
fn s02_a_repeating_timer_is_never_early_by_the_real_clock() {
    let lp = real_loop();
    let before = lp.time();
    let calls = Rc::new(Cell::new(0));
    let inner = Rc::clone(&calls);
    let handle = Rc::new(Cell::new(None::<Handle>));
    let inner_handle = Rc::clone(&handle);
    let period = ns(100_003);
    let repeating = lp
        .call_every(period, move |lp| {
            let handle = inner_handle.get().unwrap();
            let due = lp.when(handle).unwrap();
            // `when` is the next call; the current call and the skipped ones are before it.
            assert!(due - before >= period * 2);
            assert!(
                lp.time() + period >= due,
                "the call before {due:?} was run at {:?}",
                lp.time()
            );
            inner.set(inner.get() + 1);
            if inner.get() == 200 {
                lp.cancel(handle).unwrap();
            }
        })
        .unwrap();
    handle.set(Some(repeating));
    let _ = lp.run().unwrap();
    assert_eq!(calls.get(), 200);
}

#[test]
fn s02_in_virtual_time_a_timer_runs_at_its_deadline_to_the_nanosecond() {
    let lp = virtual_loop();
    let times = Trace::new();
    let mut random = Random(4);
    let mut expected: Vec<Time> = (0..2000).map(|_| at(1 + random.below(100_000))).collect();
    for &when in &expected {
        lp.call_at(when, note_time(&times)).unwrap();
    }
    let _ = lp.run().unwrap();
    expected.sort();
    assert_eq!(times.take(), expected);
}

#[test]
fn s03_no_delay_is_rounded() {
    for delay in [1, 999, 1001, 50_000, 999_999, 1_100_000, 1_000_000_001, 123_456_789_012_345_678]
    {
        let lp = virtual_loop();
        let times = Trace::new();
        let handle = lp.call_later(ns(delay), note_time(&times)).unwrap();
        assert_eq!(lp.when(handle), Ok(at(delay)));
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(times.take(), [at(delay)]);
    }
}

/// The smallest lateness of 200 timers, whose deadlines `deadline` computes from the time.
fn least_lateness(deadline: impl Fn(Time) -> Time) -> Duration {
    let lp = real_loop();
    let late = (0..200).map(|_| {
        let when = deadline(lp.time());
        lp.call_at(when, |_| {}).unwrap();
        let _ = lp.run().unwrap();
        assert!(lp.time() >= when);
        lp.time() - when
    });
    late.min().unwrap()
}

#[test]
fn s03_the_kernel_is_asked_for_less_than_a_millisecond() {
    // A sleep that is rounded up to milliseconds would always be at least 0.9 ms late: in the first
    // check if its length is rounded, in the second if its end is rounded.
    let late = least_lateness(|now| now + ns(50_000));
    assert!(late < ns(800_000), "the smallest lateness of 200 timers in 50 µs was {late:?}");
    let late =
        least_lateness(|now| Time::from_nanos(now.as_nanos().next_multiple_of(1_000_000) + 50_000));
    assert!(
        late < ns(800_000),
        "the smallest lateness of 200 timers 50 µs past a millisecond was {late:?}"
    );
}

#[test]
fn s03_with_slack_a_timer_is_late_by_at_most_that_and_never_early() {
    let lp = Watched::new(Loop::builder().virtual_time(START).slack(ns(100)).build().unwrap());
    let ran = Trace::new();
    for delay in [50, 111, 10, 110, 109, 500] {
        let ran = ran.clone();
        lp.call_later(ns(delay), move |lp| ran.add((delay, lp.time(), lp.metrics().iterations)))
            .unwrap();
    }
    let _ = lp.run().unwrap();
    assert_eq!(
        ran.take(),
        [
            (10, at(110), 1),
            (50, at(110), 1),
            (109, at(110), 1),
            (110, at(110), 1),
            (111, at(211), 2),
            (500, at(600), 3),
        ]
    );
}

#[test]
fn s03_with_slack_real_timers_share_a_wakeup() {
    let lp = Watched::new(Loop::builder().slack(ms(30)).build().unwrap());
    let ran = Trace::new();
    let begin = lp.time();
    for delay in [1, 5, 20] {
        let ran = ran.clone();
        lp.call_at(begin + ms(delay), move |lp| {
            ran.add(delay);
            assert!(lp.time() >= begin + ms(delay));
        })
        .unwrap();
    }
    let _ = lp.run().unwrap();
    assert_eq!(ran.take(), [1, 5, 20]);
    // No sleep, if the machine has delayed the loop until all timers were due.
    assert!(lp.metrics().enters <= 1, "the loop slept {} times", lp.metrics().enters);
}

#[test]
fn s03_slack_saturates() {
    let lp =
        Watched::new(Loop::builder().virtual_time(START).slack(Duration::MAX).build().unwrap());
    let ran = Trace::new();
    lp.call_later(ns(10), ran.note("timer")).unwrap();
    assert_eq!(lp.run_once(ns(9)), Ok(0));
    assert_eq!(lp.run_once(ns(1)), Ok(1), "a loop that is awake at the deadline runs the timer");
    assert_eq!((ran.take(), lp.time()), (vec!["timer"], at(10)));
}

#[test]
fn s03_the_default_slack_is_none() {
    let lp = virtual_loop();
    let times = Trace::new();
    lp.call_at(at(10), note_time(&times)).unwrap();
    lp.call_at(at(11), note_time(&times)).unwrap();
    let _ = lp.run().unwrap();
    assert_eq!(times.take(), [at(10), at(11)]);
    assert_eq!(lp.metrics().iterations, 2);
}

#[test]
fn s04_call_later_is_call_at_with_the_time_now() {
    let lp = virtual_loop();
    assert_eq!(lp.run_once(ns(77)), Ok(0));
    let handle = lp.call_later(ns(23), |_| {}).unwrap();
    assert_eq!(lp.when(handle), Ok(at(100)));
}

#[test]
fn s04_a_delay_saturates() {
    let lp = virtual_loop();
    let rest = ns(u64::MAX) - ns(START.as_nanos());
    for delay in [rest, rest + ns(1), ns(u64::MAX), ns(u64::MAX) + ns(1), Duration::MAX] {
        let handle = lp.call_later(delay, |_| {}).unwrap();
        assert_eq!(lp.when(handle), Ok(Time::NEVER));
        let handle = lp.call_every(delay, |_| {}).unwrap();
        assert_eq!(lp.when(handle), Ok(Time::NEVER));
    }
    let handle = lp.call_later(rest - ns(1), |_| {}).unwrap();
    assert_eq!(lp.when(handle), Ok(Time::from_nanos(u64::MAX - 1)));
}

#[test]
fn s04_times_saturate_at_both_ends() {
    assert_eq!(Time::NEVER + ns(1), Time::NEVER);
    assert_eq!(Time::NEVER + Duration::MAX, Time::NEVER);
    assert_eq!(Time::default() + Duration::MAX, Time::NEVER);
    assert_eq!(START + Duration::ZERO, START);
    assert_eq!(START - at(1), Duration::ZERO);
    assert_eq!(at(7) - START, ns(7));
    let mut time = START;
    time += ns(3);
    assert_eq!(time, at(3));
}

#[test]
fn s04_a_timer_at_never_does_not_fire_but_is_pending() {
    for start in [Time::default(), START, Time::from_nanos(u64::MAX - 1_000_000), Time::NEVER] {
        let lp = Watched::new(Loop::builder().virtual_time(start).build().unwrap());
        let handle = lp.call_at(Time::NEVER, |_| panic!("a timer at never has fired")).unwrap();
        for _ in 0..3 {
            assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
        }
        assert!(lp.is_pending(handle) && lp.has_ref(handle) && lp.is_alive());
        assert_eq!(lp.when(handle), Ok(Time::NEVER));
        assert_eq!(lp.metrics().callbacks, 0);
    }
}

#[test]
fn s04_the_last_time_but_one_is_a_time_like_any_other() {
    let last = Time::from_nanos(u64::MAX - 1);
    let lp = Watched::new(Loop::builder().virtual_time(START).build().unwrap());
    let times = Trace::new();
    lp.call_at(Time::NEVER, |_| panic!("a timer at never has fired")).unwrap();
    lp.call_at(last, note_time(&times)).unwrap();
    lp.call_at(last, |lp| lp.stop().unwrap()).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
    assert_eq!(times.take(), [last]);
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
}

#[test]
fn s04_a_limit_that_ends_beyond_the_last_time_is_no_limit_but_the_loop_wakes_for_its_timers() {
    let last = Time::from_nanos(u64::MAX - 1);
    let lp = Watched::new(Loop::builder().virtual_time(last).build().unwrap());
    lp.call_at(last, |_| {}).unwrap();
    assert_eq!(lp.run_once(Duration::MAX), Ok(1));
    let lp = Watched::new(Loop::builder().virtual_time(START).build().unwrap());
    lp.call_at(last, |_| {}).unwrap();
    assert_eq!(lp.run_once(ns(u64::MAX)), Ok(1));
    assert_eq!(lp.time(), last);
}

#[test]
fn s04_a_timer_at_never_can_be_rescheduled() {
    let lp = virtual_loop();
    let times = Trace::new();
    let handle = lp.call_at(Time::NEVER, note_time(&times)).unwrap();
    assert_eq!(lp.run_once(ns(10)), Ok(0));
    lp.reschedule(handle, at(30)).unwrap();
    assert_eq!(lp.when(handle), Ok(at(30)));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(times.take(), [at(30)]);
}

#[test]
fn s04_a_timer_can_be_rescheduled_to_never() {
    let lp = virtual_loop();
    let handle = lp.call_later(ns(10), |_| panic!("a timer at never has fired")).unwrap();
    lp.reschedule(handle, Time::NEVER).unwrap();
    assert_eq!(lp.run_once(ns(100)), Ok(0));
    assert!(lp.is_pending(handle) && lp.is_alive());
    lp.cancel(handle).unwrap();
    assert!(!lp.is_alive());
}

#[test]
fn s04_a_timer_at_never_keeps_a_run_alive_if_it_is_referenced() {
    let lp = virtual_loop();
    let handle = lp.call_at(Time::NEVER, |_| {}).unwrap();
    let stop = lp.call_later(ns(10), |lp| lp.stop().unwrap()).unwrap();
    lp.unref(stop).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
    lp.unref(handle).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(lp.is_pending(handle));
}

#[test]
fn s04_a_deadline_that_is_past_is_due_in_the_next_iteration() {
    let lp = virtual_loop();
    let ran = Trace::new();
    let handle = lp.call_at(Time::default(), ran.note("from outside")).unwrap();
    assert_eq!(lp.when(handle), Ok(Time::default()));
    let inner = ran.clone();
    lp.call_soon(move |lp| {
        lp.call_at(at(0), inner.note("from inside, due now")).unwrap();
        lp.call_at(Time::from_nanos(1), inner.note("from inside, past")).unwrap();
        lp.call_later(Duration::ZERO, inner.note("from inside, no delay")).unwrap();
    })
    .unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(ran.take(), ["from outside"]);
    assert_eq!(lp.run_once(HOUR), Ok(3));
    assert_eq!(ran.take(), ["from inside, past", "from inside, due now", "from inside, no delay"]);
    assert_eq!(lp.time(), START);
}

#[test]
fn s04_a_repeating_timer_ends_its_sequence_at_never() {
    let start = Time::from_nanos(u64::MAX - 25);
    let lp = Watched::new(Loop::builder().virtual_time(start).build().unwrap());
    let times = Trace::new();
    let handle = lp.call_every(ns(10), note_time(&times)).unwrap();
    assert_eq!(lp.run_once(Duration::MAX), Ok(1));
    assert_eq!(lp.run_once(Duration::MAX), Ok(1));
    assert_eq!(times.take(), [start + ns(10), start + ns(20)]);
    assert_eq!(lp.when(handle), Ok(Time::NEVER));
    assert!(lp.is_pending(handle) && lp.is_alive());
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    lp.reschedule(handle, start).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
}
