//! Readiness: watchers of descriptors.

use std::ffi::{c_int, c_void};

use super::{Arg, Function, LoopPtr, count, handle_from_c, loop_handle_t, loop_t, status};
use crate::event_loop::Loop;
use crate::event_loop::watch::Events;
use crate::sys::descriptors::check_pollable;
/// A watcher's callback. `events` has the bits for which `fd` is ready: POLLIN, POLLOUT and others
/// of poll(2).
pub type loop_fd_callback_t = Option<
    unsafe extern "C-unwind" fn(r#loop: *mut loop_t, fd: c_int, events: u32, arg: *mut c_void),
>;

/// Runs `callback` whenever `fd` is ready for one of `events` (POLLIN, POLLOUT and others of
/// poll(2)). The watcher is level-triggered: the callback runs as long as `fd` is ready. POLLERR,
/// POLLHUP and POLLNVAL are always reported. Several watchers of one descriptor run in the order in
/// which they were registered.
///
/// Before the descriptor is closed, end its watchers with loop_cancel() or loop_forget_fd(). When
/// the last watcher has ended, the kernel has released the file: close() really closes it, the peer
/// sees the end, and a port is free. If a descriptor is closed nevertheless, or can no longer be
/// watched, its watcher is called a last time with POLLNVAL or POLLERR and ends, or it watches the
/// file that has the number now. The behaviour is never undefined.
///
/// Returns a handle, or -EBADF `fd` is not open; -EPERM `fd` is a file or a directory, as with
/// epoll; -EINVAL the events have a bit that poll(2) does not have, or `loop` or `callback` is
/// NULL; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. About 1.3 us for a query to epoll. The loop's
/// thread.
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

/// Changes the events for which a watcher waits. A queued event that the watcher no longer waits
/// for is dropped. With 0 the watcher is paused: errors and hang-ups are still reported.
///
/// Returns 0, or -EINVAL the handle is not a watcher's, or the events have a bit that poll(2) does
/// not have; -ENOENT, -ESHUTDOWN, -EPERM, -EOWNERDEAD. No system call. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_watch_update(
    r#loop: LoopPtr<'_>,
    handle: loop_handle_t,
    events: u32,
) -> c_int {
    let update = |lp: &Loop, events| lp.update_watch(handle_from_c(handle), events);
    status(r#loop.add(Events::from_bits(events).map(Events::bits), update))
}

/// Ends every watcher of `fd`, asks every operation on `fd` to end, and makes the kernel release
/// the file. Call the function before close(). The final callbacks of the operations are still to
/// come.
///
/// Returns how many operations the kernel has not released: with 0, close(fd) really closes the
/// file, the peer sees the end of file and a port is free again. Operations that are not released
/// are file I/O that has begun, or wait in a chain. Errors: -EBADF the number is negative; -ENOMEM,
/// -ESHUTDOWN, -EPERM, -EOWNERDEAD; the errors of io_uring_enter(). One system call as a rule, or
/// none if nothing is on `fd`; one more for each time that the operations on `fd` fill the
/// submission queue. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_forget_fd(r#loop: LoopPtr<'_>, fd: c_int) -> c_int {
    count(r#loop.with(|lp| lp.forget_fd(fd)))
}
