//! Descriptors that are known by their numbers alone.

use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags};

use super::c_library::{add_to_epoll, file_type};
use crate::error::{Error, Result, Sentence};

/// Closes a descriptor that an operation gave and that nobody has seen.
pub(crate) fn close_unseen(fd: RawFd) {
    // It cannot be open still, whatever close says.
    let _ = nix::unistd::close(fd);
}

/// Whether a descriptor can be watched, as epoll sees it: EBADF, and EPERM for files and
/// directories. An epoll is made for the question, 1.3 µs; a process that has no descriptor left
/// for that asks fstat instead.
pub(crate) fn check_pollable(fd: RawFd) -> Result<()> {
    let refusal = match Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC) {
        // The number was free.
        Ok(epoll) if epoll.0.as_raw_fd() == fd => Some(Errno::EBADF),
        Ok(epoll) => add_to_epoll(&epoll, fd).err(),
        Err(_) => stat_as_epoll(fd).err(),
    };
    match refusal {
        None => Ok(()),
        Some(Errno::EPERM) => Err(Error::new(Errno::EPERM, Sentence::NotPollable)),
        Some(errno @ Errno::EBADF) => Err(Error::new(errno, Sentence::BadDescriptor)),
        Some(errno) => Err(Error::new(errno, Sentence::WatchRefused)),
    }
}

fn stat_as_epoll(fd: RawFd) -> nix::Result<()> {
    if matches!(file_type(fd)?, libc::S_IFREG | libc::S_IFDIR) { Err(Errno::EPERM) } else { Ok(()) }
}
