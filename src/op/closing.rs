//! A descriptor that is closed whatever comes of the operation that does it.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::abi::completion::Completed;
use crate::pending::driver::{Driver, Step};

#[derive(Debug)]
pub(super) struct Closing(pub(super) RawFd);

// SAFETY: it gives no entries.
unsafe impl Driver for Closing {
    fn completed(&mut self, completed: Completed) -> Step {
        if completed.result == -libc::ECANCELED {
            // SAFETY: the operation owned the descriptor, and the kernel says that it has not begun to close it.
            drop(unsafe { OwnedFd::from_raw_fd(self.0) });
        }
        Step::give(completed)
    }
}
