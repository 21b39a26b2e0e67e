//! A descriptor that is closed whatever comes of the operation that does it.

use std::os::fd::RawFd;

use super::data::Place;
use super::operation::{OpData, Outcome};
use crate::abi::completion::Completed;
use crate::abi::sqe::Sqe;
use crate::error::Result;
use crate::event_loop::Loop;
use crate::pending::driver::{Driver, Step};
use crate::sys::descriptors::close_unseen;
use crate::sys::memory::try_box;

/// No data, for the operation that closes a descriptor of its own.
pub(super) struct Closed;

// SAFETY: as of nothing.
unsafe impl OpData for Closed {
    type Output = Result<()>;

    fn point(&mut self, sqe: &mut Sqe) -> Result<()> {
        ().put_into(sqe);
        Ok(())
    }

    fn driver(_: &Loop, sqe: &mut Sqe) -> Result<Option<Box<dyn Driver>>> {
        Ok(Some(try_box(Closing(sqe.fd))?))
    }

    fn complete(self, outcome: Outcome) -> Result<()> {
        outcome.done()
    }
}

#[derive(Debug)]
struct Closing(RawFd);

impl Driver for Closing {
    fn completed(&mut self, completed: Completed) -> Step {
        if completed.result == -libc::ECANCELED {
            // The kernel says that it has not begun.
            close_unseen(self.0);
        }
        Step::give(completed)
    }
}
