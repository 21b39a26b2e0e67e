//! Other threads: posts, wakeups, remotes.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::callbacks;
use super::types::{loop_callback_t, loop_release_t};
use super::{NULL_POINTER, loop_t, public, status, status_without_sentence, with_args};
use crate::error::Result;
use crate::event_loop::Held;
use crate::event_loop::Loop;
use crate::event_loop::Shared;
use crate::sys::try_arc::{Inner, TryArc};
use crate::threads::posted::{Posted, PostedBox};

/// A loop as other threads know it. It is counted, and may outlive its loop: then everything answers -ESHUTDOWN.
#[derive(Debug)]
pub struct loop_remote_t(());

/// Calls `f` with what is behind a remote.
///
/// # Safety
/// The pointer is null or that of a remote that the caller holds.
unsafe fn with_remote(remote: *mut loop_remote_t, f: impl FnOnce(&Shared) -> Result<()>) -> Result<()> {
    let remote = NonNull::new(remote).ok_or(NULL_POINTER)?;
    // SAFETY: the caller holds it; it is not ours, so it is not dropped here.
    let shared = ManuallyDrop::new(unsafe { TryArc::from_raw(remote.cast::<Inner<Shared>>()) });
    f(&shared)
}

/// Runs `callback` on the loop's thread as soon as the loop comes to it: after what the calling thread has posted
/// before, and in order with loop_call_soon() by the time of the call. It counts for loop_run().
///
/// The loop must be open until this returns: a thread that may be late uses a remote. When the loop is closed, what has
/// not run is dropped unseen; loop_remote_call_soon() takes a release hook for that. Costs a compare-and-swap, now and
/// then an allocation, and a system call only if the loop sleeps.
///
/// Errors: -ESHUTDOWN, -ENOMEM, -EOWNERDEAD, -EINVAL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_call_soon_threadsafe(
    r#loop: *mut loop_t,
    callback: loop_callback_t,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the header asks for an open loop.
    let lp = unsafe { public(r#loop) };
    status(lp.and_then(|lp| post(lp.shared, callback, arg, None, None)))
}

/// Makes the loop's sleep return at once, or its next one if it is awake. Async-signal-safe; leaves errno alone. The loop
/// must be open until this returns.
///
/// Errors: -ESHUTDOWN, -EOWNERDEAD, -EINVAL; loop_last_error() stays as it was, since a signal handler must not touch thread-local
/// storage. Any thread, and signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_wakeup(r#loop: *mut loop_t) -> c_int {
    // SAFETY: the header asks for an open loop.
    status_without_sentence(unsafe { public(r#loop) }.and_then(|lp| lp.shared.wakeup()))
}

/// Makes a remote of the loop, to be given to other threads. It ends with loop_remote_release().
///
/// Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. Allocates nothing. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_new(r#loop: *mut loop_t, out: *mut *mut loop_remote_t) -> c_int {
    let make = |lp: &Loop, out: NonNull<*mut loop_remote_t>| {
        lp.check_accepts()?;
        // SAFETY: the header asks for a pointer to write to.
        unsafe { out.write(TryArc::clone(lp.shared()).into_raw().as_ptr().cast()) };
        Ok(())
    };
    // SAFETY: the header asks for an open loop.
    status(unsafe { with_args(r#loop, NonNull::new(out).ok_or(NULL_POINTER), make) })
}

/// One more owner of the remote, which is returned; each ends with loop_remote_release(). NULL is fine. Any thread that
/// holds the remote.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_retain(remote: *mut loop_remote_t) -> *mut loop_remote_t {
    if let Some(remote) = NonNull::new(remote) {
        // SAFETY: the caller holds it; it is not ours, so it is not dropped here.
        let shared = ManuallyDrop::new(unsafe { TryArc::from_raw(remote.cast::<Inner<Shared>>()) });
        let _ = TryArc::clone(&shared).into_raw();
    }
    remote
}

/// One owner of the remote less; the last one frees it. NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_release(remote: *mut loop_remote_t) {
    if let Some(remote) = NonNull::new(remote) {
        // SAFETY: the caller holds it, and gives it up.
        drop(unsafe { TryArc::from_raw(remote.cast::<Inner<Shared>>()) });
    }
}

/// Runs `callback` on the loop's thread as loop_call_soon_threadsafe() does, on a loop that may be closed meanwhile. An
/// accepted post runs and is then released, or is released without being run when the loop is closed: `release`, which
/// may be NULL, gets `arg` exactly once, on the thread that runs or closes the loop. What is refused stays the
/// caller's.
///
/// Nothing bounds what waits: who posts faster than the loop runs must hold back, or memory and the lateness of timers
/// grow. Not for signal handlers: these note what has come, and call loop_remote_wakeup().
///
/// Errors: -ESHUTDOWN the loop is shut down, closing or gone; -ENOMEM, -EOWNERDEAD, -EINVAL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_call_soon(
    remote: *mut loop_remote_t,
    callback: loop_callback_t,
    arg: *mut c_void,
    release: loop_release_t,
) -> c_int {
    // SAFETY: the header asks for a remote that the caller holds.
    status(unsafe { with_remote(remote, |shared| post(shared, callback, arg, release, None)) })
}

/// Runs `callback` on the loop's thread, as loop_remote_call_soon() does, `delay_ns` from now; on a virtual clock, from
/// when the loop takes it.
///
/// Errors: those of loop_remote_call_soon(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_call_later(
    remote: *mut loop_remote_t,
    delay_ns: u64,
    callback: loop_callback_t,
    arg: *mut c_void,
    release: loop_release_t,
) -> c_int {
    // SAFETY: the header asks for a remote that the caller holds.
    let post = |shared: &Shared| post(shared, callback, arg, release, Some(delay_ns));
    // SAFETY: the header asks for a remote that the caller holds.
    status(unsafe { with_remote(remote, post) })
}

/// Wakes the loop as loop_wakeup() does, when it may be closed meanwhile.
///
/// Errors: those of loop_wakeup(). Any thread, and signal handlers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_wakeup(remote: *mut loop_remote_t) -> c_int {
    // SAFETY: the header asks for a remote that the caller holds.
    status_without_sentence(unsafe { with_remote(remote, Shared::wakeup) })
}

/// Has the loop stop as by loop_stop(), in order with what else is posted. Errors: those of loop_remote_call_soon(). Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_remote_stop(remote: *mut loop_remote_t) -> c_int {
    // SAFETY: the header asks for a remote that the caller holds.
    status(unsafe { with_remote(remote, |shared| shared.stop()) })
}

/// A C function that is posted, for which the header asks that it may be called with this `arg` on the loop's thread.
struct CPost {
    callback: callbacks::Call,
    arg: *mut c_void,
    release: loop_release_t,
}

// SAFETY: the header says that callback and argument are used on the loop's thread.
unsafe impl Send for CPost {}

impl Posted<Loop> for CPost {
    fn unpack(post: PostedBox<Loop, CPost>) -> Held {
        let CPost { callback, arg, release } = post.open();
        Held {
            callback: callbacks::call(callback, arg),
            release: release.map(|release| callbacks::release(release, arg)),
        }
    }
}

fn post(
    shared: &Shared,
    callback: loop_callback_t,
    arg: *mut c_void,
    release: loop_release_t,
    delay: Option<u64>,
) -> Result<()> {
    let callback = callback.ok_or(NULL_POINTER)?;
    shared.post(CPost { callback, arg, release }, delay).map_err(|(_, error)| error)
}
