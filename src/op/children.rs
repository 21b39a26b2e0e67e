//! Child processes: who has ended, and how.

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
    /// Calls `f` when the child process `pid` has ended, with how; None when another has waited for
    /// it. The loop waits for it just before it calls `f`: let nobody else do so, and have one
    /// watcher a child.
    ///
    /// A watcher that is cancelled leaves the child to the caller. Signals are not used: SIGCHLD
    /// may be handled, ignored (then the status is None) or blocked. Two system calls, and a
    /// descriptor (a pidfd): should another wait for the child all the same, none that gets its
    /// number is taken for it. Errors: ECHILD when there is no such child; EINVAL when `pid` is no
    /// process's number; EMFILE, ENFILE, EAGAIN, ENOMEM, ESHUTDOWN.
    pub fn watch_child(
        &self,
        pid: u32,
        f: impl FnOnce(&Loop, Option<ExitStatus>) + 'static,
    ) -> Result<Handle> {
        let pid = check_pid(pid_t::try_from(pid).unwrap_or(0))?;
        self.watch_child_of(pid, || open_pidfd(pid), f)
    }

    /// As `watch_child`, with a pidfd of the caller's choice.
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
