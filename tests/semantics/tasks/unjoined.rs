//! S41: panics of tasks that are not joined.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;

use ringloop::net::{TcpListener, TcpStream};
use ringloop::task::{self, GroupError, JoinHandle, TaskGroup, sleep, yield_now};
use ringloop::{Loop, Outcome, Result};

use super::{both_ways, turn};
use crate::support::Watched;
use crate::trace::{Bomb, Trace, ns, panic, panic_in, payload, real_loop, virtual_loop};

/// Loops that poll tasks in both ways, without and with an exception handler, and the panics that
/// the handler gets.
fn loops() -> impl Iterator<Item = (Watched, bool, Trace)> {
    [false, true].into_iter().flat_map(|is_handled| {
        both_ways().map(|lp| {
            let trace = Trace::new();
            if is_handled {
                tell(&lp, &trace);
            }
            (lp, is_handled, trace)
        })
    })
}

fn tell(lp: &Loop, trace: &Trace) {
    let trace = trace.clone();
    lp.set_exception_handler(move |_, caught| trace.add(payload(&*caught))).unwrap();
}

/// Checks the panics that the handler got, if there is a handler, and then the rest.
fn expect(trace: &Trace, is_handled: bool, told: &[&'static str], rest: &[&'static str]) {
    let told = if is_handled { told } else { &[] };
    assert_eq!(trace.take(), [told, rest].concat());
}

/// A task that panics in its poll (0), the drop of its future (1), or the drop of its output (2).
fn panicking(lp: &Loop, how: usize) -> JoinHandle<Option<Bomb>> {
    let join = lp.spawn(async move {
        let _bomb = (how == 1).then(|| Bomb("in a drop"));
        if how == 0 {
            panic("in a poll");
        }
        (how == 2).then(|| Bomb("in an output"))
    });
    join.unwrap()
}

const PANICS: [&str; 3] = ["in a poll", "in a drop", "in an output"];

#[test]
fn s41_a_panic_of_a_detached_task_goes_to_the_handler() {
    for (lp, is_handled, trace) in loops() {
        for (how, panic) in PANICS.into_iter().enumerate() {
            panicking(&lp, how).detach();
            lp.call_soon(trace.note("rest of the batch")).unwrap();
            assert_eq!(lp.run(), Ok(Outcome::Done));
            expect(&trace, is_handled, &[panic], &["rest of the batch"]);
        }
    }
}

#[test]
fn s41_a_handle_dropped_after_the_panic_tells_the_handler() {
    for (lp, is_handled, trace) in loops() {
        for (how, panic) in PANICS.into_iter().enumerate().take(2) {
            // The handle is dropped outside a run, and inside. The drop touches nothing borrowed.
            let join = panicking(&lp, how);
            assert_eq!((lp.run(), trace.len()), (Ok(Outcome::Done), 0));
            drop(join);
            assert_eq!((trace.len(), lp.run()), (0, Ok(Outcome::Done)));
            expect(&trace, is_handled, &[panic], &[]);

            let join = panicking(&lp, how);
            turn(&lp);
            let inner = trace.clone();
            lp.call_soon(move |_| {
                drop(join);
                assert_eq!(inner.len(), 0);
            })
            .unwrap();
            assert_eq!(lp.run(), Ok(Outcome::Done));
            expect(&trace, is_handled, &[panic], &[]);

            // A panic that a join has returned is reported to no one else.
            let join = panicking(&lp, how);
            let error = lp.run_until_complete(join).unwrap().map(|_| ()).unwrap_err();
            assert_eq!(
                (error.to_string(), lp.run()),
                (format!("the task panicked: {panic}"), Ok(Outcome::Done))
            );
            drop(error);
            assert_eq!((lp.run(), trace.len()), (Ok(Outcome::Done), 0));
        }
    }
}

#[test]
fn s41_a_handle_dropped_when_its_loop_is_closed_tells_nobody() {
    for (lp, _, trace) in loops() {
        let (gone, held) = (panicking(&lp, 0), panicking(&lp, 0));
        lp.spawn(async move {
            let _held = held;
            pending::<()>().await;
        })
        .unwrap()
        .detach();
        turn(&lp);
        lp.close().unwrap();
        drop(gone);
        assert_eq!(trace.len(), 0);
    }
}

#[test]
fn s41_an_aborted_future_that_panics_is_told() {
    for (lp, is_handled, trace) in loops() {
        let spawn = || {
            let join = lp.spawn(async {
                let _bomb = Bomb("in a drop");
                pending::<()>().await;
            });
            turn(&lp);
            join.unwrap()
        };
        // The handle is dropped before the task is aborted, then after it. The last task is
        // detached, and a shutdown ends it.
        let handle = spawn().handle();
        assert_eq!(lp.cancel(handle), Ok(()));
        expect(&trace, is_handled, &["in a drop"], &[]);
        let join = spawn();
        lp.call_soon(move |_| join.abort()).unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        expect(&trace, is_handled, &["in a drop"], &[]);
        spawn().detach();
        assert_eq!(panic_in(|| lp.shutdown()), None);
        expect(&trace, is_handled, &["in a drop"], &[]);
    }
}

#[test]
fn s41_a_group_that_has_not_given_its_panic_tells_it() {
    type Group = TaskGroup<(), &'static str>;
    for (lp, is_handled, trace) in loops() {
        let run = |how: fn(&Group)| {
            let group = lp.run_until_complete(async {
                let group = Group::new();
                how(&group);
                yield_now().await;
                yield_now().await;
                group
            });
            assert_eq!(trace.len(), 0);
            group.unwrap()
        };
        // The group has no join future, or its join future was dropped.
        drop(run(|group| group.spawn(async { panic("in a poll") }).unwrap()));
        assert_eq!(lp.run(), Ok(Outcome::Done));
        expect(&trace, is_handled, &["in a poll"], &[]);
        let group = run(|group| group.spawn(async { panic("in a poll") }).unwrap());
        drop(group.join());
        assert_eq!(lp.run(), Ok(Outcome::Done));
        expect(&trace, is_handled, &["in a poll"], &[]);
        // The join future returns the first panic; the second goes to the handler.
        let group = run(|group| {
            group.spawn(async { panic("first") }).unwrap();
            group.spawn(async { Err("too late") }).unwrap();
            group
                .spawn(async {
                    let _bomb = Bomb("second");
                    pending().await
                })
                .unwrap();
        });
        let failure = lp.run_until_complete(group.join()).unwrap().unwrap_err();
        assert!(
            matches!(failure, GroupError::Ended(error) if error.to_string() == "the task panicked: first")
        );
        // The task that was aborted before its first poll had nothing to drop.
        assert_eq!((lp.run(), trace.len()), (Ok(Outcome::Done), 0));
        let both = lp.run_until_complete(async {
            let group = Group::new();
            group.spawn(async {
                let _bomb = Bomb("second");
                pending().await
            })?;
            yield_now().await;
            group.spawn(async { panic("first") })?;
            Result::Ok(group.join().await)
        });
        let failure = both.unwrap().unwrap().unwrap_err();
        assert!(
            matches!(failure, GroupError::Ended(error) if error.to_string() == "the task panicked: first")
        );
        assert_eq!(lp.run(), Ok(Outcome::Done));
        expect(&trace, is_handled, &["second"], &[]);
    }
}

#[test]
fn s41_run_until_complete_survives_the_panic_of_another_task() {
    for (lp, is_handled, trace) in loops() {
        let end = lp.run_until_complete(async {
            task::spawn(async { panic("another") }).unwrap().detach();
            sleep(ns(1)).await
        });
        assert_eq!(end, Ok(Ok(())));
        expect(&trace, is_handled, &["another"], &[]);
        // The caller gets the panic of its future. If the caller gets another panic instead, the
        // next run reports the panic of the future.
        lp.call_later(ns(0), |_| panic("behind")).unwrap();
        let comes_up = panic_in(|| lp.run_until_complete(async { panic("own") }));
        assert_eq!(comes_up, Some(if is_handled { "own" } else { "behind" }));
        expect(&trace, is_handled, &["behind"], &[]);
        tell(&lp, &trace);
        assert_eq!(lp.run(), Ok(Outcome::Done));
        expect(&trace, !is_handled, &["own"], &[]);
    }
}

#[test]
fn s41_a_panic_in_the_exception_handler_leaves_the_run() {
    let lp = virtual_loop();
    lp.set_exception_handler(|_, _| panic("in the handler")).unwrap();
    panicking(&lp, 0).detach();
    assert_eq!(panic_in(|| lp.run()), Some("in the handler"));
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

/// The server of the README, with a handler that panics when it is asked to.
#[test]
fn s41_a_server_survives_one_bad_handler() {
    for is_handled in [false, true] {
        let lp = real_loop();
        let trace = Trace::new();
        if is_handled {
            tell(&lp, &trace);
        }
        let answers: Rc<RefCell<Vec<u8>>> = Rc::default();
        let ended = lp.run_until_complete(async {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap())?;
            let address = listener.local_addr()?;
            let server = task::spawn(async move {
                loop {
                    let mut stream = listener.accept().await?;
                    let handler = task::spawn(async move {
                        let (read, buffer) = stream.read(Vec::with_capacity(1)).await;
                        if read? == 1 && buffer == b"!" {
                            panic("one bad handler");
                        }
                        stream.write_all(buffer).await.0
                    });
                    handler?.detach();
                }
                #[allow(unreachable_code)]
                Result::Ok(())
            })?;
            for request in [b"a", b"!", b"b"] {
                let mut client = TcpStream::connect(address).await?;
                client.write_all(&request[..]).await.0?;
                // The connection of the bad handler is closed.
                let (read, buffer) = client.read(Vec::with_capacity(1)).await;
                answers.borrow_mut().extend(&buffer[..read?]);
            }
            server.abort();
            Result::Ok(())
        });
        ended.unwrap().unwrap();
        assert_eq!(*answers.borrow(), b"ab");
        expect(&trace, is_handled, &["one bad handler"], &[]);
    }
}
