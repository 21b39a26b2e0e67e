//! Child processes for tasks: their exit statuses, and pipes to and from them.
//!
//! ```
//! use std::process::{Command, Stdio};
//! use ringloop::{Loop, process::Child};
//!
//! let lp = Loop::new()?;
//! lp.run_until_complete(async {
//!     let mut cat = Command::new("cat");
//!     let mut cat = Child::spawn(cat.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
//!     cat.stdin.take().expect("it is piped").write_all("hello").await.0?;
//!     let out = cat.stdout.as_mut().expect("it is piped");
//!     let (read, text) = out.read(Vec::with_capacity(100)).await;
//!     assert_eq!((read, &text[..]), (Ok(5), &b"hello"[..]));
//!     assert!(cat.wait().await?.success());
//!     ringloop::Result::Ok(())
//! })??;
//! # Ok::<(), ringloop::Error>(())
//! ```

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{self, Command, ExitStatus};
use std::rc::Rc;

use libc::pid_t;

use crate::error::{Error, Result};
use crate::io::{IoKind, SharedFd, TryRc, reading, writing};
use crate::sys::children::{kill, open_pidfd};
use crate::task::operation;

/// A child process. Dropping this does not kill the process, and does not reap it.
#[derive(Debug)]
pub struct Child {
    /// The pipe to its standard input, if there is one. Dropping the pipe closes it.
    pub stdin: Option<PipeWriter>,
    /// The pipe from its standard output, if there is one.
    pub stdout: Option<PipeReader>,
    /// The pipe from its standard error, if there is one.
    pub stderr: Option<PipeReader>,
    child: process::Child,
    /// Identifies the process even if its PID is reused. None where there are no pidfds.
    pidfd: Option<OwnedFd>,
    /// The end of the process, shared with the loop, which reaps it.
    ended: Rc<Cell<Option<Ended>>>,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    With(ExitStatus),
    /// Someone else has reaped it.
    Reaped,
}

impl Child {
    /// Starts a process: fork and exec, for which the standard library waits. Opens a pidfd, so
    /// that no other process is mistaken for it. Errors: ENOENT and so on; EINVAL for a NUL in a
    /// name or an argument; EMFILE, ENFILE, ENOMEM. If the process has been started before an
    /// error, it has been killed.
    pub fn spawn(command: &mut Command) -> Result<Child> {
        let spawned = command.spawn().map_err(|error| match error.raw_os_error() {
            // The standard library has found a NUL before the system call.
            None => Error::NUL_INSIDE,
            Some(_) => Error::of_io(&error),
        });
        let mut child = Child::of(spawned?);
        if let Err(error) = child.take_over() {
            // Fails only if there is nothing left to do.
            let _ = child.child.kill().and_then(|()| child.child.wait());
            return Err(error);
        }
        Ok(child)
    }

    /// Converts a child of the standard library that has not been waited for. Errors: ECHILD when
    /// it has been, EMFILE, ENFILE, ENOMEM.
    pub fn from_std(child: process::Child) -> Result<Child> {
        let mut child = Child::of(child);
        child.take_over()?;
        Ok(child)
    }

    fn of(child: process::Child) -> Child {
        let ended = Rc::default();
        Child { stdin: None, stdout: None, stderr: None, child, pidfd: None, ended }
    }

    /// Takes the pipes from the standard library's child, and opens the pidfd.
    fn take_over(&mut self) -> Result<()> {
        let child = &mut self.child;
        self.stdin = child.stdin.take().map(|pipe| PipeWriter::of(pipe.into())).transpose()?;
        self.stdout = child.stdout.take().map(|pipe| PipeReader::of(pipe.into())).transpose()?;
        self.stderr = child.stderr.take().map(|pipe| PipeReader::of(pipe.into())).transpose()?;
        self.pidfd = open_pidfd(child.id() as pid_t)?;
        Ok(())
    }

    /// The PID of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes its standard input, unless that has been taken out, and waits until the process has
    /// ended; the loop then reaps it. Later calls return the same at once.
    ///
    /// Cancel-safe: if the process has ended when the future is dropped, reaped or not, the next
    /// wait returns its status. Errors: ECHILD when someone else has reaped it, and those of
    /// [`Loop::watch_child`](crate::Loop::watch_child).
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        if self.ended.get().is_none() {
            let (pid, ended) = (self.id() as pid_t, Rc::clone(&self.ended));
            let pidfd = || {
                let copy = self.pidfd.as_ref().map(OwnedFd::try_clone).transpose();
                copy.map_err(|error| Error::of_io(&error))
            };
            operation(|lp, done| {
                lp.watch_child_of(pid, pidfd, move |_, status| {
                    ended.set(Some(status.map_or(Ended::Reaped, Ended::With)));
                    let _ = done.send(());
                })
            })?
            .await?;
        }
        match self.ended.get() {
            Some(Ended::With(status)) => Ok(status),
            _ => Err(Error::NOT_A_CHILD),
        }
    }

    /// Kills the process with SIGKILL, which ends it soon; no effect if it has ended. Errors: EPERM
    /// for a process of another user.
    pub fn kill(&mut self) -> Result<()> {
        match (self.ended.get(), &self.pidfd) {
            // Another process may have its PID.
            (Some(_), _) => Ok(()),
            (None, Some(pidfd)) => kill(pidfd.as_fd()),
            (None, None) => self.child.kill().map_err(|error| Error::of_io(&error)),
        }
    }
}

/// The reading end of a pipe.
#[derive(Debug)]
pub struct PipeReader {
    fd: TryRc<SharedFd>,
}

impl PipeReader {
    reading!();
}

/// The writing end of a pipe. When the other end has been closed, writing raises SIGPIPE unless the
/// signal is ignored, as in Rust programs.
#[derive(Debug)]
pub struct PipeWriter {
    fd: TryRc<SharedFd>,
}

impl PipeWriter {
    writing!();
}

/// The methods of both ends of a pipe.
macro_rules! end_of_pipe {
    ($Pipe:ident) => {
        impl $Pipe {
            fn of(fd: OwnedFd) -> Result<$Pipe> {
                Ok($Pipe { fd: SharedFd::new(fd, IoKind::File)? })
            }

            /// Converts a pipe of the standard library. Errors: ENOMEM.
            pub fn from_std(pipe: std::io::$Pipe) -> Result<$Pipe> {
                $Pipe::of(pipe.into())
            }
        }

        impl AsFd for $Pipe {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }
    };
}

end_of_pipe!(PipeReader);
end_of_pipe!(PipeWriter);
