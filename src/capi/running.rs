//! Running: the ways of running a loop, stopping, breaking.

use std::ffi::c_int;
use std::ptr;

use super::{ConstLoopPtr, LoopPtr, as_c, count, loop_t, number, status};
use crate::error::Result;
use crate::event_loop::{Loop, Outcome};

/// The run returned because nothing that counts is left.
pub const LOOP_DONE: c_int = 0;
/// The run returned because of loop_stop().
pub const LOOP_STOPPED: c_int = 1;
/// The run returned because of loop_break().
pub const LOOP_BROKEN: c_int = 2;

fn outcome(result: Result<Outcome>) -> c_int {
    number(result.map(|outcome| match outcome {
        Outcome::Done => LOOP_DONE,
        Outcome::Stopped => LOOP_STOPPED,
        Outcome::Broken => LOOP_BROKEN,
    }))
}

/// Runs the loop until loop_stop() or loop_break(). A signal does not end the run. The loop sleeps
/// in the kernel while nothing is ready. Costs one system call for each iteration that sleeps, and
/// seldom a second one for a timer that was cancelled in the meantime. An iteration that does not
/// sleep makes none, unless operations wait to be submitted or the kernel holds completions back.
///
/// Returns LOOP_STOPPED or LOOP_BROKEN, or -EBUSY the loop is already running (a callback may run
/// another loop); -ENOMEM memory was refused, nothing is lost, run again; -EAGAIN the kernel has
/// accepted no submissions for one second, for lack of memory, nothing is lost, run again; -EBADR
/// the kernel had no memory to keep a completion: the operation of that completion ends with -EBADR
/// when it is cancelled; -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL; the errors of io_uring_enter().
/// The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_run_forever(r#loop: LoopPtr<'_>) -> c_int {
    outcome(r#loop.with(Loop::run_forever))
}

/// Runs the loop until nothing is left that counts: no call, timer, post, watcher, operation, child
/// or work. loop_unref() makes one of these not count. In all other ways loop_run() works as
/// loop_run_forever() does. If nothing is left at the start, the call returns at once, without an
/// iteration. A remote does not keep a run going: if other threads may still post, use
/// loop_run_forever() and stop it.
///
/// Returns LOOP_DONE, LOOP_STOPPED or LOOP_BROKEN. Errors: the errors of loop_run_forever(). The
/// loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_run(r#loop: LoopPtr<'_>) -> c_int {
    outcome(r#loop.with(Loop::run))
}

/// Runs one iteration, which sleeps for at most `timeout_ns`. With 0 the iteration does not sleep;
/// with LOOP_NEVER it sleeps until something is ready.
///
/// Returns how many callbacks ran, without hooks; the number may be 0. A loop_stop() or a
/// loop_break() ends with this iteration and does not show in the result. Errors: -EINTR a signal
/// ended the wait and no callback ran; otherwise the errors of loop_run_forever(). The loop's
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_run_once(r#loop: LoopPtr<'_>, timeout_ns: u64) -> c_int {
    count(r#loop.with(|lp| lp.iterate_once(timeout_ns)))
}

/// Makes the run return after the current batch of callbacks. Callbacks that the batch scheduled
/// stay for the next run. If the function is called before a run, that run does exactly one
/// iteration, which does not sleep. The request ends when a run returns. O(1).
///
/// Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_stop(r#loop: LoopPtr<'_>) -> c_int {
    status(r#loop.with(Loop::stop))
}

/// Makes the run return after the current callback. The rest of the batch stays at the front of the
/// ready queue for the next run. loop_break() takes precedence over loop_stop(). O(1).
///
/// Errors: -EINVAL the loop is not running; -EPERM, -EOWNERDEAD. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_break(r#loop: LoopPtr<'_>) -> c_int {
    status(r#loop.with(Loop::break_))
}

/// Tells whether the loop is inside a run. The loop's thread; false on another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_is_running(r#loop: ConstLoopPtr<'_>) -> bool {
    r#loop.ask(false, Loop::is_running)
}

/// Tells whether loop_run() would wait or work: something that counts is pending. The loop's
/// thread; false on another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_is_alive(r#loop: ConstLoopPtr<'_>) -> bool {
    r#loop.ask(false, Loop::is_alive)
}

/// Gets the innermost loop that is running on the calling thread, or NULL. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_running() -> *mut loop_t {
    Loop::with_running(|lp| {
        lp.filter(|lp| lp.check_not_forked().is_ok()).map_or(ptr::null_mut(), as_c)
    })
}
