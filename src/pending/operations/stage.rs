//! How far an entry has come.

/// The stage of an operation's entry; of a poll's and of a child's, which are never `Waiting` or
/// chained.
///
/// ```text
/// Idle -> Waiting -> Submitted <-> Cancelling
///   ^        ^  \       ^              ^
///   |        |   `--> Chained <-> ChainedCancelling
///   '--------'------ completed, from each of these four
/// ```
///
/// An arrow to the right is a request to cancel, one to the left its refusal, one up the end of the
/// operation before it in the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// Nothing is to come: the slot has no operation, or it has ended, or the poll is not armed.
    #[default]
    Idle,
    /// The kernel does not have it: it waits for its turn, a buffer, a time or a thread, or goes to
    /// the kernel with what is submitted next.
    Waiting,
    /// The kernel has it behind one in its chain that has not ended. It may have begun all the
    /// same: behind a send without a copy, which ends when its buffer is free (6.18).
    Chained,
    /// The same, and the kernel has been asked to cancel it.
    ChainedCancelling,
    /// The kernel has it.
    Submitted,
    /// The kernel has it, and has been asked to cancel it.
    Cancelling,
}

impl Stage {
    /// Whether the kernel may use what the entry points to.
    pub(super) fn is_in_kernel(self) -> bool {
        !matches!(self, Stage::Idle | Stage::Waiting)
    }

    /// The kernel is to be asked to cancel it; false if it does not have it, or has been asked.
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

    /// The kernel has refused to cancel it, and may be asked again. Whether it had been asked.
    pub(super) fn refused(&mut self) -> bool {
        let unasked = match self {
            Stage::Cancelling => Stage::Submitted,
            Stage::ChainedCancelling => Stage::Chained,
            _ => return false,
        };
        *self = unasked;
        true
    }

    /// The one before it in its chain has ended.
    pub(super) fn unchain(&mut self) {
        match self {
            Stage::Chained => *self = Stage::Submitted,
            Stage::ChainedCancelling => *self = Stage::Cancelling,
            _ => {}
        }
    }
}
