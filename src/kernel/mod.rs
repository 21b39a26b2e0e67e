//! What a loop asks of a kernel, and who answers: the functions of [`Kernel`] that are visible
//! outside this room are the interface. io_uring is the only kernel so far, in `uring`; the rooms
//! above name neither a ring nor the crate.
//!
//! Entries (`abi::sqe`) are the language: the loop queues them under numbers, and gets completions
//! with these numbers back. An entry comes with its maker's word that the memory it points to is
//! valid until the last completion. Nothing here knows what is pending in a loop, and nothing
//! calls user code.
//!
//! A kernel is used by one thread at a time, that of its loop. In a forked child it does nothing,
//! and dropping it there leaves the parent's ring as it is.

#[allow(unsafe_code)]
pub(crate) mod buffers;
mod uring;

pub(crate) use self::uring::Kernel;
use crate::error::{Error, Result};

/// Entries of the two queues; the kernel rounds up to powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    sq: u32,
    cq: u32,
}

/// What a wait came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// Something completed, or the kernel takes no submissions at the moment.
    Completed,
    /// A signal ended it before anything completed.
    Interrupted,
}

/// Counts of what passed through.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Traffic {
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) enters: u64,
    pub(crate) overflows: u64,
}

/// Which operations the kernel has. It was asked when the loop was made, whatever its version:
/// distributions backport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    /// A bit for each.
    operations: [u64; 4],
}

impl Sizes {
    const DEFAULT_SQ: u32 = 128;
    const LARGEST_SQ: u32 = 32768;
    const LARGEST_CQ: u32 = 65536;

    /// Zero asks for the default: 128 submissions, and 8 completions for each of the submissions.
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

    /// Whether it has an operation.
    #[inline]
    pub(crate) fn supports(&self, opcode: u8) -> bool {
        self.operations[usize::from(opcode) / 64] >> (opcode % 64) & 1 == 1
    }
}
