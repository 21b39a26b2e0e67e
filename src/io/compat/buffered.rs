//! Polled reads and writes over owned buffers, with the traits of futures-io and hyper.
//!
//! Relies on `io::turn` to keep the data of a cancelled receive. Data that has not been flushed may
//! be lost when the stream is dropped.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::error::Result;
use crate::io::net::{self, TcpStream, UnixStream};
use crate::io::{SendAll, SharedFd, TryRc, Turn, receive, send_all};
use crate::op::data::Room;

/// A stream with its own buffers, one for reads and one for writes: made from a stream with `From`.
///
/// A read copies from received data. The receive that waits for more belongs to this stream, not to
/// the future that began it, so dropping that future loses nothing. A write copies as much as fits
/// into the buffer, begins to send it, and returns; the next write waits until it has been sent.
/// The next write, flush or close returns an error of sending. After flush or close has succeeded,
/// everything written has been sent; dropping the stream before may lose data. (Before Linux 6.1,
/// the rest of data that the socket takes in parts is sent by the next write, flush or close.)
pub struct Buffered<S> {
    stream: S,
    fd: TryRc<SharedFd>,
    capacity: usize,
    input: Vec<u8>,
    /// The number of bytes of the input that have been read.
    read: usize,
    receive: Option<Turn<Room<Vec<u8>>>>,
    /// The buffer for writes: empty except for its capacity, or being sent.
    output: Vec<u8>,
    send: Option<SendAll<Vec<u8>>>,
    is_closed: bool,
}

/// The default size of each buffer, in bytes.
const CAPACITY: usize = 16 << 10;

impl From<TcpStream> for Buffered<TcpStream> {
    fn from(stream: TcpStream) -> Buffered<TcpStream> {
        Buffered::new(stream.shared_fd().clone(), stream)
    }
}

impl From<UnixStream> for Buffered<UnixStream> {
    fn from(stream: UnixStream) -> Buffered<UnixStream> {
        Buffered::new(stream.shared_fd().clone(), stream)
    }
}

impl<S> Buffered<S> {
    fn new(fd: TryRc<SharedFd>, stream: S) -> Buffered<S> {
        Buffered {
            stream,
            fd,
            capacity: CAPACITY,
            input: Vec::new(),
            read: 0,
            receive: None,
            output: Vec::new(),
            send: None,
            is_closed: false,
        }
    }

    /// Sets the size of each buffer, at least one byte; the default is 16 KiB. Buffers are
    /// allocated at their first use.
    pub fn with_capacity(mut self, capacity: usize) -> Buffered<S> {
        self.capacity = capacity.max(1);
        self
    }

    /// The stream, for its addresses and options.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Received data that has not been read. Waits for more if there is none; an empty result is
    /// the end of the stream.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.read == self.input.len() {
            if self.receive.is_none() {
                let mut input = std::mem::take(&mut self.input);
                self.read = 0;
                input.clear();
                input.try_reserve_exact(self.capacity)?;
                self.receive = Some(receive(&self.fd, input));
            }
            let receive = self.receive.as_mut().expect("it has begun");
            let (got, input): (Result<usize>, _) = ready!(Pin::new(receive).poll(context)).into();
            self.receive = None;
            self.input = input;
            got?;
        }
        Poll::Ready(Ok(&self.input[self.read..]))
    }

    /// Marks `count` bytes of the input as read.
    fn skip(&mut self, count: usize) {
        self.read = self.input.len().min(self.read + count);
    }

    /// Passes at most `room` bytes of the input to `copy`.
    fn poll_copy(
        &mut self,
        context: &mut Context<'_>,
        room: usize,
        copy: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if room == 0 {
            return Poll::Ready(Ok(0));
        }
        let data = ready!(self.poll_input(context))?;
        let count = data.len().min(room);
        copy(&data[..count]);
        self.skip(count);
        Poll::Ready(Ok(count))
    }

    /// Copies as much as fits into the buffer, and makes sure that something is being sent.
    fn poll_output(
        &mut self,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(context))?;
        self.output.try_reserve_exact(self.capacity)?;
        for slice in from {
            let room = self.capacity - self.output.len();
            self.output.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let count = self.output.len();
        if count > 0 {
            self.send = Some(send_all(&self.fd, std::mem::take(&mut self.output)));
            // The send begins at once; the next call returns its result.
            let _ = self.poll_send(context)?;
        }
        Poll::Ready(Ok(count))
    }

    /// Sends everything that has been written.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(send) = &mut self.send {
            let (result, mut sent) = ready!(Pin::new(send).poll(context));
            self.send = None;
            sent.clear();
            self.output = sent;
            result?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends everything that has been written, and shuts down the writing direction.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        if !std::mem::replace(&mut self.is_closed, true)
            && let Err(error) = net::shutdown(&self.fd, Shutdown::Write)
            // The other end may have gone already.
            && error.raw_os_error() != libc::ENOTCONN
        {
            return Poll::Ready(Err(error.into()));
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

/// Writing, which differs between the two crates only in the name of its last function.
macro_rules! polled_writing {
    ($poll_end:ident) => {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_output(context, &[IoSlice::new(from)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            from: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.poll_output(context, from)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_send(context)
        }

        fn $poll_end(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_end(context)
        }
    };
}

#[cfg(feature = "futures-io")]
impl<S> futures_io::AsyncRead for Buffered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_copy(context, to.len(), |data| to[..data.len()].copy_from_slice(data))
    }
}

#[cfg(feature = "futures-io")]
impl<S> futures_io::AsyncBufRead for Buffered<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().poll_input(context)
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.skip(count);
    }
}

#[cfg(feature = "futures-io")]
impl<S> futures_io::AsyncWrite for Buffered<S> {
    polled_writing!(poll_close);
}

#[cfg(feature = "hyper")]
impl<S> hyper::rt::Read for Buffered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut to: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_copy(context, to.remaining(), |data| to.put_slice(data)).map_ok(drop)
    }
}

#[cfg(feature = "hyper")]
impl<S> hyper::rt::Write for Buffered<S> {
    polled_writing!(poll_shutdown);

    fn is_write_vectored(&self) -> bool {
        true
    }
}
