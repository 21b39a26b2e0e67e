//! Watchers of child processes, for Rust: the exit status of a child.
//!
//! Relies on `event_loop::children`, which reaps the child. No signal is used.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use libc::pid_t;

use crate::abi::handle::Handle;
use crate::error::Result;
use crate::event_loop::{Callback, Loop};
use crate::pending::event::Event;
use crate::sys::children::{REAPED_BY_ANOTHER, check_pid, open_pidfd};

impl Loop {
    /// Calls `f` when the child process `pid` has ended, with its exit status; None when someone
    /// else has reaped it. The loop reaps the child just before it calls `f`: nothing else should
    /// wait for the child, and each child should have one watcher.
    ///
    /// Cancelling the watcher leaves the child to the caller. Signals are not used: SIGCHLD may be
    /// handled, ignored (then the status is None) or blocked. Costs two system calls and a
    /// descriptor, a pidfd, so that another process that gets the same PID is never mistaken for
    /// the child. Errors: ECHILD when there is no such child; EINVAL when `pid` is not a valid PID;
    /// EMFILE, ENFILE, EAGAIN, ENOMEM, ESHUTDOWN.
    pub fn watch_child(
        &self,
        pid: u32,
        f: impl FnOnce(&Loop, Option<ExitStatus>) + 'static,
    ) -> Result<Handle> {
        let pid = check_pid(pid_t::try_from(pid).unwrap_or(0))?;
        self.watch_child_of(pid, || open_pidfd(pid), f)
    }

    /// As `watch_child`, with a pidfd from the caller.
    pub(crate) fn watch_child_of(
        &self,
        pid: pid_t,
        pidfd: impl FnOnce() -> Result<Option<OwnedFd>>,
        f: impl FnOnce(&Loop, Option<ExitStatus>) + 'static,
    ) -> Result<Handle> {
        self.check_open()?;
        let callback = Callback::once_event(move |lp: &Loop, event: &Event| {
            let Event::Exited(_, status) = *event else {
                unreachable!("a child's watcher was called for {event:?}")
            };
            f(lp, (status != REAPED_BY_ANOTHER).then(|| ExitStatus::from_raw(status)));
        })?;
        self.schedule_child(pid, pidfd()?, callback)
    }
}
