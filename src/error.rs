//! Errors as values: an errno and one sentence.
//!
//! Both faces report the same errors. The errno is the contract, the sentence is for people. Every sentence is a
//! static C string, so that making an error allocates nothing and C can be handed the very same words.

use std::ffi::CStr;
use std::{fmt, io};

use nix::errno::Errno;

/// What went wrong: an errno, and a sentence that says what to do about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    sentence: &'static CStr,
}

/// A result whose error is an [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) const fn new(errno: Errno, sentence: &'static CStr) -> Error {
        Error { errno, sentence }
    }

    pub(crate) const NO_MEMORY: Error =
        Error::new(Errno::ENOMEM, c"no memory could be had; nothing was changed, free some and try again");
    pub(crate) const STALE_HANDLE: Error =
        Error::new(Errno::ENOENT, c"the handle is stale: what it named has ended, or it is no handle of this loop");
    pub(crate) const NOT_A_TIMER: Error =
        Error::new(Errno::EINVAL, c"the handle is not a timer's: only call_later, call_at and call_every give those");
    pub(crate) const HOOK_REFERENCE: Error =
        Error::new(Errno::EINVAL, c"the handle is a hook's: a hook never keeps a run alive");
    pub(crate) const ZERO_PERIOD: Error =
        Error::new(Errno::EINVAL, c"the period is zero: a repeating timer needs at least a nanosecond");
    pub(crate) const NOT_RUNNING: Error =
        Error::new(Errno::EINVAL, c"the loop is not running: break is for a callback of the loop");
    pub(crate) const RUNNING: Error = Error::new(
        Errno::EBUSY,
        c"the loop is running or a callback of it is on the stack: wait until that has returned",
    );
    pub(crate) const BOUND: Error = Error::new(
        Errno::EBUSY,
        c"the loop has entered the kernel on its thread already: adopt it before its first run",
    );
    pub(crate) const SHUT_DOWN: Error =
        Error::new(Errno::ESHUTDOWN, c"the loop is shut down or closing: it takes nothing new");
    pub(crate) const WRONG_THREAD: Error = Error::new(Errno::EPERM, c"the loop belongs to another thread");
    pub(crate) const FORKED: Error = Error::new(
        Errno::EOWNERDEAD,
        c"the loop belongs to the parent process: close it, and make a new one in the child",
    );
    pub(crate) const INTERRUPTED: Error = Error::new(Errno::EINTR, c"a signal ended the wait and no callback ran");
    pub(crate) const ENTRIES_OUT_OF_RANGE: Error =
        Error::new(Errno::EINVAL, c"sq_entries is at most 32768, cq_entries at most 65536 and not below sq_entries");

    /// The errno, positive: `Error::raw_os_error() == libc::ENOENT`.
    pub fn raw_os_error(&self) -> i32 {
        self.errno as i32
    }

    #[cfg(feature = "capi")]
    pub(crate) fn sentence(&self) -> &'static CStr {
        self.sentence
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.sentence.to_string_lossy(), self.errno)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::from_raw_os_error(error.raw_os_error())
    }
}

impl From<std::collections::TryReserveError> for Error {
    fn from(_: std::collections::TryReserveError) -> Error {
        Error::NO_MEMORY
    }
}
