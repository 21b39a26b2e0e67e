//! Child processes: who has ended, and how.
//!
//! The kernel waits for a child without reaping it (WAITID, 6.7; before that a poll for its pidfd), and holds no memory of the
//! loop's meanwhile. The loop reaps it just before it calls back, so that a watcher that is cancelled leaves the child to whoever
//! wants it.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use io_uring::opcode;
use libc::{c_int, pid_t};
use nix::errno::Errno;

use crate::callback::Callback;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;
use crate::handle::Handle;
use crate::op::driver::Given;
use crate::op::number;
use crate::schedule::{Call, Child, Schedule};
use crate::slots::SlotRef;
use crate::sqe::{Sqe, poll_events};

/// The wait status of a child that another has waited for.
pub(crate) const REAPED_BY_ANOTHER: c_int = -1;

/// `IORING_OP_WAITID`.
const WAITID: u8 = 50;

impl Loop {
    /// Calls `f` when the child process `pid` has ended, with how; None when another has waited for it. The loop waits for it
    /// just before it calls `f`: let nobody else do so, and have one watcher a child.
    ///
    /// A watcher that is cancelled leaves the child to the caller. Signals are not used: SIGCHLD may be handled, ignored (then
    /// the status is None) or blocked. One system call; before Linux 6.7, and a descriptor. Errors: ECHILD when there is no such
    /// child; EINVAL when `pid` is no process's number; EMFILE, ENFILE, EAGAIN, ENOMEM, ESHUTDOWN.
    pub fn watch_child(&self, pid: u32, f: impl FnOnce(&Loop, Option<ExitStatus>) + 'static) -> Result<Handle> {
        let pid = check_pid(pid_t::try_from(pid).unwrap_or(0))?;
        self.check_open()?;
        let callback = Callback::once(move |lp: &Loop| {
            let (_, status) = lp.ended_child();
            f(lp, (status != REAPED_BY_ANOTHER).then(|| ExitStatus::from_raw(status)));
        })?;
        self.schedule_child(pid, callback)
    }

    pub(crate) fn schedule_child(&self, pid: pid_t, callback: Callback) -> Result<Handle> {
        check_child(pid)?;
        // The borrows end before the callback does: it is dropped with none held when there is an error.
        let (mut schedule, mut ring) = (self.schedule.borrow_mut(), self.ring.borrow_mut());
        let pidfd = if ring.features().supports(WAITID) { None } else { Some(open_pidfd(pid)?) };
        schedule.reserve_child()?;
        ring.reserve(1)?;
        let child = Child::new(pid, pidfd);
        let sqe = entry(&child);
        let handle = schedule.add_child(child, callback);
        // SAFETY: the entry points at nothing.
        unsafe { ring.push_user(&sqe, number(handle)) };
        Ok(handle)
    }

    /// Hands out the callback of what is next in the batch. A child is reaped before; None when it has not ended.
    pub(crate) fn take_call(&self, schedule: &mut Schedule, next: SlotRef) -> Result<Option<Call>> {
        let mut reaped = None;
        if let Some(child) = schedule.child_at(next) {
            let pid = child.pid;
            match reap(child) {
                Some(status) => reaped = Some(Given::new(status, pid as u32)),
                None => {
                    let again = self.watch_again(schedule, next);
                    if again.is_err() {
                        schedule.put_back(next);
                    }
                    return again.map(|()| None);
                }
            }
        }
        let mut call = schedule.take_call(next)?;
        call.given = reaped.unwrap_or(call.given);
        Ok(Some(call))
    }

    /// The kernel was told to forget the child, by a close that gave up.
    #[cold]
    fn watch_again(&self, schedule: &mut Schedule, next: SlotRef) -> Result<()> {
        let Some(sqe) = schedule.child_at(next).map(entry) else { return Ok(()) };
        let mut ring = self.ring.borrow_mut();
        schedule.reserve_watch_again()?;
        ring.reserve(1)?;
        let handle = schedule.watch_again(next);
        // SAFETY: the entry points at nothing.
        unsafe { ring.push_user(&sqe, number(handle)) };
        Ok(())
    }

    /// The child for which the callback is running, and its wait status.
    pub(crate) fn ended_child(&self) -> (pid_t, c_int) {
        let Given { result, flags, .. } = self.result.get();
        (flags as pid_t, result)
    }
}

/// What the kernel is asked.
fn entry(child: &Child) -> Sqe {
    match &child.pidfd {
        None => Sqe {
            opcode: WAITID,
            fd: child.pid,
            len: libc::P_PID,
            file_index: (libc::WEXITED | libc::WNOWAIT) as u32,
            ..Sqe::default()
        },
        Some(pidfd) => Sqe {
            opcode: opcode::PollAdd::CODE,
            fd: pidfd.as_raw_fd(),
            op_flags: poll_events(libc::POLLIN as u32),
            ..Sqe::default()
        },
    }
}

/// Waits for a child that should have ended: its wait status, or None when it has not.
fn reap(child: &Child) -> Option<c_int> {
    let mut status = 0;
    if child.is_gone {
        return Some(REAPED_BY_ANOTHER);
    }
    // SAFETY: the status is written to a live variable.
    match unsafe { libc::waitpid(child.pid, &mut status, libc::WNOHANG) } {
        0 => None,
        pid if pid == child.pid => Some(status),
        _ => Some(REAPED_BY_ANOTHER),
    }
}

/// Refuses what is no process's number.
pub(crate) fn check_pid(pid: pid_t) -> Result<pid_t> {
    if pid > 0 { Ok(pid) } else { Err(Error::new(Errno::EINVAL, Sentence::BadPid)) }
}

/// Whether there is such a child to wait for.
fn check_child(pid: pid_t) -> Result<()> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    // SAFETY: what is known is written to a live variable.
    match unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, info.as_mut_ptr(), options) } {
        0 => Ok(()),
        _ => Err(Error::new(Errno::last(), Sentence::NotAChild)),
    }
}

fn open_pidfd(pid: pid_t) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes any number.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match Errno::result(fd) {
        // SAFETY: the descriptor is fresh, and nobody else knows of it.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) }),
        Err(errno @ Errno::EMFILE) => Err(Error::new(errno, Sentence::NoDescriptor)),
        Err(errno @ Errno::ENFILE) => Err(Error::new(errno, Sentence::NoSystemDescriptor)),
        Err(errno) => Err(Error::new(errno, Sentence::NoPidFd)),
    }
}
