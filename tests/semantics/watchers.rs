//! Watchers of descriptors: their events, their order, and the end of operations with `forget_fd`.
//! S6, S12, S19.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Events, Handle, Loop, Outcome, Sqe};

use crate::letting_go::{Number, is_at_end, pairs};
use crate::trace::{HOUR, Trace, real_loop};

/// The events that a watcher got since they were last taken.
type Told = Trace<Events>;

fn watch(lp: &Loop, stream: &UnixStream, events: Events) -> (Handle, Told) {
    let told = Trace::new();
    let inner = told.clone();
    let number = Number(stream.as_raw_fd());
    (lp.watch_fd(number, events, move |_, ready| inner.add(ready)).unwrap(), told)
}

/// The second iteration sees the events of the polls that the first one arms.
fn run_ready(lp: &Loop) -> usize {
    lp.run_once(Duration::ZERO).unwrap() + lp.run_once(Duration::ZERO).unwrap()
}

#[test]
fn s06_watchers_of_a_descriptor_run_in_the_order_of_their_registration() {
    let lp = real_loop();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"x").unwrap();
    let order = Trace::new();
    for at in 0..8 {
        let (order, number) = (order.clone(), Number(stream.as_raw_fd()));
        let events = if at % 2 == 0 { Events::IN | Events::OUT } else { Events::IN };
        lp.watch_fd(number, events, move |_, _| order.add(at)).unwrap();
    }
    assert_eq!(lp.run_once(HOUR), Ok(8));
    assert_eq!(order.take(), (0..8).collect::<Vec<_>>());
}

#[test]
fn s12_each_watcher_is_told_what_it_asked_for() {
    let lp = real_loop();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    let (_, input) = watch(&lp, &stream, Events::IN);
    let (_, output) = watch(&lp, &stream, Events::OUT);
    let (_, both) = watch(&lp, &stream, Events::IN | Events::OUT);
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(
        (input.len(), output.take(), both.take()),
        (0, vec![Events::OUT], vec![Events::OUT])
    );
    peer.write_all(b"x").unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(3));
    assert_eq!((input.take(), output.take()), (vec![Events::IN], vec![Events::OUT]));
    assert_eq!(both.take(), [Events::IN | Events::OUT]);
}

#[test]
fn s12_hang_ups_and_errors_reach_every_watcher_the_paused_too() {
    let lp = real_loop();
    let (stream, peer) = UnixStream::pair().unwrap();
    let (_, input) = watch(&lp, &stream, Events::IN);
    let (_, paused) = watch(&lp, &stream, Events::NONE);
    assert_eq!(run_ready(&lp), 0);
    drop(peer);
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!((input.take(), paused.take()), (vec![Events::IN | Events::HUP], vec![Events::HUP]));

    let lp = real_loop();
    let (reader, writer) = std::io::pipe().unwrap();
    let told = Trace::new();
    let inner = told.clone();
    lp.watch_fd(writer, Events::NONE, move |_, ready| inner.add(ready)).unwrap();
    assert_eq!(run_ready(&lp), 0);
    drop(reader);
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(told.take(), [Events::ERR]);
}

#[test]
fn s12_cancels_and_updates_drop_what_is_queued() {
    let lp = real_loop();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"x").unwrap();
    // The action of the first watcher on the second, which is behind it in the batch.
    type Act = fn(&Loop, Handle);
    let act: Rc<Cell<Option<Act>>> = Rc::default();
    let (inner, second) = (Rc::clone(&act), Rc::new(Cell::new(None)));
    let target = Rc::clone(&second);
    lp.watch_fd(Number(stream.as_raw_fd()), Events::OUT, move |lp, _| {
        if let Some(act) = inner.take() {
            act(lp, target.get().unwrap());
        }
    })
    .unwrap();
    let (handle, told) = watch(&lp, &stream, Events::IN | Events::OUT);
    second.set(Some(handle));
    act.set(Some(|lp, second| lp.watch_update(second, Events::IN).unwrap()));
    assert_eq!(lp.run_once(HOUR), Ok(2));
    assert_eq!(told.take(), [Events::IN]);
    act.set(Some(|lp, second| lp.watch_update(second, Events::NONE).unwrap()));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    // The watcher is paused, and then resumed.
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(told.len(), 0);
    lp.watch_update(handle, Events::IN).unwrap();
    run_ready(&lp);
    assert!(told.take().contains(&Events::IN));
    act.set(Some(|lp, second| lp.cancel(second).unwrap()));
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!(told.len(), 0);
}

#[test]
fn s12_a_watcher_stands_in_the_rest_of_a_batch_once() {
    let lp = real_loop();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let (_, told) = watch(&lp, &stream, Events::OUT);
    for _ in 0..4 {
        lp.call_soon(|lp| lp.break_().unwrap()).unwrap();
        assert_eq!(lp.run_forever(), Ok(Outcome::Broken));
    }
    assert!(told.len() <= 3, "{}", told.len());
}

/// The poll of the former watcher, on the other file, is then still in the kernel.
#[test]
fn s12_a_number_that_is_another_file_by_now_is_watched_anew() {
    let lp = real_loop();
    let (first, _first_peer) = UnixStream::pair().unwrap();
    let number = first.as_raw_fd();
    let (handle, former) = watch(&lp, &first, Events::IN);
    assert_eq!(run_ready(&lp), 0);
    lp.cancel(handle).unwrap();
    let (second, mut peer) = UnixStream::pair().unwrap();
    // SAFETY: both numbers are open.
    assert_eq!(unsafe { libc::dup2(second.as_raw_fd(), number) }, number);
    let (_, told) = watch(&lp, &first, Events::IN);
    assert_eq!(run_ready(&lp), 0);
    peer.write_all(b"x").unwrap();
    assert_eq!(lp.run_once(HOUR), Ok(1));
    assert_eq!((told.take(), former.len()), (vec![Events::IN], 0));
}

#[test]
fn s19_an_unreferenced_watcher_keeps_no_run_alive() {
    let lp = real_loop();
    let (stream, _peer) = UnixStream::pair().unwrap();
    lp.unref(watch(&lp, &stream, Events::IN).0).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

// ---- forget_fd ----

/// All receives on a descriptor are ended by as many calls as it takes to queue the cancels, and
/// one or two more. Receives on another descriptor of the same file stay.
#[test]
fn s12_many_operations_on_a_descriptor_end_together() {
    const RECEIVES: usize = 2000;
    const ENTRIES: usize = 128;
    let lp = real_loop();
    let (stream, peer) = UnixStream::pair().unwrap();
    let copy = stream.try_clone().unwrap();
    let results = Trace::new();
    let receive = |fd: RawFd| {
        let results = results.clone();
        let done = move |_: &Loop, result: ringloop::Result<usize>, _| {
            results.add(result.map_err(|error| error.raw_os_error()));
        };
        lp.recv(Number(fd), Vec::with_capacity(1), 0, done).unwrap()
    };
    for _ in 0..RECEIVES {
        receive(stream.as_raw_fd());
    }
    let other = receive(copy.as_raw_fd());
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    let before = lp.metrics().enters;
    assert_eq!(lp.forget_fd(stream.as_raw_fd()), Ok(0));
    let calls = lp.metrics().enters - before;
    assert!(calls <= (RECEIVES / ENTRIES + 4) as u64, "{calls} calls");
    assert_eq!(results.len(), 0);
    while results.len() < RECEIVES {
        lp.run_once(Duration::ZERO).unwrap();
    }
    assert_eq!(results.take(), [Err(libc::ECANCELED); RECEIVES]);
    assert!(lp.is_pending(other));
    assert_eq!(lp.forget_fd(copy.as_raw_fd()), Ok(0));
    drop((stream, copy));
    assert!(is_at_end(&peer));
    lp.run().unwrap();
}

#[test]
fn s12_what_is_spliced_from_is_forgotten_too() {
    let lp = real_loop();
    let ((from, mut writer), (_reader, to)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let number = from.as_raw_fd();
    let ended = Rc::new(Cell::new(false));
    let inner = Rc::clone(&ended);
    lp.splice((Number(number), None), (to, None), 100, 0, move |_, _| inner.set(true)).unwrap();
    assert_eq!(lp.run_once(Duration::from_millis(1)), Ok(0));
    // A thread of the kernel may do the splice, and then releases the file a little later.
    assert!(lp.forget_fd(number).unwrap() <= 1);
    while !ended.get() {
        lp.run_once(HOUR).unwrap();
    }
    assert_eq!(lp.forget_fd(number), Ok(0));
    drop(from);
    assert_eq!(writer.write_all(b"x").unwrap_err().raw_os_error(), Some(libc::EPIPE));
}

/// The entry of a WAITID has a process ID where other entries have a descriptor.
#[test]
fn s12_forgetting_a_number_ends_nothing_else() {
    const WAITID: u8 = 50;
    let lp = real_loop();
    if !lp.supports(WAITID) {
        return;
    }
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let ended = Rc::new(Cell::new(false));
    let inner = Rc::clone(&ended);
    let (number, flags) = (child.id() as RawFd, libc::WEXITED | libc::WNOWAIT);
    let entry = Sqe {
        opcode: WAITID,
        fd: number,
        len: libc::P_PID,
        file_index: flags as u32,
        ..Sqe::default()
    };
    // SAFETY: the entry has no pointers.
    unsafe { lp.submit(&entry, move |_, _| inner.set(true)) }.unwrap();
    assert_eq!(lp.forget_fd(number), Ok(0));
    assert_eq!(lp.run_once(Duration::from_millis(10)), Ok(0));
    assert!(!ended.get());
    drop(child.stdin.take());
    lp.run().unwrap();
    assert!(ended.get() && child.wait().unwrap().success());
}

/// Other ready watchers are not polled again before their callbacks have run: such a poll would
/// report data that has been read by then.
#[test]
fn s12_forgetting_leaves_the_rest_of_the_batch_alone() {
    const PAIRS: usize = 400;
    let lp = real_loop();
    let all = Rc::new(RefCell::new(pairs(PAIRS)));
    let emptied = Rc::new(Cell::new(0));
    for (at, (stream, peer)) in all.borrow_mut().iter_mut().enumerate() {
        peer.write_all(b"x").unwrap();
        stream.set_nonblocking(true).unwrap();
        let (number, count) = (stream.as_raw_fd(), Rc::clone(&emptied));
        lp.watch_fd(Number(number), Events::IN, move |lp, _| {
            // SAFETY: the stream stays open until the end of the test.
            let read = nix::unistd::read(unsafe { BorrowedFd::borrow_raw(number) }, &mut [0]);
            assert_eq!(read, Ok(1), "a callback without data");
            count.set(count.get() + 1);
            if at % 2 == 0 {
                assert_eq!(lp.forget_fd(number), Ok(0));
            }
        })
        .unwrap();
    }
    while emptied.get() < PAIRS {
        lp.run_once(HOUR).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    }
    // Each poll is armed once, those that remain once more, and half have nothing to cancel.
    assert!(lp.metrics().submitted < 3 * PAIRS as u64);
}
