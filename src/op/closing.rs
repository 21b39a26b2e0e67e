//! A descriptor that is closed whatever comes of the operation that does it.

use std::os::fd::RawFd;

use crate::abi::completion::Completed;
use crate::pending::driver::{Driver, Step};
use crate::sys::descriptors::close_unseen;

#[derive(Debug)]
pub(super) struct Closing(pub(super) RawFd);

// SAFETY: it gives no entries.
unsafe impl Driver for Closing {
    fn completed(&mut self, completed: Completed) -> Step {
        if completed.result == -libc::ECANCELED {
            // The kernel says that it has not begun.
            close_unseen(self.0);
        }
        Step::give(completed)
    }
}
