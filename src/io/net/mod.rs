//! Sockets for tasks: streams, listeners and datagrams over owned buffers.
//!
//! A buffer is moved in and always comes back with the result, because the kernel reads and writes
//! it in place.
//!
//! ```
//! use ringloop::{Loop, net, task};
//!
//! let lp = Loop::new()?;
//! lp.run_until_complete(async {
//!     let listener = net::TcpListener::bind("127.0.0.1:0".parse().unwrap())?;
//!     let address = listener.local_addr()?;
//!     let server = task::spawn(async move {
//!         let mut stream = listener.accept().await?;
//!         let (read, buffer) = stream.read(Vec::with_capacity(4096)).await;
//!         read?;
//!         stream.write_all(buffer).await.0
//!     })?;
//!     let mut client = net::TcpStream::connect(address).await?;
//!     client.write_all("hello").await.0?;
//!     let (read, buffer) = client.read(Vec::with_capacity(4096)).await;
//!     assert_eq!((read, &buffer[..]), (Ok(5), &b"hello"[..]));
//!     server.await.expect("it does not panic")
//! })??;
//! # Ok::<(), ringloop::Error>(())
//! ```
//!
//! # Common rules
//!
//! Sockets are for tasks of the running loop, and each is for one loop. Where no loop is running, a
//! future fails with EINVAL; an operation ends only while its loop runs. An operation costs one
//! allocation and no system call of its own: it is submitted with that of the next iteration.
//! Errors are those of the kernel; EAGAIN, ENOMEM and ESHUTDOWN as from
//! [`Loop::submit`](crate::Loop::submit); ECANCELED when the loop is shut down meanwhile.
//!
//! Dropping a future, for example by [`timeout`](crate::task::timeout) or the end of its task,
//! cancels its operation; the buffer is dropped when the kernel has released it. *Cancel-safe*
//! methods lose nothing then: data or connections that had arrived stay with the socket, in order,
//! for the next call. That call waits for the end of the cancelled one if necessary, which takes an
//! iteration. The documentation of each method says whether it is cancel-safe. A second receive (or
//! send on a stream, or accept) fails with EBUSY while the future of the first exists.
//!
//! A dropped socket is closed when the kernel has released the operations on it: at once if there
//! are none, otherwise in the loop's next iteration. Data that cancelled receives have left is
//! dropped with it.

mod socket;
mod tcp;
mod udp;
mod unix;

#[cfg(any(feature = "futures-io", feature = "hyper"))]
pub(crate) use self::socket::shutdown;
pub use self::tcp::{TcpListener, TcpStream};
pub use self::udp::UdpSocket;
pub use self::unix::{UnixListener, UnixStream};
use crate::io::{SharedFd, TryRc, reading, writing};

/// The reading half of a stream, made by `into_split`. The stream is closed when both halves have
/// been dropped.
#[derive(Debug)]
pub struct ReadHalf {
    fd: TryRc<SharedFd>,
}

/// The writing half of a stream, made by `into_split`. The stream is closed when both halves have
/// been dropped; [`shutdown`](WriteHalf::shutdown) notifies the other end before.
#[derive(Debug)]
pub struct WriteHalf {
    fd: TryRc<SharedFd>,
}

impl ReadHalf {
    reading!();
}

impl WriteHalf {
    writing!();

    /// Notifies the other end that no more data follows, after all data that has been written. One
    /// system call.
    pub fn shutdown(&mut self) -> crate::Result<()> {
        socket::shutdown(&self.fd, std::net::Shutdown::Write)
    }
}
