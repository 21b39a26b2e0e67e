//! The stage of an entry on its way through the kernel.
//!
//! Only transitions are here. The caller submits, cancels and counts.

/// The stage of an operation's entry, or of a poll's or a child's, which are never `Waiting` or
/// chained. (`event_loop::work` has its own `Stage`, of a work item.)
///
/// ```text
/// Idle -> Waiting -> Submitted <-> Cancelling
///   ^        ^  \       ^              ^
///   |        |   `--> Chained <-> ChainedCancelling
///   '--------'------ completed, from each of these four
/// ```
///
/// An arrow to the right is a cancel request, to the left its refusal, and up the end of the
/// preceding operation in the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// No completion is to come: the slot has no operation, it has ended, or the poll is not armed.
    #[default]
    Idle,
    /// Not in the kernel: it waits for its turn, a buffer, a time or a thread, or for the next
    /// submission.
    Waiting,
    /// In the kernel, behind an unfinished operation of its chain. It may have begun all the same:
    /// behind a zero-copy send, which ends when its buffer is free (6.18).
    Chained,
    /// The same, with a cancel under way.
    ChainedCancelling,
    /// In the kernel.
    Submitted,
    /// In the kernel, with a cancel under way.
    Cancelling,
}

impl Stage {
    /// Whether the kernel may use the memory of the entry.
    pub(super) fn is_in_kernel(self) -> bool {
        !matches!(self, Stage::Idle | Stage::Waiting)
    }

    /// Marks a cancel as under way; false if the entry is not in the kernel, or has one already.
    #[must_use]
    pub(super) fn ask(&mut self) -> bool {
        let asked = match self {
            Stage::Submitted => Stage::Cancelling,
            Stage::Chained => Stage::ChainedCancelling,
            _ => return false,
        };
        *self = asked;
        true
    }

    /// The kernel has refused a cancel, and may be asked again. Returns whether a cancel was under
    /// way.
    pub(super) fn refused(&mut self) -> bool {
        let unasked = match self {
            Stage::Cancelling => Stage::Submitted,
            Stage::ChainedCancelling => Stage::Chained,
            _ => return false,
        };
        *self = unasked;
        true
    }

    /// The preceding operation of its chain has ended.
    pub(super) fn unchain(&mut self) {
        match self {
            Stage::Chained => *self = Stage::Submitted,
            Stage::ChainedCancelling => *self = Stage::Cancelling,
            _ => {}
        }
    }
}
