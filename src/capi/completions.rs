//! Completions: operations of the kernel's, and their results.

use std::ffi::{c_int, c_void};

use super::{
    Arg, Array, ConstLoopPtr, Count, Function, LoopPtr, Made, NULL_POINTER, Room, handle_from_c,
    loop_handle_t, loop_t, number, status, submit,
};
use crate::abi::completion::{MORE, TIMED_OUT};
use crate::abi::handle::Handle;
use crate::abi::sqe::{Entry, Sqe as io_uring_sqe};
use crate::error::Error;
use crate::event_loop::Loop;
use crate::op::check;
use crate::time::Time;

/// A flag of a result: more of the same operation will come. Without it, this is the final
/// callback.
pub const LOOP_MORE: u32 = 2;
/// A flag of the final result: the deadline came before the operation's end, and has cut it short
/// where that was possible.
pub const LOOP_TIMED_OUT: u32 = 8192;

const _: () = assert!(LOOP_MORE == MORE && LOOP_TIMED_OUT == TIMED_OUT);

/// Gets the result of an operation: what the kernel said, often a number of bytes, or -errno.
/// `flags` has LOOP_MORE when this is not the final callback, LOOP_TIMED_OUT, and IORING_CQE_F_* of
/// the kernel's.
pub type loop_io_callback_t = Option<
    unsafe extern "C-unwind" fn(r#loop: *mut loop_t, result: i32, flags: u32, arg: *mut c_void),
>;

/// Submits any operation that the kernel knows, as liburing's io_uring_prep_*() fill it in: the
/// entry is copied, its user_data is the loop's. `callback` gets every completion; what the entry
/// points to must live until the final one, or until the release hook has run. Buffers that it
/// gives to the kernel to keep (IORING_OP_PROVIDE_BUFFERS) must live for as long as the kernel has
/// them. IORING_OP_SEND_ZC and _SENDMSG_ZC send without a copy: the callback gets the result with
/// LOOP_MORE, and the final one says that the kernel has let go of the buffer.
///
/// It goes to the kernel with the next iteration's system call, or at once when the queue is full.
/// Cancel it with loop_cancel(), which asks the kernel; give it a deadline with
/// loop_set_deadline().
///
/// Returns a handle, or -EINVAL for what would take it out of the loop's hands, with its name in
/// loop_last_error(): IOSQE_IO_DRAIN, IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_LINK, IOSQE_IO_HARDLINK,
/// unknown flags, IORING_OP_ASYNC_CANCEL, _POLL_REMOVE, _TIMEOUT_REMOVE, _LINK_TIMEOUT, _MSG_RING,
/// entries of 128 bytes, and what lets the kernel use a buffer after the final callback:
/// MSG_ZEROCOPY and MSG_SPLICE_PAGES of IORING_OP_SEND and _SENDMSG, MSG_SOCK_DEVMEM of _RECV and
/// _RECVMSG; -ENOSYS when this kernel does not have the operation; -EAGAIN when the kernel takes
/// none at the moment; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_submit(
    r#loop: LoopPtr<'_>,
    sqe: Option<&io_uring_sqe>,
    callback: Function<'_, loop_io_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    submit(r#loop, callback, arg, || {
        let sqe = *sqe.ok_or(NULL_POINTER)?;
        check(&sqe, 0)?;
        // SAFETY: C promises that what the entry points to lives until the final callback, or until
        // the release hook has run.
        Ok(Made(unsafe { Entry::new(sqe) }, None))
    })
}

/// No submission queue is larger.
const LARGEST_CHAIN: u16 = 32768;

/// Submits a chain of `count` operations: each begins when the one before it has ended well, and
/// when one fails those after it end with -ECANCELED. IOSQE_IO_LINK is set by the loop; an entry
/// may bear IOSQE_IO_HARDLINK instead, and then the next begins whatever comes of it. The chain is
/// never split. `args[i]` is the argument of the i-th; `handles`, unless NULL, gets the handles.
/// One callback for all. With a `count` of 0 it does nothing.
///
/// The kernel knows an operation of a chain when the one before it has ended: what cancels it or
/// comes as its deadline before that ends it when its turn comes.
///
/// Errors, with nothing submitted: -E2BIG when the chain is longer than the submission queue; those
/// of loop_submit(). O(count). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_submit_chain(
    r#loop: LoopPtr<'_>,
    sqes: Array<'_, io_uring_sqe>,
    count: Count<'_, usize>,
    callback: Function<'_, loop_io_callback_t>,
    args: Array<'_, Arg<'_>>,
    handles: Room<'_, loop_handle_t>,
) -> c_int {
    let chain = || {
        let callback = callback.get()?;
        let count = count.at_most(LARGEST_CHAIN, Error::CHAIN_TOO_LONG)?;
        Ok((callback, sqes.get(count)?, args.get(count)?, handles.get(count)))
    };
    status(r#loop.add(chain(), |lp, (callback, sqes, args, handles)| {
        let added = |at: usize, handle: Handle| {
            if let Some(room) = handles.get_mut(at) {
                room.write(handle.as_raw());
            }
        };
        // SAFETY: C promises that what the entries point to lives until the final callbacks. Each
        // argument is bound for its operation alone.
        unsafe { lp.submit_chain(sqes, |at| callback.bind(&args[at]).into(), added) }
    }))
}

/// The descriptor of the ring, for io_uring_register() of files and buffers. Never submit on it,
/// never close it, and send it no message (IORING_OP_MSG_RING): the loop's ring is the loop's.
/// Completions of tags of registered resources are passed over; tags below 2^32 are never numbers
/// of the loop's own.
///
/// Returns the descriptor, or -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_ring_fd(r#loop: ConstLoopPtr<'_>) -> c_int {
    number(r#loop.with(Loop::ring_fd))
}

/// Whether this kernel has an operation, an IORING_OP_*. It was asked when the loop was made: what
/// distributions have brought to older kernels counts. With RINGLOOP_KERNEL=5.10 in the environment
/// a loop uses nothing that came later, so that a program can be tried as on that kernel. The
/// loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_supports(r#loop: ConstLoopPtr<'_>, opcode: u8) -> bool {
    r#loop.with(|lp| Ok(lp.supports(opcode))).unwrap_or(false)
}

/// Cuts an operation short at `when_ns`: its final result then has LOOP_TIMED_OUT, and is what the
/// kernel had done, or -ETIMEDOUT if that was nothing. Replaces an earlier deadline; LOOP_NEVER
/// removes it. What the kernel will not cancel, file I/O that has begun, ends when it ends, and one
/// that waits for its turn in a chain when that comes.
///
/// Errors: -EINVAL not an operation; -ENOENT, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1): it is
/// a timer, as exact as any. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_set_deadline(
    r#loop: LoopPtr<'_>,
    handle: loop_handle_t,
    when_ns: u64,
) -> c_int {
    status(r#loop.with(|lp| lp.set_deadline(handle_from_c(handle), Time::from_nanos(when_ns))))
}
