//! Queues between tasks.

use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringloop::task::{self, Queue};
use ringloop::{Outcome, Result};

use crate::trace::{Trace, ns, panic, virtual_loop};

#[test]
fn s47_values_are_popped_in_order_each_by_one_task() {
    let lp = virtual_loop();
    let trace: Trace<(u32, u32)> = Trace::new();
    let queue = Queue::new();
    let tasks: Vec<_> = (0..3)
        .map(|task| {
            let (queue, trace) = (queue.clone(), trace.clone());
            let take_all = async move {
                while let Some(value) = queue.pop().await {
                    trace.add((task, value));
                    task::sleep(ns(10)).await.unwrap();
                }
            };
            lp.spawn(take_all).unwrap()
        })
        .collect();
    lp.call_later(ns(5), {
        let queue = queue.clone();
        move |_| (0..7).for_each(|value| queue.push(value).unwrap())
    })
    .unwrap();
    lp.call_later(ns(100), {
        let queue = queue.clone();
        move |_| queue.close()
    })
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), [(0, 0), (1, 1), (2, 2), (0, 3), (1, 4), (2, 5), (0, 6)]);
    assert!(tasks.iter().all(|task| task.is_finished()));
    assert_eq!((queue.push(8), queue.try_pop(), queue.is_empty()), (Err(8), None, true));
}

#[test]
fn s47_what_is_there_when_a_queue_closes_is_popped_still() {
    let lp = virtual_loop();
    let queue = Queue::new();
    queue.push("first").unwrap();
    queue.push("second").unwrap();
    queue.close();
    let popped =
        lp.run_until_complete(async { [queue.pop().await, queue.pop().await, queue.pop().await] });
    assert_eq!(popped.unwrap(), [Some("first"), Some("second"), None]);
}

#[test]
fn s47_a_pop_that_is_dropped_takes_no_value_and_no_wake_with_it() {
    let lp = virtual_loop();
    let queue = Queue::new();
    let popped = lp.run_until_complete(async {
        let waiting = |queue: Queue<u32>| task::spawn(async move { queue.pop().await });
        let first = waiting(queue.clone())?;
        let second = waiting(queue.clone())?;
        let third = waiting(queue.clone())?;
        task::sleep(ns(1)).await?;
        // The second pop waits; the first one is woken and has not been polled since.
        second.abort();
        queue.push(1).unwrap();
        first.abort();
        Result::Ok(third.await.unwrap())
    });
    assert_eq!(popped.unwrap().unwrap(), Some(1));
}

#[test]
fn s47_a_pop_that_is_polled_again_keeps_its_place() {
    let lp = virtual_loop();
    let queue: Rc<Queue<u32>> = Rc::default();
    let order = lp.run_until_complete(async {
        let trace = Trace::new();
        let names = ["first", "second"];
        let tasks: Vec<_> = names
            .iter()
            .map(|&name| {
                let (queue, trace) = (Rc::clone(&queue), trace.clone());
                task::spawn(async move {
                    let mut pop = std::pin::pin!(queue.pop());
                    std::future::poll_fn(|context| {
                        // A poll with another waker comes first; the pop keeps its place.
                        match pop.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                            Poll::Ready(_) => Poll::Ready(()),
                            Poll::Pending => pop.as_mut().poll(context).map(drop),
                        }
                    })
                    .await;
                    trace.add(name);
                })
            })
            .collect::<Result<_>>()?;
        task::sleep(ns(1)).await?;
        for task in tasks {
            queue.push(0).unwrap();
            task.await.unwrap();
        }
        Result::Ok(trace.take())
    });
    assert_eq!(order.unwrap().unwrap(), ["first", "second"]);
}

#[test]
fn s47_pops_that_are_dropped_cost_no_search() {
    // 100,000 pops wait, and the newest is dropped first: a search from the front would take 5
    // billion steps.
    let lp = virtual_loop();
    let queue: Queue<u32> = Queue::new();
    let pop_in_the_middle = lp.run_until_complete(async {
        let group: task::TaskGroup<Option<u32>, ()> = task::TaskGroup::new();
        let begin = std::time::Instant::now();
        for _ in 0..100_000 {
            let queue = queue.clone();
            group.spawn(async move { Ok(queue.pop().await) })?;
        }
        task::sleep(ns(1)).await?;
        let (spawned, begin) = (begin.elapsed(), std::time::Instant::now());
        drop(group);
        let dropped = begin.elapsed();
        assert!(dropped < 20 * spawned, "{dropped:?} to drop what took {spawned:?} to spawn");
        // The queue finds each waiting pop, in whichever order they are dropped.
        let popping: Vec<_> = (0..5)
            .map(|_| {
                let queue = queue.clone();
                task::spawn(async move { queue.pop().await })
            })
            .collect::<Result<_>>()?;
        task::sleep(ns(1)).await?;
        [2, 0, 3].into_iter().for_each(|place| popping[place].abort());
        (0..2).for_each(|value| queue.push(value).unwrap());
        let mut popped = Vec::new();
        for pop in popping {
            popped.push(pop.await.ok().flatten());
        }
        Result::Ok(popped)
    });
    assert_eq!(pop_in_the_middle.unwrap().unwrap(), [None, Some(0), None, None, Some(1)]);
}

#[test]
fn s47_who_was_woken_for_a_value_that_another_took_keeps_its_place() {
    let lp = virtual_loop();
    let queue: Queue<u32> = Queue::new();
    let order = lp.run_until_complete(async {
        let trace = Trace::new();
        let tasks: Vec<_> = ["first", "second"]
            .into_iter()
            .map(|name| {
                let (queue, trace) = (queue.clone(), trace.clone());
                task::spawn(async move { trace.add((name, queue.pop().await)) })
            })
            .collect::<Result<_>>()?;
        task::sleep(ns(1)).await?;
        queue.push(0).unwrap();
        assert_eq!(queue.try_pop(), Some(0));
        task::sleep(ns(1)).await?;
        for (task, value) in tasks.into_iter().zip(1..) {
            queue.push(value).unwrap();
            task.await.unwrap();
        }
        Result::Ok(trace.take())
    });
    assert_eq!(order.unwrap().unwrap(), [("first", Some(1)), ("second", Some(2))]);
}

#[test]
fn s47_who_was_woken_for_a_value_that_another_took_waits_longest_still() {
    let lp = virtual_loop();
    let queue = Queue::new();
    let popped = lp.run_until_complete(async {
        let trace = Trace::new();
        for name in ["first", "second", "third"] {
            let (queue, trace) = (queue.clone(), trace.clone());
            task::spawn(async move {
                queue.pop().await;
                trace.add(name);
            })?
            .detach();
        }
        task::sleep(ns(1)).await?;
        for _ in 0..2 {
            queue.push(0).unwrap();
        }
        assert_eq!((queue.try_pop(), queue.try_pop()), (Some(0), Some(0)));
        task::sleep(ns(1)).await?;
        for _ in 0..3 {
            queue.push(1).unwrap();
            task::sleep(ns(1)).await?;
        }
        Result::Ok(trace.take())
    });
    assert_eq!(popped.unwrap().unwrap(), ["first", "second", "third"]);
}

#[test]
fn s47_a_waker_that_panics_keeps_no_other_from_being_woken_when_a_queue_closes() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: std::sync::Arc<Self>) {
            panic("in wake");
        }
    }
    let lp = virtual_loop();
    let queue = Queue::<u32>::new();
    let popped = lp.run_until_complete(task::timeout(ns(100), async {
        let mut first = std::pin::pin!(queue.pop());
        let waker = std::sync::Arc::new(Panics).into();
        assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let inner = queue.clone();
        let second = task::spawn(async move { inner.pop().await }).unwrap();
        task::sleep(ns(1)).await.unwrap();
        let closed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.close()));
        assert!(closed.is_err());
        second.await.unwrap()
    }));
    assert_eq!(popped, Ok(Ok(None)));
}
