//! Other threads: posts, wakeups, remotes.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use super::{
    Arg, CPost, Function, LoopPtr, NULL_POINTER, RemotePtr, loop_callback_t, loop_release_t,
    status, status_without_sentence,
};
use crate::error::Result;
use crate::event_loop::Shared;
use crate::sys::memory::TryArc;

/// A loop as other threads know it. It is counted, and may outlive its loop: then everything
/// answers -ESHUTDOWN.
#[derive(Debug)]
pub struct loop_remote_t(());

/// Runs `callback` on the loop's thread as soon as the loop comes to it: after what the calling
/// thread has posted before, and in order with loop_call_soon() by the time of the call. It counts
/// for loop_run().
///
/// The loop must be open until this returns: a thread that may be late uses a remote. When the loop
/// is closed, what has not run is dropped unseen; loop_remote_call_soon() takes a release hook for
/// that. Costs a compare-and-swap, now and then an allocation, and a system call only if the loop
/// sleeps.
///
/// Errors: -ESHUTDOWN, -ENOMEM, -EOWNERDEAD, -EINVAL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_call_soon_threadsafe(
    r#loop: LoopPtr<'_>,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
) -> c_int {
    status(r#loop.public().and_then(|lp| send(lp.shared, CPost::new(callback, None, &arg)?, None)))
}

/// Makes the loop's sleep return at once, or its next one if it is awake. Async-signal-safe; leaves
/// errno alone. The loop must be open until this returns.
///
/// Errors: -ESHUTDOWN, -EOWNERDEAD, -EINVAL; loop_last_error() stays as it was, since a signal
/// handler must not touch thread-local storage. Any thread, and signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_wakeup(r#loop: LoopPtr<'_>) -> c_int {
    status_without_sentence(r#loop.public().and_then(|lp| lp.shared.wakeup()))
}

/// Makes a remote of the loop, to be given to other threads. It ends with loop_remote_release().
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

/// One more owner of the remote, which is returned; each ends with loop_remote_release(). NULL is
/// fine. Any thread that holds the remote.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_retain(remote: RemotePtr<'_>) -> RemotePtr<'_> {
    let _ = remote.with(|shared| Ok(one_more(shared)));
    remote
}

/// One owner of the remote less; the last one frees it. NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_release(remote: RemotePtr<'_>) {
    // SAFETY: C gives it up.
    drop(unsafe { remote.take() });
}

/// Runs `callback` on the loop's thread as loop_call_soon_threadsafe() does, on a loop that may be
/// closed meanwhile. An accepted post runs and is then released, or is released without being run
/// when the loop is closed: `release`, which may be NULL, gets `arg` exactly once, on the thread
/// that runs or closes the loop. What is refused stays the caller's.
///
/// Nothing bounds what waits: who posts faster than the loop runs must hold back, or memory and the
/// lateness of timers grow. Not for signal handlers: these note what has come, and call
/// loop_remote_wakeup().
///
/// Errors: -ESHUTDOWN the loop is shut down, closing or gone; -ENOMEM, -EOWNERDEAD, -EINVAL. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_call_soon(
    remote: RemotePtr<'_>,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
    release: Function<'_, loop_release_t>,
) -> c_int {
    status(remote.with(|shared| send(shared, CPost::new(callback, Some(release), &arg)?, None)))
}

/// Runs `callback` on the loop's thread, as loop_remote_call_soon() does, `delay_ns` from now; on a
/// virtual clock, from when the loop takes it.
///
/// Errors: those of loop_remote_call_soon(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_call_later(
    remote: RemotePtr<'_>,
    delay_ns: u64,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
    release: Function<'_, loop_release_t>,
) -> c_int {
    let delay = Some(delay_ns);
    status(remote.with(|shared| send(shared, CPost::new(callback, Some(release), &arg)?, delay)))
}

/// Wakes the loop as loop_wakeup() does, when it may be closed meanwhile.
///
/// Errors: those of loop_wakeup(). Any thread, and signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_wakeup(remote: RemotePtr<'_>) -> c_int {
    status_without_sentence(remote.with(|shared| shared.wakeup()))
}

/// Has the loop stop as by loop_stop(), in order with what else is posted. Errors: those of
/// loop_remote_call_soon(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_stop(remote: RemotePtr<'_>) -> c_int {
    status(remote.with(|shared| shared.stop()))
}

/// One more owner, which is C's.
fn one_more(shared: &TryArc<Shared>) -> *mut loop_remote_t {
    TryArc::clone(shared).into_raw().as_ptr().cast()
}

fn send(shared: &Shared, post: CPost, delay: Option<u64>) -> Result<()> {
    shared.post(post, delay).map_err(|(_, error)| error)
}
