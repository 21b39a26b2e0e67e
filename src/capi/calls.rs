//! Calls: scheduling callbacks and timers, and the functions for their handles.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use nix::errno::Errno;

use super::{
    Arg, ConstLoopPtr, Function, LoopPtr, NULL_POINTER, handle, handle_from_c, loop_callback_t,
    loop_handle_t, loop_release_t, number, status,
};
use crate::abi::handle::Handle;
use crate::abi::source::Source;
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;
use crate::event_loop::calls::period_of;
use crate::pending::{Cancelled, HookPoint};
use crate::time::{Time, monotonic};

/// loop_add_hook(): the hook runs in every iteration, before the loop submits and waits.
pub const LOOP_BEFORE_WAIT: u32 = 1;
/// loop_add_hook(): the hook runs in every iteration, after the loop has collected what is ready,
/// before the loop runs it.
pub const LOOP_AFTER_WAIT: u32 = 2;

/// Runs `callback` in the next iteration, after all callbacks that are already ready. For a call
/// inside a callback, the next iteration is a later one, never the current one: a callback that
/// schedules itself again starves nothing. `arg` belongs to the caller; see loop_on_release().
///
/// Returns a handle, or -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1), no system call, no
/// allocation unless more is pending than ever before. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_call_soon(
    r#loop: LoopPtr<'_>,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    r#loop.schedule(callback.with(&arg), |lp, callback| lp.schedule_soon(callback.into()))
}

/// Runs `callback` once, `delay_ns` from now. The function is loop_call_at() with loop_time() +
/// delay_ns, which saturates at LOOP_NEVER.
///
/// Returns a handle. Errors: the errors of loop_call_at(). O(1), no system call. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_call_later(
    r#loop: LoopPtr<'_>,
    delay_ns: u64,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    r#loop.schedule(callback.with(&arg), |lp, callback| {
        lp.schedule_at(lp.time().as_nanos().saturating_add(delay_ns), callback.into())
    })
}

/// Runs `callback` once, at `when_ns` on the clock of loop_time(). The timer never runs early, not
/// by a nanosecond. It runs after timers that were scheduled earlier for the same time. A timer in
/// the past is due in the next iteration. A timer at LOOP_NEVER does not run, but can be
/// rescheduled.
///
/// Returns a handle, or -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1), no system call.
/// The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_call_at(
    r#loop: LoopPtr<'_>,
    when_ns: u64,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    r#loop.schedule(callback.with(&arg), |lp, callback| lp.schedule_at(when_ns, callback.into()))
}

/// Runs `callback` every `period_ns`, for the first time one period from now. The timer keeps its
/// phase: the k-th call is due at start + k * period_ns, however long the callbacks take. The loop
/// leaves out calls for which it is too late; loop_skipped() counts them. Inside the callback the
/// handle is live, and loop_when() gives the time of the next call.
///
/// Returns a handle, or -EINVAL the period is 0, or `loop` or `callback` is NULL; -ENOMEM,
/// -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_call_every(
    r#loop: LoopPtr<'_>,
    period_ns: u64,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    let callback = period_of(period_ns).and_then(|_| callback.with(&arg));
    r#loop.schedule(callback, |lp, callback| lp.schedule_every(period_ns, callback.into()))
}

/// Gets the time in nanoseconds. Every call reads the clock: CLOCK_MONOTONIC, or the loop's own
/// clock if the loop was made with LOOP_VIRTUAL_TIME. With NULL the clock is CLOCK_MONOTONIC. About
/// 25 ns. Any thread, at any moment while the loop is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_time(r#loop: ConstLoopPtr<'_>) -> u64 {
    r#loop.public().map_or_else(|_| monotonic(), |lp| lp.clock.now())
}

/// Gets the earliest deadline of the timers that are not in the ready queue, or LOOP_NEVER. O(1);
/// after the timer with that deadline was cancelled, O(log n) amortized. The loop's thread;
/// LOOP_NEVER on another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_next_deadline(r#loop: ConstLoopPtr<'_>) -> u64 {
    r#loop.ask(None, Loop::next_deadline).unwrap_or(Time::NEVER).as_nanos()
}

/// Cancels the timer, operation or other thing that a handle names. Its callback does not run
/// again, even if the callback is in the current batch. Its release hook runs before loop_cancel()
/// returns. (The hook runs later in two cases. The hook of the running callback runs when that
/// callback returns. If loop_cancel() is called inside sixteen nested release hooks, the hook runs
/// when the innermost of these returns.) For operations and work that have begun, the final
/// callback and the release hook are still to come.
///
/// Returns 0: the thing has ended; 1: an operation or work was asked to end, and its final callback
/// is still to come, or -ENOENT the handle is stale; -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL.
/// O(1), however many are pending; allocates nothing. No system call, except usually one for the
/// last watcher of a descriptor: the kernel releases the file before loop_cancel() returns, and
/// before the release hook. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_cancel(r#loop: LoopPtr<'_>, handle: loop_handle_t) -> c_int {
    let cancelled = r#loop.with(|lp| lp.end(handle_from_c(handle)));
    number(cancelled.map(|cancelled| c_int::from(cancelled == Cancelled::Asked)))
}

/// Moves a timer to `when_ns`, behind the timers that are already due at that time. The handle
/// stays the same. A timer in the current batch is taken out of the batch. A repeating timer takes
/// its phase from the new time.
///
/// Errors: -EINVAL the handle is not a timer's; -ENOENT the handle is stale; -ENOMEM, -ESHUTDOWN,
/// -EPERM, -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_reschedule(
    r#loop: LoopPtr<'_>,
    handle: loop_handle_t,
    when_ns: u64,
) -> c_int {
    let when = Time::from_nanos(when_ns);
    status(r#loop.add(Ok(()), |lp, ()| lp.move_timer(handle_from_c(handle), when)))
}

/// Writes the time at which a timer is due. For a repeating timer inside its callback, this is the
/// time of the next call.
///
/// Errors: -EINVAL the handle is not a timer's, or `when_ns` is NULL; -ENOENT the handle is stale;
/// -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_when(
    r#loop: ConstLoopPtr<'_>,
    handle: loop_handle_t,
    when_ns: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    ask(r#loop, handle, when_ns, |lp, handle| lp.when(handle).map(Time::as_nanos))
}

/// Writes how many calls of a repeating timer were left out, because the loop was too late for
/// them. The number is 0 for other timers.
///
/// Errors: the errors of loop_when(). O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_skipped(
    r#loop: ConstLoopPtr<'_>,
    handle: loop_handle_t,
    count: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    ask(r#loop, handle, count, Loop::skipped)
}

/// Tells whether the callback of a handle is still to run. The loop's thread; false on another
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_is_pending(r#loop: ConstLoopPtr<'_>, handle: loop_handle_t) -> bool {
    r#loop.ask(false, |lp| lp.is_pending(handle_from_c(handle)))
}

/// Gets the handle of the callback that is running, or 0. The handle of a callback that runs once
/// is already stale then. A post of another thread has no handle. The loop's thread; 0 on another
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_current(r#loop: ConstLoopPtr<'_>) -> loop_handle_t {
    r#loop.ask(None, Loop::current_handle).map_or(0, Handle::as_raw)
}

/// Makes a handle count for loop_run(), as handles do from the start. loop_run() does not return
/// while a handle that counts is live.
///
/// Errors: -EINVAL the handle is that of a hook or a signal handler, which never count; -ENOENT the
/// handle is stale; -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_ref(r#loop: LoopPtr<'_>, handle: loop_handle_t) -> c_int {
    status(r#loop.with(|lp| lp.ref_(handle_from_c(handle))))
}

/// Makes a handle not count for loop_run(). loop_run() then returns even if the callback is still
/// pending. It also returns if the kernel still has the buffer of the operation, or if the
/// operation was cancelled and its final callback is still to come.
///
/// Errors: the errors of loop_ref(). O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_unref(r#loop: LoopPtr<'_>, handle: loop_handle_t) -> c_int {
    status(r#loop.with(|lp| lp.unref(handle_from_c(handle))))
}

/// Tells whether a handle counts for loop_run(). The loop's thread; false on another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_has_ref(r#loop: ConstLoopPtr<'_>, handle: loop_handle_t) -> bool {
    r#loop.ask(false, |lp| lp.has_ref(handle_from_c(handle)))
}

/// Calls `release` with the `arg` of a handle, exactly once, after the thing that the handle names
/// has ended. The thing has ended when its callback has run for the last time, when the thing was
/// cancelled and no final callback is still to come, or when the loop is closed. `release` never
/// runs while the callback is on the stack. `release` is the place to free `arg`. A handle has one
/// release hook: a second one replaces the first, and NULL removes it.
///
/// The hook may call any function of the loop. While the loop is being closed, these functions
/// return -ESHUTDOWN. The hook runs inside loop_cancel(). If hooks cancel one another in a chain,
/// at most sixteen are on the stack, however long the chain is: the others run when the sixteenth
/// returns.
///
/// Errors: -ENOENT the handle is stale; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1).
/// The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_on_release(
    r#loop: LoopPtr<'_>,
    handle: loop_handle_t,
    release: Function<'_, loop_release_t>,
) -> c_int {
    status(r#loop.add(Ok(()), |lp, ()| {
        let handle = handle_from_c(handle);
        let Source::C(function) = lp.source(handle)? else { return Err(Error::STALE_HANDLE) };
        // SAFETY: the argument is that of the callback of `handle`.
        lp.set_release(handle, unsafe { release.for_arg(function.arg) })
    }))
}

/// Runs `callback` in every iteration, at the point that `when` names: LOOP_BEFORE_WAIT or
/// LOOP_AFTER_WAIT. Hooks are for embedding other loops. Hooks run in the order in which they were
/// added, and do not keep a run going. A callback that a hook schedules may run in the same
/// iteration.
///
/// Returns a handle, or -EINVAL, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_add_hook(
    r#loop: LoopPtr<'_>,
    when: u32,
    callback: Function<'_, loop_callback_t>,
    arg: Arg<'_>,
) -> loop_handle_t {
    let point = match when {
        LOOP_BEFORE_WAIT => HookPoint::BeforeWait,
        LOOP_AFTER_WAIT => HookPoint::AfterWait,
        _ => return handle(Err(Error::new(Errno::EINVAL, Sentence::UnknownHookPoint))),
    };
    r#loop.schedule(callback.with(&arg), |lp, callback| lp.schedule_hook(point, callback.into()))
}

/// Asks for a number about a handle, and writes the number to `out` unless there is an error.
fn ask(
    lp: ConstLoopPtr<'_>,
    handle: loop_handle_t,
    out: Option<&mut MaybeUninit<u64>>,
    question: impl FnOnce(&Loop, Handle) -> Result<u64>,
) -> c_int {
    status(lp.with_args(out.ok_or(NULL_POINTER), |lp, out| {
        out.write(question(lp, handle_from_c(handle))?);
        Ok(())
    }))
}
