//! Children.

use std::ffi::{c_int, c_void};

use libc::pid_t;

use super::{Arg, Function, LoopPtr, loop_handle_t, loop_t};
use crate::sys::children::{check_pid, open_pidfd};

/// Gets a child that has ended: `wait_status` is what waitpid() gave, for WIFEXITED() and the like;
/// -1 when another has waited for the child.
pub type loop_child_callback_t = Option<
    unsafe extern "C-unwind" fn(
        r#loop: *mut loop_t,
        pid: pid_t,
        wait_status: c_int,
        arg: *mut c_void,
    ),
>;

/// Runs `callback` once when the child process `pid` has ended. The loop waits for it (reaps it)
/// just before it calls back, and not when the watcher has been cancelled: then the child is left
/// to you. Let nobody else wait for it meanwhile, and have one watcher a child. Should another do
/// so all the same, the wait status is -1, and no child to which the number has come is taken for
/// it: the loop has a descriptor (a pidfd) for the child. No signal is used: SIGCHLD is yours to
/// handle or to block; where it is ignored, the wait status is -1.
///
/// Returns a handle, or -ECHILD when `pid` is no child of this process or has been waited for;
/// -EINVAL when it is not positive; -EAGAIN when the kernel takes no operation at the moment;
/// -EMFILE, -ENFILE when there is no descriptor left; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. Two
/// system calls, and a descriptor until it has ended or is cancelled. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_watch_child(
    r#loop: LoopPtr<'_>,
    pid: pid_t,
    callback: Function<'_, loop_child_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    let args = callback.with(&arg).and_then(|callback| check_pid(pid).map(|_| callback));
    r#loop.schedule(args, |lp, callback| lp.schedule_child(pid, open_pidfd(pid)?, callback.into()))
}
