//! Introspection: metrics, slow callbacks, walk.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::time::Duration;

use super::{
    Arg, ConstLoopPtr, Function, LoopPtr, Versioned, VersionedOut, loop_handle_t, loop_t, status,
};
use crate::abi::handle::Kind;
use crate::abi::source::Source;
/// A callback of loop_call_soon().
pub const LOOP_KIND_CALL: u32 = 1;
/// A timer of loop_call_later() or loop_call_at().
pub const LOOP_KIND_TIMER: u32 = 2;
/// A repeating timer of loop_call_every().
pub const LOOP_KIND_REPEAT: u32 = 3;
/// A hook of loop_add_hook().
pub const LOOP_KIND_HOOK: u32 = 4;
/// A handler of loop_add_signal_handler().
pub const LOOP_KIND_SIGNAL: u32 = 5;
/// An operation of loop_submit(), or of a function that submits.
pub const LOOP_KIND_OPERATION: u32 = 6;
/// A watcher of loop_watch_fd().
pub const LOOP_KIND_WATCH: u32 = 7;
/// Work of loop_run_in_executor() or loop_getaddrinfo().
pub const LOOP_KIND_WORK: u32 = 8;
/// A watcher of loop_watch_child().
pub const LOOP_KIND_CHILD: u32 = 9;
/// A task of a program in Rust.
pub const LOOP_KIND_TASK: u32 = 10;

/// The constant LOOP_KIND_* of a kind.
const fn kind_to_c(kind: Kind) -> u32 {
    match kind {
        Kind::Call => LOOP_KIND_CALL,
        Kind::Timer => LOOP_KIND_TIMER,
        Kind::Repeat => LOOP_KIND_REPEAT,
        Kind::Hook => LOOP_KIND_HOOK,
        Kind::Signal => LOOP_KIND_SIGNAL,
        Kind::Operation => LOOP_KIND_OPERATION,
        Kind::Watch | Kind::Poll => LOOP_KIND_WATCH,
        Kind::Work => LOOP_KIND_WORK,
        Kind::Child => LOOP_KIND_CHILD,
        Kind::Task => LOOP_KIND_TASK,
    }
}

/// Counters since the loop was made, and two measurements. Set `size` to sizeof(loop_metrics_t)
/// before the call; no more than that is written.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct loop_metrics_t {
    /// sizeof(loop_metrics_t), set by the caller.
    pub size: u32,
    /// Iterations begun.
    pub iterations: u64,
    /// Callbacks begun, including timers, without hooks.
    pub callbacks: u64,
    /// Timer callbacks begun, including every call of repeating timers.
    pub timers_fired: u64,
    /// Timers cancelled, including those that close and shutdown cancel.
    pub timers_cancelled: u64,
    /// Calls of repeating timers that were left out because the loop was too late.
    pub timers_skipped: u64,
    /// Nanoseconds asleep in the kernel, by the loop's clock.
    pub asleep_ns: u64,
    /// Submission queue entries that the kernel has taken.
    pub submitted: u64,
    /// Completions that the loop has taken.
    pub completed: u64,
    /// Calls of io_uring_enter().
    pub enters: u64,
    /// How often the loop found that the completion queue had overflowed, which costs system calls.
    pub overflows: u64,
    /// Callbacks that other threads posted.
    pub posts: u64,
    /// How often another thread had to wake the loop.
    pub wakes: u64,
    /// How late timers became ready. late[i] counts the timers that were at least 2^i ns and less
    /// than 2^(i+1) ns late; late[0] counts those under 2 ns, late[31] all from 2.1 s.
    pub late: [u64; 32],
    /// How late the kernel ends a sleep, in nanoseconds: the median of the last 64 sleeps that
    /// ended at a deadline, computed after each 16. The value is 50,000 before the first 16 sleeps,
    /// with a slack_ns other than LOOP_EXACT, and with spin_ns.
    pub wake_latency_ns: u64,
    /// The time that a timer in a dense stream may be late, in nanoseconds, in addition to
    /// wake_latency_ns; 0 where each deadline is exact. See slack_ns in loop_options_t.
    pub gap_ns: u64,
}

// SAFETY: the struct consists of numbers after a size.
unsafe impl Versioned for loop_metrics_t {}

/// Something that is pending, as loop_walk() shows it. `size` is the size that this library knows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct loop_info_t {
    /// sizeof(loop_info_t) in the library: fields beyond it do not exist.
    pub size: u32,
    /// LOOP_KIND_CALL and so on.
    pub kind: u32,
    /// The handle.
    pub handle: loop_handle_t,
    /// The address of the callback; NULL for a closure in Rust.
    pub callback_address: *mut c_void,
    /// The argument of the callback.
    pub arg: *mut c_void,
    /// The time at which a timer is due, or the deadline of an operation; otherwise LOOP_NEVER.
    pub when_ns: u64,
    /// The descriptor that it uses; -1 if there is none.
    pub fd: c_int,
    /// Whether it counts for loop_run().
    pub referenced: bool,
}

/// Gets the report of a slow callback: how long the callback held the loop, its kind
/// (LOOP_KIND_CALL and so on) and its address.
pub type loop_slow_callback_t = Option<
    unsafe extern "C-unwind" fn(
        r#loop: *mut loop_t,
        duration_ns: u64,
        kind: u32,
        callback_address: *mut c_void,
        arg: *mut c_void,
    ),
>;

/// Gets each thing that is pending. `info` is valid during the call.
pub type loop_walk_callback_t = Option<
    unsafe extern "C-unwind" fn(r#loop: *mut loop_t, info: *const loop_info_t, arg: *mut c_void),
>;

/// Writes the counters of the loop to `out`. They are exact. Set `out->size` first.
///
/// Errors: -EINVAL `out` is NULL or `out->size` is less than 4; -ESHUTDOWN, -EPERM, -EOWNERDEAD.
/// The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_metrics(
    r#loop: ConstLoopPtr<'_>,
    mut out: VersionedOut<'_, loop_metrics_t>,
) -> c_int {
    status(r#loop.with_args(out.check(), |lp, ()| {
        lp.check_answers()?;
        let metrics = lp.metrics();
        out.write(&loop_metrics_t {
            size: size_of::<loop_metrics_t>() as u32,
            iterations: metrics.iterations,
            callbacks: metrics.callbacks,
            timers_fired: metrics.timers_fired,
            timers_cancelled: metrics.timers_cancelled,
            timers_skipped: metrics.timers_skipped,
            asleep_ns: metrics.asleep_ns,
            submitted: metrics.submitted,
            completed: metrics.completed,
            enters: metrics.enters,
            overflows: metrics.overflows,
            posts: metrics.posts,
            wakes: metrics.wakes,
            late: metrics.late,
            wake_latency_ns: metrics.wake_latency_ns,
            gap_ns: metrics.gap_ns,
        })
    }))
}

/// Calls `callback` after every callback that held the loop for `threshold_ns` or longer. A new
/// `callback` replaces the former one. A threshold of 0 or a NULL callback ends the reports. Costs
/// one reading of the clock for each callback while it is set, nothing otherwise. With
/// RINGLOOP_DEBUG=1 in the environment, every loop also reports callbacks of 100 ms and longer on
/// stderr.
///
/// Errors: -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_set_slow_callback(
    r#loop: LoopPtr<'_>,
    threshold_ns: u64,
    callback: Function<'_, loop_slow_callback_t>,
    arg: Arg<'_>,
) -> c_int {
    status(r#loop.with(|lp| {
        let Ok(callback) = callback.with(&arg) else { return lp.clear_slow_callback() };
        lp.set_slow_callback(Duration::from_nanos(threshold_ns), move |lp, slow| {
            let duration = u64::try_from(slow.duration.as_nanos()).unwrap_or(u64::MAX);
            let (address, _) = address_and_arg(slow.source);
            callback.call(lp, duration, kind_to_c(slow.kind), address);
        })
    }))
}

/// Shows everything that is pending to `callback`, in no order that is promised. It finds forgotten
/// callbacks. The callback may call any function of the loop, loop_cancel() included, except
/// loop_close() and loop_shutdown(), which return -EBUSY. Callbacks that it schedules may or may
/// not be shown. Posts of other threads have no handles and are not shown, except delayed ones.
/// O(n).
///
/// Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_walk(
    r#loop: LoopPtr<'_>,
    callback: Function<'_, loop_walk_callback_t>,
    arg: Arg<'_>,
) -> c_int {
    status(r#loop.with_args(callback.with(&arg), |lp, callback| {
        lp.walk(|lp, info| {
            let (callback_address, callback_arg) = address_and_arg(info.source);
            let info = loop_info_t {
                size: size_of::<loop_info_t>() as u32,
                kind: kind_to_c(info.kind),
                handle: info.handle.as_raw(),
                callback_address,
                arg: callback_arg,
                when_ns: info.when.as_nanos(),
                fd: info.fd.unwrap_or(-1),
                referenced: info.referenced,
            };
            callback.call(lp, &raw const info);
        })
    }))
}

/// The address and the argument of a C callback; NULL for a closure.
fn address_and_arg(source: Source) -> (*mut c_void, *mut c_void) {
    match source {
        Source::C(function) => (function.address, function.arg),
        Source::Rust(_) => (ptr::null_mut(), ptr::null_mut()),
    }
}
