//! What stands behind an operation that is more than one entry for the kernel.

use super::event::OpResult;
use crate::abi::completion::Completed;
use crate::abi::sqe::Entry;

/// Keeps what the kernel reads or writes, and says what comes of a completion. It is dropped when
/// the operation has ended.
///
/// It belongs to the loop: nothing of the user's is in it, since it is called and dropped while the
/// schedule is borrowed.
pub(crate) trait Driver: std::fmt::Debug {
    /// The next entry for the kernel, after `Step::again`, or when it has waited. None: not now.
    fn entry(&mut self) -> Option<Entry> {
        None
    }

    /// What comes of a completion.
    fn completed(&mut self, completed: Completed) -> Step {
        Step::give(completed)
    }

    /// Whether it waits until no other of its kind is under way on its descriptor.
    fn takes_turns(&self) -> bool {
        false
    }

    /// Nobody will see this result: what it has brought is closed.
    fn discarded(&mut self, _result: i32) {}

    /// The user wants an end. False: it has begun elsewhere than in the kernel, and ends by itself.
    fn withdraw(&mut self) -> bool {
        true
    }

    /// The result of an operation that is cancelled while the kernel knows nothing of it.
    fn cancelled(&self) -> i32 {
        -libc::ECANCELED
    }

    /// The callback has returned from a result that is not the final one.
    fn seen(&mut self, _given: OpResult) {}

    /// Whether operations wait for what this one uses, and some of it is free.
    fn may_resume_others(&self) -> bool {
        false
    }
}

/// What comes of a completion: a result for the user, another entry for the kernel, both or
/// neither.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) given: Option<OpResult>,
    pub(crate) again: bool,
}

impl Step {
    /// The result as it came.
    pub(crate) fn give(completed: Completed) -> Step {
        Step { given: Some(OpResult::new(completed.result, completed.flags)), again: false }
    }

    /// The last result.
    pub(crate) fn end(result: i32) -> Step {
        Step { given: Some(OpResult::new(result, 0)), again: false }
    }

    /// No result: the kernel gets the next entry.
    pub(crate) const AGAIN: Step = Step { given: None, again: true };

    /// No result, and nothing for the kernel until something has come back.
    pub(crate) const WAIT: Step = Step { given: None, again: false };
}
