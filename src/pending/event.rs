//! What a callback is called for: the argument that it gets beside the loop.

use std::ptr;

use libc::{c_int, pid_t};

use crate::abi::completion::MORE;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "capi"),
    expect(dead_code, reason = "C is told more than closures, which know it")
)]
pub(crate) enum Event {
    /// The callback has its turn, and there is no more to say: a call, a timer, a hook, a task, a
    /// release.
    Turn,
    /// An operation, or work on another thread, came to a result.
    Completed(OpResult),
    /// A descriptor is ready for these `POLL*`.
    Ready(c_int, u32),
    Signal(c_int),
    /// A child has ended, with this wait status.
    Exited(pid_t, c_int),
}

/// A result of an operation. The operation has ended with it unless `MORE` is among the flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpResult {
    pub(crate) result: i32,
    pub(crate) flags: u32,
    /// What was received; null where that is in no buffer of the loop's.
    pub(crate) data: *const u8,
}

impl Event {
    /// The result of an operation, for a callback that is called for nothing else.
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

    /// The number that the kernel gave, which often is one of bytes, or the error.
    pub(crate) fn count(self) -> Result<u32> {
        u32::try_from(self.result).map_err(|_| Error::of_operation(self.result))
    }

    pub(crate) fn is_final(self) -> bool {
        self.flags & MORE == 0
    }
}
