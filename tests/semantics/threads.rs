//! S21, S23, S26, S27: functions for other threads, and signals.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use libc::ESHUTDOWN;
use ringloop::{Loop, Outcome, Remote, Time};

use crate::support::Watched;
use crate::trace::{real_loop, virtual_loop};

const NEVER: Duration = Duration::MAX;

/// Counts when it is dropped.
struct Tell(Arc<AtomicUsize>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Waits until the loop probably sleeps. No function tells whether a loop sleeps, so the wait
/// proves nothing by itself.
fn give_it_time() {
    thread::sleep(Duration::from_millis(5));
}

#[test]
fn s26_a_post_ends_a_sleep_that_has_no_limit() {
    let lp = real_loop();
    let remote = lp.remote();
    let poster = thread::spawn(move || {
        give_it_time();
        remote.call_soon(|lp| lp.stop().unwrap()).unwrap();
    });
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    poster.join().unwrap();
    let metrics = lp.metrics();
    assert_eq!((metrics.posts, metrics.callbacks), (1, 1));
    assert!(metrics.wakes <= 1);
}

#[test]
fn s26_posts_of_one_thread_run_in_order() {
    const EACH: usize = 2000;
    let lp = real_loop();
    let next = Rc::new(RefCell::new([0; 4]));
    let (sender, seen) = mpsc::channel();
    let posters: Vec<_> = (0..4)
        .map(|id| {
            let (remote, sender) = (lp.remote(), sender.clone());
            thread::spawn(move || {
                for turn in 0..EACH {
                    let sender = sender.clone();
                    remote.call_soon(move |_| sender.send((id, turn)).unwrap()).unwrap();
                }
            })
        })
        .collect();
    while lp.metrics().posts < 4 * EACH as u64 {
        lp.run_once(NEVER).unwrap();
    }
    lp.run().unwrap();
    posters.into_iter().for_each(|poster| poster.join().unwrap());
    for (id, turn) in seen.try_iter() {
        let expected = &mut next.borrow_mut()[id];
        assert_eq!(turn, *expected);
        *expected += 1;
    }
    assert_eq!(*next.borrow(), [EACH; 4]);
}

#[test]
fn s26_posts_and_the_loops_own_calls_stand_in_the_order_of_the_calls() {
    let lp = real_loop();
    let remote = lp.remote();
    let (sender, seen) = mpsc::channel();
    for turn in 0..50 {
        let (remote, there) = (remote.clone(), sender.clone());
        // The thread is joined after it has posted, so the call comes after the post.
        thread::spawn(move || remote.call_soon(move |_| there.send(2 * turn).unwrap()).unwrap())
            .join()
            .unwrap();
        let here = sender.clone();
        lp.call_soon(move |_| here.send(2 * turn + 1).unwrap()).unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

#[test]
fn s26_posts_to_a_loop_that_is_awake_send_no_wake() {
    let lp = real_loop();
    let remote = lp.remote();
    for _ in 0..1000 {
        remote.call_soon(|_| {}).unwrap();
    }
    lp.call_soon(move |_| {
        let poster =
            thread::spawn(move || (0..1000).for_each(|_| remote.call_soon(|_| {}).unwrap()));
        poster.join().unwrap();
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let metrics = lp.metrics();
    assert_eq!(
        (metrics.posts, metrics.callbacks, metrics.wakes, metrics.enters),
        (2000, 2001, 0, 0)
    );
}

#[test]
fn s26_many_posts_to_a_loop_that_sleeps_send_one_wake() {
    let lp = real_loop();
    let remote = lp.remote();
    let poster = thread::spawn(move || {
        give_it_time();
        // The first post wakes the loop, and then waits until all posts are made.
        let posted = Arc::new(Barrier::new(2));
        let there = Arc::clone(&posted);
        remote
            .call_soon(move |_| {
                there.wait();
            })
            .unwrap();
        (0..1000).for_each(|_| remote.call_soon(|_| {}).unwrap());
        remote.call_soon(|lp| lp.stop().unwrap()).unwrap();
        posted.wait();
    });
    lp.run_forever().unwrap();
    poster.join().unwrap();
    assert!(lp.metrics().wakes <= 1, "{}", lp.metrics().wakes);
    assert_eq!(lp.metrics().posts, 1002);
}

#[test]
fn s05_posts_come_before_due_timers_and_what_is_ready_comes_before_posts() {
    let lp = virtual_loop();
    let trace = Rc::new(RefCell::new(Vec::new()));
    let add = |what: &'static str| {
        let trace = Rc::clone(&trace);
        move |_: &Loop| trace.borrow_mut().push(what)
    };
    let (sender, posts) = mpsc::channel();
    lp.call_at(lp.time(), add("timer")).unwrap();
    lp.call_soon(add("call")).unwrap();
    lp.remote().call_soon(move |_| sender.send("post").unwrap()).unwrap();
    let remote_saw = Rc::clone(&trace);
    lp.call_soon(move |_| {
        // The post was made before this call, so the post has run.
        remote_saw.borrow_mut().extend(posts.try_iter());
    })
    .unwrap();
    lp.run().unwrap();
    assert_eq!(*trace.borrow(), ["call", "post", "timer"]);
}

#[test]
fn s19_a_post_keeps_a_run_alive_and_a_remote_does_not() {
    let lp = real_loop();
    let remote = lp.remote();
    assert!(!lp.is_alive());
    assert_eq!(lp.run(), Ok(Outcome::Done));
    remote.call_soon(|_| {}).unwrap();
    assert!(lp.is_alive());
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.metrics().callbacks, 1);
}

#[test]
fn s26_a_delayed_post_is_never_early() {
    let lp = real_loop();
    let remote = lp.remote();
    let delay = Duration::from_millis(3);
    let (sender, seen) = mpsc::channel();
    let poster = thread::spawn(move || {
        give_it_time();
        let posted = Time::now();
        remote.call_later(delay, move |lp| {
            sender.send(lp.time() - posted).unwrap();
            lp.stop().unwrap();
        })
    });
    lp.run_forever().unwrap();
    poster.join().unwrap().unwrap();
    assert!(seen.recv().unwrap() >= delay);
}

#[test]
fn s36_a_delayed_post_goes_by_the_virtual_clock() {
    let lp = virtual_loop();
    let start = lp.time();
    let hour = Duration::from_secs(3600);
    lp.remote().call_later(hour, move |lp| assert_eq!(lp.time(), start + hour)).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(lp.time(), start + hour);
}

#[test]
fn s04_a_post_that_is_delayed_for_ever_is_never_due() {
    for lp in [virtual_loop(), real_loop()] {
        lp.remote().call_later(NEVER, |_| panic!("an endless delay is over")).unwrap();
        assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
        let mut seen = Vec::new();
        lp.walk(|_, info| seen.push(info.when())).unwrap();
        assert_eq!((seen, lp.next_deadline()), (vec![Time::NEVER], None));
    }
    let lp = Watched::new(Loop::builder().virtual_time(Time::from_nanos(0)).build().unwrap());
    lp.remote().call_later(NEVER, |_| panic!("an endless delay is over")).unwrap();
    // The first iteration takes the post, the second jumps to the last moment of all.
    let last = u64::MAX - 1;
    assert_eq!(
        (lp.run_once(Duration::ZERO), lp.run_once(Duration::from_nanos(last))),
        (Ok(0), Ok(0))
    );
    assert_eq!(lp.time(), Time::from_nanos(last));
}

#[test]
fn s36_a_virtual_loop_does_not_spin_for_ever() {
    let lp = Watched::new(
        Loop::builder()
            .virtual_time(Time::from_nanos(0))
            .spin(Duration::from_micros(1))
            .build()
            .unwrap(),
    );
    let remote = lp.remote();
    let poster = thread::spawn(move || {
        // Posts until the loop was found asleep; 400 posts are more than enough.
        for _ in 0..400 {
            give_it_time();
            let posted = remote.call_soon(|lp| {
                if lp.metrics().wakes > 0 {
                    lp.stop().unwrap()
                }
            });
            if posted.is_err() {
                return;
            }
        }
        let _ = remote.stop();
    });
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    assert!(lp.metrics().wakes > 0, "the loop never slept");
    lp.close().unwrap();
    poster.join().unwrap();
}

#[test]
fn s27_a_wakeup_is_latched_for_the_next_sleep_alone() {
    let lp = real_loop();
    lp.remote().wakeup().unwrap();
    lp.remote().wakeup().unwrap();
    assert_eq!(lp.run_once(NEVER), Ok(0));
    let before = Instant::now();
    let limit = Duration::from_millis(20);
    assert_eq!(lp.run_once(limit), Ok(0));
    assert!(before.elapsed() >= limit, "one latch ended two sleeps");
}

#[test]
fn s27_posts_leave_the_latch_alone() {
    let lp = real_loop();
    let remote = lp.remote();
    remote.wakeup().unwrap();
    // Neither the post nor the iteration that takes the post (for the call) clears the latch.
    remote.call_soon(|_| {}).unwrap();
    lp.call_soon(|_| {}).unwrap();
    assert_eq!(lp.run_once(NEVER), Ok(2));
    assert_eq!(lp.run_once(NEVER), Ok(0));
}

#[test]
fn s27_a_wakeup_ends_a_sleep() {
    let lp = real_loop();
    let remote = lp.remote();
    let waker = thread::spawn(move || {
        give_it_time();
        remote.wakeup().unwrap();
    });
    assert_eq!(lp.run_once(NEVER), Ok(0));
    waker.join().unwrap();
}

#[test]
fn s27_a_wakeup_leaves_errno_alone() {
    let lp = real_loop();
    let remote = lp.remote();
    let waker = thread::spawn(move || {
        give_it_time();
        // SAFETY: errno belongs to this thread.
        unsafe { *libc::__errno_location() = libc::E2BIG };
        remote.wakeup().unwrap();
        // SAFETY: errno belongs to this thread.
        assert_eq!(unsafe { *libc::__errno_location() }, libc::E2BIG);
    });
    assert_eq!(lp.run_once(NEVER), Ok(0));
    waker.join().unwrap();
}

#[test]
fn s23_a_remote_outlives_its_loop() {
    let lp = real_loop();
    let remote = lp.remote();
    let dropped = Arc::new(AtomicUsize::new(0));
    let (first, second) = (Tell(Arc::clone(&dropped)), Tell(Arc::clone(&dropped)));
    remote.call_soon(move |_| drop(first)).unwrap();
    remote.call_later(Duration::from_secs(1), move |_| drop(second)).unwrap();
    lp.close().unwrap();
    assert_eq!(dropped.load(SeqCst), 2, "closing the loop drops posts that have not run");
    let third = Tell(Arc::clone(&dropped));
    let refused = remote.call_soon(move |_| drop(third)).unwrap_err();
    assert_eq!(refused.error.raw_os_error(), ESHUTDOWN);
    assert_eq!(dropped.load(SeqCst), 2, "the caller keeps a refused post");
    drop(refused.callback);
    assert_eq!(dropped.load(SeqCst), 3);
    assert_eq!(remote.wakeup().unwrap_err().raw_os_error(), ESHUTDOWN);
    assert_eq!(remote.stop().unwrap_err().raw_os_error(), ESHUTDOWN);
}

#[test]
fn s23_a_loop_that_is_shut_down_takes_no_posts() {
    let lp = real_loop();
    let remote = lp.remote();
    let dropped = Arc::new(AtomicUsize::new(0));
    let tell = Tell(Arc::clone(&dropped));
    remote.call_soon(move |_| drop(tell)).unwrap();
    lp.shutdown().unwrap();
    assert_eq!(dropped.load(SeqCst), 1);
    assert_eq!(remote.call_soon(|_| {}).unwrap_err().error.raw_os_error(), ESHUTDOWN);
}

#[test]
fn s23_every_post_against_closing_is_run_or_let_go_of_or_refused() {
    const EACH: usize = 50;
    for round in 0..200 {
        let lp = real_loop();
        let (ran, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let begin = Arc::new(Barrier::new(3));
        let posters: Vec<_> = (0..2)
            .map(|_| {
                let (remote, begin) = (lp.remote(), Arc::clone(&begin));
                let (ran, dropped) = (Arc::clone(&ran), Arc::clone(&dropped));
                thread::spawn(move || {
                    begin.wait();
                    let post = |_| {
                        let (ran, tell) = (Arc::clone(&ran), Tell(Arc::clone(&dropped)));
                        let posted = remote.call_soon(move |_| {
                            ran.fetch_add(1, SeqCst);
                            drop(tell);
                        });
                        posted.is_ok()
                    };
                    (0..EACH).map(post).filter(|accepted| *accepted).count()
                })
            })
            .collect();
        begin.wait();
        for _ in 0..round % 4 {
            lp.run_once(Duration::ZERO).unwrap();
        }
        let ran_before = ran.load(SeqCst);
        lp.close().unwrap();
        let accepted: usize = posters.into_iter().map(|poster| poster.join().unwrap()).sum();
        assert_eq!(ran.load(SeqCst), ran_before, "a post ran while the loop was closed");
        assert!(ran_before <= accepted);
        assert_eq!(dropped.load(SeqCst), 2 * EACH, "each post is dropped once, run or not");
    }
}

#[test]
fn s23_a_remote_stops_its_loop() {
    let lp = real_loop();
    let remote = lp.remote();
    let stopper = thread::spawn(move || remote.stop());
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    stopper.join().unwrap().unwrap();
}

#[test]
fn s25_a_detached_loop_takes_posts_before_it_is_adopted() {
    let detached = Loop::builder().build_detached().unwrap();
    let remote = detached.remote();
    remote.stop().unwrap();
    let worker = thread::spawn(move || Watched::new(detached.adopt().unwrap()).run_forever());
    assert_eq!(worker.join().unwrap(), Ok(Outcome::Stopped));
}

#[test]
fn s26_loops_on_two_threads_post_to_each_other() {
    fn bounce(lp: &Loop, other: Remote, left: u32, done: Arc<AtomicBool>) {
        let here = lp.remote();
        if left == 0 {
            done.store(true, SeqCst);
            let _ = other.stop();
            return lp.stop().unwrap();
        }
        let back = move |lp: &Loop| bounce(lp, here, left - 1, done);
        assert!(other.call_soon(back).is_ok());
    }

    let lp = real_loop();
    let detached = Loop::builder().build_detached().unwrap();
    let other = detached.remote();
    let done = Arc::new(AtomicBool::new(false));
    let worker = thread::spawn(move || Watched::new(detached.adopt().unwrap()).run_forever());
    let told = Arc::clone(&done);
    lp.call_soon(move |lp| bounce(lp, other, 1001, told)).unwrap();
    assert_eq!(lp.run_forever(), Ok(Outcome::Stopped));
    assert_eq!(worker.join().unwrap(), Ok(Outcome::Stopped));
    assert!(done.load(SeqCst));
}

#[test]
fn s26_a_post_wakes_a_loop_inside_another_loop() {
    let lp = real_loop();
    let fd = lp.fd().unwrap();
    let ran = Rc::new(Cell::new(false));
    lp.call_soon({
        let ran = Rc::clone(&ran);
        move |_| ran.set(true)
    })
    .unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    assert!(ran.get());
    let remote = lp.remote();
    let poster = thread::spawn(move || {
        give_it_time();
        remote.call_soon(|_| {}).unwrap();
    });
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one live pollfd, and the count is 1.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 30_000) }, 1);
    assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
    poster.join().unwrap();
}

#[test]
fn s11_a_handler_is_not_told_of_a_signal_that_came_before_it() {
    let lp = real_loop();
    let signal = libc::SIGRTMIN() + 8;
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    lp.add_signal_handler(signal, move |_| count.set(count.get() + 1)).unwrap();
    // SAFETY: the loop handles the signal.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
    lp.add_signal_handler(signal, |_| panic!("the handler is newer than the signal")).unwrap();
    assert_eq!((lp.run_once(Duration::ZERO), calls.get()), (Ok(1), 1));
}

#[test]
fn s11_a_signal_that_nobody_handles_any_more_is_forgotten() {
    let lp = real_loop();
    let signal = libc::SIGRTMIN() + 7;
    let former = lp.add_signal_handler(signal, |_| panic!("a cancelled handler has run")).unwrap();
    // SAFETY: the loop handles the signal.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
    lp.cancel(former).unwrap();
    lp.add_signal_handler(signal, |_| panic!("the handler is newer than the signal")).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
}

#[test]
fn s21_a_signal_handler_runs_instead_of_eintr() {
    let lp = real_loop();
    let signal = libc::SIGRTMIN() + 9;
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    let handle = lp.add_signal_handler(signal, move |_| count.set(count.get() + 1)).unwrap();
    // SAFETY: `pthread_self` has no preconditions.
    let this_thread = unsafe { libc::pthread_self() };
    let sender = thread::spawn(move || {
        give_it_time();
        // SAFETY: the loop handles the signal, and the loop's thread waits for this one.
        unsafe { libc::pthread_kill(this_thread, signal) }
    });
    assert_eq!(lp.run_once(NEVER), Ok(1));
    assert_eq!(sender.join().unwrap(), 0);
    assert_eq!((calls.get(), lp.is_alive(), lp.has_ref(handle)), (1, false, false));
    assert_eq!(lp.ref_(handle).unwrap_err().raw_os_error(), libc::EINVAL);
    lp.cancel(handle).unwrap();
    assert_eq!(Rc::strong_count(&calls), 1);
    assert_eq!(
        lp.add_signal_handler(libc::SIGKILL, |_| {}).unwrap_err().raw_os_error(),
        libc::EINVAL
    );
}

#[test]
fn s08_a_delayed_post_and_a_timer_for_the_same_time_run_in_the_order_of_the_calls() {
    let lp = virtual_loop();
    let (sender, seen) = mpsc::channel();
    let delay = Duration::from_secs(1);
    for turn in 0..3 {
        let (posted, own, every) = (sender.clone(), sender.clone(), sender.clone());
        lp.remote().call_later(delay, move |_| posted.send(3 * turn).unwrap()).unwrap();
        lp.call_later(delay, move |_| own.send(3 * turn + 1).unwrap()).unwrap();
        let posted = sender.clone();
        lp.remote().call_later(delay, move |_| posted.send(3 * turn + 2).unwrap()).unwrap();
        lp.call_every(delay, move |lp| every.send(lp.stop().map_or(0, |()| 100)).unwrap()).unwrap();
    }
    lp.run().unwrap();
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0, 1, 2, 100, 3, 4, 5, 100, 6, 7, 8, 100]);
}

#[test]
fn s27_a_wakeup_is_latched_in_a_loop_with_a_host_too() {
    let lp = real_loop();
    lp.fd().unwrap();
    lp.call_soon(|lp| lp.remote().wakeup().unwrap()).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
    assert_eq!(lp.run_once(NEVER), Ok(0));
}
