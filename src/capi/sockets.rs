//! Sockets.
//!
//! The functions for sockets submit operations, as loop_submit() does. The rules of loop_read() for
//! errors, O_NONBLOCK and closing hold for them too.
//!
//! Errors: the errors of loop_read(). The loop's thread.

use std::ffi::c_int;

use libc::socklen_t;

use super::{
    Arg, Array, Buffer, ConstBuffer, ConstMessagePtr, Count, Function, LoopPtr, Message,
    MessagePtr, Span, loop_handle_t, loop_io_callback_t, receive, sockaddr, submit,
};
use crate::op::data::All;
use crate::op::flags;
use crate::op::operation::Number;
use crate::op::sockets::{accept, connect, recv, send, sendmsg, shutdown, socket};

/// Receives up to `length` bytes from a socket, as recv(2): the result is the number of bytes, 0 at
/// the end of a stream. `flags` may have MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE,
/// MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC and MSG_WAITALL. Other flags are refused with
/// -EINVAL: with MSG_SOCK_DEVMEM the data would not be in the buffer. The buffer belongs to the
/// kernel until the final callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_recv(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    buffer: Buffer<'_>,
    length: Count<'_, usize>,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(recv(Number(fd), Span::new(buffer, length)?, flags::receiving(flags)?))
    })
}

/// Sends up to `length` bytes on a socket, as send(2): the result is the number of bytes sent. It
/// may be less than `length`; loop_send_all() sends all of them. No SIGPIPE is raised. The buffer
/// belongs to the kernel until the final callback.
///
/// `flags` may have MSG_CONFIRM, MSG_DONTROUTE, MSG_DONTWAIT, MSG_EOR, MSG_FASTOPEN, MSG_MORE,
/// MSG_NOSIGNAL, MSG_OOB and MSG_WAITALL. Other flags are refused with -EINVAL. With MSG_ZEROCOPY
/// the kernel would use the buffer after the final callback (rule S13 of docs/semantics.md). To
/// send without a copy, submit IORING_OP_SEND_ZC with loop_submit(): its final callback, without
/// LOOP_MORE, means that the kernel has released the buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_send(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    buffer: ConstBuffer<'_>,
    length: Count<'_, usize>,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(send(Number(fd), Span::new(buffer, length)?, flags::sending(flags)?))
    })
}

/// Sends as loop_send() does, until all bytes are sent. The result is `length`. If an error, a
/// cancel or a deadline ended the operation after some bytes were sent, the result is their number,
/// as with write(2), with LOOP_TIMED_OUT after a deadline. The result is -errno only if no bytes
/// were sent. From Linux 6.1 the kernel itself sends the rest; before, each part costs an
/// iteration.
///
/// The operations of loop_send_all() and loop_write_all() on one descriptor take turns in the order
/// of their submission, so that their data does not mix. Each begins in the iteration after the end
/// of the one before it, whatever its result was. loop_send(), loop_sendmsg(), loop_write() and
/// loop_shutdown_fd() do not wait for a turn, and may take effect in the middle of such data.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_send_all(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    buffer: ConstBuffer<'_>,
    length: Count<'_, usize>,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(send(Number(fd), All(Span::new(buffer, length)?), flags::sending(flags)?))
    })
}

/// Receives a message, as recvmsg(2): the result is the number of bytes. The array of buffers
/// (msg_iov) is copied. The buffers, msg_name and msg_control belong to the kernel until the final
/// callback. `message` itself must also live until then: if the result is no error, msg_namelen,
/// msg_controllen and msg_flags are written to it just before the callback. `flags` are those of
/// loop_recv(). If the loop is closed before a callback has got the message, the descriptors in the
/// message (SCM_RIGHTS, SCM_PIDFD) are closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_recvmsg(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    message: MessagePtr<'_>,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || receive(Number(fd), message, flags))
}

/// Sends a message, as sendmsg(2): the result is the number of bytes sent. `message` and its array
/// of buffers (msg_iov) are copied; the buffers, msg_name and msg_control belong to the kernel
/// until the final callback. No SIGPIPE is raised. `flags` are those of loop_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_sendmsg(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    message: ConstMessagePtr<'_>,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        Ok(sendmsg(Number(fd), Message::new(message)?, flags::sending(flags)?))
    })
}

/// Accepts a connection, as accept4(2): the result is its descriptor. `flags` are SOCK_CLOEXEC,
/// SOCK_NONBLOCK. If the loop is closed before a callback has got the connection, the connection is
/// closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_accept(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(accept(Number(fd), flags)))
}

/// Connects a socket, as connect(2): the result is 0. The address is copied.
///
/// Errors: -EINVAL `length` is more than the size of a sockaddr_storage.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_connect(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    address: Array<'_, sockaddr>,
    length: Count<'_, socklen_t>,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(connect(Number(fd), address.into_address(length)?)))
}

/// Makes a socket, as socket(2): the result is its descriptor. `type` may include SOCK_CLOEXEC and
/// SOCK_NONBLOCK. If the loop is closed before a callback has got the socket, the socket is closed.
/// Since Linux 5.19.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_socket(
    r#loop: LoopPtr<'_>,
    domain: c_int,
    r#type: c_int,
    protocol: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(socket(domain, r#type, protocol)))
}

/// Shuts down a connection, or one direction of it, as shutdown(2): the result is 0. `how` is
/// SHUT_RD, SHUT_WR or SHUT_RDWR. Since Linux 5.11.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_shutdown_fd(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    how: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || Ok(shutdown(Number(fd), how)))
}
