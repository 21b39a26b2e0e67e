//! Sockets.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use libc::{iovec, msghdr};

use super::owned::{Entry, filled, raw, room};
use super::write_all::WriteAll;
use super::{entries, flags};
use crate::abi::handle::Handle;
use crate::error::Result;
use crate::event_loop::Loop;
use crate::op::address::Address;
use crate::op::buffer::{Buffer, BufferMut};
use crate::sys::memory::try_box;

impl Loop {
    /// recv(2) into a buffer. `f` gets the number of bytes, 0 at the end of a stream, and the buffer. `flags` are
    /// of MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK and MSG_WAITALL; others are EINVAL: with MSG_TRUNC the
    /// result would not tell what is in the buffer, with MSG_SOCK_DEVMEM the data would be elsewhere. Errors: those of [`read`](Loop::read).
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
        let flags = flags::filling(flags)?;
        // SAFETY: without MSG_TRUNC, so many bytes are written to the room.
        unsafe { self.fill(fd, buffer, f, |fd, room, length| entries::recv(fd, room, length, flags)) }
    }

    /// send(2) from a buffer. `f` gets the number of bytes sent, which may be fewer than there are. No SIGPIPE is raised.
    ///
    /// `flags` are of MSG_CONFIRM, MSG_DONTROUTE, MSG_DONTWAIT, MSG_EOR, MSG_FASTOPEN, MSG_MORE, MSG_NOSIGNAL, MSG_OOB and MSG_WAITALL; others are
    /// EINVAL. With MSG_ZEROCOPY the kernel would use the buffer after `f` has it back (S13): to send without a copy,
    /// [`submit`](Loop::submit) `IORING_OP_SEND_ZC`. Errors: those of [`read`](Loop::read).
    pub fn send<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        flags: i32,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        let flags = flags::sending(flags)?;
        // SAFETY: sending reads the bytes.
        unsafe {
            self.drain_buffer(fd, buffer, f, |fd, bytes, length| Ok((entries::send(fd, bytes, length, flags), None)))
        }
    }

    /// As [`send`](Loop::send), until all is sent. `f` gets all of the length; less when an error, a cancel or a deadline ended
    /// it after something was sent, and an error only when nothing was. From Linux 6.1 the kernel goes on by itself; before, each
    /// part costs an iteration.
    ///
    /// One that begins before another `send_all` or [`write_all`](Loop::write_all) on the same descriptor has ended waits for that, in order,
    /// and goes on in the iteration after, whatever came of the other: their data does not mix. `send`, `send_to`, `write` and
    /// `shutdown_fd` wait for nobody, and what they send may stand amid it.
    pub fn send_all<B: Buffer>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        flags: i32,
        f: impl FnOnce(&Loop, Result<usize>, B) + 'static,
    ) -> Result<Handle> {
        let flags = flags::sending(flags)? | self.send_whole_flag();
        let entry = |fd, bytes, length| -> Entry {
            let sqe = entries::send(fd, bytes, length, flags);
            Ok((sqe, Some(try_box(WriteAll::of_socket(sqe))?)))
        };
        // SAFETY: sending reads the bytes.
        unsafe { self.drain_buffer(fd, buffer, f, entry) }
    }

    /// recvfrom(2): as [`recv`](Loop::recv), and `f` gets the address of the sender, where there is one.
    pub fn recv_from<B: BufferMut>(
        &self,
        fd: impl AsFd + 'static,
        buffer: B,
        flags: i32,
        f: impl FnOnce(&Loop, Result<(usize, Address)>, B) + 'static,
    ) -> Result<Handle> {
        let flags = flags::filling(flags)?;
        let kept = (fd, buffer, Message::new(Address::EMPTY));
        // SAFETY: the room is the buffer's, the rest the message's, and these are kept.
        unsafe {
            self.submit_owned(
                kept,
                f,
                |(fd, buffer, message)| {
                    let (room, length) = room(buffer)?;
                    Ok((entries::recvmsg(raw(fd), message.header_for(room, length), flags), None))
                },
                |lp, completion, (fd, mut buffer, message), f| {
                    let result = completion.count();
                    filled(&mut buffer, result);
                    drop(fd);
                    f(lp, result.map(|count| (count, message.address())), buffer);
                },
            )
        }
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
        let flags = flags::sending(flags)?;
        let kept = (fd, buffer, Message::new(address.into()));
        // SAFETY: the bytes are the buffer's, the rest the message's, and these are kept.
        unsafe {
            self.submit_owned(
                kept,
                f,
                |(fd, buffer, message)| {
                    let bytes = buffer.bytes();
                    let (bytes, length) = (bytes.as_ptr().cast_mut(), entries::length(bytes.len())?);
                    Ok((entries::sendmsg(raw(fd), message.header_for(bytes, length), flags), None))
                },
                |lp, completion, (fd, buffer, _), f| {
                    drop(fd);
                    f(lp, completion.count(), buffer);
                },
            )
        }
    }

    /// accept4(2): `f` gets the connection, close-on-exec. One that `f` has not seen when the loop is closed is closed. Errors:
    /// those of [`read`](Loop::read).
    pub fn accept(&self, fd: impl AsFd + 'static, f: impl FnOnce(&Loop, Result<OwnedFd>) + 'static) -> Result<Handle> {
        // SAFETY: the entry points at nothing, and gives a descriptor.
        unsafe { self.submit_opening(fd, f, |fd| Ok((entries::accept(raw(fd), libc::SOCK_CLOEXEC), None))) }
    }

    /// connect(2). Errors: those of [`read`](Loop::read).
    pub fn connect(
        &self,
        fd: impl AsFd + 'static,
        address: impl Into<Address>,
        f: impl FnOnce(&Loop, Result<()>) + 'static,
    ) -> Result<Handle> {
        // SAFETY: the address is kept.
        unsafe {
            self.submit_plain((fd, address.into()), f, |(fd, address)| {
                let (address, length) = address.as_raw();
                Ok((entries::connect(raw(fd), address, length), None))
            })
        }
    }

    /// socket(2): `f` gets the socket, close-on-exec. `kind` is a `SOCK_*`. Since Linux 5.19. Errors: those of
    /// [`read`](Loop::read).
    pub fn socket(
        &self,
        domain: i32,
        kind: i32,
        protocol: i32,
        f: impl FnOnce(&Loop, Result<OwnedFd>) + 'static,
    ) -> Result<Handle> {
        let kind = kind | libc::SOCK_CLOEXEC;
        // SAFETY: the entry points at nothing, and gives a descriptor.
        unsafe { self.submit_opening((), f, |()| Ok((entries::socket(domain, kind, protocol), None))) }
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
        // SAFETY: the entry points at nothing.
        unsafe { self.submit_plain(fd, f, |fd| Ok((entries::shutdown(raw(fd), how), None))) }
    }
}

/// A message of one buffer, with an address.
pub(crate) struct Message {
    header: msghdr,
    vector: iovec,
    address: Address,
}

impl Message {
    pub(crate) fn new(address: Address) -> Message {
        // SAFETY: zeros are null pointers and numbers.
        let header = unsafe { std::mem::zeroed() };
        Message { header, vector: iovec { iov_base: ptr::null_mut(), iov_len: 0 }, address }
    }

    /// The header, which holds from now on for as long as the message is not moved.
    pub(crate) fn header_for(&mut self, buffer: *mut u8, length: u32) -> *mut msghdr {
        self.vector = iovec { iov_base: buffer.cast(), iov_len: length as usize };
        let (address, length) = self.address.as_raw();
        self.header.msg_name = address.cast();
        self.header.msg_namelen = length;
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        &raw mut self.header
    }

    /// The address, as the kernel has told it.
    pub(crate) fn address(&self) -> Address {
        let mut address = self.address;
        address.set_length(self.header.msg_namelen);
        address
    }
}
