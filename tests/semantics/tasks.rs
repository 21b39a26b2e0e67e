//! Tasks: their order, their counts, their names. tasks/ has the other tests of tasks, by noun.
//! This file has the helpers that these tests share.

mod aborting;
mod awaiting;
mod completing;
mod ending;
mod forking;
mod joining;
mod sleeping;
mod threads;
mod unjoined;
mod waking;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use libc::{EINVAL, ESHUTDOWN};
use ringloop::task::{self, JoinHandle, yield_now};
use ringloop::{Kind, Loop, Outcome};

use crate::support::Watched;
use crate::trace::{HOUR, START, Trace, be_busy, errno, later, ms, ns, real_loop, virtual_loop};

/// A future that is pending until it is opened. It keeps the waker of its last poll.
#[derive(Clone, Default)]
struct Gate(Rc<GateState>);

#[derive(Default)]
struct GateState {
    waker: RefCell<Option<Waker>>,
    polls: Cell<u32>,
    is_open: Cell<bool>,
}

impl Gate {
    fn open(&self) {
        self.0.is_open.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.0.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The waker of the task that waits at the gate and has polled it.
    fn waker(&self) -> Waker {
        self.0.waker.borrow().clone().expect("the gate has been polled")
    }

    fn polls(&self) -> u32 {
        self.0.polls.get()
    }
}

impl Future for Gate {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.polls.set(self.0.polls.get() + 1);
        *self.0.waker.borrow_mut() = Some(context.waker().clone());
        if self.0.is_open.get() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A future that is never ready, and adds `what` to the trace when it is dropped.
async fn hold<T: Clone + 'static>(trace: Trace<T>, what: T) {
    let _dropped = trace.on_drop(what);
    std::future::pending::<()>().await;
}

/// A trace that other threads can add to.
fn log() -> (Sender<usize>, Receiver<usize>) {
    channel()
}

/// Loops that look for slow callbacks poll tasks in another way than other loops.
fn both_ways() -> [Watched; 2] {
    let (plain, watched) = (virtual_loop(), virtual_loop());
    watched.set_slow_callback(HOUR, |_, _| {}).unwrap();
    [plain, watched]
}

/// Runs one iteration, which never sleeps.
fn turn(lp: &Loop) -> usize {
    lp.run_once(Duration::ZERO).unwrap()
}

/// A task that waits at a gate, and has been polled once.
fn waiting(lp: &Loop) -> (Gate, JoinHandle<()>) {
    let gate = Gate::default();
    let join = lp.spawn(gate.clone()).unwrap();
    turn(lp);
    assert!(gate.polls() == 1 && !join.is_finished());
    (gate, join)
}

/// Any thread may use wakers; only the loop's thread may use the other types. If one of these types
/// were `Send`, both impls would match, and the call would not compile.
#[test]
fn s25_what_belongs_to_the_loops_thread_is_not_send() {
    trait IsNotSend<Which> {
        fn check(&self) {}
    }
    struct ForAll;
    struct ForSend;
    impl<T: ?Sized> IsNotSend<ForAll> for T {}
    impl<T: ?Sized + Send> IsNotSend<ForSend> for T {}

    fn is_send_and_sync<T: Send + Sync>() {}

    let lp = virtual_loop();
    lp.spawn(async {}).unwrap().check();
    task::sleep(ns(1)).check();
    let (sender, receiver) = task::oneshot::<()>().unwrap();
    sender.check();
    receiver.check();
    lp.run_until_complete(async {
        task::interval(ns(1)).unwrap().check();
        let work = task::spawn_blocking(|| ()).unwrap();
        work.check();
        work.await.unwrap();
        let call =
            task::operation(|lp, done| lp.call_soon(move |_| done.send(()).unwrap())).unwrap();
        call.check();
        call.await.unwrap();
    })
    .unwrap();
    is_send_and_sync::<Waker>();
    is_send_and_sync::<task::JoinError>();
}

#[test]
fn s37_a_woken_task_has_its_turn_in_one_order_with_calls_posts_and_timers() {
    for lp in both_ways() {
        let (log, seen) = log();
        let gates = [(); 2].map(|()| Gate::default());
        for (number, gate) in gates.clone().into_iter().enumerate() {
            let log = log.clone();
            let _ = lp.spawn(async move {
                gate.await;
                log.send(10 + number).unwrap();
            });
        }
        assert_eq!(turn(&lp), 2);
        lp.call_soon(move |lp| {
            let posting = log.clone();
            let send = move |what: usize| {
                let log = posting.clone();
                move |_: &Loop| log.send(what).unwrap()
            };
            lp.call_at(START, send(9)).unwrap();
            lp.call_soon(send(0)).unwrap();
            gates[0].open();
            lp.remote().call_soon(send(1)).unwrap();
            gates[1].open();
            lp.call_soon(send(2)).unwrap();
            lp.remote().call_soon(send(3)).unwrap();
            drop(task::spawn(async move { log.send(12).unwrap() }));
        })
        .unwrap();
        assert_eq!(lp.run_once(HOUR), Ok(1), "a woken task runs in a later iteration (S7)");
        assert_eq!(lp.run_once(HOUR), Ok(8));
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0, 10, 1, 11, 2, 3, 12, 9]);
    }
}

#[test]
fn s37_a_task_that_is_woken_outside_of_a_run_keeps_its_place() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let gate = Gate::default();
    let (inner, waits) = (trace.clone(), gate.clone());
    let task = lp.spawn(async move {
        waits.await;
        inner.add("task");
    });
    turn(&lp);
    lp.call_soon(trace.note("before")).unwrap();
    gate.open();
    lp.call_soon(trace.note("after")).unwrap();
    assert_eq!(turn(&lp), 3);
    assert_eq!(trace.take(), ["before", "task", "after"]);
    assert!(task.unwrap().is_finished());
}

#[test]
fn s37_tasks_begin_in_the_order_of_spawn_and_after_what_is_ready() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.call_soon(trace.note(0)).unwrap();
    for number in 1..100 {
        let trace = trace.clone();
        drop(lp.spawn(async move { trace.add(number) }));
    }
    lp.call_soon(trace.note(100)).unwrap();
    assert_eq!((trace.len(), turn(&lp)), (0, 101), "spawn polls nothing");
    assert_eq!(trace.take(), (0..=100).collect::<Vec<_>>());
}

#[test]
fn s37_what_a_task_spawns_or_wakes_has_its_turn_in_a_later_iteration() {
    for lp in both_ways() {
        let trace = Trace::new();
        let (gate, _join) = waiting(&lp);
        let inner = trace.clone();
        drop(lp.spawn(async move {
            gate.open();
            let child = inner.clone();
            drop(task::spawn(async move { child.add("child") }));
            inner.add("parent");
            yield_now().await;
            inner.add("parent again");
        }));
        assert_eq!((turn(&lp), trace.take()), (1, vec!["parent"]));
        assert_eq!((turn(&lp), trace.take()), (3, vec!["child", "parent again"]));
        assert_eq!(turn(&lp), 0);
    }
}

#[test]
fn s37_a_task_that_wakes_itself_for_ever_starves_nobody() {
    let lp = real_loop();
    let (log, seen) = log();
    drop(lp.spawn(async {
        loop {
            yield_now().await;
        }
    }));
    let done = |what: usize| {
        let log = log.clone();
        move |_: &Loop| log.send(what).unwrap()
    };
    lp.call_later(ms(1), done(1)).unwrap();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    let read = done(2);
    lp.read(stream, Vec::with_capacity(1), None, move |lp, _, _| read(lp)).unwrap();
    let (remote, posted) = (lp.remote(), done(3));
    let other = thread::spawn(move || {
        peer.write_all(b"x").unwrap();
        remote.call_soon(posted).unwrap();
        peer
    });
    let mut came = Vec::new();
    while came.len() < 3 {
        assert!(turn(&lp) > 0);
        came.extend(seen.try_iter());
    }
    other.join().unwrap();
}

#[test]
fn s37_a_task_that_is_woken_many_times_is_polled_once() {
    for lp in both_ways() {
        let (gate, join) = waiting(&lp);
        let waker = gate.waker();
        let other = {
            let waker = waker.clone();
            thread::spawn(move || (0..100).for_each(|_| waker.wake_by_ref()))
        };
        (0..100).for_each(|_| waker.wake_by_ref());
        other.join().unwrap();
        let wakes = move |_: &Loop| (0..100).for_each(|_| waker.wake_by_ref());
        lp.call_soon(wakes).unwrap();
        assert_eq!(turn(&lp), 2);
        assert_eq!(gate.polls(), 2);
        assert_eq!(turn(&lp), 1, "the call has woken the task after its poll");
        assert_eq!((gate.polls(), turn(&lp), join.is_finished()), (3, 0, false));
    }
}

#[test]
fn s37_a_task_that_is_woken_while_it_is_polled_is_polled_again() {
    for lp in both_ways() {
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        drop(lp.spawn(std::future::poll_fn(move |context| {
            count.set(count.get() + 1);
            context.waker().wake_by_ref();
            Waker::wake(context.waker().clone());
            if count.get() == 3 { Poll::Ready(()) } else { Poll::Pending }
        })));
        for turns in 1..=3 {
            assert_eq!((turn(&lp), polls.get()), (1, turns));
        }
        assert_eq!(turn(&lp), 0, "a task that has ended is not polled");
    }
}

#[test]
fn s38_run_waits_for_tasks_that_are_referenced() {
    let lp = virtual_loop();
    let (gate, join) = waiting(&lp);
    assert!(lp.is_alive() && lp.has_ref(join.handle()));
    // The timer is not referenced: only the task keeps the run alive.
    let timer = lp
        .call_every(HOUR, move |lp| {
            if lp.time() == START + 3 * HOUR {
                gate.open()
            }
        })
        .unwrap();
    lp.unref(timer).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((lp.time(), join.is_finished(), lp.is_alive()), (START + 3 * HOUR, true, false));
}

#[test]
fn s38_run_does_not_wait_for_tasks_that_are_not_referenced() {
    for lp in both_ways() {
        let (gate, join) = waiting(&lp);
        lp.unref(join.handle()).unwrap();
        assert_eq!((lp.is_alive(), lp.run()), (false, Ok(Outcome::Done)));
        assert_eq!(gate.polls(), 1, "a run with nothing left runs no iteration");
        // The task is polled when something else keeps the loop running.
        gate.open();
        lp.call_soon(|_| {}).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert!(join.is_finished());
        // A task may drop its own reference, and get the reference back.
        let (lasting, inner) = (Gate::default(), later());
        let (gate, place) = (lasting.clone(), inner.0);
        let join = lp.spawn(async move {
            Loop::with_running(|lp| lp.unwrap().unref(place.get().unwrap())).unwrap();
            gate.await;
        });
        let join = join.unwrap();
        inner.1.set(Some(join.handle()));
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert!(!join.is_finished() && !lp.has_ref(join.handle()));
        lp.ref_(join.handle()).unwrap();
        assert!(lp.is_alive());
    }
}

#[test]
fn s38_a_task_has_a_handle_and_is_shown() {
    for lp in both_ways() {
        let (own, place) = later();
        let seen = Rc::clone(&own);
        let join = lp.spawn(Named(Box::pin(async move {
            Loop::with_running(|lp| seen.set(lp.unwrap().current_handle()));
            std::future::pending::<()>().await;
        })));
        let handle = join.unwrap().handle();
        let shown = Cell::new(0);
        let check = |_: &Loop, info: &ringloop::Info| {
            shown.set(shown.get() + 1);
            assert_eq!(
                (info.kind(), info.handle(), info.is_referenced()),
                (Kind::Task, handle, true)
            );
            assert_eq!((info.when(), info.fd()), (ringloop::Time::NEVER, None));
            assert!(info.callback().to_string().contains("tasks::Named"), "{}", info.callback());
        };
        lp.walk(check).unwrap();
        assert_eq!((turn(&lp), place.get(), lp.current_handle()), (1, Some(handle), None));
        lp.walk(check).unwrap();
        assert_eq!(shown.get(), 2);
        assert!(lp.is_pending(handle));
        assert_eq!(errno(lp.when(handle)), EINVAL);
        assert_eq!(errno(lp.reschedule(handle, START)), EINVAL);
        lp.cancel(handle).unwrap();
        crate::trace::check_stale(&lp, handle);
    }
}

/// A future with a name.
struct Named(Pin<Box<dyn Future<Output = ()>>>);

impl Future for Named {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

#[test]
fn s34_a_poll_that_takes_long_is_reported_with_the_futures_name() {
    let lp = real_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.set_slow_callback(ms(20), move |_, slow| {
        inner.add((slow.kind(), slow.callback().to_string(), slow.duration() >= ms(20)));
    })
    .unwrap();
    drop(lp.spawn(Named(Box::pin(async {
        yield_now().await;
        be_busy(ms(20));
        yield_now().await;
    }))));
    lp.run().unwrap();
    // On a slow machine, more of the polls may be slow.
    let reports = trace.take();
    assert!(!reports.is_empty());
    for (kind, name, is_long) in reports {
        assert!(kind == Kind::Task && name.contains("tasks::Named") && is_long);
    }
}

#[test]
fn s35_each_poll_is_a_callback() {
    for lp in both_ways() {
        drop(lp.spawn(async {
            yield_now().await;
            yield_now().await;
        }));
        lp.run().unwrap();
        assert_eq!(
            (lp.metrics().callbacks, lp.metrics().iterations, lp.metrics().posts),
            (3, 3, 0)
        );
    }
}

#[test]
fn s14_a_release_hook_runs_when_a_task_has_ended_and_its_future_is_dropped() {
    for lp in both_ways() {
        for aborted in [false, true] {
            let trace = Trace::new();
            let (gate, dropped) = (Gate::default(), trace.on_drop("drop"));
            let waits = gate.clone();
            let join = lp.spawn(async move {
                waits.await;
                drop(dropped);
            });
            let join = join.unwrap();
            lp.on_release(join.handle(), trace.note("release")).unwrap();
            turn(&lp);
            if aborted {
                lp.cancel(join.handle()).unwrap();
            } else {
                gate.open();
                turn(&lp);
            }
            assert_eq!(trace.take(), ["drop", "release"]);
        }
    }
}

#[test]
fn s28_what_cannot_be_spawned_says_so_and_the_future_is_dropped() {
    let trace = Trace::new();
    assert_eq!(
        task::spawn(hold(trace.clone(), "never polled")).err().unwrap().raw_os_error(),
        EINVAL
    );
    assert!(task::interval(ns(1)).is_err_and(|error| error.raw_os_error() == EINVAL));
    assert!(task::spawn_blocking(|| ()).is_err_and(|error| error.raw_os_error() == EINVAL));
    let lp = virtual_loop();
    lp.shutdown().unwrap();
    let dropped = trace.on_drop("dropped");
    let refused = lp.spawn(async move { drop(dropped) });
    assert_eq!(refused.err().unwrap().raw_os_error(), ESHUTDOWN);
    assert_eq!(trace.take(), ["dropped"]);
    assert_eq!(errno(lp.run_until_complete(async {})), ESHUTDOWN);
}
