//! Signals.

use std::ffi::{c_int, c_void};

use super::{Arg, Function, LoopPtr, loop_handle_t, loop_t};
use crate::sys::signals::check_catchable;

/// A signal handler: gets the signal's number, on the loop's thread, where it may call anything.
pub type loop_signal_callback_t =
    Option<unsafe extern "C-unwind" fn(r#loop: *mut loop_t, signum: c_int, arg: *mut c_void)>;

/// Runs `callback` whenever the process gets the signal `signum` (SIGTERM and so on), until it is
/// cancelled. Several handlers for a signal, on several loops, all run, those of one loop oldest
/// first. Like hooks, they keep no loop_run() going.
///
/// A signal that comes again before the callback has run is one with the former, real-time signals
/// too. No signal mask is changed, so leave the signal unblocked in one thread at least.
/// sigaction() is called when the process's first handler for the signal is added; the former
/// disposition is back when the last one has gone (loop_cancel(), loop_close()), unless the program
/// has replaced it meanwhile. In a forked child the former disposition is in force at once.
///
/// loop_cancel() of a handler waits until no thread is inside of the process's handler, some
/// microseconds.
///
/// Returns a handle, or -EINVAL for a signal that cannot be caught and for SIGSEGV, SIGBUS, SIGFPE
/// and SIGILL; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. Two system calls at most. The loop's
/// thread.
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
