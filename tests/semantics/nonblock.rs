//! Operations wait on descriptors with O_NONBLOCK as on others, also if these are no streams. S13.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, Handle, Loop};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::trace::real_loop;

fn set_nonblock(fd: impl AsFd) {
    let mut on: libc::c_int = 1;
    // SAFETY: the number is read from a live variable.
    assert_eq!(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONBIO, &raw mut on) }, 0);
}

/// Checks that an operation has no result until `make_ready` has run, and succeeds then.
fn check_waits<D: AsFd>(
    name: &str,
    fd: D,
    begin: impl FnOnce(&Loop, D, Box<dyn Fn(Result<(), Error>)>) -> Result<Handle, Error>,
    make_ready: impl FnOnce(),
) {
    let lp = real_loop();
    set_nonblock(&fd);
    let result = Rc::new(Cell::new(None));
    let inner = Rc::clone(&result);
    begin(&lp, fd, Box::new(move |result| inner.set(Some(result)))).unwrap();
    for _ in 0..10 {
        lp.run_once(Duration::from_millis(1)).unwrap();
    }
    assert_eq!(result.get(), None, "{name} does not wait");
    make_ready();
    for _ in 0..100 {
        if result.get().is_none() {
            lp.run_once(Duration::from_millis(50)).unwrap();
        }
    }
    assert_eq!(result.get(), Some(Ok(())), "{name}");
}

/// A stream whose buffer is full, and its other end.
fn full() -> (UnixStream, UnixStream) {
    let (mut one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    while one.write(&[0; 1 << 16]).is_ok() {}
    (one, other)
}

fn drain(other: &mut UnixStream) {
    other.set_nonblocking(true).unwrap();
    while other.read(&mut [0; 1 << 16]).is_ok() {}
}

#[test]
fn s13_operations_wait_on_a_descriptor_with_o_nonblock() {
    let room = || Vec::<u8>::with_capacity(10);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let ready = || writer.write_all(b"x").unwrap();
    let read = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.read(fd, room(), None, move |_, got, _| done(got.map(drop)))
    };
    check_waits("read of a pipe", reader, read, ready);

    let (reader, mut writer) = std::io::pipe().unwrap();
    let ready = || writer.write_all(b"x").unwrap();
    let read = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.readv(fd, vec![room()], None, move |_, got, _| done(got.map(drop)))
    };
    check_waits("readv of a pipe", reader, read, ready);

    let (one, mut other) = UnixStream::pair().unwrap();
    let ready = || other.write_all(b"x").unwrap();
    let read = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.read(fd, room(), None, move |_, got, _| done(got.map(drop)))
    };
    check_waits("read of a stream", one, read, ready);

    let (one, mut other) = UnixStream::pair().unwrap();
    let ready = || other.write_all(b"x").unwrap();
    let recv = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.recv(fd, room(), 0, move |_, got, _| done(got.map(drop)))
    };
    check_waits("recv", one, recv, ready);

    let (one, other) = UnixDatagram::pair().unwrap();
    let ready = || assert_eq!(other.send(b"x").unwrap(), 1);
    let recv = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.recv_from(fd, room(), 0, move |_, got, _| done(got.map(drop)))
    };
    check_waits("recv_from", one, recv, ready);

    let (one, mut other) = UnixStream::pair().unwrap();
    let ready = || other.write_all(b"x").unwrap();
    let recv = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.recv_multi(fd, &lp.buffers(2, 100).unwrap(), move |_, got| done(got.map(drop)))
    };
    check_waits("recv_multi", one, recv, ready);

    let (one, mut other) = full();
    let write = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.write(fd, "x", None, move |_, got, _| done(got.map(drop)))
    };
    check_waits("write", one, write, || drain(&mut other));

    let (one, mut other) = full();
    let write = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.writev(fd, vec!["x"], None, move |_, got, _| done(got.map(drop)))
    };
    check_waits("writev", one, write, || drain(&mut other));

    let (one, mut other) = full();
    let write = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.write_all(fd, "x", None, move |_, got, _| done(got.map(drop)))
    };
    check_waits("write_all", one, write, || drain(&mut other));

    let (one, mut other) = full();
    let send = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.send(fd, "x", 0, move |_, got, _| done(got.map(drop)))
    };
    check_waits("send", one, send, || drain(&mut other));

    let (one, mut other) = full();
    let send = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.send_all(fd, "x", 0, move |_, got, _| done(got.map(drop)))
    };
    check_waits("send_all", one, send, || drain(&mut other));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ready = || drop(TcpStream::connect(address).unwrap());
    let accept =
        |lp: &Loop, fd, done: Box<dyn Fn(_)>| lp.accept(fd, move |_, got| done(got.map(drop)));
    check_waits("accept", listener, accept, ready);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ready = || drop(TcpStream::connect(address).unwrap());
    let accept = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.accept_multi(fd, move |_, got| done(got.map(drop)))
    };
    check_waits("accept_multi", listener, accept, ready);
}

/// Owns a new descriptor that the kernel has returned.
fn owned(fd: libc::c_int) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just returned the descriptor, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A terminal without line editing, and its other end.
fn terminal() -> (OwnedFd, File) {
    // SAFETY: `posix_openpt` takes only flags.
    let other = owned(unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY) });
    let (number, mut name) = (other.as_raw_fd(), [0; 64]);
    // SAFETY: the arrays and structures are live variables, of the given sizes.
    unsafe {
        assert_eq!((libc::grantpt(number), libc::unlockpt(number)), (0, 0));
        assert_eq!(libc::ptsname_r(number, name.as_mut_ptr(), name.len()), 0);
        let fd = owned(libc::open(name.as_ptr(), libc::O_RDWR | libc::O_NOCTTY));
        let mut raw = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(fd.as_raw_fd(), &mut raw), 0);
        libc::cfmakeraw(&mut raw);
        assert_eq!(libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &raw), 0);
        (fd, other.into())
    }
}

#[test]
fn s13_reads_wait_for_what_is_no_stream_either() {
    let read = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.read(fd, Vec::<u8>::with_capacity(64), None, move |_, got, _| done(got.map(drop)))
    };
    // SAFETY: these system calls take only numbers.
    let (event, timer, watch) = unsafe {
        let timer = libc::timerfd_create(libc::CLOCK_MONOTONIC, 0);
        (owned(libc::eventfd(0, 0)), owned(timer), owned(libc::inotify_init1(0)))
    };
    let mut counter = File::from(event.try_clone().unwrap());
    check_waits("an eventfd", event, read, || counter.write_all(&1u64.to_ne_bytes()).unwrap());

    let number = timer.as_raw_fd();
    check_waits("a timerfd", timer, read, || {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let soon = libc::timespec { tv_sec: 0, tv_nsec: 1 };
        let times = libc::itimerspec { it_interval: zero, it_value: soon };
        // SAFETY: the structure is a live variable.
        assert_eq!(unsafe { libc::timerfd_settime(number, 0, &times, std::ptr::null_mut()) }, 0);
    });

    let folder = crate::operations::Folder::new("nonblock");
    let path = std::ffi::CString::new(folder.0.to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string.
    let added =
        unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) };
    assert!(added >= 0);
    check_waits("an inotify", watch, read, || drop(folder.file("new", "")));

    let (fd, mut other) = terminal();
    check_waits("a terminal", fd, read, || other.write_all(b"x").unwrap());
}

#[test]
fn s13_sends_wait_for_what_is_full() {
    let send = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.send(fd, "x", 0, move |_, got, _| done(got.map(drop)))
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut other = listener.accept().unwrap().0;
    one.set_nonblocking(true).unwrap();
    // TCP moves some data to the other end later: a full socket takes no byte for 100 ms.
    let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while one.write(&[0]).is_ok() {
        while one.write(&[0; 1 << 16]).is_ok() {}
        poll(&mut [PollFd::new(&one, PollFlags::OUT)], Some(&pause)).unwrap();
    }
    other.set_nonblocking(true).unwrap();
    check_waits("TCP", OwnedFd::from(one), send, || while other.read(&mut [0; 1 << 16]).is_ok() {});

    let (one, other) = UnixDatagram::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    while one.send(b"x").is_ok() {}
    other.set_nonblocking(true).unwrap();
    let ready = || while other.recv(&mut [0]).is_ok() {};
    check_waits("datagrams", OwnedFd::from(one), send, ready);

    // A stopped terminal.
    let (fd, _other) = terminal();
    let number = fd.as_raw_fd();
    let flow = move |action| {
        // SAFETY: `tcflow` takes only numbers.
        assert_eq!(unsafe { libc::tcflow(number, action) }, 0);
    };
    flow(libc::TCOOFF);
    let write = |lp: &Loop, fd, done: Box<dyn Fn(_)>| {
        lp.write(fd, "x", None, move |_, got, _| done(got.map(drop)))
    };
    check_waits("a terminal", fd, write, || flow(libc::TCOON));
}

/// connect(2) documents EAGAIN for a Unix socket whose listener has a full queue.
#[test]
fn s13_connecting_to_a_full_listener_says_eagain_with_o_nonblock() {
    let lp = real_loop();
    let socket = || {
        // SAFETY: `socket` takes only numbers.
        owned(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
    };
    let folder = crate::operations::Folder::new("listener");
    let path = folder.0.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // SAFETY: `listen` takes only numbers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let _first = UnixStream::connect(&path).unwrap();
    let second = socket();
    set_nonblock(&second);
    let result = Rc::new(Cell::new(None));
    let inner = Rc::clone(&result);
    let address = std::os::unix::net::SocketAddr::from_pathname(&path).unwrap();
    lp.connect(second, address, move |_, connected| inner.set(Some(connected))).unwrap();
    lp.run().unwrap();
    assert_eq!(result.get().unwrap().map_err(|error| error.raw_os_error()), Err(libc::EAGAIN));
}

/// splice(2) documents this EAGAIN.
#[test]
fn s13_splice_says_eagain_with_o_nonblock() {
    let lp = real_loop();
    let ((reader, _writer), (_reader, writer)) =
        (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    set_nonblock(&reader);
    let result = Rc::new(Cell::new(None));
    let inner = Rc::clone(&result);
    lp.splice((reader, None), (writer, None), 10, 0, move |_, spliced| inner.set(Some(spliced)))
        .unwrap();
    lp.run().unwrap();
    assert_eq!(result.get().unwrap().map_err(|error| error.raw_os_error()), Err(libc::EAGAIN));
}

#[test]
fn s13_an_empty_message_does_not_end_recv_multi() {
    let lp = real_loop();
    let (one, other) = UnixDatagram::pair().unwrap();
    let got = Rc::new(RefCell::new(Vec::new()));
    let inner = Rc::clone(&got);
    let received = move |_: &Loop, data: Result<&[u8], Error>| {
        inner.borrow_mut().push(data.map(<[u8]>::to_vec).map_err(|error| error.raw_os_error()));
    };
    let handle = lp.recv_multi(one, &lp.buffers(4, 100).unwrap(), received).unwrap();
    for text in ["", "a", "", "", "bc"] {
        other.send(text.as_bytes()).unwrap();
    }
    while got.borrow().len() < 5 {
        lp.run_once(Duration::MAX).unwrap();
    }
    lp.cancel(handle).unwrap();
    lp.run().unwrap();
    let sent = ["", "a", "", "", "bc"].map(|text| Ok(text.as_bytes().to_vec()));
    assert_eq!(got.borrow()[..5], sent);
    assert_eq!(got.borrow()[5..], [Err(libc::ECANCELED)]);
}

/// Messages that were sent before the end of a message socket arrive before the end.
#[test]
fn s13_the_end_of_messages_ends_recv_multi() {
    let lp = real_loop();
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the array is a live variable.
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }, 0);
    let [one, other] = fds.map(owned);
    let got = Rc::new(RefCell::new(Vec::new()));
    let inner = Rc::clone(&got);
    let received = move |_: &Loop, data: Result<&[u8], Error>| {
        inner.borrow_mut().push(data.unwrap().len());
    };
    lp.recv_multi(one, &lp.buffers(4, 100).unwrap(), received).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    for length in [0, 3, 0, 0, 2] {
        // SAFETY: the string has at least `length` bytes.
        let sent = unsafe { libc::send(other.as_raw_fd(), b"abc".as_ptr().cast(), length, 0) };
        assert_eq!(sent, length as isize);
    }
    drop(other);
    lp.run().unwrap();
    assert_eq!(*got.borrow(), [0, 3, 0, 0, 2, 0]);
}

/// A shutdown wakes no waiting receive. From Linux 6.0 on, the kernel then waits for datagrams.
#[test]
fn s13_recv_multi_of_what_is_shut_down_does_not_spin() {
    const SEND_ZC: u8 = 47;
    let lp = real_loop();
    let (one, other) = UnixDatagram::pair().unwrap();
    other.send(b"").unwrap();
    other.send(b"a").unwrap();
    one.shutdown(std::net::Shutdown::Read).unwrap();
    let got = Rc::new(RefCell::new(Vec::new()));
    let inner = Rc::clone(&got);
    let received = move |_: &Loop, data: Result<&[u8], Error>| {
        inner.borrow_mut().push(data.map(<[u8]>::len).ok());
    };
    let handle = lp.recv_multi(one, &lp.buffers(4, 100).unwrap(), received).unwrap();
    for _ in 0..50 {
        lp.run_once(Duration::from_millis(1)).unwrap();
    }
    // Multishot receives came with Linux 6.0, as SEND_ZC did.
    let ended = if lp.supports(SEND_ZC) { None } else { Some(Some(0)) };
    assert_eq!(*got.borrow(), [Some(0), Some(1)].into_iter().chain(ended).collect::<Vec<_>>());
    assert_eq!(lp.is_pending(handle), ended.is_none());
    let _ = lp.cancel(handle);
    lp.run().unwrap();
}

#[test]
fn s13_recv_multi_on_an_idle_pipe_says_enotsock() {
    let lp = real_loop();
    let (reader, _writer) = std::io::pipe().unwrap();
    let result = Rc::new(Cell::new(None));
    let inner = Rc::clone(&result);
    let received = move |_: &Loop, data: Result<&[u8], Error>| {
        assert_eq!(inner.replace(Some(data.map(drop))), None);
    };
    lp.recv_multi(reader, &lp.buffers(4, 100).unwrap(), received).unwrap();
    for _ in 0..100 {
        if result.get().is_none() {
            lp.run_once(Duration::from_millis(10)).unwrap();
        }
    }
    assert_eq!(
        result.get().expect("the receive still waits").map_err(|error| error.raw_os_error()),
        Err(libc::ENOTSOCK)
    );
}
