//! Receiving into a buffer, so that nothing is lost when the future is dropped: what the kernel had put into the buffer by then stays
//! there, and the next receive takes it from there.

use std::task::{Context, Poll};

use super::in_flight::{OpCell, Stage};
use super::shared_fd::{IoKind, SharedFd};
use super::turn::{InTurn, StageOf, Turn, Turns};
use crate::error::{Error, Result};
use crate::op::address::Address;
use crate::op::buffer::{BufferMut, Filled, room};
use crate::op::data::Room;
use crate::op::message::{MessageIn, ReceivedFrom};
use crate::op::operation::{Descriptor, OpData, Outcome};
use crate::op::sockets::{recv, recvmsg};
use crate::op::streams::{CURRENT, read};
use crate::sys::try_arc::TryRc;

/// A receive into the room of a buffer. Dropped, it leaves to the next what has come.
pub(crate) type Receive<B> = Turn<Room<B>>;

pub(crate) fn receive<B: BufferMut>(fd: &TryRc<SharedFd>, buffer: B) -> Receive<B> {
    let op = match fd.kind {
        IoKind::Socket => recv(fd.clone(), Room(buffer), 0),
        IoKind::File => read(fd.clone(), Room(buffer), CURRENT),
    };
    Turn::new(fd, op)
}

/// As `receive`, of a message.
pub(crate) fn receive_from<B: BufferMut>(fd: &TryRc<SharedFd>, buffer: B) -> Turn<MessageIn<B>> {
    Turn::new(fd, recvmsg(fd.clone(), MessageIn::new(buffer), 0))
}

/// Data that has been received.
pub(crate) trait Received {
    /// The data, and who has sent it, where that was asked for.
    fn received(&mut self) -> Result<(&[u8], Address)>;
}

impl<B: BufferMut> Received for Filled<B> {
    fn received(&mut self) -> Result<(&[u8], Address)> {
        Ok((self.bytes()?, Address::EMPTY))
    }
}

impl<B: BufferMut> Received for ReceivedFrom<B> {
    fn received(&mut self) -> Result<(&[u8], Address)> {
        Ok((self.0.bytes()?, self.1))
    }
}

impl<D: Descriptor, M: OpData<Output: Received>> Received for Stage<D, M> {
    fn received(&mut self) -> Result<(&[u8], Address)> {
        self.output().received()
    }
}

type Left = TryRc<OpCell<dyn Received>>;

impl<B: BufferMut> InTurn for Room<B> {
    type Source = SharedFd;
    type Left = dyn Received;

    fn turns(source: &SharedFd) -> &Turns<dyn Received> {
        &source.receiving
    }

    fn check(&mut self) -> Result<()> {
        room(&mut self.0).map(drop)
    }

    fn poll_others(source: &SharedFd, context: &Context<'_>) -> Poll<()> {
        source.poll_position(&source.sending, context)
    }

    fn take_left(self, source: &SharedFd, left: Left) -> std::result::Result<Filled<B>, Room<B>> {
        let given = source.receiving.given();
        let (filled, rest) = left.with_stage(|left| match left.received() {
            Ok((bytes, _)) => {
                let filled = Filled::copied(self.0, &bytes[given..]);
                let given = given + filled.count().unwrap_or(0);
                (filled, (given < bytes.len()).then_some(given))
            }
            Err(error) => (self.complete(Outcome::error(error)), None),
        });
        if let Some(given) = rest {
            source.receiving.put_back(left, given);
        }
        Ok(filled)
    }

    /// Of a short read that is cancelled, 6.1 tells how much it got, and leaves the position where it was (measured on a tmpfs).
    fn ends_by_itself(source: &SharedFd) -> bool {
        source.reads_end()
    }

    fn leave(cell: TryRc<OpCell<StageOf<Room<B>>>>) -> Left {
        cell.unsize(|cell| cell)
    }
}

impl<B: BufferMut> InTurn for MessageIn<B> {
    type Source = SharedFd;
    type Left = dyn Received;

    fn turns(source: &SharedFd) -> &Turns<dyn Received> {
        &source.receiving
    }

    fn check(&mut self) -> Result<()> {
        room(&mut self.buffer).map(drop)
    }

    /// What there is no room for is lost.
    fn take_left(self, _: &SharedFd, left: Left) -> std::result::Result<ReceivedFrom<B>, MessageIn<B>> {
        Ok(left.with_stage(|left| match left.received() {
            Ok((bytes, sender)) => ReceivedFrom(Filled::copied(self.buffer, bytes), sender),
            Err(error) => self.complete(Outcome::error(error)),
        }))
    }

    fn leave(cell: TryRc<OpCell<StageOf<MessageIn<B>>>>) -> Left {
        cell.unsize(|cell| cell)
    }
}

/// A buffer of which a part has been filled already.
struct Part<B> {
    buffer: B,
    filled: usize,
}

// SAFETY: as the buffer in it; the room is the rest of that.
unsafe impl<B: BufferMut> BufferMut for Part<B> {
    fn room(&mut self) -> (*mut u8, usize) {
        let (room, length) = self.buffer.room();
        // So much of the room has been filled.
        (room.wrapping_add(self.filled), length - self.filled)
    }

    unsafe fn filled(&mut self, count: usize) {
        self.filled += count;
    }
}

/// Receives until all of the room is filled. What has come before an error is in the buffer.
pub(crate) async fn fill<B: BufferMut>(fd: &TryRc<SharedFd>, buffer: B) -> (Result<()>, B) {
    let mut part = Part { buffer, filled: 0 };
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
    let Part { mut buffer, filled } = part;
    // SAFETY: they have been written.
    unsafe { buffer.filled(filled) };
    (result, buffer)
}
