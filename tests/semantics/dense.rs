//! Timers that follow closely share wakeups, and others are exact: S3. Which timers are delayed, and
//! by how much, is tested without a clock beside the gap itself.

use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Builder, Events, Loop, Time};

use crate::support::Watched;
use crate::trace::{Random, START, be_busy, ms, ns, real_loop};

fn built(builder: Builder) -> Watched {
    Watched::new(builder.build().unwrap())
}

const ROUNDS: usize = 51;

/// After a wakeup, schedules a timer 20 µs later and one 150 µs later, and lets `wait` run the loop
/// until the first has run. Returns the number of rounds that left the second behind: on a busy
/// machine a few with the gap, and not all without it.
fn rounds_apart(lp: &Loop, mut wait: impl FnMut(&Loop)) -> usize {
    let is_apart = |_: &usize| {
        let ran = Rc::new(Cell::new(0));
        let counted = Rc::clone(&ran);
        lp.call_later(ms(1), move |lp| {
            let now = lp.time();
            for delay in [20_000, 150_000] {
                let ran = Rc::clone(&counted);
                lp.call_at(now + ns(delay), move |_| ran.set(ran.get() + 1)).unwrap();
            }
        })
        .unwrap();
        while ran.get() == 0 {
            wait(lp);
        }
        let is_apart = ran.get() == 1;
        while ran.get() < 2 {
            wait(lp);
        }
        is_apart
    };
    (0..ROUNDS).filter(is_apart).count()
}

fn run_once(lp: &Loop) {
    lp.run_once(Duration::MAX).unwrap();
}

#[test]
fn s03_two_timers_within_the_gap_share_a_wakeup() {
    let apart = rounds_apart(&real_loop(), run_once);
    assert!(apart < ROUNDS, "all pairs ran apart");
}

#[test]
fn s03_a_host_wakes_once_for_two_timers_within_the_gap() {
    let lp = real_loop();
    let fd = lp.fd().unwrap();
    let apart = rounds_apart(&lp, |lp| {
        lp.flush().unwrap();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd is passed, which the count says.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 20_000) }, 1, "the host sleeps");
        lp.run_once(Duration::ZERO).unwrap();
    });
    assert!(apart < ROUNDS, "all pairs ran apart");
}

#[test]
fn s03_a_dense_stream_keeps_the_order_of_deadlines() {
    let lp = real_loop();
    let (mut random, begin) = (Random(7), lp.time() + ms(20));
    let last = Rc::new(Cell::new(Time::from_nanos(0)));
    for _ in 0..10_000 {
        let (when, last) = (begin + ns(random.below(100_000_000)), Rc::clone(&last));
        lp.call_at(when, move |lp| {
            assert!(lp.time() >= when && last.replace(when) <= when);
        })
        .unwrap();
    }
    let _ = lp.run().unwrap();
    assert_eq!(lp.metrics().timers_fired, 10_000);
}

#[test]
fn s03_an_iteration_for_another_reason_runs_what_is_due_within_the_gap() {
    let lp = real_loop();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ran = Rc::new(Cell::new(0));
    let woken = Rc::clone(&ran);
    lp.call_later(ms(1), move |_| woken.set(1)).unwrap();
    while ran.get() == 0 {
        run_once(&lp);
    }
    for delay in [5000, 6000] {
        let ran = Rc::clone(&ran);
        lp.call_later(ns(delay), move |_| ran.set(ran.get() + 1)).unwrap();
    }
    lp.watch_fd(ours, Events::IN, |_, _| {}).unwrap();
    std::io::Write::write_all(&mut theirs, b"x").unwrap();
    be_busy(ns(10_000));
    run_once(&lp);
    assert_eq!(ran.get(), 3, "timers that were due waited for the end of the gap");
}

#[test]
fn s03_a_short_period_bounds_the_gap() {
    let lp = real_loop();
    let every = lp.call_every(ns(100_000), |_| {}).unwrap();
    assert!((10_000..=50_000).contains(&lp.metrics().gap_ns));
    lp.cancel(every).unwrap();
    assert_eq!(lp.metrics().gap_ns, 200_000);
}

#[test]
fn s03_who_asks_for_exact_deadlines_has_no_gap() {
    let fresh = real_loop().metrics();
    assert_eq!((fresh.wake_latency_ns, fresh.gap_ns), (50_000, 200_000));
    let builders = [
        Loop::builder().slack(Duration::ZERO),
        Loop::builder().slack(ms(1)),
        Loop::builder().spin(ns(1)),
        Loop::builder().virtual_time(START),
    ];
    for builder in builders {
        assert_eq!(built(builder).metrics().gap_ns, 0);
    }
    let exact = built(Loop::builder().slack(Duration::ZERO));
    let apart = rounds_apart(&exact, run_once);
    assert!(apart > 0, "no pair of timers with exact deadlines ran apart");
}

#[test]
fn s03_the_latency_is_measured() {
    let lp = real_loop();
    let gap = (4 * measured_latency(&lp)).clamp(10_000, 200_000);
    assert_eq!(lp.metrics().gap_ns, gap);
    let exact = built(Loop::builder().slack(Duration::ZERO));
    measured_latency(&exact);
    assert_eq!(exact.metrics().gap_ns, 0);
}

fn measured_latency(lp: &Loop) -> u64 {
    // A deadline that comes before the loop is asleep does not count.
    for _ in 0..1000 {
        lp.call_later(ms(1), |_| {}).unwrap();
        let _ = lp.run().unwrap();
        if lp.metrics().wake_latency_ns != 50_000 {
            break;
        }
    }
    let metrics = lp.metrics();
    assert_ne!(metrics.wake_latency_ns, 50_000);
    assert!(metrics.timers_fired >= 16);
    metrics.wake_latency_ns
}

#[test]
fn s03_a_sleep_that_its_limit_ends_shows_no_latency() {
    let lp = real_loop();
    for _ in 0..64 {
        let timer = lp.call_later(ms(1) + ns(20_000), |_| {}).unwrap();
        let _ = lp.run_once(ms(1));
        let _ = lp.cancel(timer);
    }
    // A slow machine may begin the sleep so late that the timer ends it. Its latency is no less.
    let latency = lp.metrics().wake_latency_ns;
    assert!(latency > 5000, "the limit ended the sleeps, and showed a latency of {latency} ns");
}
