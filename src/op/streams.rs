//! Reads and writes on descriptors: files, pipes, terminals, sockets. A function for each
//! operation, and the method of `Loop` with a callback.
//!
//! Rules for all typed operations: The operation owns its buffer and its descriptor. The buffer
//! comes back with the result. The descriptor (an `OwnedFd`, an `Rc<TcpStream>`, ...) is dropped
//! just before the callback, so that its number cannot be closed and reused meanwhile. The callback
//! runs once, and gets the error of the operation, also ECANCELED, and ETIMEDOUT of a deadline. The
//! function itself fails with EINVAL (a length over `i32::MAX`), ENOSYS (an operation that this
//! kernel does not have), EAGAIN, ENOMEM and ESHUTDOWN as [`Loop::submit`], and drops closure,
//! buffer and descriptor. Closing the loop drops pending ones once the kernel has released them.
//! Operations wait also on a descriptor with O_NONBLOCK, except for splice, and for connect of a
//! Unix socket to a listener with a full queue, which return EAGAIN as the system calls do. (So do
//! reads and writes before Linux 5.16, and accept before 5.18, without the fixes of the stable
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

/// The offset that means the file's own position, or no offset.
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

/// Between two descriptors, each with an offset.
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

/// Always on a thread of the kernel, because closing blocks with SO_LINGER.
pub(crate) fn close<M: OpData>(fd: Number, data: M) -> Op<Number, M> {
    Op::new(fd, data, Sqe { opcode: opcodes::CLOSE, flags: flags::ASYNC, ..Sqe::default() })
}

impl Loop {
    /// Reads into a buffer, at `offset` of a file; None: at the file's position. `f` gets the
    /// number of bytes, 0 at the end of the file, and the buffer. A `Vec` is appended to, within
    /// its spare capacity: use `Vec::with_capacity(n)`, not `vec![0; n]`; see
    /// [`BufferMut`](crate::BufferMut).
    ///
    /// As in all operations of this kind, the operation owns buffer and descriptor until then. The
    /// descriptor may be owned or shared (an `OwnedFd`, an `Rc<TcpStream>`); it is dropped just
    /// before `f` runs. When the loop is closed before, everything is dropped once the kernel has
    /// released it.
    ///
    /// Errors: EINVAL when the buffer has no space, or more than `i32::MAX` bytes; ENOSYS when this
    /// kernel does not have the operation; EAGAIN, ENOMEM, ESHUTDOWN as from
    /// [`submit`](Loop::submit). The arguments are dropped then. `f` gets later errors, also
    /// ECANCELED, and ETIMEDOUT for a [deadline](Loop::set_deadline). Operations wait also on a
    /// descriptor with O_NONBLOCK, except for [`splice`](Loop::splice), and for
    /// [`connect`](Loop::connect) of a Unix socket to a listener with a full queue. Linux before
    /// 5.16, for `accept` before 5.18, returns EAGAIN instead of waiting without the fixes of its
    /// stable branch. O(1).
    pub fn read<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(read(fd, Room(buffer), offset.unwrap_or(CURRENT)), f)
    }

    /// Writes from a buffer, at `offset` of a file; None: at the file's position. `f` gets the
    /// number of bytes written, which may be less than the length.
    ///
    /// A pipe or socket without a reader raises SIGPIPE unless the signal is ignored, as in Rust
    /// programs. Errors: those of [`read`](Loop::read).
    pub fn write<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(write(fd, Bytes(buffer), offset.unwrap_or(CURRENT)), f)
    }

    /// As [`write`](Loop::write), until everything is written. `f` gets the whole length; less when
    /// an error, a cancel or a deadline ended it after something was written; an error only when
    /// nothing was written. Without an offset, it takes turns with others on the descriptor as
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

    /// Reads into several buffers, in order, at most 1024; otherwise as [`read`](Loop::read).
    pub fn readv<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffers: Vec<B>,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, Vec<B>) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(readv(fd, Rooms::new(buffers), offset.unwrap_or(CURRENT)), f)
    }

    /// Writes from several buffers, in order, at most 1024; otherwise as [`write`](Loop::write).
    pub fn writev<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffers: Vec<B>,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, Vec<B>) + 'static,
    ) -> Result<Handle> {
        self.submit_buffer_op(writev(fd, Parts::new(buffers), offset.unwrap_or(CURRENT)), f)
    }

    /// Moves up to `length` bytes between a pipe and another descriptor. Each descriptor has an
    /// offset: None for a pipe, and for the file's own position. `flags` are `SPLICE_F_*`. `f` gets
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

    /// Closes a descriptor on a thread of the kernel, because closing may block (SO_LINGER, a
    /// network file system).
    ///
    /// The descriptor is closed whatever the result, also when the operation is cancelled before it
    /// has begun, or cannot be submitted. Errors: those of [`read`](Loop::read).
    /// one that cannot be submitted too. Errors: those of [`read`](Loop::read).
    pub fn close_fd(
        &self,
        fd: impl Into<OwnedFd>,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        let handle = self.submit_op(close(Number(number), Closing(number)), f)?;
        // The kernel or the driver closes the descriptor from now on.
        let _ = fd.into_raw_fd();
        Ok(handle)
    }
}
