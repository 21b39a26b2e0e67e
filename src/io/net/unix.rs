//! Unix sockets.

use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;

use rustix::net::AddressFamily;

use super::socket::{self, done};
use crate::error::{Error, Result};
use crate::io::{SharedFd, TryRc, accept_from};

/// The address that a path is.
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
    /// Connects to a listener by its path. Dropped before that, the future gives up. Errors:
    /// ENOENT, ECONNREFUSED and so on; EINVAL when the path is too long or has a NUL inside.
    pub async fn connect(path: impl AsRef<Path>) -> Result<UnixStream> {
        UnixStream::connect_addr(&address_of(path)?).await
    }

    /// The same by its address, which may be an abstract one.
    pub async fn connect_addr(address: &SocketAddr) -> Result<UnixStream> {
        UnixStream::of(
            socket::connect(socket::stream(AddressFamily::UNIX)?, address.clone().into()).await?,
        )
    }

    /// Two that are connected.
    pub fn pair() -> Result<(UnixStream, UnixStream)> {
        let (one, other) = done(net::UnixStream::pair())?;
        Ok((UnixStream::of(one.into())?, UnixStream::of(other.into())?))
    }

    socket::stream_methods!(SocketAddr);

    /// Ends one direction or both: with `Write`, the other end reads to the end of what has been
    /// written, and no further. One system call.
    pub fn shutdown(&mut self, how: Shutdown) -> Result<()> {
        socket::shutdown(&self.fd, how)
    }
}

socket::socket!(UnixStream, SocketAddr, "socket");

/// A Unix socket that listens.
pub struct UnixListener {
    fd: TryRc<SharedFd>,
}

impl UnixListener {
    /// Listens at a path, which it makes and does not remove. Errors: EADDRINUSE when the path is
    /// there, and so on.
    pub fn bind(path: impl AsRef<Path>) -> Result<UnixListener> {
        UnixListener::bind_addr(&address_of(path)?)
    }

    /// The same at an address, which may be an abstract one.
    pub fn bind_addr(address: &SocketAddr) -> Result<UnixListener> {
        UnixListener::from_std(socket::listening(net::UnixListener::bind_addr(address))?)
    }

    /// Waits for a connection: as [`TcpListener::accept`](super::TcpListener::accept), cancel-safe
    /// too.
    pub async fn accept(&self) -> Result<UnixStream> {
        UnixStream::of(accept_from(&self.fd).await?)
    }

    /// The address that it listens at. One system call.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        socket::local_addr(self)
    }
}

socket::socket!(UnixListener, SocketAddr, "socket");
