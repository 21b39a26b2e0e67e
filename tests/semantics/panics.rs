//! S30: panics in user code, and functions of the loop that user code may call.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use libc::{EINVAL, ENOENT, ESHUTDOWN};
use ringloop::{Handle, HookPoint, Kind, Loop, Outcome, Time};

use crate::support::Watched;
use crate::trace::{
    Bomb, HOUR, START, Trace, at, errno, ns, panic, panic_in, payload, virtual_loop,
};

#[test]
fn s30_a_panic_leaves_the_run_with_the_rest_of_the_batch_queued() {
    let runs: [fn(&Loop); 3] = [
        |lp| assert_eq!(lp.run(), Ok(Outcome::Done)),
        |lp| assert_eq!(lp.run_forever(), Ok(Outcome::Stopped)),
        |lp| assert_eq!(lp.run_once(HOUR), Ok(4)),
    ];
    for run in runs {
        let lp = virtual_loop();
        let trace = Trace::new();
        let inner = trace.clone();
        lp.call_soon(trace.note("first")).unwrap();
        lp.call_soon(move |lp| {
            lp.call_soon(inner.note("new")).unwrap();
            panic("callback")
        })
        .unwrap();
        lp.call_soon(trace.note("third")).unwrap();
        lp.call_at(Time::default(), trace.note("due timer")).unwrap();
        assert_eq!(panic_in(|| run(&lp)), Some("callback"));
        assert_eq!(trace.take(), ["first"]);
        assert!(!lp.is_running() && lp.current_handle().is_none() && lp.is_alive());
        // The rest of the batch keeps its order, and runs before newer callbacks.
        lp.call_soon(trace.note("newer")).unwrap();
        assert_eq!(lp.run_once(HOUR), Ok(4));
        assert_eq!(trace.take(), ["third", "due timer", "new", "newer"]);
    }
}

#[test]
fn s30_a_panic_in_any_kind_of_callback_leaves_the_run() {
    let lp = virtual_loop();
    lp.call_later(ns(5), |_| panic("timer")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("timer"));

    let repeating = lp.call_every(ns(10), |_| panic("repeating timer")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("repeating timer"));
    assert_eq!(
        (lp.time(), lp.when(repeating)),
        (at(15), Ok(at(25))),
        "the timer is still pending, in phase"
    );
    assert_eq!(panic_in(|| lp.run()), Some("repeating timer"));
    lp.cancel(repeating).unwrap();

    for point in [HookPoint::BeforeWait, HookPoint::AfterWait] {
        let trace = Trace::new();
        let hook = lp.add_hook(point, |_| panic("hook")).unwrap();
        lp.call_soon(trace.note("call")).unwrap();
        assert_eq!(panic_in(|| lp.run()), Some("hook"));
        assert_eq!((trace.len(), lp.is_pending(hook)), (0, true));
        lp.cancel(hook).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["call"]);
    }
}

/// Uses a value, so that a closure captures the value.
fn keep<T>(_: &T) {}

/// A loop whose exception handler notes the panics that it gets.
fn handled_loop() -> (Rc<Watched>, Trace) {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.set_exception_handler(move |_, caught| {
        inner.add("handled:");
        inner.add(payload(&*caught));
    })
    .unwrap();
    (Rc::new(lp), trace)
}

#[test]
fn s30_with_a_handler_the_loop_goes_on() {
    let (lp, trace) = handled_loop();
    lp.add_hook(HookPoint::AfterWait, |lp| {
        lp.cancel(lp.current_handle().unwrap()).unwrap();
        panic("hook")
    })
    .unwrap();
    lp.call_soon(|_| panic("call")).unwrap();
    lp.call_soon(trace.note("second")).unwrap();
    lp.call_at(START, |_| panic("timer")).unwrap();
    let repeating = lp.call_every(ns(1), |_| panic("repeating timer")).unwrap();
    lp.reschedule(repeating, START).unwrap();
    lp.call_at(START, trace.note("last")).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(5), "callbacks that panic have run");
    assert_eq!(
        trace.take(),
        [
            "handled:",
            "hook",
            "handled:",
            "call",
            "second",
            "handled:",
            "timer",
            "handled:",
            "repeating timer",
            "last"
        ]
    );
    assert_eq!((lp.is_pending(repeating), lp.metrics().callbacks), (true, 5));
}

#[test]
fn s30_a_panic_in_the_drop_of_a_callback_that_has_run_is_handled() {
    let (lp, trace) = handled_loop();
    let bomb = Bomb("drop after a call");
    lp.call_soon(move |_| {
        let _carried = &bomb;
    })
    .unwrap();
    let (bomb, room) = (Bomb("drop after a large call"), [0u64; 16]);
    lp.call_soon(move |_| {
        let _carried = (&bomb, &room);
    })
    .unwrap();
    let bomb = Bomb("drop of a repeating timer");
    lp.call_every(ns(5), move |lp| {
        lp.cancel(lp.current_handle().unwrap()).unwrap();
        let _carried = &bomb;
    })
    .unwrap();
    lp.call_later(ns(5), trace.note("goes on")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(
        trace.take(),
        [
            "handled:",
            "drop after a call",
            "handled:",
            "drop after a large call",
            "handled:",
            "drop of a repeating timer",
            "goes on"
        ]
    );
}

#[test]
fn s30_a_panic_in_the_drop_of_a_callback_that_has_run_leaves_the_run_without_a_handler() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let bomb = Bomb("drop of a repeating timer");
    let repeating = lp.call_every(ns(5), move |lp| {
        lp.cancel(lp.current_handle().unwrap()).unwrap();
        let _carried = &bomb;
    });
    lp.on_release(repeating.unwrap(), trace.note("release")).unwrap();
    lp.call_later(ns(5), trace.note("rest")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("drop of a repeating timer"));
    assert_eq!(trace.take(), ["release"]);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["rest"]);
}

#[test]
fn s30_a_callback_and_its_drop_may_both_panic() {
    let (lp, trace) = handled_loop();
    let bomb = Bomb("drop");
    lp.call_every(ns(5), move |lp| {
        let _carried = &bomb;
        lp.cancel(lp.current_handle().unwrap()).unwrap();
        panic("callback")
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["handled:", "callback", "handled:", "drop"]);
}

#[test]
fn s30_a_panic_in_a_release_hook_is_handled() {
    let (lp, trace) = handled_loop();
    let call = lp.call_soon(trace.note("call")).unwrap();
    lp.on_release(call, |_| panic("release")).unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["call", "handled:", "release", "rest"]);
    lp.clear_exception_handler().unwrap();
    let call = lp.call_soon(trace.note("call")).unwrap();
    lp.on_release(call, |_| panic("release")).unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("release"));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["call", "rest"]);
}

#[test]
fn s30_without_a_handler_a_panic_in_the_drop_of_what_is_cancelled_leaves_cancel() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let bomb = Bomb("drop");
    let timer = lp.call_later(HOUR, move |_| drop(bomb)).unwrap();
    lp.on_release(timer, trace.note("release")).unwrap();
    assert_eq!(panic_in(|| lp.cancel(timer)), Some("drop"));
    assert_eq!(
        (trace.take(), lp.is_alive(), errno(lp.cancel(timer))),
        (vec!["release"], false, ENOENT)
    );
    // The loop works after the panic as before.
    lp.call_soon(trace.note("call")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((trace.take(), lp.shutdown()), (vec!["call"], Ok(())));
}

#[test]
fn s30_a_panic_in_the_drop_of_what_a_callback_cancels_is_handled() {
    let (lp, trace) = handled_loop();
    let bomb = Bomb("drop");
    let victim = lp.call_later(HOUR, move |_| drop(bomb)).unwrap();
    lp.call_soon(move |lp| {
        let _ = lp.cancel(victim);
    })
    .unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["handled:", "drop", "rest"]);
}

#[test]
fn s30_with_a_handler_the_drop_of_what_is_cancelled_outside_a_run_is_handled() {
    let (lp, trace) = handled_loop();
    let bomb = Bomb("drop");
    let timer = lp.call_later(HOUR, move |_| drop(bomb)).unwrap();
    assert_eq!(panic_in(|| assert_eq!(lp.cancel(timer), Ok(()))), None);
    assert_eq!(trace.take(), ["handled:", "drop"]);
}

#[test]
fn s30_with_a_handler_panics_at_shutdown_and_close_are_handled() {
    for shut_down in [false, true] {
        let lp = virtual_loop();
        let trace = Trace::new();
        let inner = trace.clone();
        lp.set_exception_handler(move |_, caught| inner.add(payload(&*caught))).unwrap();
        let bomb = Bomb("drop");
        lp.call_soon(move |_| drop(bomb)).unwrap();
        let timer = lp.call_later(HOUR, |_| {}).unwrap();
        lp.on_release(timer, |_| panic("release")).unwrap();
        let caught = if shut_down {
            panic_in(|| lp.shutdown().unwrap())
        } else {
            panic_in(|| lp.close().unwrap())
        };
        assert_eq!((caught, trace.take()), (None, vec!["drop", "release"]));
    }
}

#[test]
fn s30_a_panic_in_the_handler_leaves_the_run_and_the_handler_stays() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.set_exception_handler(move |_, caught| {
        inner.add(payload(&*caught));
        if inner.len() == 1 {
            panic("handler");
        }
    })
    .unwrap();
    lp.call_soon(|_| panic("first")).unwrap();
    lp.call_soon(|_| panic("second")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("handler"));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["first", "second"]);
}

#[test]
fn s30_a_handler_may_replace_and_remove_itself() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.set_exception_handler(move |lp, _| {
        inner.add("first handler");
        let trace = inner.clone();
        lp.set_exception_handler(move |lp, _| {
            trace.add("second handler");
            lp.clear_exception_handler().unwrap();
        })
        .unwrap();
        inner.add("first handler goes on");
    })
    .unwrap();
    for _ in 0..3 {
        lp.call_soon(|_| panic("callback")).unwrap();
    }
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("callback"));
    assert_eq!(trace.take(), ["first handler", "first handler goes on", "second handler"]);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["rest"]);
}

#[test]
fn s30_a_handler_may_stop_break_and_schedule() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.set_exception_handler(move |lp, _| {
        lp.call_soon(inner.note("scheduled by the handler")).unwrap();
        lp.break_().unwrap();
    })
    .unwrap();
    lp.call_soon(|_| panic("callback")).unwrap();
    lp.call_soon(trace.note("rest")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    assert_eq!(trace.len(), 0);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["rest", "scheduled by the handler"]);
}

#[test]
fn s30_a_panic_in_a_slow_callback_report_is_handled() {
    let (lp, trace) = handled_loop();
    lp.set_slow_callback(ns(1), |_, _| panic("report")).unwrap();
    lp.call_soon(trace.note("call")).unwrap();
    lp.call_soon(trace.note("call")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["call", "handled:", "report", "call", "handled:", "report"]);
}

#[test]
fn s30_a_panic_in_a_walk_leaves_the_walk() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(trace.note("call")).unwrap();
    assert_eq!(panic_in(|| lp.walk(|_, _| panic("walk"))), Some("walk"));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((trace.take(), lp.shutdown()), (vec!["call"], Ok(())));
}

/// Calls every function of a loop; each would fail if the loop held a borrow.
fn use_everything(lp: &Loop) {
    let handles: Vec<Handle> = [
        lp.call_soon(|_| {}),
        lp.call_later(HOUR, |_| {}),
        lp.call_at(Time::NEVER, |_| {}),
        lp.call_every(HOUR, |_| {}),
        lp.add_hook(HookPoint::BeforeWait, |_| {}),
        lp.add_hook(HookPoint::AfterWait, |_| {}),
    ]
    .into_iter()
    .flatten()
    .collect();
    for &handle in &handles {
        let _ = (lp.when(handle), lp.skipped(handle), lp.reschedule(handle, Time::NEVER));
        let _ = (lp.unref(handle), lp.ref_(handle), lp.has_ref(handle), lp.is_pending(handle));
        let _ = lp.on_release(handle, |_| {});
    }
    let _ = (
        lp.time(),
        lp.metrics(),
        lp.next_deadline(),
        lp.is_alive(),
        lp.is_running(),
        lp.current_handle(),
    );
    let _ = lp.walk(|lp, info| {
        if info.kind() == Kind::Hook {
            let _ = lp.metrics();
        }
    });
    let _ = (lp.fd(), lp.flush(), format!("{lp:?}"));
    if lp.is_running() {
        assert!(lp.run().is_err() && lp.run_forever().is_err() && lp.run_once(HOUR).is_err());
    } else {
        assert!(lp.break_().is_err());
    }
    for handle in handles {
        let _ = lp.cancel(handle);
    }
}

/// Uses a loop when it is dropped.
struct UsesLoop(Weak<Watched>, Trace, &'static str);

impl UsesLoop {
    fn touch(&self) {
        let _ = self;
    }
}

impl Drop for UsesLoop {
    fn drop(&mut self) {
        if let Some(lp) = self.0.upgrade() {
            use_everything(&lp);
            self.1.add(self.2);
        }
    }
}

#[test]
fn s30_no_borrow_is_held_while_user_code_runs() {
    let (lp, trace) = (Rc::new(virtual_loop()), Trace::new());
    let user = |what| UsesLoop(Rc::downgrade(&lp), trace.clone(), what);
    let note = |what: &'static str| {
        let trace = trace.clone();
        move |lp: &Loop| {
            use_everything(lp);
            trace.add(what);
        }
    };
    let none = Vec::<&str>::new();

    // Callbacks, hooks, release hooks, handlers.
    let handler = note("exception handler");
    lp.set_exception_handler(move |lp, _| handler(lp)).unwrap();
    let report = note("slow callback");
    let first = Cell::new(true);
    lp.set_slow_callback(ns(1), move |lp, _| {
        if first.take() {
            report(lp);
        }
    })
    .unwrap();
    let hooks = [
        lp.add_hook(HookPoint::BeforeWait, note("hook before")).unwrap(),
        lp.add_hook(HookPoint::AfterWait, note("hook after")).unwrap(),
    ];
    let call = lp.call_soon(note("call")).unwrap();
    lp.on_release(call, note("release")).unwrap();
    lp.call_soon(|_| panic("callback")).unwrap();
    let repeating = lp.call_every(ns(1), note("repeating timer")).unwrap();
    lp.reschedule(repeating, START).unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(3));
    let mut seen = trace.take();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "call",
            "exception handler",
            "hook after",
            "hook before",
            "release",
            "repeating timer",
            "slow callback"
        ]
    );
    lp.clear_slow_callback().unwrap();
    hooks.iter().for_each(|&hook| lp.cancel(hook).unwrap());
    lp.cancel(repeating).unwrap();
    assert_eq!(trace.take(), none);

    // Drops of callbacks that run, and of callbacks that are cancelled in a run and outside.
    let carried = user("dropped after the call");
    lp.call_soon(move |_| carried.touch()).unwrap();
    let (carried, room) = (user("dropped after the large call"), [0u64; 8]);
    lp.call_soon(move |_| {
        carried.touch();
        std::hint::black_box(room);
    })
    .unwrap();
    let carried = user("dropped when a callback cancels");
    let victim = lp.call_later(HOUR, move |_| carried.touch()).unwrap();
    lp.call_soon(move |lp| lp.cancel(victim).unwrap()).unwrap();
    let carried = user("dropped after the last call");
    lp.call_every(ns(1), move |lp| {
        carried.touch();
        lp.cancel(lp.current_handle().unwrap()).unwrap();
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(
        trace.take(),
        [
            "dropped after the call",
            "dropped after the large call",
            "dropped when a callback cancels",
            "dropped after the last call"
        ]
    );
    for large in [false, true] {
        let (carried, room) = (user("dropped by cancel"), [0u64; 8]);
        let handle = if large {
            lp.call_every(HOUR, move |_| {
                carried.touch();
                std::hint::black_box(room);
            })
        } else {
            lp.call_soon(move |_| carried.touch())
        };
        lp.cancel(handle.unwrap()).unwrap();
        assert_eq!(trace.take(), ["dropped by cancel"]);
    }

    // Drops of replaced, removed and refused callbacks.
    let carried = user("replaced release hook");
    let handle = lp.call_later(HOUR, |_| {}).unwrap();
    lp.on_release(handle, move |_| carried.touch()).unwrap();
    lp.on_release(handle, |_| {}).unwrap();
    let carried = user("refused release hook");
    lp.cancel(handle).unwrap();
    assert_eq!(errno(lp.on_release(handle, move |_| carried.touch())), ENOENT);
    let carried = user("replaced exception handler");
    lp.set_exception_handler(move |_, _| carried.touch()).unwrap();
    let carried = user("removed exception handler");
    lp.set_exception_handler(move |_, _| carried.touch()).unwrap();
    lp.clear_exception_handler().unwrap();
    let carried = user("replaced slow handler");
    lp.set_slow_callback(HOUR, move |_, _| carried.touch()).unwrap();
    let carried = user("removed slow handler");
    lp.set_slow_callback(HOUR, move |_, _| carried.touch()).unwrap();
    lp.clear_slow_callback().unwrap();
    let carried = user("refused repeating timer");
    assert_eq!(errno(lp.call_every(Duration::ZERO, move |_| carried.touch())), EINVAL);
    assert_eq!(
        trace.take(),
        [
            "replaced release hook",
            "refused release hook",
            "replaced exception handler",
            "removed exception handler",
            "replaced slow handler",
            "removed slow handler",
            "refused repeating timer"
        ]
    );

    // Drops at shutdown, and of a callback that is refused afterwards.
    let carried = user("dropped at shutdown");
    let handle = lp.call_soon(move |_| carried.touch()).unwrap();
    lp.on_release(handle, note("released at shutdown")).unwrap();
    lp.shutdown().unwrap();
    let carried = user("refused after shutdown");
    assert_eq!(errno(lp.call_soon(move |_| carried.touch())), ESHUTDOWN);
    assert_eq!(
        trace.take(),
        ["dropped at shutdown", "released at shutdown", "refused after shutdown"]
    );
}

#[test]
fn s30_the_drop_of_a_handler_may_set_handlers() {
    /// Sets both handlers when it is dropped, once.
    struct Sets(Weak<Watched>, Trace);
    impl Drop for Sets {
        fn drop(&mut self) {
            let Some(lp) = self.0.upgrade() else { return };
            self.1.add("drop");
            let (panics, slows) = (self.1.clone(), self.1.clone());
            lp.set_exception_handler(move |_, _| panics.add("exception handler")).unwrap();
            lp.set_slow_callback(ns(1), move |_, _| slows.add("slow callback")).unwrap();
        }
    }
    let replace: [fn(&Loop); 4] = [
        |lp| lp.set_exception_handler(|_, _| {}).unwrap(),
        |lp| lp.clear_exception_handler().unwrap(),
        |lp| lp.set_slow_callback(HOUR, |_, _| {}).unwrap(),
        |lp| lp.clear_slow_callback().unwrap(),
    ];
    for (at, replace) in replace.iter().enumerate() {
        let (lp, trace) = (Rc::new(virtual_loop()), Trace::new());
        let sets = Sets(Rc::downgrade(&lp), trace.clone());
        if at < 2 {
            lp.set_exception_handler(move |_, _| keep(&sets)).unwrap();
        } else {
            lp.set_slow_callback(HOUR, move |_, _| keep(&sets)).unwrap();
        }
        replace(&lp);
        // The handlers that the Drop has set are the newest, and stay.
        lp.call_soon(|_| panic("callback")).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["drop", "slow callback", "exception handler"]);
    }
}

#[test]
fn s30_a_drop_in_a_run_may_use_the_loop_it_belongs_to() {
    // Drop of a handler that replaces itself while it runs.
    let (lp, trace) = (Rc::new(virtual_loop()), Trace::new());
    let carried =
        UsesLoop(Rc::downgrade(&lp), trace.clone(), "handler dropped after it has returned");
    let inner = trace.clone();
    lp.set_exception_handler(move |lp, _| {
        carried.touch();
        lp.clear_exception_handler().unwrap();
        inner.add("handler returns");
    })
    .unwrap();
    lp.call_soon(|_| panic("callback")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["handler returns", "handler dropped after it has returned"]);
}
