//! Completions: the kernel's reply to an entry, and its flags.
//!
//! Plain data. The numbers and flags are those of linux/io_uring.h, except `TIMED_OUT`.

use super::handle::Handle;

/// A completion of an entry that the loop submitted under a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completed {
    /// The number with which the entry was submitted.
    pub(crate) number: u64,
    pub(crate) result: i32,
    /// `IORING_CQE_F_*`, and the number of a provided buffer in the upper half.
    pub(crate) flags: u32,
}

/// Set in the number of a completion that replies to a cancel request.
pub(crate) const CANCEL_REPLY: u64 = 1 << 63;

/// The number of an operation in the kernel.
#[inline]
pub(crate) fn number(handle: Handle) -> u64 {
    handle.as_raw() as u64
}

/// `IORING_CQE_F_BUFFER`: a buffer was used; its number is in the upper half of the flags.
pub(crate) const HAS_BUFFER: u32 = 1 << 0;
/// `IORING_CQE_F_MORE`: more results will come.
pub(crate) const MORE: u32 = 1 << 1;
/// `IORING_CQE_F_BUF_MORE`: the kernel continues with the rest of the buffer.
pub(crate) const BUFFER_GOES_ON: u32 = 1 << 4;
/// The deadline ended the operation. The kernel does not use this bit.
pub(crate) const TIMED_OUT: u32 = 1 << 13;
