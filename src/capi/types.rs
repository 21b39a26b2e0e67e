//! The types that all sections use.

use std::ffi::c_void;

use super::loop_t;

/// Names something that was scheduled. A handle is greater than 0. A handle never dangles: after
/// the thing that it names has ended, every function returns -ENOENT for it, even if its slot has
/// been used again.
pub type loop_handle_t = i64;

/// A callback. It gets the loop on which it runs, so that it can schedule more, and the `arg` that
/// was passed with it.
///
/// A callback must return: no longjmp, no pthread_exit. A C++ exception that leaves a callback
/// aborts the process with a message. The message does not name the exception, because the library
/// cannot call what(). A callback that was started with ringloop.hpp may throw: the exception
/// propagates out of the run, or what() is in the message.
pub type loop_callback_t =
    Option<unsafe extern "C-unwind" fn(r#loop: *mut loop_t, arg: *mut c_void)>;

/// A release hook. It gets the `arg` of something that has ended, exactly once.
pub type loop_release_t = Option<unsafe extern "C-unwind" fn(arg: *mut c_void)>;
