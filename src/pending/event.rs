//! The cause of a call: the argument that a callback gets beside the loop.
//!
//! A callback relies on the schedule to pass only events of its own kind.

use std::ptr;

use libc::{c_int, pid_t};

use crate::abi::completion::MORE;
use crate::error::{Error, Result};

/// The cause of a call.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "capi"),
    expect(dead_code, reason = "C is told more than closures, which know it")
)]
pub(crate) enum Event {
    /// The turn of a call, a timer, a hook, a task or a release, without more data.
    Turn,
    /// An operation, or work on another thread, has a result.
    Completed(OpResult),
    /// A descriptor is ready for these `POLL*` events.
    Ready(c_int, u32),
    Signal(c_int),
    /// A child has ended, with this wait status.
    Exited(pid_t, c_int),
}

/// A result of an operation; the final one unless `MORE` is among the flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpResult {
    pub(crate) result: i32,
    pub(crate) flags: u32,
    /// The received data; null if it is not in a buffer of the loop.
    pub(crate) data: *const u8,
}

impl Event {
    /// The result of an operation, for a callback that gets no other event.
    #[inline]
    pub(crate) fn completed(&self) -> OpResult {
        let Event::Completed(result) = self else {
            unreachable!("an operation's callback was called for {self:?}")
        };
        *result
    }
}

impl OpResult {
    pub(crate) fn new(result: i32, flags: u32) -> OpResult {
        OpResult { result, flags, data: ptr::null() }
    }

    /// The result from the kernel, often a number of bytes, or the error.
    pub(crate) fn count(self) -> Result<u32> {
        u32::try_from(self.result).map_err(|_| Error::of_operation(self.result))
    }

    pub(crate) fn is_final(self) -> bool {
        self.flags & MORE == 0
    }
}
