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

/// A ring of buffers that the kernel picks from when data has come: a connection that waits holds
/// none.
#[derive(Debug)]
pub struct loop_buffers_t(());

/// Gets what loop_recv_multi() has received: `result` bytes at `data`, which are valid until the
/// callback returns, or as long as loop_buffer_keep() says. Without LOOP_MORE in `flags` it is the
/// final callback: 0 at the end of the stream, or -errno.
pub type loop_recv_callback_t = Option<
    unsafe extern "C-unwind" fn(
        r#loop: *mut loop_t,
        result: i32,
        data: *const c_void,
        flags: u32,
        arg: *mut c_void,
    ),
>;

/// Accepts connections until it is cancelled: the result is a connection's descriptor, with
/// LOOP_MORE. `flags` are SOCK_CLOEXEC, SOCK_NONBLOCK. One entry for the kernel does for all from
/// Linux 5.19 on, one each before.
///
/// When descriptors or memory have run out, the callback is told once (-EMFILE, -ENFILE, -ENOBUFS,
/// -ENOMEM, with LOOP_MORE), and accepting is tried again every 100 ms until it succeeds. A
/// connection that was aborted is passed over. After any other error, -ECANCELED included, it has
/// ended. A connection that no callback has seen when the loop is closed is closed.
///
/// Returns a handle. Errors: those of loop_submit(). The loop's thread.
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

/// Makes a ring of `count` buffers (rounded up to a power of two, at most 32768) of `size` bytes,
/// for loop_recv_multi(). From Linux 6.12 on the kernel fills a buffer bit by bit, so that small
/// messages do not waste large buffers; on a kernel before 6.0 the loop fills them itself.
///
/// They are freed by loop_buffers_free(), or with the loop, and `*out` is dead then. Returns 0, or
/// -EINVAL, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. The loop's thread.
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

/// Frees a ring of buffers. NULL is fine and does nothing. Returns 0, or -EBUSY while an operation
/// uses it or a part of a buffer is kept; -EPERM, -EOWNERDEAD. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_buffers_free(buffers: BuffersPtr<'_>) -> c_int {
    if buffers.is_null() { 0 } else { status(buffers.with(Loop::free_pool)) }
}

/// Keeps the data of the callback of loop_recv_multi() that is running: it stays valid, and its
/// buffer is not used for anything else, until loop_buffer_return(), once for each time it was
/// kept. Returns 0, or -EINVAL when `data` is not what a callback was given; -EPERM, -EOWNERDEAD.
/// O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_buffer_keep(buffers: BuffersPtr<'_>, data: *const c_void) -> c_int {
    status(with_part(buffers, data, |lp, pool| {
        lp.check_answers()?;
        pool.keep(data.cast())
    }))
}

/// Gives back what loop_buffer_keep() keeps; `data` may be any address in it. Returns 0, or -EINVAL
/// when nothing is kept there; -EPERM, -EOWNERDEAD. O(1), no system call. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_buffer_return(buffers: BuffersPtr<'_>, data: *const c_void) -> c_int {
    status(with_part(buffers, data, |lp, pool| lp.return_part(pool, data.cast())))
}

/// Receives from a stream socket until it ends, into `buffers` (a pipe or a terminal ends it with
/// -ENOTSOCK: loop_read() is for those): data comes in order, with LOOP_MORE. A connection that
/// waits holds no buffer. Without a free buffer receiving stops, and goes on by itself when one has
/// been returned. One entry for the kernel does for all from Linux 6.0 on; before, a poll and a
/// recv(2) for each arrival.
///
/// Of a socket of messages (datagrams, SOCK_SEQPACKET) each callback gets one message, an empty one
/// as 0 with LOOP_MORE. Receiving ends with an error, a cancel, or 0 when the peer of
/// SOCK_SEQPACKET has gone. Better use loop_recv() and loop_recvmsg() there: the kernel cuts a
/// message where the buffer ends, and from Linux 6.12 on a message may begin where the last one in
/// the buffer ended, with less room.
///
/// Returns a handle. Errors: -EINVAL for NULL and for another loop's buffers; those of
/// loop_submit(). The loop's thread.
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

/// Calls `f` with the loop and the buffers, for something in one of these.
fn with_part(
    buffers: BuffersPtr<'_>,
    data: *const c_void,
    f: impl FnOnce(&Loop, &TryArc<Pool>) -> Result<()>,
) -> Result<()> {
    if data.is_null() { Err(NULL_POINTER) } else { buffers.with(f) }
}
