//! What only the inside can see of an iteration: readings of the clock, completions of nobody's.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Loop, Outcome};
use crate::ring::Waited;
use crate::time::{Time, readings};

/// How many times the clock is read while `lp` runs.
fn readings_of(lp: &Loop) -> u64 {
    let before = readings::so_far();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    readings::so_far() - before
}

/// Schedules a chain of calls, each in an iteration of its own.
fn chain(lp: &Loop, left: u32) {
    if left > 0 {
        lp.call_soon(move |lp| chain(lp, left - 1)).unwrap();
    }
}

#[test]
fn s05_the_clock_is_not_read_while_no_timer_is_pending() {
    let lp = Loop::new().unwrap();
    let cancelled = lp.call_later(Duration::from_secs(3600), |_| ()).unwrap();
    lp.cancel(cancelled).unwrap();
    let never = lp.call_at(Time::NEVER, |_| ()).unwrap();
    lp.unref(never).unwrap();
    chain(&lp, 1000);
    assert_eq!(readings_of(&lp), 0);
    assert_eq!(lp.metrics().iterations, 1000);
}

#[test]
fn s05_the_clock_is_read_once_an_iteration_while_a_timer_is_pending() {
    let lp = Loop::new().unwrap();
    let far = lp.call_later(Duration::from_secs(3600), |_| ()).unwrap();
    lp.unref(far).unwrap();
    chain(&lp, 1000);
    assert_eq!(readings_of(&lp), 1000);
    assert_eq!(lp.metrics().iterations, 1000);
}

#[test]
fn s09_a_flood_of_completions_does_not_hold_up_a_due_timer() {
    const FLOOD: u64 = 4000;
    let lp = Loop::builder().sq_entries(4096).cq_entries(8192).build().unwrap();
    lp.ring.borrow_mut().flood(FLOOD);
    let taken = Rc::new(Cell::new(0));
    let inner = Rc::clone(&taken);
    lp.call_at(lp.time(), move |lp| inner.set(lp.metrics().completed)).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!((1..=256).contains(&taken.get()), "{} completions were taken before the timer ran", taken.get());
    while lp.metrics().completed < FLOOD {
        lp.run_once(Duration::ZERO).unwrap();
    }
}

#[test]
fn s28_a_completion_queue_that_is_too_small_loses_nothing() {
    const FLOOD: u64 = 1000;
    let lp = Loop::builder().sq_entries(2).cq_entries(2).build().unwrap();
    lp.ring.borrow_mut().flood(FLOOD);
    let ran_at = Rc::new(Cell::new(None));
    let inner = Rc::clone(&ran_at);
    let when = lp.time() + Duration::from_millis(1);
    lp.call_at(when, move |lp| inner.set(Some(lp.time()))).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(ran_at.get().is_some_and(|ran_at| ran_at >= when));
    while lp.metrics().completed < FLOOD {
        lp.run_once(Duration::ZERO).unwrap();
    }
    assert!(lp.metrics().overflows > 0, "the queue was large enough after all");
}

#[test]
fn s27_a_wake_that_comes_after_watching_ends_the_wait_where_a_poll_completes_once() {
    let lp = Loop::new().unwrap();
    lp.ring.borrow_mut().poll_once_only();
    for _ in 0..3 {
        lp.ring.borrow_mut().watch_wakes(lp.shared.eventfd()).unwrap();
        assert!(lp.shared.inbox.fall_asleep());
        lp.remote().wakeup().unwrap();
        // It would never return if the wake had been taken for an old one.
        assert_eq!(lp.ring.borrow_mut().wait(u64::MAX), Ok(Waited::Completed));
        assert!(lp.shared.inbox.wake_up());
        lp.ring.borrow_mut().reap(|_| {});
        // An old one does not end the next wait.
        let soon = Time::now() + Duration::from_millis(1);
        lp.ring.borrow_mut().watch_wakes(lp.shared.eventfd()).unwrap();
        assert_eq!(lp.ring.borrow_mut().wait(soon.as_nanos()), Ok(Waited::Completed));
        assert!(Time::now() >= soon);
        lp.ring.borrow_mut().reap(|_| {});
    }
}
