//! S33: signals in a process that was cloned without `fork`, and so without `pthread_atfork`: the
//! signal handler of the loops is still installed there.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use libc::{c_int, c_void, sighandler_t, siginfo_t};

use crate::trace::real_loop;

/// The number that the program's own handler has stored.
static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn own(_: c_int) {
    SEEN.store(1, Relaxed);
}

extern "C" fn own_with_info(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a live siginfo to a handler with SA_SIGINFO.
    let told = unsafe { (*info).si_signo };
    SEEN.store(if told == signal { 2 } else { 3 }, Relaxed);
}

/// The wait status of a process that is cloned without the C library and gets `signal`. The process
/// exits with the number that its handler has stored.
fn status_of_a_clone(signal: c_int) -> c_int {
    let mut status = 0;
    // SAFETY: the child calls nothing that is not async-signal-safe, and exits; the parent waits
    // for it.
    unsafe {
        let child = libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t;
        if child == 0 {
            libc::kill(libc::getpid(), signal);
            libc::_exit(SEEN.load(Relaxed));
        }
        assert!(child > 0 && libc::waitpid(child, &mut status, 0) == child);
    }
    status
}

#[test]
fn s33_a_clone_does_with_signals_what_was_done_before() {
    let signal = libc::SIGRTMIN() + 10;
    let exits_with = |code: c_int| code << 8;
    let dispositions: [(sighandler_t, c_int, c_int); 4] = [
        (libc::SIG_DFL, 0, signal),
        (libc::SIG_IGN, 0, exits_with(0)),
        (own as extern "C" fn(c_int) as sighandler_t, 0, exits_with(1)),
        (own_with_info as extern "C" fn(_, _, _) as sighandler_t, libc::SA_SIGINFO, exits_with(2)),
    ];
    for (handler, flags, expected) in dispositions {
        // SAFETY: a zeroed sigaction is a valid one; its fields are set below.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        // SAFETY: the handlers do nothing that is not async-signal-safe.
        assert_eq!(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }, 0);
        let lp = real_loop();
        lp.add_signal_handler(signal, |_| panic!("the parent has got no signal")).unwrap();
        assert_eq!(status_of_a_clone(signal), expected);
    }
}
