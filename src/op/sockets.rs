//! Sockets: a function for each operation, and the method of `Loop` with a callback.
//!
//! The head of `streams` describes the rules for all of them.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use libc::{c_int, c_short};

use super::address::Address;
use super::buffer::{Buffer, BufferMut};
use super::data::{All, Bytes, Message, NoData, Room};
use super::flags;
use super::operation::{Descriptor, Number, Op, OpData};
use crate::abi::handle::Handle;
use crate::abi::opcodes;
use crate::abi::sqe::{Sqe, poll_events};
use crate::error::Result;
use crate::event_loop::Loop;

/// For data whose length is set from the result, `flags` come from `flags::filling`.
pub(crate) fn recv<D: Descriptor, M: OpData>(fd: D, into: M, flags: c_int) -> Op<D, M> {
    Op::new(fd, into, Sqe { opcode: opcodes::RECV, op_flags: flags as u32, ..Sqe::default() })
}

/// Raises no SIGPIPE, on any kernel.
pub(crate) fn send<D: Descriptor, M: OpData>(fd: D, from: M, flags: c_int) -> Op<D, M> {
    let op_flags = (flags | libc::MSG_NOSIGNAL) as u32;
    Op::new(fd, from, Sqe { opcode: opcodes::SEND, op_flags, ..Sqe::default() })
}

/// As `recv`.
pub(crate) fn recvmsg<D: Descriptor, M: OpData>(fd: D, message: M, flags: c_int) -> Op<D, M> {
    Op::new(fd, message, Sqe { opcode: opcodes::RECVMSG, op_flags: flags as u32, ..Sqe::default() })
}

/// As `send`.
pub(crate) fn sendmsg<D: Descriptor, M: OpData>(fd: D, message: M, flags: c_int) -> Op<D, M> {
    let op_flags = (flags | libc::MSG_NOSIGNAL) as u32;
    Op::new(fd, message, Sqe { opcode: opcodes::SENDMSG, op_flags, ..Sqe::default() })
}

/// The result is the connection's descriptor; the address is not requested.
pub(crate) fn accept<D: Descriptor>(fd: D, flags: c_int) -> Op<D, NoData<OwnedFd>> {
    let sqe = Sqe { opcode: opcodes::ACCEPT, op_flags: flags as u32, ..Sqe::default() };
    Op::new(fd, NoData::NEW, sqe)
}

pub(crate) fn connect<D: Descriptor>(fd: D, address: Address) -> Op<D, Address> {
    Op::new(fd, address, Sqe { opcode: opcodes::CONNECT, ..Sqe::default() })
}

/// The kernel expects the family in the place of the descriptor.
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Op<Number, NoData<OwnedFd>> {
    let sqe =
        Sqe { opcode: opcodes::SOCKET, off: kind as u64, len: protocol as u32, ..Sqe::default() };
    Op::new(Number(domain), NoData::NEW, sqe)
}

pub(crate) fn shutdown<D: Descriptor>(fd: D, how: c_int) -> Op<D, NoData<()>> {
    Op::new(fd, NoData::NEW, Sqe { opcode: opcodes::SHUTDOWN, len: how as u32, ..Sqe::default() })
}

/// Completes once, when one of the events has occurred.
pub(super) fn poll<D: Descriptor>(fd: D, events: c_short) -> Op<D, NoData<()>> {
    let (opcode, op_flags) = (opcodes::POLL_ADD, poll_events(events as u32));
    Op::new(fd, NoData::NEW, Sqe { opcode, op_flags, ..Sqe::default() })
}

impl Loop {
    /// recv(2) into a buffer. `f` gets the number of bytes, 0 at the end of a stream, and the
    /// buffer. `flags` are MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB,
    /// MSG_PEEK and MSG_WAITALL. Others are EINVAL: with MSG_TRUNC the result would not be the
    /// length of the data in the buffer, with MSG_SOCK_DEVMEM the data would be elsewhere. Errors:
    /// those of [`read`](Loop::read).
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    ///
    /// let lp = ringloop::Loop::new()?;
    /// let (ours, theirs) = UnixStream::pair().unwrap();
    /// lp.recv(ours, Vec::with_capacity(100), 0, |_, result, buffer| {
    ///     assert_eq!((result, &buffer[..]), (Ok(5), &b"hello"[..]));
    /// })?;
    /// lp.send_all(theirs, "hello", 0, |_, result, _| assert_eq!(result, Ok(5)))?;
    /// lp.run()?;
    /// # Ok::<(), ringloop::Error>(())
    /// ```
    pub fn recv<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        flags: i32,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(recv(fd, Room(buffer), flags::filling(flags)?), f)
    }

    /// send(2) from a buffer. `f` gets the number of bytes sent, which may be less than the length.
    /// No SIGPIPE is raised.
    ///
    /// `flags` are MSG_CONFIRM, MSG_DONTROUTE, MSG_DONTWAIT, MSG_EOR, MSG_FASTOPEN, MSG_MORE,
    /// MSG_NOSIGNAL, MSG_OOB and MSG_WAITALL. Others are EINVAL: with MSG_ZEROCOPY the kernel would
    /// use the buffer after `f` has it back (S13). To send without a copy, [`submit`](Loop::submit)
    /// `IORING_OP_SEND_ZC`. Errors: those of [`read`](Loop::read).
    pub fn send<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        flags: i32,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(send(fd, Bytes(buffer), flags::sending(flags)?), f)
    }

    /// As [`send`](Loop::send), until everything is sent. `f` gets the whole length; less when an
    /// error, a cancel or a deadline ended it after something was sent; an error only when nothing
    /// was sent. From Linux 6.1 the kernel continues by itself; before, each part costs an
    /// iteration.
    ///
    /// A `send_all` that begins before another `send_all` or [`write_all`](Loop::write_all) on the
    /// same descriptor has ended waits for its end, in order. It begins in the iteration after
    /// that, whatever the result of the other: their data does not mix. `send`, `send_to`, `write`
    /// and `shutdown_fd` do not wait, and their data may come between its parts.
    pub fn send_all<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        flags: i32,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(send(fd, All(Bytes(buffer)), flags::sending(flags)?), f)
    }

    /// recvfrom(2): as [`recv`](Loop::recv), and `f` gets the address of the sender, if there is
    /// one.
    pub fn recv_from<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        flags: i32,
        f: impl FnOnce(&Loop, Result<(usize, Address)>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(
            recvmsg(fd, Message::new(Room(buffer), Address::EMPTY), flags::filling(flags)?),
            f,
        )
    }

    /// sendto(2): as [`send`](Loop::send), to an address.
    pub fn send_to<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        flags: i32,
        address: impl Into<Address>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(
            sendmsg(fd, Message::new(Bytes(buffer), address.into()), flags::sending(flags)?),
            f,
        )
    }

    /// accept4(2): `f` gets the connection, close-on-exec. If the loop is closed before `f` has
    /// run, the connection is closed. Errors: those of [`read`](Loop::read).
    pub fn accept(
        &self,
        fd: impl AsFd + 'static,
        f: impl FnOnce(&Loop, Result<OwnedFd>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(accept(fd, libc::SOCK_CLOEXEC), f)
    }

    /// connect(2). Errors: those of [`read`](Loop::read).
    pub fn connect(
        &self,
        fd: impl AsFd + 'static,
        address: impl Into<Address>,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(connect(fd, address.into()), f)
    }

    /// socket(2): `f` gets the socket, close-on-exec. `kind` is a `SOCK_*`. Since Linux 5.19.
    /// Errors: those of [`read`](Loop::read).
    pub fn socket(
        &self,
        domain: i32,
        kind: i32,
        protocol: i32,
        f: impl FnOnce(&Loop, Result<OwnedFd>) + 'static,
    ) -> Result<Handle> {
        self.submit_op(socket(domain, kind | libc::SOCK_CLOEXEC, protocol), f)
    }

    /// shutdown(2). Since Linux 5.11. Errors: those of [`read`](Loop::read).
    pub fn shutdown_fd(
        &self,
        fd: impl AsFd + 'static,
        how: Shutdown,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        self.submit_op(shutdown(fd, how), f)
    }
}
