//! Child processes, identified by a pidfd, or by a PID where pidfd_open is not available (because
//! of a filter, or under valgrind).
//!
//! A pidfd stays with one child, even if someone else reaps the child and its PID is reused. A PID
//! does not exclude another child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::{c_int, pid_t};
use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use crate::error::{Error, Result, Sentence};

/// The wait status of a child that someone else has reaped.
pub(crate) const REAPED_BY_ANOTHER: c_int = -1;

/// Refuses a number that is not a valid PID.
pub(crate) fn check_pid(pid: pid_t) -> Result<pid_t> {
    if pid > 0 { Ok(pid) } else { Err(Error::new(Errno::EINVAL, Sentence::BadPid)) }
}

/// A pidfd of a child. None: pidfd_open is not available.
pub(crate) fn open_pidfd(pid: pid_t) -> Result<Option<OwnedFd>> {
    match rustix::process::pidfd_open(number(pid)?, PidfdFlags::empty()).map_err(errno) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(None),
        Err(errno @ Errno::EMFILE) => Err(Error::new(errno, Sentence::NoDescriptor)),
        Err(errno @ Errno::ENFILE) => Err(Error::new(errno, Sentence::NoSystemDescriptor)),
        // There is no process of that PID, or it is the TID of a thread (6.9).
        Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => Err(Error::NOT_A_CHILD),
        Err(errno) => Err(Error::new(errno, Sentence::NoPidFd)),
    }
}

/// The wait status of a child that has ended, as from waitpid(2), without reaping it; None if it
/// has not ended.
pub(crate) fn peek(pid: pid_t, pidfd: Option<&OwnedFd>) -> Result<Option<c_int>> {
    wait(pid, pidfd, WaitIdOptions::NOWAIT)
}

/// As `peek`, and reaps it.
pub(crate) fn reap(pid: pid_t, pidfd: Option<&OwnedFd>) -> Result<Option<c_int>> {
    wait(pid, pidfd, WaitIdOptions::empty())
}

fn wait(pid: pid_t, pidfd: Option<&OwnedFd>, options: WaitIdOptions) -> Result<Option<c_int>> {
    let child = match pidfd.map(AsFd::as_fd) {
        Some(pidfd) => WaitId::PidFd(pidfd),
        None => WaitId::Pid(number(pid)?),
    };
    let ended =
        rustix::process::waitid(child, options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    let ended = ended.map_err(|refused| Error::new(errno(refused), Sentence::NotAChild))?;
    Ok(ended.as_ref().map(wait_status))
}

/// Converts a status of waitid(2) to that of waitpid(2).
fn wait_status(ended: &WaitIdStatus) -> c_int {
    let exited = ended.exit_status().map(|status| (status & 0xff) << 8);
    let core = if ended.dumped() { 0x80 } else { 0 };
    exited.or(ended.terminating_signal().map(|signal| signal | core)).unwrap_or(0)
}

/// Sends SIGKILL to a process, which may have ended.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL).map_err(errno) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::of_operation(-(errno as i32))),
    }
}

fn number(pid: pid_t) -> Result<Pid> {
    Pid::from_raw(pid).ok_or(Error::NOT_A_CHILD)
}

fn errno(refused: rustix::io::Errno) -> Errno {
    Errno::from_raw(refused.raw_os_error())
}
