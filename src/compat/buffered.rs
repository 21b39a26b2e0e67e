//! Polled reading and writing over owned buffers.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::error::{Error, Result};
use crate::io::{Local, Receive, SendAll, Socket};
use crate::net::{self, TcpStream, UnixStream};

/// A stream whose reads and writes go by way of buffers of its own, two for writing and one for reading: made of a stream with `From`.
///
/// A read copies from what has come. The receive that waits for more belongs to this, not to the future that began it: when that is
/// dropped, nothing is lost. A write copies into a buffer and is done. It is sent in the background, unless another is being sent: then it
/// goes with the next write, flush or close, so that who waits for an answer flushes before. A write waits only
/// when the buffer is full, and an error of sending is told by the next write, flush or close. What has been written goes out for certain
/// when flush or close has said so; when this is dropped before, it may be lost.
pub struct Buffered<S> {
    stream: S,
    socket: Local<Socket>,
    capacity: usize,
    input: Vec<u8>,
    /// How much of the input has been read.
    read: usize,
    receive: Option<Receive<Vec<u8>>>,
    /// What waits to be sent.
    output: Vec<u8>,
    /// A buffer that has been sent.
    spare: Vec<u8>,
    send: Option<SendAll<Vec<u8>>>,
    is_closed: bool,
}

/// The size of each buffer, in bytes, unless another is asked for.
const CAPACITY: usize = 16 << 10;

impl From<TcpStream> for Buffered<TcpStream> {
    fn from(stream: TcpStream) -> Buffered<TcpStream> {
        Buffered::new(stream.socket().clone(), stream)
    }
}

impl From<UnixStream> for Buffered<UnixStream> {
    fn from(stream: UnixStream) -> Buffered<UnixStream> {
        Buffered::new(stream.socket().clone(), stream)
    }
}

impl<S> Buffered<S> {
    fn new(socket: Local<Socket>, stream: S) -> Buffered<S> {
        Buffered {
            stream,
            socket,
            capacity: CAPACITY,
            input: Vec::new(),
            read: 0,
            receive: None,
            output: Vec::new(),
            spare: Vec::new(),
            send: None,
            is_closed: false,
        }
    }

    /// With buffers of another size than 16 KiB, of a byte at least. They are allocated when they are used first.
    pub fn with_capacity(mut self, capacity: usize) -> Buffered<S> {
        self.capacity = capacity.max(1);
        self
    }

    /// The stream, for its addresses and options.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// What has been received and not been read yet. When it is empty, this waits for more; empty when it is ready: the end of the
    /// stream.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<&[u8]>> {
        if self.read == self.input.len() {
            if self.receive.is_none() {
                let mut input = std::mem::take(&mut self.input);
                self.read = 0;
                input.clear();
                input.try_reserve_exact(self.capacity)?;
                self.receive = Some(Receive::new(self.socket.clone(), input));
            }
            let receive = self.receive.as_mut().expect("it has begun");
            let (got, input) = ready!(Pin::new(receive).poll(context));
            self.receive = None;
            self.input = input;
            got?;
        }
        Poll::Ready(Ok(&self.input[self.read..]))
    }

    /// So much has been read.
    pub(super) fn consume(&mut self, count: usize) {
        self.read = self.input.len().min(self.read + count);
    }

    /// Copies what there is room for into the buffer, and sees to it that something is being sent.
    pub(super) fn poll_write_some(
        &mut self,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let sent = self.poll_send(context)?;
        let room = self.capacity.saturating_sub(self.output.len());
        if room == 0 {
            debug_assert!(sent.is_pending());
            return Poll::Pending;
        }
        let count = from.iter().map(|slice| slice.len()).sum::<usize>().min(room);
        if self.output.capacity() == 0 {
            self.output.try_reserve_exact(self.capacity)?;
        }
        let mut left = count;
        for slice in from {
            let part = &slice[..slice.len().min(left)];
            self.output.extend_from_slice(part);
            left -= part.len();
        }
        // It begins at once, when nothing else is on the way; what comes of it, the next call says.
        let _ = self.poll_send(context)?;
        Poll::Ready(Ok(count))
    }

    /// Sends what has been written, until nothing of it is left.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if let Some(send) = &mut self.send {
                let (result, sent) = ready!(Pin::new(send).poll(context));
                self.send = None;
                self.spare = sent;
                self.spare.clear();
                if let Err(error) = result {
                    self.output.clear();
                    return Poll::Ready(Err(error));
                }
            }
            if self.output.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let output = std::mem::replace(&mut self.output, std::mem::take(&mut self.spare));
            self.send = Some(SendAll::new(self.socket.clone(), output));
        }
    }

    /// Sends what has been written, and tells the other end that nothing more comes.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_send(context))?;
        if !std::mem::replace(&mut self.is_closed, true) {
            // The other end may have gone already.
            return Poll::Ready(match net::shutdown(&self.socket, Shutdown::Write) {
                Err(error) if error.raw_os_error() == libc::ENOTCONN => Ok(()),
                result => result,
            });
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Unpin for Buffered<S> {}

impl<S: fmt::Debug> fmt::Debug for Buffered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// As the traits have it.
pub(super) fn io_result<T>(result: Result<T>) -> io::Result<T> {
    result.map_err(|error: Error| error.into())
}
