//! Running: the ways of running a loop, stopping, breaking.

use std::ffi::c_int;
use std::ptr;

use super::{ConstLoopPtr, LoopPtr, as_c, count, loop_t, number, status};
use crate::error::Result;
use crate::event_loop::{Loop, Outcome};

/// The run returned because nothing referenced is left.
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

/// Runs until loop_stop() or loop_break(). A signal does not end it. Sleeps in the kernel while
/// nothing is ready: one system call an iteration that sleeps, and seldom one more, for a timer
/// that was cancelled meanwhile; none for one that does not sleep.
///
/// Returns LOOP_STOPPED or LOOP_BROKEN, or -EBUSY the loop runs already (another loop may be run
/// from inside a callback of this one); -ENOMEM memory was refused, nothing is lost, run again;
/// -EAGAIN the kernel has taken no submissions for a second, for want of memory, nothing is lost,
/// run again; -EBADR the kernel had no memory to keep a completion: an operation that had it ends
/// with -EBADR when it is cancelled; -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL; those of
/// io_uring_enter(). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_run_forever(r#loop: LoopPtr<'_>) -> c_int {
    outcome(r#loop.with(Loop::run_forever))
}

/// Runs until nothing referenced is left: no call, timer, post, watcher, operation, child or work.
/// Otherwise as loop_run_forever(). With nothing left at the start it returns at once, without an
/// iteration. A remote keeps no run going: with threads that may still post, use loop_run_forever()
/// and stop it.
///
/// Returns LOOP_DONE, LOOP_STOPPED or LOOP_BROKEN. Errors: those of loop_run_forever(). The loop's
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_run(r#loop: LoopPtr<'_>) -> c_int {
    outcome(r#loop.with(Loop::run))
}

/// Runs one iteration, which sleeps at most `timeout_ns`: 0 does not sleep, LOOP_NEVER sleeps until
/// something comes.
///
/// Returns how many callbacks ran, hooks not counted; it may be 0. A loop_stop() or a loop_break()
/// ends with it and does not show in the result. Errors: -EINTR a signal ended the wait and no
/// callback ran; else those of loop_run_forever(). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_run_once(r#loop: LoopPtr<'_>, timeout_ns: u64) -> c_int {
    count(r#loop.with(|lp| lp.iterate_once(timeout_ns)))
}

/// Makes the run return after the batch of callbacks that is being run; what the batch scheduled
/// stays for the next run. Before a run: that run does exactly one iteration, which does not sleep.
/// The request ends when a run returns. O(1).
///
/// Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_stop(r#loop: LoopPtr<'_>) -> c_int {
    status(r#loop.with(Loop::stop))
}

/// Makes the run return after the callback that is running; the rest of its batch stays first in
/// line for the next run. Wins over loop_stop(). O(1).
///
/// Errors: -EINVAL the loop is not running; -EPERM, -EOWNERDEAD. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_break(r#loop: LoopPtr<'_>) -> c_int {
    status(r#loop.with(Loop::break_))
}

/// Whether the loop is inside a run. The loop's thread; false from others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_is_running(r#loop: ConstLoopPtr<'_>) -> bool {
    r#loop.ask(false, Loop::is_running)
}

/// Whether loop_run() would wait or work: something that counts is pending. The loop's thread;
/// false from others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_is_alive(r#loop: ConstLoopPtr<'_>) -> bool {
    r#loop.ask(false, Loop::is_alive)
}

/// The innermost loop that is running on the calling thread, or NULL. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn loop_running() -> *mut loop_t {
    Loop::with_running(|lp| {
        lp.filter(|lp| lp.check_not_forked().is_ok()).map_or(ptr::null_mut(), as_c)
    })
}
