//! The time at which the kernel releases a watched file (S12), and the cost. Other entries of the
//! ring change neither of them, nor the loop's accounts (S11, S14, S22).

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use ringloop::{Events, Handle, Loop, Sqe, task};

/// Whether the other end is closed, that is, released by the kernel.
pub(crate) fn is_at_end(mut peer: &UnixStream) -> bool {
    peer.set_nonblocking(true).unwrap();
    match peer.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

pub(crate) fn pairs(count: usize) -> Vec<(UnixStream, UnixStream)> {
    (0..count).map(|_| UnixStream::pair().unwrap()).collect()
}

/// The number of a descriptor that the loop watches and other code owns.
pub(crate) struct Number(pub(crate) RawFd);

impl std::os::fd::AsFd for Number {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: the tests keep the descriptor open while the loop uses the number.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) }
    }
}

fn watch(lp: &Loop, stream: &impl AsRawFd) -> Handle {
    lp.watch_fd(Number(stream.as_raw_fd()), Events::IN, |_, _| {}).unwrap()
}

/// Returns the number of system calls that `f` makes on the ring, and the result of `f`.
fn enters<T>(lp: &Loop, f: impl FnOnce() -> T) -> (u64, T) {
    let before = lp.metrics().enters;
    let result = f();
    (lp.metrics().enters - before, result)
}

#[test]
fn s12_a_file_is_closed_by_close_after_its_last_watcher() {
    let lp = Loop::new().unwrap();
    let (stream, peer) = UnixStream::pair().unwrap();
    let (first, last) = (watch(&lp, &stream), watch(&lp, &stream));
    lp.run_once(Duration::ZERO).unwrap();
    assert_eq!(enters(&lp, || lp.cancel(first)), (0, Ok(())));
    assert_eq!(enters(&lp, || lp.cancel(last)), (1, Ok(())));
    drop(stream);
    assert!(is_at_end(&peer));
    // Cancelling a poll that is not armed makes no system call.
    let (stream, _peer) = UnixStream::pair().unwrap();
    let never_armed = watch(&lp, &stream);
    assert_eq!(enters(&lp, || lp.cancel(never_armed)), (0, Ok(())));
}

#[test]
fn s12_a_port_is_free_when_its_last_watcher_was_cancelled() {
    let lp = Loop::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let watcher = watch(&lp, &listener);
    lp.run_once(Duration::ZERO).unwrap();
    lp.cancel(watcher).unwrap();
    drop(listener);
    assert!(TcpStream::connect(address).is_err());
    TcpListener::bind(address).unwrap();
}

#[test]
fn s12_the_kernel_lets_go_before_drop_and_release_hook() {
    let lp = Loop::new().unwrap();
    let (stream, peer) = UnixStream::pair().unwrap();
    let peer = Rc::new(peer);
    // The watcher owns the stream: its Drop closes it.
    let handle = lp.watch_fd(stream, Events::IN, |_, _| {}).unwrap();
    let (seen, looks) = (Rc::new(Cell::new(false)), Rc::clone(&peer));
    let at_hook = Rc::clone(&seen);
    lp.on_release(handle, move |_| at_hook.set(is_at_end(&looks))).unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    lp.cancel(handle).unwrap();
    assert!(seen.get());
}

#[test]
fn s12_a_hook_of_forget_fd_may_cancel_another_and_close() {
    let lp = Loop::new().unwrap();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let (other, other_peer) = UnixStream::pair().unwrap();
    let (first, second) = (watch(&lp, &stream), watch(&lp, &other));
    let ended = Rc::new(Cell::new(false));
    let seen = Rc::clone(&ended);
    lp.on_release(first, move |lp| {
        lp.cancel(second).unwrap();
        drop(other);
        seen.set(is_at_end(&other_peer));
    })
    .unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    assert_eq!(lp.forget_fd(stream.as_raw_fd()), Ok(0));
    assert!(ended.get());
}

/// Completions of other operations fill the completion queue. The completion of the forgotten
/// receive waits in the kernel behind them.
#[test]
fn s12_forgetting_sees_the_end_behind_a_full_queue() {
    let lp = Loop::builder().sq_entries(2).cq_entries(4).build().unwrap();
    let mut others = pairs(30);
    for (stream, _) in &others {
        lp.recv(Number(stream.as_raw_fd()), Vec::with_capacity(1), 0, |_, result, _| {
            assert_eq!(result, Ok(1))
        })
        .unwrap();
    }
    let (stream, peer) = UnixStream::pair().unwrap();
    lp.recv(Number(stream.as_raw_fd()), Vec::with_capacity(1), 0, |_, result, _| {
        assert!(result.is_err())
    })
    .unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    for (_, peer) in &mut others {
        peer.write_all(b"x").unwrap();
    }
    assert_eq!(lp.forget_fd(stream.as_raw_fd()), Ok(0));
    drop(stream);
    assert!(is_at_end(&peer));
    lp.run().unwrap();
}

#[test]
fn s12_a_watcher_lets_go_from_inside_of_its_own_batch() {
    let lp = Rc::new(Loop::new().unwrap());
    let all = Rc::new(RefCell::new(pairs(2)));
    let ended = Rc::new(Cell::new(false));
    let handle = watch(&lp, &all.borrow()[1].0);
    let (streams, closed) = (Rc::clone(&all), Rc::clone(&ended));
    let number = Number(all.borrow()[0].0.as_raw_fd());
    lp.watch_fd(number, Events::IN, move |lp, _| {
        lp.cancel(handle).unwrap();
        let (stream, peer) = streams.borrow_mut().pop().unwrap();
        drop(stream);
        closed.set(is_at_end(&peer));
        lp.cancel(lp.current_handle().unwrap()).unwrap();
    })
    .unwrap();
    all.borrow_mut()[0].1.write_all(b"x").unwrap();
    lp.run().unwrap();
    assert!(ended.get());
}

#[test]
fn s12_a_thousand_completions_before_it_hold_up_no_close() {
    let lp = Loop::new().unwrap();
    let (busy, mut sender) = UnixStream::pair().unwrap();
    let ran = Rc::new(Cell::new(0));
    let poll =
        Sqe { opcode: 6, fd: busy.as_raw_fd(), op_flags: libc::POLLIN as u32, ..Sqe::default() };
    for _ in 0..1000 {
        let ran = Rc::clone(&ran);
        // SAFETY: the entry of a poll has no pointers.
        unsafe { lp.submit(&poll, move |_, _| ran.set(ran.get() + 1)) }.unwrap();
    }
    let (stream, peer) = UnixStream::pair().unwrap();
    let handle = watch(&lp, &stream);
    lp.run_once(Duration::ZERO).unwrap();
    sender.write_all(b"x").unwrap();
    let (calls, cancelled) = enters(&lp, || lp.cancel(handle));
    cancelled.unwrap();
    assert!(calls <= 1 + 1000 / 20, "{calls} system calls");
    drop(stream);
    assert!(is_at_end(&peer));
    // The other operations have lost nothing, and none of their callbacks has run early.
    assert_eq!(ran.get(), 0);
    for _ in 0..8 {
        lp.run_once(Duration::ZERO).unwrap();
    }
    assert_eq!(ran.get(), 1000);
}

#[test]
fn s12_what_ends_many_watchers_shares_one_call() {
    let lp = Loop::new().unwrap();
    let (stream, peer) = UnixStream::pair().unwrap();
    for _ in 0..50 {
        watch(&lp, &stream);
    }
    lp.run_once(Duration::ZERO).unwrap();
    assert_eq!(enters(&lp, || lp.forget_fd(stream.as_raw_fd())), (1, Ok(0)));
    drop(stream);
    assert!(is_at_end(&peer));

    let all = pairs(50);
    let peers: Vec<_> = all
        .into_iter()
        .map(|(stream, peer)| {
            // Each watcher closes its own stream.
            lp.watch_fd(stream, Events::IN, |_, _| {}).unwrap();
            peer
        })
        .collect();
    lp.run_once(Duration::ZERO).unwrap();
    let (calls, ended) = enters(&lp, || lp.shutdown());
    ended.unwrap();
    assert!(calls <= 1 + 50 / 20, "{calls} system calls");
    assert!(peers.iter().all(is_at_end));
}

#[test]
fn s12_a_dropped_task_and_a_group_share_one_call() {
    let lp = Loop::new().unwrap();
    let all = pairs(30);
    let numbers: Vec<RawFd> = all.iter().map(|(stream, _)| stream.as_raw_fd()).collect();
    let waits = |fd| async move { task::ready(Number(fd), Events::IN).await.map(|_| ()) };
    let (one, group) = lp
        .run_until_complete(async move {
            let lp = Loop::current().unwrap();
            let several: Vec<_> = numbers[..10].to_vec();
            let task = task::spawn(async move {
                let mut waiting: Vec<_> =
                    several.into_iter().map(|fd| Box::pin(waits(fd))).collect();
                std::future::poll_fn(|context| {
                    waiting
                        .iter_mut()
                        .for_each(|one| assert!(one.as_mut().poll(context).is_pending()));
                    std::task::Poll::<()>::Pending
                })
                .await;
            })
            .unwrap();
            let group = task::TaskGroup::<(), ringloop::Error>::new();
            for &fd in &numbers[10..] {
                group.spawn(waits(fd)).unwrap();
            }
            // After the first yield all tasks were polled; after the second the polls are armed.
            task::yield_now().await;
            task::yield_now().await;
            let before = lp.with(|lp| lp.metrics().enters).unwrap();
            task.abort();
            let between = lp.with(|lp| lp.metrics().enters).unwrap();
            drop(group);
            (between - before, lp.with(|lp| lp.metrics().enters).unwrap() - between)
        })
        .unwrap();
    assert_eq!((one, group), (1, 1));
    for (stream, peer) in all {
        drop(stream);
        assert!(is_at_end(&peer));
    }
}

/// The processor time of this thread, which other processes change little.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Whether `f` takes less than 160 times as long for 32 times as many watchers. Constant time for
/// each makes the factor 32; time in proportion to the others makes it 1,024. A busy machine slows
/// a round down, so a round that takes too long is repeated.
fn is_constant(f: impl Fn(usize) -> Duration) -> bool {
    let few = (0..9).map(|_| f(200)).min().unwrap();
    (0..20).any(|_| f(32 * 200) < 160 * few)
}

#[test]
fn s11_watchers_of_one_descriptor_end_in_constant_time() {
    let cancels = |newest_first: bool| {
        move |count| {
            let lp = Loop::new().unwrap();
            let (stream, _peer) = UnixStream::pair().unwrap();
            let mut handles: Vec<_> = (0..count).map(|_| watch(&lp, &stream)).collect();
            if newest_first {
                handles.reverse();
            }
            let begin = processor_time();
            handles.into_iter().for_each(|handle| lp.cancel(handle).unwrap());
            processor_time() - begin
        }
    };
    let forget = |count| {
        let lp = Loop::new().unwrap();
        let (stream, _peer) = UnixStream::pair().unwrap();
        (0..count).for_each(|_| _ = watch(&lp, &stream));
        let begin = processor_time();
        lp.forget_fd(stream.as_raw_fd()).unwrap();
        processor_time() - begin
    };
    let close = |count| {
        let lp = Loop::new().unwrap();
        let (stream, _peer) = UnixStream::pair().unwrap();
        (0..count).for_each(|_| _ = watch(&lp, &stream));
        let begin = processor_time();
        lp.close().unwrap();
        processor_time() - begin
    };
    assert!(is_constant(cancels(false)), "cancel");
    assert!(is_constant(cancels(true)), "cancel, newest first");
    assert!(is_constant(forget), "forget_fd");
    assert!(is_constant(close), "close");
}

#[test]
fn s22_tags_of_registered_resources_change_no_account() {
    const REGISTER_FILES2: u32 = 13;
    const FILES_UPDATE2: u32 = 14;
    #[repr(C)]
    struct Register {
        count: u32,
        flags: u32,
        resv: u64,
        data: u64,
        tags: u64,
    }
    #[repr(C)]
    struct Update {
        offset: u32,
        resv: u32,
        data: u64,
        tags: u64,
        count: u32,
        resv2: u32,
    }
    let lp = Loop::new().unwrap();
    let (stream, _peer) = UnixStream::pair().unwrap();
    let held = Rc::new(());
    let (weak, kept) = (Rc::downgrade(&held), held);
    let received = Rc::new(Cell::new(false));
    let note = Rc::clone(&received);
    lp.recv(stream.try_clone().unwrap(), Vec::with_capacity(100), 0, move |_, _, _| {
        let _kept = &kept;
        note.set(true);
    })
    .unwrap();
    lp.run_once(Duration::ZERO).unwrap();
    let fds = [stream.as_raw_fd(); 8];
    // Small numbers, and one that looks like an operation's tag.
    let tags: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 0x7fff_ffff_0000_0000];
    let none = [-1i32; 8];
    let register = |opcode: u32, argument: *const libc::c_void, size: usize| {
        // SAFETY: the arguments are live structures of the kernel's types, of the given size.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                lp.ring_fd().unwrap(),
                opcode,
                argument,
                size,
            )
        };
        assert!(result >= 0, "{}", std::io::Error::last_os_error());
    };
    let files = Register {
        count: 8,
        flags: 0,
        resv: 0,
        data: fds.as_ptr() as u64,
        tags: tags.as_ptr() as u64,
    };
    register(REGISTER_FILES2, (&raw const files).cast(), size_of::<Register>());
    let update =
        Update { offset: 0, resv: 0, data: none.as_ptr() as u64, tags: 0, count: 8, resv2: 0 };
    register(FILES_UPDATE2, (&raw const update).cast(), size_of::<Update>());
    for _ in 0..3 {
        lp.run_once(Duration::ZERO).unwrap();
    }
    assert!(!received.get() && weak.strong_count() == 1);
    // Close waits for the receive, and drops the values that its callback has captured.
    lp.close().unwrap();
    assert_eq!(weak.strong_count(), 0);
}
