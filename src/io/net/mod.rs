//! Sockets for tasks: streams, listeners and datagrams over owned buffers.
//!
//! A buffer is moved in and comes back with the result, in every case: it is the kernel's
//! meanwhile, which reads and writes in place.
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
//! # What holds for all of them
//!
//! They are for tasks of the loop that is running, and for one loop each. Where no loop is running,
//! a future says EINVAL; what has begun on a loop comes to its end only while that loop runs. An
//! operation is one allocation, and no system call of its own: it is submitted with the next
//! iteration's. Errors are those of the kernel, and EAGAIN, ENOMEM and ESHUTDOWN as from
//! [`Loop::submit`](crate::Loop::submit); ECANCELED when the loop is shut down meanwhile.
//!
//! A future that is dropped, by [`timeout`](crate::task::timeout) or the end of its task, cancels
//! its operation; the buffer is dropped when the kernel has let go of it. *Cancel-safe* methods
//! lose nothing then, wherever they are: what had been received or accepted by then stays with the
//! socket, in order, and the next call gets it. That call waits for the end of the one before, if
//! need be, which takes an iteration. Each method says whether it is. A second receive (or send on
//! a stream, or accept) while the future of the first still lives is refused with EBUSY.
//!
//! A socket that is dropped is closed as soon as the kernel has let go of the operations on it: at
//! once when there are none, else by the loop's next iteration. What cancelled receives have left
//! is dropped with it.

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
/// been dropped: to tell the other end before that, [`shutdown`](WriteHalf::shutdown).
#[derive(Debug)]
pub struct WriteHalf {
    fd: TryRc<SharedFd>,
}

impl ReadHalf {
    reading!();
}

impl WriteHalf {
    writing!();

    /// Tells the other end that nothing more comes. What has been written is sent before. One
    /// system call.
    pub fn shutdown(&mut self) -> crate::Result<()> {
        socket::shutdown(&self.fd, std::net::Shutdown::Write)
    }
}
