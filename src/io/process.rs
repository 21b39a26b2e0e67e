//! Child processes for tasks: their ends, and pipes to and from them.
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

/// A child process. Dropping it leaves the process running, and unreaped when it has ended.
#[derive(Debug)]
pub struct Child {
    /// Its standard input, if that is a pipe to it. Dropping it closes it.
    pub stdin: Option<PipeWriter>,
    /// Its standard output, if that is a pipe from it.
    pub stdout: Option<PipeReader>,
    /// Its standard error, if that is a pipe from it.
    pub stderr: Option<PipeReader>,
    child: process::Child,
    /// It, whatever becomes of its number. None where there are no pidfds.
    pidfd: Option<OwnedFd>,
    /// How it has ended. Shared with the loop, which reaps it.
    ended: Rc<Cell<Option<Ended>>>,
}

#[derive(Clone, Copy, Debug)]
enum Ended {
    With(ExitStatus),
    /// Another has waited for it.
    Reaped,
}

impl Child {
    /// Starts a process: fork and exec, for which the standard library waits. It has a descriptor
    /// (a pidfd), so that no other process is taken for it. Errors: ENOENT and so on; EINVAL for a
    /// NUL in a name or an argument; EMFILE, ENFILE, ENOMEM, also when the process has been
    /// started: then it has been killed.
    pub fn spawn(command: &mut Command) -> Result<Child> {
        let spawned = command.spawn().map_err(|error| match error.raw_os_error() {
            // The standard library has found it, before the kernel could.
            None => Error::NUL_INSIDE,
            Some(_) => Error::of_io(&error),
        });
        let mut child = Child::of(spawned?);
        if let Err(error) = child.take_over() {
            // It fails when there is nothing left to be done.
            let _ = child.child.kill().and_then(|()| child.child.wait());
            return Err(error);
        }
        Ok(child)
    }

    /// A child of the standard library's, which nobody has waited for. Errors: ECHILD when another
    /// has, EMFILE, ENFILE, ENOMEM.
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

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes its standard input, unless that has been taken out, and waits until it has ended; the
    /// loop reaps it then. Afterwards it says the same at once.
    ///
    /// Cancel-safe: a child that has ended when the future is dropped, reaped or not, is told of by
    /// the next wait. Errors: ECHILD when another has waited for it, and as
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

    /// Kills it (SIGKILL), which it ends of soon; nothing happens if it has ended. Errors: EPERM
    /// for one that runs as another user.
    pub fn kill(&mut self) -> Result<()> {
        match (self.ended.get(), &self.pidfd) {
            // Its number may be another's.
            (Some(_), _) => Ok(()),
            (None, Some(pidfd)) => kill(pidfd.as_fd()),
            (None, None) => self.child.kill().map_err(|error| Error::of_io(&error)),
        }
    }
}

/// The end of a pipe that is read from.
#[derive(Debug)]
pub struct PipeReader {
    fd: TryRc<SharedFd>,
}

impl PipeReader {
    reading!();
}

/// The end of a pipe that is written to. When the other end has been closed, writing raises SIGPIPE
/// where that is not ignored, as Rust programs ignore it.
#[derive(Debug)]
pub struct PipeWriter {
    fd: TryRc<SharedFd>,
}

impl PipeWriter {
    writing!();
}

/// What both ends of a pipe have.
macro_rules! end_of_pipe {
    ($Pipe:ident) => {
        impl $Pipe {
            fn of(fd: OwnedFd) -> Result<$Pipe> {
                Ok($Pipe { fd: SharedFd::new(fd, IoKind::File)? })
            }

            /// One of the standard library's. Errors: ENOMEM.
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
