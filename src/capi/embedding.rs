//! Inside another loop: the descriptor and the flush.

use std::ffi::c_int;

use super::{LoopPtr, number, status};
use crate::event_loop::Loop;

/// Gets a descriptor that is readable whenever the loop has work. Work is anything that
/// loop_run_once(loop, 0) would run, timers included. The descriptor is for the poll() or epoll of
/// a host loop: the host waits until it is readable, calls loop_run_once(loop, 0), and waits again.
/// After a timer was cancelled, the descriptor may be readable with nothing to do: loop_run_once()
/// then returns 0.
///
/// The descriptor belongs to the loop: never read or close it. The first call makes the descriptor:
/// an eventfd, or an epoll before Linux 5.19. The clock of LOOP_VIRTUAL_TIME does not move while
/// the host waits.
///
/// Returns the descriptor, or -EMFILE, -ENFILE, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL.
/// The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_fd(r#loop: LoopPtr<'_>) -> c_int {
    number(r#loop.with(Loop::fd))
}

/// Makes loop_fd() include what was scheduled since the last loop_run_once(). Call it before the
/// host sleeps, if something was scheduled, cancelled or forgotten, or a buffer was returned. The
/// call is not needed after loop_run_once() or inside callbacks.
///
/// Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL; the errors of io_uring_enter(). At most two
/// system calls. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_flush(r#loop: LoopPtr<'_>) -> c_int {
    status(r#loop.with(Loop::flush))
}
