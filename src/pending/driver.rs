//! The interface of an operation that takes more than one entry or has more than one result.
//!
//! The schedule calls and drops a driver while it is borrowed, so a driver holds no user values and
//! calls no user code.

use super::event::OpResult;
use crate::abi::completion::Completed;
use crate::abi::sqe::Entry;

/// Owns the memory that the kernel uses for an operation, and translates completions into results.
/// It is dropped when the operation has ended, and holds no user values, because the schedule is
/// borrowed then.
pub(crate) trait Driver: std::fmt::Debug {
    /// The next entry for the kernel, after `Step::again` or a wait. None: not now.
    fn entry(&mut self) -> Option<Entry> {
        None
    }

    /// Translates a completion.
    fn completed(&mut self, completed: Completed) -> Step {
        Step::give(completed)
    }

    /// Whether the operation waits for others of its kind on the same descriptor.
    fn takes_turns(&self) -> bool {
        false
    }

    /// The result will not be delivered: closes what it contains.
    fn discarded(&mut self, _result: i32) {}

    /// The user has cancelled. False: work that has begun outside the kernel, and ends by itself.
    fn withdraw(&mut self) -> bool {
        true
    }

    /// The result of an operation that is cancelled while it is not in the kernel.
    fn cancelled(&self) -> i32 {
        -libc::ECANCELED
    }

    /// The callback has returned from a result that is not the final one.
    fn seen(&mut self, _given: OpResult) {}

    /// Whether operations wait for a resource of this one, some of which is free.
    fn may_resume_others(&self) -> bool {
        false
    }
}

/// The effect of a completion: a result for the user, another entry for the kernel, both or
/// neither.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) given: Option<OpResult>,
    pub(crate) again: bool,
}

impl Step {
    /// Passes the completion on as a result.
    pub(crate) fn give(completed: Completed) -> Step {
        Step { given: Some(OpResult::new(completed.result, completed.flags)), again: false }
    }

    /// The final result.
    pub(crate) fn end(result: i32) -> Step {
        Step { given: Some(OpResult::new(result, 0)), again: false }
    }

    /// No result; the kernel gets the next entry.
    pub(crate) const AGAIN: Step = Step { given: None, again: true };

    /// No result, and no entry until a resource is free.
    pub(crate) const WAIT: Step = Step { given: None, again: false };
}
