//! Lifecycle: options, creating, adopting, shutting down, closing.

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

/// The loop uses a virtual clock, which starts at `start_ns`. Whenever the loop would sleep, the
/// clock jumps to the next deadline, or to the limit of loop_run_once(): a test runs an hour of
/// timers in a millisecond. With no deadline and no limit the loop sleeps for real. While an
/// operation, work or the end of a child is pending, the loop also sleeps for real and the clock
/// stands still: no timer runs, and no deadline of an operation expires. Watchers of descriptors do
/// not stop the clock. loop_set_slow_callback() measures real time.
pub const LOOP_VIRTUAL_TIME: u32 = 1;

/// The value of slack_ns for exact deadlines.
pub const LOOP_EXACT: u64 = 1;

/// Settings for loop_new(). Start from LOOP_OPTIONS_INIT; 0 in a field selects the default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct loop_options_t<'a> {
    /// sizeof(loop_options_t) when the program was compiled. Newer fields count as 0.
    pub size: u32,
    /// LOOP_VIRTUAL_TIME or 0.
    pub flags: u32,
    /// Entries of the submission queue: at most 32768. The default is 128, or cq_entries if that is
    /// less. The kernel rounds the number up to a power of two.
    pub sq_entries: u32,
    /// Entries of the completion queue: at least sq_entries, at most 65536. The default is 8 *
    /// sq_entries, or 65536 if that is less. Completions that do not fit wait in memory of the
    /// kernel, which costs a system call. If the kernel has no memory for a completion, the
    /// completion is lost, and a run returns -EBADR.
    pub cq_entries: u32,
    /// The loop polls the ring and the clock for this long before it sleeps. For this long before a
    /// deadline, the loop also polls instead of sleeping. Polling lowers latency and keeps a
    /// processor busy. With LOOP_VIRTUAL_TIME the option has no effect, since the virtual clock
    /// stands still while the loop polls.
    pub spin_ns: u64,
    /// A timer may run this much late, and never early. A larger slack gives fewer wakeups. With
    /// LOOP_EXACT each deadline is exact, whatever that costs. With 0, the default, a timer that
    /// stands alone is exact. A timer in a dense stream, where deadlines follow each other closely,
    /// is at most one gap late. The gap is four times the latency of a wakeup, which the loop
    /// measures, within 10 and 200 us; see gap_ns in loop_metrics_t.
    pub slack_ns: u64,
    /// The time at which the clock of LOOP_VIRTUAL_TIME starts.
    pub start_ns: u64,
    /// The name of a file for trace events, which Perfetto and chrome://tracing show. With NULL the
    /// name is that of RINGLOOP_TRACE in the environment, if that is set. `%p` in the name stands
    /// for the number of the process. A file stays open until the process ends. See
    /// docs/tracing.md.
    pub trace: Str<'a>,
    /// The maximum number of threads for loop_run_in_executor() and loop_getaddrinfo(); the default
    /// is 4 threads. A thread is started when there is work for it. The default suits work that
    /// waits. For work that computes, set one thread for each processor.
    pub executor_threads: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: the struct consists of numbers after a size, and a string of C, which may be NULL.
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
        .executor_threads(options.executor_threads);
    let builder = match options.slack_ns {
        0 => builder,
        LOOP_EXACT => builder.slack(Duration::ZERO),
        slack_ns => builder.slack(Duration::from_nanos(slack_ns)),
    };
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
/// Costs a few system calls. An operation has the credentials that the process has when the
/// operation goes to the kernel, not those at the time of loop_new(). A change of credentials
/// closes no descriptor. loop_close() frees the loop.
///
/// Errors: -EPERM, -EACCES, -ENOSYS io_uring is disabled (by the sysctl kernel.io_uring_disabled,
/// or by the seccomp profile of a container), or only io_uring_enter() or io_uring_register() is
/// refused; -ENOSYS also if the kernel has no io_uring that is new enough (Linux 5.10); -EMFILE,
/// -ENFILE, -ENOMEM a limit was reached: some kernels (6.14 to 6.18) count the queues of a loop as
/// locked memory of the user (ulimit -l), 28 KiB by default, 8 KiB with sq_entries 64 and
/// cq_entries 128; -EINVAL `out` is NULL, a flag or a number of entries is out of range, or
/// RINGLOOP_KERNEL is not a version; -E2BIG the options use a feature that is newer than this
/// library; the errors of opening the trace file. loop_last_error() names the setting to change.
///
/// Any thread. Since Linux 5.10; Linux 6.1 or later is recommended.
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

/// Makes the calling thread the owner of a loop that has not run yet. A program can make a loop in
/// main(), where a failure is easy to report, and run it in a worker thread. After the call the
/// former owner gets -EPERM. Everything that was scheduled stays scheduled.
///
/// The caller must ensure that the last call of the former owner has returned before this call, for
/// example with pthread_create().
///
/// Errors: -EBUSY the loop has run, or was bound to its thread by a system call on its ring:
/// loop_fd(), loop_flush(), loop_forget_fd(), or more operations than the submission queue holds;
/// -EDEADLK the caller is a thread of the loop's own executor; -EOWNERDEAD, -ESHUTDOWN, -ENOMEM,
/// -EINVAL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_adopt(r#loop: LoopPtr<'_>) -> c_int {
    // SAFETY: C promises that the former owner's last call has returned.
    status(r#loop.public().and_then(|lp| unsafe { lp.adopt() }))
}

/// Shuts a loop down: cancels everything that is pending, and runs until the last final callback
/// has run. The loop accepts nothing new afterwards (-ESHUTDOWN). Call loop_close() next.
///
/// Errors: -EBUSY the call was made inside a run or a callback of this loop; the errors of
/// loop_run(), after which the function can be called again. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_shutdown(r#loop: LoopPtr<'_>) -> c_int {
    status(r#loop.with(Loop::shutdown))
}

/// Runs until nothing is left that counts for loop_run(), for at most `timeout_ns`, and then shuts
/// down as loop_shutdown() does. Everything that is pending has that time to end by itself. Cancel
/// listeners and similar operations before the call, since they never end by themselves.
/// loop_stop(), loop_break() and signals do not end the wait. With LOOP_VIRTUAL_TIME the timeout is
/// measured on the virtual clock, and on CLOCK_MONOTONIC while the loop sleeps for an operation,
/// since the virtual clock stands still then.
///
/// Returns how many things that counted had to be cancelled: 0 if all ended by themselves. Errors:
/// the errors of loop_run() and of loop_shutdown(). The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_shutdown_within(r#loop: LoopPtr<'_>, timeout_ns: u64) -> c_int {
    count(r#loop.with(|lp| lp.shutdown_within(Duration::from_nanos(timeout_ns))))
}

/// Closes a loop and frees it. The call cancels everything that is pending and runs the release
/// hooks, but no callbacks. The pointer is invalid afterwards, as after free(). NULL is allowed and
/// does nothing.
///
/// In a forked child the call frees the child's copy of the memory and does nothing else: no
/// release hook runs there, and later calls with the pointer still return -EOWNERDEAD. In a child
/// that was forked in a callback, the call returns -EOWNERDEAD until that callback has returned. In
/// a child that was forked by another thread than the loop's, the call returns 0 at once and leaks
/// the memory, which the loop's thread may have been changing.
///
/// A thread that exits and leaves a loop open cancels the loop's reads and writes of files and its
/// sends without a copy, and waits for them for at most one second: after the exit, nothing can ask
/// the kernel whether a device still uses their buffers. All other operations of the loop in the
/// kernel end with the thread. loop_close() on another thread then runs the release hooks, except
/// those of operations that took longer than that second. A main thread that leaves by
/// pthread_exit() does not wait, since pthread_exit() calls no library there: the release hooks of
/// its reads and writes of files, and of its sends without a copy, do not run, unless the thread
/// waits for the end of these operations before it exits.
///
/// A thread has exited when the kernel reports the exit. For a main thread that has left by
/// pthread_exit(), /proc reports the exit: without /proc, the loops of that thread stay open.
///
/// The call also frees the loop if io_uring_enter() is refused, for example by a seccomp filter
/// that was installed after loop_new(). In that case the release hooks of operations that the
/// kernel has taken do not run, since the kernel may still use their memory.
///
/// Errors, with nothing changed: -EBUSY the call was made inside a run or a callback of this loop;
/// -ESHUTDOWN the call was made in a release hook while the loop is being closed; -EDEADLK the
/// caller is a thread of the loop's own executor, for whose work the call would wait; -EPERM. The
/// loop's thread; any thread after the loop's thread has exited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_close(r#loop: LoopPtr<'_>) -> c_int {
    close(r#loop, u64::MAX)
}

/// Closes a loop as loop_close() does, but gives up after `timeout_ns`, if the kernel has not
/// released the loop's operations by then, or work of loop_run_in_executor() has not ended. Calls,
/// timers and hooks keep nothing in the kernel: a loop with only these is always closed.
///
/// Errors: -ETIMEDOUT the call gave up: nothing was freed, and the function can be called again,
/// but operations and work were cancelled as by loop_cancel(), and a run brings their final
/// callbacks; -ENOMEM no memory is left for the results of operations, which loop_close() does not
/// need; the errors of io_uring_enter(), with nothing freed; the errors of loop_close(). The loop's
/// thread; any thread after the loop's thread has exited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_close_within(r#loop: LoopPtr<'_>, timeout_ns: u64) -> c_int {
    close(r#loop, timeout_ns)
}

fn close(lp: LoopPtr<'_>, limit_ns: u64) -> c_int {
    match lp.as_ptr() {
        lp if lp.is_null() => 0,
        // SAFETY: C promises that the loop is open, and does not use the pointer of a closed loop.
        lp => status(unsafe { Loop::close_raw(lp, limit_ns) }),
    }
}

/// Stores a pointer for the program; the pointer is NULL at first. A call from another thread does
/// nothing. The loop's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_set_data(r#loop: LoopPtr<'_>, data: *mut c_void) {
    let _ = r#loop.with(|lp| {
        lp.word().set(data);
        Ok(())
    });
}

/// Gets the pointer that loop_set_data() has stored. The loop's thread; NULL on another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loop_data(r#loop: ConstLoopPtr<'_>) -> *mut c_void {
    r#loop.with(|lp| Ok(lp.word().get())).unwrap_or(ptr::null_mut())
}
