//! Polled reading and writing over owned buffers, and the traits of others for that.

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

/// A stream whose reads and writes go by way of buffers of its own, one for each: made of a stream
/// with `From`.
///
/// A read copies from what has come. The receive that waits for more belongs to this, not to the
/// future that began it: when that is dropped, nothing is lost. A write copies what there is room
/// for, begins to send it, and is done; the next write waits until it has been sent. An error of
/// sending is told by the next write, flush or close. What has been written goes out for certain
/// when flush or close has said so; when this is dropped before, it may be lost. (Before Linux 6.1,
/// what the socket takes in parts goes on with the next write, flush or close.)
pub struct Buffered<S> {
    stream: S,
    fd: TryRc<SharedFd>,
    capacity: usize,
    input: Vec<u8>,
    /// How much of the input has been read.
    read: usize,
    receive: Option<Turn<Room<Vec<u8>>>>,
    /// What is written into. Empty, but for its capacity, or being sent.
    output: Vec<u8>,
    send: Option<SendAll<Vec<u8>>>,
    is_closed: bool,
}

/// The size of each buffer, in bytes, unless another is asked for.
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

    /// With buffers of another size than 16 KiB, of a byte at least. They are allocated when they
    /// are used first.
    pub fn with_capacity(mut self, capacity: usize) -> Buffered<S> {
        self.capacity = capacity.max(1);
        self
    }

    /// The stream, for its addresses and options.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// What has been received and not been read yet. When it is empty, this waits for more; empty
    /// when it is ready: the end of the stream.
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

    /// So much of the input has been read.
    fn skip(&mut self, count: usize) {
        self.read = self.input.len().min(self.read + count);
    }

    /// Has what there is room for copied from the input.
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

    /// Copies what there is room for into the buffer, and sees to it that something is being sent.
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
            // It begins at once; what comes of it, the next call says.
            let _ = self.poll_send(context)?;
        }
        Poll::Ready(Ok(count))
    }

    /// Sends what has been written, until nothing of it is left.
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

    /// Sends what has been written, and tells the other end that nothing more comes.
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

/// Writing, as both crates have it but for the name of its end.
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
