//! Sending from a buffer. Data leaves in the order of the calls: a send that begins while a cancelled one has not ended waits for its end.

use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::flight::{InFlight, Kept, begin};
use super::source::{IoKind, Socket};
use crate::abi::sqe::Sqe;
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::op::address::Address;
use crate::op::buffer::Buffer;
use crate::op::{Message, entries};
use crate::sys::try_arc::TryRc;

/// A buffer that the kernel has.
struct Draining<B> {
    buffer: B,
    message: Option<Message>,
}

impl<B: Buffer> Kept for Draining<B> {}

impl<B: Buffer> Draining<B> {
    fn entry(&mut self, fd: RawFd, how: IoKind, flags: i32) -> Result<Sqe> {
        let bytes = self.buffer.bytes();
        let (from, length) = (bytes.as_ptr(), entries::length(bytes.len())?);
        Ok(match (&mut self.message, how) {
            (Some(message), _) => entries::sendmsg(fd, message.header_for(from.cast_mut(), length), flags),
            (None, IoKind::File) => entries::write(fd, from, length, entries::CURRENT),
            (None, _) => entries::send(fd, from, length, flags),
        })
    }
}

/// Sends from a buffer; tells how many bytes. Dropped, it may have sent a part.
pub(crate) struct Send<B: Buffer> {
    socket: TryRc<Socket>,
    /// Until it is given to the kernel, or comes back.
    buffer: Option<B>,
    to: Option<Address>,
    /// Whether the kernel is to go on until all is sent, where it can.
    whole: bool,
    flight: Option<InFlight<Draining<B>>>,
    has_turn: bool,
}

impl<B: Buffer> Send<B> {
    pub(crate) fn new(socket: TryRc<Socket>, buffer: B) -> Send<B> {
        Send { socket, buffer: Some(buffer), to: None, whole: false, flight: None, has_turn: false }
    }

    pub(crate) fn to(socket: TryRc<Socket>, buffer: B, to: Address) -> Send<B> {
        let mut send = Send::new(socket, buffer);
        send.to = Some(to);
        send
    }

    /// As `new`; less than all is sent only by kernels that do not go on by themselves, or before an error.
    pub(crate) fn whole(socket: TryRc<Socket>, buffer: B) -> Send<B> {
        let mut send = Send::new(socket, buffer);
        send.whole = true;
        send
    }

    /// None: the operation has begun.
    fn begin(&mut self, context: &Context<'_>) -> Poll<Option<Result<usize>>> {
        let how = self.socket.how;
        // Datagrams do not mix, and a send to the other end of one is not held up by another.
        if how != IoKind::Datagrams {
            if !self.has_turn {
                self.socket.sending.begin()?;
                self.has_turn = true;
            }
            // IoKind far that came is nobody's business any more.
            let _ = ready!(self.socket.sending.poll_left(context));
            ready!(self.socket.poll_position(&self.socket.receiving, context));
        }
        let buffer = self.buffer.take().expect("a future is not polled after it was ready");
        let draining = Draining { buffer, message: self.to.map(Message::new) };
        let (fd, whole) = (self.socket.fd.as_raw_fd(), self.whole);
        let entry = |lp: &Loop, draining: &mut Draining<B>| {
            draining.entry(fd, how, if whole { lp.send_whole_flag() } else { 0 })
        };
        // SAFETY: the bytes are the buffer's, and the message is kept; the descriptor is the socket's.
        match unsafe { begin(draining, &self.socket, entry) } {
            Ok(flight) => {
                self.flight = Some(flight);
                Poll::Ready(None)
            }
            Err((error, draining)) => {
                self.buffer = Some(draining.buffer);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn end_turn(&mut self) {
        if std::mem::take(&mut self.has_turn) {
            let left = self.flight.take().and_then(|mut flight| flight.abandon());
            self.socket.sending.end(left.map(TryRc::erase));
        }
    }
}

impl<B: Buffer> Future for Send<B> {
    type Output = (Result<usize>, B);

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(Result<usize>, B)> {
        let this = &mut *self;
        if this.flight.is_none()
            && let Some(result) = ready!(this.begin(context))
        {
            this.end_turn();
            return Poll::Ready((result, this.buffer.take().expect("it has come back")));
        }
        let flight = this.flight.as_mut().expect("it has begun");
        let (result, draining) = ready!(flight.poll(context));
        this.flight = None;
        this.end_turn();
        Poll::Ready((result.map(|count| count as usize), draining.buffer))
    }
}

impl<B: Buffer> Unpin for Send<B> {}

impl<B: Buffer> Drop for Send<B> {
    fn drop(&mut self) {
        self.end_turn();
    }
}

/// The rest of a buffer.
struct Rest<B> {
    buffer: B,
    sent: usize,
}

// SAFETY: as the buffer in it.
unsafe impl<B: Buffer> Buffer for Rest<B> {
    fn bytes(&self) -> &[u8] {
        self.buffer.bytes().get(self.sent..).unwrap_or_default()
    }
}

/// Sends until all is sent. Dropped, it may have sent a part.
pub(crate) struct SendAll<B: Buffer> {
    socket: TryRc<Socket>,
    send: Send<Rest<B>>,
}

impl<B: Buffer> SendAll<B> {
    pub(crate) fn new(socket: TryRc<Socket>, buffer: B) -> SendAll<B> {
        let send = Send::whole(socket.clone(), Rest { buffer, sent: 0 });
        SendAll { socket, send }
    }
}

impl<B: Buffer> Future for SendAll<B> {
    type Output = (Result<()>, B);

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(Result<()>, B)> {
        loop {
            if self.send.buffer.as_ref().is_some_and(|rest| rest.bytes().is_empty()) {
                let rest = self.send.buffer.take().expect("it is there");
                return Poll::Ready((Ok(()), rest.buffer));
            }
            let (result, mut rest) = ready!(Pin::new(&mut self.send).poll(context));
            match result {
                Ok(0) => return Poll::Ready((Err(Error::NOTHING_WRITTEN), rest.buffer)),
                Ok(count) => rest.sent += count,
                Err(error) => return Poll::Ready((Err(error), rest.buffer)),
            }
            self.send = Send::whole(self.socket.clone(), rest);
        }
    }
}

impl<B: Buffer> Unpin for SendAll<B> {}

/// Writes all of a buffer at an offset of a file.
pub(crate) async fn write_all_at<B: Buffer>(file: &TryRc<Socket>, buffer: B, offset: u64) -> (Result<()>, B) {
    let mut rest = Rest { buffer, sent: 0 };
    while !rest.bytes().is_empty() {
        let result;
        let at = offset.saturating_add(rest.sent as u64);
        (result, rest) = write_at(file, rest, at).await;
        match result {
            Ok(0) => return (Err(Error::NOTHING_WRITTEN), rest.buffer),
            Ok(count) => rest.sent += count,
            Err(error) => return (Err(error), rest.buffer),
        }
    }
    (Ok(()), rest.buffer)
}

/// Writes from a buffer at an offset of a file.
pub(crate) async fn write_at<B: Buffer>(file: &TryRc<Socket>, buffer: B, offset: u64) -> (Result<usize>, B) {
    let fd = file.fd.as_raw_fd();
    let entry = |_: &Loop, draining: &mut Draining<B>| {
        let bytes = draining.buffer.bytes();
        Ok(entries::write(fd, bytes.as_ptr(), entries::length(bytes.len())?, offset))
    };
    // SAFETY: the bytes are the buffer's; the descriptor is the file's.
    match unsafe { begin(Draining { buffer, message: None }, file, entry) } {
        Ok(mut flight) => {
            let (result, draining) = poll_fn(|context| flight.poll(context)).await;
            (result.map(|count| count as usize), draining.buffer)
        }
        Err((error, draining)) => (Err(error), draining.buffer),
    }
}
