//! A descriptor that is closed whatever comes of the operation that does it.

use std::os::fd::RawFd;

use crate::abi::completion::Completed;
use crate::pending::driver::{Driver, Step};
use crate::sys::descriptors::close_unseen;

/// Closes the descriptor of an operation that was to do so and has not.
#[derive(Debug)]
pub(super) struct Closing(RawFd);

impl Closing {
    pub(super) fn new(fd: RawFd) -> Closing {
        Closing(fd)
    }
}

impl Driver for Closing {
    fn completed(&mut self, completed: Completed) -> Step {
        if completed.result == -libc::ECANCELED {
            // The kernel says that it has not begun.
            close_unseen(self.0);
        }
        Step::give(completed)
    }
}
