//! What sockets of all kinds ask of the system.

use std::future::poll_fn;
use std::io;
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::io::{Kept, Socket, TryRc, begin};
use crate::op::address::Address;
use crate::op::entries;

/// What the standard library has done.
pub(super) fn done<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::of_io(&error))
}

/// A stream socket that is not connected.
pub(super) fn stream(domain: i32) -> Result<OwnedFd> {
    // SAFETY: socket takes any numbers.
    let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    let fd = Errno::result(fd).map_err(|errno| Error::of_operation(-(errno as i32)))?;
    // SAFETY: the descriptor is fresh, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has a socket that listens keep as many connections for accept as the system allows (somaxconn): the standard library asks for 128, and
/// those of a burst that have no room are lost, though the other end may take itself for connected.
pub(super) fn listen_to_many(fd: impl AsFd) -> Result<()> {
    // SAFETY: listen takes any numbers.
    let result = unsafe { libc::listen(fd.as_fd().as_raw_fd(), libc::c_int::MAX) };
    Errno::result(result).map(drop).map_err(|errno| Error::of_operation(-(errno as i32)))
}

/// Has operations wait, whatever the kernel: before 5.16 those on a descriptor with O_NONBLOCK may not.
pub(super) fn make_blocking(fd: impl AsFd) -> Result<()> {
    let mut off: libc::c_int = 0;
    // SAFETY: the number is read from a live variable.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONBIO, &raw mut off) };
    Errno::result(result).map(drop).map_err(|errno| Error::of_operation(-(errno as i32)))
}

struct Connecting(Address);

impl Kept for Connecting {}

/// Connects a socket, and gives it back. It is closed when that fails, or the future is dropped.
pub(super) async fn connect(fd: OwnedFd, address: Address) -> Result<OwnedFd> {
    let fd = TryRc::new(fd).map_err(|_| Error::NO_MEMORY)?;
    let raw = fd.as_raw_fd();
    let entry = |_: &crate::Loop, connecting: &mut Connecting| {
        let (address, length) = connecting.0.as_raw();
        Ok(entries::connect(raw, address, length))
    };
    // SAFETY: the address is kept, and the descriptor is the keeper's.
    let mut flight = unsafe { begin(Connecting(address), &fd, entry) }.map_err(|(error, _)| error)?;
    poll_fn(|context| flight.poll(context)).await.0?;
    Ok(fd.into_inner().expect("the loop's side has let go of it"))
}

pub(crate) fn shutdown(socket: &Socket, how: Shutdown) -> Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: shutdown takes any numbers.
    let result = unsafe { libc::shutdown(socket.fd.as_raw_fd(), how) };
    Errno::result(result).map(drop).map_err(|errno| Error::of_operation(-(errno as i32)))
}

/// A socket of the standard library's that stands for this descriptor, to ask for what it knows; its Drop does not close it.
pub(super) fn lend<S: FromRawFd>(fd: &OwnedFd) -> ManuallyDrop<S> {
    // SAFETY: it is borrowed from one that is open, for as long as the caller has that, and is not dropped.
    ManuallyDrop::new(unsafe { S::from_raw_fd(fd.as_raw_fd()) })
}
