//! Receiving into a buffer, so that nothing is lost when the future is dropped: what the kernel had put into the buffer by then stays
//! there, and the next receive takes it from there.

use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, ready};

use super::flight::{Flight, InFlight, Kept, begin};
use super::source::{IoKind, Socket};
use crate::abi::sqe::Sqe;
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::op::address::Address;
use crate::op::buffer::BufferMut;
use crate::op::{Message, entries, room};
use crate::sys::try_arc::TryRc;

/// A buffer that data has been received into, or is to be.
pub(crate) trait Received: 'static {
    /// Where that is.
    fn data(&mut self) -> *const u8;

    /// Who has sent it, where that was asked for.
    fn sender(&self) -> Option<Address>;
}

/// A buffer that the kernel has.
struct Filling<B> {
    buffer: B,
    message: Option<Message>,
}

/// Reads at an offset of a file. Dropped, it leaves nothing to anybody.
pub(crate) async fn read_at<B: BufferMut>(file: &TryRc<Socket>, buffer: B, offset: u64) -> (Result<usize>, B) {
    let fd = file.fd.as_raw_fd();
    let entry = |_: &Loop, filling: &mut Filling<B>| {
        let (to, length) = room(&mut filling.buffer)?;
        Ok(entries::read(fd, to, length, offset))
    };
    // SAFETY: the room is the buffer's; the descriptor is the file's.
    match unsafe { begin(Filling { buffer, message: None }, file, entry) } {
        Ok(mut flight) => {
            let (result, filling) = poll_fn(|context| flight.poll(context)).await;
            let (got, buffer) = filling.end(result);
            (got.map(|(count, _)| count), buffer)
        }
        Err((error, filling)) => (Err(error), filling.buffer),
    }
}

impl<B: BufferMut> Kept for Filling<B> {}

impl<B: BufferMut> Received for Filling<B> {
    fn data(&mut self) -> *const u8 {
        self.buffer.room().0
    }

    fn sender(&self) -> Option<Address> {
        self.message.as_ref().map(Message::address)
    }
}

impl<B: BufferMut> Filling<B> {
    fn entry(&mut self, fd: RawFd, how: IoKind) -> Result<Sqe> {
        let (to, length) = room(&mut self.buffer)?;
        Ok(match how {
            IoKind::Stream => entries::recv(fd, to, length, 0),
            IoKind::File => entries::read(fd, to, length, entries::CURRENT),
            IoKind::Datagrams => {
                let message = self.message.insert(Message::new(Address::EMPTY));
                entries::recvmsg(fd, message.header_for(to, length), 0)
            }
        })
    }

    /// The kernel has received so much.
    fn end(self, result: Result<u32>) -> (Got, B) {
        let Filling { mut buffer, message } = self;
        let got = result.map(|count| {
            let count = buffer.room().1.min(count as usize);
            // SAFETY: the kernel has written so many to the room.
            unsafe { buffer.filled(count) };
            (count, message.as_ref().map(Message::address))
        });
        (got, buffer)
    }
}

/// Receives into the room of a buffer. Dropped, it leaves to the next what has come.
pub(crate) struct Receive<B: BufferMut> {
    socket: TryRc<Socket>,
    /// Until it is given to the kernel, or comes back.
    buffer: Option<B>,
    flight: Option<InFlight<Filling<B>>>,
    has_turn: bool,
}

/// What a receive comes to: how many bytes, and who has sent them, where that is asked for.
pub(crate) type Got = Result<(usize, Option<Address>)>;

impl<B: BufferMut> Receive<B> {
    pub(crate) fn new(socket: TryRc<Socket>, buffer: B) -> Receive<B> {
        Receive { socket, buffer: Some(buffer), flight: None, has_turn: false }
    }

    /// Begins: with what is left of a receive that was cancelled, else with one of its own. None: that has begun.
    fn begin(&mut self, context: &Context<'_>) -> Poll<Option<Got>> {
        let buffer = self.buffer.as_mut().expect("a future is not polled after it was ready");
        let receiving = &self.socket.receiving;
        if !self.has_turn {
            room(buffer)?;
            receiving.begin()?;
            self.has_turn = true;
        }
        if let Some((result, left)) = ready!(receiving.poll_left(context)) {
            let got = result.map(|count| take_left(&self.socket, left, count as usize, buffer));
            return Poll::Ready(Some(got));
        }
        ready!(self.socket.poll_position(&self.socket.sending, context));
        let (fd, how) = (self.socket.fd.as_raw_fd(), self.socket.how);
        let filling = self.buffer.take().map(|buffer| Filling { buffer, message: None }).expect("it was there");
        // SAFETY: the room is the buffer's, and the message is kept; the descriptor is the socket's.
        match unsafe { begin(filling, &self.socket, |_, filling| filling.entry(fd, how)) } {
            Ok(flight) => {
                self.flight = Some(flight);
                Poll::Ready(None)
            }
            Err((error, filling)) => {
                self.buffer = Some(filling.buffer);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn end_turn(&mut self) {
        if std::mem::take(&mut self.has_turn) {
            let left = self.flight.take().and_then(|mut flight| {
                // Of a short read that is cancelled, 6.1 tells how much it got, and leaves the position where it was (measured on a tmpfs).
                if self.socket.reads_end() { flight.leave() } else { flight.abandon() }
            });
            self.socket.receiving.end(left.map(erase));
        }
    }
}

/// Takes of the data that is left what there is room for; of a datagram, the rest is lost.
fn take_left(
    socket: &Socket,
    left: TryRc<Flight<dyn Received>>,
    count: usize,
    buffer: &mut impl BufferMut,
) -> (usize, Option<Address>) {
    let given = socket.receiving.given();
    let (to, room) = buffer.room();
    let taken = room.min(count - given);
    let sender = left.with_kept(|received| {
        // SAFETY: so many bytes are behind what has been given, and there is room for them; nobody has both buffers.
        unsafe { ptr::copy_nonoverlapping(received.data().add(given), to, taken) };
        received.sender()
    });
    // SAFETY: they have been written.
    unsafe { buffer.filled(taken) };
    if socket.how != IoKind::Datagrams && given + taken < count {
        socket.receiving.put_back(left, given + taken);
    }
    (taken, sender)
}

fn erase<B: BufferMut>(flight: TryRc<Flight<Filling<B>>>) -> TryRc<Flight<dyn Received>> {
    flight.unsize(|inner| inner)
}

impl<B: BufferMut> Future for Receive<B> {
    type Output = (Got, B);

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(Got, B)> {
        let this = &mut *self;
        if this.flight.is_none()
            && let Some(got) = ready!(this.begin(context))
        {
            this.end_turn();
            return Poll::Ready((got, this.buffer.take().expect("it has come back")));
        }
        let flight = this.flight.as_mut().expect("it has begun");
        let (result, filling) = ready!(flight.poll(context));
        this.flight = None;
        this.end_turn();
        Poll::Ready(filling.end(result))
    }
}

impl<B: BufferMut> Unpin for Receive<B> {}

impl<B: BufferMut> Drop for Receive<B> {
    fn drop(&mut self) {
        self.end_turn();
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
        // SAFETY: so much of the room has been filled.
        (unsafe { room.add(self.filled) }, length - self.filled)
    }

    unsafe fn filled(&mut self, count: usize) {
        self.filled += count;
    }
}

/// Receives until all of the room is filled. What has come before an error is in the buffer.
pub(crate) async fn fill<B: BufferMut>(socket: TryRc<Socket>, buffer: B) -> (Result<()>, B) {
    let mut part = Part { buffer, filled: 0 };
    let result = loop {
        let got;
        (got, part) = Receive::new(socket.clone(), part).await;
        match got {
            Ok((0, _)) => break Err(Error::END_OF_STREAM),
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
