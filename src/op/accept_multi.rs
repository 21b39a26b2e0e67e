//! The driver of an accept with many results: one entry for all connections (5.19), or one for
//! each.
//!
//! On a descriptor with O_NONBLOCK, kernels until 5.17 return EAGAIN where an accept would wait;
//! the driver then waits with a poll. When descriptors run out, it tries again every 100 ms.

use libc::c_int;

use super::operation::Number;
use super::sockets::{accept, poll};
use crate::abi::completion::{Completed, MORE};
use crate::abi::sqe::{Entry, Sqe, Timespec};
use crate::pending::driver::{Driver, Step};
use crate::pending::event::OpResult;

/// `IORING_ACCEPT_MULTISHOT`, in `ioprio`.
const MULTISHOT: u16 = 1;

/// The pause after descriptors or memory have run out.
static REST: Timespec = Timespec::from_nanos(100_000_000);

#[derive(Debug)]
pub(crate) struct AcceptMulti {
    accept: Sqe,
    waits_for: WaitsFor,
    /// Whether the user has been told that descriptors have run out.
    is_said: bool,
}

/// The event that the current or the next entry waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WaitsFor {
    Connection,
    /// A connection that can be accepted.
    Readiness,
    /// A time when descriptors or memory may be free again.
    Time,
}

impl AcceptMulti {
    pub(crate) fn new(fd: i32, flags: c_int, is_multishot: bool) -> AcceptMulti {
        let ioprio = if is_multishot { MULTISHOT } else { 0 };
        let accept = Sqe { ioprio, ..accept(Number(fd), flags).into_sqe() };
        AcceptMulti { accept, waits_for: WaitsFor::Connection, is_said: false }
    }
}

impl Driver for AcceptMulti {
    fn entry(&mut self) -> Option<Entry> {
        Some(match self.waits_for {
            WaitsFor::Connection => Entry::without_pointers(self.accept),
            WaitsFor::Readiness => {
                Entry::without_pointers(poll(Number(self.accept.fd), libc::POLLIN).into_sqe())
            }
            WaitsFor::Time => Entry::timeout(&REST),
        })
    }

    fn completed(&mut self, Completed { result, flags, .. }: Completed) -> Step {
        let again = flags & MORE == 0;
        match std::mem::replace(&mut self.waits_for, WaitsFor::Connection) {
            WaitsFor::Connection => {}
            WaitsFor::Readiness if result >= 0 => return Step::AGAIN,
            WaitsFor::Time if result == -libc::ETIME => return Step::AGAIN,
            _ => return Step::end(result),
        }
        match result.saturating_neg() {
            ..=0 => {
                self.is_said = false;
                Step { given: Some(OpResult::new(result, MORE)), again }
            }
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                self.waits_for = WaitsFor::Time;
                let given = Some(OpResult::new(result, MORE)).filter(|_| !self.is_said);
                self.is_said = true;
                Step { given, again }
            }
            libc::EAGAIN if again => {
                self.waits_for = WaitsFor::Readiness;
                Step::AGAIN
            }
            // The connection was aborted, or none has come yet: accept continues.
            libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => Step { given: None, again },
            _ => Step::end(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::opcodes::{ACCEPT, POLL_ADD};

    #[test]
    fn s13_an_accept_that_would_not_wait_waits_with_a_poll() {
        let mut accept = AcceptMulti::new(7, libc::SOCK_CLOEXEC, false);
        for (opcode, result, given) in [
            (ACCEPT, -libc::EAGAIN, None),
            (POLL_ADD, libc::POLLIN.into(), None),
            (ACCEPT, 9, Some(9)),
            (ACCEPT, -libc::EAGAIN, None),
            (POLL_ADD, -libc::ECANCELED, Some(-libc::ECANCELED)),
        ] {
            let entry = accept.entry().unwrap();
            assert_eq!((entry.opcode, entry.fd), (opcode, 7));
            let step = accept.completed(Completed { number: 1, result, flags: 0 });
            assert_eq!(step.given.map(|given| given.result), given);
            assert_eq!(step.again, given.is_none_or(|given| given > 0));
        }
    }
}
