//! Typed operations: their buffers come back, and their resources are kept exactly as long as the
//! kernel uses them. S13, S14, S22, S30.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use libc::{
    EBADF, ECANCELED, ECONNREFUSED, EEXIST, EINVAL, ENOENT, ENOSYS, ENOTCONN, EPIPE, ESHUTDOWN,
    ETIMEDOUT,
};
use ringloop::{Address, Buffer, BufferMut, CWD, Error, Handle, Loop, OpenOptions, Outcome, Sqe};

use crate::support::Watched;
use crate::trace::{Trace, errno, ms, panic, panic_in, payload, real_loop};

/// From `linux/io_uring.h`: operations that kernels before 5.11, 5.15 and 5.19 lack.
const SHUTDOWN: u8 = 34;
pub(crate) const UNLINKAT: u8 = 36;
pub(crate) const LINKAT: u8 = 39;
const SOCKET: u8 = 45;

/// The arguments that a callback got.
pub(crate) type Got<T> = Rc<RefCell<Option<T>>>;

pub(crate) fn got<T>() -> (Got<T>, Got<T>) {
    let got = Got::default();
    (Rc::clone(&got), got)
}

/// Runs the loop to its end, and takes the arguments that a callback got meanwhile.
pub(crate) fn finish<T>(lp: &Loop, got: &Got<T>) -> T {
    assert_eq!(lp.run(), Ok(Outcome::Done));
    got.take().expect("a callback has run")
}

/// Submits an operation that has no buffer, and runs until the operation has a result.
pub(crate) fn result_of<T: 'static>(
    lp: &Loop,
    submit: impl FnOnce(Box<dyn FnOnce(&Loop, Result<T, Error>)>) -> Result<Handle, Error>,
) -> Result<T, Error> {
    let (inner, got) = got();
    submit(Box::new(move |_, result| {
        inner.replace(Some(result));
    }))
    .unwrap();
    finish(lp, &got)
}

/// Submits an operation that has a buffer, and runs until the operation has a result.
pub(crate) fn result_with<B: 'static>(
    lp: &Loop,
    submit: impl FnOnce(Box<dyn FnOnce(&Loop, Result<usize, Error>, B)>) -> Result<Handle, Error>,
) -> (Result<usize, Error>, B) {
    let (inner, got) = got();
    submit(Box::new(move |_, result, buffer| {
        inner.replace(Some((result, buffer)));
    }))
    .unwrap();
    finish(lp, &got)
}

/// A new folder, which is removed with its contents when this value is dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ringloop-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> Rc<File> {
        fs::write(self.0.join(name), text).unwrap();
        Rc::new(File::options().read(true).write(true).open(self.0.join(name)).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A descriptor that notes when it is dropped.
struct Noted<D>(D, Trace);

impl<D> Drop for Noted<D> {
    fn drop(&mut self) {
        self.1.add("descriptor");
    }
}

impl<D: AsFd> AsFd for Noted<D> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A buffer that notes when it is dropped.
struct NotedBuffer(Vec<u8>, Trace);

impl Drop for NotedBuffer {
    fn drop(&mut self) {
        self.1.add("buffer");
    }
}

// SAFETY: the inner vector guarantees its bytes.
unsafe impl Buffer for NotedBuffer {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

// SAFETY: the inner vector guarantees its space.
unsafe impl BufferMut for NotedBuffer {
    fn room(&mut self) -> (*mut u8, usize) {
        self.0.room()
    }

    unsafe fn filled(&mut self, count: usize) {
        // SAFETY: the caller guarantees that `count` bytes are filled.
        unsafe { self.0.filled(count) }
    }
}

// ---- buffers ----

#[test]
fn buffers_of_all_kinds_are_taken_from_and_come_back() {
    fn check<B: Buffer>(lp: &Loop, buffer: B, bytes: &str) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (result, back) = result_with(lp, |f| lp.send_all(theirs, buffer, 0, f));
        assert_eq!((result, back.bytes()), (Ok(bytes.len()), bytes.as_bytes()));
        let mut all = String::new();
        ours.read_to_string(&mut all).unwrap();
        assert_eq!(all, bytes);
    }
    let lp = real_loop();
    check(&lp, "text", "text");
    check(&lp, b"bytes", "bytes");
    check(&lp, &b"slice"[..], "slice");
    check(&lp, String::from("string"), "string");
    check(&lp, b"vector".to_vec(), "vector");
    check(&lp, Box::<[u8]>::from(&b"box"[..]), "box");
    check(&lp, Rc::<[u8]>::from(&b"shared"[..]), "shared");
    check(&lp, std::sync::Arc::<[u8]>::from(&b"shared"[..]), "shared");
    check(&lp, "", "");
}

#[test]
fn a_vector_is_appended_to_and_a_box_overwritten() {
    let lp = real_loop();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ours = Rc::new(ours);
    theirs.write_all(b"abcdefgh").unwrap();
    let mut vector = Vec::with_capacity(5);
    vector.extend_from_slice(b"12");
    let (fd, room) = (Rc::clone(&ours), vector.capacity() - 2);
    let (result, vector) = result_with(&lp, |f| lp.recv(fd, vector, 0, f));
    assert_eq!((result, &vector[..]), (Ok(room.min(8)), &b"12abcdefgh"[..2 + room.min(8)]));
    theirs.write_all(b"xyz").unwrap();
    let boxed: Box<[u8]> = Box::from(&b"........................"[..]);
    let (result, boxed) = result_with(&lp, |f| lp.read(ours, boxed, None, f));
    let count = result.unwrap();
    assert!(
        count >= 3
            && boxed[..count].ends_with(b"xyz")
            && boxed[count..].iter().all(|&byte| byte == b'.')
    );
}

#[test]
fn several_buffers_are_filled_one_after_the_other() {
    let lp = real_loop();
    let folder = Folder::new("several");
    let file = folder.file("a", "");
    let fd = Rc::clone(&file);
    let (result, _) = {
        let (inner, got) = got();
        lp.writev(fd, vec!["abc", "defg"], Some(1), move |_, result, back| {
            inner.replace(Some((result, back)));
        })
        .unwrap();
        finish(&lp, &got)
    };
    assert_eq!(result, Ok(7));
    let (inner, got) = got();
    let rooms = vec![Box::<[u8]>::from([b'.'; 2]), Box::from([b'.'; 5]), Box::from([b'.'; 3])];
    lp.readv(Rc::clone(&file), rooms, Some(1), move |_, result, back| {
        inner.replace(Some((result, back)));
    })
    .unwrap();
    let (result, back) = finish(&lp, &got);
    assert_eq!(
        (result, back),
        (Ok(7), vec![Box::from(*b"ab"), Box::from(*b"cdefg"), Box::from(*b"...")])
    );
    let vectors = vec![Vec::with_capacity(2), Vec::with_capacity(100)];
    let (inner, got) = self::got();
    lp.readv(file, vectors, Some(1), move |_, result, back| {
        inner.replace(Some((result, back)));
    })
    .unwrap();
    let (result, back) = finish(&lp, &got);
    assert_eq!((result, back.concat()), (Ok(7), b"abcdefg".to_vec()));
}

#[test]
fn a_buffer_without_room_is_refused_and_so_are_flags_that_lie() {
    let lp = real_loop();
    let trace = Trace::new();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let ours = Rc::new(ours);
    assert_eq!(errno(lp.read(Rc::clone(&ours), Vec::new(), None, |_, _, _| {})), EINVAL);
    assert_eq!(errno(lp.recv(Rc::clone(&ours), Box::<[u8]>::default(), 0, |_, _, _| {})), EINVAL);
    assert_eq!(errno(lp.readv(Rc::clone(&ours), vec![Vec::new()], None, |_, _, _| {})), EINVAL);
    let room = || Vec::with_capacity(1);
    assert_eq!(errno(lp.recv(Rc::clone(&ours), room(), libc::MSG_TRUNC, |_, _, _| {})), EINVAL);
    assert_eq!(
        errno(lp.recv_from(Rc::clone(&ours), room(), libc::MSG_TRUNC, |_, _, _| {})),
        EINVAL
    );
    assert_eq!(errno(lp.open_at(CWD, "a\0b", OpenOptions::new().read(), |_, _| {})), EINVAL);
    // A refused operation drops its descriptor, its buffer and its closure with all captures.
    let (buffer, carried) = (NotedBuffer(Vec::new(), trace.clone()), trace.on_drop("closure"));
    let refused = lp.read(Noted(ours, trace.clone()), buffer, None, move |_, _, _| drop(carried));
    assert_eq!(errno(refused), EINVAL);
    let mut dropped = trace.take();
    dropped.sort_unstable();
    assert_eq!(dropped, ["buffer", "closure", "descriptor"]);
    assert!(!lp.is_alive());
    lp.shutdown().unwrap();
    assert_eq!(errno(lp.socket(libc::AF_INET, libc::SOCK_STREAM, 0, |_, _| {})), ESHUTDOWN);
}

// ---- kept resources ----

/// A NOP returns the result in its entry (Linux 6.11), also -2^31, which has no opposite.
#[test]
fn s13_the_least_of_all_results_is_given() {
    const NOP_INJECT_RESULT: u32 = 1;
    let lp = real_loop();
    let entry = Sqe { len: 1 << 31, op_flags: NOP_INJECT_RESULT, ..Sqe::default() };
    let given = Rc::new(Cell::new(0));
    let count = Rc::clone(&given);
    // SAFETY: the entry has no pointers.
    unsafe {
        lp.submit(&entry, move |_, completion| {
            count.set(count.get() + u32::from(!completion.more()))
        })
    }
    .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(given.get(), 1);
}

#[test]
fn s13_a_cancelled_operation_gives_its_buffer_back() {
    let lp = real_loop();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ours = Rc::new(ours);
    let (inner, got) = got();
    let mut buffer = b"12".to_vec();
    buffer.reserve(100);
    let handle = lp
        .recv(Rc::clone(&ours), buffer, 0, move |_, result, buffer| {
            inner.replace(Some((result.map_err(|error| error.raw_os_error()), buffer)));
        })
        .unwrap();
    assert_eq!(lp.run_once(ms(0)), Ok(0));
    lp.cancel(handle).unwrap();
    assert_eq!(Rc::strong_count(&ours), 2, "the kernel uses the stream until the end");
    assert_eq!(finish(&lp, &got), (Err(ECANCELED), b"12".to_vec()));
    assert_eq!((errno(lp.cancel(handle)), Rc::strong_count(&ours)), (ENOENT, 1));
    // The cancelled receive does not take data that arrives later.
    theirs.write_all(b"data").unwrap();
    let (result, buffer) = result_with(&lp, |f| lp.recv(ours, Vec::with_capacity(10), 0, f));
    assert_eq!((result, &buffer[..]), (Ok(4), &b"data"[..]));
}

#[test]
fn s13_a_deadline_is_an_error_that_says_so() {
    let lp = real_loop();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let (inner, got) = got();
    let handle = lp
        .read(ours, Vec::with_capacity(10), None, move |_, result, buffer| {
            inner.replace(Some((errno(result), buffer.len())));
        })
        .unwrap();
    lp.set_deadline(handle, lp.time() + ms(2)).unwrap();
    assert_eq!(finish(&lp, &got), (ETIMEDOUT, 0));
}

#[test]
fn the_descriptor_is_kept_until_the_result_and_asked_once() {
    struct Once(UnixStream, Rc<Cell<u32>>);
    impl AsFd for Once {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.1.set(self.1.get() + 1);
            self.0.as_fd()
        }
    }
    let lp = real_loop();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (trace, asked) = (Trace::new(), Rc::new(Cell::new(0)));
    let (inner, fd) = (trace.clone(), Noted(Once(ours, Rc::clone(&asked)), trace.clone()));
    lp.recv(fd, Vec::with_capacity(10), 0, move |_, _, _| inner.add("callback")).unwrap();
    assert_eq!(lp.run_once(ms(0)), Ok(0));
    assert_eq!((trace.len(), asked.get()), (0, 1));
    theirs.write_all(b"x").unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!((trace.take(), asked.get()), (vec!["descriptor", "callback"], 1));
    // The end of the operation has closed the descriptor.
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}

#[test]
fn s22_dropping_the_loop_drops_what_is_in_flight_when_the_kernel_has_let_go() {
    type End = fn(Watched);
    let ends: [End; 2] = [drop, |lp| lp.close().unwrap()];
    for end in ends {
        for is_submitted in [true, false] {
            let lp = real_loop();
            let trace = Trace::new();
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let ours = Rc::new(ours);
            let (fd, carried) = (Noted(Rc::clone(&ours), trace.clone()), trace.on_drop("closure"));
            let buffer = NotedBuffer(Vec::with_capacity(100), trace.clone());
            lp.recv(fd, buffer, 0, move |_, _, _| panic!("called, {}", size_of_val(&carried)))
                .unwrap();
            if is_submitted {
                assert_eq!(lp.run_once(ms(0)), Ok(0));
            }
            end(lp);
            let mut dropped = trace.take();
            dropped.sort_unstable();
            assert_eq!(dropped, ["buffer", "closure", "descriptor"]);
            theirs.write_all(b"data").unwrap();
            assert_eq!(
                (&*ours).read(&mut [0; 10]).unwrap(),
                4,
                "the kernel received the data into a freed buffer"
            );
        }
    }
}

#[test]
fn s22_descriptors_that_no_callback_has_seen_are_closed() {
    let lp = real_loop();
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let mut clients = [0, 1].map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (inner, seen) = got();
    for _ in 0..2 {
        let inner = Rc::clone(&inner);
        lp.accept(Rc::clone(&listener), move |lp, result| {
            assert!(inner.replace(Some(result.unwrap())).is_none(), "both have run");
            lp.break_().unwrap();
        })
        .unwrap();
    }
    assert_eq!(lp.run(), Ok(Outcome::Broken));
    lp.close().unwrap();
    drop(inner);
    assert_eq!(clients[1].read(&mut [0]).unwrap(), 0);
    drop(seen);
    assert_eq!(clients[0].read(&mut [0]).unwrap(), 0);
}

// ---- user code ----

#[test]
fn s30_a_panic_in_the_callback_of_an_operation_is_handled() {
    let lp = real_loop();
    let trace = Trace::new();
    let inner = trace.clone();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let ours = Rc::new(ours);
    lp.send(Rc::clone(&ours), "a", 0, |_, _, _| panic("send")).unwrap();
    assert_eq!(panic_in(|| lp.run()), Some("send"));
    lp.set_exception_handler(move |_, caught| inner.add(payload(&*caught))).unwrap();
    let buffer = NotedBuffer(b"b".to_vec(), trace.clone());
    lp.send(Noted(ours, trace.clone()), buffer, 0, |_, _, _buffer| panic("send again")).unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
    assert_eq!(trace.take(), ["descriptor", "buffer", "send again"]);
}

#[test]
fn s30_no_borrow_is_held_while_what_was_given_is_used_or_dropped() {
    struct Nosy(UnixStream, Rc<Watched>);
    impl AsFd for Nosy {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.1.call_soon(|_| {}).unwrap();
            self.0.as_fd()
        }
    }
    impl Drop for Nosy {
        fn drop(&mut self) {
            self.1.call_soon(|_| {}).unwrap();
        }
    }
    let lp = Rc::new(real_loop());
    let nosy = || Nosy(UnixStream::pair().unwrap().0, Rc::clone(&lp));
    // The loop refuses the first operation; the kernel completes the others.
    assert_eq!(errno(lp.read(nosy(), Vec::new(), None, |_, _, _| {})), EINVAL);
    lp.recv(nosy(), Vec::with_capacity(1), 0, |_, result, _| assert_eq!(result, Ok(0))).unwrap();
    lp.close_fd(nosy().0.try_clone().unwrap(), |lp, _| assert!(lp.call_soon(|_| {}).is_ok()))
        .unwrap();
    assert_eq!(lp.run(), Ok(Outcome::Done));
}

// ---- sockets ----

#[test]
fn connections_are_made_used_and_ended() {
    let lp = real_loop();
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    // Before Linux 5.19 the kernel makes no sockets, and the loop refuses with ENOSYS.
    let socket = || {
        if lp.supports(SOCKET) {
            return result_of(&lp, |f| lp.socket(libc::AF_INET, libc::SOCK_STREAM, 0, f)).unwrap();
        }
        assert_eq!(errno(lp.socket(libc::AF_INET, libc::SOCK_STREAM, 0, |_, _| {})), ENOSYS);
        // SAFETY: `socket` takes only numbers, and nothing else owns the new descriptor.
        unsafe {
            OwnedFd::from_raw_fd(libc::socket(
                libc::AF_INET,
                libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
                0,
            ))
        }
    };
    let client = Rc::new(TcpStream::from(socket()));
    let (fd, (inner, accepted)) = (Rc::clone(&client), got());
    lp.accept(Rc::clone(&listener), move |_, result| {
        inner.replace(Some(result));
    })
    .unwrap();
    assert_eq!(result_of(&lp, |f| lp.connect(fd, address, f)), Ok(()));
    let mut server = TcpStream::from(finish(&lp, &accepted).unwrap());
    let fd = Rc::clone(&client);
    if lp.supports(SHUTDOWN) {
        assert_eq!(result_of(&lp, |f| lp.shutdown_fd(fd, Shutdown::Write, f)), Ok(()));
    } else {
        assert_eq!(errno(lp.shutdown_fd(fd, Shutdown::Write, |_, _| {})), ENOSYS);
        client.shutdown(Shutdown::Write).unwrap();
    }
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop(server);
    let fd = Rc::clone(&client);
    let (result, _) = result_with(&lp, |f| lp.send(fd, "x", 0, f));
    assert_eq!(errno(result), EPIPE);
    drop(listener);
    let (refused, unconnected) = (socket(), socket());
    assert_eq!(errno(result_of(&lp, |f| lp.connect(refused, address, f))), ECONNREFUSED);
    if lp.supports(SHUTDOWN) {
        assert_eq!(
            errno(result_of(&lp, |f| lp.shutdown_fd(unconnected, Shutdown::Both, f))),
            ENOTCONN
        );
    }
}

#[test]
fn datagrams_have_addresses() {
    let lp = real_loop();
    let (ours, theirs) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (ours_is, theirs_is) = (ours.local_addr().unwrap(), theirs.local_addr().unwrap());
    let (result, back) = result_with(&lp, |f| lp.send_to(theirs, "hello", 0, ours_is, f));
    assert_eq!((result, back), (Ok(5), "hello"));
    let (inner, got) = got();
    lp.recv_from(ours, Vec::with_capacity(100), 0, move |_, result, buffer| {
        inner.replace(Some((result.unwrap(), buffer)));
    })
    .unwrap();
    let ((count, from), buffer) = finish(&lp, &got);
    assert_eq!((count, from.to_inet(), &buffer[..]), (5, Some(theirs_is), &b"hello"[..]));

    let folder = Folder::new("datagrams");
    let bound = |name| UnixDatagram::bind(folder.0.join(name)).unwrap();
    let (ours, theirs) = (bound("ours"), bound("theirs"));
    let address = Address::from(ours.local_addr().unwrap());
    assert_eq!(result_with(&lp, |f| lp.send_to(theirs, vec![1; 300], 0, address, f)).0, Ok(300));
    let (inner, got) = self::got();
    lp.recv_from(ours, Box::<[u8]>::from([0; 100]), 0, move |_, result, buffer| {
        inner.replace(Some((result.unwrap(), buffer)));
    })
    .unwrap();
    let ((count, from), buffer) = finish(&lp, &got);
    assert_eq!((count, &buffer[..]), (100, &[1; 100][..]));
    assert_eq!(from.to_unix().unwrap().as_pathname(), Some(&*folder.0.join("theirs")));

    // The kernel's length ends an abstract name; a zero byte does not end it.
    let name = format!("ringloop-{}", std::process::id());
    let ours = UnixDatagram::bind(folder.0.join("ours again")).unwrap();
    let theirs = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    theirs.send_to(b"x", folder.0.join("ours again")).unwrap();
    let (inner, got) = self::got();
    lp.recv_from(ours, Vec::with_capacity(1), 0, move |_, result, _| {
        inner.replace(result.ok());
    })
    .unwrap();
    let (_, from) = finish(&lp, &got);
    assert_eq!(from.to_unix().unwrap().as_abstract_name(), Some(name.as_bytes()));
}

#[test]
fn send_all_sends_a_megabyte_and_says_how_far_it_came() {
    let lp = real_loop();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let data: Rc<[u8]> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
    let reader = std::thread::spawn(move || {
        let (mut theirs, mut all) = (theirs, Vec::new());
        theirs.read_to_end(&mut all).unwrap();
        all
    });
    let (result, _) = result_with(&lp, |f| lp.send_all(ours, Rc::clone(&data), 0, f));
    assert_eq!(result, Ok(data.len()));
    assert!(reader.join().unwrap() == *data, "all data arrived, in order");

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (inner, got) = got();
    let handle = lp
        .send_all(ours, data, 0, move |_, result, _| {
            inner.replace(Some(result));
        })
        .unwrap();
    assert_eq!(lp.run_once(ms(1)), Ok(0));
    lp.cancel(handle).unwrap();
    let count = finish(&lp, &got).unwrap();
    let mut all = Vec::new();
    theirs.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), count);
    assert!(count > 0 && count < 1 << 20);
}

// ---- files ----

#[test]
fn files_are_opened_written_looked_at_and_closed() {
    let lp = real_loop();
    let folder = Folder::new("files");
    let dir = Rc::new(File::open(&folder.0).unwrap());
    let options = OpenOptions::new().read().write().create_new().mode(0o640);
    let at = || Rc::clone(&dir);
    let file: OwnedFd = result_of(&lp, |f| lp.open_at(at(), "a", options, f)).unwrap();
    let file = Rc::new(file);
    assert_eq!(errno(result_of(&lp, |f| lp.open_at(at(), "a", options, f))), EEXIST);
    let missing = folder.0.join("b");
    assert_eq!(
        errno(result_of(&lp, |f| lp.open_at(CWD, missing, OpenOptions::new().read(), f))),
        ENOENT
    );
    let fd = || Rc::clone(&file);
    assert_eq!(result_with(&lp, |f| lp.write_all(fd(), "abcdef", Some(0), f)).0, Ok(6));
    assert_eq!(result_with(&lp, |f| lp.write(fd(), "XY", Some(2), f)).0, Ok(2));
    assert_eq!(result_of(&lp, |f| lp.fallocate(fd(), 0, 0, 1000, f)), Ok(()));
    assert_eq!(result_of(&lp, |f| lp.fsync(fd(), true, f)), Ok(()));
    assert_eq!(result_of(&lp, |f| lp.fsync(fd(), false, f)), Ok(()));
    let long_ago = UNIX_EPOCH - ms(1500);
    File::from(file.try_clone().unwrap()).set_modified(long_ago).unwrap();
    let status = result_of(&lp, |f| lp.statx(at(), "a", 0, f)).unwrap();
    assert_eq!(
        (status.size, status.mode & 0o777, status.is_file(), status.is_dir()),
        (1000, 0o640, true, false)
    );
    let known = fs::metadata(folder.0.join("a")).unwrap();
    assert_eq!((status.modified, status.accessed), (long_ago, known.accessed().unwrap()));
    if lp.supports(55) {
        assert_eq!(result_of(&lp, |f| lp.ftruncate(fd(), 4, f)), Ok(()));
        assert_eq!(result_of(&lp, |f| lp.statx(fd(), "", libc::AT_EMPTY_PATH, f)).unwrap().size, 4);
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(
        errno(result_of(&lp, |f| lp.splice((fd(), Some(0)), (theirs, None), 4, 0, f))),
        EINVAL
    );
    drop(ours);
    let (result, buffer) = result_with(&lp, |f| lp.read(fd(), Vec::with_capacity(4), Some(0), f));
    assert_eq!((result.unwrap(), &buffer[..4]), (buffer.len(), &b"abXY"[..]));
    let written = File::options().append(true).open(folder.0.join("a")).unwrap();
    let (result, _) = result_with(&lp, |f| lp.read(written, Vec::with_capacity(4), None, f));
    assert_eq!(errno(result), EBADF);
}

#[test]
fn names_are_made_linked_renamed_and_removed() {
    let lp = real_loop();
    let folder = Folder::new("names");
    let dir = Rc::new(File::open(&folder.0).unwrap());
    let at = || Rc::clone(&dir);
    let exists = |name| folder.0.join(name).symlink_metadata().is_ok();
    folder.file("a", "text");
    if lp.supports(LINKAT) {
        assert_eq!(result_of(&lp, |f| lp.mkdir_at(at(), "d", 0o700, f)), Ok(()));
        assert_eq!(errno(result_of(&lp, |f| lp.mkdir_at(at(), "d", 0o700, f))), EEXIST);
        assert_eq!(result_of(&lp, |f| lp.link_at((at(), "a"), (at(), "d/b"), 0, f)), Ok(()));
        assert_eq!(result_of(&lp, |f| lp.symlink_at("a", at(), "s", f)), Ok(()));
        assert_eq!(fs::read_link(folder.0.join("s")).unwrap(), PathBuf::from("a"));
    } else {
        assert_eq!(errno(lp.mkdir_at(at(), "d", 0o700, |_, _| {})), ENOSYS);
        assert_eq!(errno(lp.link_at((at(), "a"), (at(), "b"), 0, |_, _| {})), ENOSYS);
        assert_eq!(errno(lp.symlink_at("a", at(), "s", |_, _| {})), ENOSYS);
        fs::create_dir(folder.0.join("d")).unwrap();
        folder.file("d/b", "text");
        folder.file("s", "text");
    }
    if lp.supports(UNLINKAT) {
        assert_eq!(result_of(&lp, |f| lp.rename_at((at(), "d/b"), (at(), "c"), 0, f)), Ok(()));
        assert!(exists("c") && !exists("d/b"));
        assert_eq!(errno(result_of(&lp, |f| lp.rename_at((at(), "x"), (at(), "c"), 0, f))), ENOENT);
        assert_eq!(result_of(&lp, |f| lp.unlink_at(at(), "s", 0, f)), Ok(()));
        assert_eq!(result_of(&lp, |f| lp.unlink_at(at(), "d", libc::AT_REMOVEDIR, f)), Ok(()));
        assert_eq!(errno(result_of(&lp, |f| lp.unlink_at(at(), "d", 0, f))), ENOENT);
        assert!(!exists("d") && !exists("s"));
    } else {
        assert_eq!(errno(lp.rename_at((at(), "d/b"), (at(), "c"), 0, |_, _| {})), ENOSYS);
        assert_eq!(errno(lp.unlink_at(at(), "s", 0, |_, _| {})), ENOSYS);
    }
}

#[test]
fn splice_moves_data_from_a_file_to_a_pipe() {
    let lp = real_loop();
    let folder = Folder::new("splice");
    let file = folder.file("a", "abcdef");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    assert_eq!(result_of(&lp, |f| lp.splice((file, Some(2)), (writer, None), 3, 0, f)), Ok(3));
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(all, "cde");
}

#[test]
fn close_fd_closes_whatever_comes_of_it() {
    for is_cancelled in [false, true] {
        let lp = real_loop();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (inner, got) = got();
        let handle = lp
            .close_fd(ours, move |_, result| {
                inner.replace(Some(result));
            })
            .unwrap();
        if is_cancelled {
            lp.cancel(handle).unwrap();
        }
        let result = finish(&lp, &got);
        assert!(result == Ok(()) || is_cancelled && errno(result) == ECANCELED);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }
    // The same without a submission: the loop is closed first, or refuses the operation.
    let lp = real_loop();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    lp.close_fd(ours, |_, _| panic!("the callback has run")).unwrap();
    lp.close().unwrap();
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    let lp = real_loop();
    lp.shutdown().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    assert_eq!(errno(lp.close_fd(ours, |_, _| {})), ESHUTDOWN);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}
