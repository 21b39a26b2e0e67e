//! TCP.

use std::net::{self, Shutdown, SocketAddr};

use rustix::net::{AddressFamily, sockopt};

use super::socket::{self, refused};
use crate::error::{Error, Result};
use crate::io::{SharedFd, TryRc, accept_from};
use crate::task::operation;

/// A TCP connection.
pub struct TcpStream {
    fd: TryRc<SharedFd>,
}

impl TcpStream {
    /// Connects. Dropped before that, the future gives up and closes the socket. Errors:
    /// ECONNREFUSED, ETIMEDOUT and so on.
    pub async fn connect(address: SocketAddr) -> Result<TcpStream> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        TcpStream::of(socket::connect(socket::stream(family)?, address.into()).await?)
    }

    /// Connects to a host by its name (or a number): its addresses are looked up, on a thread of
    /// the loop's executor, and tried one after the other. Errors: ENOENT when there is no such
    /// host, and else as [`Loop::resolve`](crate::Loop::resolve); that of the last address.
    pub async fn connect_host(name: &str, port: u16) -> Result<TcpStream> {
        let port = port.to_string();
        let found =
            operation(|lp, done| lp.resolve(name, &port, move |_, found| drop(done.send(found))))?
                .await??;
        let mut refusal = Error::BAD_ADDRESS;
        for address in found {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    socket::stream_methods!(SocketAddr);

    /// Ends one direction or both: with `Write`, the other end reads to the end of what has been
    /// written, and no further. One system call. Errors: ENOTCONN when the other end has broken it
    /// off.
    pub fn shutdown(&mut self, how: Shutdown) -> Result<()> {
        socket::shutdown(&self.fd, how)
    }

    /// With `true`, small writes are sent at once, and not kept for others to join them. One system
    /// call.
    pub fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        sockopt::set_tcp_nodelay(self, nodelay).map_err(refused)
    }
}

socket::socket!(TcpStream, SocketAddr, "connection");

/// A TCP socket that listens.
pub struct TcpListener {
    fd: TryRc<SharedFd>,
}

impl TcpListener {
    /// Listens at an address; at port 0, at any that is free. A port that a former server has used
    /// can be used at once (SO_REUSEADDR). As many connections wait to be accepted as the system
    /// allows (somaxconn). Errors: EADDRINUSE, EACCES and so on.
    pub fn bind(address: SocketAddr) -> Result<TcpListener> {
        TcpListener::from_std(socket::listening(net::TcpListener::bind(address))?)
    }

    /// Waits for a connection, close-on-exec. Cancel-safe: one that had come when the future is
    /// dropped is given to the next accept.
    ///
    /// Errors: EMFILE, ENFILE, ENOBUFS and ENOMEM pass, and are to be tried again in a while;
    /// ECONNABORTED is a connection that has ended before it was accepted. EBUSY while another
    /// accept lives.
    pub async fn accept(&self) -> Result<TcpStream> {
        TcpStream::of(accept_from(&self.fd).await?)
    }

    /// The address that it listens at. One system call.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        socket::local_addr(self)
    }
}

socket::socket!(TcpListener, SocketAddr, "socket");
