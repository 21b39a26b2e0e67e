//! Lifecycle: options, making, adopting, shutting down, closing.

use std::ffi::{CStr, OsStr, OsString, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;

use super::{
    ConstLoopPtr, LoopPtr, NULL_POINTER, OPTIONS_TOO_NEW, Str, Versioned, VersionedIn, count,
    loop_t, status,
};
use crate::error::{Error, Result, Sentence};
use crate::event_loop::Loop;
use crate::event_loop::builder::Builder;
use crate::time::Time;

/// The loop has a clock of its own, which starts at `start_ns` and jumps to the next deadline, or
/// to the limit of loop_run_once(), whenever the loop would sleep: an hour of timers in a
/// millisecond, for tests. With no deadline ahead and no limit it sleeps for real. It does so too,
/// and the clock stands still, as long as an operation, work or a child's end is pending: no timer
/// comes then, nor the deadline of an operation that waits. Watchers of descriptors do not hold it
/// up. loop_set_slow_callback() goes by real time.
pub const LOOP_VIRTUAL_TIME: u32 = 1;

/// Settings for loop_new(). Start from LOOP_OPTIONS_INIT; a field that is 0 asks for the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct loop_options_t<'a> {
    /// sizeof(loop_options_t) as the program was compiled: newer fields count as 0.
    pub size: u32,
    /// LOOP_VIRTUAL_TIME or 0.
    pub flags: u32,
    /// Entries of the submission queue: at most 32768; default 128, or cq_entries if that is less.
    /// The kernel rounds up to a power of two.
    pub sq_entries: u32,
    /// Entries of the completion queue: at least sq_entries, at most 65536; default 8 * sq_entries,
    /// or 65536 if that is less. Completions that do not fit wait in memory of the kernel's, at the
    /// cost of a system call; where the kernel has no memory for one, it is lost, and a run says
    /// -EBADR.
    pub cq_entries: u32,
    /// Before it sleeps, and before a deadline, the loop looks at the ring and the clock for so
    /// long instead of sleeping: less latency, for a busy processor. With LOOP_VIRTUAL_TIME it does
    /// nothing: that clock does not go on meanwhile.
    pub spin_ns: u64,
    /// A timer may run up to so much late, never early, for fewer wakeups.
    pub slack_ns: u64,
    /// Where the clock of LOOP_VIRTUAL_TIME starts.
    pub start_ns: u64,
    /// The name of a file for trace events, which Perfetto and chrome://tracing show; NULL is what
    /// RINGLOOP_TRACE in the environment names, if anything. `%p` in it is the process's number. A
    /// file stays open until the process ends. See docs/tracing.md.
    pub trace: Str<'a>,
    /// At most so many threads for loop_run_in_executor() and loop_getaddrinfo(), started when
    /// there is work for them; default
    /// 4. That is for work that waits; for work that computes, ask for a thread a processor.
    pub executor_threads: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: it is numbers after a size, and a string of C's, which may be NULL.
unsafe impl Versioned for loop_options_t<'_> {}

fn builder(options: &loop_options_t<'_>) -> Result<Builder> {
    if options.reserved != 0 {
        return Err(OPTIONS_TOO_NEW);
    }
    if options.flags & !LOOP_VIRTUAL_TIME != 0 {
        return Err(Error::new(Errno::EINVAL, Sentence::UnknownFlag));
    }
    let builder = Loop::builder()
        .sq_entries(options.sq_entries)
        .cq_entries(options.cq_entries)
        .spin(Duration::from_nanos(options.spin_ns))
        .slack(Duration::from_nanos(options.slack_ns))
        .executor_threads(options.executor_threads);
    let builder = match options.trace.get() {
        Some(trace) => builder.trace(path(trace)?),
        None => builder,
    };
    Ok(match options.flags & LOOP_VIRTUAL_TIME {
        0 => builder,
        _ => builder.virtual_time(Time::from_nanos(options.start_ns)),
    })
}

fn path(name: &CStr) -> Result<PathBuf> {
    let mut path = OsString::new();
    path.try_reserve(name.count_bytes())?;
    path.push(OsStr::from_bytes(name.to_bytes()));
    Ok(path.into())
}

/// Makes a loop, which belongs to the calling thread. `options` may be NULL: all defaults.
///
/// Costs a few system calls. An operation has the credentials that the process has when it goes to
/// the kernel, not those of now; what is open stays open. End it with loop_close().
///
/// Errors: -EPERM, -EACCES io_uring is switched off here (sysctl kernel.io_uring_disabled, a
/// container's seccomp profile), or io_uring_enter() or io_uring_register() alone; -ENOSYS the
/// same, or the kernel has none that is new enough (5.10); -EMFILE, -ENFILE, -ENOMEM a limit is
/// met: some kernels (6.18) count the queues as locked memory of the user (ulimit -l), 28 KiB by
/// default, 8 with sq_entries 64 and cq_entries 128; -EINVAL `out` is NULL, a flag or a number of
/// entries is out of range, or RINGLOOP_KERNEL is not a version; -E2BIG the options ask for
/// something newer than this library; what opening the file for a trace says. loop_last_error()
/// says in a sentence what to change.
///
/// Any thread. Since Linux 5.10; at its best from 6.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_new(
    options: VersionedIn<'_, loop_options_t<'_>>,
    out: Option<&mut MaybeUninit<*mut loop_t>>,
) -> c_int {
    let make = || {
        let out = out.ok_or(NULL_POINTER)?;
        let builder =
            options.read()?.map_or_else(|| Ok(Loop::builder()), |options| builder(&options))?;
        out.write(builder.build()?.into_raw()?.cast());
        Ok(())
    };
    status(make())
}

/// Hands a loop that has not run yet to the calling thread: make it in main(), where a failure is
/// easy to report, run it in a worker. From then on the former owner gets -EPERM. What has been
/// scheduled comes along.
///
/// The caller sees to it that the former owner's last call has returned before (pthread_create()
/// does).
///
/// Errors: -EBUSY the loop has run, or been bound to its thread by a system call on its ring:
/// loop_fd(), loop_flush(), loop_forget_fd(), or more operations than the submission queue holds;
/// -EDEADLK on a thread of the loop's own executor; -EOWNERDEAD, -ESHUTDOWN, -ENOMEM, -EINVAL. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_adopt(r#loop: LoopPtr<'_>) -> c_int {
    // SAFETY: C promises that the former owner's last call has returned.
    status(r#loop.public().and_then(|lp| unsafe { lp.adopt() }))
}

/// Ends a loop in the friendly way: cancels all that is pending, and runs until the last final
/// callback has come. From then on the loop takes nothing new (-ESHUTDOWN); close it next.
///
/// Errors: -EBUSY from inside a run or a callback of this loop; those of loop_run(), after which it
/// can be called again. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_shutdown(r#loop: LoopPtr<'_>) -> c_int {
    status(r#loop.with(Loop::shutdown))
}

/// Runs until nothing that counts for loop_run() is left, for `timeout_ns` at most, and then shuts
/// down as loop_shutdown() does: what is under way may end by itself, but not for ever. Listeners
/// and the like, which never end by themselves, are to be cancelled before. loop_stop(),
/// loop_break() and signals do not end it. With LOOP_VIRTUAL_TIME the timeout counts by the virtual
/// clock, and by CLOCK_MONOTONIC while the loop sleeps for an operation, which that clock does not
/// count.
///
/// Returns how many things that counted had to be cancelled: 0 when all have ended by themselves.
/// Errors: those of loop_run() and of loop_shutdown(). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_shutdown_within(r#loop: LoopPtr<'_>, timeout_ns: u64) -> c_int {
    count(r#loop.with(|lp| lp.shutdown_within(Duration::from_nanos(timeout_ns))))
}

/// Closes a loop and frees it: cancels all that is pending, runs release hooks, runs no callbacks.
/// The pointer is dead from then on, as after free(). NULL is fine and does nothing.
///
/// In a forked child it frees the child's copy of the memory and does nothing else: no release hook
/// runs there, and calls with the pointer go on to answer -EOWNERDEAD. In a child that was forked
/// in a callback it is -EOWNERDEAD until that callback has returned. In a child that was forked by
/// another thread than the loop's it returns 0 at once and leaks the memory, which the loop's
/// thread may have been changing.
///
/// A thread that exits and leaves a loop open asks its reads and writes of files, and its sends
/// without a copy, to end, and waits for these a second at most: afterwards nobody could ask the
/// kernel when a device has let go of their buffers. All else that it had in the kernel ends with
/// it. loop_close() on another thread then runs the release hooks, but for operations that took
/// longer than that second. A main thread that leaves by pthread_exit() does not wait, since that
/// calls no library: the release hooks of its reads and writes of files, and of its sends without a
/// copy, do not run, unless it waits for their ends before.
///
/// A thread has exited when the kernel says so. Of a main thread that has left by pthread_exit(),
/// /proc says so: without /proc, its loops stay open.
///
/// It frees the loop also where io_uring_enter() is refused, as by a filter that was installed
/// after loop_new(). Of operations that the kernel has taken, the release hooks do not run then: it
/// may still use their memory.
///
/// Errors, with nothing changed: -EBUSY from inside a run or a callback of this loop; -ESHUTDOWN
/// from a release hook while it is being closed; -EDEADLK on a thread of the loop's own executor,
/// for whose work it would wait; -EPERM. The loop's thread; any thread once that has exited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_close(r#loop: LoopPtr<'_>) -> c_int {
    close(r#loop, u64::MAX)
}

/// Closes a loop as loop_close() does, but gives up after `timeout_ns`: when the kernel has not let
/// go of the loop's operations by then, or work of loop_run_in_executor() has not ended. Calls,
/// timers and hooks keep nothing in the kernel: with these alone it never gives up.
///
/// Errors: -ETIMEDOUT it has given up: nothing is freed, and it can be called again, but operations
/// and work have been cancelled by then, as by loop_cancel(): a run brings their final callbacks;
/// -ENOMEM there is no memory for results of operations, which loop_close() does without; those of
/// io_uring_enter(), with nothing freed; those of loop_close(). The loop's thread; any thread once
/// that has exited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_close_within(r#loop: LoopPtr<'_>, timeout_ns: u64) -> c_int {
    close(r#loop, timeout_ns)
}

fn close(lp: LoopPtr<'_>, limit_ns: u64) -> c_int {
    match lp.as_ptr() {
        lp if lp.is_null() => 0,
        // SAFETY: C promises that the loop is open, and that the pointer is dead from then on.
        lp => status(unsafe { Loop::close_raw(lp, limit_ns) }),
    }
}

/// Keeps a pointer for the program; NULL at first. Does nothing from another thread. The loop's
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_set_data(r#loop: LoopPtr<'_>, data: *mut c_void) {
    let _ = r#loop.with(|lp| {
        lp.word().set(data);
        Ok(())
    });
}

/// The pointer that loop_set_data() keeps; NULL from another thread. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_data(r#loop: ConstLoopPtr<'_>) -> *mut c_void {
    r#loop.with(|lp| Ok(lp.word().get())).unwrap_or(ptr::null_mut())
}
