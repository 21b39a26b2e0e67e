//! Work on other threads: S13, S14, S22, S30, and name resolution.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use libc::{ECANCELED, EINVAL, ENOENT, ESHUTDOWN, ETIMEDOUT};
use ringloop::{Handle, Kind, Loop, Outcome};

use crate::support::Watched;
use crate::trace::{Bomb, Trace, errno, panic_in, payload, real_loop};

fn loop_with_threads(threads: u32) -> Watched {
    Watched::new(Loop::builder().executor_threads(threads).build().unwrap())
}

/// Work that has begun, and ends when the sender is dropped.
fn block(lp: &Loop, trace: &Trace) -> (Handle, Sender<()>) {
    let (end, ends): (Sender<()>, Receiver<()>) = channel();
    let (begin, begun) = channel();
    let work = move || {
        begin.send(()).unwrap();
        let _ = ends.recv();
        "blocker"
    };
    let trace = trace.clone();
    let handle =
        lp.run_in_executor(work, move |lp, result| trace.note(result.unwrap())(lp)).unwrap();
    begun.recv().unwrap();
    (handle, end)
}

#[test]
fn work_gives_its_result_on_the_loops_thread() {
    let lp = real_loop();
    let (here, seen) = (thread::current().id(), Rc::new(Cell::new(0)));
    let done = Rc::clone(&seen);
    let handle = lp
        .run_in_executor(
            move || {
                assert_ne!(thread::current().id(), here);
                vec![6, 7]
            },
            move |_, result| {
                assert_eq!(thread::current().id(), here);
                done.set(result.unwrap().iter().product());
            },
        )
        .unwrap();
    lp.walk(|_, info| assert_eq!((info.kind(), info.handle()), (Kind::Work, handle))).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(seen.get(), 42);
    assert_eq!(errno(lp.cancel(handle)), ENOENT);
}

#[test]
fn s06_results_come_in_the_order_in_which_work_was_done() {
    let lp = loop_with_threads(1);
    let seen = Rc::new(Cell::new(0));
    for i in 0..1000 {
        let seen = Rc::clone(&seen);
        lp.run_in_executor(
            move || i,
            move |_, result| assert_eq!(result, Ok(seen.replace(seen.get() + 1))),
        )
        .unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(seen.get(), 1000);
}

#[test]
fn s26_done_runs_after_what_the_work_has_posted() {
    let lp = loop_with_threads(4);
    let ended = Rc::new(Cell::new(0));
    for _ in 0..2000 {
        // The number of posts of one piece of work that have run.
        let ran = Arc::new(AtomicUsize::new(0));
        let (remote, posted, ended) = (lp.remote(), Arc::clone(&ran), Rc::clone(&ended));
        let work = move || {
            for _ in 0..20 {
                let posted = Arc::clone(&posted);
                remote
                    .call_soon(move |_| {
                        posted.fetch_add(1, SeqCst);
                    })
                    .unwrap();
            }
        };
        let done = move |_: &Loop, result: ringloop::Result<()>| {
            assert_eq!((result, ran.load(SeqCst)), (Ok(()), 20));
            ended.set(ended.get() + 1);
        };
        lp.run_in_executor(work, done).unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(ended.get(), 2000);
}

#[test]
fn s22_shutdown_tells_of_work_in_the_order_in_which_it_was_done() {
    let lp = loop_with_threads(1);
    let trace = Trace::new();
    /// On drop, ends the second work, and waits until its end has been reported to the loop.
    struct EndOther(Option<Sender<()>>, Receiver<()>);
    impl Drop for EndOther {
        fn drop(&mut self) {
            drop(self.0.take());
            self.1.recv().unwrap();
        }
    }
    let (give, given) = channel::<EndOther>();
    let remote = lp.remote();
    let post = move || {
        let end_other = given.recv().unwrap();
        remote.call_soon(move |_| unreachable!("{}", size_of_val(&end_other))).unwrap();
    };
    let note = |name| {
        let trace = trace.clone();
        move |lp: &Loop, result: ringloop::Result<()>| {
            trace.note(if result.is_ok() { name } else { "error" })(lp)
        }
    };
    lp.run_in_executor(post, note("first")).unwrap();
    let (end, ends) = channel::<()>();
    let (begin, begun) = channel();
    let second = move || {
        begin.send(()).unwrap();
        let _ = ends.recv();
    };
    lp.run_in_executor(second, note("second")).unwrap();
    let (tell, told) = channel();
    lp.run_in_executor(move || tell.send(()).unwrap(), note("third")).unwrap();
    give.send(EndOther(Some(end), told)).unwrap();
    // The only thread begins the second work after it has reported the end of the first.
    begun.recv().unwrap();
    lp.shutdown().unwrap();
    assert_eq!(trace.take(), ["first", "second", "third"]);
}

#[test]
fn never_more_threads_than_allowed() {
    for limit in [1, 2, 0] {
        let lp = loop_with_threads(limit);
        let threads = Rc::new(RefCell::new(HashSet::new()));
        for _ in 0..200 {
            let threads = Rc::clone(&threads);
            let work = || {
                thread::sleep(Duration::from_micros(50));
                thread::current().id()
            };
            lp.run_in_executor(work, move |_, thread| {
                threads.borrow_mut().insert(thread.unwrap());
            })
            .unwrap();
        }
        assert_eq!(lp.run(), Ok(Outcome::Done));
        let limit = if limit == 0 { 4 } else { limit as usize };
        assert!(threads.borrow().len() <= limit);
    }
}

/// Each piece of work waits for the others; with one thread fewer, the test would hang.
#[test]
fn as_many_threads_as_allowed_when_they_are_needed() {
    let lp = loop_with_threads(0);
    let trace = Trace::new();
    for _ in 0..3 {
        let ends = [(); 4].map(|()| block(&lp, &trace).1);
        drop(ends);
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(trace.take(), ["blocker"; 4]);
    }
    // Two pieces of work that wait for each other, scheduled while one thread is idle.
    let lp = loop_with_threads(2);
    lp.run_in_executor(|| (), |_, _| ()).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    thread::sleep(Duration::from_millis(10));
    let meet = Arc::new(std::sync::Barrier::new(2));
    for _ in 0..2 {
        let meet = Arc::clone(&meet);
        lp.run_in_executor(move || _ = meet.wait(), |_, _| ()).unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

/// Between the end of the work and its final callback, cancelling has no effect, and cancels no
/// other work.
#[test]
fn s13_cancelling_what_is_done_changes_nothing() {
    let lp = loop_with_threads(1);
    let trace = Trace::new();
    let note = |name| {
        let trace = trace.clone();
        move |lp: &Loop, result: ringloop::Result<()>| {
            trace.note(if result.is_ok() { name } else { "error" })(lp)
        }
    };
    let handle = lp.run_in_executor(|| (), note("first")).unwrap();
    // The first work is done, its result is collected, and its place is free.
    let (_, end) = block(&lp, &trace);
    lp.call_soon(|_| ()).unwrap();
    lp.run_in_executor(|| (), note("second")).unwrap();
    lp.cancel(handle).unwrap();
    drop(end);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["first", "blocker", "second"]);
}

#[test]
fn s36_a_virtual_clock_stands_still_while_work_goes_on() {
    let builder = Loop::builder().virtual_time(ringloop::Time::from_nanos(0));
    let lp = Watched::new(builder.build().unwrap());
    let trace = Trace::new();
    let (_, end) = block(&lp, &trace);
    lp.call_later(Duration::from_secs(1), trace.note("timer")).unwrap();
    assert_eq!(lp.run_once(Duration::from_millis(5)), Ok(0));
    assert_eq!((trace.len(), lp.time().as_nanos()), (0, 0));
    drop(end);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((trace.take(), lp.time().as_nanos()), (vec!["blocker", "timer"], 1_000_000_000));
}

#[test]
fn s13_cancelled_work_is_dropped_on_the_loops_thread_and_done_once() {
    let lp = loop_with_threads(1);
    let trace = Trace::new();
    let (_, end) = block(&lp, &trace);
    /// Records the thread on which it is dropped.
    struct Tell(Arc<Mutex<Vec<thread::ThreadId>>>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(thread::current().id());
        }
    }
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let (tell, inner) = (Tell(Arc::clone(&dropped)), trace.clone());
    let work = move || drop(tell);
    let handle = lp
        .run_in_executor(work, move |lp, result| {
            assert_eq!(errno(result), ECANCELED);
            inner.note("cancelled")(lp);
        })
        .unwrap();
    lp.on_release(handle, trace.note("release")).unwrap();
    lp.cancel(handle).unwrap();
    assert!(lp.is_pending(handle) && trace.take().is_empty());
    lp.cancel(handle).unwrap();
    while trace.len() == 0 {
        lp.run_once(Duration::ZERO).unwrap();
    }
    assert_eq!(trace.take(), ["cancelled", "release"]);
    assert_eq!(*dropped.lock().unwrap(), [thread::current().id()]);
    drop(end);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["blocker"]);
}

#[test]
fn s13_work_that_has_begun_ends_by_itself() {
    let lp = real_loop();
    let trace = Trace::new();
    let (handle, end) = block(&lp, &trace);
    lp.cancel(handle).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    assert!(lp.is_pending(handle));
    drop(end);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["blocker"]);
}

#[test]
fn s22_close_drops_what_has_not_begun_and_waits_for_the_rest() {
    let lp = loop_with_threads(1);
    let trace = Trace::new();
    let (_, end) = block(&lp, &trace);
    let token = Arc::new(());
    for _ in 0..10 {
        let (inner, done) = (Arc::clone(&token), Arc::clone(&token));
        lp.run_in_executor(
            move || drop(inner),
            move |_, _| panic!("done {}", Arc::strong_count(&done)),
        )
        .unwrap();
    }
    assert_eq!(Arc::strong_count(&token), 21);
    let error = lp.into_inner().close_within(Duration::from_millis(2)).unwrap_err();
    assert_eq!(error.error.raw_os_error(), ETIMEDOUT);
    assert_eq!(Arc::strong_count(&token), 21, "something was freed");
    let ender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        drop(end);
    });
    error.lp.close().unwrap();
    assert_eq!(Arc::strong_count(&token), 1);
    assert!(trace.take().is_empty(), "a callback has run");
    ender.join().unwrap();
}

#[test]
fn s22_a_result_that_nobody_sees_is_dropped_on_the_loops_thread() {
    let lp = loop_with_threads(1);
    let token = Arc::new(());
    let result = Arc::clone(&token);
    lp.run_in_executor(move || result, |_, _| panic!("a callback has run")).unwrap();
    let (_, end) = block(&lp, &Trace::new());
    drop(end);
    lp.close().unwrap();
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn s22_shutdown_runs_until_the_last_final_callback() {
    let lp = loop_with_threads(1);
    let trace = Trace::new();
    let (_, end) = block(&lp, &trace);
    let inner = trace.clone();
    lp.run_in_executor(
        || panic!("cancelled work has run"),
        move |lp, result: ringloop::Result<()>| {
            assert_eq!(errno(result), ECANCELED);
            inner.note("cancelled")(lp);
            // The only thread becomes free only after the rest is cancelled.
            drop(end);
        },
    )
    .unwrap();
    lp.shutdown().unwrap();
    assert_eq!(trace.take(), ["cancelled", "blocker"]);
    assert_eq!(errno(lp.run_in_executor(|| (), |_, _| ())), ESHUTDOWN);
}

#[test]
fn s30_a_panic_in_work_comes_up_where_done_would_have_run() {
    let lp = real_loop();
    let trace = Trace::new();
    let dropped = trace.on_drop("done dropped");
    lp.run_in_executor(
        || std::panic::resume_unwind(Box::new("work")),
        move |_, _: ringloop::Result<()>| {
            panic!("done has run, {}", std::mem::size_of_val(&dropped))
        },
    )
    .unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("work"));
    assert_eq!(trace.take(), ["done dropped"]);

    let handler = trace.clone();
    lp.set_exception_handler(move |lp, panic| handler.note(payload(&*panic))(lp)).unwrap();
    lp.run_in_executor(
        || std::panic::resume_unwind(Box::new("work")),
        |_, _: ringloop::Result<()>| (),
    )
    .unwrap();
    // The thread continues after the panic.
    let after = trace.clone();
    lp.run_in_executor(|| "after", move |lp, result| after.note(result.unwrap())(lp)).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let mut seen = trace.take();
    seen.sort_unstable();
    assert_eq!(seen, ["after", "work"]);
}

#[test]
fn s30_a_panic_in_the_drop_of_cancelled_work_goes_where_those_of_callbacks_go() {
    let lp = loop_with_threads(1);
    let (_, end) = block(&lp, &Trace::new());
    let bomb = Bomb("drop");
    let handle = lp
        .run_in_executor(move || drop(bomb), |_, result| assert_eq!(errno(result), ECANCELED))
        .unwrap();
    lp.cancel(handle).unwrap();
    assert_eq!(
        panic_in(|| lp.run_once(Duration::ZERO).and_then(|_| lp.run_once(Duration::ZERO))),
        Some("drop")
    );
    drop(end);
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

#[test]
fn a_storm_of_work_is_all_done_once() {
    let lp = loop_with_threads(4);
    let (worked, done) = (Arc::new(AtomicUsize::new(0)), Rc::new(Cell::new(0)));
    let count = if std::env::var_os("CHECK_TOOL").is_some() { 5_000 } else { 100_000 };
    for i in 0..count {
        let (worked, done) = (Arc::clone(&worked), Rc::clone(&done));
        let work = move || {
            worked.fetch_add(1, SeqCst);
            i
        };
        lp.run_in_executor(work, move |_, result| {
            assert_eq!(result, Ok(i));
            done.set(done.get() + 1);
        })
        .unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((worked.load(SeqCst), done.get()), (count, count));
}

#[test]
fn work_schedules_more_work_and_posts() {
    let lp = real_loop();
    let seen = Rc::new(Cell::new(0));
    fn again(lp: &Loop, seen: Rc<Cell<u32>>) {
        let remote = lp.remote();
        let work = move || drop(remote.call_soon(|_| ()));
        lp.run_in_executor(work, move |lp, result| {
            result.unwrap();
            seen.set(seen.get() + 1);
            if seen.get() < 100 {
                again(lp, seen);
            }
        })
        .unwrap();
    }
    again(&lp, Rc::clone(&seen));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(seen.get(), 100);
}

#[test]
fn names_are_resolved() {
    let lp = real_loop();
    let found = Rc::new(Cell::new(Vec::new()));
    for host in ["127.0.0.1", "::1"] {
        let found = Rc::clone(&found);
        lp.resolve(host, "8080", move |_, result| {
            let mut all = found.take();
            all.extend(result.unwrap());
            found.set(all);
        })
        .unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let mut found = found.take();
    found.sort_unstable();
    let expected: Vec<SocketAddr> =
        ["127.0.0.1:8080", "[::1]:8080"].map(|address| address.parse().unwrap()).into();
    assert_eq!(found, expected);

    let failed = Rc::new(Cell::new(0));
    let seen = Rc::clone(&failed);
    lp.resolve("127.0.0.1", "no such service", move |_, result| seen.set(errno(result))).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(failed.get(), ENOENT);
    assert_eq!(errno(lp.resolve("a\0b", "80", |_, _| ())), EINVAL);
}
