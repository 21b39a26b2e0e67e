//! Unix stream sockets for tasks. The rules are in the documentation of `net`.

use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;

use rustix::net::AddressFamily;

use super::socket::{self, done};
use crate::error::{Error, Result};
use crate::io::{SharedFd, TryRc, accept_from};

/// The address of a path.
fn address_of(path: impl AsRef<Path>) -> Result<SocketAddr> {
    let path = path.as_ref();
    let has_nul = path.as_os_str().as_bytes().contains(&0);
    let refusal = if has_nul { Error::NUL_INSIDE } else { Error::PATH_TOO_LONG };
    SocketAddr::from_pathname(path).map_err(|_| refusal)
}

/// A Unix stream socket.
pub struct UnixStream {
    fd: TryRc<SharedFd>,
}

impl UnixStream {
    /// Connects to a listener by path. Dropping the future closes the socket. Errors: ENOENT,
    /// ECONNREFUSED and so on; EINVAL when the path is too long or contains a NUL.
    pub async fn connect(path: impl AsRef<Path>) -> Result<UnixStream> {
        UnixStream::connect_addr(&address_of(path)?).await
    }

    /// The same with an address, which may be abstract.
    pub async fn connect_addr(address: &SocketAddr) -> Result<UnixStream> {
        UnixStream::of(
            socket::connect(socket::stream(AddressFamily::UNIX)?, address.clone().into()).await?,
        )
    }

    /// Two connected sockets.
    pub fn pair() -> Result<(UnixStream, UnixStream)> {
        let (one, other) = done(net::UnixStream::pair())?;
        Ok((UnixStream::of(one.into())?, UnixStream::of(other.into())?))
    }

    socket::stream_methods!(SocketAddr);

    /// Shuts down one direction or both: after `Write`, the other end reads to the end of the
    /// written data. One system call.
    pub fn shutdown(&mut self, how: Shutdown) -> Result<()> {
        socket::shutdown(&self.fd, how)
    }
}

socket::socket!(UnixStream, SocketAddr, "socket");

/// A listening Unix socket.
pub struct UnixListener {
    fd: TryRc<SharedFd>,
}

impl UnixListener {
    /// Listens at a path, which is created and never removed. Errors: EADDRINUSE when the path
    /// exists, and so on.
    pub fn bind(path: impl AsRef<Path>) -> Result<UnixListener> {
        UnixListener::bind_addr(&address_of(path)?)
    }

    /// The same with an address, which may be abstract.
    pub fn bind_addr(address: &SocketAddr) -> Result<UnixListener> {
        UnixListener::from_std(socket::listening(net::UnixListener::bind_addr(address))?)
    }

    /// Waits for a connection: as [`TcpListener::accept`](super::TcpListener::accept), also
    /// cancel-safe.
    pub async fn accept(&self) -> Result<UnixStream> {
        UnixStream::of(accept_from(&self.fd).await?)
    }

    /// The address of the listener. One system call.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        socket::local_addr(self)
    }
}

socket::socket!(UnixListener, SocketAddr, "socket");
