//! S28, S29, S32, S33: errors lose nothing; the order of the checks; kernels that refuse calls.

use std::cell::Cell;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use libc::{
    EACCES, EAGAIN, EINVAL, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSYS, EOWNERDEAD, EPERM, ESHUTDOWN,
};
use ringloop::{Events, Loop, Outcome, Time};

use crate::support::Watched;
use crate::trace::{HOUR, OnDrop, START, Trace, errno, ns, real_loop, virtual_loop};

#[test]
fn s28_nothing_is_lost_on_an_error() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let stale = lp.call_soon(|_| {}).unwrap();
    lp.cancel(stale).unwrap();
    let provoke = move |lp: &Loop| {
        assert_eq!(errno(lp.call_every(Duration::ZERO, |_| {})), EINVAL);
        assert_eq!(errno(lp.cancel(stale)), ENOENT);
        assert_eq!(errno(lp.reschedule(stale, START)), ENOENT);
        assert_eq!(errno(lp.when(stale)), ENOENT);
        assert_eq!(errno(lp.ref_(stale)), ENOENT);
        assert_eq!(errno(lp.unref(stale)), ENOENT);
        assert_eq!(errno(lp.on_release(stale, |_| {})), ENOENT);
        if lp.is_running() {
            assert!(lp.run().is_err() && lp.shutdown().is_err());
        } else {
            assert_eq!(errno(lp.break_()), EINVAL);
        }
    };
    lp.call_soon(trace.note("call")).unwrap();
    lp.call_soon(provoke).unwrap();
    provoke(&lp);
    lp.call_later(ns(10), trace.note("timer")).unwrap();
    lp.call_at(START, trace.note("due timer")).unwrap();
    provoke(&lp);
    let _ = lp.run().unwrap();
    assert_eq!((trace.take(), lp.metrics().callbacks), (vec!["call", "due timer", "timer"], 4));
}

#[test]
fn s28_what_is_refused_is_dropped_before_the_call_returns() {
    let lp = virtual_loop();
    let trace = Trace::new();
    let captured = trace.on_drop("drop");
    assert_eq!(errno(lp.call_every(Duration::ZERO, move |_| trace_size(&captured))), EINVAL);
    assert_eq!(trace.take(), ["drop"]);
    lp.shutdown().unwrap();
    for large in [false, true] {
        let (captured, room) = (trace.on_drop("drop"), [0u64; 16]);
        let refused = if large {
            lp.call_soon(move |_| trace_size(&(captured, room)))
        } else {
            lp.call_soon(move |_| trace_size(&captured))
        };
        assert_eq!((errno(refused), trace.take()), (ESHUTDOWN, vec!["drop"]));
    }

    fn trace_size<T>(carried: &T) {
        panic!("a callback that was refused has run, {} bytes", size_of_val(carried));
    }
}

#[test]
fn s28_an_error_names_its_errno_and_says_what_to_do() {
    let lp = virtual_loop();
    let error = lp.call_every(Duration::ZERO, |_| {}).unwrap_err();
    assert_eq!(error.raw_os_error(), EINVAL);
    assert!(
        error.to_string().contains("EINVAL") && error.to_string().contains("period"),
        "{error}"
    );
    assert_eq!(std::io::Error::from(error).raw_os_error(), Some(EINVAL));
}

#[test]
fn s28_the_smallest_queues_lose_nothing() {
    for (sq, cq) in [(1, 1), (1, 2), (2, 2), (1, 0), (0, 1)] {
        let lp = Watched::new(Loop::builder().sq_entries(sq).cq_entries(cq).build().unwrap());
        lp.fd().unwrap();
        let trace = Trace::new();
        for round in 0..20 {
            let timer = lp.call_later(HOUR, |_| {}).unwrap();
            lp.flush().unwrap();
            lp.call_later(ns(50_000), trace.note("timer")).unwrap();
            lp.call_soon(trace.note("call")).unwrap();
            lp.call_later(ns(100_000), move |lp| lp.cancel(timer).unwrap()).unwrap();
            assert_eq!(lp.run(), Ok(Outcome::Done), "queues of {sq} and {cq}, round {round}");
            assert_eq!(trace.take(), ["call", "timer"]);
        }
    }
}

#[test]
fn s29_an_argument_out_of_range_comes_before_the_state() {
    let lp = virtual_loop();
    lp.shutdown().unwrap();
    assert_eq!(errno(lp.call_every(Duration::ZERO, |_| {})), EINVAL);
    assert_eq!(errno(lp.call_every(ns(1), |_| {})), ESHUTDOWN);
    let too_many = Loop::builder().sq_entries(32769).build();
    assert_eq!(errno(too_many), EINVAL);
    assert_eq!(errno(Loop::builder().cq_entries(65537).build()), EINVAL);
    assert_eq!(errno(Loop::builder().sq_entries(64).cq_entries(32).build()), EINVAL);
    assert_eq!(errno(Loop::builder().sq_entries(u32::MAX).cq_entries(u32::MAX).build()), EINVAL);
}

#[test]
fn s29_in_a_forked_child_the_owner_is_dead_after_arguments_and_before_the_state() {
    let lp = virtual_loop();
    let handle = lp.call_later(HOUR, |_| {}).unwrap();
    let shut_down = virtual_loop();
    shut_down.shutdown().unwrap();
    // SAFETY: the child only uses the loop and leaves by _exit; glibc allows allocation in the
    // child, whatever locks the other threads held.
    match unsafe { libc::fork() } {
        0 => {
            let checked = catch_unwind(AssertUnwindSafe(|| {
                let (lp, shut_down) = (lp.in_child(), shut_down.in_child());
                assert_eq!(errno(lp.call_every(Duration::ZERO, |_| {})), EINVAL);
                assert_eq!(errno(lp.call_every(ns(1), |_| {})), EOWNERDEAD);
                assert_eq!(errno(lp.call_soon(|_| {})), EOWNERDEAD);
                assert_eq!(errno(lp.cancel(handle)), EOWNERDEAD);
                assert_eq!(errno(lp.run()), EOWNERDEAD);
                assert_eq!(errno(lp.break_()), EOWNERDEAD);
                assert_eq!(errno(shut_down.call_soon(|_| {})), EOWNERDEAD);
                assert_eq!(errno(shut_down.run()), EOWNERDEAD);
                assert!(lp.close().is_ok() && shut_down.close().is_ok());
            }));
            // SAFETY: _exit takes any number.
            unsafe { libc::_exit(i32::from(checked.is_err())) }
        }
        child => {
            let mut status = -1;
            // SAFETY: the child is this thread's own, and `status` is a live variable.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "a check in the child failed");
            assert!(lp.is_pending(handle), "the child has changed the parent's loop");
        }
    }
}

/// Makes a system call fail on the calling thread, permanently; with `opcode`, only this opcode.
fn refuse(call: libc::c_long, opcode: Option<u32>, errno: i32) {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let skip_unless = |k: u32, jf: u8| libc::sock_filter {
        code: (BPF_JMP | BPF_JEQ | BPF_K) as u16,
        jt: 0,
        jf,
        k,
    };
    let load = |offset: u32| statement(BPF_LD | BPF_W | BPF_ABS, offset);
    let end = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32);
    // struct seccomp_data: the call's number is at 0, the low half of the second argument at 24.
    let mut program = vec![load(0)];
    match opcode {
        None => program.extend([skip_unless(call as u32, 1), end]),
        Some(opcode) => {
            program.extend([skip_unless(call as u32, 3), load(24), skip_unless(opcode, 1), end])
        }
    }
    program.push(statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` describes `program`, which lives until the kernel has copied it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter),
            0
        );
    }
}

#[test]
fn s32_where_io_uring_is_refused_making_a_loop_fails_at_once_and_says_what_to_change() {
    for (refusal, hint) in [
        (EPERM, "io_uring_disabled"),
        (EACCES, "seccomp"),
        (ENOSYS, "5.10"),
        (EINVAL, "5.10"),
        (ENOMEM, "ulimit -l"),
        (EMFILE, "ulimit -n"),
        (ENFILE, "fs.file-max"),
    ] {
        // The filter applies only to its thread, and ends with the thread.
        thread::spawn(move || {
            refuse(libc::SYS_io_uring_setup, None, refusal);
            let error = Loop::new().expect_err("io_uring_setup is refused");
            assert_eq!(error.raw_os_error(), refusal);
            assert!(error.to_string().contains(hint), "{error}");
            assert_eq!(errno(Loop::builder().virtual_time(START).build()), refusal);
        })
        .join()
        .unwrap();
    }
    // This thread has no filter.
    assert!(real_loop().time() > Time::default());
}

#[test]
fn s32_where_enter_or_register_alone_is_refused_making_a_loop_fails() {
    for call in [libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
        for refusal in [EPERM, EACCES, ENOSYS] {
            thread::spawn(move || {
                refuse(call, None, refusal);
                let error = Loop::new().expect_err("the loop cannot work");
                assert_eq!(error.raw_os_error(), refusal);
                assert!(
                    error.to_string().contains("io_uring_enter or io_uring_register is not: allow"),
                    "{error}"
                );
                assert_eq!(errno(Loop::builder().build_detached()), refusal);
            })
            .join()
            .unwrap();
        }
    }
}

/// Runs `scenario` on a thread of its own; returns the sorted names of the dropped values.
fn dropped_by(scenario: impl FnOnce(&Trace<&'static str>) + Send + 'static) -> Vec<&'static str> {
    let scenario = move || {
        let dropped = Trace::new();
        scenario(&dropped);
        let mut dropped = dropped.take();
        dropped.sort_unstable();
        dropped
    };
    thread::spawn(scenario).join().unwrap()
}

/// Receives from a socket that gets no data; the kernel uses the buffer until the receive ends.
fn receive(lp: &Loop, socket: &UnixStream, on_end: OnDrop<&'static str>) {
    let socket = socket.try_clone().unwrap();
    lp.recv(socket, Vec::with_capacity(16), 0, move |_, _, _| {
        let _ = &on_end;
    })
    .unwrap();
}

#[test]
fn s22_close_frees_all_but_what_the_kernel_has_when_it_is_not_to_be_entered() {
    let dropped = dropped_by(|dropped| {
        let lp = Loop::new().unwrap();
        let (socket, _peer) = UnixStream::pair().unwrap();
        receive(&lp, &socket, dropped.on_drop("taken"));
        assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
        receive(&lp, &socket, dropped.on_drop("queued"));
        let (timer, call) = (dropped.on_drop("timer"), dropped.on_drop("call"));
        let watcher = dropped.on_drop("watcher");
        lp.watch_fd(socket.try_clone().unwrap(), Events::IN, move |_, _| {
            let _ = &watcher;
        })
        .unwrap();
        lp.call_later(HOUR, move |_| drop(timer)).unwrap();
        refuse(libc::SYS_io_uring_enter, None, EPERM);
        assert_eq!(errno(lp.run()), EPERM);
        lp.call_soon(move |_| drop(call)).unwrap();
        assert_eq!(errno(lp.run()), EPERM);
        let error = lp.close_within(Duration::from_secs(50)).expect_err("close gives up");
        assert_eq!(error.error.raw_os_error(), EPERM);
        assert!(dropped.take().is_empty());
        error.lp.close().unwrap();
    });
    assert_eq!(dropped, ["call", "queued", "timer", "watcher"]);
}

#[test]
fn s22_close_frees_all_when_the_ring_cannot_be_enabled() {
    let dropped = dropped_by(|dropped| {
        let lp = Loop::new().unwrap();
        let (socket, _peer) = UnixStream::pair().unwrap();
        receive(&lp, &socket, dropped.on_drop("queued"));
        refuse(libc::SYS_io_uring_register, None, EPERM);
        // On the oldest kernels the ring needs no enabling.
        let ran = lp.run_once(Duration::ZERO);
        assert!(ran == Ok(0) || errno(ran) == EPERM);
        lp.close().unwrap();
    });
    assert_eq!(dropped, ["queued"]);
}

#[test]
fn s28_while_no_submissions_are_taken_timers_and_posts_run_and_run_tells() {
    thread::spawn(|| {
        let lp = Loop::new().unwrap();
        let trace = Trace::new();
        lp.run_once(Duration::from_millis(1)).unwrap();
        refuse(libc::SYS_io_uring_enter, None, EAGAIN);
        let (socket, _peer) = UnixStream::pair().unwrap();
        receive(&lp, &socket, trace.on_drop("receive"));
        lp.call_later(Duration::from_millis(100), trace.note("timer")).unwrap();
        let remote = lp.remote();
        let poster = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            remote.call_soon(|_| {}).unwrap();
        });
        let begin = (Time::now(), lp.metrics().enters);
        assert_eq!(errno(lp.run_forever()), EAGAIN);
        let (lasted, tries) = (Time::now() - begin.0, lp.metrics().enters - begin.1);
        poster.join().unwrap();
        assert_eq!((trace.take(), lp.metrics().posts), (vec!["timer"], 1));
        assert!(lasted > Duration::from_millis(900), "{lasted:?}");
        assert!(tries < 3000, "{tries} in {lasted:?}");
        // A second run fails, too. Close frees the operations that the kernel has not taken.
        assert_eq!(errno(lp.run()), EAGAIN);
        assert!(trace.take().is_empty());
        lp.close().unwrap();
        assert_eq!(trace.take(), ["receive"]);
    })
    .join()
    .unwrap();
}

#[test]
fn s28_a_run_tells_when_the_loops_own_poll_or_timeout_is_refused() {
    const NOP: u8 = 0;
    const POLL_ADD: u8 = 6;
    const ALLOWED: [&[u8]; 2] = [&[NOP], &[NOP, POLL_ADD]];
    for allowed in ALLOWED {
        let lp = real_loop();
        let timer = lp.call_later(HOUR, |_| {}).unwrap();
        if !restrict(&lp, allowed) {
            return;
        }
        for _ in 0..3 {
            assert_eq!(errno(lp.run()), EACCES);
        }
        assert!(lp.is_pending(timer) && lp.metrics().enters < 20, "{} enters", lp.metrics().enters);
        // Iterations that need no sleep still work.
        lp.call_soon(|_| {}).unwrap();
        assert_eq!(lp.run_once(HOUR), Ok(1));
    }
}

/// Restricts the ring to these operations; returns false if the ring cannot be restricted.
fn restrict(lp: &Loop, operations: &[u8]) -> bool {
    // struct io_uring_restriction, 16 bytes: the kind of the rule, then the operation, the flags,
    // or the number of the registration.
    let restriction = |what: u16, which: u8| {
        u128::from_ne_bytes(std::array::from_fn(|at| match at {
            0 | 1 => what.to_ne_bytes()[at],
            2 => which,
            _ => 0,
        }))
    };
    let mut rules: Vec<_> = operations.iter().map(|&operation| restriction(1, operation)).collect();
    const ENABLE_RINGS: u8 = 12;
    rules.extend([restriction(0, ENABLE_RINGS), restriction(2, 0xff)]);
    let (fd, count) = (lp.ring_fd().unwrap(), rules.len());
    const REGISTER_RESTRICTIONS: libc::c_uint = 11;
    // SAFETY: the kernel reads `count` rules, and `rules` has as many.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RESTRICTIONS, rules.as_ptr(), count)
    };
    // EBADFD: on the oldest kernels the ring is not created disabled.
    assert!(result == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EBADFD));
    result == 0
}

#[test]
fn s32_a_kernel_that_cannot_be_probed_is_too_old() {
    const IORING_REGISTER_PROBE: u32 = 8;
    thread::spawn(|| {
        refuse(libc::SYS_io_uring_register, Some(IORING_REGISTER_PROBE), EINVAL);
        let error = Loop::new().expect_err("the probe is refused");
        assert_eq!(error.raw_os_error(), ENOSYS);
        assert!(error.to_string().contains("5.10"), "{error}");
    })
    .join()
    .unwrap();
}

#[test]
fn s33_a_child_reports_though_another_thread_held_stderr() {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let _held = std::io::stderr().lock();
        tell.send(()).unwrap();
        let _ = ends.recv();
    });
    told.recv().unwrap();
    let mut pipe = [0; 2];
    // SAFETY: the descriptors are written to a live array. The child has only this thread, and
    // leaves by _exit.
    let child = unsafe {
        assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
        match libc::fork() {
            0 => {
                libc::alarm(20);
                libc::dup2(pipe[1], libc::STDERR_FILENO);
                libc::setenv(c"RINGLOOP_DEBUG".as_ptr(), c"1".as_ptr(), 1);
                let lp = Loop::new().unwrap();
                lp.call_soon(|_| ()).unwrap();
                libc::_exit(i32::from(lp.close().is_err()))
            }
            child => child,
        }
    };
    let (mut status, mut text) = (-1, String::new());
    // SAFETY: the status is written to a live variable; the descriptors are this test's own.
    unsafe {
        libc::close(pipe[1]);
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        std::fs::File::from_raw_fd(pipe[0]).read_to_string(&mut text).unwrap();
    }
    drop(end);
    holder.join().unwrap();
    assert!(
        status == 0
            && text.starts_with("ringloop: pending at close: ")
            && text.lines().count() == 1,
        "{status}: {text}"
    );
}

/// Forks, once, and returns whether this is the child. The parent waits for the child, and checks
/// that the child exits with 0.
fn fork_once(forks: &Cell<bool>) -> bool {
    if !forks.replace(false) {
        return false;
    }
    // SAFETY: the child calls only functions for forked children, and leaves by _exit.
    match unsafe { libc::fork() } {
        0 => true,
        child => {
            let mut status = -1;
            // SAFETY: the status is written to a live variable.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
            false
        }
    }
}

#[test]
fn s33_a_child_submits_nothing_when_the_descriptor_that_it_is_given_has_forked() {
    /// Forks when its descriptor number is requested.
    struct Forks(OwnedFd, Cell<bool>, Rc<Cell<bool>>);
    impl AsFd for Forks {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.2.set(self.2.get() || fork_once(&self.1));
            self.0.as_fd()
        }
    }
    let lp = Loop::new().unwrap();
    assert_eq!(lp.run_once(Duration::ZERO), Ok(0));
    for multi in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let is_child = Rc::new(Cell::new(false));
        let fd = Forks(listener.into(), Cell::new(true), Rc::clone(&is_child));
        let submitted =
            if multi { lp.accept_multi(fd, |_, _| ()) } else { lp.accept(fd, |_, _| ()) };
        if is_child.get() {
            let is_refused = submitted.is_err_and(|error| error.raw_os_error() == EOWNERDEAD);
            // SAFETY: _exit takes any number.
            unsafe { libc::_exit(i32::from(!is_refused)) };
        }
        submitted.unwrap();
    }
}

#[test]
fn s33_a_child_that_forked_in_a_walk_walks_no_further() {
    let lp = Loop::new().unwrap();
    for _ in 0..3 {
        lp.call_later(Duration::from_secs(1), |_| ()).unwrap();
    }
    let (forks, calls, is_child) = (Cell::new(true), Cell::new(0), Cell::new(false));
    let walked = lp.walk(|_, _| {
        calls.set(calls.get() + 1);
        is_child.set(is_child.get() || fork_once(&forks));
    });
    if is_child.get() {
        let is_refused = walked.is_err_and(|error| error.raw_os_error() == EOWNERDEAD);
        // SAFETY: _exit takes any number.
        unsafe { libc::_exit(i32::from(!is_refused || calls.get() != 1)) };
    }
    assert_eq!((walked, calls.get()), (Ok(()), 3));
}
