//! Readiness: watchers of descriptors.

use std::ffi::{c_int, c_void};

use super::{Arg, Function, LoopPtr, count, handle_from_c, loop_handle_t, loop_t, status};
use crate::event_loop::Loop;
use crate::event_loop::watch::Events;
use crate::sys::descriptors::check_pollable;
/// A watcher's callback: `events` says what `fd` is ready for, POLLIN, POLLOUT and so on of
/// poll(2).
pub type loop_fd_callback_t = Option<
    unsafe extern "C-unwind" fn(r#loop: *mut loop_t, fd: c_int, events: u32, arg: *mut c_void),
>;

/// Runs `callback` whenever `fd` is ready for one of `events` (POLLIN, POLLOUT, ... of poll(2)), as
/// long as it is: level-triggered. POLLERR, POLLHUP and POLLNVAL are always reported. Several
/// watchers of one descriptor run in the order in which they were registered.
///
/// Before the descriptor is closed, end its watchers, with loop_cancel() or loop_forget_fd(): when
/// the last has ended, the kernel has let go of the file, so that close() really closes, the peer
/// sees the end and a port is free. A watcher of a descriptor that is closed all the same, or can
/// be watched no more, is called a last time with POLLNVAL or POLLERR and has ended then, or
/// watches what has the number now; it is never undefined behaviour.
///
/// Returns a handle, or -EBADF `fd` is not open; -EPERM for files and directories, as epoll has it;
/// -EINVAL for events that poll(2) does not have; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. Some
/// 1.3 us for asking epoll. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_watch_fd(
    r#loop: LoopPtr<'_>,
    fd: c_int,
    events: u32,
    callback: Function<'_, loop_fd_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    let args =
        callback.with(&arg).and_then(|callback| Ok((callback, Events::from_bits(events)?.bits())));
    r#loop.schedule(args, |lp, (callback, events)| {
        check_pollable(fd)?;
        lp.schedule_watch(fd, events, callback.into())
    })
}

/// Changes what a watcher waits for. What is queued for it and is asked for no more is dropped.
/// With 0 it is paused: errors and hang-ups still come.
///
/// Returns 0, or -EINVAL not a watcher, or events that poll(2) does not have; -ENOENT, -ESHUTDOWN,
/// -EPERM, -EOWNERDEAD. No system call. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_watch_update(
    r#loop: LoopPtr<'_>,
    handle: loop_handle_t,
    events: u32,
) -> c_int {
    let update = |lp: &Loop, events| lp.update_watch(handle_from_c(handle), events);
    status(r#loop.add(Events::from_bits(events).map(Events::bits), update))
}

/// Ends every watcher of `fd`, asks every operation on it to end, and makes the kernel let go of
/// it: call it before close(). The final callbacks of the operations are still to come.
///
/// Returns how many operations the kernel has not let go of: with 0, close(fd) really closes, the
/// peer sees the end of file and a port is free again. More than 0 is file I/O that has begun, or
/// what waits in a chain. Errors: -EBADF for a negative number; -ENOMEM, -ESHUTDOWN, -EPERM,
/// -EOWNERDEAD; those of io_uring_enter(). One system call as a rule, or none when there is nothing
/// on `fd`; one more for each time that what is on it fills the submission queue. The loop's
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_forget_fd(r#loop: LoopPtr<'_>, fd: c_int) -> c_int {
    count(r#loop.with(|lp| lp.forget_fd(fd)))
}
