//! A descriptor that the operations of tasks share, with the results of cancelled ones.
//!
//! The descriptor is closed when the last operation has released it.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::fs::{AtFlags, FileType, StatxFlags};

use super::turn::Turns;
use crate::error::Result;
use crate::sys::memory::TryRc;

/// The system calls that read and write a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IoKind {
    /// recv(2), send(2), and similar ones.
    Socket,
    /// read(2) and write(2), at the position of the file if it has one.
    File,
}

/// A shared descriptor, with the results of operations that are no longer awaited.
pub(crate) struct SharedFd {
    pub(crate) fd: OwnedFd,
    pub(crate) kind: IoKind,
    /// Receives or accepts.
    pub(crate) receiving: Turns,
    pub(crate) sending: Turns,
}

impl SharedFd {
    pub(crate) fn new(fd: OwnedFd, kind: IoKind) -> Result<TryRc<SharedFd>> {
        TryRc::new(SharedFd { fd, kind, receiving: Turns::default(), sending: Turns::default() })
    }

    /// The size, if it is a regular file. Does not query the server of a network file system, which
    /// could block the loop's thread. One system call if the descriptor may be a file.
    fn file_size(&self) -> Option<u64> {
        if self.kind != IoKind::File {
            return None;
        }
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let status =
            rustix::fs::statx(&self.fd, c"", flags, StatxFlags::TYPE | StatxFlags::SIZE).ok()?;
        let is_regular = FileType::from_raw_mode(status.stx_mode.into()) == FileType::RegularFile;
        is_regular.then_some(status.stx_size)
    }

    /// Whether a read ends by itself: on a regular file, except for those without a size, such as
    /// `/proc/kmsg`.
    pub(crate) fn reads_end(&self) -> bool {
        self.file_size().is_some_and(|size| size > 0)
    }

    /// Waits until the cancelled operation of the other kind has moved the position of the file:
    /// the kernel allows both kinds at once.
    pub(crate) fn poll_position(&self, other: &Turns, context: &Context<'_>) -> Poll<()> {
        let must_wait = self.kind == IoKind::File
            && other.poll_left_ended(context).is_pending()
            && self.file_size().is_some();
        if must_wait { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for SharedFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fd.as_raw_fd().fmt(f)
    }
}

impl<T: AsFd> AsFd for TryRc<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}
