//! Wakers on many threads: S23, S26. `tests/tsan/run` also runs these tests.

use std::cell::UnsafeCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use ringloop::Outcome;

use super::{Gate, log, turn};
use crate::trace::real_loop;

#[test]
fn s26_tasks_that_another_thread_wakes_keep_the_order_of_its_posts() {
    const COUNT: usize = 200;
    for concurrent in [false, true] {
        let lp = real_loop();
        let (log, seen) = log();
        let gates: Vec<Gate> = (0..COUNT).map(|_| Gate::default()).collect();
        for (number, gate) in gates.iter().cloned().enumerate() {
            let log = log.clone();
            let mut is_first = true;
            drop(lp.spawn(async move {
                let mut gate = pin!(gate);
                poll_fn(|context| {
                    let _ = gate.as_mut().poll(context);
                    if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
                })
                .await;
                log.send(2 * number + 1).unwrap();
            }));
        }
        assert_eq!(turn(&lp), COUNT);
        let wakers: Vec<Waker> = gates.iter().map(Gate::waker).collect();
        let remote = lp.remote();
        let other = thread::spawn(move || {
            for (number, waker) in wakers.into_iter().enumerate() {
                let log = log.clone();
                remote.call_soon(move |_| log.send(2 * number).unwrap()).unwrap();
                waker.wake();
            }
        });
        if concurrent {
            assert_eq!(lp.run(), Ok(Outcome::Done));
            other.join().unwrap();
        } else {
            other.join().unwrap();
            assert_eq!(turn(&lp), 2 * COUNT);
        }
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), (0..2 * COUNT).collect::<Vec<_>>());
    }
}

/// Threads increment a counter and wake the task; the task sees the last value in any interleaving.
#[test]
fn s26_each_of_a_storm_of_wakes_is_followed_by_a_poll_that_sees_what_was_done_before() {
    const THREADS: u64 = 4;
    const WAKES: u64 = 5000;

    let lp = real_loop();
    let count = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&count);
    let wakers: Arc<Mutex<Option<Waker>>> = Arc::default();
    let place = Arc::clone(&wakers);
    let join = lp.spawn(poll_fn(move |context| {
        // Relaxed is enough, because the wake orders the load.
        if seen.load(Relaxed) == THREADS * WAKES {
            return Poll::Ready(());
        }
        place.lock().unwrap().get_or_insert_with(|| context.waker().clone());
        Poll::Pending
    }));
    turn(&lp);
    let waker = wakers.lock().unwrap().take().unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (waker, count) = (waker.clone(), Arc::clone(&count));
            thread::spawn(move || {
                for n in 0..WAKES {
                    count.fetch_add(1, Relaxed);
                    if n % 3 == 0 { Waker::wake(waker.clone()) } else { waker.wake_by_ref() }
                }
            })
        })
        .collect();
    drop(waker);
    // Without the last wake, the loop would sleep forever.
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(join.unwrap().is_finished());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    while turn(&lp) > 0 {}
}

/// Each value is written without an atomic instruction, read by the poll that the wake causes, and
/// written again after the answer of this poll.
#[test]
fn s26_what_is_written_before_a_wake_needs_no_other_order() {
    struct Cells([UnsafeCell<u64>; 2]);
    // SAFETY: the wakes and the answers order the accesses of the two threads; a thread sanitizer
    // checks this order.
    unsafe impl Sync for Cells {}

    const ROUNDS: u64 = 2000;
    let lp = real_loop();
    let cells = Arc::new(Cells([UnsafeCell::new(0), UnsafeCell::new(0)]));
    let (answer, answers) = channel::<u64>();
    let (gate, inner) = (Gate::default(), Arc::clone(&cells));
    let waits = gate.clone();
    let mut round = 0;
    let join = lp.spawn(poll_fn(move |context| {
        let mut gate = pin!(waits.clone());
        if gate.as_mut().poll(context).is_pending() && round == 0 {
            round = 1;
            return Poll::Pending;
        }
        // SAFETY: the thread waits for the answer.
        assert_eq!(unsafe { *inner.0[0].get() }, round);
        answer.send(round).unwrap();
        round += 1;
        if round > ROUNDS { Poll::Ready(()) } else { Poll::Pending }
    }));
    turn(&lp);
    let waker = gate.waker();
    let other = thread::spawn(move || {
        for round in 1..=ROUNDS {
            // SAFETY: the task has answered the last wake, and is not polled before the next.
            unsafe { *cells.0[0].get() = round };
            waker.wake_by_ref();
            assert_eq!(answers.recv(), Ok(round));
        }
    });
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(join.unwrap().is_finished());
    other.join().unwrap();
}

/// Tasks end, and their join handles and wakers are dropped, in every order that the threads
/// produce. The last owner frees the memory, once. An address sanitizer checks the rest.
#[test]
fn s23_tasks_end_amid_clones_and_drops_of_their_wakers() {
    const ROUNDS: usize = 300;

    let lp = real_loop();
    let token = Rc::new(());
    let (to_threads, threads): (Vec<_>, Vec<_>) = (0..3)
        .map(|number: usize| {
            let (sender, wakers) = channel::<Waker>();
            let thread = thread::spawn(move || {
                for (turn, waker) in wakers.into_iter().enumerate() {
                    match (turn + number) % 4 {
                        0 => waker.wake(),
                        1 => drop(waker.clone()),
                        2 => {
                            let clone = waker.clone();
                            waker.wake_by_ref();
                            drop(waker);
                            clone.wake();
                        }
                        _ => drop(waker),
                    }
                }
            });
            (sender, thread)
        })
        .unzip();
    for round in 0..ROUNDS {
        let (gate, held) = (Gate::default(), Rc::clone(&token));
        let waits = gate.clone();
        let join = lp.spawn(async move {
            waits.await;
            drop(held);
        });
        turn(&lp);
        let waker = gate.waker();
        to_threads.iter().for_each(|thread| thread.send(waker.clone()).unwrap());
        gate.0.is_open.set(true);
        match round % 3 {
            0 => lp.cancel(join.unwrap().handle()).unwrap(),
            1 => drop(join),
            _ => {
                waker.wake();
                let join = join.unwrap();
                // A thread that is waking the task may put it into the inbox later.
                while !join.is_finished() {
                    turn(&lp);
                }
            }
        }
        turn(&lp);
    }
    drop(to_threads);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    lp.close().unwrap();
    assert_eq!(Rc::strong_count(&token), 1);
}

#[test]
fn s23_the_last_wakers_are_dropped_by_several_threads_at_once() {
    const TASKS: usize = 3000;

    let lp = real_loop();
    let gates: Vec<Gate> = (0..TASKS).map(|_| Gate::default()).collect();
    gates.iter().for_each(|gate| drop(lp.spawn(gate.clone())));
    assert_eq!(turn(&lp), TASKS);
    let wakers: Vec<Waker> = gates.iter().map(Gate::waker).collect();
    gates.iter().for_each(Gate::open);
    assert_eq!(turn(&lp), TASKS);
    drop(gates);
    let begin = Arc::new(AtomicBool::new(false));
    let next: Arc<Vec<AtomicUsize>> = Arc::new((0..TASKS).map(|_| AtomicUsize::new(0)).collect());
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (wakers, begin, next) = (wakers.clone(), Arc::clone(&begin), Arc::clone(&next));
            thread::spawn(move || {
                while !begin.load(Relaxed) {
                    thread::yield_now();
                }
                for (waker, here) in wakers.into_iter().zip(next.iter()) {
                    // A thread that is early waits briefly for the others.
                    here.fetch_add(1, Relaxed);
                    let mut patience = 1000;
                    while here.load(Relaxed) < 3 && patience > 0 {
                        patience -= 1;
                        std::hint::spin_loop();
                    }
                    drop(waker);
                }
            })
        })
        .collect();
    drop(wakers);
    begin.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn s23_wakes_against_closing_harm_nothing() {
    for round in 0..60 {
        let lp = real_loop();
        let token = Rc::new(());
        let wakers: Vec<Waker> = (0..20)
            .map(|_| {
                let (gate, held) = (Gate::default(), Rc::clone(&token));
                let waits = gate.clone();
                drop(lp.spawn(async move {
                    waits.await;
                    drop(held);
                }));
                turn(&lp);
                gate.waker()
            })
            .collect();
        let is_closed = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (wakers, is_closed) = (wakers.clone(), Arc::clone(&is_closed));
                thread::spawn(move || {
                    while !is_closed.load(Relaxed) {
                        wakers.iter().for_each(Waker::wake_by_ref);
                    }
                    wakers.into_iter().for_each(Waker::wake);
                })
            })
            .collect();
        drop(wakers);
        for _ in 0..round % 4 {
            turn(&lp);
        }
        if round % 2 == 0 {
            lp.close().unwrap()
        } else {
            drop(lp)
        }
        assert_eq!(Rc::strong_count(&token), 1);
        is_closed.store(true, Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
