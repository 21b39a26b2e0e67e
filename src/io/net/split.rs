//! A stream as two, for two tasks.

use crate::io::{Socket, TryRc, reading, writing};

/// The reading half of a stream, made by `into_split`. The stream is closed when both halves have been dropped.
pub struct ReadHalf {
    socket: TryRc<Socket>,
}

/// The writing half of a stream, made by `into_split`. The stream is closed when both halves have been dropped: to tell the other end
/// before that, [`shutdown`](WriteHalf::shutdown).
pub struct WriteHalf {
    socket: TryRc<Socket>,
}

pub(super) fn split(socket: TryRc<Socket>) -> (ReadHalf, WriteHalf) {
    (ReadHalf { socket: socket.clone() }, WriteHalf { socket })
}

impl ReadHalf {
    reading!();
}

impl WriteHalf {
    writing!();

    /// Tells the other end that nothing more comes. What has been written is sent before. One system call.
    pub fn shutdown(&mut self) -> crate::Result<()> {
        super::socket::shutdown(&self.socket, std::net::Shutdown::Write)
    }
}

impl std::fmt::Debug for ReadHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ReadHalf").field(&self.socket.fd).finish()
    }
}

impl std::fmt::Debug for WriteHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WriteHalf").field(&self.socket.fd).finish()
    }
}
