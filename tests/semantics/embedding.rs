//! The loop inside another loop: when its descriptor is readable, and its costs. S2, S13, S18.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use ringloop::{HookPoint, Loop, Time};

use crate::support::Watched;
use crate::trace::{HOUR, Random, ms, ns, real_loop};

/// A loop with its descriptor.
fn embedded() -> (Watched, RawFd) {
    let lp = real_loop();
    let fd = lp.fd().unwrap();
    assert_eq!(lp.fd(), Ok(fd));
    (lp, fd)
}

fn is_readable(fd: RawFd, limit: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one live pollfd, and the count is 1.
    let count = unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as libc::c_int) };
    assert!(count == 0 || (count, poll.revents) == (1, libc::POLLIN));
    count == 1
}

/// Much longer than any event of these tests takes.
const LONG: Duration = ms(60_000);

#[track_caller]
fn check_runs(lp: &Loop, fd: RawFd, limit: Duration) {
    assert!(is_readable(fd, limit), "the host would sleep");
    assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
}

#[track_caller]
fn check_idle(fd: RawFd) {
    assert!(!is_readable(fd, Duration::ZERO), "the host would spin");
}

#[test]
fn the_descriptor_of_an_idle_loop_is_not_readable() {
    let (lp, fd) = embedded();
    check_idle(fd);
    lp.call_later(HOUR, |_| {}).unwrap();
    lp.call_at(Time::NEVER, |_| {}).unwrap();
    lp.add_hook(HookPoint::BeforeWait, |_| {}).unwrap();
    for _ in 0..3 {
        lp.flush().unwrap();
        check_idle(fd);
        assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
        check_idle(fd);
    }
    assert!(!is_readable(fd, ms(30)));
    let enters = lp.metrics().enters;
    for _ in 0..100 {
        lp.flush().unwrap();
    }
    assert_eq!(lp.metrics().enters, enters);
}

#[test]
fn the_descriptor_is_readable_for_what_is_ready() {
    // The descriptor is first requested after a call was scheduled.
    let lp = real_loop();
    lp.call_soon(|_| {}).unwrap();
    let fd = lp.fd().unwrap();
    for _ in 0..3 {
        lp.flush().unwrap();
        assert!(is_readable(fd, Duration::ZERO), "polling does not consume readiness");
        check_runs(&lp, fd, Duration::ZERO);
        check_idle(fd);
        lp.call_soon(|_| {}).unwrap();
    }
    // A flush is needed only for callbacks scheduled outside a run. The rest of a broken batch,
    // callbacks that a callback has scheduled, and timers that are due already need none.
    lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(2));
    lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
    lp.call_soon(|lp| {
        lp.call_at(Time::default(), |_| {}).unwrap();
    })
    .unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
    check_runs(&lp, fd, Duration::ZERO);
    check_runs(&lp, fd, LONG);
    check_idle(fd);
}

#[test]
fn s02_the_descriptor_is_readable_when_a_timer_is_due() {
    let lp = real_loop();
    // The timeout is armed in the kernel before the descriptor is first requested.
    let timer = lp.call_later(HOUR, |_| {}).unwrap();
    assert_eq!(lp.run_once(ms(1)), Ok(0));
    let fd = lp.fd().unwrap();
    for round in 0..6 {
        let when = lp.time() + ms(10);
        match round % 3 {
            0 => {
                lp.call_at(when, |_| {}).unwrap();
            }
            1 => {
                lp.call_soon(move |lp| {
                    lp.call_at(when, |_| {}).unwrap();
                })
                .unwrap();
            }
            _ => {
                // An earlier timer moves the wakeup, and the host may run the loop in between.
                lp.call_later(ms(1), |_| {}).unwrap();
                lp.run_once(HOUR).unwrap();
                lp.call_at(when, |_| {}).unwrap();
            }
        }
        lp.flush().unwrap();
        if round % 3 == 1 {
            check_runs(&lp, fd, Duration::ZERO);
        }
        check_runs(&lp, fd, LONG);
        assert!(lp.time() >= when);
        check_idle(fd);
    }
    let when = lp.time() + ms(10);
    lp.reschedule(timer, when).unwrap();
    lp.flush().unwrap();
    check_runs(&lp, fd, LONG);
    assert!(lp.time() >= when);
    check_idle(fd);
}

/// A cancelled timer may still wake the host once, but not repeatedly.
#[test]
fn a_cancelled_timer_does_not_make_the_host_spin() {
    let (lp, fd) = embedded();
    let timer = lp.call_later(ms(10), |_| {}).unwrap();
    lp.flush().unwrap();
    lp.cancel(timer).unwrap();
    lp.flush().unwrap();
    let mut in_vain = 0;
    while in_vain < 10 && is_readable(fd, ms(50)) {
        assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
        in_vain += 1;
    }
    assert!(in_vain <= 1, "woken {in_vain} times");
}

/// The host is woken at most twice for each timer.
#[test]
fn s02_a_host_with_nothing_but_poll_runs_all_timers() {
    const TIMERS: u64 = 300;
    let (lp, fd) = embedded();
    let (fired, mut wakeups, mut random) = (Rc::new(Cell::new(0)), 0, Random(5));
    for _ in 0..TIMERS {
        let (when, fired) = (lp.time() + ns(random.below(100_000_000)), Rc::clone(&fired));
        lp.call_at(when, move |lp| {
            assert!(lp.time() >= when);
            fired.set(fired.get() + 1);
        })
        .unwrap();
    }
    lp.flush().unwrap();
    while lp.is_alive() {
        assert!(is_readable(fd, LONG), "{} have fired", fired.get());
        lp.run_once(Duration::ZERO).unwrap();
        wakeups += 1;
    }
    assert!(fired.get() == TIMERS && wakeups <= 2 * TIMERS, "{wakeups} wakeups");
    check_idle(fd);
}

#[test]
fn s13_a_host_hears_of_a_cancel() {
    let (lp, fd) = embedded();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let ended = Rc::new(Cell::new(false));
    let inner = Rc::clone(&ended);
    let done = move |_: &Loop, result: ringloop::Result<usize>, _| {
        inner.set(result.is_err_and(|error| error.raw_os_error() == libc::ECANCELED));
    };
    let handle = lp.recv(stream, Vec::with_capacity(8), 0, done).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    lp.cancel(handle).unwrap();
    lp.flush().unwrap();
    for _ in 0..10 {
        if !ended.get() {
            assert!(is_readable(fd, LONG));
            lp.run_once(Duration::ZERO).unwrap();
        }
    }
    assert!(ended.get());
}
