//! Streams, listeners and datagrams of tasks: buffers come back, and cancelling loses no data. S13,
//! S14, S22, S28.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net as unix;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use libc::{EBUSY, ECANCELED, ECONNREFUSED, EINVAL, ENODATA, ENOENT, EPIPE, ESHUTDOWN, ETIMEDOUT};
use ringloop::net::{ReadHalf, TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use ringloop::{Buffer, BufferMut, Info, Kind, Loop, task};

use crate::support::Watched;
use crate::trace::{Trace, errno, ms, real_loop};

/// Runs a future on a loop of its own, and closes the loop.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let lp = real_loop();
    let output = lp.run_until_complete(future).unwrap();
    lp.close().unwrap();
    output
}

fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Polls a future once; returns the output if the future is complete.
pub(crate) async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Polls a future once, and drops it while it is pending.
async fn begin_and_drop<F: Future>(future: F) {
    assert!(poll_once(pin!(future)).await.is_none());
}

fn room(size: usize) -> Vec<u8> {
    Vec::with_capacity(size)
}

/// A buffer that notes when it is dropped.
#[derive(Debug)]
struct Noted(Vec<u8>, Trace);

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.add("buffer");
    }
}

// SAFETY: the inner vector guarantees its bytes.
unsafe impl Buffer for Noted {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

// SAFETY: the inner vector guarantees its space.
unsafe impl BufferMut for Noted {
    fn room(&mut self) -> (*mut u8, usize) {
        self.0.room()
    }

    unsafe fn filled(&mut self, count: usize) {
        // SAFETY: the caller guarantees that `count` bytes are filled.
        unsafe { self.0.filled(count) }
    }
}

/// Closes a stream, also in a child that another test has just forked.
pub(crate) fn hang_up(mut stream: UnixStream) {
    stream.shutdown(Shutdown::Both).unwrap();
}

/// Connects until a connect is refused: a child that another test has just forked may have the
/// listener open.
async fn until_refused<T>(connect: impl AsyncFn() -> ringloop::Result<T>) {
    while connect().await.map(drop).map_err(|error| error.raw_os_error()) != Err(ECONNREFUSED) {
        settle().await;
    }
}

/// Waits until sent data has arrived in the socket, so that a receive that begins afterwards takes
/// the data at once.
async fn settle() {
    task::sleep(ms(2)).await.unwrap();
}

// ---- success ----

#[test]
fn what_is_written_is_read() {
    let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let copy = sent.clone();
    let received = run(async move {
        let listener = TcpListener::bind(localhost()).unwrap();
        let address = listener.local_addr().unwrap();
        let echo = task::spawn(async move {
            let mut stream = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            loop {
                let (read, buffer) = stream.read(room(10000)).await;
                if read.unwrap() == 0 {
                    break;
                }
                assert_eq!(stream.write_all(buffer).await.0, Ok(()));
            }
        })
        .unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.peer_addr(), Ok(address));
        let (mut reader, mut writer) = client.into_split();
        let sender = task::spawn(async move {
            let (written, buffer) = writer.write_all(copy).await;
            assert_eq!((written, buffer.len()), (Ok(()), 3_000_000));
            writer.shutdown().unwrap();
        })
        .unwrap();
        let (read, received) = reader.read_exact(room(3_000_000)).await;
        assert_eq!(read, Ok(()));
        assert_eq!(reader.read(room(1)).await.0, Ok(0));
        sender.await.unwrap();
        echo.await.unwrap();
        received
    });
    assert!(received == sent);
}

#[test]
fn a_listener_keeps_as_many_connections_as_the_system_allows() {
    let listener = TcpListener::bind(localhost()).unwrap();
    let allowed: u32 =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    // `tcp_info` of a listening socket: after eight bytes, the sixth number is the queue's size.
    let mut info = [0u32; 64];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to a live variable.
    let result = unsafe {
        let fd = listener.as_fd().as_raw_fd();
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    assert_eq!((result, info[7]), (0, allowed));
}

#[test]
fn unix_sockets_listen_connect_and_come_in_pairs() {
    let path = std::env::temp_dir().join(format!("ringloop-{}-unix", std::process::id()));
    let inner = path.clone();
    run(async move {
        let listener = UnixListener::bind(&inner).unwrap();
        let connecting = task::spawn(UnixStream::connect(inner.clone())).unwrap();
        let mut server = listener.accept().await.unwrap();
        let mut client = connecting.await.unwrap().unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*inner));
        assert_eq!(client.write("hello").await, (Ok(5), "hello"));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read_exact(room(5)).await, (Ok(()), b"hello".to_vec()));
        assert_eq!(server.read(room(5)).await.0, Ok(0));
        let (mut one, mut other) = UnixStream::pair().unwrap();
        assert_eq!(one.write_all(vec![7; 3]).await, (Ok(()), vec![7; 3]));
        // `read_exact` fills a box from its beginning, in as many parts as arrive.
        let (mut reader, _writer) = other.into_split();
        let filled =
            task::spawn(async move { reader.read_exact(Box::<[u8]>::from([0; 5])).await }).unwrap();
        settle().await;
        assert_eq!(one.write_all("ab").await.0, Ok(()));
        assert_eq!(filled.await.unwrap(), (Ok(()), Box::from([7, 7, 7, b'a', b'b'])));
        other = UnixStream::pair().unwrap().0;
        assert_eq!(other.read(room(1)).await.0, Ok(0));
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn datagrams_tell_who_sent_them() {
    run(async {
        let one = UdpSocket::bind(localhost()).unwrap();
        let other = UdpSocket::bind(localhost()).unwrap();
        let (from, to) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        assert_eq!(one.send_to("hello", to).await, (Ok(5), "hello"));
        assert_eq!(other.recv_from(room(100)).await, (Ok((5, from)), b"hello".to_vec()));
        other.connect(from).unwrap();
        one.connect(to).unwrap();
        assert_eq!(other.send("").await.0, Ok(0));
        assert_eq!(one.recv(room(100)).await.0, Ok(0));
        assert_eq!(other.send(vec![1, 2, 3]).await.0, Ok(3));
        let (got, start) = one.recv(Box::<[u8]>::from([0; 2])).await;
        assert_eq!((got, &start[..]), (Ok(2), &[1, 2][..]));
        assert_eq!(other.send("next").await.0, Ok(4));
        assert_eq!(one.recv(room(10)).await, (Ok(4), b"next".to_vec()));
    });
}

#[test]
fn a_host_is_found_by_its_name() {
    run(async {
        let listener = TcpListener::bind(localhost()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connecting = task::spawn(TcpStream::connect_host("localhost", port)).unwrap();
        let accepted = listener.accept().await.unwrap();
        let stream = connecting.await.unwrap().unwrap();
        assert_eq!(stream.local_addr(), accepted.peer_addr());
        drop(listener);
        until_refused(async || TcpStream::connect_host("localhost", port).await).await;
        assert_eq!(
            errno(TcpStream::connect_host("name.invalid.", port).await.map_err(no_answer)),
            ENOENT
        );
    });
}

/// Replaces the error of a machine without name servers, EAGAIN or EIO, with ENOENT.
fn no_answer(error: ringloop::Error) -> ringloop::Error {
    let lp = real_loop();
    let stale = lp.call_soon(|_| {}).unwrap();
    lp.run().unwrap();
    if matches!(error.raw_os_error(), libc::EAGAIN | libc::EIO) {
        lp.cancel(stale).unwrap_err()
    } else {
        error
    }
}

#[test]
fn what_was_nonblocking_waits() {
    run(async {
        let (one, other) = unix::UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let (mut one, mut other) =
            (UnixStream::from_std(one).unwrap(), UnixStream::from_std(other).unwrap());
        let reading = task::spawn(async move { one.read(room(10)).await }).unwrap();
        settle().await;
        assert_eq!(other.write("x").await.0, Ok(1));
        assert_eq!(reading.await.unwrap(), (Ok(1), b"x".to_vec()));
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = task::spawn(async move { listener.accept().await }).unwrap();
        settle().await;
        let client = net::TcpStream::connect(address).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from_std(client).unwrap();
        drop(accepting.await.unwrap().unwrap());
        assert_eq!(client.read(room(1)).await.0, Ok(0));
    });
}

// ---- failure ----

#[test]
fn s28_a_buffer_comes_back_whatever_fails() {
    let lp = real_loop();
    let trace = Trace::new();
    let buffer = || Noted(b"12".to_vec(), trace.clone());
    let mut tight = buffer();
    tight.0.shrink_to_fit();
    let work = async {
        let (mut one, other) = UnixStream::pair().unwrap();
        // The buffer has no space.
        let (read, back) = one.read(tight).await;
        assert_eq!((errno(read), &back.0[..], trace.len()), (EINVAL, &b"12"[..], 0));
        let (read, tight) = one.read_exact(back).await;
        assert_eq!((errno(read), trace.len()), (EINVAL, 0));
        hang_up(other);
        // The peer has hung up.
        let (written, back) = one.write(buffer()).await;
        assert_eq!((errno(written), &back.0[..]), (EPIPE, &b"12"[..]));
        let (written, back) = one.write_all(back).await;
        assert_eq!((errno(written), &back.0[..], trace.len()), (EPIPE, &b"12"[..], 0));
        // The stream ends too early.
        let (mut one, mut other) = UnixStream::pair().unwrap();
        other.write_all("345").await.0.unwrap();
        drop(other);
        let mut back = back;
        back.0.reserve_exact(100);
        let (read, back) = one.read_exact(back).await;
        assert_eq!((errno(read), &back.0[..], trace.len()), (ENODATA, &b"12345"[..], 0));
        // The kernel refuses to send.
        let unconnected = UdpSocket::bind(localhost()).unwrap();
        let (sent, back) = unconnected.send(back).await;
        assert_eq!((sent.is_err(), &back.0[..], trace.len()), (true, &b"12345"[..], 0));
        drop(back);
        assert_eq!(trace.take(), ["buffer"]);
        tight
    };
    let mut tight = lp.run_until_complete(work).unwrap();
    // The loop is shut down: the submission is refused, also outside of a run.
    let (one, _other) = lp.run_until_complete(async { UnixStream::pair().unwrap() }).unwrap();
    let (mut reader, mut writer) = one.into_split();
    tight.0.reserve(10);
    lp.shutdown().unwrap();
    let other_loop = real_loop();
    let (read, back) = futures_util::FutureExt::now_or_never(reader.read(tight)).unwrap();
    assert_eq!((errno(read), &back.0[..], trace.len()), (EINVAL, &b"12"[..], 0));
    let (written, back) = futures_util::FutureExt::now_or_never(writer.write_all(back)).unwrap();
    assert_eq!((errno(written), &back.0[..], trace.len()), (EINVAL, &b"12"[..], 0));
    drop(other_loop);
}

#[test]
fn s22_a_loop_that_is_shut_down_gives_buffers_back() {
    let lp = real_loop();
    let trace = Trace::new();
    let (one, other) = lp.run_until_complete(async { UnixStream::pair().unwrap() }).unwrap();
    let (mut reader, mut writer) = one.into_split();
    let mut buffer = Noted(b"12".to_vec(), trace.clone());
    buffer.0.reserve(100);
    let mut reading = pin!(reader.read(buffer));
    lp.run_until_complete(async { assert!(poll_once(reading.as_mut()).await.is_none()) }).unwrap();
    let inner = trace.clone();
    // The callbacks that run during the shutdown see a loop that accepts nothing.
    let handle = lp
        .read(unix::UnixStream::pair().unwrap().0, room(1), None, move |_, _, _| {
            let buffer = Noted(b"3".to_vec(), inner.clone());
            let (written, back) =
                futures_util::FutureExt::now_or_never(writer.write(buffer)).unwrap();
            assert_eq!((errno(written), &back.0[..], inner.len()), (ESHUTDOWN, &b"3"[..], 0));
        })
        .unwrap();
    assert!(lp.is_pending(handle));
    lp.shutdown().unwrap();
    assert_eq!(trace.take(), ["buffer"]);
    let (read, back) = futures_util::FutureExt::now_or_never(reading).unwrap();
    assert_eq!((errno(read), &back.0[..], trace.len()), (ECANCELED, &b"12"[..], 0));
    drop(back);
    lp.close().unwrap();
    drop(other);
    assert_eq!(trace.take(), ["buffer"]);
}

#[test]
fn s22_what_is_in_flight_when_the_loop_is_closed_is_dropped_once() {
    type End = fn(Watched);
    let ends: [End; 2] = [drop, |lp| lp.close().unwrap()];
    for end in ends {
        for outlives in [false, true] {
            let lp = real_loop();
            let trace = Trace::new();
            let (one, other) =
                lp.run_until_complete(async { UnixStream::pair().unwrap() }).unwrap();
            let (mut reader, writer) = one.into_split();
            let buffer = Noted(room(100), trace.clone());
            if outlives {
                // The future belongs to no task, and is polled after the end of the loop.
                let mut reading = pin!(reader.read(buffer));
                lp.run_until_complete(async {
                    assert!(poll_once(reading.as_mut()).await.is_none())
                })
                .unwrap();
                end(lp);
                assert_eq!(trace.len(), 0);
                let (read, _back) = futures_util::FutureExt::now_or_never(reading).unwrap();
                assert_eq!(errno(read), ECANCELED);
            } else {
                let mut other_reader = other.into_split().0;
                let dropped = trace.on_drop("future");
                drop(
                    lp.spawn(async move {
                        let _dropped = dropped;
                        begin_and_drop(reader.read(Noted(room(50), buffer.1.clone()))).await;
                        reader.read(buffer).await
                    })
                    .unwrap(),
                );
                drop(lp.spawn(async move { other_reader.read(room(7)).await }).unwrap());
                assert_eq!(lp.run_once(ms(0)), Ok(2));
                // The socket owns the remaining buffers, and drops them.
                drop(writer);
                end(lp);
            }
            let mut dropped = trace.take();
            dropped.sort_unstable();
            assert_eq!(
                dropped,
                if outlives { &["buffer"][..] } else { &["buffer", "buffer", "future"] }
            );
        }
    }
}

#[test]
fn a_second_receive_at_a_time_is_refused() {
    run(async {
        let socket = Rc::new(UdpSocket::bind(localhost()).unwrap());
        let address = socket.local_addr().unwrap();
        let mut first = Box::pin(socket.recv(room(10)));
        assert!(poll_once(first.as_mut()).await.is_none());
        let (got, back) = socket.recv_from(room(20)).await;
        assert_eq!((errno(got), back.capacity()), (EBUSY, 20));
        socket.send_to("x", address).await.0.unwrap();
        assert_eq!(first.await.0, Ok(1));
        socket.send_to("y", address).await.0.unwrap();
        assert_eq!(socket.recv(room(10)).await.0, Ok(1));
        let listener = TcpListener::bind(localhost()).unwrap();
        let mut first = Box::pin(listener.accept());
        assert!(poll_once(first.as_mut()).await.is_none());
        assert_eq!(errno(listener.accept().await), EBUSY);
        drop(first);
        assert_eq!(errno(task::timeout(ms(1), listener.accept()).await), ETIMEDOUT);
    });
}

// ---- cancelling ----

#[test]
fn s13_what_a_dropped_read_has_taken_is_read_next() {
    run(async {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let trace = Trace::new();
        for round in 0..20 {
            one.write_all("abcdefgh").await.0.unwrap();
            // The read takes the data when it is submitted: each cancel is too late.
            begin_and_drop(other.read(Noted(room(100), trace.clone()))).await;
            one.write_all("ijk").await.0.unwrap();
            let (read, first) = other.read(Box::<[u8]>::from([0; 3])).await;
            assert_eq!((read, &first[..]), (Ok(3), &b"abc"[..]), "round {round}");
            // No read that is dropped here takes more data before the rest has been read.
            begin_and_drop(async {
                let mut rest = pin!(other.read(room(100)));
                let polled = poll_once(rest.as_mut()).await;
                assert_eq!(polled, Some((Ok(5), b"defgh".to_vec())));
                std::future::pending::<()>().await;
            })
            .await;
            assert_eq!(trace.take(), ["buffer"], "the buffer is kept while it has data");
            assert_eq!(other.read_exact(room(3)).await, (Ok(()), b"ijk".to_vec()));
        }
    });
}

#[test]
fn s13_a_read_that_was_cancelled_in_time_leaves_nothing() {
    run(async {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let trace = Trace::new();
        for _ in 0..5 {
            assert_eq!(
                errno(task::timeout(ms(1), other.read(Noted(room(9), trace.clone()))).await),
                ETIMEDOUT
            );
        }
        one.write_all("x").await.0.unwrap();
        assert_eq!(other.read(room(9)).await, (Ok(1), b"x".to_vec()));
        assert_eq!(trace.take(), ["buffer"; 5]);
    });
}

#[test]
fn s14_the_buffer_of_a_dropped_read_lives_until_the_kernel_has_let_go() {
    let lp = real_loop();
    let trace = Trace::new();
    let noted = trace.clone();
    lp.run_until_complete(async {
        let (mut one, _other) = UnixStream::pair().unwrap();
        {
            let mut reading = pin!(one.read(Noted(room(9), noted.clone())));
            assert!(poll_once(reading.as_mut()).await.is_none());
            settle().await;
        }
        assert_eq!(noted.len(), 0, "the kernel uses the buffer");
        drop(one);
        assert_eq!(noted.len(), 0, "the kernel uses the buffer");
        settle().await;
        assert_eq!(noted.len(), 1);
    })
    .unwrap();
}

#[test]
fn s13_the_end_and_errors_that_nobody_has_seen_are_told_next() {
    run(async {
        let (one, mut other) = UnixStream::pair().unwrap();
        drop(one);
        begin_and_drop(other.read(room(9))).await;
        assert_eq!(other.read(room(9)).await.0, Ok(0));
        // The kernel reports a reset once.
        let listener = TcpListener::bind(localhost()).unwrap();
        let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = listener.accept().await.unwrap();
        stream.write_all("unread").await.0.unwrap();
        settle().await;
        drop(peer);
        settle().await;
        begin_and_drop(stream.read(room(9))).await;
        settle().await;
        assert_eq!(errno(stream.read(room(9)).await.0), libc::ECONNRESET);
    });
}

#[test]
fn s13_a_connection_that_was_accepted_for_nobody_is_accepted_next() {
    run(async {
        let listener = TcpListener::bind(localhost()).unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..10 {
            let first = net::TcpStream::connect(address).unwrap();
            begin_and_drop(listener.accept()).await;
            settle().await;
            let second = net::TcpStream::connect(address).unwrap();
            for client in [&first, &second] {
                assert_eq!(
                    listener.accept().await.unwrap().peer_addr().unwrap(),
                    client.local_addr().unwrap()
                );
            }
        }
        // An accepted connection that no one has got is closed with the listener.
        let mut last = TcpStream::from_std(net::TcpStream::connect(address).unwrap()).unwrap();
        begin_and_drop(listener.accept()).await;
        settle().await;
        drop(listener);
        assert_eq!(last.read(room(1)).await.0, Ok(0));
    });
}

#[test]
fn s13_a_datagram_that_was_received_for_nobody_is_received_next() {
    run(async {
        let one = UdpSocket::bind(localhost()).unwrap();
        let other = UdpSocket::bind(localhost()).unwrap();
        let (from, to) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        one.send_to("first", to).await.0.unwrap();
        begin_and_drop(other.recv(room(100))).await;
        settle().await;
        one.send_to("second", to).await.0.unwrap();
        // The part of a datagram for which the buffer has no space is lost, as always.
        let (got, start) = other.recv_from(Box::<[u8]>::from([0; 2])).await;
        assert_eq!((got, &start[..]), (Ok((2, from)), &b"fi"[..]));
        assert_eq!(other.recv_from(room(100)).await, (Ok((6, from)), b"second".to_vec()));
    });
}

#[test]
fn s13_a_dropped_write_has_sent_a_beginning_and_nothing_later() {
    run(async {
        let large: Vec<u8> = (0..5_000_000u32).map(|number| (number % 251) as u8).collect();
        for _ in 0..10 {
            let (mut one, other) = UnixStream::pair().unwrap();
            let mut peer = unix::UnixStream::from(other.as_fd().try_clone_to_owned().unwrap());
            {
                let mut writing = pin!(one.write_all(large.clone()));
                assert!(poll_once(writing.as_mut()).await.is_none());
                settle().await;
            }
            // The socket has space again before the kernel gets the cancel.
            let mut all = vec![0; 100_000];
            let drained = peer.read(&mut all).unwrap();
            all.truncate(drained);
            let writing = task::spawn(async move { one.write_all("the end").await.0 }).unwrap();
            let mut other = other;
            loop {
                let (read, part) = other.read(room(65536)).await;
                if read.unwrap() == 0 {
                    break;
                }
                all.extend(part);
            }
            writing.await.unwrap().unwrap();
            assert!(all.ends_with(b"the end"));
            all.truncate(all.len() - 7);
            assert!(large.starts_with(&all));
        }
    });
}

#[test]
fn s13_one_operation_of_a_kind_is_under_way_at_a_time() {
    fn under_way() -> usize {
        let count = Cell::new(0);
        let note =
            |info: &Info| count.set(count.get() + usize::from(info.kind() == Kind::Operation));
        Loop::with_running(|lp| lp.unwrap().walk(|_, info| note(info)).unwrap());
        count.get()
    }
    run(async {
        let (one, _other) = unix::UnixStream::pair().unwrap();
        // The socket is full, so that no send completes by itself.
        one.set_nonblocking(true).unwrap();
        while (&one).write(&[0; 1000]).is_ok() {}
        let (mut reader, mut writer) = UnixStream::from_std(one).unwrap().into_split();
        {
            let mut writing = pin!(writer.write_all(vec![0; 10]));
            assert!(poll_once(writing.as_mut()).await.is_none());
            settle().await;
        }
        assert_eq!(under_way(), 1);
        let mut writing = pin!(writer.write(vec![0; 10]));
        assert!(poll_once(writing.as_mut()).await.is_none());
        assert_eq!(under_way(), 1, "the next write waits for the end of the cancelled one");
        settle().await;
        assert!(poll_once(writing.as_mut()).await.is_none());
        assert_eq!(under_way(), 1);
        begin_and_drop(reader.read(room(10))).await;
        begin_and_drop(reader.read(room(10))).await;
        assert_eq!(under_way(), 2, "the next read waits, too");
    });
}

#[test]
fn s14_the_descriptor_of_a_dropped_read_is_kept_until_the_kernel_has_let_go() {
    run(async {
        let (mut one, mut peer) = UnixStream::pair().unwrap();
        begin_and_drop(one.read(room(10))).await;
        drop(one);
        // If the number were free, the entry (not submitted yet) would read another file.
        let others: Vec<_> = (0..4).map(|_| unix::UnixStream::pair().unwrap()).collect();
        for (ours, theirs) in &others {
            (&*theirs).write_all(b"x").unwrap();
            (&*ours).write_all(b"x").unwrap();
        }
        settle().await;
        for (ours, theirs) in &others {
            for mut end in [ours, theirs] {
                end.set_nonblocking(true).unwrap();
                assert_eq!(end.read(&mut [0; 9]).ok(), Some(1));
            }
        }
        assert_eq!(peer.read(room(1)).await.0, Ok(0), "the stream is closed");
    });
}

#[test]
fn a_connect_that_is_dropped_gives_up() {
    run(async {
        // The listener's queue is full, so a connect waits.
        let address = net_address("ringloop-full");
        let listener = full_listener(&address);
        let connecting = UnixStream::connect_addr(&address);
        assert_eq!(errno(task::timeout(ms(5), connecting).await), ETIMEDOUT);
        drop(listener);
        until_refused(async || task::timeout(ms(5), UnixStream::connect_addr(&address)).await?)
            .await;
        let refusing = TcpListener::bind(localhost()).unwrap().local_addr().unwrap();
        until_refused(async || TcpStream::connect(refusing).await).await;
    });
}

fn net_address(name: &str) -> unix::SocketAddr {
    use std::os::linux::net::SocketAddrExt;
    unix::SocketAddr::from_abstract_name(format!("{name}-{}", std::process::id())).unwrap()
}

/// A listener with a full queue.
fn full_listener(address: &unix::SocketAddr) -> (unix::UnixListener, unix::UnixStream) {
    let listener = unix::UnixListener::bind_addr(address).unwrap();
    // SAFETY: listen takes any numbers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    (listener, unix::UnixStream::connect_addr(address).unwrap())
}

#[test]
fn an_aborted_task_gives_what_it_has_read_to_the_next() {
    run(async {
        let (mut one, other) = UnixStream::pair().unwrap();
        let reader = Rc::new(Cell::new(Some(other.into_split().0)));
        let take = |reader: &Rc<Cell<Option<ReadHalf>>>| {
            struct PutBack(Rc<Cell<Option<ReadHalf>>>, Option<ReadHalf>);
            impl Drop for PutBack {
                fn drop(&mut self) {
                    self.0.set(self.1.take());
                }
            }
            let half = reader.take();
            PutBack(Rc::clone(reader), half)
        };
        let mut taken = take(&reader);
        let reading =
            task::spawn(async move { taken.1.as_mut().unwrap().read(room(100)).await }).unwrap();
        task::yield_now().await;
        one.write_all("kept").await.0.unwrap();
        reading.abort();
        let mut taken = take(&reader);
        assert_eq!(taken.1.as_mut().unwrap().read(room(100)).await, (Ok(4), b"kept".to_vec()));
    });
}
