//! Receiving into a buffer, and accepting connections, without loss when the future is dropped:
//! data or a connection that had arrived stays with the descriptor, and the next receive takes it.
//!
//! Relies on `turn` for the order.

use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use super::shared_fd::{IoKind, SharedFd};
use super::turn::{InTurn, Left, LeftCell, Turn, Turns};
use crate::error::{Error, Result};
use crate::op::address::Address;
use crate::op::buffer::{BufferMut, Filled, Part, room};
use crate::op::data::{Addressed, Message, NoData, Room};
use crate::op::operation::{OpData, Outcome};
use crate::op::sockets::{accept, recv};
use crate::op::streams::{CURRENT, read};
use crate::sys::memory::TryRc;

pub(crate) fn receive<B: BufferMut>(fd: &TryRc<SharedFd>, buffer: B) -> Turn<Room<B>> {
    let op = match fd.kind {
        IoKind::Socket => recv(fd.clone(), Room(buffer), 0),
        IoKind::File => read(fd.clone(), Room(buffer), CURRENT),
    };
    Turn::new(fd, op)
}

pub(crate) fn accept_from(fd: &TryRc<SharedFd>) -> Turn<NoData<OwnedFd>> {
    Turn::new(fd, accept(fd.clone(), libc::SOCK_CLOEXEC))
}

impl<B: BufferMut> InTurn for Room<B> {
    fn turns(fd: &SharedFd) -> &Turns {
        &fd.receiving
    }

    fn check(&mut self) -> Result<()> {
        room(&mut self.0).map(drop)
    }

    fn poll_others(fd: &SharedFd, context: &Context<'_>) -> Poll<()> {
        fd.poll_position(&fd.sending, context)
    }

    fn take_left(self, fd: &SharedFd, cell: LeftCell) -> std::result::Result<Filled<B>, Self> {
        let given = fd.receiving.given();
        let (filled, rest) = match cell.stage().left() {
            Ok(Left::Data(bytes, _)) => {
                let filled = Filled::copied(self.0, &bytes[given..]);
                let given = given + filled.count().unwrap_or(0);
                (filled, (given < bytes.len()).then_some(given))
            }
            Ok(_) => return Err(self),
            Err(error) => (self.complete(Outcome::error(error)), None),
        };
        if let Some(given) = rest {
            fd.receiving.put_back(cell, given);
        }
        Ok(filled)
    }

    /// A cancelled short read on 6.1 returns the number of bytes it got, but does not advance the
    /// position (measured on a tmpfs).
    fn ends_by_itself(fd: &SharedFd) -> bool {
        fd.reads_end()
    }

    fn left(output: &mut Filled<B>) -> Result<Left<'_>> {
        Ok(Left::Data(output.bytes()?, Address::EMPTY))
    }
}

impl<B: BufferMut> InTurn for Message<Room<B>> {
    fn turns(fd: &SharedFd) -> &Turns {
        &fd.receiving
    }

    fn check(&mut self) -> Result<()> {
        self.data.check()
    }

    /// Data that does not fit into the buffer is lost.
    fn take_left(self, _: &SharedFd, cell: LeftCell) -> std::result::Result<Self::Output, Self> {
        match cell.stage().left() {
            Ok(Left::Data(bytes, sender)) => {
                Ok(Addressed(Filled::copied(self.data.0, bytes), sender))
            }
            Ok(_) => Err(self),
            Err(error) => Ok(self.complete(Outcome::error(error))),
        }
    }

    fn left(output: &mut Self::Output) -> Result<Left<'_>> {
        Ok(Left::Data(output.0.bytes()?, output.1))
    }
}

impl InTurn for NoData<OwnedFd> {
    fn turns(fd: &SharedFd) -> &Turns {
        &fd.receiving
    }

    fn take_left(self, _: &SharedFd, cell: LeftCell) -> std::result::Result<Self::Output, Self> {
        match cell.stage().left() {
            Ok(Left::Connection(connection)) => Ok(Ok(connection)),
            Ok(_) => Err(self),
            Err(error) => Ok(Err(error)),
        }
    }

    fn left(output: &mut Self::Output) -> Result<Left<'_>> {
        std::mem::replace(output, Err(Error::CANCELLED)).map(Left::Connection)
    }
}

/// Receives until the space is full. Data before an error is in the buffer.
pub(crate) async fn fill<B: BufferMut>(fd: &TryRc<SharedFd>, buffer: B) -> (Result<()>, B) {
    let mut part = Part::new(buffer);
    let result = loop {
        let got;
        (got, part) = receive(fd, part).await.into();
        match got {
            Ok(0) => break Err(Error::END_OF_STREAM),
            Ok(_) if part.room().1 == 0 => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    (result, part.into_buffer())
}
