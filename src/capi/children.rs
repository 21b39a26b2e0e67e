//! Children.

use std::ffi::{c_int, c_void};

use libc::pid_t;

use super::{Arg, Function, LoopPtr, loop_handle_t, loop_t};
use crate::sys::children::{check_pid, open_pidfd};

/// Gets the end of a child. `wait_status` is the value from waitpid(), for WIFEXITED() and the
/// like; it is -1 if something other than the loop has waited for the child.
pub type loop_child_callback_t = Option<
    unsafe extern "C-unwind" fn(
        r#loop: *mut loop_t,
        pid: pid_t,
        wait_status: c_int,
        arg: *mut c_void,
    ),
>;

/// Runs `callback` once when the child process `pid` has ended. The loop waits for the child (reaps
/// it) just before the callback. After a cancel of the watcher the loop does not wait: the program
/// must wait for the child. While the watcher is there, no other code may wait for the child, and
/// each child has at most one watcher. If other code nevertheless waits for the child, the wait
/// status is -1, and the loop does not mistake another child with the same number for it, since the
/// loop has a descriptor (a pidfd) for the child. The loop uses no signal: the program may handle
/// or block SIGCHLD. If SIGCHLD is ignored, the wait status is -1.
///
/// Returns a handle, or -ECHILD `pid` is no child of this process, or was already waited for;
/// -EINVAL `pid` is not positive, or `loop` or `callback` is NULL; -EAGAIN the kernel accepts no
/// submissions at the moment; -EMFILE, -ENFILE no descriptor is left; -ENOMEM, -ESHUTDOWN, -EPERM,
/// -EOWNERDEAD. Two system calls, and a descriptor until the child has ended or the watcher is
/// cancelled. The loop's thread.
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
