//! S34 to S36: slow callbacks, the debug mode, metrics, virtual time.

use std::cell::Cell;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libc::EINTR;
use ringloop::{Handle, HookPoint, Kind, Loop, Outcome, SlowCallback, Time};

use crate::signal::Interruptions;
use crate::support::Watched;
use crate::trace::{
    HOUR, START, Trace, at, be_busy, errno, monotonic, ms, note_time, ns, panic, payload,
    real_loop, virtual_loop,
};

/// Reports every callback to a trace: its kind and how long it took.
fn watch_all(lp: &Loop) -> Trace<(Kind, Duration)> {
    let reports = Trace::new();
    let inner = reports.clone();
    lp.set_slow_callback(ns(1), move |_, slow: &SlowCallback| {
        inner.add((slow.kind(), slow.duration()))
    })
    .unwrap();
    reports
}

#[test]
fn s34_a_slow_callback_is_reported_with_its_duration_and_what_it_was() {
    for lp in [real_loop(), virtual_loop()] {
        let reports = Trace::new();
        let inner = reports.clone();
        lp.set_slow_callback(ms(5), move |lp, slow| {
            assert!(lp.is_running());
            inner.add((slow.kind(), slow.duration(), slow.callback().to_string()));
        })
        .unwrap();
        lp.call_soon(|_| be_busy(ms(6))).unwrap();
        lp.call_later(ms(1), |_| be_busy(ms(6))).unwrap();
        lp.call_every(ms(2), |lp| {
            be_busy(ms(6));
            lp.cancel(lp.current_handle().unwrap()).unwrap();
        })
        .unwrap();
        lp.add_hook(HookPoint::AfterWait, |lp| {
            be_busy(ms(6));
            lp.cancel(lp.current_handle().unwrap()).unwrap();
        })
        .unwrap();
        let begin = monotonic();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        let elapsed = monotonic() - begin;
        let reports = reports.take();
        let kinds: Vec<Kind> = reports.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [Kind::Hook, Kind::Call, Kind::Timer, Kind::Repeat]);
        for (kind, duration, callback) in &reports {
            assert!(*duration >= ms(6), "{kind:?} took 6 ms, reported are {duration:?}");
            assert!(callback.contains("s34_a_slow_callback_is_reported"), "{callback}");
        }
        let sum: Duration = reports.iter().map(|(_, duration, _)| *duration).sum();
        assert!(sum <= elapsed, "{sum:?} in {elapsed:?}");
    }
}

#[test]
fn s34_a_callback_below_the_limit_is_not_reported() {
    let lp = virtual_loop();
    lp.set_slow_callback(HOUR, |_, _| panic!("an hour has not passed")).unwrap();
    lp.call_soon(|_| be_busy(ms(1))).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

/// Runs a quick callback, which is not reported. Afterwards the loop has a time from which a report
/// could wrongly count.
fn run_a_quick_callback(lp: &Loop) {
    lp.call_soon(|_| {}).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
}

/// A loop with a limit of 3 ms, and the durations of the callbacks that it reports from now on.
fn watched_loop() -> (Watched, Trace<Duration>) {
    let lp = real_loop();
    let reports = Trace::new();
    let inner = reports.clone();
    lp.set_slow_callback(ms(3), move |_, slow| inner.add(slow.duration())).unwrap();
    run_a_quick_callback(&lp);
    reports.take();
    (lp, reports)
}

/// Checks that a quick callback was not reported, or, if the machine delayed it, with no more than
/// the time since `begin`.
fn check_quick(reports: &Trace<Duration>, begin: Time) {
    let most = monotonic() - begin;
    reports
        .take()
        .iter()
        .for_each(|&reported| assert!(reported <= most, "{reported:?} were reported of {most:?}"));
}

/// Checks that the reports since `begin` include nothing of `nobodys`, a time that belongs to no
/// callback. A callback that the machine delayed may be reported.
fn check_apart(reports: &Trace<Duration>, begin: Time, nobodys: Duration) {
    let (elapsed, reported) = (monotonic() - begin, reports.take().iter().sum::<Duration>());
    assert!(
        reported + nobodys <= elapsed,
        "{reported:?} were reported, {nobodys:?} belong to no callback, of {elapsed:?}"
    );
}

#[test]
fn s34_the_sleep_is_nobody_s_callback() {
    let (lp, reports) = watched_loop();
    let when = lp.time() + ms(10);
    lp.call_at(when, |_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    check_quick(&reports, when);
}

#[test]
fn s34_the_sleep_is_no_hook_s_either() {
    let (lp, reports) = watched_loop();
    lp.add_hook(HookPoint::BeforeWait, |_| {}).unwrap();
    lp.add_hook(HookPoint::AfterWait, |_| {}).unwrap();
    let (begin, before) = (monotonic(), lp.metrics().asleep_ns);
    assert_eq!(lp.run_once(ms(10)), Ok(0));
    let asleep = ns(lp.metrics().asleep_ns - before);
    check_apart(&reports, begin, asleep);
}

#[test]
fn s34_the_time_between_runs_is_nobody_s_callback() {
    let (lp, reports) = watched_loop();
    be_busy(ms(10));
    let begin = monotonic();
    run_a_quick_callback(&lp);
    check_quick(&reports, begin);
    lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
    lp.call_soon(|_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    reports.take();
    be_busy(ms(10));
    let begin = monotonic();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    check_quick(&reports, begin);
}

#[test]
fn s34_another_callback_s_time_is_its_own() {
    let (lp, reports) = watched_loop();
    let first_ended = Rc::new(Cell::new(Time::default()));
    let inner = Rc::clone(&first_ended);
    lp.call_soon(move |_| {
        be_busy(ms(10));
        inner.set(monotonic());
    })
    .unwrap();
    lp.call_soon(|_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let most = monotonic() - first_ended.get();
    let [first, rest @ ..] = &reports.take()[..] else {
        panic!("a callback of 10 ms was not reported")
    };
    assert!(*first >= ms(10) && rest.iter().all(|second| *second <= most));
}

#[test]
fn s34_what_a_callback_s_end_takes_is_not_the_next_one_s() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            be_busy(ms(10));
        }
    }
    let (lp, reports) = watched_loop();
    let slow = Slow;
    lp.call_every(ms(1), move |lp| {
        let _carried = &slow;
        lp.cancel(lp.current_handle().unwrap()).unwrap();
    })
    .unwrap();
    let when = lp.time() + ms(1);
    lp.call_at(when, |_| {}).unwrap();
    let call = lp.call_later(ms(1), |_| {}).unwrap();
    lp.on_release(call, |_| be_busy(ms(10))).unwrap();
    lp.call_later(ms(1), |_| {}).unwrap();
    let begin = monotonic();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    check_apart(&reports, begin, ms(20));
}

#[test]
fn s34_the_report_itself_is_nobody_s_callback() {
    let lp = virtual_loop();
    let reports = Trace::new();
    let inner = reports.clone();
    lp.set_slow_callback(ns(1), move |_, slow| {
        be_busy(ms(4));
        inner.add((slow.duration(), monotonic()));
    })
    .unwrap();
    lp.call_soon(|_| {}).unwrap();
    lp.call_soon(|_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let [(_, first_reported), (second, second_reported)] = reports.take().try_into().unwrap();
    // Between the two reports lie the second callback and the 4 ms of the second report.
    assert!(second <= second_reported - first_reported - ms(4));
}

#[test]
fn s34_a_callback_that_panics_is_reported_too() {
    let lp = virtual_loop();
    let reports = watch_all(&lp);
    lp.set_exception_handler(|_, caught| assert_eq!(payload(&*caught), "callback")).unwrap();
    lp.call_soon(|_| panic("callback")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(reports.len(), 1);
}

#[test]
fn s34_the_handler_can_be_replaced_and_removed() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.set_slow_callback(ns(1), move |lp, _| {
        inner.add("first handler");
        let trace = inner.clone();
        lp.set_slow_callback(ns(1), move |lp, _| {
            trace.add("second handler");
            lp.clear_slow_callback().unwrap();
        })
        .unwrap();
    })
    .unwrap();
    for _ in 0..3 {
        lp.call_soon(trace.note("call")).unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["call", "first handler", "call", "second handler", "call"]);
    let reports = watch_all(&lp);
    lp.set_slow_callback(Duration::ZERO, |_, _| panic!("a zero limit removes the handler"))
        .unwrap();
    lp.call_soon(|_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(reports.len(), 0);
}

#[test]
fn s34_the_debug_mode_reports_slow_callbacks_and_what_is_pending_at_close() {
    const CHILD: &str = "RINGLOOP_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let lp = real_loop();
        lp.call_soon(|_| be_busy(ms(110))).unwrap();
        lp.call_soon(|_| {}).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        lp.call_later(HOUR, |_| {}).unwrap();
        lp.call_at(Time::NEVER, |_| {}).unwrap();
        lp.close().unwrap();
        return;
    }
    let name = "watching::s34_the_debug_mode_reports_slow_callbacks_and_what_is_pending_at_close";
    let begin = Instant::now();
    let lines = |debug: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env("RINGLOOP_DEBUG", debug);
        let output = child.output().unwrap();
        assert!(output.status.success());
        let lines = String::from_utf8(output.stderr).unwrap();
        lines
            .lines()
            .filter(|line| line.starts_with("ringloop: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut lines_on = lines("1");
    let elapsed = begin.elapsed().as_secs_f64() * 1e3;
    // The order of the pending entries is not guaranteed: the timer at never has the shorter line.
    lines_on[1..].sort_by_key(|line| std::cmp::Reverse(line.len()));
    let [slow, first, second] = &lines_on[..] else { panic!("{lines_on:#?}") };
    assert!(
        slow.starts_with("ringloop: slow callback: call ") && slow.contains("s34_the_debug_mode"),
        "{slow}"
    );
    let took = slow.split(" held the loop for ").nth(1).unwrap().strip_suffix(" ms").unwrap();
    assert!((110.0..elapsed).contains(&took.parse().unwrap()), "{slow}, of {elapsed} ms");
    assert!(
        first.starts_with("ringloop: pending at close: timer ") && first.contains(", handle "),
        "{first}"
    );
    let due = first
        .split(", due in ")
        .nth(1)
        .unwrap()
        .strip_suffix(" s")
        .unwrap()
        .parse::<f64>()
        .unwrap();
    assert!(due > 3000.0 && due <= 3600.0, "{first}");
    assert!(
        second.starts_with("ringloop: pending at close: timer ") && !second.contains("due in"),
        "{second}"
    );
    assert_eq!(lines("0"), Vec::<String>::new());
}

#[test]
fn s34_walk_shows_what_is_pending() {
    let lp = virtual_loop();
    let call = lp.call_soon(|_| {}).unwrap();
    let timer = lp.call_later(ns(10), |_| {}).unwrap();
    let never = lp.call_at(Time::NEVER, |_| {}).unwrap();
    let repeating = lp.call_every(ns(20), |_| {}).unwrap();
    let hook = lp.add_hook(HookPoint::AfterWait, |_| {}).unwrap();
    lp.unref(timer).unwrap();
    let cancelled = lp.call_soon(|_| {}).unwrap();
    lp.cancel(cancelled).unwrap();
    let mut expected = vec![
        (call, Kind::Call, Time::NEVER, true),
        (timer, Kind::Timer, at(10), false),
        (never, Kind::Timer, Time::NEVER, true),
        (repeating, Kind::Repeat, at(20), true),
        (hook, Kind::Hook, Time::NEVER, false),
    ];
    let mut shown = Vec::new();
    lp.walk(|_, info| {
        assert!(info.callback().to_string().contains("s34_walk_shows_what_is_pending"));
        shown.push((info.handle(), info.kind(), info.when(), info.is_referenced()));
    })
    .unwrap();
    let key = |entry: &(Handle, Kind, Time, bool)| entry.0.as_raw();
    shown.sort_by_key(key);
    expected.sort_by_key(key);
    assert_eq!(shown, expected);
    // `walk` may cancel all entries that it shows.
    lp.walk(|lp, info| lp.cancel(info.handle()).unwrap()).unwrap();
    lp.walk(|_, info| panic!("{info:?} is still there")).unwrap();
    assert!(!lp.is_alive());
}

#[test]
fn s34_a_walk_shows_nothing_that_it_has_cancelled_and_ends_though_more_is_scheduled() {
    let lp = virtual_loop();
    let pair = [lp.call_soon(|_| {}).unwrap(), lp.call_later(ns(5), |_| {}).unwrap()];
    let mut shown = 0;
    lp.walk(|lp, _| {
        shown += 1;
        pair.iter().for_each(|&handle| lp.cancel(handle).unwrap());
    })
    .unwrap();
    assert_eq!(shown, 1);
    for _ in 0..10 {
        lp.call_soon(|_| {}).unwrap();
    }
    let (mut shown, mut inside) = (0, 0);
    lp.walk(|lp, _| {
        shown += 1;
        lp.walk(|_, _| inside += 1).unwrap();
        lp.call_soon(|_| {}).unwrap();
        assert!(shown < 1000);
    })
    .unwrap();
    assert!(shown >= 10 && inside >= 10 * shown);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().callbacks, 10 + shown);
}

#[test]
fn s34_walk_inside_a_callback_shows_a_repeating_timer_with_its_callback_and_no_one_shot() {
    let lp = virtual_loop();
    let trace = Trace::new();
    for repeating in [false, true] {
        let inner = trace.clone();
        let callback = move |lp: &Loop| {
            lp.walk(|_, info| inner.add((info.kind(), info.callback().to_string()))).unwrap();
            let _ = lp.cancel(lp.current_handle().unwrap());
            lp.walk(|_, info| panic!("{info:?} is still there")).unwrap();
        };
        if repeating { lp.call_every(ns(1), callback) } else { lp.call_later(ns(1), callback) }
            .unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        let shown = trace.take();
        assert_eq!(shown.len(), usize::from(repeating));
        assert!(
            shown
                .iter()
                .all(|(kind, callback)| *kind == Kind::Repeat
                    && callback.contains("s34_walk_inside"))
        );
    }
}

#[test]
fn s35_callbacks_and_timers_are_counted_exactly() {
    let lp = virtual_loop();
    lp.add_hook(HookPoint::BeforeWait, |_| {}).unwrap();
    for _ in 0..3 {
        lp.call_soon(|_| {}).unwrap();
        lp.call_at(at(10), |_| {}).unwrap();
    }
    let repeating = lp.call_every(ns(10), |_| {}).unwrap();
    lp.unref(repeating).unwrap();
    lp.call_at(at(30), |_| {}).unwrap();
    // Cancelled: a call, which is no timer; a timer in the queue, one at never, a repeating one,
    // and later one in the batch.
    let cancelled = [
        lp.call_soon(|_| {}).unwrap(),
        lp.call_later(HOUR, |_| {}).unwrap(),
        lp.call_at(Time::NEVER, |_| {}).unwrap(),
        lp.call_every(HOUR, |_| {}).unwrap(),
    ];
    cancelled.iter().for_each(|&handle| lp.cancel(handle).unwrap());
    assert_eq!(
        (lp.metrics().timers_cancelled, lp.metrics().callbacks, lp.metrics().iterations),
        (3, 0, 0)
    );
    let in_batch = Rc::new(Cell::new(None));
    let inner = Rc::clone(&in_batch);
    lp.call_at(at(10), move |lp| lp.cancel(inner.get().unwrap()).unwrap()).unwrap();
    in_batch.set(Some(lp.call_at(at(10), |_| {}).unwrap()));
    // Rescheduling does not count as cancelling.
    let moved = lp.call_at(at(500), |_| {}).unwrap();
    lp.reschedule(moved, at(30)).unwrap();

    assert_eq!(lp.run(), Ok(Outcome::Done));
    let m = lp.metrics();
    // START: 3 calls; 10: 3 timers, the repeating one, the canceller; 20: repeating; 30: repeating,
    // two timers.
    assert_eq!((m.iterations, m.callbacks, m.timers_fired), (4, 12, 9));
    assert_eq!((m.timers_cancelled, m.timers_skipped, m.asleep_ns), (4, 0, 30));
    // All ten were ready on time, also the one that was cancelled in the batch.
    assert_eq!((m.late[0], m.late[1..].iter().sum::<u64>()), (10, 0));
    assert_eq!((m.enters, m.submitted, m.completed, m.overflows), (0, 0, 0, 0));
}

#[test]
fn s35_a_callback_is_counted_when_it_begins() {
    let lp = virtual_loop();
    lp.call_later(ns(1), |lp| {
        let m = lp.metrics();
        assert_eq!((m.iterations, m.callbacks, m.timers_fired), (1, 1, 1));
        panic("callback")
    })
    .unwrap();
    lp.set_exception_handler(|_, _| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().callbacks, 1);
}

#[test]
fn s35_a_repeating_timer_that_cancels_itself_is_one_fired_and_one_cancelled() {
    let lp = virtual_loop();
    lp.call_every(ns(1), |lp| lp.cancel(lp.current_handle().unwrap()).unwrap()).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((lp.metrics().timers_fired, lp.metrics().timers_cancelled), (1, 1));
}

#[test]
fn s35_what_a_broken_batch_leaves_is_counted_when_it_runs() {
    let lp = virtual_loop();
    lp.call_at(START, |lp| lp.break_().unwrap()).unwrap();
    lp.call_at(START, |_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    assert_eq!(
        (lp.metrics().callbacks, lp.metrics().timers_fired, lp.metrics().late[0]),
        (1, 1, 2)
    );
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(
        (lp.metrics().callbacks, lp.metrics().timers_fired, lp.metrics().late[0]),
        (2, 2, 2)
    );
}

#[test]
fn s35_what_shutdown_cancels_is_counted() {
    let lp = virtual_loop();
    lp.call_soon(|_| {}).unwrap();
    lp.call_later(HOUR, |_| {}).unwrap();
    lp.call_every(HOUR, |_| {}).unwrap();
    lp.shutdown().unwrap();
    assert_eq!((lp.metrics().timers_cancelled, lp.metrics().callbacks), (2, 0));
}

#[test]
fn s35_the_histogram_tells_how_late_timers_became_ready() {
    let lp = Watched::new(Loop::builder().virtual_time(START).slack(ns(1 << 20)).build().unwrap());
    let woken = at(1 + (1 << 20));
    let mut expected = [0; 32];
    // The first timer is late by the whole slack; each of the others by the `late` of its row.
    for (late, bucket) in
        [(1 << 20, 20), ((1 << 20) - 1, 19), (1024, 10), (1023, 9), (3, 1), (2, 1), (1, 0), (0, 0)]
    {
        lp.call_at(Time::from_nanos(woken.as_nanos() - late), |_| {}).unwrap();
        expected[bucket] += 1;
    }
    assert_eq!(lp.run_once(HOUR), Ok(8));
    assert_eq!((lp.time(), lp.metrics().late), (woken, expected));
    // This timer is far too late: the last bucket counts all such timers.
    assert_eq!(lp.run_once(HOUR), Ok(0));
    lp.call_at(START, |_| {}).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    expected[31] += 1;
    assert_eq!(lp.metrics().late, expected);
}

#[test]
fn s35_entries_into_the_kernel_and_sleep_are_counted_on_the_real_clock() {
    let lp = real_loop();
    let begin = monotonic();
    let limit = ns(300_000);
    for sleeps in 1..=20 {
        // With a limit the loop sleeps for sure; a timer might be due before the loop sleeps.
        assert_eq!(lp.run_once(limit), Ok(0));
        let m = lp.metrics();
        assert_eq!(
            (m.iterations, m.enters, m.submitted, m.completed, m.overflows),
            // One more, once in the life of the loop: the poll for wakes by other threads.
            (sleeps, sleeps, sleeps + 1, sleeps, 0)
        );
    }
    let elapsed = monotonic() - begin;
    let asleep = ns(lp.metrics().asleep_ns);
    assert!(asleep >= 20 * limit && asleep <= elapsed, "{asleep:?} of {elapsed:?}");
    for delay in 1..=20 {
        lp.call_later(delay * ns(50_000), |_| {}).unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().late.iter().sum::<u64>(), 20);
}

#[test]
fn s35_an_iteration_that_does_not_sleep_adds_no_sleep() {
    let lp = real_loop();
    lp.call_soon(|_| be_busy(ms(2))).unwrap();
    lp.call_at(Time::default(), |_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((lp.metrics().asleep_ns, lp.metrics().enters), (0, 0));
    // The timer has been due since the machine was started.
    assert_eq!(lp.metrics().late[31], 1);
}

#[test]
fn s36_a_virtual_clock_starts_where_it_is_told_and_stands_still() {
    for start in [0, 1, 1_000_000, u64::MAX / 2, u64::MAX - 1] {
        let start = Time::from_nanos(start);
        let lp = Watched::new(Loop::builder().virtual_time(start).build().unwrap());
        assert_eq!(lp.time(), start);
        be_busy(ms(1));
        assert_eq!(lp.time(), start);
        lp.call_soon(move |lp| {
            be_busy(ms(1));
            assert_eq!(lp.time(), start);
        })
        .unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(lp.time(), start);
    }
}

#[test]
fn s36_the_clock_jumps_to_the_next_deadline() {
    let lp = virtual_loop();
    let times = Trace::new();
    let year = HOUR * 24 * 365;
    lp.call_later(year, note_time(&times)).unwrap();
    lp.call_later(HOUR, note_time(&times)).unwrap();
    let inner = times.clone();
    lp.call_later(ns(1), move |lp| {
        inner.add(lp.time());
        lp.call_later(HOUR, note_time(&inner)).unwrap();
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(times.take(), [at(1), START + HOUR, START + HOUR + ns(1), START + year]);
    assert_eq!((lp.metrics().iterations, lp.metrics().enters), (4, 0));
    assert_eq!(ns(lp.metrics().asleep_ns), year);
}

#[test]
fn s36_an_hour_of_timers() {
    let lp = virtual_loop();
    let calls = Rc::new(Cell::new(0));
    let inner = Rc::clone(&calls);
    let ticking = lp.call_every(ms(100), move |_| inner.set(inner.get() + 1)).unwrap();
    lp.unref(ticking).unwrap();
    lp.call_later(HOUR, |_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((calls.get(), lp.time(), lp.metrics().timers_skipped), (36_000, START + HOUR, 0));
}

#[test]
fn s36_run_once_jumps_by_its_limit_at_most() {
    let lp = virtual_loop();
    let times = Trace::new();
    lp.call_later(ns(100), note_time(&times)).unwrap();
    assert_eq!((lp.run_once(ns(30)), lp.time()), (Ok(0), at(30)));
    assert_eq!((lp.run_once(ns(30)), lp.time()), (Ok(0), at(60)));
    assert_eq!((lp.run_once(ns(40)), lp.time()), (Ok(1), at(100)));
    assert_eq!((lp.run_once(ns(40)), lp.time()), (Ok(0), at(140)));
    lp.call_later(ns(100), note_time(&times)).unwrap();
    assert_eq!(
        (lp.run_once(HOUR), lp.time()),
        (Ok(1), at(240)),
        "the deadline comes before the limit"
    );
    assert_eq!(times.take(), [at(100), at(240)]);
}

#[test]
fn s36_the_limit_of_run_once_cuts_the_slack_short() {
    let lp = Watched::new(Loop::builder().virtual_time(START).slack(ns(50)).build().unwrap());
    lp.call_later(ns(100), |_| {}).unwrap();
    assert_eq!((lp.run_once(ns(99)), lp.time()), (Ok(0), at(99)));
    assert_eq!((lp.run_once(ns(11)), lp.time()), (Ok(1), at(110)));
    lp.call_later(ns(100), |_| {}).unwrap();
    assert_eq!((lp.run_once(HOUR), lp.time()), (Ok(1), at(260)));
}

#[test]
fn s36_hooks_see_the_clock_before_and_after_the_jump() {
    let lp = virtual_loop();
    let times = Trace::new();
    lp.add_hook(HookPoint::BeforeWait, note_time(&times)).unwrap();
    lp.add_hook(HookPoint::AfterWait, note_time(&times)).unwrap();
    lp.call_later(ns(10), |_| {}).unwrap();
    lp.call_later(ns(30), |_| {}).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(times.take(), [START, at(10), at(10), at(30)]);
}

#[test]
fn s36_with_nothing_to_jump_to_the_loop_really_sleeps() {
    let lp = virtual_loop();
    lp.call_at(Time::NEVER, |_| {}).unwrap();
    let _interruptions = Interruptions::begin(libc::SIGUSR1, 0);
    for _ in 0..3 {
        assert_eq!(errno(lp.run_once(Duration::MAX)), EINTR);
    }
    assert_eq!(lp.time(), START);
}

#[test]
fn s36_run_once_ends_at_its_limit_even_at_the_end_of_time() {
    let start = Time::from_nanos(u64::MAX - 10);
    let lp = Watched::new(Loop::builder().virtual_time(start).build().unwrap());
    assert_eq!((lp.run_once(ns(5)), lp.time()), (Ok(0), start + ns(5)));
    assert_eq!((lp.run_once(ns(5)), lp.time()), (Ok(0), Time::NEVER));
    assert_eq!((lp.run_once(ns(5)), lp.time()), (Ok(0), Time::NEVER));
}

#[test]
fn s36_two_loops_have_two_clocks() {
    let (first, second) = (virtual_loop(), virtual_loop());
    first.call_later(HOUR, |_| {}).unwrap();
    assert_eq!(first.run(), Ok(Outcome::Done));
    assert_eq!((first.time(), second.time()), (START + HOUR, START));
}
