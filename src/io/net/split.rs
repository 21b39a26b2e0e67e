//! A stream as two, for two tasks.

use crate::io::{SharedFd, TryRc, reading, writing};

/// The reading half of a stream, made by `into_split`. The stream is closed when both halves have
/// been dropped.
#[derive(Debug)]
pub struct ReadHalf {
    fd: TryRc<SharedFd>,
}

/// The writing half of a stream, made by `into_split`. The stream is closed when both halves have
/// been dropped: to tell the other end before that, [`shutdown`](WriteHalf::shutdown).
#[derive(Debug)]
pub struct WriteHalf {
    fd: TryRc<SharedFd>,
}

pub(super) fn split(fd: TryRc<SharedFd>) -> (ReadHalf, WriteHalf) {
    (ReadHalf { fd: fd.clone() }, WriteHalf { fd })
}

impl ReadHalf {
    reading!();
}

impl WriteHalf {
    writing!();

    /// Tells the other end that nothing more comes. What has been written is sent before. One
    /// system call.
    pub fn shutdown(&mut self) -> crate::Result<()> {
        super::socket::shutdown(&self.fd, std::net::Shutdown::Write)
    }
}
