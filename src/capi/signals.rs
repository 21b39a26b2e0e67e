//! Signals.

use std::ffi::{c_int, c_void};

use super::{Arg, Function, LoopPtr, loop_handle_t, loop_t};
use crate::sys::signals::check_catchable;

/// A handler of loop_add_signal_handler(). The handler gets the number of the signal. Unlike a
/// handler of sigaction(2), this handler runs as a callback on the loop's thread, and may call any
/// function there.
pub type loop_signal_callback_t =
    Option<unsafe extern "C-unwind" fn(r#loop: *mut loop_t, signum: c_int, arg: *mut c_void)>;

/// Runs `callback` whenever the process gets the signal `signum` (SIGTERM and so on), until the
/// handler is cancelled. A signal may have several handlers, on several loops: all of them run,
/// those of one loop oldest first. Signal handlers, like hooks, do not keep loop_run() going.
///
/// If a signal comes again before the callback has run, the callback runs once for both, also for
/// real-time signals. The loop changes no signal mask, so leave the signal unblocked in at least
/// one thread. The process's first handler for a signal calls sigaction(). The former disposition
/// is restored when the last handler has ended (loop_cancel(), loop_close()), unless the program
/// has replaced the disposition in the meantime. In a forked child the former disposition is in
/// force at once.
///
/// loop_cancel() of a handler waits until no thread is inside the process's handler, which takes
/// some microseconds.
///
/// Returns a handle, or -EINVAL the signal cannot be caught, or is SIGSEGV, SIGBUS, SIGFPE or
/// SIGILL, or `loop` or `callback` is NULL; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. Two system
/// calls at most. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_add_signal_handler(
    r#loop: LoopPtr<'_>,
    signum: c_int,
    callback: Function<'_, loop_signal_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    let args = callback.with(&arg).and_then(|callback| check_catchable(signum).map(|_| callback));
    r#loop.schedule(args, |lp, callback| lp.schedule_signal(signum, callback.into()))
}
