//! Operations with many results.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use super::{
    Arg, BuffersPtr, Function, LoopPtr, NULL_POINTER, loop_handle_t, loop_io_callback_t, loop_t,
    status,
};
use crate::error::Result;
use crate::event_loop::Loop;
use crate::kernel::buffers::Pool;
use crate::sys::memory::TryArc;

/// A ring of buffers. The kernel takes a buffer from the ring when data has come: a connection that
/// waits holds none.
#[derive(Debug)]
pub struct loop_buffers_t(());

/// Gets the data that loop_recv_multi() has received: `result` bytes at `data`. The data is valid
/// until the callback returns, or longer with loop_buffer_keep(). Without LOOP_MORE in `flags`, the
/// callback is the final one, and `result` is 0 at the end of the stream, or -errno.
pub type loop_recv_callback_t = Option<
    unsafe extern "C-unwind" fn(
        r#loop: *mut loop_t,
        result: i32,
        data: *const c_void,
        flags: u32,
        arg: *mut c_void,
    ),
>;

/// Accepts connections until it is cancelled: each result is the descriptor of a connection, with
/// LOOP_MORE. `flags` are SOCK_CLOEXEC, SOCK_NONBLOCK. From Linux 5.19, one entry for the kernel
/// accepts all connections; before, each connection takes one entry.
///
/// If descriptors or memory run out, the callback gets the error once (-EMFILE, -ENFILE, -ENOBUFS,
/// -ENOMEM, with LOOP_MORE), and the loop tries to accept again every 100 ms until that succeeds.
/// Connections that were aborted are skipped. Any other error, -ECANCELED included, ends the
/// operation. If the loop is closed before a callback has got a connection, the connection is
/// closed.
///
/// Returns a handle. Errors: the errors of loop_submit(). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_accept_multi(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    flags: c_int,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    r#loop.schedule(callback.with(&arg), |lp, callback| {
        lp.submit_driver(lp.accepting(fd, flags)?, callback.into())
    })
}

/// Makes a ring of `count` buffers of `size` bytes each, for loop_recv_multi(). `count` is rounded
/// up to a power of two, and is at most 32768. From Linux 6.12 the kernel fills a buffer part by
/// part, so that small messages do not waste large buffers. Before Linux 6.0 the loop itself fills
/// the buffers.
///
/// The buffers are freed by loop_buffers_free(), or with the loop; `*out` is invalid afterwards.
/// Returns 0, or -EINVAL, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_buffers_new(
    r#loop: LoopPtr<'_>,
    count: u32,
    size: u32,
    out: Option<&mut MaybeUninit<*mut loop_buffers_t>>,
) -> c_int {
    let args = out.ok_or(NULL_POINTER).and_then(|out| Pool::check_sizes(count, size).map(|()| out));
    status(r#loop.add(args, |lp, out| {
        out.write(TryArc::as_raw(&lp.new_pool(count, size)?).as_ptr().cast());
        Ok(())
    }))
}

/// Frees a ring of buffers. NULL is allowed and does nothing. Returns 0, or -EBUSY an operation
/// uses the ring, or a part of a buffer is kept; -EPERM, -EOWNERDEAD. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_buffers_free(buffers: BuffersPtr<'_>) -> c_int {
    if buffers.is_null() { 0 } else { status(buffers.with(Loop::free_pool)) }
}

/// Keeps the data of the running callback of loop_recv_multi(). The data stays valid, and its
/// buffer is not used for anything else, until loop_buffer_return() was called once for each
/// loop_buffer_keep(). Returns 0, or -EINVAL `data` is not the data of a callback; -EPERM,
/// -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_buffer_keep(buffers: BuffersPtr<'_>, data: *const c_void) -> c_int {
    status(with_part(buffers, data, |lp, pool| {
        lp.check_answers()?;
        pool.keep(data.cast())
    }))
}

/// Gives back the data that loop_buffer_keep() keeps; `data` may be any address in it. Returns 0,
/// or -EINVAL nothing is kept at `data`; -EPERM, -EOWNERDEAD. O(1), no system call. The loop's
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_buffer_return(buffers: BuffersPtr<'_>, data: *const c_void) -> c_int {
    status(with_part(buffers, data, |lp, pool| lp.return_part(pool, data.cast())))
}

/// Receives from a stream socket until the stream ends, into `buffers`. Data comes in order, with
/// LOOP_MORE. On a pipe or a terminal the operation ends with -ENOTSOCK: use loop_read() there. A
/// connection that waits holds no buffer. If no buffer is free, receiving stops, and continues by
/// itself after a buffer has been returned. From Linux 6.0, one entry for the kernel receives all
/// data; before, each arrival takes a poll and a recv(2).
///
/// On a socket of messages (datagrams, SOCK_SEQPACKET) each callback gets one message; an empty
/// message is 0 with LOOP_MORE. Receiving ends with an error, a cancel, or 0 after the peer of a
/// SOCK_SEQPACKET socket has gone. Prefer loop_recv() and loop_recvmsg() there: the kernel cuts a
/// message at the end of the buffer, and from Linux 6.12 a message may begin where the last message
/// in the buffer ended, with less room.
///
/// Returns a handle. Errors: -EINVAL a pointer is NULL, or the buffers belong to another loop; the
/// errors of loop_submit(). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_recv_multi(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    buffers: BuffersPtr<'_>,
    callback: Function<'_, loop_recv_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    let args = if buffers.is_null() { Err(NULL_POINTER) } else { callback.with(&arg) };
    r#loop.schedule(args, |lp, callback| {
        lp.submit_driver(lp.receiving(fd, &buffers.of(lp)?)?, callback.into())
    })
}

/// Calls `f` with the loop and the buffers, if `data` is not NULL.
fn with_part(
    buffers: BuffersPtr<'_>,
    data: *const c_void,
    f: impl FnOnce(&Loop, &TryArc<Pool>) -> Result<()>,
) -> Result<()> {
    if data.is_null() { Err(NULL_POINTER) } else { buffers.with(f) }
}
