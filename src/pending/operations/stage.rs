//! How far an entry has come.

/// The stage of an operation's entry; of a poll's and of a child's, which are never `Waiting` or
/// `Chained`.
///
/// ```text
/// Idle -> Waiting -> Submitted -> Cancelling
///   ^        ^     \    |  ^          |
///   |        |      Chained  `- refused-'
///   '--------'----------<-- completed
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// Nothing is to come: the slot has no operation, or it has ended, or the poll is not armed.
    #[default]
    Idle,
    /// The kernel does not have it: it waits for its turn, a buffer, a time or a thread, or goes to
    /// the kernel with what is submitted next.
    Waiting,
    /// The kernel has it behind one in its chain that has not ended, and would not find it.
    Chained,
    /// The kernel has it.
    Submitted,
    /// The kernel has it, and has been asked to cancel it.
    Cancelling,
}

impl Stage {
    /// Whether the kernel may use what the entry points to.
    pub(super) fn is_in_kernel(self) -> bool {
        matches!(self, Stage::Chained | Stage::Submitted | Stage::Cancelling)
    }
}
