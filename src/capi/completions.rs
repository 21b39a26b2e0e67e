//! Completions: operations of the kernel, and their results.

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

/// A flag of a result: more results of the same operation will come. Without the flag, the callback
/// is the final one.
pub const LOOP_MORE: u32 = 2;
/// A flag of the final result: the deadline came before the end of the operation, and has cut the
/// operation short if that was possible.
pub const LOOP_TIMED_OUT: u32 = 8192;

const _: () = assert!(LOOP_MORE == MORE && LOOP_TIMED_OUT == TIMED_OUT);

/// Gets the result of an operation: the value that the kernel returned, often a number of bytes, or
/// -errno. `flags` has LOOP_MORE if this is not the final callback, LOOP_TIMED_OUT, and
/// IORING_CQE_F_* of the kernel.
pub type loop_io_callback_t = Option<
    unsafe extern "C-unwind" fn(r#loop: *mut loop_t, result: i32, flags: u32, arg: *mut c_void),
>;

/// Submits any operation that the kernel knows, as filled in by liburing's io_uring_prep_*(). The
/// entry is copied, and the loop sets its user_data. `callback` gets every completion. Memory that
/// the entry points to must live until the final callback, or until the release hook has run.
/// Buffers that the entry gives to the kernel to keep (IORING_OP_PROVIDE_BUFFERS) must live for as
/// long as the kernel has them. IORING_OP_SEND_ZC and _SENDMSG_ZC send without a copy: the callback
/// gets the result with LOOP_MORE, and the final callback means that the kernel has released the
/// buffer.
///
/// The operation goes to the kernel with the system call of the next iteration, or at once if the
/// queue is full. loop_cancel() asks the kernel to cancel the operation. loop_set_deadline() gives
/// the operation a deadline.
///
/// Returns a handle, or -EINVAL the entry has a flag or an operation that the loop could not
/// control, which loop_last_error() names: IOSQE_IO_DRAIN, IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_LINK,
/// IOSQE_IO_HARDLINK, unknown flags, IORING_OP_ASYNC_CANCEL, _POLL_REMOVE, _TIMEOUT_REMOVE,
/// _LINK_TIMEOUT, _MSG_RING, entries of 128 bytes, and flags that let the kernel use a buffer after
/// the final callback: MSG_ZEROCOPY and MSG_SPLICE_PAGES of IORING_OP_SEND and _SENDMSG,
/// MSG_SOCK_DEVMEM of _RECV and _RECVMSG; -ENOSYS the kernel does not have the operation; -EAGAIN
/// the kernel accepts no submissions at the moment; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1).
/// The loop's thread.
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
        // SAFETY: C promises that the memory of the entry lives until the final callback, or until
        // the release hook has run.
        Ok(Made(unsafe { Entry::new(sqe) }, None))
    })
}

/// No submission queue is larger.
const LARGEST_CHAIN: u16 = 32768;

/// Submits a chain of `count` operations. Each operation begins when the one before it has
/// succeeded. If one fails, those after it end with -ECANCELED. The loop sets IOSQE_IO_LINK. An
/// entry may have IOSQE_IO_HARDLINK instead: the next operation then begins whatever the result is.
/// The chain is never split. `args[i]` is the argument of the i-th operation; `handles`, unless
/// NULL, gets the handles. All operations have the same callback. With a `count` of 0 the call does
/// nothing.
///
/// The kernel does not know an operation of a chain until the one before it has ended. A cancel or
/// a deadline that comes earlier ends the operation when its turn comes.
///
/// Errors, with nothing submitted: -E2BIG the chain is longer than the submission queue; the errors
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
        // SAFETY: C promises that the memory of the entries lives until the final callbacks. Each
        // argument is used only for its operation.
        unsafe { lp.submit_chain(sqes, |at| callback.bind(&args[at]).into(), added) }
    }))
}

/// Gets the descriptor of the ring, for io_uring_register() of files and buffers. Never submit on
/// the ring, never close the descriptor, and send no message to the ring (IORING_OP_MSG_RING): the
/// ring belongs to the loop. Completions of tags of registered resources are ignored. Tags below
/// 2^32 are never numbers that the loop itself uses.
///
/// Returns the descriptor, or -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_ring_fd(r#loop: ConstLoopPtr<'_>) -> c_int {
    number(r#loop.with(Loop::ring_fd))
}

/// Tells whether this kernel has an operation, an IORING_OP_*. The loop asks the kernel when the
/// loop is made, so that backports of distributions count. With RINGLOOP_KERNEL=5.10 in the
/// environment, a loop uses nothing that came later, to try a program as on that kernel. The loop's
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_supports(r#loop: ConstLoopPtr<'_>, opcode: u8) -> bool {
    r#loop.with(|lp| Ok(lp.supports(opcode))).unwrap_or(false)
}

/// Cuts an operation short at `when_ns`. The final result then has LOOP_TIMED_OUT, and is the part
/// that the kernel has done, or -ETIMEDOUT if the kernel has done nothing. A new deadline replaces
/// an earlier one; LOOP_NEVER removes it. File I/O that has begun cannot be cancelled, and ends by
/// itself. An operation that waits in a chain ends when its turn comes.
///
/// Errors: -EINVAL the handle is not an operation's; -ENOENT, -ENOMEM, -ESHUTDOWN, -EPERM,
/// -EOWNERDEAD. O(1): a deadline is a timer, as exact as any other. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_set_deadline(
    r#loop: LoopPtr<'_>,
    handle: loop_handle_t,
    when_ns: u64,
) -> c_int {
    status(r#loop.with(|lp| lp.set_deadline(handle_from_c(handle), Time::from_nanos(when_ns))))
}
