//! S28, S29, S32: errors lose nothing, their order, kernels that refuse.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use libc::{EACCES, EINVAL, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSYS, EOWNERDEAD, EPERM, ESHUTDOWN};
use ringloop::{Loop, Outcome, Time};

use crate::support::Watched;
use crate::trace::{HOUR, START, Trace, errno, ns, real_loop, virtual_loop};

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
    assert!(error.to_string().contains("EINVAL") && error.to_string().contains("period"), "{error}");
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
    // SAFETY: the child calls the loop and leaves by _exit; glibc lets it allocate, whatever the other threads held.
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
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(checked.is_err())) }
        }
        child => {
            let mut status = -1;
            // SAFETY: the child is this thread's own, and `status` is a live variable.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "a check in the child failed");
            assert!(lp.is_pending(handle), "the child has hurt the parent's loop");
        }
    }
}

/// Makes a system call fail on the calling thread for good: `io_uring_setup`, or `io_uring_register` with one opcode.
fn refuse(call: libc::c_long, opcode: Option<u32>, errno: i32) {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let skip_unless = |k: u32, jf: u8| libc::sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt: 0, jf, k };
    let load = |offset: u32| statement(BPF_LD | BPF_W | BPF_ABS, offset);
    let end = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32);
    // struct seccomp_data: the number at 0, the low half of the second argument at 24.
    let mut program = vec![load(0)];
    match opcode {
        None => program.extend([skip_unless(call as u32, 1), end]),
        Some(opcode) => program.extend([skip_unless(call as u32, 3), load(24), skip_unless(opcode, 1), end]),
    }
    program.push(statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` describes `program`, which lives until the kernel has copied it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
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
        // The filter holds for its thread alone, and ends with it.
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
    // This thread is not refused.
    assert!(real_loop().time() > Time::default());
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
