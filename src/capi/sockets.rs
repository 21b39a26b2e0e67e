//! Sockets.
//!
//! The functions of sockets submit operations, as loop_submit() does; what is said of loop_read() about failing, O_NONBLOCK
//! and closing holds for them.
//!
//! Errors: those of loop_read(). The loop's thread.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};

use libc::{msghdr, sockaddr, socklen_t};

use super::completions::loop_io_callback_t;
use super::loop_t;
use super::operations::{self, Made, Message, Span, submit};
use super::types::loop_handle_t;
use crate::abi::completion::Completed;
use crate::op::data::All;
use crate::op::flags;
use crate::op::operation::{Number, Op};
use crate::op::sockets::{accept, connect, recv, recvmsg, send, sendmsg, shutdown, socket};
use crate::pending::driver::{Driver, Step};
use crate::sys::descriptors::close_unseen;
use crate::sys::memory::try_box;
use crate::sys::try_arc::TryRc;

/// Receives up to `length` bytes from a socket, as recv(2): the result is their number, 0 at the end of a stream.
/// `flags` may have MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC and MSG_WAITALL;
/// others are -EINVAL: with MSG_SOCK_DEVMEM the data would not be in the buffer. The buffer belongs to the kernel until the final
/// callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_recv(
    r#loop: *mut loop_t,
    fd: c_int,
    buffer: *mut c_void,
    length: usize,
    flags: c_int,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the header asks for a buffer that lives until the final callback.
    unsafe {
        submit(r#loop, callback, arg, || Ok(recv(Number(fd), Span::new(buffer, length)?, flags::receiving(flags)?)))
    }
}

/// Sends up to `length` bytes on a socket, as send(2): the result is the number of bytes sent, which may be fewer;
/// loop_send_all() goes on. No SIGPIPE is raised. The buffer belongs to the kernel until the final callback.
///
/// `flags` may have MSG_CONFIRM, MSG_DONTROUTE, MSG_DONTWAIT, MSG_EOR, MSG_FASTOPEN, MSG_MORE, MSG_NOSIGNAL, MSG_OOB and MSG_WAITALL;
/// others are -EINVAL. With MSG_ZEROCOPY the kernel would use the buffer after the final callback (S13): to send without a copy,
/// submit IORING_OP_SEND_ZC by loop_submit(). Its final callback, the one without LOOP_MORE, says that the kernel has let go.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_send(
    r#loop: *mut loop_t,
    fd: c_int,
    buffer: *const c_void,
    length: usize,
    flags: c_int,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the header asks for a buffer that lives until the final callback.
    unsafe {
        submit(r#loop, callback, arg, || Ok(send(Number(fd), Span::new(buffer, length)?, flags::sending(flags)?)))
    }
}

/// Sends as loop_send() does, until all of it is sent. The result is `length`; fewer when an error, a cancel or a
/// deadline ended it after some were sent, as with write(2), with LOOP_TIMED_OUT if it was the deadline; -errno only
/// when none were. From Linux 6.1 the kernel goes on by itself; before, each part costs an iteration.
///
/// One that is submitted before another loop_send_all() or loop_write_all() on the same descriptor has ended waits for that, in order,
/// and begins in the iteration after, whatever came of the other: their data does not mix. loop_send(), loop_sendmsg(), loop_write()
/// and loop_shutdown_fd() wait for nobody, and what they send may stand amid it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_send_all(
    r#loop: *mut loop_t,
    fd: c_int,
    buffer: *const c_void,
    length: usize,
    flags: c_int,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the header asks for a buffer that lives until the final callback.
    unsafe {
        submit(r#loop, callback, arg, || Ok(send(Number(fd), All(Span::new(buffer, length)?), flags::sending(flags)?)))
    }
}

/// Receives a message, as recvmsg(2): the result is a number of bytes. The array of buffers (msg_iov) is copied; the
/// buffers, msg_name and msg_control belong to the kernel until the final callback. `message` itself must live until
/// then as well: just before, msg_namelen, msg_controllen and msg_flags are written to it, when the result is no error. `flags`
/// are those of loop_recv(). Descriptors that come with a message (SCM_RIGHTS, SCM_PIDFD) and that no callback has seen when the
/// loop is closed are closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_recvmsg(
    r#loop: *mut loop_t,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the header asks for a message that lives, with all that it names, until the final callback; the driver keeps the copy.
    unsafe {
        submit(r#loop, callback, arg, || {
            let op = recvmsg(Number(fd), Message::new(message)?, flags::receiving(flags)?);
            let op = TryRc::new(RefCell::new(op))?;
            let sqe = op.borrow_mut().entry()?;
            Ok::<Made, _>((sqe, Some(try_box(ReceivedMessage { op, message })?)))
        })
    }
}

/// Sends a message, as sendmsg(2): the result is the number of bytes sent. `message` and its array of buffers (msg_iov)
/// are copied; the buffers, msg_name and msg_control belong to the kernel until the final callback. No SIGPIPE is
/// raised. `flags` are those of loop_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_sendmsg(
    r#loop: *mut loop_t,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the header asks for a message whose buffers live until the final callback.
    unsafe { submit(r#loop, callback, arg, || Ok(sendmsg(Number(fd), Message::new(message)?, flags::sending(flags)?))) }
}

/// Accepts a connection, as accept4(2): the result is its descriptor. `flags` are SOCK_CLOEXEC, SOCK_NONBLOCK. A
/// connection that no callback has seen when the loop is closed is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_accept(
    r#loop: *mut loop_t,
    fd: c_int,
    flags: c_int,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the entry points at nothing.
    unsafe { submit(r#loop, callback, arg, || Ok(accept(Number(fd), flags))) }
}

/// Connects a socket, as connect(2): the result is 0. The address is copied.
///
/// Errors: -EINVAL when `length` is more than that of a sockaddr_storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_connect(
    r#loop: *mut loop_t,
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the header asks for an address of this length.
    unsafe { submit(r#loop, callback, arg, || Ok(connect(Number(fd), operations::address(address, length)?))) }
}

/// Makes a socket, as socket(2): the result is its descriptor; SOCK_CLOEXEC and SOCK_NONBLOCK may be in `type`. One
/// that no callback has seen when the loop is closed is closed. Since Linux 5.19.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_socket(
    r#loop: *mut loop_t,
    domain: c_int,
    r#type: c_int,
    protocol: c_int,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the entry points at nothing.
    unsafe { submit(r#loop, callback, arg, || Ok(socket(domain, r#type, protocol))) }
}

/// Shuts down a connection, or one direction of it, as shutdown(2): the result is 0. `how` is SHUT_RD, SHUT_WR or
/// SHUT_RDWR. Since Linux 5.11.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_shutdown_fd(
    r#loop: *mut loop_t,
    fd: c_int,
    how: c_int,
    callback: loop_io_callback_t,
    arg: *mut c_void,
) -> loop_handle_t {
    // SAFETY: the entry points at nothing.
    unsafe { submit(r#loop, callback, arg, || Ok(shutdown(Number(fd), how))) }
}

/// Receives a message, and tells the caller's of what the kernel has written to the copy.
#[derive(Debug)]
struct ReceivedMessage {
    op: TryRc<RefCell<Op<Number, Message>>>,
    message: *mut msghdr,
}

// SAFETY: it gives no entries.
unsafe impl Driver for ReceivedMessage {
    fn completed(&mut self, completed: Completed) -> Step {
        if completed.result >= 0 {
            let mut op = self.op.borrow_mut();
            let header = op.data().header();
            // SAFETY: the header asks for a message that lives until the final callback.
            unsafe {
                (*self.message).msg_namelen = header.msg_namelen;
                (*self.message).msg_controllen = header.msg_controllen;
                (*self.message).msg_flags = header.msg_flags;
            }
        }
        Step::give(completed)
    }

    fn discarded(&mut self, result: i32) {
        if result >= 0 {
            // SAFETY: a result that is no error says that the kernel has filled in the header and the control messages, which the header
            // of the C API asks for until the release hook has run; nobody has seen them.
            unsafe { close_received(self.op.borrow_mut().data().header()) };
        }
    }
}

/// `SCM_PIDFD` of Linux 6.5, which libc does not have.
const SCM_PIDFD: c_int = 4;

/// Closes the descriptors that a message has brought: with MSG_CTRUNC, as many as there was room for. The room may be aligned for nothing.
///
/// # Safety
/// The kernel has filled in the header and its control messages, and nobody uses the descriptors in them.
unsafe fn close_received(header: &msghdr) {
    // SAFETY: CMSG_LEN and CMSG_SPACE are arithmetic.
    let (begin, space) =
        unsafe { (libc::CMSG_LEN(0) as usize, |length: usize| libc::CMSG_SPACE(length as u32) as usize) };
    let mut rest = header.msg_controllen;
    let mut next = header.msg_control.cast::<u8>();
    while rest >= begin {
        // SAFETY: the kernel has written a control message here, as the caller says.
        let message = unsafe { next.cast::<libc::cmsghdr>().read_unaligned() };
        if message.cmsg_len < begin || message.cmsg_len > rest {
            return;
        }
        let length = message.cmsg_len - begin;
        if message.cmsg_level == libc::SOL_SOCKET && matches!(message.cmsg_type, libc::SCM_RIGHTS | SCM_PIDFD) {
            for at in 0..length / size_of::<c_int>() {
                // SAFETY: the message is so long.
                let fd = unsafe { next.add(begin).cast::<c_int>().add(at).read_unaligned() };
                // An SCM_PIDFD may be an error.
                Some(fd).filter(|&fd| fd >= 0).into_iter().for_each(close_unseen);
            }
        }
        let whole = space(length).min(rest);
        rest -= whole;
        // SAFETY: the room does not end before that.
        next = unsafe { next.add(whole) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn s22_descriptors_in_unaligned_room_are_closed() {
        let pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
        let (fds, mut peers): (Vec<_>, Vec<_>) = pairs.into_iter().map(|(fd, peer)| (fd.into_raw_fd(), peer)).unzip();
        let mut room = [0u64; 16];
        let unaligned = room.as_mut_ptr().cast::<u8>().wrapping_add(1);
        // SAFETY: an all-zero header is valid, and the room is large enough for two messages.
        let header = unsafe {
            let (mut at, data) = (unaligned, libc::CMSG_LEN(0) as usize);
            for part in [&fds[..2], &fds[2..]] {
                let mut message: libc::cmsghdr = std::mem::zeroed();
                (message.cmsg_level, message.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
                message.cmsg_len = data + size_of_val(part);
                at.cast::<libc::cmsghdr>().write_unaligned(message);
                at.add(data).copy_from(part.as_ptr().cast(), size_of_val(part));
                at = at.add(libc::CMSG_SPACE(size_of_val(part) as u32) as usize);
            }
            let mut header: msghdr = std::mem::zeroed();
            (header.msg_control, header.msg_controllen) = (unaligned.cast(), at.offset_from(unaligned) as usize);
            header
        };
        // SAFETY: the header says what is in the room, and nobody has the descriptors.
        unsafe { close_received(&header) };
        for peer in &mut peers {
            peer.set_nonblocking(true).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    }
}
