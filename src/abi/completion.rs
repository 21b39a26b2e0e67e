//! What the kernel says of an entry, and the flags that it says it with.

use super::handle::Handle;

/// A completion of an entry that the loop submitted under a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completed {
    /// The number that the entry was submitted with.
    pub(crate) number: u64,
    pub(crate) result: i32,
    /// `IORING_CQE_F_*`, and the number of a provided buffer above them.
    pub(crate) flags: u32,
}

/// Set in the number of a completion that answers a request to cancel.
pub(crate) const CANCEL_REPLY: u64 = 1 << 63;

/// The number under which the kernel knows an operation.
#[inline]
pub(crate) fn number(handle: Handle) -> u64 {
    handle.as_raw() as u64
}

/// `IORING_CQE_F_BUFFER`: a buffer was used, whose number is in the upper half of the flags.
pub(crate) const HAS_BUFFER: u32 = 1 << 0;
/// `IORING_CQE_F_MORE`: more results will come.
pub(crate) const MORE: u32 = 1 << 1;
/// `IORING_CQE_F_BUF_MORE`: the kernel goes on to use the rest of the buffer.
pub(crate) const BUFFER_GOES_ON: u32 = 1 << 4;
/// The deadline cut the operation short. The kernel has no flag at this place.
pub(crate) const TIMED_OUT: u32 = 1 << 13;
