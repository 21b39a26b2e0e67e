//! Watchers of children: the kernel polls the pidfd of a child, and the loop reaps the child just
//! before the callback (S11). Each watcher calls back once, also when someone else has reaped the
//! child. It never reaps another child that has got the same PID since.
//!
//! This relies on the pidfd. Without a pidfd, WAITID (6.7) gets the PID, which does not exclude
//! another child with the same PID.

use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_int, pid_t};
use nix::errno::Errno;

use super::{Call, Callback, Loop, Schedule};
use crate::abi::completion::number;
use crate::abi::handle::Handle;
use crate::abi::opcodes;
use crate::abi::sqe::{Entry, Sqe, poll_events};
use crate::error::{Error, Result, Sentence};
use crate::pending::Child;
use crate::pending::event::Event;
use crate::pending::slots::SlotRef;
use crate::sys::children::{self, REAPED_BY_ANOTHER};

impl Loop {
    pub(crate) fn schedule_child(
        &self,
        pid: pid_t,
        pidfd: Option<OwnedFd>,
        callback: Callback,
    ) -> Result<Handle> {
        let child = Child::new(pid, pidfd);
        children::peek(pid, child.pidfd.as_ref())?;
        // The borrows end before the callback, so that an error drops the callback with no borrow
        // held.
        let (mut schedule, mut kernel) = (self.schedule.borrow_mut(), self.kernel.borrow_mut());
        if child.pidfd.is_none() && !kernel.features().supports(opcodes::WAITID) {
            return Err(Error::new(Errno::ENOSYS, Sentence::NoPidFd));
        }
        schedule.reserve_child()?;
        kernel.reserve(1)?;
        let entry = entry(&child);
        let handle = schedule.add_child(child, callback);
        kernel.push(entry, number(handle));
        Ok(handle)
    }

    /// Takes the callback of the next entry of the batch, and reaps its child before. None when the
    /// child has not ended.
    pub(super) fn take_call(&self, schedule: &mut Schedule, next: SlotRef) -> Result<Option<Call>> {
        let reaped = schedule.child_at(next).map(|child| (child.pid, reap(child)));
        if let Some((_, None)) = reaped {
            let again = self.watch_again(schedule, next);
            if again.is_err() {
                schedule.put_back(next);
            }
            return again.map(|()| None);
        }
        let mut call = schedule.take_call(next)?;
        if let Some((pid, Some(status))) = reaped {
            call.event = Event::Exited(pid, status);
        }
        Ok(Some(call))
    }

    /// Watches a child again after a close that timed out had cancelled its request.
    #[cold]
    fn watch_again(&self, schedule: &mut Schedule, next: SlotRef) -> Result<()> {
        let Some(entry) = schedule.child_at(next).map(entry) else { return Ok(()) };
        let mut kernel = self.kernel.borrow_mut();
        schedule.reserve_operations(1)?;
        kernel.reserve(1)?;
        let handle = schedule.watch_again(next);
        kernel.push(entry, number(handle));
        Ok(())
    }
}

/// The request for the kernel.
fn entry(child: &Child) -> Entry {
    Entry::without_pointers(match &child.pidfd {
        None => Sqe {
            opcode: opcodes::WAITID,
            fd: child.pid,
            len: libc::P_PID,
            file_index: (libc::WEXITED | libc::WNOWAIT) as u32,
            ..Sqe::default()
        },
        Some(pidfd) => Sqe {
            opcode: opcodes::POLL_ADD,
            fd: pidfd.as_raw_fd(),
            op_flags: poll_events(libc::POLLIN as u32),
            ..Sqe::default()
        },
    })
}

/// Reaps a child that should have ended. Returns its wait status, or None when it has not ended.
fn reap(child: &Child) -> Option<c_int> {
    if child.is_gone {
        return Some(REAPED_BY_ANOTHER);
    }
    children::reap(child.pid, child.pidfd.as_ref()).unwrap_or(Some(REAPED_BY_ANOTHER))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::abi::completion::Completed;

    #[test]
    fn s13_a_child_that_another_has_reaped_is_not_met_by_its_number() {
        // Another child, which is alive, has the PID by now.
        let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = other.id() as pid_t;
        let lp = Loop::new().unwrap();
        let callback = Callback::once_event(|_: &Loop, event: &Event| {
            assert!(matches!(event, Event::Exited(_, REAPED_BY_ANOTHER)), "{event:?}");
        });
        let mut schedule = lp.schedule.borrow_mut();
        schedule.reserve_child().unwrap();
        let handle = schedule.add_child(Child::new(pid, None), callback.unwrap());
        schedule.completed(Completed { number: number(handle), result: -libc::ECHILD, flags: 0 });
        drop(schedule);
        assert_eq!(lp.run_once(Duration::ZERO), Ok(1));
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
    }
}
