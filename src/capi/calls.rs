//! Calls: what a program schedules, and what it does with the handles.

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

/// loop_add_hook(): in every iteration, before the loop submits and waits.
pub const LOOP_BEFORE_WAIT: u32 = 1;
/// loop_add_hook(): in every iteration, after the loop has collected what is ready, before it runs
/// it.
pub const LOOP_AFTER_WAIT: u32 = 2;

/// Runs `callback` in the next iteration, after all that is ready already. From inside a callback,
/// that is a later iteration, never the one that is running: a callback that schedules itself again
/// starves nothing. `arg` stays the caller's; see loop_on_release().
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

/// Runs `callback` once, `delay_ns` from now: loop_call_at() with loop_time() + delay_ns, which
/// saturates at LOOP_NEVER.
///
/// Returns a handle. Errors: those of loop_call_at(). O(1), no system call. The loop's thread.
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

/// Runs `callback` once, at `when_ns` on the clock of loop_time(): never before, to the nanosecond,
/// and after those that were scheduled for the same time earlier. A time that is past is due in the
/// next iteration. A timer at LOOP_NEVER does not run, but can be rescheduled.
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

/// Runs `callback` every `period_ns`, for the first time a period from now. It keeps its phase: the
/// k-th call is due at start + k * period_ns, whatever the callbacks cost. Calls that the loop
/// comes too late for are left out, and counted by loop_skipped(). Inside the callback the handle
/// is live, and loop_when() is the next call.
///
/// Returns a handle, or -EINVAL for a period of 0, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1).
/// The loop's thread.
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

/// The time in nanoseconds, read from the clock at every call: CLOCK_MONOTONIC, or the loop's own
/// clock if it was made with LOOP_VIRTUAL_TIME. NULL is CLOCK_MONOTONIC. About 25 ns. Any thread,
/// at any moment while the loop is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_time(r#loop: ConstLoopPtr<'_>) -> u64 {
    r#loop.public().map_or_else(|_| monotonic(), |lp| lp.clock.now())
}

/// The earliest deadline of the timers that do not stand in the ready queue, or LOOP_NEVER. O(1);
/// after the timer that had it was cancelled, O(log n) amortized. The loop's thread; LOOP_NEVER
/// from others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_next_deadline(r#loop: ConstLoopPtr<'_>) -> u64 {
    r#loop.ask(None, Loop::next_deadline).unwrap_or(Time::NEVER).as_nanos()
}

/// Cancels what a handle names. Its callback will not run again, even if it stands in the batch
/// that is being run; its release hook runs before this returns. (Later in two cases: for the
/// callback that is running, when that returns; inside of sixteen nested release hooks, when the
/// innermost returns.) For operations and work that have begun both are still to come.
///
/// Returns 0: gone; 1: asked, for operations and work, whose final callback is still to come, or
/// -ENOENT the handle is stale; -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1), however many are
/// pending; allocates nothing. No system call, but one as a rule for the last watcher of a
/// descriptor: the kernel lets go of the file before this returns, and before the release hook. The
/// loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_cancel(r#loop: LoopPtr<'_>, handle: loop_handle_t) -> c_int {
    let cancelled = r#loop.with(|lp| lp.end(handle_from_c(handle)));
    number(cancelled.map(|cancelled| c_int::from(cancelled == Cancelled::Asked)))
}

/// Moves a timer to `when_ns`, behind those that are due then already; the handle stays. One that
/// stands in the batch that is being run is taken out of it. A repeating timer takes its phase from
/// there.
///
/// Errors: -EINVAL not a timer; -ENOENT the handle is stale; -ENOMEM, -ESHUTDOWN, -EPERM,
/// -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_reschedule(
    r#loop: LoopPtr<'_>,
    handle: loop_handle_t,
    when_ns: u64,
) -> c_int {
    let when = Time::from_nanos(when_ns);
    status(r#loop.add(Ok(()), |lp, ()| lp.move_timer(handle_from_c(handle), when)))
}

/// Writes when a timer is due; for a repeating one inside its callback, the next call.
///
/// Errors: -EINVAL not a timer, or `when_ns` is NULL; -ENOENT the handle is stale; -ESHUTDOWN,
/// -EPERM, -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_when(
    r#loop: ConstLoopPtr<'_>,
    handle: loop_handle_t,
    when_ns: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    ask(r#loop, handle, when_ns, |lp, handle| lp.when(handle).map(Time::as_nanos))
}

/// Writes how many calls of a repeating timer were left out, because the loop came too late for
/// them; 0 for other timers.
///
/// Errors: those of loop_when(). O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_skipped(
    r#loop: ConstLoopPtr<'_>,
    handle: loop_handle_t,
    count: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    ask(r#loop, handle, count, Loop::skipped)
}

/// Whether what the handle names is still to run. The loop's thread; false from others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_is_pending(r#loop: ConstLoopPtr<'_>, handle: loop_handle_t) -> bool {
    r#loop.ask(false, |lp| lp.is_pending(handle_from_c(handle)))
}

/// The handle of the callback that is running, else 0; that of a callback which runs once is stale
/// by then. A post of another thread has none. The loop's thread; 0 from others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_current(r#loop: ConstLoopPtr<'_>) -> loop_handle_t {
    r#loop.ask(None, Loop::current_handle).map_or(0, Handle::as_raw)
}

/// Makes what the handle names count for loop_run(), as it does from the start.
///
/// Errors: -EINVAL a hook or a signal handler, which never count; -ENOENT the handle is stale;
/// -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_ref(r#loop: LoopPtr<'_>, handle: loop_handle_t) -> c_int {
    status(r#loop.with(|lp| lp.ref_(handle_from_c(handle))))
}

/// Makes what the handle names not count for loop_run(), which then returns though it is pending:
/// for an operation, though the kernel has its buffer, and though it was cancelled and its final
/// callback is still to come.
///
/// Errors: those of loop_ref(). O(1). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_unref(r#loop: LoopPtr<'_>, handle: loop_handle_t) -> c_int {
    status(r#loop.with(|lp| lp.unref(handle_from_c(handle))))
}

/// Whether what the handle names counts for loop_run(). The loop's thread; false from others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_has_ref(r#loop: ConstLoopPtr<'_>, handle: loop_handle_t) -> bool {
    r#loop.ask(false, |lp| lp.has_ref(handle_from_c(handle)))
}

/// Has `release` called with the `arg` of what the handle names, exactly once, when that has ended:
/// has run for the last time, was cancelled, or was pending when the loop was closed; never while
/// its callback is on the stack. This is the place to free `arg`. One hook a handle: a second one
/// replaces the first, NULL removes it.
///
/// The hook may call any function of the loop; while the loop is being closed these answer
/// -ESHUTDOWN. It runs inside of loop_cancel(). Hooks that cancel one another in a chain go sixteen
/// deep on the stack, however long the chain is: the others run when the sixteenth returns.
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
        // SAFETY: the hook gets the argument of the callback that it is given for.
        lp.set_release(handle, unsafe { release.for_arg(function.arg) })
    }))
}

/// Runs `callback` in every iteration, at the point that `when` names: LOOP_BEFORE_WAIT or
/// LOOP_AFTER_WAIT. To embed other loops. Hooks run in the order in which they were added, and keep
/// no run alive. What a hook schedules may run in the same iteration.
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

/// Asks for one number about a handle, and writes it to `out` if there is one.
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
