//! A descriptor that the operations of tasks share, and what cancelled ones have left with it.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::fs::{AtFlags, FileType, StatxFlags};

use super::turn::Turns;
use crate::error::Result;
use crate::sys::memory::TryRc;

/// How a descriptor is read from and written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IoKind {
    /// recv(2), send(2), and the like.
    Socket,
    /// read(2), write(2), at the position of the file if it has one.
    File,
}

/// A descriptor, and what comes of operations on it that nobody awaits any more.
pub(crate) struct SharedFd {
    pub(crate) fd: OwnedFd,
    pub(crate) kind: IoKind,
    /// Receiving, or accepting.
    pub(crate) receiving: Turns,
    pub(crate) sending: Turns,
}

impl SharedFd {
    pub(crate) fn new(fd: OwnedFd, kind: IoKind) -> Result<TryRc<SharedFd>> {
        TryRc::new(SharedFd { fd, kind, receiving: Turns::default(), sending: Turns::default() })
    }

    /// Whether it is a regular file, and then how large. A file system whose server does not answer
    /// is not asked: the loop's thread would wait for it. One system call, for what may be one.
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

    /// Whether a read of it ends by itself: of a regular file, but for those without a size, such
    /// as `/proc/kmsg`.
    pub(crate) fn reads_end(&self) -> bool {
        self.file_size().is_some_and(|size| size > 0)
    }

    /// Waits until what is left of the other kind has moved the position of the file, which the
    /// kernel lets both use at once.
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
