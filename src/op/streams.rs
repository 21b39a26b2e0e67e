//! Reading and writing what has a descriptor: files, pipes, terminals, sockets.
//!
//! What holds for all typed operations: buffers and descriptors are given to the operation. A buffer comes back with the
//! result; the descriptor (an `OwnedFd`, an `Rc<TcpStream>`, ...) is kept, and dropped just before the callback runs, so that it
//! cannot be closed, and its number be another's, meanwhile. The callback runs once. An error of the operation, ECANCELED and
//! ETIMEDOUT of a deadline among them, is the callback's; those that the function returns are EINVAL (for a length over `i32::MAX`),
//! ENOSYS (for an operation that this kernel does not have), EAGAIN, ENOMEM and ESHUTDOWN as from [`Loop::submit`]: then closure, buffer
//! and descriptor are dropped. What is pending when the loop is closed is dropped too, when the kernel has let go.
//! Operations wait also on a descriptor with O_NONBLOCK, but for splice, and connect of a Unix socket to a listener whose queue is
//! full: these say EAGAIN there, as the system calls do. (Linux before 5.16 says so of reads and writes, before 5.18 of accept, where it
//! lacks the fixes of its stable branch.)

use std::os::fd::AsFd;

use libc::iovec;

use super::entries::{self, CURRENT};
use super::owned::{filled, raw, room};
use super::write_all::WriteAll;
use crate::abi::handle::Handle;
use crate::error::Result;
use crate::event_loop::Loop;
use crate::op::buffer::{Buffer, BufferMut};
use crate::sys::memory::try_box;

impl Loop {
    /// Reads into a buffer, at `offset` of a file; None: at its own position. `f` gets the number of bytes, 0 at the end of the file, and the
    /// buffer. A `Vec` is appended to, within its spare capacity: `Vec::with_capacity(n)`, not `vec![0; n]`; see
    /// [`BufferMut`](crate::BufferMut).
    ///
    /// As in all operations of this kind, buffer and descriptor are the operation's until then. The descriptor may be owned or
    /// shared (an `OwnedFd`, an `Rc<TcpStream>`); it is dropped just before `f` runs. When the loop is closed first, all is dropped
    /// as soon as the kernel has let go.
    ///
    /// Errors: EINVAL when the buffer has no room, or more than `i32::MAX` bytes; ENOSYS when this kernel does not have the
    /// operation; EAGAIN, ENOMEM, ESHUTDOWN as from [`submit`](Loop::submit). Then all that was given is dropped. What fails
    /// later is told to `f`: also ECANCELED, ETIMEDOUT for a [deadline](Loop::set_deadline). Operations wait also on a descriptor with
    /// O_NONBLOCK (but for [`splice`](Loop::splice), and [`connect`](Loop::connect) of a Unix socket to a listener whose queue is full; and Linux
    /// before 5.16, for `accept` before 5.18, says EAGAIN instead where it lacks the fixes of its stable branch). O(1).
    pub fn read<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        let offset = offset.unwrap_or(CURRENT);
        // SAFETY: reading writes so many bytes to the room.
        unsafe { self.fill(fd, buffer, f, |fd, room, length| entries::read(fd, room, length, offset)) }
    }

    /// Writes from a buffer, at `offset` of a file; None: at its own position. `f` gets the number of bytes written, which
    /// may be fewer than there are.
    ///
    /// A pipe or socket whose reader has gone raises SIGPIPE where that is not ignored, as Rust programs ignore it. Errors: those of
    /// [`read`](Loop::read).
    pub fn write<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        let offset = offset.unwrap_or(CURRENT);
        // SAFETY: writing reads the bytes.
        unsafe {
            self.drain_buffer(fd, buffer, f, |fd, bytes, length| Ok((entries::write(fd, bytes, length, offset), None)))
        }
    }

    /// As [`write`](Loop::write), until all is written. `f` gets all of the length; less when an error, a cancel or a deadline
    /// ended it after something was written, and an error only when nothing was. Without an offset, it takes turns with others on
    /// the descriptor as [`send_all`](Loop::send_all) does.
    pub fn write_all<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        let offset = offset.unwrap_or(CURRENT);
        let entry = |fd, bytes, length| -> super::owned::Entry {
            let sqe = entries::write(fd, bytes, length, offset);
            Ok((sqe, Some(try_box(WriteAll::of_file(sqe))?)))
        };
        // SAFETY: writing reads the bytes.
        unsafe { self.drain_buffer(fd, buffer, f, entry) }
    }

    /// Reads into several buffers, one after the other, at most 1024; else as [`read`](Loop::read).
    pub fn readv<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffers: Vec<B>,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, Vec<B>) + 'static,
    ) -> Result<Handle> {
        let vectors = Vec::<iovec>::new();
        // SAFETY: the rooms are the buffers', the array the vector's, and these are kept.
        unsafe {
            self.submit_owned(
                (fd, buffers, vectors),
                f,
                |(fd, buffers, vectors)| {
                    vectors.try_reserve_exact(buffers.len())?;
                    let mut together = 0usize;
                    for buffer in buffers {
                        let (room, length) = room(buffer)?;
                        together = together.saturating_add(length as usize);
                        vectors.push(iovec { iov_base: room.cast(), iov_len: length as usize });
                    }
                    entries::length(together)?;
                    let count = entries::length(vectors.len())?;
                    Ok((entries::readv(raw(fd), vectors.as_ptr(), count, offset.unwrap_or(CURRENT)), None))
                },
                |lp, completion, (fd, mut buffers, vectors), f| {
                    let result = completion.count();
                    let mut left = result.unwrap_or(0);
                    for (buffer, vector) in buffers.iter_mut().zip(&vectors) {
                        let count = left.min(vector.iov_len);
                        filled(buffer, Ok(count));
                        left -= count;
                    }
                    drop(fd);
                    f(lp, result, buffers);
                },
            )
        }
    }

    /// Writes from several buffers, one after the other, at most 1024; else as [`write`](Loop::write).
    pub fn writev<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffers: Vec<B>,
        offset: Option<u64>,
        f: impl FnOnce(&Loop, Result<usize>, Vec<B>) + 'static,
    ) -> Result<Handle> {
        let vectors = Vec::<iovec>::new();
        // SAFETY: the bytes are the buffers', the array the vector's, and these are kept.
        unsafe {
            self.submit_owned(
                (fd, buffers, vectors),
                f,
                |(fd, buffers, vectors)| {
                    vectors.try_reserve_exact(buffers.len())?;
                    let mut together = 0usize;
                    for buffer in buffers {
                        let bytes = buffer.bytes();
                        together = together.saturating_add(bytes.len());
                        vectors.push(iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
                    }
                    entries::length(together)?;
                    let count = entries::length(vectors.len())?;
                    Ok((entries::writev(raw(fd), vectors.as_ptr(), count, offset.unwrap_or(CURRENT)), None))
                },
                |lp, completion, (fd, buffers, _), f| {
                    drop(fd);
                    f(lp, completion.count(), buffers);
                },
            )
        }
    }

    /// Moves up to `length` bytes between a pipe and something else. Each descriptor comes with an offset: None for a pipe, and for a
    /// file's own position. `flags` are `SPLICE_F_*`. `f` gets the number of bytes, 0 at the end; EAGAIN when it would
    /// have to wait for a pipe with O_NONBLOCK. Errors: those of [`read`](Loop::read).
    pub fn splice(
        &self,
        from: (impl AsFd + 'static, Option<u64>),
        to: (impl AsFd + 'static, Option<u64>),
        length: usize,
        flags: u32,
        f: impl FnOnce(&Loop, Result<usize>) + 'static,
    ) -> Result<Handle> {
        let offsets = (from.1.unwrap_or(CURRENT), to.1.unwrap_or(CURRENT));
        // SAFETY: the entry points at nothing.
        unsafe {
            self.submit_owned(
                (from.0, to.0),
                f,
                |(from, to)| {
                    let (from, to) = ((raw(from), offsets.0), (raw(to), offsets.1));
                    Ok((entries::splice(from, to, entries::length(length)?, flags), None))
                },
                |lp, completion, kept, f| {
                    drop(kept);
                    f(lp, completion.count());
                },
            )
        }
    }

    /// Closes a descriptor on a thread of the kernel's, because closing may block (SO_LINGER, a file on a network).
    ///
    /// It is closed whatever comes of it; one that is cancelled before it has begun, at once, and one that cannot be
    /// submitted too. Errors: those of [`read`](Loop::read).
    pub fn close_fd(
        &self,
        fd: impl Into<std::os::fd::OwnedFd>,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        let fd = fd.into();
        // SAFETY: the entry points at nothing.
        let handle = unsafe {
            self.submit_plain((), f, |()| {
                Ok((entries::close(raw(&fd)), Some(try_box(super::closing::Closing(raw(&fd)))?)))
            })
        }?;
        // It is the kernel's to close from now on, or the driver's.
        let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
        Ok(handle)
    }
}
