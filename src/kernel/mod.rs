//! The interface of a loop to the kernel: the functions of [`Kernel`] that are visible outside this
//! room. `uring` implements it with io_uring, the only implementation so far. The rooms above use
//! neither a ring nor the crate io_uring.
//!
//! The loop queues entries (`abi::sqe`) under numbers, and gets completions with these numbers. The
//! maker of an entry guarantees that its memory is valid until the last completion. This room does
//! not know the pending entries of a loop and calls no user code.
//!
//! A kernel is used by one thread at a time, that of its loop. In a forked child it does nothing,
//! and dropping it there does not affect the parent's ring.

#[allow(unsafe_code)]
pub(crate) mod buffers;
mod uring;

pub(crate) use self::uring::Kernel;
use crate::error::{Error, Result};

/// The numbers of entries of the two queues; the kernel rounds up to powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    sq: u32,
    cq: u32,
}

/// The result of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// There is a completion, or the kernel takes no submissions at the moment.
    Completed,
    /// A signal ended the wait before any completion.
    Interrupted,
}

/// Counters of submissions and completions.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Traffic {
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) enters: u64,
    pub(crate) overflows: u64,
}

/// The operations that the kernel has, probed when the loop was made. The version is not used,
/// because distributions backport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    operations: [u64; 4],
}

impl Sizes {
    const DEFAULT_SQ: u32 = 128;
    const LARGEST_SQ: u32 = 32768;
    const LARGEST_CQ: u32 = 65536;

    /// Zero means the default: 128 submissions, and 8 completions for each submission.
    pub(crate) fn new(sq: u32, cq: u32) -> Result<Sizes> {
        let sq =
            if sq == 0 { Sizes::DEFAULT_SQ.min(if cq == 0 { u32::MAX } else { cq }) } else { sq };
        let cq = if cq == 0 { sq.saturating_mul(8).min(Sizes::LARGEST_CQ) } else { cq };
        if sq > Sizes::LARGEST_SQ || cq > Sizes::LARGEST_CQ || cq < sq {
            return Err(Error::ENTRIES_OUT_OF_RANGE);
        }
        Ok(Sizes { sq, cq })
    }
}

impl Features {
    fn new(supports: impl Fn(u8) -> bool) -> Features {
        let mut operations = [0; 4];
        for opcode in 0..=u8::MAX {
            operations[usize::from(opcode) / 64] |= u64::from(supports(opcode)) << (opcode % 64);
        }
        Features { operations }
    }

    #[inline]
    pub(crate) fn supports(&self, opcode: u8) -> bool {
        self.operations[usize::from(opcode) / 64] >> (opcode % 64) & 1 == 1
    }
}
