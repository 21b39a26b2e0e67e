//! The entries of the typed operations, field by field as io_uring_enter(2) has them.

use std::os::fd::RawFd;

use io_uring::opcode;
use libc::c_int;

use crate::error::{Error, Result};
use crate::sqe::{Sqe, flags};

/// A length that the result, an `i32`, can tell.
pub(crate) fn length(length: usize) -> Result<u32> {
    if i32::try_from(length).is_ok() { Ok(length as u32) } else { Err(Error::TOO_LONG) }
}

pub(crate) fn read(fd: RawFd, buffer: *mut u8, length: u32, offset: u64) -> Sqe {
    Sqe { opcode: opcode::Read::CODE, fd, addr: buffer as u64, len: length, off: offset, ..Sqe::default() }
}

pub(crate) fn write(fd: RawFd, buffer: *const u8, length: u32, offset: u64) -> Sqe {
    Sqe { opcode: opcode::Write::CODE, fd, addr: buffer as u64, len: length, off: offset, ..Sqe::default() }
}

pub(crate) fn recv(fd: RawFd, buffer: *mut u8, length: u32, flags: c_int) -> Sqe {
    Sqe { opcode: opcode::Recv::CODE, fd, addr: buffer as u64, len: length, op_flags: flags as u32, ..Sqe::default() }
}

pub(crate) fn send(fd: RawFd, buffer: *const u8, length: u32, flags: c_int) -> Sqe {
    Sqe { opcode: opcode::Send::CODE, fd, addr: buffer as u64, len: length, op_flags: flags as u32, ..Sqe::default() }
}

/// The connection's descriptor is the result; its address is not asked for.
pub(crate) fn accept(fd: RawFd, flags: c_int) -> Sqe {
    Sqe { opcode: opcode::Accept::CODE, fd, op_flags: flags as u32, ..Sqe::default() }
}

pub(crate) fn connect(fd: RawFd, address: *const u8, length: u32) -> Sqe {
    Sqe { opcode: opcode::Connect::CODE, fd, addr: address as u64, off: length.into(), ..Sqe::default() }
}

/// Always on a thread of the kernel's: with SO_LINGER, closing blocks.
pub(crate) fn close(fd: RawFd) -> Sqe {
    Sqe { opcode: opcode::Close::CODE, fd, flags: flags::ASYNC, ..Sqe::default() }
}
