//! Inside another loop: the descriptor and the flush.

use std::ffi::c_int;

use super::{LoopPtr, number, status};
use crate::event_loop::Loop;

/// A descriptor that is readable whenever loop_run_once(loop, 0) has work, timers included: for the
/// poll() or epoll of a host loop. The host waits until it is readable, calls loop_run_once(loop,
/// 0), and waits again. It may be readable with nothing to do, for a timer that was cancelled: then
/// loop_run_once() says 0.
///
/// It stays the loop's: never read or close it. It is made when this is called first: an eventfd,
/// before Linux 5.19 an epoll. The clock of LOOP_VIRTUAL_TIME does not move while the host waits.
///
/// Returns the descriptor, or -EMFILE, -ENFILE, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL.
/// The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_fd(r#loop: LoopPtr<'_>) -> c_int {
    number(r#loop.with(Loop::fd))
}

/// Makes loop_fd() tell of what was scheduled since the last loop_run_once(). Call it before the
/// host sleeps when something was scheduled, cancelled or forgotten, or a buffer was returned; not
/// needed after loop_run_once(), nor inside callbacks.
///
/// Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL; those of io_uring_enter(). At most two system
/// calls. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_flush(r#loop: LoopPtr<'_>) -> c_int {
    status(r#loop.with(Loop::flush))
}
