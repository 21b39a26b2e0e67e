//! Wakers: S23, S26, S27, S33, from anywhere and at any time.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

use ringloop::task::{self, sleep};
use ringloop::{Loop, Outcome};

use super::{Gate, both_ways, turn, waiting};
use crate::trace::{HOUR, START, Trace, ns, real_loop, virtual_loop};

#[test]
fn s11_a_wake_after_the_end_does_nothing() {
    for lp in both_ways() {
        for aborted in [false, true] {
            let (gate, join) = waiting(&lp);
            let waker = gate.waker();
            if aborted {
                lp.cancel(join.handle()).unwrap();
            } else {
                gate.open();
                turn(&lp);
            }
            assert!(join.is_finished());
            let polls = gate.polls();
            waker.wake_by_ref();
            // Another task uses the slot now, and is not woken instead.
            let (other, _join) = waiting(&lp);
            waker.wake_by_ref();
            let inner = waker.clone();
            lp.call_soon(move |_| inner.wake()).unwrap();
            thread::spawn(move || waker.wake()).join().unwrap();
            while turn(&lp) > 0 {}
            assert_eq!((gate.polls(), other.polls()), (polls, 1));
        }
    }
}

#[test]
fn s40_a_waker_outlives_the_task_and_the_loop() {
    for dropped_elsewhere in [false, true] {
        let lp = virtual_loop();
        let (pending, join) = waiting(&lp);
        let (ended, other_join) = waiting(&lp);
        ended.open();
        turn(&lp);
        let wakers = [pending.waker(), ended.waker()];
        drop((pending, ended, other_join));
        lp.close().unwrap();
        assert!(join.is_finished());
        drop(join);
        let use_up = move || {
            for waker in wakers {
                waker.wake_by_ref();
                let clone = waker.clone();
                assert!(clone.will_wake(&waker));
                clone.wake();
                waker.wake_by_ref();
            }
        };
        if dropped_elsewhere { thread::spawn(use_up).join().unwrap() } else { use_up() }
    }
}

#[test]
fn s26_a_wake_of_another_thread_comes_before_what_is_scheduled_after_it() {
    for lp in both_ways() {
        let trace = Trace::new();
        let (gates, inner) = ([(); 2].map(|()| Gate::default()), trace.clone());
        for (gate, name) in gates.clone().into_iter().zip(["posted", "woken"]) {
            let trace = trace.clone();
            drop(lp.spawn(async move {
                gate.await;
                trace.add(name);
            }));
        }
        turn(&lp);
        lp.call_soon(move |lp| {
            gates.iter().for_each(|gate| gate.0.is_open.set(true));
            let waker = gates[0].waker();
            thread::spawn(move || waker.wake()).join().unwrap();
            gates[1].wake();
            lp.call_soon(inner.note("call")).unwrap();
        })
        .unwrap();
        assert_eq!((turn(&lp), turn(&lp)), (1, 3));
        assert_eq!(trace.take(), ["posted", "woken", "call"]);
    }
}

#[test]
fn s27_a_wake_of_another_thread_ends_the_sleep() {
    let lp = real_loop();
    let (gate, join) = waiting(&lp);
    gate.0.is_open.set(true);
    let waker = gate.waker();
    drop(gate);
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(2));
        waker.wake();
    });
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(join.is_finished());
    other.join().unwrap();
}

#[test]
fn s20_a_waker_is_used_inside_another_loop() {
    for lp in both_ways() {
        let (gate, join) = waiting(&lp);
        let (own, opened) = (gate.clone(), gate.clone());
        lp.call_soon(move |_| {
            let inner = virtual_loop();
            inner.call_soon(move |_| opened.open()).unwrap();
            assert_eq!(inner.run(), Ok(Outcome::Done));
            assert_eq!(own.polls(), 1, "the task is one of the outer loop");
        })
        .unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert!(join.is_finished() && gate.polls() == 2);
    }
}

#[test]
fn s20_a_task_polls_futures_of_another_loop_with_its_own_waker() {
    let (outer, inner) = (virtual_loop(), Rc::new(virtual_loop()));
    let (sender, receiver) = task::oneshot::<u32>().unwrap();
    let value = Rc::new(Cell::new(0));
    let (nested, seen) = (Rc::clone(&inner), Rc::clone(&value));
    let join = outer.spawn(async move {
        let mut receiver = pin!(receiver);
        poll_fn(|context| {
            // The inner loop runs during the poll; the waker is that of a task of the outer loop.
            let polled =
                nested.run_until_complete(async { receiver.as_mut().poll(context) }).unwrap();
            polled.map(|received| seen.set(received.unwrap()))
        })
        .await;
    });
    turn(&outer);
    sender.send(7).unwrap();
    assert_eq!(outer.run(), Ok(Outcome::Done));
    assert!(join.unwrap().is_finished() && value.get() == 7);
}

/// Counts its wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn futures_are_polled_by_another_executor_on_the_loops_thread() {
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut context = Context::from_waker(&waker);
    let lp = virtual_loop();
    let (gate, mut join) = waiting(&lp);
    let (sender, mut receiver) = task::oneshot::<u32>().unwrap();
    assert!(Pin::new(&mut join).poll(&mut context).is_pending());
    assert!(Pin::new(&mut receiver).poll(&mut context).is_pending());
    let mut slept = sleep(ns(5));
    let no_loop = Pin::new(&mut slept).poll(&mut context);
    assert!(matches!(no_loop, Poll::Ready(Err(error)) if error.raw_os_error() == libc::EINVAL));
    let slept = Rc::new(RefCell::new(slept));
    let (inner, own) = (Rc::clone(&slept), waker.clone());
    lp.call_soon(move |_| {
        let mut context = Context::from_waker(&own);
        assert!(Pin::new(&mut *inner.borrow_mut()).poll(&mut context).is_pending());
        assert!(Pin::new(&mut *inner.borrow_mut()).poll(&mut context).is_pending());
    })
    .unwrap();
    gate.open();
    sender.send(1).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(count.0.load(Relaxed), 3);
    assert!(matches!(Pin::new(&mut join).poll(&mut context), Poll::Ready(Ok(()))));
    assert!(matches!(Pin::new(&mut receiver).poll(&mut context), Poll::Ready(Ok(1))));
    drop(slept);
    drop((lp, join, receiver));
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 1, "a waker was leaked");
}

/// Only a waker refers to a task that has ended and has no join handle. A future that is polled
/// with this waker counts its references like any other.
#[test]
fn s40_futures_are_polled_with_the_waker_of_a_task_that_has_ended() {
    for lp in both_ways() {
        let (gate, join) = waiting(&lp);
        let waker = gate.waker();
        gate.open();
        drop((gate, join));
        turn(&lp);
        let (waits, other) = waiting(&lp);
        let place = Rc::new(RefCell::new(Some(other)));
        let inner = waker.clone();
        lp.call_soon(move |_| {
            for _ in 0..3 {
                let mut context = Context::from_waker(&inner);
                let (sender, mut receiver) = task::oneshot::<u32>().unwrap();
                assert!(Pin::new(&mut receiver).poll(&mut context).is_pending());
                let mut other = place.borrow_mut();
                assert!(Pin::new(other.as_mut().unwrap()).poll(&mut context).is_pending());
                let mut slept = sleep(HOUR);
                assert!(Pin::new(&mut slept).poll(&mut context).is_pending());
                drop(sender);
            }
        })
        .unwrap();
        turn(&lp);
        waker.wake_by_ref();
        waits.open();
        while turn(&lp) > 0 {}
        waker.wake();
        lp.close().unwrap();
    }
}

/// A foreign waker that calls a function when it is dropped.
struct Meddling(Box<dyn Fn()>);

impl Meddling {
    fn waker(on_drop: impl Fn() + 'static) -> Waker {
        unsafe fn refuse(_: *const ()) -> RawWaker {
            panic!("the waker is cloned once")
        }
        unsafe fn drop_it(data: *const ()) {
            // SAFETY: the pointer came from a box, and the waker is dropped once.
            let meddling = unsafe { Box::from_raw(data.cast_mut().cast::<Meddling>()) };
            (meddling.0)();
        }
        static VTABLE: RawWakerVTable = RawWakerVTable::new(refuse, |_| {}, |_| {}, drop_it);
        static FIRST: RawWakerVTable =
            RawWakerVTable::new(|data| RawWaker::new(data, &VTABLE), |_| {}, |_| {}, |_| {});
        let data = Box::into_raw(Box::new(Meddling(Box::new(on_drop))));
        // SAFETY: the waker stays on this thread; the first waker owns nothing, and its one clone
        // owns the box.
        unsafe { Waker::new(data.cast_const().cast(), &FIRST) }
    }
}

#[test]
fn s30_a_waker_that_ends_what_is_waited_for_while_it_is_replaced_loses_no_wake() {
    let lp = virtual_loop();
    let (_gate, mut join) = waiting(&lp);
    let handle = join.handle();
    let (sender, mut receiver) = task::oneshot::<u32>().unwrap();
    let done = lp.run_until_complete(task::timeout(HOUR, async {
        let ends =
            Meddling::waker(move || Loop::with_running(|lp| lp.unwrap().cancel(handle).unwrap()));
        assert!(Pin::new(&mut join).poll(&mut Context::from_waker(&ends)).is_pending());
        assert!(join.await.unwrap_err().is_cancelled());
        let sender = Cell::new(Some(sender));
        let sends = Meddling::waker(move || sender.take().unwrap().send(3).unwrap());
        assert!(Pin::new(&mut receiver).poll(&mut Context::from_waker(&sends)).is_pending());
        assert_eq!(receiver.await, Ok(3));
    }));
    assert_eq!((done, lp.time()), (Ok(Ok(())), START));
}

/// A waker that calls a function when it is cloned. Its clones do nothing.
struct InClone<'a>(&'a dyn Fn());

impl InClone<'_> {
    fn waker(&self) -> Waker {
        unsafe fn clone(data: *const ()) -> RawWaker {
            // SAFETY: the `InClone` outlives the waker, which stays on this thread.
            (unsafe { &*data.cast::<InClone<'_>>() }.0)();
            let noop = Waker::noop();
            RawWaker::new(noop.data(), noop.vtable())
        }
        static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| {}, |_| {}, |_| {});
        // SAFETY: the waker owns nothing; the caller drops it before `self`, on this thread.
        unsafe { Waker::new(std::ptr::from_ref(self).cast(), &VTABLE) }
    }
}

/// Polls a future for the first time with a waker that calls `in_clone` when it is cloned. Returns
/// the number of polls.
async fn polled_again(mut future: Pin<&mut impl Future>, in_clone: &dyn Fn()) -> u32 {
    let mut polls = 0;
    let (in_clone, limit) = (InClone(in_clone), pin!(task::yield_now()));
    let mut limit = limit;
    poll_fn(|context| {
        polls += 1;
        let polled = if polls == 1 {
            future.as_mut().poll(&mut Context::from_waker(&in_clone.waker()))
        } else {
            future.as_mut().poll(context)
        };
        if polled.is_ready() { Poll::Ready(()) } else { limit.as_mut().poll(context) }
    })
    .await;
    polls
}

#[test]
fn s30_a_waker_that_brings_what_is_waited_for_while_it_is_cloned_loses_no_wake() {
    let lp = virtual_loop();
    let polls = lp.run_until_complete(async {
        let queue = task::Queue::new();
        let popped = polled_again(pin!(queue.pop()), &|| queue.push(1).unwrap()).await;
        let closed = task::Queue::<u32>::new();
        let ended = polled_again(pin!(closed.pop()), &|| closed.close()).await;
        let group = task::TaskGroup::<(), ()>::new();
        group.spawn(std::future::pending()).unwrap();
        let cancel_all = || {
            Loop::with_running(|lp| {
                let mine = lp.unwrap().current_handle();
                lp.unwrap()
                    .walk(|lp, info| {
                        if Some(info.handle()) != mine {
                            lp.cancel(info.handle()).unwrap();
                        }
                    })
                    .unwrap();
            });
        };
        let joined = polled_again(pin!(group.join()), &cancel_all).await;
        let mut signals = ringloop::signal::signal(libc::SIGURG).unwrap();
        let signal = polled_again(pin!(signals.next()), &cancel_all).await;
        [popped, ended, joined, signal]
    });
    assert_eq!(polls, Ok([1; 4]));
}

#[test]
fn s47_a_waker_that_takes_the_value_when_it_is_dropped_ends_no_pop() {
    unsafe fn push(data: *const ()) -> RawWaker {
        // SAFETY: the queue outlives the wakers, which stay on this thread.
        unsafe { &*data.cast::<task::Queue<u32>>() }.push(1).unwrap();
        RawWaker::new(data, &CLONED)
    }
    unsafe fn take(data: *const ()) {
        // SAFETY: the queue outlives the wakers, which stay on this thread.
        assert_eq!(unsafe { &*data.cast::<task::Queue<u32>>() }.try_pop(), Some(1));
    }
    static FIRST: RawWakerVTable = RawWakerVTable::new(push, |_| {}, |_| {}, |_| {});
    static CLONED: RawWakerVTable = RawWakerVTable::new(push, |_| {}, |_| {}, take);
    let queue = task::Queue::<u32>::new();
    let mut pop = pin!(queue.pop());
    // SAFETY: the waker owns nothing.
    let waker = unsafe { Waker::new(std::ptr::from_ref(&queue).cast(), &FIRST) };
    assert!(pop.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    queue.push(2).unwrap();
    assert_eq!(pop.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Some(2)));
}

#[test]
fn s30_a_waker_that_shuts_the_loop_down_while_it_is_cloned_is_told_so() {
    let lp = real_loop();
    let (mut one, _other) = ringloop::net::UnixStream::pair().unwrap();
    let mut read = Box::pin(one.read(Vec::with_capacity(10)));
    lp.run_until_complete(async {
        assert!(crate::streams::poll_once(read.as_mut()).await.is_none())
    })
    .unwrap();
    let shut_down = || lp.shutdown().unwrap();
    let shut_down = InClone(&shut_down);
    let polled = read.as_mut().poll(&mut Context::from_waker(&shut_down.waker()));
    assert!(
        matches!(polled, Poll::Ready((Err(error), _)) if error.raw_os_error() == libc::ECANCELED)
    );
}
