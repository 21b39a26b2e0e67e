//! Common parts of all sockets, and their system calls, one for each function.
//!
//! Operations of the loop are in `op::sockets`; nothing here waits.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::io::{TryRc, run};
use crate::op::address::Address;
use crate::op::sockets;

/// Converts the error of the standard library.
pub(super) fn done<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::of_io(&error))
}

pub(super) fn refused(errno: Errno) -> Error {
    Error::of_operation(-errno.raw_os_error())
}

/// An unconnected stream socket.
pub(super) fn stream(family: AddressFamily) -> Result<OwnedFd> {
    net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(refused)
}

/// Raises the backlog of a listening socket to the system's limit (somaxconn). The standard library
/// uses 128, and further connections of a burst are lost, though the other end may regard itself as
/// connected.
pub(super) fn listening<L: AsFd>(listener: io::Result<L>) -> Result<L> {
    let listener = done(listener)?;
    net::listen(&listener, i32::MAX).map_err(refused)?;
    Ok(listener)
}

/// Clears O_NONBLOCK: before 5.16, operations on such a descriptor may not wait.
pub(super) fn make_blocking(fd: impl AsFd) -> Result<()> {
    rustix::io::ioctl_fionbio(fd, false).map_err(refused)
}

/// An address type of the standard library for one family.
pub(super) trait Family: fmt::Debug + Sized {
    fn of(address: SocketAddrAny) -> Option<Self>;
}

impl Family for SocketAddr {
    fn of(address: SocketAddrAny) -> Option<SocketAddr> {
        SocketAddr::try_from(address).ok()
    }
}

impl Family for UnixAddr {
    fn of(address: SocketAddrAny) -> Option<UnixAddr> {
        let address = SocketAddrUnix::try_from(address).ok()?;
        match address.abstract_name() {
            Some(name) => UnixAddr::from_abstract_name(name).ok(),
            None => {
                UnixAddr::from_pathname(OsStr::from_bytes(address.path_bytes().unwrap_or_default()))
                    .ok()
            }
        }
    }
}

pub(super) fn local_addr<A: Family>(fd: impl AsFd) -> Result<A> {
    A::of(net::getsockname(fd).map_err(refused)?).ok_or(Error::BAD_ADDRESS)
}

pub(super) fn peer_addr<A: Family>(fd: impl AsFd) -> Result<A> {
    net::getpeername(fd).map_err(refused)?.and_then(A::of).ok_or(Error::BAD_ADDRESS)
}

pub(super) fn debug<A: Family>(
    name: &str,
    fd: &OwnedFd,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut all = f.debug_struct(name);
    all.field("fd", &fd.as_raw_fd());
    for (name, address) in [("local", local_addr::<A>(fd)), ("peer", peer_addr(fd))] {
        if let Ok(address) = address {
            all.field(name, &address);
        }
    }
    all.finish()
}

/// The methods of every socket. The standard library's type has the same name and is a `$what`.
macro_rules! socket {
    ($Socket:ident, $Address:ty, $what:literal) => {
        impl $Socket {
            fn of(fd: std::os::fd::OwnedFd) -> Result<$Socket> {
                Ok($Socket { fd: SharedFd::new(fd, $crate::io::IoKind::Socket)? })
            }

            #[doc = concat!("A ", $what, " of the standard library's.")]
            /// O_NONBLOCK is taken from it. Errors: ENOMEM.
            pub fn from_std(socket: net::$Socket) -> Result<$Socket> {
                $crate::io::net::socket::make_blocking(&socket)?;
                $Socket::of(socket.into())
            }
        }

        impl std::os::fd::AsFd for $Socket {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }

        impl std::fmt::Debug for $Socket {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::io::net::socket::debug::<$Address>(stringify!($Socket), &self.fd.fd, f)
            }
        }
    };
}

/// The methods of every stream, with its type of address.
macro_rules! stream_methods {
    ($Address:ty) => {
        #[cfg(any(feature = "futures-io", feature = "hyper"))]
        pub(crate) fn shared_fd(&self) -> &TryRc<SharedFd> {
            &self.fd
        }

        $crate::io::reading!();

        $crate::io::writing!();

        /// The address of the other end. One system call.
        pub fn peer_addr(&self) -> Result<$Address> {
            $crate::io::net::socket::peer_addr(self)
        }

        /// The address of this end. One system call.
        pub fn local_addr(&self) -> Result<$Address> {
            $crate::io::net::socket::local_addr(self)
        }

        /// Two halves, for two tasks. Costs nothing.
        pub fn into_split(self) -> (super::ReadHalf, super::WriteHalf) {
            (super::ReadHalf { fd: self.fd.clone() }, super::WriteHalf { fd: self.fd })
        }
    };
}

pub(super) use {socket, stream_methods};

/// Connects a socket and returns it. The socket is closed on failure, or when the future is
/// dropped.
pub(super) async fn connect(fd: OwnedFd, address: Address) -> Result<OwnedFd> {
    let fd = TryRc::new(fd)?;
    run(sockets::connect(fd.clone(), address)).await?;
    Ok(fd.into_inner().expect("the operation has let go of it"))
}

pub(crate) fn shutdown(fd: impl AsFd, how: Shutdown) -> Result<()> {
    let how = match how {
        Shutdown::Read => net::Shutdown::Read,
        Shutdown::Write => net::Shutdown::Write,
        Shutdown::Both => net::Shutdown::Both,
    };
    net::shutdown(fd, how).map_err(refused)
}
