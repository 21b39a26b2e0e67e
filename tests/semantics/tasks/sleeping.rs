//! Sleeping in tasks: S2, S3, S6, S8, S11, S16, S36.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use libc::ETIMEDOUT;
use ringloop::task::{self, Sleep, interval, sleep, sleep_until, timeout};
use ringloop::{Loop, Outcome, Time};

use super::{Gate, both_ways, hold, turn};
use crate::trace::{HOUR, START, Trace, at, errno, monotonic, ms, ns, real_loop, virtual_loop};

fn now() -> Time {
    Loop::with_running(|lp| lp.expect("a loop is running").time())
}

/// The number of entries that wait for a time: timers, and tasks that sleep.
fn timers(lp: &Loop) -> usize {
    let mut count = 0;
    lp.walk(|_, info| count += usize::from(info.when() != Time::NEVER)).unwrap();
    count
}

#[test]
fn s36_a_sleep_is_exact_in_virtual_time() {
    for lp in both_ways() {
        let times = lp.run_until_complete(async {
            let mut times = vec![now()];
            for delay in [ns(1), ns(0), HOUR, ns(999)] {
                sleep(delay).await.unwrap();
                times.push(now());
            }
            sleep_until(times[1]).await.unwrap();
            times.push(now());
            sleep_until(now() + ns(7)).await.unwrap();
            times.push(now());
            times
        });
        let end = START + HOUR + ns(1000);
        assert_eq!(
            times,
            Ok(vec![START, at(1), at(1), START + HOUR + ns(1), end, end, end + ns(7)])
        );
    }
}

#[test]
fn s02_a_sleep_never_ends_early() {
    let lp = real_loop();
    lp.run_until_complete(async {
        for delay in [0, 1, 50_000, 300_000, 1_100_000] {
            let begin = monotonic();
            sleep(ns(delay)).await.unwrap();
            assert!(monotonic() >= begin + ns(delay));
        }
    })
    .unwrap();
}

#[test]
fn s08_sleeps_and_timers_of_one_deadline_end_in_the_order_in_which_they_began() {
    for lp in both_ways() {
        let trace = Trace::new();
        for number in 0..10 {
            let trace = trace.clone();
            if number % 3 == 0 {
                drop(lp.spawn(async move {
                    Loop::with_running(|lp| {
                        lp.unwrap().call_later(ns(5), trace.note(number)).map(drop)
                    })
                    .unwrap();
                }));
            } else {
                drop(lp.spawn(async move {
                    sleep(ns(5)).await.unwrap();
                    trace.add(number);
                }));
            }
        }
        assert_eq!((lp.run(), lp.time()), (Ok(Outcome::Done), at(5)));
        assert_eq!(trace.take(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}

#[test]
fn s43_a_delay_begins_with_the_first_poll() {
    let lp = virtual_loop();
    let slept = lp.run_until_complete(async {
        let late = sleep(ns(10));
        sleep(ns(100)).await.unwrap();
        late.await.unwrap();
        now()
    });
    assert_eq!(slept, Ok(at(110)));
}

#[test]
fn s43_a_sleep_that_was_ready_is_ready_at_once() {
    let lp = virtual_loop();
    lp.run_until_complete(async {
        let mut slept = sleep(ns(10));
        (&mut slept).await.unwrap();
        (&mut slept).await.unwrap();
        assert_eq!(now(), at(10));
    })
    .unwrap();
}

#[test]
fn s11_a_sleep_that_is_dropped_is_cancelled_at_once_inside_of_a_run() {
    for lp in both_ways() {
        lp.run_until_complete(async {
            let mut slept = Box::pin(sleep(HOUR));
            assert!(
                poll_fn(|context| Poll::Ready(slept.as_mut().poll(context))).await.is_pending()
            );
            Loop::with_running(|lp| assert_eq!(timers(lp.unwrap()), 1));
            drop(slept);
            Loop::with_running(|lp| assert_eq!(timers(lp.unwrap()), 0));
        })
        .unwrap();
        // The sleep also ends with its task.
        let join = lp.spawn(sleep(HOUR)).unwrap();
        turn(&lp);
        lp.call_soon(move |lp| {
            join.abort();
            assert_eq!(timers(lp), 0);
        })
        .unwrap();
        assert_eq!((lp.run(), lp.time()), (Ok(Outcome::Done), START));
    }
}

#[test]
fn s11_a_run_does_not_wait_for_a_sleep_that_was_dropped_outside_of_one() {
    for lp in both_ways() {
        let join = lp.spawn(sleep(HOUR)).unwrap();
        turn(&lp);
        lp.cancel(join.handle()).unwrap();
        assert_eq!((lp.run(), lp.time()), (Ok(Outcome::Done), START));
        // The sleep is dropped inside a run of another loop.
        let place = Rc::new(RefCell::new(None));
        let inner = Rc::clone(&place);
        let join = lp.spawn(poll_fn(move |context| {
            let mut slept = Box::pin(sleep(HOUR));
            assert!(slept.as_mut().poll(context).is_pending());
            *inner.borrow_mut() = Some(slept);
            Poll::Ready(())
        }));
        turn(&lp);
        assert!(join.unwrap().is_finished());
        let other = virtual_loop();
        other.run_until_complete(async { drop(place.borrow_mut().take()) }).unwrap();
        assert_eq!((lp.run(), lp.time()), (Ok(Outcome::Done), START));
    }
}

#[test]
fn s43_a_sleep_wakes_the_task_that_polled_it_last() {
    for lp in both_ways() {
        let slept = Rc::new(RefCell::new(sleep(ns(20))));
        let polls = Rc::new(RefCell::new([0, 0]));
        for number in 0..2 {
            let (slept, polls) = (Rc::clone(&slept), Rc::clone(&polls));
            drop(lp.spawn(async move {
                sleep(ns(number as u64 * 5)).await.unwrap();
                poll_fn(|context| {
                    polls.borrow_mut()[number] += 1;
                    Pin::new(&mut *slept.borrow_mut()).poll(context)
                })
                .await
                .unwrap();
                assert_eq!(now(), at(20), "the delay is counted from the first poll");
            }));
        }
        lp.unref({
            let mut first = None;
            lp.walk(|_, info| first = first.or(Some(info.handle()))).unwrap();
            first.unwrap()
        })
        .unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!((*polls.borrow(), lp.time(), timers(&lp)), ([1, 2], at(20), 0));
    }
}

#[test]
fn s43_a_sleep_is_polled_on_another_loop_than_before() {
    let (first, second) = (virtual_loop(), virtual_loop());
    let slept = Rc::new(RefCell::new(sleep(ns(20))));
    let poll = |slept: &Rc<RefCell<Sleep>>| {
        let slept = Rc::clone(slept);
        poll_fn(move |context| Pin::new(&mut *slept.borrow_mut()).poll(context))
    };
    let join = first.spawn(poll(&slept)).unwrap();
    turn(&first);
    assert_eq!(timers(&first), 1);
    assert_eq!(second.run_until_complete(poll(&slept)), Ok(Ok(())));
    assert_eq!(second.time(), at(20));
    // The task that polled the sleep first is woken at the sleep's deadline.
    assert!(!join.is_finished());
    assert_eq!((first.run(), first.time(), timers(&first)), (Ok(Outcome::Done), at(20), 0));
    assert!(join.is_finished());
}

#[test]
fn s28_a_sleep_outside_of_a_run_says_that_there_is_no_loop() {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = Pin::new(&mut sleep(ns(1))).poll(&mut context);
    assert!(matches!(polled, Poll::Ready(Err(error)) if error.raw_os_error() == libc::EINVAL));
}

#[test]
fn s11_a_task_that_has_aborted_itself_waits_for_no_time_and_for_no_error() {
    for lp in both_ways() {
        let trace = Trace::new();
        let dropped = trace.on_drop("dropped");
        drop(lp.spawn(async move {
            let _dropped = dropped;
            Loop::with_running(|lp| lp.unwrap().cancel(lp.unwrap().current_handle().unwrap()))
                .unwrap();
            sleep(HOUR).await.unwrap();
        }));
        assert_eq!(
            (lp.run(), lp.time(), trace.take()),
            (Ok(Outcome::Done), START, vec!["dropped"])
        );
    }
}

#[test]
fn s04_a_sleep_until_never_stays_pending() {
    let lp = virtual_loop();
    let join = lp.spawn(sleep_until(Time::NEVER)).unwrap();
    let long = lp.spawn(sleep(std::time::Duration::MAX)).unwrap();
    lp.call_later(HOUR, |lp| lp.stop().unwrap()).unwrap();
    assert_eq!((lp.run(), lp.time()), (Ok(Outcome::Stopped), START + HOUR));
    assert!(!join.is_finished() && !long.is_finished() && lp.is_alive());
}

#[test]
fn s16_an_interval_keeps_its_phase_and_counts_what_is_skipped() {
    for lp in both_ways() {
        lp.run_until_complete(async {
            let mut ticks = interval(ns(10)).unwrap();
            assert_eq!((ticks.tick().await, now()), (Ok(at(10)), at(10)));
            // The work between the ticks takes less than a period, a period, and more.
            sleep(ns(7)).await.unwrap();
            assert_eq!((ticks.tick().await, now()), (Ok(at(20)), at(20)));
            sleep(ns(10)).await.unwrap();
            assert_eq!((ticks.tick().await, now(), ticks.skipped()), (Ok(at(30)), at(30), 0));
            sleep(ns(35)).await.unwrap();
            // The tick at 40 is due, those at 50 and 60 are skipped.
            assert_eq!((ticks.tick().await, now(), ticks.skipped()), (Ok(at(40)), at(65), 2));
            assert_eq!((ticks.tick().await, now(), ticks.skipped()), (Ok(at(70)), at(70), 2));
        })
        .unwrap();
        assert_eq!(timers(&lp), 0);
    }
}

#[test]
fn s16_a_tick_that_is_dropped_is_not_lost() {
    let lp = virtual_loop();
    lp.run_until_complete(async {
        let mut ticks = interval(ns(10)).unwrap();
        assert_eq!(errno(timeout(ns(4), ticks.tick()).await), ETIMEDOUT);
        assert_eq!((ticks.tick().await, now()), (Ok(at(10)), at(10)));
        assert_eq!(errno(timeout(ns(4), ticks.tick()).await), ETIMEDOUT);
        sleep(ns(20)).await.unwrap();
        assert_eq!((ticks.tick().await, now(), ticks.skipped()), (Ok(at(20)), at(34), 1));
        assert_eq!(interval(ns(0)).unwrap_err().raw_os_error(), libc::EINVAL);
    })
    .unwrap();
}

#[test]
fn s43_a_timeout_drops_the_future_before_it_resolves() {
    for lp in both_ways() {
        let trace = Trace::new();
        let inner = trace.clone();
        let result = lp.run_until_complete(async move {
            let result = timeout(ns(10), hold(inner.clone(), "dropped")).await;
            inner.add("resolved");
            (result, now())
        });
        let (result, when) = result.unwrap();
        assert_eq!((errno(result), when), (ETIMEDOUT, at(10)));
        assert_eq!((trace.take(), timers(&lp)), (vec!["dropped", "resolved"], 0));
    }
}

#[test]
fn s43_a_future_that_is_ready_in_time_wins_over_its_limit() {
    for lp in both_ways() {
        let results = lp.run_until_complete(async {
            let mut results = Vec::new();
            // Ready before the limit; at the limit, by timers begun before and after that of the
            // limit; at once, with a limit of zero.
            results.push(timeout(ns(10), async { sleep(ns(9)).await.is_ok() }).await);
            results.push(timeout(ns(10), async { sleep(ns(10)).await.is_ok() }).await);
            let (gate, opens) = (Gate::default(), now() + ns(10));
            let late = gate.clone();
            let results_at_limit = timeout(ns(10), async {
                Loop::with_running(|lp| lp.unwrap().call_at(opens, move |_| late.open()).map(drop))
                    .unwrap();
                gate.await;
                true
            });
            results.push(results_at_limit.await);
            results.push(timeout(ns(0), async { true }).await);
            let none_left = Loop::with_running(|lp| timers(lp.unwrap()));
            assert_eq!(none_left, 0);
            results
        });
        assert_eq!(results, Ok(vec![Ok(true); 4]));
    }
}

#[test]
fn s43_a_timeout_inside_of_a_timeout() {
    let lp = virtual_loop();
    let results = lp.run_until_complete(async {
        let outer = timeout(ns(5), timeout(ns(10), pending::<()>()))
            .await
            .map_err(|error| error.raw_os_error());
        let inner = timeout(ns(10), timeout(ns(5), pending::<()>())).await.unwrap();
        (outer.is_err(), inner.is_err(), now())
    });
    assert_eq!(results, Ok((true, true, at(10))));
}

#[test]
fn s07_tasks_that_sleep_for_no_time_starve_nobody() {
    let lp = real_loop();
    drop(lp.spawn(async {
        loop {
            sleep(ns(0)).await.unwrap();
        }
    }));
    lp.call_later(ms(2), |lp| lp.stop().unwrap()).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Stopped));
}

#[test]
fn s43_many_sleep_at_once_and_wake_in_order() {
    let lp = virtual_loop();
    let trace = Trace::new();
    for number in 0..1000_u64 {
        let trace = trace.clone();
        drop(lp.spawn(async move {
            sleep(ns(number * 7919 % 1000)).await.unwrap();
            trace.add(now());
        }));
    }
    drop(lp.spawn(async { task::yield_now().await }));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), (0..1000).map(at).collect::<Vec<_>>());
}

/// Polls two sleeps of one task until both are over, in alternating order; other wakes come in
/// between.
fn both_over(lp: &Loop, delays: [u64; 2], wakes: &[u64], first: usize) -> [Time; 2] {
    let mut sleeps = delays.map(|delay| Some(Box::pin(sleep(ns(delay)))));
    let (mut times, mut turn) = ([Time::NEVER; 2], first);
    let wakes = wakes.to_vec();
    let ended = lp.run_until_complete(async {
        let mut has_begun = false;
        poll_fn(|context| {
            if !std::mem::replace(&mut has_begun, true) {
                for &delay in &wakes {
                    let waker = context.waker().clone();
                    let wake = move |_: &Loop| waker.wake();
                    Loop::with_running(|lp| lp.unwrap().call_later(ns(delay), wake)).unwrap();
                }
            }
            turn += 1;
            for number in [turn % 2, (turn + 1) % 2] {
                let polled = sleeps[number].as_mut().map(|sleep| sleep.as_mut().poll(context));
                if let Some(Poll::Ready(slept)) = polled {
                    slept.unwrap();
                    times[number] = now();
                    sleeps[number] = None;
                }
            }
            if sleeps.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    });
    ended.unwrap();
    times
}

#[test]
fn s43_two_sleeps_of_one_task_end_each_at_its_time_whatever_wakes_it_and_in_whatever_order_they_are_polled()
 {
    for delays in [[10, 20], [20, 10], [10, 10], [0, 10]] {
        for wakes in [&[][..], &[5], &[5, 6, 7], &[10, 15], &[3, 12, 20]] {
            for first in 0..2 {
                let lp = virtual_loop();
                let times = both_over(&lp, delays, wakes, first);
                assert_eq!(times, delays.map(at), "{delays:?}, woken at {wakes:?}, {first} first");
                assert_eq!((lp.run(), timers(&lp)), (Ok(Outcome::Done), 0));
            }
        }
    }
}

#[test]
fn s43_a_sleep_that_began_later_neither_holds_up_an_earlier_one_nor_ends_with_it() {
    for drops_first in [false, true] {
        let lp = virtual_loop();
        let times = lp.run_until_complete(async {
            let mut first = Box::pin(sleep(ns(10)));
            let mut second: Option<Pin<Box<Sleep>>> = None;
            let mut has_begun = false;
            poll_fn(|context| {
                if !std::mem::replace(&mut has_begun, true) {
                    let waker = context.waker().clone();
                    let wake = move |_: &Loop| waker.wake();
                    Loop::current().unwrap().call_later(ns(5), wake).unwrap();
                    return first.as_mut().poll(context).map(|slept| slept.unwrap());
                }
                // The task is woken in the first sleep; the second takes its place in the queue.
                let second = second.get_or_insert_with(|| Box::pin(sleep(ns(15))));
                let second = second.as_mut().poll(context);
                if drops_first {
                    first = Box::pin(sleep(HOUR));
                    return second.map(|slept| slept.unwrap());
                }
                first.as_mut().poll(context).map(|slept| slept.unwrap())
            })
            .await;
            now()
        });
        assert_eq!(times, Ok(at(if drops_first { 20 } else { 10 })));
        assert_eq!((lp.run(), timers(&lp)), (Ok(Outcome::Done), 0));
    }
}

#[test]
fn s26_what_was_posted_before_a_sleep_began_is_due_before_it() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.run_until_complete(async move {
        let (remote, posted) = (
            Loop::current().unwrap().remote(),
            std::sync::Arc::new(std::sync::Mutex::new(Vec::new())),
        );
        let post = std::sync::Arc::clone(&posted);
        remote
            .call_later(ns(5), move |_| post.lock().unwrap().push("post"))
            .map_err(|refused| refused.error)
            .unwrap();
        sleep(ns(5)).await.unwrap();
        posted.lock().unwrap().iter().for_each(|&what| inner.add(what));
        inner.add("sleep");
    })
    .unwrap();
    assert_eq!(trace.take(), ["post", "sleep"]);
}

#[test]
fn s19_a_sleep_counts_for_a_run_as_its_task_does() {
    for lp in both_ways() {
        let background = lp.spawn(async { timeout(HOUR, sleep(HOUR)).await }).unwrap();
        lp.unref(background.handle()).unwrap();
        lp.call_later(ns(10), |_| {}).unwrap();
        assert_eq!((lp.run(), lp.time()), (Ok(Outcome::Done), at(10)));
        assert!(!background.is_finished());
    }
}

#[test]
fn s43_a_sleep_wakes_its_task_though_that_was_polled_for_something_else_meanwhile() {
    let lp = virtual_loop();
    let polls = lp.run_until_complete(async {
        let mut slept = Box::pin(sleep(ns(10)));
        let mut polls = Vec::new();
        poll_fn(|context| {
            polls.push(now());
            match polls.len() {
                1 => {
                    let waker = context.waker().clone();
                    let wake = move |_: &Loop| waker.wake();
                    Loop::current().unwrap().call_later(ns(5), wake).unwrap();
                    slept.as_mut().poll(context).map(|slept| slept.unwrap())
                }
                // The sleep has been polled once, and needs no second poll.
                2 => Poll::Pending,
                _ => slept.as_mut().poll(context).map(|slept| slept.unwrap()),
            }
        })
        .await;
        polls
    });
    assert_eq!(polls, Ok(vec![START, at(5), at(10)]));
}

#[test]
fn s06_a_task_that_is_woken_and_drops_its_sleep_keeps_its_place() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    lp.run_until_complete(async move {
        let mut slept = Some(Box::pin(sleep(HOUR)));
        let mut has_begun = false;
        poll_fn(|context| {
            if std::mem::replace(&mut has_begun, true) {
                inner.add("task");
                return Poll::Ready(());
            }
            assert!(slept.as_mut().unwrap().as_mut().poll(context).is_pending());
            context.waker().wake_by_ref();
            Loop::current().unwrap().call_soon(inner.note("call")).unwrap();
            drop(slept.take());
            assert_eq!(Loop::current().unwrap().with(timers), Ok(0));
            Poll::Pending
        })
        .await;
    })
    .unwrap();
    assert_eq!(
        (trace.take(), lp.run(), lp.time()),
        (vec!["task", "call"], Ok(Outcome::Done), START)
    );
}

#[test]
fn s43_a_sleep_that_is_over_does_not_wait_for_one_that_begins_before_it_is_polled() {
    let lp = virtual_loop();
    let end = lp.run_until_complete(async {
        let (mut first, mut second) = (Box::pin(sleep(ns(10))), None);
        poll_fn(|context| {
            if now() > START {
                let second = second.get_or_insert_with(|| Box::pin(sleep(ns(10))));
                assert!(second.as_mut().poll(context).is_pending());
            }
            first.as_mut().poll(context).map(|slept| slept.unwrap())
        })
        .await;
        now()
    });
    assert_eq!(end, Ok(at(10)));
}

/// The clones of these wakers have other addresses than the wakers. The second waker has the
/// address of the first.
#[test]
fn s43_a_waker_at_the_address_of_one_that_is_gone_is_told_from_it() {
    use std::cell::Cell;
    use std::task::{Context, RawWaker, RawWakerVTable, Waker};

    unsafe fn clone(data: *const ()) -> RawWaker {
        // SAFETY: the word lives as long as the test.
        let name = unsafe { &*data.cast::<Cell<usize>>() }.get();
        RawWaker::new(std::ptr::without_provenance(name), &CLONED)
    }
    fn wake(data: *const ()) {
        WOKEN.set(data.addr());
    }
    thread_local!(static WOKEN: Cell<usize> = const { Cell::new(0) });
    static CLONED: RawWakerVTable =
        RawWakerVTable::new(|data| RawWaker::new(data, &CLONED), wake_raw, wake_raw, |_| {});
    unsafe fn wake_raw(data: *const ()) {
        wake(data);
    }
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| {}, |_| {}, |_| {});

    let lp = virtual_loop();
    let name = Cell::new(0_usize);
    lp.run_until_complete(async {
        let mut slept = std::pin::pin!(sleep(ns(10)));
        for number in [1, 2] {
            name.set(number);
            // SAFETY: the word outlives the waker, which stays on this thread.
            let waker = unsafe { Waker::new(std::ptr::from_ref(&name).cast(), &VTABLE) };
            assert!(slept.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        sleep(ns(20)).await.unwrap();
    })
    .unwrap();
    assert_eq!(WOKEN.get(), 2);
}
