//! Groups of tasks, and a shutdown that waits for tasks.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;

use libc::ECANCELED;
use ringloop::task::{self, GroupError, JoinError, TaskGroup};
use ringloop::{Loop, Result};

use crate::trace::{HOUR, Trace, at, errno, ms, ns, panic, virtual_loop};

/// Notes its name when it is dropped.
struct Noted(Trace, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}

type Group = TaskGroup<u32, &'static str>;

#[test]
fn s46_a_group_gives_what_its_tasks_gave_in_the_order_in_which_they_were_started() {
    let lp = virtual_loop();
    let outputs = lp.run_until_complete(async {
        let group = Group::new();
        for number in [3, 1, 2] {
            group.spawn(async move {
                task::sleep(ns(number.into())).await.unwrap();
                Ok(number)
            })?;
        }
        assert_eq!((group.len(), group.is_empty()), (3, false));
        Result::Ok(group.join().await)
    });
    assert_eq!(outputs.unwrap().unwrap().unwrap(), [3, 1, 2]);
    assert_eq!(lp.time(), at(3));
    assert!(lp.run_until_complete(Group::new().join()).unwrap().unwrap().is_empty());
}

#[test]
fn s46_the_first_failure_ends_the_others_the_newest_first_before_anything_else_runs() {
    let failures: [fn() -> std::result::Result<u32, &'static str>; 2] =
        [|| Err("failed"), || panic("panicked")];
    for failure in failures {
        let lp = virtual_loop();
        let trace = Trace::new();
        let result = lp.run_until_complete(async {
            let group = Group::new();
            for name in ["first", "second"] {
                let noted = Noted(trace.clone(), name);
                group.spawn(async move {
                    let _noted = noted;
                    pending().await
                })?;
            }
            let inner = trace.clone();
            group.spawn(async move {
                let _noted = Noted(inner, "the one that fails");
                task::sleep(ns(5)).await.unwrap();
                failure()
            })?;
            let (noted, callback) = (Noted(trace.clone(), "last"), trace.note("callback"));
            group.spawn(async move {
                let _noted = noted;
                // The call is due at the same time as the failure, and becomes ready after it.
                Loop::with_running(|lp| lp.unwrap().call_at(at(5), callback)).unwrap();
                pending().await
            })?;
            let spawner = group.spawner();
            let joined = group.join().await;
            assert_eq!(errno(spawner.spawn(async { Ok(1) })), ECANCELED);
            Result::Ok(joined)
        });
        match result.unwrap().unwrap().unwrap_err() {
            GroupError::Failed(error) => assert_eq!(error, "failed"),
            GroupError::Ended(error) => assert!(error.is_panic(), "{error}"),
        }
        assert_eq!(trace.take(), ["the one that fails", "last", "second", "first", "callback"]);
        assert_eq!(lp.run(), Ok(ringloop::Outcome::Done));
    }
}

#[test]
fn s46_the_first_failure_is_the_one_that_is_told() {
    let lp = virtual_loop();
    let result = lp.run_until_complete(async {
        let group = Group::new();
        group.spawn(async {
            task::sleep(ns(2)).await.unwrap();
            Err("later")
        })?;
        group.spawn(async {
            task::sleep(ns(1)).await.unwrap();
            Err("first")
        })?;
        Result::Ok(group.join().await)
    });
    assert!(matches!(result.unwrap().unwrap(), Err(GroupError::Failed("first"))));
    assert_eq!(lp.time(), at(1));
}

#[test]
fn s46_a_task_of_a_group_that_is_aborted_ends_the_group() {
    let lp = virtual_loop();
    let result = lp.run_until_complete(async {
        let group = Group::new();
        let handle = Rc::new(Cell::new(None));
        let inner = Rc::clone(&handle);
        group.spawn(async move {
            inner.set(Loop::with_running(|lp| lp.unwrap().current_handle()));
            pending().await
        })?;
        group.spawn(pending())?;
        task::yield_now().await;
        Loop::with_running(|lp| lp.unwrap().cancel(handle.get().unwrap()))?;
        Result::Ok(group.join().await)
    });
    match result.unwrap().unwrap().unwrap_err() {
        GroupError::Ended(error) => assert!(error.is_cancelled()),
        other => panic!("{other}"),
    }
}

#[test]
fn s46_a_task_that_is_aborted_takes_the_tasks_of_its_groups_with_it_in_the_order_of_destructors() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.run_until_complete(async {
        let inner = trace.clone();
        let parent = task::spawn(async move {
            let _before = Noted(inner.clone(), "declared before the group");
            let group = Group::new();
            let _after = Noted(inner.clone(), "declared after the group");
            for name in ["first child", "second child"] {
                let noted = Noted(inner.clone(), name);
                group.spawn(async move {
                    let _noted = noted;
                    pending().await
                })?;
            }
            task::yield_now().await;
            drop(group.join().await);
            Result::Ok(())
        })?;
        task::sleep(ns(1)).await?;
        parent.abort();
        // The join future owns the group, and was created last.
        let expected = [
            "second child",
            "first child",
            "declared after the group",
            "declared before the group",
        ];
        assert_eq!(trace.take(), expected);
        assert!(parent.await.is_err_and(|error: JoinError| error.is_cancelled()));
        Result::Ok(())
    })
    .unwrap()
    .unwrap();
}

#[test]
fn s46_a_group_that_is_dropped_ends_its_tasks() {
    let lp = virtual_loop();
    let trace = Trace::new();
    lp.run_until_complete(async {
        let group = Group::new();
        let noted = Noted(trace.clone(), "child");
        group.spawn(async move {
            let _noted = noted;
            pending().await
        })?;
        // The task has not been polled yet.
        drop(group);
        assert_eq!(trace.take(), ["child"]);
        Result::Ok(())
    })
    .unwrap()
    .unwrap();
    assert_eq!(lp.run(), Ok(ringloop::Outcome::Done));
}

#[test]
fn s46_tasks_add_tasks_to_their_group_and_to_none_that_is_gone() {
    let lp = virtual_loop();
    let outputs = lp.run_until_complete(async {
        let group = Group::new();
        let spawner = group.spawner();
        group.spawn(async move {
            let again = spawner.clone();
            spawner
                .spawn(async move {
                    again.spawn(async { Ok(3) }).unwrap();
                    Ok(2)
                })
                .unwrap();
            Ok(1)
        })?;
        let spawner = group.spawner();
        let outputs = group.join().await.unwrap();
        assert_eq!(errno(spawner.spawn(async { Ok(4) })), ECANCELED);
        Result::Ok(outputs)
    });
    assert_eq!(outputs.unwrap().unwrap(), [1, 2, 3]);
}

#[test]
fn s46_a_group_that_shuts_down_waits_up_to_its_limit() {
    for (limit, aborted, end) in [(ns(10), 0, 5), (ns(6), 0, 5), (ns(3), 1, 3)] {
        let lp = virtual_loop();
        let left = lp.run_until_complete(async {
            let group = Group::new();
            for delay in [2, 5] {
                group.spawn(async move {
                    task::sleep(ns(delay)).await.unwrap();
                    Ok(0)
                })?;
            }
            Result::Ok(group.shutdown(limit).await)
        });
        assert_eq!((left.unwrap().unwrap(), lp.time()), (aborted, at(end)), "{limit:?}");
    }
}

#[test]
fn s46_a_panic_in_what_a_group_drops_is_told() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic("in a drop");
        }
    }
    let lp = virtual_loop();
    let result = lp.run_until_complete(async {
        let group = Group::new();
        group.spawn(async {
            let _bomb = Bomb;
            pending().await
        })?;
        group.spawn(async {
            task::sleep(ns(1)).await.unwrap();
            Err("first")
        })?;
        Result::Ok(group.join().await)
    });
    // The panic is not the first failure; the group ends nevertheless.
    assert!(matches!(result.unwrap().unwrap(), Err(GroupError::Failed("first"))));
}

#[test]
fn s22_a_shutdown_waits_for_what_is_left_up_to_its_limit() {
    for (limit, cancelled, end) in [(HOUR, 0, 50), (ns(50), 0, 50), (ns(49), 2, 49), (ns(0), 3, 0)]
    {
        let lp = virtual_loop();
        let ends = Rc::new(RefCell::new(Vec::new()));
        let (done, dropped) = (Rc::clone(&ends), Trace::new());
        lp.call_later(ns(20), move |_| done.borrow_mut().push("timer")).unwrap();
        for name in ["first", "second"] {
            let (ends, noted) = (Rc::clone(&ends), Noted(dropped.clone(), name));
            drop(lp.spawn(async move {
                let _noted = noted;
                task::sleep(ns(50)).await.unwrap();
                ends.borrow_mut().push(name);
            }));
        }
        // A shutdown does not wait for unreferenced tasks.
        let background = lp.spawn(pending::<()>()).unwrap();
        lp.unref(background.handle()).unwrap();
        let left = lp.shutdown_within(limit);
        assert_eq!((left, lp.time()), (Ok(cancelled), at(end)), "{limit:?}");
        let expected: &[_] = match cancelled {
            0 => &["timer", "first", "second"],
            2 => &["timer"],
            _ => &[],
        };
        assert_eq!(*ends.borrow(), expected);
        assert_eq!(dropped.len(), 2);
        assert!(background.is_finished());
        assert_eq!(errno(lp.call_soon(|_| {})), libc::ESHUTDOWN);
    }
}

#[test]
fn s46_a_group_that_is_dropped_outside_of_a_run_ends_its_tasks_in_the_next_iteration() {
    let lp = virtual_loop();
    let dropped = Trace::new();
    let group = lp.run_until_complete(async {
        let group = Group::new();
        for name in ["older", "newer"] {
            let noted = Noted(dropped.clone(), name);
            group.spawn(async move {
                let _noted = noted;
                pending().await
            })?;
        }
        task::yield_now().await;
        Result::Ok(group)
    });
    drop(group);
    assert_eq!(dropped.len(), 0);
    lp.run_once(ns(0)).unwrap();
    assert_eq!(dropped.take(), ["newer", "older"]);
}

#[test]
fn s48_a_shutdown_on_a_virtual_clock_gives_up_on_an_operation() {
    let lp = virtual_loop();
    let (mut stream, _silent) = ringloop::net::UnixStream::pair().unwrap();
    let reading = lp.spawn(async move { stream.read(Vec::with_capacity(1)).await.0 }).unwrap();
    lp.spawn(task::sleep(ns(1))).unwrap().detach();
    lp.run_once(ns(0)).unwrap();
    // Virtual time does not advance while the operation is pending.
    let (before, began) = (lp.time(), std::time::Instant::now());
    let left = lp.shutdown_within(ms(20));
    assert!(left.is_ok_and(|left| left >= 2), "{left:?}");
    assert!(began.elapsed() >= ms(20) && reading.is_finished());
    assert_eq!(lp.time(), before);
}

#[test]
fn s46_what_is_done_while_a_group_ends_changes_nothing_of_it() {
    /// When dropped, cancels another task of the group, and tries to add one.
    struct Meddler(
        Rc<Cell<Option<ringloop::Handle>>>,
        task::Spawner<u32, &'static str>,
        Rc<Cell<i32>>,
    );
    impl Drop for Meddler {
        fn drop(&mut self) {
            let cancelled = Loop::current().unwrap().cancel(self.0.get().unwrap());
            let added = self.1.spawn(async { Ok(0) });
            self.2.set(if cancelled.is_ok() { errno(added) } else { 0 });
        }
    }
    let refusal = Rc::new(Cell::new(0));
    let lp = virtual_loop();
    let result = lp.run_until_complete(async {
        let group = Group::new();
        let handle = Rc::new(Cell::new(None));
        let inner = Rc::clone(&handle);
        group.spawn(async move {
            inner.set(Loop::with_running(|lp| lp.unwrap().current_handle()));
            pending().await
        })?;
        let meddler = Meddler(handle, group.spawner(), Rc::clone(&refusal));
        group.spawn(async move {
            let _meddler = meddler;
            pending().await
        })?;
        group.spawn(async {
            task::sleep(ns(1)).await.unwrap();
            Err("first")
        })?;
        Result::Ok(group.join().await)
    });
    assert!(matches!(result.unwrap().unwrap(), Err(GroupError::Failed("first"))));
    assert_eq!(refusal.get(), ECANCELED);
}

#[test]
fn s46_outputs_are_in_order_whatever_the_order_of_the_ends() {
    let lp = virtual_loop();
    let outputs = lp.run_until_complete(async {
        let group = Group::new();
        for number in 0..200u32 {
            group.spawn(async move {
                task::sleep(ns(u64::from(number * 7919 % 200))).await.unwrap();
                Ok(number)
            })?;
        }
        Result::Ok(group.join().await.unwrap())
    });
    assert_eq!(outputs.unwrap().unwrap(), (0..200).collect::<Vec<_>>());
}

/// A future that is ready at once, and panics when it is dropped.
struct PanicsInDrop;

impl std::future::Future for PanicsInDrop {
    type Output = std::result::Result<u32, &'static str>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::task::Poll::Ready(Ok(1))
    }
}

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic("in the Drop of the future");
    }
}

#[test]
fn s46_a_panic_in_the_drop_of_a_future_that_is_complete_is_the_groups() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let result = lp.run_until_complete(async {
        let group = Group::new();
        let noted = Noted(trace.clone(), "other");
        group.spawn(async move {
            let _noted = noted;
            pending().await
        })?;
        group.spawn(PanicsInDrop)?;
        Result::Ok(group.join().await)
    });
    match result.unwrap().unwrap().unwrap_err() {
        GroupError::Failed(error) => panic(error),
        GroupError::Ended(error) => assert!(error.is_panic(), "{error}"),
    }
    assert_eq!(trace.take(), ["other"]);
}
