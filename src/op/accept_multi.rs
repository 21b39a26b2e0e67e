//! One accept for any number of connections (5.19); before that, one after the other.

use io_uring::opcode;
use io_uring::types::Timespec;
use libc::c_int;

use super::driver::{Driver, Given, MORE, Step};
use super::entries;
use crate::error::Result;
use crate::memory::try_box;
use crate::ring::{Completed, Features};
use crate::sqe::Sqe;

/// `IORING_ACCEPT_MULTISHOT`, in `ioprio`.
const MULTISHOT: u16 = 1;

/// How long it rests when descriptors or memory have run out.
const REST: Timespec = Timespec::new().nsec(100_000_000);

#[derive(Debug)]
pub(crate) struct AcceptMulti {
    fd: i32,
    flags: c_int,
    is_multishot: bool,
    is_resting: bool,
    /// Whether the user knows that descriptors have run out.
    is_said: bool,
    rest: Box<Timespec>,
}

impl AcceptMulti {
    pub(crate) fn new(fd: i32, flags: c_int, features: &Features) -> Result<Box<AcceptMulti>> {
        let rest = try_box(REST)?;
        let is_multishot = features.accepts_for_ever();
        try_box(AcceptMulti { fd, flags, is_multishot, is_resting: false, is_said: false, rest })
    }

    pub(crate) fn sqe(&self) -> Sqe {
        let accept = entries::accept(self.fd, self.flags);
        if self.is_multishot { Sqe { ioprio: MULTISHOT, ..accept } } else { accept }
    }
}

// SAFETY: the entries point at nothing but the timespec, which is boxed and lives as long as the driver.
unsafe impl Driver for AcceptMulti {
    fn entry(&mut self) -> Option<Sqe> {
        if !self.is_resting {
            return Some(self.sqe());
        }
        let rest: *const Timespec = &*self.rest;
        Some(Sqe { opcode: opcode::Timeout::CODE, fd: -1, addr: rest as u64, len: 1, ..Sqe::default() })
    }

    fn completed(&mut self, Completed { result, flags, .. }: Completed) -> Step {
        let again = flags & MORE == 0;
        if self.is_resting {
            self.is_resting = false;
            return if result == -libc::ETIME { Step::AGAIN } else { Step::end(result) };
        }
        match -result {
            ..=0 => {
                self.is_said = false;
                Step { given: Some(Given::new(result, MORE)), again }
            }
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                self.is_resting = true;
                let given = Some(Given::new(result, MORE)).filter(|_| !self.is_said);
                self.is_said = true;
                Step { given, again }
            }
            // That connection has gone, the next may come.
            libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => Step { given: None, again },
            _ => Step::end(result),
        }
    }
}
