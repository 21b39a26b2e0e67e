//! Sends: the owner of the buffer, and the order of the data. S13.

use std::cell::RefCell;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use libc::{EINVAL, c_int};
use ringloop::{Completion, Handle, Loop, Sqe};

use crate::trace::real_loop;

const MSG_SPLICE_PAGES: c_int = 0x800_0000;
const MSG_SOCK_DEVMEM: c_int = 0x200_0000;
const MSG_ZEROCOPY: c_int = 0x400_0000;

/// From `linux/io_uring.h`.
const SENDMSG: u8 = 9;
const RECVMSG: u8 = 10;
const SEND: u8 = 26;
const RECV: u8 = 27;
const SEND_ZC: u8 = 47;

/// A loopback connection that allows sends without a copy.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let on: c_int = 1;
    // SAFETY: the option's value is a live number of 4 bytes.
    let set = unsafe {
        libc::setsockopt(
            one.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY,
            (&raw const on).cast(),
            4,
        )
    };
    assert_eq!(set, 0);
    (one, listener.accept().unwrap().0)
}

/// The message of the error, if the flags are refused.
fn refusal(submitted: Result<Handle, ringloop::Error>) -> Option<String> {
    let error = submitted.err()?;
    assert_eq!(error.raw_os_error(), EINVAL);
    Some(error.to_string())
}

#[test]
fn s13_flags_that_keep_the_buffer_are_refused_by_name() {
    let lp = real_loop();
    let (one, _other) = connection();
    let one = Rc::new(one);
    let udp = Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = udp.local_addr().unwrap();
    let sending = libc::MSG_CONFIRM
        | libc::MSG_DONTROUTE
        | libc::MSG_DONTWAIT
        | libc::MSG_EOR
        | libc::MSG_FASTOPEN
        | libc::MSG_MORE
        | libc::MSG_NOSIGNAL
        | libc::MSG_OOB
        | libc::MSG_WAITALL;
    let receiving = libc::MSG_CMSG_CLOEXEC
        | libc::MSG_DONTWAIT
        | libc::MSG_ERRQUEUE
        | libc::MSG_NOSIGNAL
        | libc::MSG_OOB
        | libc::MSG_PEEK
        | libc::MSG_WAITALL;
    let name_of_send = |flag| match flag {
        MSG_ZEROCOPY => "MSG_ZEROCOPY is refused",
        MSG_SPLICE_PAGES => "MSG_SPLICE_PAGES is refused",
        _ => "have a bit",
    };
    let name_of_receive = |flag| match flag {
        MSG_SOCK_DEVMEM => "MSG_SOCK_DEVMEM is refused",
        libc::MSG_TRUNC => "MSG_TRUNC is refused",
        _ => "have a bit",
    };
    let room = || Vec::<u8>::with_capacity(10);
    for bit in 0..32 {
        let flag = 1 << bit;
        let sends = [
            lp.send(Rc::clone(&one), "x", flag, |_, _, _| {}),
            lp.send_all(Rc::clone(&one), "x", flag, |_, _, _| {}),
            lp.send_to(Rc::clone(&udp), "x", flag, address, |_, _, _| {}),
        ];
        let receives = [
            lp.recv(Rc::clone(&one), room(), flag, |_, _, _| {}),
            lp.recv_from(Rc::clone(&udp), room(), flag, |_, _, _| {}),
        ];
        for (submitted, allowed, name) in sends
            .into_iter()
            .map(|send| (send, sending, name_of_send(flag)))
            .chain(receives.into_iter().map(|receive| (receive, receiving, name_of_receive(flag))))
        {
            match refusal(submitted) {
                None => assert_ne!(allowed & flag, 0, "{flag:#x} is accepted"),
                Some(said) => {
                    assert!(allowed & flag == 0 && said.contains(name), "{flag:#x}: {said}")
                }
            }
        }
    }
}

#[test]
fn s13_entries_that_keep_the_buffer_are_refused_by_name() {
    let lp = real_loop();
    let (one, _other) = connection();
    let text = [1u8; 10];
    for (opcode, flag, name) in [
        (SEND, MSG_ZEROCOPY, "MSG_ZEROCOPY"),
        (SENDMSG, MSG_ZEROCOPY, "MSG_ZEROCOPY"),
        (SEND, MSG_SPLICE_PAGES, "MSG_SPLICE_PAGES"),
        (SENDMSG, MSG_SPLICE_PAGES, "MSG_SPLICE_PAGES"),
        (RECV, MSG_SOCK_DEVMEM, "MSG_SOCK_DEVMEM"),
        (RECVMSG, MSG_SOCK_DEVMEM, "MSG_SOCK_DEVMEM"),
    ] {
        let entry = Sqe { opcode, fd: one.as_raw_fd(), op_flags: flag as u32, ..Sqe::default() };
        // SAFETY: the loop refuses the entry.
        let said = refusal(unsafe { lp.submit(&entry, |_, _| {}) }).expect("a refusal");
        assert!(said.starts_with(&format!("{name} is refused")), "{said}");
    }
    // The kernel, not the loop, refuses flags that are newer than this version.
    let (addr, len) = (text.as_ptr() as u64, text.len() as u32);
    let entry =
        Sqe { opcode: SEND, fd: one.as_raw_fd(), addr, len, op_flags: 1 << 30, ..Sqe::default() };
    // SAFETY: the bytes outlive the loop's run.
    unsafe { lp.submit(&entry, |_, _| {}) }.unwrap();
    lp.run().unwrap();
}

#[test]
fn s13_a_send_without_a_copy_ends_when_the_kernel_lets_go() {
    let lp = real_loop();
    let (one, mut other) = connection();
    let mut text = vec![1u8; 1 << 23];
    let entry = Sqe {
        opcode: SEND_ZC,
        fd: one.as_raw_fd(),
        addr: text.as_mut_ptr() as u64,
        len: text.len() as u32,
        ..Sqe::default()
    };
    let seen = Rc::new(RefCell::new(Vec::<Completion>::new()));
    let inner = Rc::clone(&seen);
    // SAFETY: the bytes outlive the loop's run.
    let submitted =
        unsafe { lp.submit(&entry, move |_, completion| inner.borrow_mut().push(completion)) };
    if !lp.supports(SEND_ZC) {
        assert_eq!(submitted.unwrap_err().raw_os_error(), libc::ENOSYS);
        return;
    }
    let handle = submitted.unwrap();
    while seen.borrow().is_empty() {
        lp.run_once(Duration::MAX).unwrap();
    }
    let (first, sent) = (seen.borrow()[0], seen.borrow()[0].result().unwrap() as usize);
    assert!(first.more() && sent > 1 << 16, "{sent}");
    for _ in 0..100 {
        lp.run_once(Duration::ZERO).unwrap();
    }
    assert!(lp.is_pending(handle) && seen.borrow().len() == 1, "the kernel sends from the buffer");
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; sent];
        other.read_exact(&mut got).unwrap();
        (got, other)
    });
    lp.run().unwrap();
    let (got, _other) = reader.join().unwrap();
    assert!(got.iter().all(|&byte| byte == 1));
    assert!(seen.borrow().len() == 2 && !seen.borrow()[1].more());
}

/// Reads to the end; returns the runs of equal bytes in order: each byte and its count.
fn runs(mut stream: impl Read) -> Vec<(u8, usize)> {
    let (mut runs, mut room) = (Vec::<(u8, usize)>::new(), vec![0; 1 << 16]);
    loop {
        let count = stream.read(&mut room).unwrap();
        if count == 0 {
            return runs;
        }
        for &byte in &room[..count] {
            match runs.last_mut() {
                Some((last, count)) if *last == byte => *count += 1,
                _ => runs.push((byte, 1)),
            }
        }
    }
}

#[test]
fn s13_sends_of_all_on_one_stream_do_not_mix() {
    let lp = real_loop();
    let (one, other) = UnixStream::pair().unwrap();
    let reader = std::thread::spawn(|| runs(other));
    let one = Rc::new(one);
    for letter in 0..6 {
        let (stream, part) = (Rc::clone(&one), vec![letter; 1 << 20]);
        let done = move |_: &Loop, result, part: Vec<u8>| {
            assert_eq!((result, part[0]), (Ok(1 << 20), letter))
        };
        // `send_all` and `write_all` are operations of one kind.
        if letter % 2 == 0 {
            lp.send_all(stream, part, 0, done).unwrap();
        } else {
            lp.write_all(stream, part, None, done).unwrap();
        }
    }
    lp.run().unwrap();
    drop(one);
    assert_eq!(reader.join().unwrap(), (0..6).map(|letter| (letter, 1 << 20)).collect::<Vec<_>>());
}

#[test]
fn s13_a_send_of_all_that_waits_can_be_cancelled() {
    let lp = real_loop();
    let (one, other) = UnixStream::pair().unwrap();
    let one = Rc::new(one);
    let results = Rc::new(RefCell::new(Vec::new()));
    let handles: Vec<Handle> = (0..4)
        .map(|letter| {
            let results = Rc::clone(&results);
            let done = move |_: &Loop, result: Result<usize, ringloop::Error>, part: Vec<u8>| {
                assert_eq!(part.len(), 1 << 20);
                results.borrow_mut().push((letter, result.map_err(|error| error.raw_os_error())));
            };
            lp.send_all(Rc::clone(&one), vec![letter; 1 << 20], 0, done).unwrap()
        })
        .collect();
    lp.run_once(Duration::ZERO).unwrap();
    lp.cancel(handles[2]).unwrap();
    lp.set_deadline(handles[1], lp.time()).unwrap();
    while results.borrow().len() < 2 {
        lp.run_once(Duration::MAX).unwrap();
    }
    results.borrow_mut().sort_unstable();
    assert_eq!(results.take(), [(1, Err(libc::ETIMEDOUT)), (2, Err(libc::ECANCELED))]);
    let reader = std::thread::spawn(|| runs(other));
    lp.run().unwrap();
    drop(one);
    assert_eq!(results.take(), [(0, Ok(1 << 20)), (3, Ok(1 << 20))]);
    assert_eq!(reader.join().unwrap(), [(0, 1 << 20), (3, 1 << 20)]);
}

#[test]
fn s13_a_send_of_all_behind_one_that_fails_goes_on() {
    let lp = real_loop();
    let (one, other) = UnixStream::pair().unwrap();
    let one = Rc::new(one);
    let results = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..2 {
        let results = Rc::clone(&results);
        let done = move |_: &Loop, result: Result<usize, ringloop::Error>, _| {
            results.borrow_mut().push(result.map_err(|error| error.raw_os_error()));
        };
        lp.send_all(Rc::clone(&one), vec![1; 1 << 20], 0, done).unwrap();
    }
    lp.run_once(Duration::ZERO).unwrap();
    drop(other);
    lp.run().unwrap();
    let results = results.take();
    assert!(results[0].is_ok_and(|sent| sent < 1 << 20), "{results:?}");
    assert_eq!(results[1..], [Err(libc::EPIPE)]);
}

/// After `forget_fd`, the number belongs to another socket, whose sends wait for no others.
#[test]
fn s13_sends_of_all_end_with_forget_fd() {
    let lp = real_loop();
    let pairs = [(); 2].map(|()| UnixStream::pair().unwrap());
    let results = Rc::new(RefCell::new(Vec::new()));
    let number = pairs[0].0.as_raw_fd();
    let send = |name, results: &Rc<RefCell<Vec<_>>>| {
        let results = Rc::clone(results);
        let done = move |_: &Loop, result: Result<usize, ringloop::Error>, _| {
            results.borrow_mut().push((name, result.map_err(|error| error.raw_os_error())));
        };
        // SAFETY: the number stays open until the loop has been run to its end.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        lp.send_all(fd, vec![1; 1 << 20], 0, done).unwrap()
    };
    for name in ["first", "second", "third"] {
        send(name, &results);
    }
    lp.run_once(Duration::ZERO).unwrap();
    assert_eq!(lp.forget_fd(number), Ok(0));
    // SAFETY: both numbers are open.
    assert_eq!(unsafe { libc::dup2(pairs[1].0.as_raw_fd(), number) }, number);
    let reader = pairs[1].1.try_clone().unwrap();
    let reader = std::thread::spawn(move || (&reader).take(1 << 20).read_to_end(&mut Vec::new()));
    send("fourth", &results);
    lp.run().unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), 1 << 20);
    let mut results = results.take();
    results.sort_unstable();
    let [first, fourth, second, third] = results[..] else { panic!("{results:?}") };
    assert!(first.1.is_ok_and(|sent| sent < 1 << 20), "{first:?}");
    let cancelled = Err(libc::ECANCELED);
    assert_eq!((fourth.1, second.1, third.1), (Ok(1 << 20), cancelled, cancelled));
}

/// Each write has its own offset in the file.
#[test]
fn s13_writes_of_all_at_offsets_do_not_wait() {
    let lp = real_loop();
    let file = crate::operations::Folder::new("offsets of writes").file("a", "");
    let before = lp.metrics().submitted;
    for at in 0..2 {
        let done = |_: &Loop, result, _| assert_eq!(result, Ok(10));
        lp.write_all(Rc::clone(&file), vec![1; 10], Some(at * 10), done).unwrap();
    }
    lp.run_once(Duration::ZERO).unwrap();
    assert!(lp.metrics().submitted - before >= 2);
    lp.run().unwrap();
}
