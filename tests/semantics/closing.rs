//! S22, S24, S25: closing, shutting down, and loops on their way to another thread.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::thread;
use std::time::Duration;

use libc::{EBUSY, ENOENT, ESHUTDOWN};
use ringloop::{Handle, HookPoint, Loop, Outcome, Time};

use crate::support::{Watch, Watched};
use crate::trace::{
    Bomb, HOUR, START, Trace, at, errno, ms, note_time, ns, panic_in, real_loop, virtual_loop,
};

/// Schedules callbacks of each kind; each calls `f`.
fn one_of_each(lp: &Loop, f: impl FnMut(&Loop) + Clone + 'static) -> Vec<Handle> {
    vec![
        lp.call_soon(f.clone()).unwrap(),
        lp.call_at(Time::default(), f.clone()).unwrap(),
        lp.call_later(HOUR, f.clone()).unwrap(),
        lp.call_at(Time::NEVER, f.clone()).unwrap(),
        lp.call_every(ns(1), f.clone()).unwrap(),
        lp.add_hook(HookPoint::BeforeWait, f.clone()).unwrap(),
        lp.add_hook(HookPoint::AfterWait, f).unwrap(),
    ]
}

#[test]
fn s22_close_drops_everything_and_runs_nothing() {
    type End = fn(Watched);
    let ends: [End; 4] = [
        |lp| lp.close().unwrap(),
        drop,
        |lp| lp.into_inner().close_within(Duration::ZERO).unwrap(),
        |lp| {
            lp.shutdown().unwrap();
            lp.close().unwrap();
        },
    ];
    for end in ends {
        let lp = virtual_loop();
        let token = Rc::new(());
        let small = Rc::clone(&token);
        one_of_each(&lp, move |_| panic!("a callback has run, {}", Rc::strong_count(&small)));
        let (large, room) = (Rc::clone(&token), [0u64; 32]);
        one_of_each(&lp, move |_| {
            panic!("a callback has run, {room:?}, {}", Rc::strong_count(&large))
        });
        assert_eq!(Rc::strong_count(&token), 15);
        end(lp);
        assert_eq!(Rc::strong_count(&token), 1, "something was not dropped");
    }
}

#[test]
fn s22_close_drops_the_rest_of_a_broken_batch() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
    let dropped = trace.on_drop("drop");
    let rest = lp
        .call_soon(move |_| panic!("a callback has run, {}", std::mem::size_of_val(&dropped)))
        .unwrap();
    lp.on_release(rest, trace.note("release")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    assert_eq!(trace.len(), 0);
    lp.close().unwrap();
    assert_eq!(trace.take(), ["drop", "release"]);
}

#[test]
fn s22_everything_says_that_the_loop_is_closing() {
    let lp = virtual_loop();
    let ran = Rc::new(Cell::new(0));
    let handles = one_of_each(&lp, |_| panic!("a callback has run"));
    for &own in &handles {
        let (ran, handles) = (Rc::clone(&ran), handles.clone());
        lp.on_release(own, move |lp| {
            ran.set(ran.get() + 1);
            assert_eq!(errno(lp.call_soon(|_| {})), ESHUTDOWN);
            assert_eq!(errno(lp.call_later(ns(1), |_| {})), ESHUTDOWN);
            assert_eq!(errno(lp.call_at(START, |_| {})), ESHUTDOWN);
            assert_eq!(errno(lp.call_every(ns(1), |_| {})), ESHUTDOWN);
            assert_eq!(errno(lp.add_hook(HookPoint::AfterWait, |_| {})), ESHUTDOWN);
            assert_eq!(errno(lp.run()), ESHUTDOWN);
            assert_eq!(errno(lp.run_forever()), ESHUTDOWN);
            assert_eq!(errno(lp.run_once(Duration::ZERO)), ESHUTDOWN);
            assert_eq!(errno(lp.shutdown()), ESHUTDOWN);
            assert_eq!(errno(lp.stop()), ESHUTDOWN);
            assert_eq!(errno(lp.break_()), ESHUTDOWN);
            assert_eq!(errno(lp.set_exception_handler(|_, _| {})), ESHUTDOWN);
            assert_eq!(errno(lp.clear_exception_handler()), ESHUTDOWN);
            assert_eq!(errno(lp.set_slow_callback(ns(1), |_, _| {})), ESHUTDOWN);
            assert_eq!(errno(lp.clear_slow_callback()), ESHUTDOWN);
            assert_eq!(errno(lp.walk(|_, _| {})), ESHUTDOWN);
            assert_eq!(errno(lp.fd()), ESHUTDOWN);
            assert_eq!(errno(lp.flush()), ESHUTDOWN);
            for &handle in &handles {
                assert_eq!(errno(lp.cancel(handle)), ESHUTDOWN);
                assert_eq!(errno(lp.reschedule(handle, START)), ESHUTDOWN);
                assert_eq!(errno(lp.when(handle)), ESHUTDOWN);
                assert_eq!(errno(lp.skipped(handle)), ESHUTDOWN);
                assert_eq!(errno(lp.ref_(handle)), ESHUTDOWN);
                assert_eq!(errno(lp.unref(handle)), ESHUTDOWN);
                assert_eq!(errno(lp.on_release(handle, |_| {})), ESHUTDOWN);
            }
            // Functions that cannot return an error return a value.
            assert!(!lp.is_pending(own) && !lp.has_ref(own) && !lp.is_running());
            assert_eq!((lp.time(), lp.metrics().callbacks, lp.current_handle()), (START, 0, None));
        })
        .unwrap();
    }
    lp.close().unwrap();
    assert_eq!(ran.get(), handles.len());
}

#[test]
fn s22_shutdown_cancels_everything_and_takes_nothing_new() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let handles = one_of_each(&lp, |_| panic!("a callback has run"));
    for &handle in &handles {
        lp.on_release(handle, trace.note("release")).unwrap();
    }
    lp.shutdown().unwrap();
    assert_eq!(trace.take(), ["release"; 7]);
    assert!(!lp.is_alive() && lp.next_deadline().is_none());

    assert_eq!(errno(lp.call_soon(|_| {})), ESHUTDOWN);
    assert_eq!(errno(lp.call_later(ns(1), |_| {})), ESHUTDOWN);
    assert_eq!(errno(lp.call_at(START, |_| {})), ESHUTDOWN);
    assert_eq!(errno(lp.call_every(ns(1), |_| {})), ESHUTDOWN);
    assert_eq!(errno(lp.add_hook(HookPoint::AfterWait, |_| {})), ESHUTDOWN);
    assert_eq!(errno(lp.run()), ESHUTDOWN);
    assert_eq!(errno(lp.run_forever()), ESHUTDOWN);
    assert_eq!(errno(lp.run_once(Duration::ZERO)), ESHUTDOWN);
    // Functions that add nothing still work.
    for handle in handles {
        assert!(!lp.is_pending(handle));
        assert_eq!(errno(lp.cancel(handle)), ENOENT);
    }
    let mut shown = 0;
    lp.walk(|_, _| shown += 1).unwrap();
    assert_eq!((shown, lp.time(), lp.metrics().timers_cancelled), (0, START, 4));
    assert_eq!(lp.shutdown(), Ok(()));
    lp.close().unwrap();
    assert_eq!(trace.len(), 0);
}

#[test]
fn s22_what_is_dropped_at_shutdown_may_cancel_the_others() {
    /// Cancels another call when it is dropped.
    struct Canceller(Weak<Watched>, Rc<Cell<Option<Handle>>>, Trace);
    impl Drop for Canceller {
        fn drop(&mut self) {
            let lp = self.0.upgrade().unwrap();
            self.2.add("drop");
            match lp.cancel(self.1.get().unwrap()) {
                Ok(()) => self.2.add("cancelled the other"),
                Err(error) => assert_eq!(error.raw_os_error(), ENOENT),
            }
            assert_eq!(errno(lp.call_soon(|_| {})), ESHUTDOWN);
            assert_eq!(errno(lp.shutdown()), EBUSY);
        }
    }
    let lp = Rc::new(virtual_loop());
    let trace = Trace::new();
    let others = [Rc::new(Cell::new(None)), Rc::new(Cell::new(None))];
    for other in &others {
        let canceller = Canceller(Rc::downgrade(&lp), Rc::clone(other), trace.clone());
        let handle = lp.call_soon(move |_| drop(canceller)).unwrap();
        lp.on_release(handle, trace.note("release")).unwrap();
        // Each call cancels the other: the first succeeds, the second finds nothing to cancel.
        others
            .iter()
            .filter(|&place| !Rc::ptr_eq(place, other))
            .for_each(|place| place.set(Some(handle)));
    }
    lp.shutdown().unwrap();
    let mut seen = trace.take();
    seen.sort_unstable();
    assert_eq!(seen, ["cancelled the other", "drop", "drop", "release", "release"]);
}

#[test]
fn s22_a_panic_at_shutdown_or_close_keeps_nobody_from_being_released() {
    for shut_down in [false, true] {
        let lp = virtual_loop();
        let trace = Trace::new();
        let before = lp.call_soon(|_| {}).unwrap();
        lp.on_release(before, trace.note("release before")).unwrap();
        let bomb = Bomb("in a Drop");
        let bombed = lp.call_soon(move |_| drop(bomb)).unwrap();
        lp.on_release(bombed, trace.note("release of the one whose Drop panicked")).unwrap();
        let after = lp.call_later(ns(1), |_| {}).unwrap();
        lp.on_release(after, trace.note("release after")).unwrap();
        let caught = if shut_down { panic_in(|| lp.shutdown()) } else { panic_in(|| lp.close()) };
        assert_eq!(caught, Some("in a Drop"));
        let mut seen = trace.take();
        seen.sort_unstable();
        assert_eq!(
            seen,
            ["release after", "release before", "release of the one whose Drop panicked"]
        );
    }
}

#[test]
fn s22_closing_gives_back_what_a_loop_took() {
    // More loops than RLIMIT_NOFILE allows descriptors, up to 3,001: a leak would exceed the limit.
    let _watch = Watch::begin();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live variable.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    for _ in 0..limit.rlim_cur.min(3000) + 1 {
        let lp = Loop::new().unwrap();
        lp.fd().unwrap();
        lp.call_later(HOUR, |_| {}).unwrap();
        assert_eq!(lp.run_once(ns(1)), Ok(0));
        lp.close().unwrap();
    }
}

#[test]
fn s24_a_loop_that_ended_by_a_panic_is_closed_like_any_other() {
    let trace = Trace::new();
    let inner = trace.clone();
    let caught = panic_in(move || {
        let lp = virtual_loop();
        lp.call_soon(|_| crate::trace::panic("callback")).unwrap();
        let rest = lp.call_soon(|_| {}).unwrap();
        lp.on_release(rest, inner.note("release")).unwrap();
        lp.run()
    });
    assert_eq!((caught, trace.take()), (Some("callback"), vec!["release"]));
}

/// Checks that a loop runs a call and wakes up for a timer on this thread.
fn check_works(lp: &Loop) {
    let times = Trace::new();
    let begin = lp.time();
    lp.call_soon(note_time(&times)).unwrap();
    lp.call_later(ms(2), note_time(&times)).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(times.take()[1] >= begin + ms(2));
}

#[test]
fn s25_a_loop_can_be_made_on_one_thread_and_run_on_another() {
    let _watch = Watch::begin();
    let detached = Loop::builder().build_detached().unwrap();
    thread::spawn(move || check_works(&detached.adopt().unwrap())).join().unwrap();
}

#[test]
fn s25_a_loop_can_be_adopted_by_the_thread_that_made_it() {
    let _watch = Watch::begin();
    check_works(&Loop::builder().build_detached().unwrap().adopt().unwrap());
}

#[test]
fn s25_a_loop_can_be_adopted_when_the_thread_that_made_it_has_exited() {
    let _watch = Watch::begin();
    let detached = thread::spawn(|| Loop::builder().build_detached().unwrap()).join().unwrap();
    check_works(&detached.adopt().unwrap());
    let detached = thread::spawn(|| Loop::builder().build_detached().unwrap()).join().unwrap();
    thread::spawn(move || check_works(&detached.adopt().unwrap())).join().unwrap();
}

#[test]
fn s25_a_loop_that_is_not_adopted_can_be_dropped_on_any_thread() {
    let detached = Loop::builder().build_detached().unwrap();
    let remote = detached.remote();
    thread::spawn(move || drop(detached)).join().unwrap();
    assert_eq!(errno(remote.wakeup()), ESHUTDOWN);
    let detached = thread::spawn(|| Loop::builder().build_detached().unwrap()).join().unwrap();
    let remote = detached.remote();
    drop(detached);
    assert_eq!(errno(remote.wakeup()), ESHUTDOWN);
}

#[test]
fn s25_adoption_keeps_the_settings() {
    let builder = Loop::builder().virtual_time(START).slack(ns(7));
    let detached = builder.build_detached().unwrap();
    let time = thread::spawn(move || {
        let lp = detached.adopt().unwrap();
        lp.call_later(ns(10), |_| {}).unwrap();
        let _ = lp.run().unwrap();
        lp.time()
    });
    assert_eq!(time.join().unwrap(), at(17));
}

#[test]
fn s25_threads_have_loops_of_their_own() {
    let _watch = Watch::begin();
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(|| check_works(&real_loop()))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
