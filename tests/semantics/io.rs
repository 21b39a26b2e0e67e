//! Operations and watchers through the Rust API: S12, S13, S14, S22, S36.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ringloop::{Completion, Events, Kind, Loop, Sqe, Time};

use crate::support::Watched;
use crate::trace::real_loop;

/// Records the completions of an operation.
#[derive(Clone, Default)]
struct Seen(Rc<RefCell<Vec<Completion>>>);

impl Seen {
    fn note(&self) -> impl FnMut(&Loop, Completion) + use<> {
        let seen = self.clone();
        move |_, completion| seen.0.borrow_mut().push(completion)
    }

    fn only(&self) -> Completion {
        assert_eq!(self.0.borrow().len(), 1);
        self.0.borrow()[0]
    }
}

const NOP: u8 = 0;
const POLL_ADD: u8 = 6;

/// A poll for data on a stream; its entry has no pointers.
fn poll_in(stream: &UnixStream) -> Sqe {
    Sqe {
        opcode: POLL_ADD,
        fd: stream.as_raw_fd(),
        op_flags: libc::POLLIN as u32,
        ..Sqe::default()
    }
}

fn submit(lp: &Loop, entry: &Sqe, seen: &Seen) -> ringloop::Handle {
    // SAFETY: the entries of these tests have no pointers.
    unsafe { lp.submit(entry, seen.note()) }.unwrap()
}

#[test]
fn s06_an_operation_gives_its_result_in_its_turn() {
    let lp = real_loop();
    let seen = Seen::default();
    let handle = submit(&lp, &Sqe { opcode: NOP, ..Sqe::default() }, &seen);
    assert!(lp.is_pending(handle) && lp.is_alive());
    lp.run().unwrap();
    assert_eq!(seen.only().result(), Ok(0));
    assert!(!seen.only().more() && !seen.only().timed_out());
    assert!(!lp.is_pending(handle));
}

#[test]
fn s13_a_cancelled_operation_has_a_final_callback() {
    let lp = real_loop();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let seen = Seen::default();
    let handle = submit(&lp, &poll_in(&stream), &seen);
    lp.run_once(Duration::ZERO).unwrap();
    lp.cancel(handle).unwrap();
    assert!(lp.is_pending(handle));
    lp.run().unwrap();
    assert_eq!(seen.only().result().unwrap_err().raw_os_error(), libc::ECANCELED);
    assert!(lp.cancel(handle).is_err());
}

#[test]
fn s13_a_deadline_cuts_an_operation_short() {
    let lp = real_loop();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let seen = Seen::default();
    let handle = submit(&lp, &poll_in(&stream), &seen);
    let due = lp.time() + Duration::from_millis(2);
    lp.set_deadline(handle, due).unwrap();
    lp.run().unwrap();
    assert!(lp.time() >= due);
    assert!(seen.only().timed_out());
    assert_eq!(seen.only().result().unwrap_err().raw_os_error(), libc::ETIMEDOUT);
}

#[test]
fn s14_what_an_operation_carries_is_dropped_after_its_end() {
    let lp = real_loop();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    let token = Rc::new(());
    let carried = Rc::clone(&token);
    // SAFETY: the entry has no pointers.
    unsafe { lp.submit(&poll_in(&stream), move |_, _| drop(Rc::clone(&carried))) }.unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    assert_eq!(Rc::strong_count(&token), 2);
    peer.write_all(b"x").unwrap();
    lp.run().unwrap();
    assert_eq!(Rc::strong_count(&token), 1);
}

#[test]
fn s22_dropping_the_loop_ends_operations_and_calls_nobody() {
    let lp = real_loop();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let (seen, released) = (Seen::default(), Rc::new(Cell::new(0)));
    let handle = submit(&lp, &poll_in(&stream), &seen);
    let count = Rc::clone(&released);
    lp.on_release(handle, move |_| count.set(count.get() + 1)).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    drop(lp);
    assert!(seen.0.borrow().is_empty());
    assert_eq!(released.get(), 1);
}

#[test]
fn s22_a_loop_is_closed_amid_operations_by_its_threads_end() {
    // Only in C can a loop that has run move to another thread: tests/c/threads.c.
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let released = std::thread::spawn(|| {
        let lp = Loop::new().unwrap();
        let released = Arc::new(AtomicBool::new(false));
        // SAFETY: the entry of a poll has no pointers, and the callback keeps the stream.
        let handle =
            unsafe { lp.submit(&poll_in(&ours), move |_, _| panic!("{ours:?} is readable")) }
                .unwrap();
        let hook = Arc::clone(&released);
        lp.on_release(handle, move |_| hook.store(true, Relaxed)).unwrap();
        lp.run_once(Duration::ZERO).unwrap();
        thread_local!(static KEPT: RefCell<Option<Loop>> = const { RefCell::new(None) });
        KEPT.set(Some(lp));
        released
    })
    .join()
    .unwrap();
    assert!(released.load(Relaxed));
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

#[test]
fn s22_shutdown_brings_the_final_callbacks() {
    let lp = real_loop();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let seen = Seen::default();
    submit(&lp, &poll_in(&stream), &seen);
    lp.shutdown().unwrap();
    assert_eq!(seen.only().result().unwrap_err().raw_os_error(), libc::ECANCELED);
    assert!(!lp.is_alive());
}

#[test]
fn s29_what_would_escape_the_loop_is_refused_by_name() {
    let lp = real_loop();
    let refusals = [
        (Sqe { flags: 1 << 1, ..Sqe::default() }, "IOSQE_IO_DRAIN"),
        (Sqe { flags: 1 << 2, ..Sqe::default() }, "IOSQE_IO_LINK"),
        (Sqe { flags: 1 << 3, ..Sqe::default() }, "IOSQE_IO_HARDLINK"),
        (Sqe { flags: 1 << 6, ..Sqe::default() }, "IOSQE_CQE_SKIP_SUCCESS"),
        (Sqe { flags: 1 << 7, ..Sqe::default() }, "flag"),
        (Sqe { opcode: 14, ..Sqe::default() }, "IORING_OP_ASYNC_CANCEL"),
        (Sqe { opcode: 7, ..Sqe::default() }, "IORING_OP_POLL_REMOVE"),
        (Sqe { opcode: 12, ..Sqe::default() }, "IORING_OP_TIMEOUT_REMOVE"),
        (Sqe { opcode: 15, ..Sqe::default() }, "IORING_OP_LINK_TIMEOUT"),
        (Sqe { opcode: 63, ..Sqe::default() }, "128"),
    ];
    for (entry, name) in refusals {
        // SAFETY: the entries have no pointers.
        let error = unsafe { lp.submit(&entry, |_, _| panic!("a callback has run")) }.unwrap_err();
        assert_eq!(error.raw_os_error(), libc::EINVAL);
        assert!(error.to_string().contains(name), "{error} does not name {name}");
    }
    // SAFETY: the entry has no pointers.
    let error =
        unsafe { lp.submit(&Sqe { opcode: 250, ..Sqe::default() }, |_, _| {}) }.unwrap_err();
    assert_eq!(error.raw_os_error(), libc::ENOSYS);
    assert!(!lp.supports(250) && lp.supports(NOP));
    assert!(!lp.is_alive());
}

#[test]
fn s12_a_watcher_is_called_while_its_descriptor_is_ready() {
    let lp = real_loop();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    let stream = Rc::new(stream);
    let read = Rc::new(Cell::new(0));
    let (count, reader) = (Rc::clone(&read), Rc::clone(&stream));
    lp.watch_fd(Rc::clone(&stream), Events::IN, move |lp, events| {
        assert!(events.contains(Events::IN));
        let mut byte = [0];
        match (&*reader).read(&mut byte).unwrap() {
            0 => lp.cancel(lp.current_handle().unwrap()).unwrap(),
            read => count.set(count.get() + read),
        }
    })
    .unwrap();
    peer.write_all(b"level").unwrap();
    drop(peer);
    lp.run().unwrap();
    assert_eq!(read.get(), 5);
    assert_eq!(Rc::strong_count(&stream), 1);
}

#[test]
fn s12_what_is_forgotten_really_closes() {
    let lp = real_loop();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    let raw = stream.as_raw_fd();
    let mut shown = None;
    let seen = Seen::default();
    submit(&lp, &poll_in(&stream), &seen);
    lp.watch_fd(stream, Events::IN, |_, _| panic!("nothing came")).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    lp.walk(|_, info| shown = info.fd().filter(|_| info.kind() == Kind::Watch).or(shown)).unwrap();
    assert_eq!(shown, Some(raw));
    // The watcher owned the descriptor; the end of the watcher closes the descriptor.
    assert_eq!(lp.forget_fd(raw), Ok(0));
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    lp.run().unwrap();
    assert_eq!(seen.only().result().unwrap_err().raw_os_error(), libc::ECANCELED);
}

#[test]
fn what_epoll_refuses_is_refused() {
    let lp = real_loop();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let error = lp.watch_fd(file, Events::IN, |_, _| {}).unwrap_err();
    assert_eq!(error.raw_os_error(), libc::EPERM);
    assert!(Events::from_bits(1 << 31).is_err());
    assert_eq!(
        Events::from_bits(Events::IN.bits() | Events::OUT.bits()),
        Ok(Events::IN | Events::OUT)
    );
}

#[test]
fn connections_are_accepted_and_what_they_send_is_received() {
    let lp = real_loop();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let buffers = lp.buffers(8, 256).unwrap();
    let received: Rc<RefCell<Vec<u8>>> = Rc::default();
    let ended = Rc::new(Cell::new(0));
    let (sink, count) = (Rc::clone(&received), Rc::clone(&ended));
    lp.accept_multi(listener, move |lp, connection| {
        let Ok(connection) = connection else { return };
        let (sink, count) = (Rc::clone(&sink), Rc::clone(&count));
        lp.recv_multi(connection, &buffers, move |lp, data| match data.unwrap() {
            [] => {
                count.set(count.get() + 1);
                if count.get() == 3 {
                    lp.stop().unwrap();
                }
            }
            data => sink.borrow_mut().extend_from_slice(data),
        })
        .unwrap();
    })
    .unwrap();
    let client = std::thread::spawn(move || {
        for _ in 0..3 {
            TcpStream::connect(address).unwrap().write_all(&[7; 5000]).unwrap();
        }
    });
    lp.run().unwrap();
    client.join().unwrap();
    assert_eq!(received.borrow().len(), 15000);
    assert!(received.borrow().iter().all(|&byte| byte == 7));
}

#[test]
fn buffers_belong_to_their_loop_and_are_freed_when_nobody_uses_them() {
    let (lp, other) = (real_loop(), real_loop());
    let (stream, peer) = UnixStream::pair().unwrap();
    let buffers = lp.buffers(3, 100).unwrap();
    let foreign = other.recv_multi(stream.try_clone().unwrap(), &buffers, |_, _| {}).unwrap_err();
    assert_eq!(foreign.raw_os_error(), libc::EINVAL);
    lp.recv_multi(stream, &buffers, |_, _| {}).unwrap();
    assert_eq!(lp.free_buffers(&buffers).unwrap_err().raw_os_error(), libc::EBUSY);
    drop(peer);
    lp.run().unwrap();
    lp.free_buffers(&buffers).unwrap();
    assert_eq!(lp.free_buffers(&buffers).unwrap_err().raw_os_error(), libc::EINVAL);
}

#[test]
fn s36_a_virtual_clock_stands_still_while_an_operation_is_in_flight() {
    let lp = Watched::new(Loop::builder().virtual_time(Time::from_nanos(0)).build().unwrap());
    let (stream, mut peer) = UnixStream::pair().unwrap();
    let order: Rc<RefCell<Vec<&str>>> = Rc::default();
    let (first, second) = (Rc::clone(&order), Rc::clone(&order));
    lp.call_later(Duration::from_secs(3600), move |_| second.borrow_mut().push("timer")).unwrap();
    // SAFETY: the entry has no pointers.
    unsafe {
        lp.submit(&poll_in(&stream), move |lp, _| {
            assert_eq!(lp.time(), Time::from_nanos(0));
            first.borrow_mut().push("operation");
        })
    }
    .unwrap();
    lp.run_once(Duration::from_millis(1)).unwrap();
    peer.write_all(b"x").unwrap();
    lp.run().unwrap();
    assert_eq!(*order.borrow(), ["operation", "timer"]);
}

#[test]
fn s12_an_update_reaches_a_poll_that_waits() {
    let lp = real_loop();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let events = Rc::new(Cell::new(Events::NONE));
    let seen = Rc::clone(&events);
    let watcher = lp
        .watch_fd(stream, Events::IN, move |lp, ready| {
            seen.set(ready);
            lp.stop().unwrap();
        })
        .unwrap();
    // No data arrives, and the kernel has the poll.
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    lp.watch_update(watcher, Events::IN | Events::OUT).unwrap();
    lp.call_later(Duration::from_secs(10), |lp| lp.stop().unwrap()).unwrap();
    lp.run_forever().unwrap();
    assert_eq!(events.get(), Events::OUT);
}

/// Other code reads the data that has woken a poll before the kernel checks the poll. The kernel
/// then refuses to update the poll.
#[test]
fn s12_an_update_reaches_a_poll_that_was_woken_in_vain() {
    let lp = real_loop();
    let (mut stream, mut peer) = UnixStream::pair().unwrap();
    let events = Rc::new(Cell::new(Events::NONE));
    let seen = Rc::clone(&events);
    let watcher = lp
        .watch_fd(stream.try_clone().unwrap(), Events::IN, move |_, ready| seen.set(ready))
        .unwrap();
    // The copy of the stream is another descriptor of the same file.
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    peer.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    lp.watch_update(watcher, Events::IN | Events::OUT).unwrap();
    for _ in 0..5 {
        if !events.get().contains(Events::OUT) {
            lp.run_once(Duration::from_secs(1)).unwrap();
        }
    }
    assert!(events.get().contains(Events::OUT));
}

#[test]
fn s12_a_hang_up_that_is_asked_for_is_told() {
    for asked in [Events::IN, Events::IN | Events::HUP, Events::HUP | Events::ERR] {
        let lp = real_loop();
        let (stream, peer) = UnixStream::pair().unwrap();
        let events = Rc::new(Cell::new(Events::NONE));
        let seen = Rc::clone(&events);
        lp.watch_fd(stream, asked, move |lp, ready| {
            seen.set(ready);
            lp.stop().unwrap();
        })
        .unwrap();
        drop(peer);
        lp.run_forever().unwrap();
        assert!(events.get().contains(Events::HUP), "{events:?} of {asked:?}");
    }
}

#[test]
fn s12_a_watcher_that_leaves_others_costs_no_submission() {
    let lp = real_loop();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let stream = Rc::new(stream);
    let [_first, second] =
        [(); 2].map(|()| lp.watch_fd(Rc::clone(&stream), Events::IN, |_, _| {}).unwrap());
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    let before = lp.metrics().submitted;
    lp.cancel(second).unwrap();
    lp.watch_fd(stream, Events::IN, |_, _| {}).unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    assert_eq!(lp.metrics().submitted, before);
}
