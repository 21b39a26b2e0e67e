//! On a descriptor with O_NONBLOCK operations wait, as on any other; and what is no stream. S13.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use ringloop::{Error, Handle, Loop};

use crate::trace::real_loop;

fn set_nonblock(fd: impl AsFd) {
    let mut on: libc::c_int = 1;
    // SAFETY: the number is read from a live variable.
    assert_eq!(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONBIO, &raw mut on) }, 0);
}

/// Sees that what is begun on a loop has no result until something is made ready, and a good one
/// then.
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

/// A stream that takes no more, and its other end.
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

/// As splice(2) has it.
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
        result.get().expect("it waits").map_err(|error| error.raw_os_error()),
        Err(libc::ENOTSOCK)
    );
}
