//! Reading and writing what has a descriptor: files, pipes, terminals, sockets. One function for
//! each operation, and the method that calls back for it.
//!
//! What holds for all typed operations: buffers and descriptors are given to the operation. A
//! buffer comes back with the result; the descriptor (an `OwnedFd`, an `Rc<TcpStream>`, ...) is
//! kept, and dropped just before the callback runs, so that it cannot be closed, and its number be
//! another's, meanwhile. The callback runs once. An error of the operation, ECANCELED and ETIMEDOUT
//! of a deadline among them, is the callback's; those that the function returns are EINVAL (for a
//! length over `i32::MAX`), ENOSYS (for an operation that this kernel does not have), EAGAIN,
//! ENOMEM and ESHUTDOWN as from [`Loop::submit`]: then closure, buffer and descriptor are dropped.
//! What is pending when the loop is closed is dropped too, when the kernel has let go. Operations
//! wait also on a descriptor with O_NONBLOCK, but for splice, and connect of a Unix socket to a
//! listener whose queue is full: these say EAGAIN there, as the system calls do. (Linux before 5.16
//! says so of reads and writes, before 5.18 of accept, where it lacks the fixes of its stable
//! branch.)

use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use super::buffer::{Buffer, BufferMut, length};
use super::data::{All, At, Bytes, Closing, Parts, Room, Rooms, SpliceFrom};
use super::operation::{Descriptor, Number, Op, OpData};
use crate::abi::handle::Handle;
use crate::abi::opcodes;
use crate::abi::sqe::{Sqe, flags};
use crate::error::Result;
use crate::event_loop::Loop;

/// The offset of what is at the file's own position, or has none.
pub(crate) const CURRENT: u64 = u64::MAX;

pub(crate) fn read<D: Descriptor, M: OpData>(fd: D, into: M, offset: u64) -> Op<D, M> {
    Op::new(fd, into, Sqe { opcode: opcodes::READ, off: offset, ..Sqe::default() })
}

pub(crate) fn write<D: Descriptor, M: OpData>(fd: D, from: M, offset: u64) -> Op<D, M> {
    Op::new(fd, from, Sqe { opcode: opcodes::WRITE, off: offset, ..Sqe::default() })
}

pub(crate) fn readv<D: Descriptor, M: OpData>(fd: D, into: M, offset: u64) -> Op<D, M> {
    Op::new(fd, into, Sqe { opcode: opcodes::READV, off: offset, ..Sqe::default() })
}

pub(crate) fn writev<D: Descriptor, M: OpData>(fd: D, from: M, offset: u64) -> Op<D, M> {
    Op::new(fd, from, Sqe { opcode: opcodes::WRITEV, off: offset, ..Sqe::default() })
}

/// Between descriptors with an offset each.
pub(crate) fn splice<D: Descriptor, E: Descriptor>(
    from: (D, u64),
    to: (E, u64),
    len: u32,
    flags: u32,
) -> Op<E, At<SpliceFrom<D>, usize>> {
    let (opcode, op_flags) = (opcodes::SPLICE, flags);
    let sqe = Sqe { opcode, off: to.1, addr: from.1, len, op_flags, ..Sqe::default() };
    Op::new(to.0, At::new(SpliceFrom(from.0)), sqe)
}

/// Always on a thread of the kernel's: with SO_LINGER, closing blocks.
pub(crate) fn close<M: OpData>(fd: Number, data: M) -> Op<Number, M> {
    Op::new(fd, data, Sqe { opcode: opcodes::CLOSE, flags: flags::ASYNC, ..Sqe::default() })
}

impl Loop {
    /// Reads into a buffer, at `offset` of a file; None: at its own position. `f` gets the number
    /// of bytes, 0 at the end of the file, and the buffer. A `Vec` is appended to, within its spare
    /// capacity: `Vec::with_capacity(n)`, not `vec![0; n]`; see [`BufferMut`](crate::BufferMut).
    ///
    /// As in all operations of this kind, buffer and descriptor are the operation's until then. The
    /// descriptor may be owned or shared (an `OwnedFd`, an `Rc<TcpStream>`); it is dropped just
    /// before `f` runs. When the loop is closed first, all is dropped as soon as the kernel has let
    /// go.
    ///
    /// Errors: EINVAL when the buffer has no room, or more than `i32::MAX` bytes; ENOSYS when this
    /// kernel does not have the operation; EAGAIN, ENOMEM, ESHUTDOWN as from
    /// [`submit`](Loop::submit). Then all that was given is dropped. What fails later is told to
    /// `f`: also ECANCELED, ETIMEDOUT for a [deadline](Loop::set_deadline). Operations wait also on
    /// a descriptor with O_NONBLOCK (but for [`splice`](Loop::splice), and
    /// [`connect`](Loop::connect) of a Unix socket to a listener whose queue is full; and Linux
    /// before 5.16, for `accept` before 5.18, says EAGAIN instead where it lacks the fixes of its
    /// stable branch). O(1).
    pub fn read<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(read(fd, Room(buffer), offset.unwrap_or(CURRENT)), f)
    }

    /// Writes from a buffer, at `offset` of a file; None: at its own position. `f` gets the number
    /// of bytes written, which may be fewer than there are.
    ///
    /// A pipe or socket whose reader has gone raises SIGPIPE where that is not ignored, as Rust
    /// programs ignore it. Errors: those of [`read`](Loop::read).
    pub fn write<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(write(fd, Bytes(buffer), offset.unwrap_or(CURRENT)), f)
    }

    /// As [`write`](Loop::write), until all is written. `f` gets all of the length; less when an
    /// error, a cancel or a deadline ended it after something was written, and an error only when
    /// nothing was. Without an offset, it takes turns with others on the descriptor as
    /// [`send_all`](Loop::send_all) does.
    pub fn write_all<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(write(fd, All(Bytes(buffer)), offset.unwrap_or(CURRENT)), f)
    }

    /// Reads into several buffers, one after the other, at most 1024; else as [`read`](Loop::read).
    pub fn readv<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffers: Vec<B>,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, Vec<B>) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(readv(fd, Rooms::new(buffers), offset.unwrap_or(CURRENT)), f)
    }

    /// Writes from several buffers, one after the other, at most 1024; else as
    /// [`write`](Loop::write).
    pub fn writev<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffers: Vec<B>,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, Vec<B>) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(writev(fd, Parts::new(buffers), offset.unwrap_or(CURRENT)), f)
    }

    /// Moves up to `length` bytes between a pipe and something else. Each descriptor comes with an
    /// offset: None for a pipe, and for a file's own position. `flags` are `SPLICE_F_*`. `f` gets
    /// the number of bytes, 0 at the end; EAGAIN when it would have to wait for a pipe with
    /// O_NONBLOCK. Errors: those of [`read`](Loop::read).
    pub fn splice(
        &self,
        from: (impl AsFd + 'static, Option<u64>),
        to: (impl AsFd + 'static, Option<u64>),
        length: usize,
        flags: u32,
        f: impl FnOnce(&Loop, Result<usize>) + 'static,
    ) -> Result<Handle> {
        let (from, to) = ((from.0, from.1.unwrap_or(CURRENT)), (to.0, to.1.unwrap_or(CURRENT)));
        self.submit_op(splice(from, to, self::length(length)?, flags), f)
    }

    /// Closes a descriptor on a thread of the kernel's, because closing may block (SO_LINGER, a
    /// file on a network).
    ///
    /// It is closed whatever comes of it; one that is cancelled before it has begun, at once, and
    /// one that cannot be submitted too. Errors: those of [`read`](Loop::read).
    pub fn close_fd(
        &self,
        fd: impl Into<OwnedFd>,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        let handle = self.submit_op(close(Number(number), Closing(number)), f)?;
        // It is the kernel's to close from now on, or the driver's.
        let _ = fd.into_raw_fd();
        Ok(handle)
    }
}
