//! Receiving into a buffer, so that nothing is lost when the future is dropped: what the kernel had
//! put into the buffer by then stays there, and the next receive takes it from there.

use std::task::{Context, Poll};

use super::in_flight::{OpCell, Stage};
use super::shared_fd::{IoKind, SharedFd};
use super::turn::{InTurn, StageOf, Turn, Turns};
use crate::error::{Error, Result};
use crate::op::address::Address;
use crate::op::buffer::{BufferMut, Filled, Part, room};
use crate::op::data::{Addressed, Message, Room};
use crate::op::operation::{OpData, Outcome};
use crate::op::sockets::{recv, recvmsg};
use crate::op::streams::{CURRENT, read};
use crate::sys::memory::TryRc;

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
pub(crate) fn receive_from<B: BufferMut>(
    fd: &TryRc<SharedFd>,
    buffer: B,
) -> Turn<Message<Room<B>>> {
    Turn::new(fd, recvmsg(fd.clone(), Message::new(Room(buffer), Address::EMPTY), 0))
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

impl<B: BufferMut> Received for Addressed<Filled<B>> {
    fn received(&mut self) -> Result<(&[u8], Address)> {
        Ok((self.0.bytes()?, self.1))
    }
}

impl<D, M: OpData<Output: Received>> Received for Stage<D, M> {
    fn received(&mut self) -> Result<(&[u8], Address)> {
        self.output.as_mut().expect("it has ended").received()
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

    fn take_left(self, source: &SharedFd, left: Left) -> std::result::Result<Filled<B>, Self> {
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

    /// Of a short read that is cancelled, 6.1 tells how much it got, and leaves the position where
    /// it was (measured on a tmpfs).
    fn ends_by_itself(source: &SharedFd) -> bool {
        source.reads_end()
    }

    fn leave(cell: TryRc<OpCell<StageOf<Self>>>) -> Left {
        cell.unsize(|cell| cell)
    }
}

impl<B: BufferMut> InTurn for Message<Room<B>> {
    type Source = SharedFd;
    type Left = dyn Received;

    fn turns(source: &SharedFd) -> &Turns<dyn Received> {
        &source.receiving
    }

    fn check(&mut self) -> Result<()> {
        self.data.check()
    }

    /// What there is no room for is lost.
    fn take_left(self, _: &SharedFd, left: Left) -> std::result::Result<Self::Output, Self> {
        Ok(left.with_stage(|left| match left.received() {
            Ok((bytes, sender)) => Addressed(Filled::copied(self.data.0, bytes), sender),
            Err(error) => self.complete(Outcome::error(error)),
        }))
    }

    fn leave(cell: TryRc<OpCell<StageOf<Self>>>) -> Left {
        cell.unsize(|cell| cell)
    }
}

/// Receives until all of the room is filled. What has come before an error is in the buffer.
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
