//! UDP sockets for tasks. The rules are in the documentation of `net`.

use std::net::{self, SocketAddr};

use super::socket::{self, done, refused};
use crate::error::{Error, Result};
use crate::io::{SharedFd, TryRc, Turn, run};
use crate::op::address::Address;
use crate::op::buffer::{Buffer, BufferMut};
use crate::op::data::{Bytes, Message, Room};
use crate::op::sockets::{recvmsg, send, sendmsg};

/// A UDP socket. Different tasks may send and receive; they share the socket in an `Rc`.
///
/// ```
/// use ringloop::{Loop, net::UdpSocket};
///
/// let lp = Loop::new()?;
/// lp.run_until_complete(async {
///     let one = UdpSocket::bind("127.0.0.1:0".parse().unwrap())?;
///     let other = UdpSocket::bind("127.0.0.1:0".parse().unwrap())?;
///     one.send_to("hello", other.local_addr()?).await.0?;
///     let (received, buffer) = other.recv_from(Vec::with_capacity(1500)).await;
///     assert_eq!((received, &buffer[..]), (Ok((5, one.local_addr()?)), &b"hello"[..]));
///     ringloop::Result::Ok(())
/// })??;
/// # Ok::<(), ringloop::Error>(())
/// ```
pub struct UdpSocket {
    fd: TryRc<SharedFd>,
}

impl UdpSocket {
    /// A socket bound to an address. Errors: EADDRINUSE, EACCES and so on.
    pub fn bind(address: SocketAddr) -> Result<UdpSocket> {
        UdpSocket::from_std(done(net::UdpSocket::bind(address))?)
    }

    /// Sets the destination of `send`, and the only source of received datagrams. One system call.
    pub fn connect(&self, address: SocketAddr) -> Result<()> {
        rustix::net::connect(self, &address).map_err(refused)
    }

    /// Sends a datagram to the address of `connect`.
    ///
    /// Not cancel-safe: when the future is dropped, the datagram may have been sent. Errors:
    /// EDESTADDRREQ for an unconnected socket, EMSGSIZE.
    pub async fn send<B: Buffer>(&self, buffer: B) -> (Result<usize>, B) {
        run(send(self.fd.clone(), Bytes(buffer), 0)).await
    }

    /// As [`send`](UdpSocket::send), to this address.
    pub async fn send_to<B: Buffer>(&self, buffer: B, address: SocketAddr) -> (Result<usize>, B) {
        run(sendmsg(self.fd.clone(), Message::new(Bytes(buffer), address.into()), 0)).await.into()
    }

    /// Receives a datagram; returns its length. Data that does not fit into the buffer is lost.
    ///
    /// Cancel-safe: a datagram that had arrived when the future is dropped goes to the next
    /// receive, as far as it fitted into this buffer. Errors: EINVAL when the buffer has no space;
    /// EBUSY while the future of another receive exists; ECONNREFUSED when an earlier datagram to
    /// the connected address was refused.
    pub async fn recv<B: BufferMut>(&self, buffer: B) -> (Result<usize>, B) {
        let (got, buffer) = self.receive(buffer).await;
        (got.map(|(count, _)| count), buffer)
    }

    /// As [`recv`](UdpSocket::recv), and returns the sender's address.
    pub async fn recv_from<B: BufferMut>(&self, buffer: B) -> (Result<(usize, SocketAddr)>, B) {
        let (got, buffer) = self.receive(buffer).await;
        let got = got
            .and_then(|(count, sender)| Ok((count, sender.to_inet().ok_or(Error::BAD_ADDRESS)?)));
        (got, buffer)
    }

    async fn receive<B: BufferMut>(&self, buffer: B) -> (Result<(usize, Address)>, B) {
        let message = Message::new(Room(buffer), Address::EMPTY);
        Turn::new(&self.fd, recvmsg(self.fd.clone(), message, 0)).await.into()
    }

    /// The address of this socket. One system call.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        socket::local_addr(self)
    }
}

socket::socket!(UdpSocket, SocketAddr, "socket");
