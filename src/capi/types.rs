//! The types that all sections use.

use std::ffi::c_void;

use super::loop_t;

/// Names something that was scheduled. A handle is greater than 0. It never dangles: once its thing
/// has ended, every function answers -ENOENT to it, also when its room has been used again since.
pub type loop_handle_t = i64;

/// A callback: gets the loop it runs on, so that it can schedule more, and the `arg` that was given
/// with it.
///
/// It must return: no longjmp, no pthread_exit. A C++ exception that leaves it aborts the process,
/// with a message that does not name the exception: what() is beyond what the library can ask for.
/// A callback that is started by ringloop.hpp may throw: the exception comes out of the run, or
/// what() stands in the message.
pub type loop_callback_t =
    Option<unsafe extern "C-unwind" fn(r#loop: *mut loop_t, arg: *mut c_void)>;

/// A release hook: gets the `arg` of what has ended, exactly once.
pub type loop_release_t = Option<unsafe extern "C-unwind" fn(arg: *mut c_void)>;
