//! The entries of the typed operations, field by field as io_uring_enter(2) has them.

use std::os::fd::RawFd;

use libc::{c_int, c_short, iovec, mode_t, msghdr};

use crate::abi::opcodes;
use crate::abi::sqe::{Sqe, flags, poll_events};
use crate::error::{Error, Result};

/// The offset of what is at the file's own position, or has none.
pub(crate) const CURRENT: u64 = u64::MAX;

/// Of `fsync`: what is needed to read the data, and no more.
pub(crate) const DATA_ONLY: u32 = 1;

/// A length that the result, an `i32`, can tell.
pub(crate) fn length(length: usize) -> Result<u32> {
    if i32::try_from(length).is_ok() { Ok(length as u32) } else { Err(Error::TOO_LONG) }
}

pub(crate) fn read(fd: RawFd, buffer: *mut u8, length: u32, offset: u64) -> Sqe {
    Sqe { opcode: opcodes::READ, fd, addr: buffer as u64, len: length, off: offset, ..Sqe::default() }
}

pub(crate) fn write(fd: RawFd, buffer: *const u8, length: u32, offset: u64) -> Sqe {
    Sqe { opcode: opcodes::WRITE, fd, addr: buffer as u64, len: length, off: offset, ..Sqe::default() }
}

pub(crate) fn readv(fd: RawFd, vectors: *const iovec, count: u32, offset: u64) -> Sqe {
    Sqe { opcode: opcodes::READV, fd, addr: vectors as u64, len: count, off: offset, ..Sqe::default() }
}

pub(crate) fn writev(fd: RawFd, vectors: *const iovec, count: u32, offset: u64) -> Sqe {
    Sqe { opcode: opcodes::WRITEV, fd, addr: vectors as u64, len: count, off: offset, ..Sqe::default() }
}

pub(crate) fn recv(fd: RawFd, buffer: *mut u8, length: u32, flags: c_int) -> Sqe {
    Sqe { opcode: opcodes::RECV, fd, addr: buffer as u64, len: length, op_flags: flags as u32, ..Sqe::default() }
}

/// Raises no SIGPIPE, whatever the kernel.
pub(crate) fn send(fd: RawFd, buffer: *const u8, length: u32, flags: c_int) -> Sqe {
    let op_flags = (flags | libc::MSG_NOSIGNAL) as u32;
    Sqe { opcode: opcodes::SEND, fd, addr: buffer as u64, len: length, op_flags, ..Sqe::default() }
}

pub(crate) fn recvmsg(fd: RawFd, message: *mut msghdr, flags: c_int) -> Sqe {
    Sqe { opcode: opcodes::RECVMSG, fd, addr: message as u64, len: 1, op_flags: flags as u32, ..Sqe::default() }
}

/// As `send`.
pub(crate) fn sendmsg(fd: RawFd, message: *const msghdr, flags: c_int) -> Sqe {
    let op_flags = (flags | libc::MSG_NOSIGNAL) as u32;
    Sqe { opcode: opcodes::SENDMSG, fd, addr: message as u64, len: 1, op_flags, ..Sqe::default() }
}

/// The connection's descriptor is the result; its address is not asked for.
pub(crate) fn accept(fd: RawFd, flags: c_int) -> Sqe {
    Sqe { opcode: opcodes::ACCEPT, fd, op_flags: flags as u32, ..Sqe::default() }
}

/// Completes once, when one of the events has come.
pub(crate) fn poll(fd: RawFd, events: c_short) -> Sqe {
    Sqe { opcode: opcodes::POLL_ADD, fd, op_flags: poll_events(events as u32), ..Sqe::default() }
}

pub(crate) fn connect(fd: RawFd, address: *const u8, length: u32) -> Sqe {
    Sqe { opcode: opcodes::CONNECT, fd, addr: address as u64, off: length.into(), ..Sqe::default() }
}

/// Always on a thread of the kernel's: with SO_LINGER, closing blocks.
pub(crate) fn close(fd: RawFd) -> Sqe {
    Sqe { opcode: opcodes::CLOSE, fd, flags: flags::ASYNC, ..Sqe::default() }
}

pub(crate) fn shutdown(fd: RawFd, how: c_int) -> Sqe {
    Sqe { opcode: opcodes::SHUTDOWN, fd, len: how as u32, ..Sqe::default() }
}

/// The kernel has the family where other entries have a descriptor.
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Sqe {
    Sqe { opcode: opcodes::SOCKET, fd: domain, off: kind as u64, len: protocol as u32, ..Sqe::default() }
}

pub(crate) fn openat(dir: RawFd, path: *const u8, flags: c_int, mode: mode_t) -> Sqe {
    let op_flags = flags as u32;
    Sqe { opcode: opcodes::OPENAT, fd: dir, addr: path as u64, len: mode, op_flags, ..Sqe::default() }
}

pub(crate) fn fsync(fd: RawFd, flags: u32) -> Sqe {
    Sqe { opcode: opcodes::FSYNC, fd, op_flags: flags, ..Sqe::default() }
}

pub(crate) fn statx(dir: RawFd, path: *const u8, flags: c_int, mask: u32, out: *mut libc::statx) -> Sqe {
    let op_flags = flags as u32;
    let opcode = opcodes::STATX;
    Sqe { opcode, fd: dir, addr: path as u64, len: mask, off: out as u64, op_flags, ..Sqe::default() }
}

/// What has a path and another, each from a directory.
fn two_paths(opcode: u8, from: (RawFd, *const u8), to: (RawFd, *const u8), flags: u32) -> Sqe {
    let (addr, off, len) = (from.1 as u64, to.1 as u64, to.0 as u32);
    Sqe { opcode, fd: from.0, addr, off, len, op_flags: flags, ..Sqe::default() }
}

pub(crate) fn renameat(from: (RawFd, *const u8), to: (RawFd, *const u8), flags: u32) -> Sqe {
    two_paths(opcodes::RENAMEAT, from, to, flags)
}

pub(crate) fn linkat(from: (RawFd, *const u8), to: (RawFd, *const u8), flags: c_int) -> Sqe {
    two_paths(opcodes::LINKAT, from, to, flags as u32)
}

pub(crate) fn unlinkat(dir: RawFd, path: *const u8, flags: c_int) -> Sqe {
    Sqe { opcode: opcodes::UNLINKAT, fd: dir, addr: path as u64, op_flags: flags as u32, ..Sqe::default() }
}

pub(crate) fn mkdirat(dir: RawFd, path: *const u8, mode: mode_t) -> Sqe {
    Sqe { opcode: opcodes::MKDIRAT, fd: dir, addr: path as u64, len: mode, ..Sqe::default() }
}

pub(crate) fn symlinkat(target: *const u8, dir: RawFd, path: *const u8) -> Sqe {
    Sqe { opcode: opcodes::SYMLINKAT, fd: dir, addr: target as u64, off: path as u64, ..Sqe::default() }
}

pub(crate) fn ftruncate(fd: RawFd, size: u64) -> Sqe {
    Sqe { opcode: opcodes::FTRUNCATE, fd, off: size, ..Sqe::default() }
}

pub(crate) fn fallocate(fd: RawFd, mode: c_int, offset: u64, length: u64) -> Sqe {
    Sqe { opcode: opcodes::FALLOCATE, fd, off: offset, addr: length, len: mode as u32, ..Sqe::default() }
}

/// Descriptors with an offset each.
pub(crate) fn splice(from: (RawFd, u64), to: (RawFd, u64), length: u32, flags: u32) -> Sqe {
    Sqe {
        opcode: opcodes::SPLICE,
        fd: to.0,
        off: to.1,
        addr: from.1,
        len: length,
        op_flags: flags,
        file_index: from.0 as u32,
        ..Sqe::default()
    }
}
