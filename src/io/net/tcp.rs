//! TCP connections and listeners for tasks. The rules are in the documentation of `net`.

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
    /// Connects. Dropping the future closes the socket. Errors: ECONNREFUSED, ETIMEDOUT and so on.
    pub async fn connect(address: SocketAddr) -> Result<TcpStream> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        TcpStream::of(socket::connect(socket::stream(family)?, address.into()).await?)
    }

    /// Connects to a host by name or number: looks up its addresses on a thread of the loop's
    /// executor, and tries them in order. Errors: ENOENT when there is no such host, and others of
    /// [`Loop::resolve`](crate::Loop::resolve); the error of the last address.
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

    /// Shuts down one direction or both: after `Write`, the other end reads to the end of the
    /// written data. One system call. Errors: ENOTCONN when the other end has aborted the
    /// connection.
    pub fn shutdown(&mut self, how: Shutdown) -> Result<()> {
        socket::shutdown(&self.fd, how)
    }

    /// With `true`, sends small writes at once instead of delaying them to combine them. One system
    /// call.
    pub fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        sockopt::set_tcp_nodelay(self, nodelay).map_err(refused)
    }
}

socket::socket!(TcpStream, SocketAddr, "connection");

/// A listening TCP socket.
pub struct TcpListener {
    fd: TryRc<SharedFd>,
}

impl TcpListener {
    /// Listens at an address; port 0 means any free port. The port of a former server can be used
    /// at once (SO_REUSEADDR). The backlog is the system's limit (somaxconn). Errors: EADDRINUSE,
    /// EACCES and so on.
    pub fn bind(address: SocketAddr) -> Result<TcpListener> {
        TcpListener::from_std(socket::listening(net::TcpListener::bind(address))?)
    }

    /// Waits for a connection, close-on-exec. Cancel-safe: a connection that had arrived when the
    /// future is dropped goes to the next accept.
    ///
    /// Errors: EMFILE, ENFILE, ENOBUFS and ENOMEM are temporary: try again later; ECONNABORTED is a
    /// connection that ended before it was accepted; EBUSY while the future of another accept
    /// exists.
    pub async fn accept(&self) -> Result<TcpStream> {
        TcpStream::of(accept_from(&self.fd).await?)
    }

    /// The address of the listener. One system call.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        socket::local_addr(self)
    }
}

socket::socket!(TcpListener, SocketAddr, "socket");
