//! S10, S11, S13: handles and cancelling.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libc::ENOENT;
use ringloop::{Handle, HookPoint, Loop, Outcome, Time};

use crate::support::Watched;
use crate::trace::{HOUR, Random, START, Trace, at, check_stale, errno, later, ns, virtual_loop};

#[test]
fn s10_a_handle_is_stale_once_its_thing_has_run() {
    let lp = virtual_loop();
    let call = lp.call_soon(|_| {}).unwrap();
    let timer = lp.call_later(ns(1), |_| {}).unwrap();
    assert!(lp.is_pending(call) && lp.is_pending(timer));
    let _ = lp.run().unwrap();
    check_stale(&lp, call);
    check_stale(&lp, timer);
}

#[test]
fn s10_a_handle_is_stale_once_its_thing_is_cancelled() {
    let lp = virtual_loop();
    let handles = [
        lp.call_soon(|_| {}).unwrap(),
        lp.call_later(ns(1), |_| {}).unwrap(),
        lp.call_at(Time::NEVER, |_| {}).unwrap(),
        lp.call_every(ns(1), |_| {}).unwrap(),
        lp.add_hook(HookPoint::BeforeWait, |_| {}).unwrap(),
        lp.add_hook(HookPoint::AfterWait, |_| {}).unwrap(),
    ];
    for handle in handles {
        assert_eq!(lp.cancel(handle), Ok(()));
        check_stale(&lp, handle);
    }
    assert!(!lp.is_alive());
}

#[test]
fn s10_a_handle_is_stale_when_its_slot_serves_another() {
    let lp = virtual_loop();
    let mut old = Vec::new();
    for round in 0..20 {
        let handles: Vec<Handle> = (0..50)
            .map(|n| match (round + n) % 3 {
                0 => lp.call_soon(|_| {}).unwrap(),
                1 => lp.call_later(HOUR, |_| {}).unwrap(),
                _ => lp.call_every(HOUR, |_| {}).unwrap(),
            })
            .collect();
        old.iter().for_each(|&handle| check_stale(&lp, handle));
        for &handle in &handles {
            assert!(lp.is_pending(handle), "a stale handle has changed another entry");
            assert!(lp.has_ref(handle));
            lp.cancel(handle).unwrap();
        }
        old.extend(handles);
    }
}

#[test]
fn s10_no_handle_is_given_twice() {
    let lp = virtual_loop();
    let mut seen = HashSet::new();
    let mut pending = Vec::new();
    let mut random = Random(10);
    for _ in 0..50_000 {
        let handle = lp.call_later(HOUR, |_| {}).unwrap();
        assert!(handle.as_raw() > 0, "C must distinguish handles and errors");
        assert!(seen.insert(handle.as_raw()));
        pending.push(handle);
        if random.below(3) > 0 {
            let handle = pending.swap_remove(random.below(pending.len() as u64) as usize);
            lp.cancel(handle).unwrap();
        }
    }
}

#[test]
fn s10_a_handle_of_another_loop_is_refused() {
    let loops: Vec<Watched> = (0..32).map(|_| virtual_loop()).collect();
    let handles: Vec<[Handle; 3]> = loops
        .iter()
        .map(|lp| {
            [
                lp.call_soon(|_| {}).unwrap(),
                lp.call_later(HOUR, |_| {}).unwrap(),
                lp.add_hook(HookPoint::AfterWait, |_| {}).unwrap(),
            ]
        })
        .collect();
    for (at, lp) in loops.iter().enumerate() {
        for (of, handles) in handles.iter().enumerate().filter(|&(of, _)| of != at) {
            for &handle in handles {
                assert!(
                    !lp.is_pending(handle),
                    "a handle of loop {of} names something on loop {at}"
                );
                check_stale(lp, handle);
            }
        }
    }
    for (lp, handles) in loops.iter().zip(&handles) {
        assert!(handles.iter().all(|&handle| lp.is_pending(handle)));
    }
}

#[test]
fn s10_a_number_that_is_no_handle_is_refused() {
    let lp = virtual_loop();
    let real = [lp.call_soon(|_| {}).unwrap(), lp.call_later(HOUR, |_| {}).unwrap()];
    assert_eq!(Handle::from_raw(0), None);
    let mut raw = vec![1, 2, -1, i64::MIN, i64::MAX, i64::from(u32::MAX), 1 << 32, -1 << 32];
    for handle in real {
        assert_eq!(Handle::from_raw(handle.as_raw()), Some(handle));
        raw.push(-handle.as_raw());
        raw.extend((0..64).map(|bit| handle.as_raw() ^ (1 << bit)));
    }
    let mut random = Random(11);
    raw.extend((0..10_000).map(|_| random.next() as i64 ^ (random.next() as i64) << 32));
    for handle in
        raw.into_iter().filter_map(Handle::from_raw).filter(|handle| !real.contains(handle))
    {
        check_stale(&lp, handle);
    }
    assert!(real.iter().all(|&handle| lp.is_pending(handle)));
}

#[test]
fn s11_what_is_cancelled_never_runs() {
    let lp = virtual_loop();
    let handles = [
        lp.call_soon(|_| panic!("a cancelled call has run")).unwrap(),
        lp.call_later(ns(5), |_| panic!("a cancelled timer has run")).unwrap(),
        lp.call_at(Time::default(), |_| panic!("a cancelled due timer has run")).unwrap(),
        lp.call_every(ns(5), |_| panic!("a cancelled repeating timer has run")).unwrap(),
        lp.add_hook(HookPoint::BeforeWait, |_| panic!("a cancelled hook has run")).unwrap(),
        lp.add_hook(HookPoint::AfterWait, |_| panic!("a cancelled hook has run")).unwrap(),
    ];
    handles.iter().for_each(|&handle| lp.cancel(handle).unwrap());
    for _ in 0..3 {
        assert_eq!(lp.run_once(ns(10)), Ok(0));
    }
}

#[test]
fn s11_what_is_cancelled_is_gone_when_cancel_returns() {
    let lp = virtual_loop();
    let token = Rc::new(());
    let large = [0u64; 16];
    for repeating in [false, true] {
        let handles = [false, true].map(|is_large| {
            let token = Rc::clone(&token);
            match (is_large, repeating) {
                (false, false) => lp.call_later(HOUR, move |_| drop(token)),
                (false, true) => lp.call_every(HOUR, move |_| drop(Rc::clone(&token))),
                (true, false) => {
                    lp.call_later(HOUR, move |_| drop((token, std::hint::black_box(large))))
                }
                (true, true) => lp.call_every(HOUR, move |_| {
                    drop((Rc::clone(&token), std::hint::black_box(large)))
                }),
            }
            .unwrap()
        });
        assert_eq!(Rc::strong_count(&token), 3);
        handles.iter().for_each(|&handle| lp.cancel(handle).unwrap());
        assert_eq!(Rc::strong_count(&token), 1);
    }
}

#[test]
fn s11_cancelling_from_the_batch_that_is_being_run() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let victims = Rc::new(RefCell::new(Vec::<Handle>::new()));
    let (inner, inner_victims) = (trace.clone(), Rc::clone(&victims));
    lp.call_at(START, move |lp| {
        inner.add("killer");
        for &victim in inner_victims.borrow().iter() {
            assert!(lp.is_pending(victim));
            assert_eq!(lp.cancel(victim), Ok(()));
            assert_eq!(errno(lp.cancel(victim)), ENOENT);
        }
    })
    .unwrap();
    victims.borrow_mut().push(lp.call_at(START, trace.note("timer")).unwrap());
    let repeating = lp.call_every(ns(1), trace.note("repeating timer")).unwrap();
    lp.reschedule(repeating, START).unwrap();
    victims.borrow_mut().push(repeating);
    lp.call_at(START, trace.note("survivor")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!((trace.take(), lp.is_alive()), (vec!["killer", "survivor"], false));

    let inner_victims = Rc::clone(&victims);
    lp.call_soon(move |lp| {
        inner_victims.borrow().iter().for_each(|&victim| lp.cancel(victim).unwrap())
    })
    .unwrap();
    victims.replace(vec![
        lp.call_soon(trace.note("call")).unwrap(),
        lp.call_soon(trace.note("call")).unwrap(),
    ]);
    lp.call_soon(trace.note("survivor")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!((trace.take(), lp.is_alive()), (vec!["survivor"], false));
    assert_eq!(lp.metrics().callbacks, 4);
}

#[test]
fn s11_cancelling_the_last_of_a_batch_leaves_nothing_that_keeps_the_loop_awake() {
    let lp = virtual_loop();
    let (victim, inner) = later();
    lp.call_soon(move |lp| lp.cancel(inner.get().unwrap()).unwrap()).unwrap();
    victim.set(Some(lp.call_soon(|_| panic!("a cancelled call has run")).unwrap()));
    lp.call_later(ns(10), |_| {}).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(lp.run_once(HOUR), Ok(1), "the loop woke up for a cancelled callback");
    assert_eq!(lp.time(), at(10));
}

#[test]
fn s11_a_slot_freed_in_the_batch_and_filled_again_does_not_run_in_it() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (victim, inner) = later();
    let inner_trace = trace.clone();
    lp.call_soon(move |lp| {
        lp.cancel(inner.get().unwrap()).unwrap();
        // The new call very likely has the slot of the cancelled one, and must not take its place
        // in the batch.
        lp.call_soon(inner_trace.note("new call")).unwrap();
        lp.call_later(HOUR, inner_trace.note("new timer")).unwrap();
    })
    .unwrap();
    victim.set(Some(lp.call_soon(trace.note("cancelled")).unwrap()));
    lp.call_soon(trace.note("old call")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(trace.take(), ["old call"]);
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(trace.take(), ["new call"]);
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!((trace.take(), lp.time()), (vec!["new timer"], START + HOUR));
}

#[test]
fn s11_cancelling_from_inside_the_callback_is_harmless() {
    let lp = virtual_loop();
    for is_timer in [false, true] {
        let (own, inner) = later();
        let callback = move |lp: &Loop| {
            // A one-shot callback has ended when it begins to run.
            assert_eq!(errno(lp.cancel(inner.get().unwrap())), ENOENT);
            assert_eq!(errno(lp.cancel(inner.get().unwrap())), ENOENT);
        };
        let handle = if is_timer { lp.call_later(ns(1), callback) } else { lp.call_soon(callback) };
        own.set(Some(handle.unwrap()));
        assert_eq!(lp.run(), Ok(Outcome::Done));
    }
    let (own, inner) = later();
    let token = Rc::new(());
    let inner_token = Rc::clone(&token);
    let repeating = lp.call_every(ns(1), move |lp| {
        assert_eq!(lp.cancel(inner.get().unwrap()), Ok(()));
        assert_eq!(errno(lp.cancel(inner.get().unwrap())), ENOENT);
        check_stale(lp, inner.get().unwrap());
        // The callback is running, so the values that it has captured still exist.
        assert_eq!(Rc::strong_count(&inner_token), 2);
    });
    own.set(Some(repeating.unwrap()));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((Rc::strong_count(&token), lp.metrics().callbacks), (1, 3));
}

#[test]
fn s11_a_hook_may_cancel_itself_and_others() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let (own, inner) = later();
    let (other, inner_other) = later();
    let inner_trace = trace.clone();
    let hook = lp.add_hook(HookPoint::BeforeWait, move |lp| {
        inner_trace.add("killer");
        lp.cancel(inner.get().unwrap()).unwrap();
        lp.cancel(inner_other.get().unwrap()).unwrap();
        assert_eq!(errno(lp.cancel(inner.get().unwrap())), ENOENT);
    });
    own.set(Some(hook.unwrap()));
    other.set(Some(lp.add_hook(HookPoint::BeforeWait, trace.note("victim")).unwrap()));
    lp.add_hook(HookPoint::BeforeWait, trace.note("survivor")).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    assert_eq!(trace.take(), ["killer", "survivor", "survivor"]);
}

#[test]
fn s11_cancelling_costs_the_same_however_many_are_pending() {
    // A list walk for each cancel would make 10^10 steps and take minutes.
    const COUNT: usize = 200_000;
    let lp = virtual_loop();
    for newest_first in [true, false] {
        let mut handles: Vec<Handle> = (0..COUNT)
            .map(|n| {
                if n % 2 == 0 {
                    lp.call_later(HOUR + ns(n as u64), |_| {})
                } else {
                    lp.call_soon(|_| {})
                }
            })
            .map(Result::unwrap)
            .collect();
        if newest_first {
            handles.reverse();
        }
        let begin = Instant::now();
        handles.iter().for_each(|&handle| lp.cancel(handle).unwrap());
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        assert!(!lp.is_alive());
    }
}

#[test]
fn s13_a_cancelled_call_or_timer_gets_no_final_callback() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let handles = [
        lp.call_soon(trace.note("call")).unwrap(),
        lp.call_later(ns(5), trace.note("timer")).unwrap(),
        lp.call_every(ns(5), trace.note("repeating timer")).unwrap(),
    ];
    lp.cancel(handles[0]).unwrap();
    lp.cancel(handles[1]).unwrap();
    lp.cancel(handles[2]).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((trace.len(), lp.metrics().iterations), (0, 0));
}
