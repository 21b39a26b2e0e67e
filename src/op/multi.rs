//! Operations with many results: accepting connections, receiving into a buffer ring.
//!
//! The drivers are in `accept_multi` and `recv_multi`; the fallbacks for older kernels are there.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use libc::c_int;

use super::accept_multi::AcceptMulti;
use super::recv_multi::RecvMulti;
use crate::abi::handle::Handle;
use crate::abi::opcodes;
use crate::error::{Error, Result};
use crate::event_loop::Loop;
use crate::kernel::buffers::Pool;
use crate::sys::memory::{TryArc, try_box};

/// A ring of buffers, from which the kernel picks; see [`Loop::buffers`].
#[derive(Clone, Debug)]
pub struct Buffers(TryArc<Pool>);

impl Loop {
    /// Accepts connections until it is cancelled: `f` gets each as a descriptor, close-on-exec.
    /// Uses one entry for all of them from Linux 5.19, one for each before. The listening socket is
    /// kept until the operation ends.
    ///
    /// When descriptors or memory have run out, `f` gets the error once (EMFILE, ENFILE, ENOBUFS,
    /// ENOMEM), and accepting continues, with an attempt every 100 ms. Any other error, ECANCELED
    /// included, ends the operation. Errors: as [`Loop::submit`].
    pub fn accept_multi(
        &self,
        fd: impl AsFd + 'static,
        f: impl FnMut(&Loop, Result<OwnedFd>) + 'static,
    ) -> Result<Handle> {
        self.check_open()?;
        let accept = self.accepting(fd.as_fd().as_raw_fd(), libc::SOCK_CLOEXEC)?;
        self.submit_accept(accept, fd, f)
    }

    /// Receives from a stream until it ends: `f` gets the data of each arrival, in order. The data
    /// is in one of `buffers` and valid during the call. An empty slice at the end of the stream,
    /// or an error, ends the operation.
    ///
    /// On a message socket (datagrams, SOCK_SEQPACKET), each call gets one message, which may be
    /// empty without ending the operation. [`recv`](Loop::recv) and [`recv_from`](Loop::recv_from)
    /// are better there: the kernel truncates a message at the end of the buffer, and from Linux
    /// 6.12 a message may begin after the previous one in the buffer, with less space.
    ///
    /// An idle connection holds no buffer. Without a free buffer, receiving stops and resumes when
    /// one comes back. From Linux 6.0, one entry is enough; before, each arrival takes a poll and a
    /// receive. Errors: as [`Loop::submit`]; if the descriptor is not a socket, `f` gets ENOTSOCK.
    ///
    /// A server that counts bytes:
    ///
    /// ```no_run
    /// use std::net::TcpListener;
    /// use ringloop::Loop;
    ///
    /// let lp = Loop::new()?;
    /// let buffers = lp.buffers(256, 16384)?;
    /// lp.accept_multi(TcpListener::bind("127.0.0.1:7007")?, move |lp, accepted| {
    ///     let Ok(connection) = accepted else { return };
    ///     let mut bytes = 0;
    ///     let received = lp.recv_multi(connection, &buffers, move |_lp, data| match data {
    ///         Ok([]) | Err(_) => println!("{bytes} bytes"), // the end
    ///         Ok(data) => bytes += data.len(),
    ///     });
    ///     received.expect("a receive can be submitted");
    /// })?;
    /// lp.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_multi(
        &self,
        fd: impl AsFd + 'static,
        buffers: &Buffers,
        f: impl FnMut(&Loop, Result<&[u8]>) + 'static,
    ) -> Result<Handle> {
        self.check_open()?;
        let recv = self.receiving(fd.as_fd().as_raw_fd(), &buffers.0)?;
        self.submit_recv(recv, fd, f)
    }

    /// Makes `count` buffers (rounded up to a power of two, at most 32768) of `size` bytes, for
    /// [`recv_multi`](Loop::recv_multi). From Linux 6.12 the kernel fills a buffer incrementally,
    /// so that small messages do not waste large buffers.
    ///
    /// They live until [`free_buffers`](Loop::free_buffers), or as long as the loop. Errors: EINVAL
    /// for a number or a size out of range; ENOMEM.
    pub fn buffers(&self, count: u32, size: u32) -> Result<Buffers> {
        self.new_pool(count, size).map(Buffers)
    }

    /// Frees buffers. Errors: EBUSY while an operation uses them; EINVAL when they belong to
    /// another loop, or were freed already.
    pub fn free_buffers(&self, buffers: &Buffers) -> Result<()> {
        self.free_pool(&buffers.0)
    }

    pub(crate) fn accepting(&self, fd: RawFd, flags: c_int) -> Result<Box<AcceptMulti>> {
        // Multishot accept came with 5.19, as did SOCKET, which can be probed.
        try_box(AcceptMulti::new(fd, flags, self.supports(opcodes::SOCKET)))
    }

    pub(crate) fn receiving(&self, fd: RawFd, pool: &TryArc<Pool>) -> Result<Box<RecvMulti>> {
        if !self.has_pool(pool) {
            return Err(Error::FOREIGN_BUFFERS);
        }
        try_box(RecvMulti::new(fd, pool)?)
    }
}
