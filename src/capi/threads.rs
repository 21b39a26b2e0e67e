//! Other threads: posts, wakeups, remotes.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use super::callbacks::post;
use super::{
    Arg, Function, LoopPtr, NULL_POINTER, RemotePtr, loop_callback_t, loop_release_t, status,
    status_without_sentence,
};
use crate::event_loop::Shared;
use crate::sys::memory::TryArc;

/// A counted reference to a loop, for other threads. A remote may outlive its loop. After the end
/// of the loop every function returns -ESHUTDOWN for the remote.
#[derive(Debug)]
pub struct loop_remote_t(());

/// Runs `callback` on the loop's thread as soon as possible. Such a callback is called a post. The
/// post runs after earlier posts of the calling thread. Posts and the loop's own loop_call_soon()
/// run in the order of the calls. The post counts for loop_run().
///
/// The loop must be open until the call returns: a thread that may be late uses a remote. When the
/// loop is closed, posts that have not run are dropped without notice; loop_remote_call_soon()
/// takes a release hook for that case. Costs a compare-and-swap, sometimes an allocation, and a
/// system call only if the loop sleeps.
///
/// Errors: -ESHUTDOWN, -ENOMEM, -EOWNERDEAD, -EINVAL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_call_soon_threadsafe(
    r#loop: LoopPtr<'_>,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
) -> c_int {
    status(r#loop.public().and_then(|lp| post(lp.shared, None, callback, None, &arg)))
}

/// Makes the loop's sleep return at once, or its next sleep if the loop is awake. The function is
/// async-signal-safe and does not change errno. The loop must be open until the call returns.
///
/// Errors: -ESHUTDOWN, -EOWNERDEAD, -EINVAL; loop_last_error() does not change, since a signal
/// handler must not touch thread-local storage. Any thread, and signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_wakeup(r#loop: LoopPtr<'_>) -> c_int {
    status_without_sentence(r#loop.public().and_then(|lp| lp.shared.wakeup()))
}

/// Makes a remote of the loop, for other threads. loop_remote_release() ends it.
///
/// Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. Allocates nothing. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_new(
    r#loop: LoopPtr<'_>,
    out: Option<&mut MaybeUninit<*mut loop_remote_t>>,
) -> c_int {
    status(r#loop.add(out.ok_or(NULL_POINTER), |lp, out| {
        out.write(one_more(lp.shared()));
        Ok(())
    }))
}

/// Adds one owner to a remote, and returns the remote. Each owner ends with loop_remote_release().
/// NULL is allowed. Any thread that holds the remote.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_retain(remote: RemotePtr<'_>) -> RemotePtr<'_> {
    let _ = remote.with(|shared| Ok(one_more(shared)));
    remote
}

/// Removes one owner of a remote; the end of the last owner frees the remote. NULL is allowed. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_release(remote: RemotePtr<'_>) {
    // SAFETY: C gives its ownership up.
    drop(unsafe { remote.take() });
}

/// Runs `callback` on the loop's thread as loop_call_soon_threadsafe() does, for a loop that may be
/// closed at any time. An accepted post runs and is then released, or is released without being run
/// when the loop is closed. `release`, which may be NULL, gets `arg` exactly once, on the thread
/// that runs or closes the loop. The `arg` of a refused post stays the caller's.
///
/// The number of waiting posts has no limit: a thread that posts faster than the loop runs must
/// hold back, or memory and the lateness of timers grow. The function is not for signal handlers. A
/// signal handler notes the event and calls loop_remote_wakeup().
///
/// Errors: -ESHUTDOWN the loop is shut down, is being closed, or was closed; -ENOMEM, -EOWNERDEAD,
/// -EINVAL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_call_soon(
    remote: RemotePtr<'_>,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
    release: Function<'_, loop_release_t>,
) -> c_int {
    status(remote.with(|shared| post(shared, None, callback, Some(release), &arg)))
}

/// Runs `callback` on the loop's thread `delay_ns` from now, as loop_remote_call_soon() does. On a
/// virtual clock the delay begins when the loop takes the post.
///
/// Errors: the errors of loop_remote_call_soon(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_call_later(
    remote: RemotePtr<'_>,
    delay_ns: u64,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
    release: Function<'_, loop_release_t>,
) -> c_int {
    let delay = Some(delay_ns);
    status(remote.with(|shared| post(shared, delay, callback, Some(release), &arg)))
}

/// Wakes the loop as loop_wakeup() does, for a loop that may be closed at any time.
///
/// Errors: the errors of loop_wakeup(). Any thread, and signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_wakeup(remote: RemotePtr<'_>) -> c_int {
    status_without_sentence(remote.with(|shared| shared.wakeup()))
}

/// Stops the loop as loop_stop() does, in order with other posts. Errors: the errors of
/// loop_remote_call_soon(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_stop(remote: RemotePtr<'_>) -> c_int {
    status(remote.with(|shared| shared.stop()))
}

/// Adds an owner, which belongs to C.
fn one_more(shared: &TryArc<Shared>) -> *mut loop_remote_t {
    TryArc::clone(shared).into_raw().as_ptr().cast()
}
