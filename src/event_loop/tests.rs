//! Tests of an iteration that need access to its internals: readings of the clock, completions of
//! the ring's own requests, injected faults.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use super::{Loop, Outcome};
use crate::abi::handle::Handle;
use crate::error::Error;
use crate::event_loop::watch::Events;
use crate::kernel::Waited;
use crate::time::{Time, readings};

/// Schedules a chain of calls, each in its own iteration.
fn chain(lp: &Loop, left: u32) {
    if left > 0 {
        lp.call_soon(move |lp| chain(lp, left - 1)).unwrap();
    }
}

#[test]
fn s05_the_clock_is_read_once_an_iteration_and_not_at_all_while_no_timer_is_pending() {
    for (when, expected) in [(Time::NEVER, 0), (Time::now() + Duration::from_secs(3600), 1000)] {
        let lp = Loop::new().unwrap();
        let cancelled = lp.call_later(Duration::from_secs(3600), |_| ()).unwrap();
        lp.cancel(cancelled).unwrap();
        let timer = lp.call_at(when, |_| ()).unwrap();
        lp.unref(timer).unwrap();
        chain(&lp, 1000);
        let before = readings::so_far();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!((readings::so_far() - before, lp.metrics().iterations), (expected, 1000));
    }
}

/// A loop with many completions at once.
fn flooded(completions: u64, sq_entries: u32, cq_entries: u32) -> Loop {
    let lp = Loop::builder().sq_entries(sq_entries).cq_entries(cq_entries).build().unwrap();
    lp.kernel.borrow_mut().uring().flood(completions);
    lp
}

/// Runs until all completions of a flood are taken.
fn take_flood(lp: &Loop, completions: u64) {
    while lp.metrics().completed < completions {
        lp.run_once(Duration::ZERO).unwrap();
    }
}

#[test]
fn s09_a_flood_of_completions_does_not_hold_up_a_due_timer() {
    let lp = flooded(4000, 4096, 8192);
    let taken = Rc::new(Cell::new(0));
    let inner = Rc::clone(&taken);
    lp.call_at(lp.time(), move |lp| inner.set(lp.metrics().completed)).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    let taken = taken.get();
    assert!((1..=256).contains(&taken), "{taken} completions were taken before the timer ran");
    take_flood(&lp, 4000);
}

#[test]
fn s28_a_completion_queue_that_is_too_small_loses_nothing() {
    let lp = flooded(1000, 2, 2);
    let ran_at = Rc::new(Cell::new(None));
    let inner = Rc::clone(&ran_at);
    let when = lp.time() + Duration::from_millis(1);
    lp.call_at(when, move |lp| inner.set(Some(lp.time()))).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(ran_at.get().is_some_and(|ran_at| ran_at >= when));
    take_flood(&lp, 1000);
    assert!(lp.metrics().overflows > 0, "the queue was large enough after all");
}

#[test]
fn s27_a_wake_that_comes_after_watching_ends_the_wait_where_a_poll_completes_once() {
    let lp = Loop::new().unwrap();
    lp.kernel.borrow_mut().uring().poll_once_only();
    for _ in 0..3 {
        lp.kernel.borrow_mut().watch_wakes(lp.shared.eventfd()).unwrap();
        assert!(lp.shared.inbox.fall_asleep());
        lp.remote().wakeup().unwrap();
        // This would never return if the wake had been taken for an earlier one.
        assert_eq!(lp.kernel.borrow_mut().wait(u64::MAX), Ok(Waited::Completed));
        assert!(lp.shared.inbox.wake_up());
        lp.kernel.borrow_mut().reap(|_| {});
        // An earlier wake does not end the next wait.
        let soon = Time::now() + Duration::from_millis(1);
        lp.kernel.borrow_mut().watch_wakes(lp.shared.eventfd()).unwrap();
        assert_eq!(lp.kernel.borrow_mut().wait(soon.as_nanos()), Ok(Waited::Completed));
        assert!(Time::now() >= soon);
        lp.kernel.borrow_mut().reap(|_| {});
    }
}

/// Makes the kernel refuse so many enters.
fn refuse_enters(lp: &Loop, count: u32, errno: i32) {
    lp.kernel.borrow_mut().uring().faults.enters = (count, errno);
}

/// Makes the kernel lose the next completion.
fn lose_next(lp: &Loop) {
    lp.kernel.borrow_mut().uring().faults.loses_next = true;
}

type Results = Rc<RefCell<Vec<Result<usize, i32>>>>;

/// Receives on a socket, and notes the result.
fn receive(lp: &Loop, socket: &UnixStream, results: &Results) -> Handle {
    let results = Rc::clone(results);
    let note = move |_: &Loop, result: Result<usize, Error>, _| {
        results.borrow_mut().push(result.map_err(|error| error.raw_os_error()));
    };
    lp.recv(socket.try_clone().unwrap(), Vec::with_capacity(8), 0, note).unwrap()
}

/// A loop with a receive whose data has arrived, and a ready watcher that is not referenced. If the
/// queue has one entry, the request of the watcher does not fit.
fn receive_and_watch(sq_entries: u32, results: &Results) -> Loop {
    let lp = Loop::builder().sq_entries(sq_entries).build().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    receive(&lp, &socket, results);
    let watcher = lp.watch_fd(socket, Events::OUT, |_, _| {}).unwrap();
    lp.unref(watcher).unwrap();
    peer.write_all(b"data").unwrap();
    lp
}

#[test]
fn s28_submissions_that_are_refused_for_a_while_are_made_up_for() {
    for sq_entries in [1, 128] {
        let results = Results::default();
        let lp = receive_and_watch(sq_entries, &results);
        refuse_enters(&lp, 20, libc::EAGAIN);
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(*results.borrow(), [Ok(4)]);
        assert_eq!(lp.kernel.borrow_mut().uring().faults.enters.0, 0);
    }
}

#[test]
fn s28_a_run_goes_on_after_one_that_said_eagain() {
    for sq_entries in [1, 128] {
        let results = Results::default();
        let lp = receive_and_watch(sq_entries, &results);
        refuse_enters(&lp, u32::MAX, libc::EAGAIN);
        let begin = Time::now();
        assert_eq!(lp.run(), Err(Error::NO_SUBMISSION_FOR_LONG));
        assert!(Time::now() - begin > Duration::from_millis(900));
        let tries = u32::MAX - lp.kernel.borrow_mut().uring().faults.enters.0;
        assert!(tries < 5000, "{tries} tries in a second");
        refuse_enters(&lp, 0, 0);
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(*results.borrow(), [Ok(4)]);
    }
}

/// The cancel of an operation finds the queue full, and is the first refused entry.
#[test]
fn s22_close_ends_where_a_full_queue_is_refused() {
    let lp = Loop::builder().sq_entries(1).build().unwrap();
    let (socket, _peer) = UnixStream::pair().unwrap();
    receive(&lp, &socket, &Results::default());
    lp.run_once(Duration::ZERO).unwrap();
    receive(&lp, &socket, &Results::default());
    refuse_enters(&lp, u32::MAX, libc::EBUSY);
    lp.close().unwrap();
}

#[test]
fn s28_a_lost_completion_is_told_and_its_operation_ends_when_cancelled() {
    for is_counted in [false, true] {
        let lp = Loop::new().unwrap();
        if is_counted {
            lp.kernel.borrow_mut().uring().count_losses();
        }
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let results = Results::default();
        let lost = receive(&lp, &socket, &results);
        lose_next(&lp);
        peer.write_all(b"lost").unwrap();
        assert_eq!(lp.run(), Err(Error::COMPLETION_LOST));
        assert!(lp.is_pending(lost) && results.borrow().is_empty());
        let other = receive(&lp, &socket, &results);
        lp.cancel(lost).unwrap();
        while lp.is_pending(lost) {
            lp.run_once(Duration::from_secs(1)).unwrap();
        }
        assert_eq!(*results.borrow(), [Err(libc::EBADR)]);
        // Other watchers are not affected.
        assert!(lp.is_pending(other));
        peer.write_all(b"data").unwrap();
        assert_eq!(lp.run(), Ok(Outcome::Done));
        assert_eq!(*results.borrow(), [Err(libc::EBADR), Ok(4)]);
    }
}

#[test]
fn s28_a_lost_completion_is_told_to_a_host_by_the_next_run() {
    let lp = Loop::new().unwrap();
    lp.fd().unwrap();
    // The end of the run arms the timeout, and so enters the kernel.
    lp.call_later(Duration::from_secs(3600), |_| {}).unwrap();
    lp.call_soon(|lp| refuse_enters(lp, 1, libc::EBADR)).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
    assert_eq!(lp.run_once(Duration::ZERO), Err(Error::COMPLETION_LOST));
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
}

#[test]
fn s28_a_watcher_goes_on_when_the_completion_of_its_poll_was_lost() {
    let lp = Loop::new().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let (ready, other) = (Rc::new(Cell::new(0)), UnixStream::pair().unwrap());
    let inner = Rc::clone(&ready);
    lp.watch_fd(socket, Events::IN, move |lp, _| {
        inner.set(inner.get() + 1);
        lp.stop().unwrap();
    })
    .unwrap();
    let untouched =
        lp.watch_fd(other.0, Events::IN, |_, _| panic!("there is nothing to read")).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    lose_next(&lp);
    peer.write_all(b"lost").unwrap();
    assert_eq!(lp.run(), Err(Error::COMPLETION_LOST));
    assert_eq!(ready.get(), 0);
    for calls in 1..=3 {
        assert_eq!(lp.run_once(Duration::from_secs(100)), Ok(usize::from(calls > 1)));
        while ready.get() < calls {
            lp.run_once(Duration::from_secs(100)).unwrap();
        }
    }
    assert!(lp.is_pending(untouched));
}

#[test]
#[expect(clippy::zombie_processes, reason = "the loop waits for it")]
fn s28_a_child_is_reaped_when_its_completion_was_lost() {
    let lp = Loop::new().unwrap();
    let child = std::process::Command::new("true").spawn().unwrap();
    let ended = Rc::new(Cell::new(None));
    let inner = Rc::clone(&ended);
    lp.watch_child(child.id(), move |_, status| inner.set(status)).unwrap();
    lose_next(&lp);
    assert_eq!(lp.run(), Err(Error::COMPLETION_LOST));
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert!(ended.get().unwrap().success());
}

#[test]
fn s28_a_loss_that_a_cancel_meets_is_told_by_the_run() {
    let lp = Loop::new().unwrap();
    let fds: Vec<_> = [(); 100].map(|()| UnixStream::pair().unwrap()).into();
    let watch =
        |fd: &UnixStream| lp.watch_fd(fd.try_clone().unwrap(), Events::IN, |_, _| {}).unwrap();
    let watchers: Vec<_> = fds.iter().map(|(fd, _)| watch(fd)).collect();
    lp.run_once(Duration::ZERO).unwrap();
    for (_, peer) in &fds {
        (&*peer).write_all(b"work").unwrap();
    }
    lp.kernel.borrow_mut().uring().faults.settle_loses = true;
    lp.cancel(watchers[0]).unwrap();
    if lp.kernel.borrow_mut().uring().faults.settle_loses {
        // The kernel defers no work: before 6.1, and in this case.
        return;
    }
    assert_eq!(lp.run_once(Duration::ZERO), Err(Error::COMPLETION_LOST));
    assert_eq!(lp.run_once(Duration::from_secs(100)), Ok(99));
}

#[test]
fn s22_what_an_accept_waits_for_is_not_closed_for_a_connection() {
    use crate::abi::completion::Completed;
    use crate::pending::DeferredSubmission;
    use std::os::fd::AsRawFd;

    let lp = Loop::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let handle = lp.accept_multi(listener, |_, _| panic!("nobody connects")).unwrap();
    let completed =
        |result| Completed { number: crate::abi::completion::number(handle), result, flags: 0 };
    let (bystander, _peer) = UnixStream::pair().unwrap();
    let mut schedule = lp.schedule.borrow_mut();
    // The accept returned EAGAIN, as kernels until 5.17 do with O_NONBLOCK, and a poll waits
    // instead.
    schedule.completed(completed(-libc::EAGAIN));
    let Ok(Some(DeferredSubmission::Submit(entry, _))) = schedule.next_submission() else {
        panic!("the accept is not tried again")
    };
    assert_eq!(entry.opcode, crate::abi::opcodes::POLL_ADD);
    // Without memory for the result of the poll, it is discarded: its events, a number that is also
    // that of an open descriptor.
    schedule.discard(completed(bystander.as_raw_fd()));
    assert!(bystander.peer_addr().is_ok());
}

#[test]
fn s22_a_lost_completion_does_not_hold_up_close() {
    // Lost before the close, or during it.
    for is_before in [true, false] {
        let lp = Loop::new().unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let results = Results::default();
        let _receives = [(); 3].map(|()| receive(&lp, &socket, &results));
        lp.run_once(Duration::ZERO).unwrap();
        lose_next(&lp);
        if is_before {
            peer.write_all(b"lost").unwrap();
            assert_eq!(lp.run(), Err(Error::COMPLETION_LOST));
        }
        assert_eq!(Rc::strong_count(&results), 4);
        lp.close().unwrap();
        assert_eq!((Rc::strong_count(&results), results.borrow().len()), (1, 0));
    }
}

#[test]
fn s22_a_lost_end_of_a_poll_does_not_hold_up_close() {
    let lp = Loop::new().unwrap();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let watcher = lp.watch_fd(socket, Events::IN, |_, _| {}).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    lose_next(&lp);
    lp.cancel(watcher).unwrap();
    let _ = lp.run_once(Duration::from_millis(1));
    lp.close().unwrap();
}
