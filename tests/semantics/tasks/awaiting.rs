//! Callbacks, operations and work on other threads, awaited: S13, S22, S30.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread;

use libc::{ECANCELED, EINVAL};
use ringloop::task::{self, oneshot, operation, sleep, spawn_blocking, timeout, yield_now};
use ringloop::{Events, Kind, Loop, Outcome};

use super::{both_ways, turn};
use crate::support::Watched;
use crate::trace::{Bomb, HOUR, Trace, errno, ms, ns, panic, payload, real_loop, virtual_loop};

#[test]
fn a_value_comes_once() {
    for lp in both_ways() {
        let received = lp.run_until_complete(async {
            let (sender, mut receiver) = oneshot().unwrap();
            sender.send(vec![1]).unwrap();
            let early = (&mut receiver).await;
            let again = receiver.await;
            let (sender, receiver) = oneshot().unwrap();
            let lp = Loop::with_running(|lp| {
                lp.unwrap().call_later(HOUR, move |_| sender.send(vec![2]).unwrap())
            });
            (early, errno(again), receiver.await, lp.is_ok())
        });
        assert_eq!(received, Ok((Ok(vec![1]), ECANCELED, Ok(vec![2]), true)));
    }
}

#[test]
fn a_receiver_is_told_that_its_sender_is_gone() {
    for lp in both_ways() {
        let received = lp.run_until_complete(async {
            let (sender, receiver) = oneshot::<()>().unwrap();
            drop(sender);
            let gone = errno(receiver.await);
            let (sender, receiver) = oneshot::<()>().unwrap();
            Loop::with_running(|lp| lp.unwrap().call_later(ns(1), move |_| drop(sender)).map(drop))
                .unwrap();
            (gone, errno(receiver.await))
        });
        assert_eq!(received, Ok((ECANCELED, ECANCELED)));
    }
}

#[test]
fn a_value_that_nobody_awaits_comes_back_or_is_dropped() {
    let trace = Trace::new();
    let (sender, receiver) = oneshot().unwrap();
    drop(receiver);
    let back = sender.send(trace.on_drop("came back"));
    assert_eq!((trace.len(), back.is_err()), (0, true));
    drop(back);
    assert_eq!(trace.take(), ["came back"]);
    let (sender, receiver) = oneshot().unwrap();
    assert!(sender.send(trace.on_drop("not taken")).is_ok());
    assert_eq!(trace.len(), 0);
    drop(receiver);
    assert_eq!(trace.take(), ["not taken"]);
}

#[test]
fn a_value_wakes_who_polled_last() {
    let lp = virtual_loop();
    let (sender, receiver) = oneshot::<u8>().unwrap();
    let receiver = Rc::new(RefCell::new(receiver));
    let polls = Rc::new(RefCell::new([0, 0]));
    for number in 0..2 {
        let (receiver, polls) = (Rc::clone(&receiver), Rc::clone(&polls));
        drop(lp.spawn(std::future::poll_fn(move |context| {
            polls.borrow_mut()[number] += 1;
            Pin::new(&mut *receiver.borrow_mut()).poll(context).map(drop)
        })));
    }
    turn(&lp);
    sender.send(1).unwrap();
    while turn(&lp) > 0 {}
    assert_eq!(*polls.borrow(), [1, 2]);
}

#[test]
fn a_sender_goes_to_another_loop_and_outlives_the_one_that_waits() {
    let (lp, other) = (virtual_loop(), virtual_loop());
    let (sender, receiver) = oneshot::<u8>().unwrap();
    let join = lp.spawn(receiver).unwrap();
    turn(&lp);
    other.call_soon(move |_| sender.send(3).unwrap()).unwrap();
    assert_eq!(other.run(), Ok(Outcome::Done));
    assert_eq!((turn(&lp), join.is_finished()), (1, true));
    let (sender, receiver) = oneshot::<u8>().unwrap();
    let join = lp.spawn(receiver);
    turn(&lp);
    lp.close().unwrap();
    assert_eq!((sender.send(4), join.unwrap().is_finished()), (Err(4), true));
}

#[test]
fn an_operation_gives_what_its_callback_was_given() {
    let lp = real_loop();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"hello").unwrap();
    let got = lp.run_until_complete(async {
        let begin = |lp: &Loop, done: task::Sender<_>| {
            lp.read(stream, Vec::with_capacity(9), None, |_, read, buffer| {
                drop(done.send((read, buffer)))
            })
        };
        let pending = operation(begin).unwrap();
        Loop::with_running(|lp| assert!(lp.unwrap().is_pending(pending.handle())));
        pending.await.unwrap()
    });
    assert_eq!(got, Ok((Ok(5), b"hello".to_vec())));
}

#[test]
fn s28_an_operation_that_cannot_begin_says_so() {
    let refused = operation::<()>(|_, _| panic!("no loop is running"));
    assert_eq!(refused.unwrap_err().raw_os_error(), EINVAL);
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.run_until_complete(async {
        let dropped = trace.on_drop("dropped");
        let refused = operation::<()>(|lp, done| {
            let _dropped = dropped;
            lp.call_every(ns(0), move |_| assert!(!format!("{done:?}").is_empty()))
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), trace.take()), (EINVAL, vec!["dropped"]));
    })
    .unwrap();
}

/// A read that never gets data: its callback keeps the peer. The kernel uses the buffer until the
/// final callback.
fn endless_read(trace: &Trace) -> task::Operation<()> {
    let (stream, peer) = UnixStream::pair().unwrap();
    let (inner, buffer) = (trace.clone(), Noting(vec![0; 16], trace.on_drop("buffer released")));
    let begin = |lp: &Loop, done: task::Sender<()>| {
        lp.read(stream, buffer, None, move |_, read, _buffer| {
            assert_eq!(errno(read), ECANCELED);
            drop(peer);
            inner.add(if done.send(()).is_err() { "nobody awaits it" } else { "final callback" });
        })
    };
    operation(begin).unwrap()
}

/// A buffer that notes when it is dropped.
struct Noting(Vec<u8>, #[allow(dead_code)] crate::trace::OnDrop<&'static str>);

// SAFETY: the vector's memory stays where it is while the buffer lives.
unsafe impl ringloop::BufferMut for Noting {
    fn room(&mut self) -> (*mut u8, usize) {
        (self.0.as_mut_ptr(), self.0.len())
    }

    unsafe fn filled(&mut self, _: usize) {}
}

#[test]
fn s44_an_operation_that_is_dropped_is_cancelled_and_its_final_callback_comes() {
    let lp = real_loop();
    let trace = Trace::new();
    lp.run_until_complete(async {
        let pending = endless_read(&trace);
        let handle = pending.handle();
        yield_now().await;
        drop(pending);
        assert_eq!(trace.len(), 0, "the kernel has the buffer");
        // The operation is pending until the final callback.
        while Loop::with_running(|lp| lp.unwrap().is_pending(handle)) {
            assert_eq!(trace.len(), 0);
            sleep(ns(100_000)).await.unwrap();
        }
        assert_eq!(trace.take(), ["nobody awaits it", "buffer released"]);
    })
    .unwrap();
}

#[test]
fn s44_an_operation_is_cancelled_by_a_timeout_by_abort_and_outside_of_a_run() {
    let lp = real_loop();
    let trace = Trace::new();
    let late = lp.run_until_complete(async {
        let pending = endless_read(&trace);
        timeout(ms(1), pending).await
    });
    assert_eq!(errno(late.unwrap()), libc::ETIMEDOUT);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["nobody awaits it", "buffer released"]);
    for is_aborted in [true, false] {
        let inner = trace.clone();
        let join = lp.spawn(async move {
            let pending = endless_read(&inner);
            pending.await.unwrap();
        });
        let join = join.unwrap();
        turn(&lp);
        // Both happen outside of a run.
        if is_aborted {
            join.abort()
        } else {
            lp.cancel(join.handle()).unwrap()
        }
        assert_eq!((trace.len(), lp.run()), (0, Ok(Outcome::Done)));
        assert_eq!(
            (trace.take(), join.is_finished()),
            (vec!["nobody awaits it", "buffer released"], true)
        );
    }
}

#[test]
fn s44_an_operation_that_is_cancelled_by_its_handle_says_so_to_who_awaits_it() {
    let lp = real_loop();
    let trace = Trace::new();
    lp.run_until_complete(async {
        let pending = endless_read(&trace);
        Loop::with_running(|lp| lp.unwrap().cancel(pending.handle())).unwrap();
        pending.await.unwrap();
        assert_eq!(trace.take(), ["final callback", "buffer released"]);
    })
    .unwrap();
}

#[test]
fn s22_an_operation_of_a_loop_that_is_closed_is_released_and_says_that_it_is_gone() {
    for is_dropped_first in [false, true] {
        let lp = real_loop();
        let trace = Trace::new();
        let place = Rc::new(RefCell::new(None));
        lp.run_until_complete(async { *place.borrow_mut() = Some(endless_read(&trace)) }).unwrap();
        let pending = place.take().unwrap();
        let mut pending = Some(pending).filter(|_| !is_dropped_first);
        lp.close().unwrap();
        assert_eq!(trace.take(), ["buffer released"]);
        if let Some(pending) = &mut pending {
            let polled = Pin::new(pending).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(polled, Poll::Ready(Err(error)) if error.raw_os_error() == ECANCELED));
        }
    }
}

#[test]
fn s11_a_timer_that_is_awaited_as_an_operation_is_gone_when_that_is_dropped() {
    for lp in both_ways() {
        lp.run_until_complete(async {
            let timer =
                operation(|lp, done| lp.call_later(HOUR, move |_| done.send(()).unwrap())).unwrap();
            let handle = timer.handle();
            drop(timer);
            Loop::with_running(|lp| assert!(!lp.unwrap().is_pending(handle)));
            // After the callback has run, nothing is cancelled: the slot may be in use again.
            let call = operation(|lp, done| lp.call_soon(move |_| done.send(5).unwrap())).unwrap();
            yield_now().await;
            let other = Loop::with_running(|lp| lp.unwrap().call_later(ns(1), |_| {})).unwrap();
            drop(call);
            Loop::with_running(|lp| assert!(lp.unwrap().is_pending(other)));
        })
        .unwrap();
    }
}

fn loop_with_a_thread() -> Watched {
    Watched::new(Loop::builder().executor_threads(1).build().unwrap())
}

/// Work that has begun, and ends when the sender is dropped.
fn begun(lp: &Loop) -> (task::JoinHandle<Result<u8, task::JoinError>>, Sender<()>) {
    let (end, ends): (Sender<()>, Receiver<()>) = channel();
    let (begin, begun) = channel();
    let join = lp.spawn(async move {
        let work = move || {
            begin.send(()).unwrap();
            let _ = ends.recv();
            8
        };
        spawn_blocking(work).unwrap().await
    });
    turn(lp);
    begun.recv().unwrap();
    (join.unwrap(), end)
}

#[test]
fn work_gives_what_it_returns() {
    let lp = loop_with_a_thread();
    let here = thread::current().id();
    let done = lp.run_until_complete(async {
        let work =
            spawn_blocking(move || (thread::current().id() != here, String::from("done"))).unwrap();
        let handle = work.handle();
        Loop::with_running(|lp| {
            let mut kind = None;
            lp.unwrap()
                .walk(|_, info| kind = kind.or((info.handle() == handle).then_some(info.kind())))
                .unwrap();
            assert_eq!(kind, Some(Kind::Work));
        });
        work.await.unwrap()
    });
    assert_eq!(done, Ok((true, String::from("done"))));
}

#[test]
fn s41_a_panic_of_work_is_the_futures_or_the_handlers() {
    let lp = loop_with_a_thread();
    let error = lp.run_until_complete(async {
        spawn_blocking(|| panic("in work")).unwrap().await.err().unwrap()
    });
    assert_eq!(payload(&*error.unwrap().into_payload().unwrap()), "in work");
    let trace = Trace::new();
    for is_handled in [false, true] {
        let told = trace.clone();
        if is_handled {
            lp.set_exception_handler(move |_, caught| told.add(payload(&*caught))).unwrap();
        }
        // The future is dropped before the panic comes, and after the panic.
        for is_before in [true, false] {
            let (end, ends): (Sender<()>, Receiver<()>) = channel();
            lp.run_until_complete(async {
                let (begin, begun) = channel();
                let work = spawn_blocking(move || {
                    begin.send(()).unwrap();
                    let _ = ends.recv();
                    panic("nobody awaits it")
                });
                let work: task::Blocking<()> = work.unwrap();
                begun.recv().unwrap();
                let Some(work) = (!is_before).then_some(work) else { return drop(end) };
                drop(end);
                let handle = work.handle();
                while Loop::with_running(|lp| lp.unwrap().is_pending(handle)) {
                    yield_now().await;
                }
                drop(work);
            })
            .unwrap();
            assert_eq!(lp.run(), Ok(Outcome::Done));
            let expected: &[&str] = if is_handled { &["nobody awaits it"] } else { &[] };
            assert_eq!(trace.take(), expected, "dropped before: {is_before}");
        }
    }
}

#[test]
fn s44_work_that_has_not_begun_is_cancelled_when_it_is_dropped() {
    let lp = loop_with_a_thread();
    let (blocker, end) = begun(&lp);
    let token = Rc::new(Cell::new(0));
    lp.run_until_complete(async {
        let (tell, told) = channel::<()>();
        drop(spawn_blocking(move || drop(tell)).unwrap());
        let other = spawn_blocking(|| 1).unwrap();
        Loop::with_running(|lp| lp.unwrap().cancel(other.handle())).unwrap();
        assert!(other.await.unwrap_err().is_cancelled());
        // The work has been dropped without being run, with the values that it has captured.
        assert!(told.recv().is_err());
        token.set(1);
    })
    .unwrap();
    drop(end);
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(blocker.is_finished() && token.get() == 1);
}

#[test]
fn s22_closing_waits_for_work_that_has_begun_and_drops_its_result() {
    for is_awaited in [true, false] {
        let lp = loop_with_a_thread();
        let (join, end) = begun(&lp);
        let join =
            if is_awaited { Some(join) } else { lp.cancel(join.handle()).map(|()| None).unwrap() };
        let refused = lp.into_inner().close_within(ns(1)).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), libc::ETIMEDOUT);
        assert!(join.as_ref().is_none_or(|join| !join.is_finished()));
        let other = thread::spawn(move || {
            thread::sleep(ms(1));
            drop(end);
        });
        refused.lp.close().unwrap();
        other.join().unwrap();
        assert!(join.is_none_or(|join| join.is_finished()));
    }
}

#[test]
fn s41_a_result_whose_drop_panics_when_nobody_awaits_it() {
    let lp = loop_with_a_thread();
    let trace = Trace::new();
    for is_handled in [false, true] {
        let told = trace.clone();
        if is_handled {
            lp.set_exception_handler(move |_, caught| told.add(payload(&*caught))).unwrap();
        }
        let (end, ends): (Sender<()>, Receiver<()>) = channel();
        lp.run_until_complete(async {
            let (begin, begun) = channel();
            let work = spawn_blocking(move || {
                begin.send(()).unwrap();
                let _ = ends.recv();
                Bomb("in the result's drop")
            });
            begun.recv().unwrap();
            drop(work);
        })
        .unwrap();
        drop(end);
        assert_eq!(lp.run(), Ok(Outcome::Done));
        let expected: &[&str] = if is_handled { &["in the result's drop"] } else { &[] };
        assert_eq!(trace.take(), expected);
    }
}

#[test]
fn a_descriptor_is_awaited_until_it_is_ready() {
    let lp = real_loop();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ours = Rc::new(ours);
    lp.run_until_complete(async {
        let waiting = task::spawn(task::ready(Rc::clone(&ours), Events::IN)).unwrap();
        task::yield_now().await;
        task::yield_now().await;
        assert!(!waiting.is_finished());
        theirs.write_all(b"x").unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(Events::IN));
        // The future is complete at once, because the descriptor is ready, and so is the next one.
        for _ in 0..2 {
            assert_eq!(
                task::ready(Rc::clone(&ours), Events::IN | Events::OUT).await,
                Ok(Events::IN | Events::OUT)
            );
        }
        // A dropped future watches no more.
        let dropped = task::spawn(task::ready(Rc::clone(&ours), Events::PRI)).unwrap();
        task::yield_now().await;
        dropped.abort();
        assert_eq!(Rc::strong_count(&ours), 1);
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let refused = lp.run_until_complete(task::ready(
        std::fs::File::open("/proc/self/exe").unwrap(),
        Events::IN,
    ));
    assert_eq!(errno(refused.unwrap()), libc::EPERM);
}

#[test]
fn a_join_error_is_an_error_of_the_loops_as_well() {
    let lp = virtual_loop();
    lp.run_until_complete(async {
        let aborted = task::spawn(std::future::pending::<()>()).unwrap();
        aborted.abort();
        assert_eq!(errno(aborted.await.map_err(ringloop::Error::from)), libc::ECANCELED);
        let panicked = task::spawn(async { panic("in a task") }).unwrap();
        assert_eq!(errno(panicked.await.map_err(ringloop::Error::from)), libc::ENOTRECOVERABLE);
        // A detached task continues.
        let done = Rc::new(Cell::new(false));
        let tell = Rc::clone(&done);
        task::spawn(async move { tell.set(true) }).unwrap().detach();
        task::yield_now().await;
        assert!(done.get());
    })
    .unwrap();
}
