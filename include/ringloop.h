/*
 * ringloop: an event loop for Linux on io_uring.
 *
 *     #include <ringloop.h>
 *
 *     static void hello(loop_t *loop, void *arg) { puts(arg); }
 *
 *     loop_t *loop;
 *     if (loop_new(NULL, &loop) < 0) errx(1, "%s", loop_last_error());
 *     loop_call_later(loop, LOOP_MSEC(100), hello, "hello");
 *     loop_run(loop);
 *     loop_close(loop);
 *
 * Compile with `pkg-config --cflags --libs ringloop`.
 *
 * What holds for all functions:
 *
 *   Errors    An int or a loop_handle_t that is negative is -errno; an int of which nothing else is said is 0 on success.
 *             loop_strerror() names an error, loop_last_error() says in a sentence what went wrong. Nothing is written to an
 *             out parameter on failure, and nothing is lost: the loop stays usable, what was scheduled stays scheduled.
 *             Checked in this order: -EINVAL, -EOWNERDEAD, -EPERM, the state (-EBUSY, -ESHUTDOWN, -EDEADLK). An error that is named
 *             alone means: -EINVAL an argument is NULL or out of range; -EOWNERDEAD called in a forked child; -EPERM called
 *             by the wrong thread; -ESHUTDOWN the loop has been shut down, or is being closed; -ENOENT the handle is
 *             stale; -ENOMEM there is no memory; -EMFILE, -ENFILE there is no descriptor left. Functions that cannot carry an
 *             error answer false, 0, NULL or the time. The result of an operation, which comes to its callback, is an errno
 *             alone: loop_strerror() names it, and loop_last_error() knows nothing of it.
 *   Time      uint64_t nanoseconds on CLOCK_MONOTONIC. No delay is rounded. A timer never runs early.
 *   Order     What is ready stands in one queue, first in, first out. An iteration appends what other threads have posted,
 *             then what the kernel has completed, then the timers that are due, and runs the queue. So a post may overtake
 *             a completion that was there before it. Timers with the same deadline run in the order in which they were
 *             scheduled. What a callback schedules runs in a later iteration.
 *   Threads   A loop belongs to the thread that made it. "Any thread" says what others may call.
 *   Ownership An `arg` stays the caller's, and must live until its callback has returned for the last time, or was
 *             cancelled when it was not running; loop_on_release() tells when. A buffer that an operation was given belongs
 *             to the kernel until the final callback, or until its release hook. Addresses, paths and arrays are copied.
 *             Strings that are returned live for ever.
 *   Handles   A handle never dangles: a stale one is answered with -ENOENT, and so is 0, a negative number, and the handle of
 *             another loop where it can be told apart.
 *   Fork      A loop is the parent's. In the child every function answers -EOWNERDEAD and loop_close() frees memory alone. A
 *             run in whose callback the child was forked ends there with -EOWNERDEAD when the callback returns.
 *   Kernel    Linux 5.10 or later, unless a function says more.
 *
 * This file is generated from the library's source: do not edit it.
 */
#ifndef RINGLOOP_H
#define RINGLOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header: 0xMMmmpp, and in words. */
#define LOOP_VERSION_NUMBER 0x000100
#define LOOP_VERSION_STRING "0.1.0"

/* Durations in nanoseconds, of whole numbers: LOOP_USEC(500), for LOOP_MSEC(0.5) is 0. */
#define LOOP_NSEC(n) ((uint64_t)(n))
#define LOOP_USEC(n) ((uint64_t)(n) * UINT64_C(1000))
#define LOOP_MSEC(n) ((uint64_t)(n) * UINT64_C(1000000))
#define LOOP_SEC(n) ((uint64_t)(n) * UINT64_C(1000000000))

/* A time that never comes; a limit that is none. */
#define LOOP_NEVER UINT64_MAX

/* For loop_options_t options = LOOP_OPTIONS_INIT; */
#define LOOP_OPTIONS_INIT { sizeof(loop_options_t), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Of other headers: <linux/io_uring.h>, <netdb.h>, <sys/uio.h>, <sys/stat.h>. */
struct addrinfo;
struct io_uring_sqe;
struct iovec;
struct msghdr;
struct sockaddr;
struct statx;

/* A loop, which loop_new() makes and loop_close() frees. */
typedef struct loop_t loop_t;


/* ==== handles and callbacks ==== */

/**
 * Names something that was scheduled. A handle is greater than 0. It never dangles: once its thing
 * has ended, every function answers -ENOENT to it, also when its room has been used again since.
 */
typedef int64_t loop_handle_t;

/**
 * A callback: gets the loop it runs on, so that it can schedule more, and the `arg` that was given
 * with it.
 *
 * It must return: no longjmp, no pthread_exit. A C++ exception that leaves it aborts the process,
 * with a message that does not name the exception: what() is beyond what the library can ask for.
 * A callback that is started by ringloop.hpp may throw: the exception comes out of the run, or
 * what() stands in the message.
 */
typedef void (*loop_callback_t)(loop_t *loop, void *arg);

/**
 * A release hook: gets the `arg` of what has ended, exactly once.
 */
typedef void (*loop_release_t)(void *arg);

/* ==== lifecycle ==== */

/**
 * The loop has a clock of its own, which starts at `start_ns` and jumps to the next deadline, or
 * to the limit of loop_run_once(), whenever the loop would sleep: an hour of timers in a
 * millisecond, for tests. With no deadline ahead and no limit it sleeps for real. It does so too,
 * and the clock stands still, as long as an operation, work or a child's end is pending: no timer
 * comes then, nor the deadline of an operation that waits. Watchers of descriptors do not hold it
 * up. loop_set_slow_callback() goes by real time.
 */
#define LOOP_VIRTUAL_TIME 1

/**
 * Settings for loop_new(). Start from LOOP_OPTIONS_INIT; a field that is 0 asks for the default.
 */
typedef struct loop_options_t {
    /**
     * sizeof(loop_options_t) as the program was compiled: newer fields count as 0.
     */
    uint32_t size;
    /**
     * LOOP_VIRTUAL_TIME or 0.
     */
    uint32_t flags;
    /**
     * Entries of the submission queue: at most 32768; default 128, or cq_entries if that is less.
     * The kernel rounds up to a power of two.
     */
    uint32_t sq_entries;
    /**
     * Entries of the completion queue: at least sq_entries, at most 65536; default 8 * sq_entries,
     * or 65536 if that is less. Completions that do not fit wait in memory of the kernel's, at the
     * cost of a system call; where the kernel has no memory for one, it is lost, and a run says
     * -EBADR.
     */
    uint32_t cq_entries;
    /**
     * Before it sleeps, and before a deadline, the loop looks at the ring and the clock for so
     * long instead of sleeping: less latency, for a busy processor. With LOOP_VIRTUAL_TIME it does
     * nothing: that clock does not go on meanwhile.
     */
    uint64_t spin_ns;
    /**
     * A timer may run up to so much late, never early, for fewer wakeups.
     */
    uint64_t slack_ns;
    /**
     * Where the clock of LOOP_VIRTUAL_TIME starts.
     */
    uint64_t start_ns;
    /**
     * The name of a file for trace events, which Perfetto and chrome://tracing show; NULL is what
     * RINGLOOP_TRACE in the environment names, if anything. `%p` in it is the process's number. A
     * file stays open until the process ends. See docs/tracing.md.
     */
    const char *trace;
    /**
     * At most so many threads for loop_run_in_executor() and loop_getaddrinfo(), started when
     * there is work for them; default
     * 4. That is for work that waits; for work that computes, ask for a thread a processor.
     */
    uint32_t executor_threads;
    /**
     * Zero.
     */
    uint32_t reserved;
} loop_options_t;

/**
 * Makes a loop, which belongs to the calling thread. `options` may be NULL: all defaults.
 *
 * Costs a few system calls. An operation has the credentials that the process has when it goes to
 * the kernel, not those of now; what is open stays open. End it with loop_close().
 *
 * Errors: -EPERM, -EACCES io_uring is switched off here (sysctl kernel.io_uring_disabled, a
 * container's seccomp profile), or io_uring_enter() or io_uring_register() alone; -ENOSYS the
 * same, or the kernel has none that is new enough (5.10); -EMFILE, -ENFILE, -ENOMEM a limit is
 * met: some kernels (6.18) count the queues as locked memory of the user (ulimit -l), 28 KiB by
 * default, 8 with sq_entries 64 and cq_entries 128; -EINVAL `out` is NULL, a flag or a number of
 * entries is out of range, or RINGLOOP_KERNEL is not a version; -E2BIG the options ask for
 * something newer than this library; what opening the file for a trace says. loop_last_error()
 * says in a sentence what to change.
 *
 * Any thread. Since Linux 5.10; at its best from 6.1.
 */
int loop_new(const struct loop_options_t *options, loop_t **out);

/**
 * Hands a loop that has not run yet to the calling thread: make it in main(), where a failure is
 * easy to report, run it in a worker. From then on the former owner gets -EPERM. What has been
 * scheduled comes along.
 *
 * The caller sees to it that the former owner's last call has returned before (pthread_create()
 * does).
 *
 * Errors: -EBUSY the loop has run, or been bound to its thread by a system call on its ring:
 * loop_fd(), loop_flush(), loop_forget_fd(), or more operations than the submission queue holds;
 * -EDEADLK on a thread of the loop's own executor; -EOWNERDEAD, -ESHUTDOWN, -ENOMEM, -EINVAL. Any
 * thread.
 */
int loop_adopt(loop_t *loop);

/**
 * Ends a loop in the friendly way: cancels all that is pending, and runs until the last final
 * callback has come. From then on the loop takes nothing new (-ESHUTDOWN); close it next.
 *
 * Errors: -EBUSY from inside a run or a callback of this loop; those of loop_run(), after which it
 * can be called again. The loop's thread.
 */
int loop_shutdown(loop_t *loop);

/**
 * Runs until nothing that counts for loop_run() is left, for `timeout_ns` at most, and then shuts
 * down as loop_shutdown() does: what is under way may end by itself, but not for ever. Listeners
 * and the like, which never end by themselves, are to be cancelled before. loop_stop(),
 * loop_break() and signals do not end it. With LOOP_VIRTUAL_TIME the timeout counts by the virtual
 * clock, and by CLOCK_MONOTONIC while the loop sleeps for an operation, which that clock does not
 * count.
 *
 * Returns how many things that counted had to be cancelled: 0 when all have ended by themselves.
 * Errors: those of loop_run() and of loop_shutdown(). The loop's thread.
 */
int loop_shutdown_within(loop_t *loop, uint64_t timeout_ns);

/**
 * Closes a loop and frees it: cancels all that is pending, runs release hooks, runs no callbacks.
 * The pointer is dead from then on, as after free(). NULL is fine and does nothing.
 *
 * In a forked child it frees the child's copy of the memory and does nothing else: no release hook
 * runs there, and calls with the pointer go on to answer -EOWNERDEAD. In a child that was forked
 * in a callback it is -EOWNERDEAD until that callback has returned. In a child that was forked by
 * another thread than the loop's it returns 0 at once and leaks the memory, which the loop's
 * thread may have been changing.
 *
 * A thread that exits and leaves a loop open asks its reads and writes of files, and its sends
 * without a copy, to end, and waits for these a second at most: afterwards nobody could ask the
 * kernel when a device has let go of their buffers. All else that it had in the kernel ends with
 * it. loop_close() on another thread then runs the release hooks, but for operations that took
 * longer than that second. A main thread that leaves by pthread_exit() does not wait, since that
 * calls no library: the release hooks of its reads and writes of files, and of its sends without a
 * copy, do not run, unless it waits for their ends before.
 *
 * A thread has exited when the kernel says so. Of a main thread that has left by pthread_exit(),
 * /proc says so: without /proc, its loops stay open.
 *
 * It frees the loop also where io_uring_enter() is refused, as by a filter that was installed
 * after loop_new(). Of operations that the kernel has taken, the release hooks do not run then: it
 * may still use their memory.
 *
 * Errors, with nothing changed: -EBUSY from inside a run or a callback of this loop; -ESHUTDOWN
 * from a release hook while it is being closed; -EDEADLK on a thread of the loop's own executor,
 * for whose work it would wait; -EPERM. The loop's thread; any thread once that has exited.
 */
int loop_close(loop_t *loop);

/**
 * Closes a loop as loop_close() does, but gives up after `timeout_ns`: when the kernel has not let
 * go of the loop's operations by then, or work of loop_run_in_executor() has not ended. Calls,
 * timers and hooks keep nothing in the kernel: with these alone it never gives up.
 *
 * Errors: -ETIMEDOUT it has given up: nothing is freed, and it can be called again, but operations
 * and work have been cancelled by then, as by loop_cancel(): a run brings their final callbacks;
 * -ENOMEM there is no memory for results of operations, which loop_close() does without; those of
 * io_uring_enter(), with nothing freed; those of loop_close(). The loop's thread; any thread once
 * that has exited.
 */
int loop_close_within(loop_t *loop, uint64_t timeout_ns);

/**
 * Keeps a pointer for the program; NULL at first. Does nothing from another thread. The loop's
 * thread.
 */
void loop_set_data(loop_t *loop, void *data);

/**
 * The pointer that loop_set_data() keeps; NULL from another thread. The loop's thread.
 */
void *loop_data(const loop_t *loop);

/* ==== running ==== */

/**
 * The run returned because nothing referenced is left.
 */
#define LOOP_DONE 0

/**
 * The run returned because of loop_stop().
 */
#define LOOP_STOPPED 1

/**
 * The run returned because of loop_break().
 */
#define LOOP_BROKEN 2

/**
 * Runs until loop_stop() or loop_break(). A signal does not end it. Sleeps in the kernel while
 * nothing is ready: one system call an iteration that sleeps, and seldom one more, for a timer
 * that was cancelled meanwhile; none for one that does not sleep.
 *
 * Returns LOOP_STOPPED or LOOP_BROKEN, or -EBUSY the loop runs already (another loop may be run
 * from inside a callback of this one); -ENOMEM memory was refused, nothing is lost, run again;
 * -EAGAIN the kernel has taken no submissions for a second, for want of memory, nothing is lost,
 * run again; -EBADR the kernel had no memory to keep a completion: an operation that had it ends
 * with -EBADR when it is cancelled; -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL; those of
 * io_uring_enter(). The loop's thread.
 */
int loop_run_forever(loop_t *loop);

/**
 * Runs until nothing referenced is left: no call, timer, post, watcher, operation, child or work.
 * Otherwise as loop_run_forever(). With nothing left at the start it returns at once, without an
 * iteration. A remote keeps no run going: with threads that may still post, use loop_run_forever()
 * and stop it.
 *
 * Returns LOOP_DONE, LOOP_STOPPED or LOOP_BROKEN. Errors: those of loop_run_forever(). The loop's
 * thread.
 */
int loop_run(loop_t *loop);

/**
 * Runs one iteration, which sleeps at most `timeout_ns`: 0 does not sleep, LOOP_NEVER sleeps until
 * something comes.
 *
 * Returns how many callbacks ran, hooks not counted; it may be 0. A loop_stop() or a loop_break()
 * ends with it and does not show in the result. Errors: -EINTR a signal ended the wait and no
 * callback ran; else those of loop_run_forever(). The loop's thread.
 */
int loop_run_once(loop_t *loop, uint64_t timeout_ns);

/**
 * Makes the run return after the batch of callbacks that is being run; what the batch scheduled
 * stays for the next run. Before a run: that run does exactly one iteration, which does not sleep.
 * The request ends when a run returns. O(1).
 *
 * Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
 */
int loop_stop(loop_t *loop);

/**
 * Makes the run return after the callback that is running; the rest of its batch stays first in
 * line for the next run. Wins over loop_stop(). O(1).
 *
 * Errors: -EINVAL the loop is not running; -EPERM, -EOWNERDEAD. The loop's thread.
 */
int loop_break(loop_t *loop);

/**
 * Whether the loop is inside a run. The loop's thread; false from others.
 */
bool loop_is_running(const loop_t *loop);

/**
 * Whether loop_run() would wait or work: something that counts is pending. The loop's thread;
 * false from others.
 */
bool loop_is_alive(const loop_t *loop);

/**
 * The innermost loop that is running on the calling thread, or NULL. Any thread.
 */
loop_t *loop_running(void);

/* ==== calls ==== */

/**
 * loop_add_hook(): in every iteration, before the loop submits and waits.
 */
#define LOOP_BEFORE_WAIT 1

/**
 * loop_add_hook(): in every iteration, after the loop has collected what is ready, before it runs
 * it.
 */
#define LOOP_AFTER_WAIT 2

/**
 * Runs `callback` in the next iteration, after all that is ready already. From inside a callback,
 * that is a later iteration, never the one that is running: a callback that schedules itself again
 * starves nothing. `arg` stays the caller's; see loop_on_release().
 *
 * Returns a handle, or -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1), no system call, no
 * allocation unless more is pending than ever before. The loop's thread.
 */
loop_handle_t loop_call_soon(loop_t *loop, loop_callback_t callback, void *arg);

/**
 * Runs `callback` once, `delay_ns` from now: loop_call_at() with loop_time() + delay_ns, which
 * saturates at LOOP_NEVER.
 *
 * Returns a handle. Errors: those of loop_call_at(). O(1), no system call. The loop's thread.
 */
loop_handle_t loop_call_later(loop_t *loop, uint64_t delay_ns, loop_callback_t callback, void *arg);

/**
 * Runs `callback` once, at `when_ns` on the clock of loop_time(): never before, to the nanosecond,
 * and after those that were scheduled for the same time earlier. A time that is past is due in the
 * next iteration. A timer at LOOP_NEVER does not run, but can be rescheduled.
 *
 * Returns a handle, or -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1), no system call.
 * The loop's thread.
 */
loop_handle_t loop_call_at(loop_t *loop, uint64_t when_ns, loop_callback_t callback, void *arg);

/**
 * Runs `callback` every `period_ns`, for the first time a period from now. It keeps its phase: the
 * k-th call is due at start + k * period_ns, whatever the callbacks cost. Calls that the loop
 * comes too late for are left out, and counted by loop_skipped(). Inside the callback the handle
 * is live, and loop_when() is the next call.
 *
 * Returns a handle, or -EINVAL for a period of 0, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1).
 * The loop's thread.
 */
loop_handle_t loop_call_every(loop_t *loop, uint64_t period_ns, loop_callback_t callback, void *arg);

/**
 * The time in nanoseconds, read from the clock at every call: CLOCK_MONOTONIC, or the loop's own
 * clock if it was made with LOOP_VIRTUAL_TIME. NULL is CLOCK_MONOTONIC. About 25 ns. Any thread,
 * at any moment while the loop is open.
 */
uint64_t loop_time(const loop_t *loop);

/**
 * The earliest deadline of the timers that do not stand in the ready queue, or LOOP_NEVER. O(1);
 * after the timer that had it was cancelled, O(log n) amortized. The loop's thread; LOOP_NEVER
 * from others.
 */
uint64_t loop_next_deadline(const loop_t *loop);

/**
 * Cancels what a handle names. Its callback will not run again, even if it stands in the batch
 * that is being run; its release hook runs before this returns. (Later in two cases: for the
 * callback that is running, when that returns; inside of sixteen nested release hooks, when the
 * innermost returns.) For operations and work that have begun both are still to come.
 *
 * Returns 0: gone; 1: asked, for operations and work, whose final callback is still to come, or
 * -ENOENT the handle is stale; -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1), however many are
 * pending; allocates nothing. No system call, but one as a rule for the last watcher of a
 * descriptor: the kernel lets go of the file before this returns, and before the release hook. The
 * loop's thread.
 */
int loop_cancel(loop_t *loop, loop_handle_t handle);

/**
 * Moves a timer to `when_ns`, behind those that are due then already; the handle stays. One that
 * stands in the batch that is being run is taken out of it. A repeating timer takes its phase from
 * there.
 *
 * Errors: -EINVAL not a timer; -ENOENT the handle is stale; -ENOMEM, -ESHUTDOWN, -EPERM,
 * -EOWNERDEAD. O(1). The loop's thread.
 */
int loop_reschedule(loop_t *loop, loop_handle_t handle, uint64_t when_ns);

/**
 * Writes when a timer is due; for a repeating one inside its callback, the next call.
 *
 * Errors: -EINVAL not a timer, or `when_ns` is NULL; -ENOENT the handle is stale; -ESHUTDOWN,
 * -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
int loop_when(const loop_t *loop, loop_handle_t handle, uint64_t *when_ns);

/**
 * Writes how many calls of a repeating timer were left out, because the loop came too late for
 * them; 0 for other timers.
 *
 * Errors: those of loop_when(). O(1). The loop's thread.
 */
int loop_skipped(const loop_t *loop, loop_handle_t handle, uint64_t *count);

/**
 * Whether what the handle names is still to run. The loop's thread; false from others.
 */
bool loop_is_pending(const loop_t *loop, loop_handle_t handle);

/**
 * The handle of the callback that is running, else 0; that of a callback which runs once is stale
 * by then. A post of another thread has none. The loop's thread; 0 from others.
 */
loop_handle_t loop_current(const loop_t *loop);

/**
 * Makes what the handle names count for loop_run(), as it does from the start.
 *
 * Errors: -EINVAL a hook or a signal handler, which never count; -ENOENT the handle is stale;
 * -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
int loop_ref(loop_t *loop, loop_handle_t handle);

/**
 * Makes what the handle names not count for loop_run(), which then returns though it is pending:
 * for an operation, though the kernel has its buffer, and though it was cancelled and its final
 * callback is still to come.
 *
 * Errors: those of loop_ref(). O(1). The loop's thread.
 */
int loop_unref(loop_t *loop, loop_handle_t handle);

/**
 * Whether what the handle names counts for loop_run(). The loop's thread; false from others.
 */
bool loop_has_ref(const loop_t *loop, loop_handle_t handle);

/**
 * Has `release` called with the `arg` of what the handle names, exactly once, when that has ended:
 * has run for the last time, was cancelled, or was pending when the loop was closed; never while
 * its callback is on the stack. This is the place to free `arg`. One hook a handle: a second one
 * replaces the first, NULL removes it.
 *
 * The hook may call any function of the loop; while the loop is being closed these answer
 * -ESHUTDOWN. It runs inside of loop_cancel(). Hooks that cancel one another in a chain go sixteen
 * deep on the stack, however long the chain is: the others run when the sixteenth returns.
 *
 * Errors: -ENOENT the handle is stale; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1).
 * The loop's thread.
 */
int loop_on_release(loop_t *loop, loop_handle_t handle, loop_release_t release);

/**
 * Runs `callback` in every iteration, at the point that `when` names: LOOP_BEFORE_WAIT or
 * LOOP_AFTER_WAIT. To embed other loops. Hooks run in the order in which they were added, and keep
 * no run alive. What a hook schedules may run in the same iteration.
 *
 * Returns a handle, or -EINVAL, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
loop_handle_t loop_add_hook(loop_t *loop, uint32_t when, loop_callback_t callback, void *arg);

/* ==== other threads ==== */

/**
 * A loop as other threads know it. It is counted, and may outlive its loop: then everything
 * answers -ESHUTDOWN.
 */
typedef struct loop_remote_t loop_remote_t;

/**
 * Runs `callback` on the loop's thread as soon as the loop comes to it: after what the calling
 * thread has posted before, and in order with loop_call_soon() by the time of the call. It counts
 * for loop_run().
 *
 * The loop must be open until this returns: a thread that may be late uses a remote. When the loop
 * is closed, what has not run is dropped unseen; loop_remote_call_soon() takes a release hook for
 * that. Costs a compare-and-swap, now and then an allocation, and a system call only if the loop
 * sleeps.
 *
 * Errors: -ESHUTDOWN, -ENOMEM, -EOWNERDEAD, -EINVAL. Any thread.
 */
int loop_call_soon_threadsafe(loop_t *loop, loop_callback_t callback, void *arg);

/**
 * Makes the loop's sleep return at once, or its next one if it is awake. Async-signal-safe; leaves
 * errno alone. The loop must be open until this returns.
 *
 * Errors: -ESHUTDOWN, -EOWNERDEAD, -EINVAL; loop_last_error() stays as it was, since a signal
 * handler must not touch thread-local storage. Any thread, and signal handlers.
 */
int loop_wakeup(loop_t *loop);

/**
 * Makes a remote of the loop, to be given to other threads. It ends with loop_remote_release().
 *
 * Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. Allocates nothing. The loop's thread.
 */
int loop_remote_new(loop_t *loop, struct loop_remote_t **out);

/**
 * One more owner of the remote, which is returned; each ends with loop_remote_release(). NULL is
 * fine. Any thread that holds the remote.
 */
struct loop_remote_t *loop_remote_retain(struct loop_remote_t *remote);

/**
 * One owner of the remote less; the last one frees it. NULL is fine. Any thread.
 */
void loop_remote_release(struct loop_remote_t *remote);

/**
 * Runs `callback` on the loop's thread as loop_call_soon_threadsafe() does, on a loop that may be
 * closed meanwhile. An accepted post runs and is then released, or is released without being run
 * when the loop is closed: `release`, which may be NULL, gets `arg` exactly once, on the thread
 * that runs or closes the loop. What is refused stays the caller's.
 *
 * Nothing bounds what waits: who posts faster than the loop runs must hold back, or memory and the
 * lateness of timers grow. Not for signal handlers: these note what has come, and call
 * loop_remote_wakeup().
 *
 * Errors: -ESHUTDOWN the loop is shut down, closing or gone; -ENOMEM, -EOWNERDEAD, -EINVAL. Any
 * thread.
 */
int loop_remote_call_soon(struct loop_remote_t *remote, loop_callback_t callback, void *arg, loop_release_t release);

/**
 * Runs `callback` on the loop's thread, as loop_remote_call_soon() does, `delay_ns` from now; on a
 * virtual clock, from when the loop takes it.
 *
 * Errors: those of loop_remote_call_soon(). Any thread.
 */
int loop_remote_call_later(struct loop_remote_t *remote,
                           uint64_t delay_ns,
                           loop_callback_t callback,
                           void *arg,
                           loop_release_t release);

/**
 * Wakes the loop as loop_wakeup() does, when it may be closed meanwhile.
 *
 * Errors: those of loop_wakeup(). Any thread, and signal handlers.
 */
int loop_remote_wakeup(struct loop_remote_t *remote);

/**
 * Has the loop stop as by loop_stop(), in order with what else is posted. Errors: those of
 * loop_remote_call_soon(). Any thread.
 */
int loop_remote_stop(struct loop_remote_t *remote);

/* ==== readiness ==== */

/**
 * A watcher's callback: `events` says what `fd` is ready for, POLLIN, POLLOUT and so on of
 * poll(2).
 */
typedef void (*loop_fd_callback_t)(loop_t *loop, int fd, uint32_t events, void *arg);

/**
 * Runs `callback` whenever `fd` is ready for one of `events` (POLLIN, POLLOUT, ... of poll(2)), as
 * long as it is: level-triggered. POLLERR, POLLHUP and POLLNVAL are always reported. Several
 * watchers of one descriptor run in the order in which they were registered.
 *
 * Before the descriptor is closed, end its watchers, with loop_cancel() or loop_forget_fd(): when
 * the last has ended, the kernel has let go of the file, so that close() really closes, the peer
 * sees the end and a port is free. A watcher of a descriptor that is closed all the same, or can
 * be watched no more, is called a last time with POLLNVAL or POLLERR and has ended then, or
 * watches what has the number now; it is never undefined behaviour.
 *
 * Returns a handle, or -EBADF `fd` is not open; -EPERM for files and directories, as epoll has it;
 * -EINVAL for events that poll(2) does not have; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. Some
 * 1.3 us for asking epoll. The loop's thread.
 */
loop_handle_t loop_watch_fd(loop_t *loop, int fd, uint32_t events, loop_fd_callback_t callback, void *arg);

/**
 * Changes what a watcher waits for. What is queued for it and is asked for no more is dropped.
 * With 0 it is paused: errors and hang-ups still come.
 *
 * Returns 0, or -EINVAL not a watcher, or events that poll(2) does not have; -ENOENT, -ESHUTDOWN,
 * -EPERM, -EOWNERDEAD. No system call. The loop's thread.
 */
int loop_watch_update(loop_t *loop, loop_handle_t handle, uint32_t events);

/**
 * Ends every watcher of `fd`, asks every operation on it to end, and makes the kernel let go of
 * it: call it before close(). The final callbacks of the operations are still to come.
 *
 * Returns how many operations the kernel has not let go of: with 0, close(fd) really closes, the
 * peer sees the end of file and a port is free again. More than 0 is file I/O that has begun, or
 * what waits in a chain. Errors: -EBADF for a negative number; -ENOMEM, -ESHUTDOWN, -EPERM,
 * -EOWNERDEAD; those of io_uring_enter(). One system call as a rule, or none when there is nothing
 * on `fd`; one more for each time that what is on it fills the submission queue. The loop's
 * thread.
 */
int loop_forget_fd(loop_t *loop, int fd);

/* ==== completions ==== */

/**
 * A flag of a result: more of the same operation will come. Without it, this is the final
 * callback.
 */
#define LOOP_MORE 2

/**
 * A flag of the final result: the deadline came before the operation's end, and has cut it short
 * where that was possible.
 */
#define LOOP_TIMED_OUT 8192

/**
 * Gets the result of an operation: what the kernel said, often a number of bytes, or -errno.
 * `flags` has LOOP_MORE when this is not the final callback, LOOP_TIMED_OUT, and IORING_CQE_F_* of
 * the kernel's.
 */
typedef void (*loop_io_callback_t)(loop_t *loop, int32_t result, uint32_t flags, void *arg);

/**
 * Submits any operation that the kernel knows, as liburing's io_uring_prep_*() fill it in: the
 * entry is copied, its user_data is the loop's. `callback` gets every completion; what the entry
 * points to must live until the final one, or until the release hook has run. Buffers that it
 * gives to the kernel to keep (IORING_OP_PROVIDE_BUFFERS) must live for as long as the kernel has
 * them. IORING_OP_SEND_ZC and _SENDMSG_ZC send without a copy: the callback gets the result with
 * LOOP_MORE, and the final one says that the kernel has let go of the buffer.
 *
 * It goes to the kernel with the next iteration's system call, or at once when the queue is full.
 * Cancel it with loop_cancel(), which asks the kernel; give it a deadline with
 * loop_set_deadline().
 *
 * Returns a handle, or -EINVAL for what would take it out of the loop's hands, with its name in
 * loop_last_error(): IOSQE_IO_DRAIN, IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_LINK, IOSQE_IO_HARDLINK,
 * unknown flags, IORING_OP_ASYNC_CANCEL, _POLL_REMOVE, _TIMEOUT_REMOVE, _LINK_TIMEOUT, _MSG_RING,
 * entries of 128 bytes, and what lets the kernel use a buffer after the final callback:
 * MSG_ZEROCOPY and MSG_SPLICE_PAGES of IORING_OP_SEND and _SENDMSG, MSG_SOCK_DEVMEM of _RECV and
 * _RECVMSG; -ENOSYS when this kernel does not have the operation; -EAGAIN when the kernel takes
 * none at the moment; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
loop_handle_t loop_submit(loop_t *loop, const struct io_uring_sqe *sqe, loop_io_callback_t callback, void *arg);

/**
 * Submits a chain of `count` operations: each begins when the one before it has ended well, and
 * when one fails those after it end with -ECANCELED. IOSQE_IO_LINK is set by the loop; an entry
 * may bear IOSQE_IO_HARDLINK instead, and then the next begins whatever comes of it. The chain is
 * never split. `args[i]` is the argument of the i-th; `handles`, unless NULL, gets the handles.
 * One callback for all. With a `count` of 0 it does nothing.
 *
 * The kernel knows an operation of a chain when the one before it has ended: what cancels it or
 * comes as its deadline before that ends it when its turn comes.
 *
 * Errors, with nothing submitted: -E2BIG when the chain is longer than the submission queue; those
 * of loop_submit(). O(count). The loop's thread.
 */
int loop_submit_chain(loop_t *loop,
                      const struct io_uring_sqe *sqes,
                      size_t count,
                      loop_io_callback_t callback,
                      void *const *args,
                      loop_handle_t *handles);

/**
 * The descriptor of the ring, for io_uring_register() of files and buffers. Never submit on it,
 * never close it, and send it no message (IORING_OP_MSG_RING): the loop's ring is the loop's.
 * Completions of tags of registered resources are passed over; tags below 2^32 are never numbers
 * of the loop's own.
 *
 * Returns the descriptor, or -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
 */
int loop_ring_fd(const loop_t *loop);

/**
 * Whether this kernel has an operation, an IORING_OP_*. It was asked when the loop was made: what
 * distributions have brought to older kernels counts. With RINGLOOP_KERNEL=5.10 in the environment
 * a loop uses nothing that came later, so that a program can be tried as on that kernel. The
 * loop's thread.
 */
bool loop_supports(const loop_t *loop, uint8_t opcode);

/**
 * Cuts an operation short at `when_ns`: its final result then has LOOP_TIMED_OUT, and is what the
 * kernel had done, or -ETIMEDOUT if that was nothing. Replaces an earlier deadline; LOOP_NEVER
 * removes it. What the kernel will not cancel, file I/O that has begun, ends when it ends, and one
 * that waits for its turn in a chain when that comes.
 *
 * Errors: -EINVAL not an operation; -ENOENT, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1): it is
 * a timer, as exact as any. The loop's thread.
 */
int loop_set_deadline(loop_t *loop, loop_handle_t handle, uint64_t when_ns);

/* ==== files ==== */

/*
 * The functions of files submit operations, as loop_submit() does. What fails later, fails in the
 * callback: the result is -errno, as the manual of the system call says. Operations wait also on a
 * descriptor with O_NONBLOCK, but for loop_splice() and loop_connect() of a Unix socket to a
 * listener whose queue is full, which say -EAGAIN there as the system calls do. (Linux before 5.16
 * says so of reads and writes, before 5.18 of loop_accept(), where it lacks the fixes of its
 * stable branch.) Until the final callback, do not close the descriptor: its number might come to
 * name something else. Paths and arrays are copied.
 *
 * Errors: those of loop_submit(); -EINVAL for a length over INT32_MAX and for NULL. The loop's
 * thread.
 */

/**
 * For loop_read(), loop_write() and the like: at the file's own position, and for what has none
 * (pipes, sockets, terminals).
 */
#define LOOP_CURRENT UINT64_MAX

/**
 * For loop_fsync(): the data and what is needed to find it, as fdatasync(2).
 */
#define LOOP_DATASYNC 1

/**
 * Reads up to `length` bytes at `offset` of a file, or at its own position with LOOP_CURRENT. The
 * result is a number of bytes, 0 at the end of the file. The buffer belongs to the kernel until
 * the final callback.
 */
loop_handle_t loop_read(loop_t *loop,
                        int fd,
                        void *buffer,
                        size_t length,
                        uint64_t offset,
                        loop_io_callback_t callback,
                        void *arg);

/**
 * Writes up to `length` bytes at `offset` of a file, or at its own position with LOOP_CURRENT. The
 * result is the number of bytes written, which may be fewer; loop_write_all() goes on. A pipe or
 * socket whose reader has gone raises SIGPIPE, as write(2) does.
 */
loop_handle_t loop_write(loop_t *loop,
                         int fd,
                         const void *buffer,
                         size_t length,
                         uint64_t offset,
                         loop_io_callback_t callback,
                         void *arg);

/**
 * Writes as loop_write() does, until all of it is written. The result is `length`; fewer when an
 * error, a cancel or a deadline ended it after some were written, with LOOP_TIMED_OUT if it was
 * the deadline; -errno only when none were. With LOOP_CURRENT, it takes turns with others on the
 * descriptor as loop_send_all() does.
 */
loop_handle_t loop_write_all(loop_t *loop,
                             int fd,
                             const void *buffer,
                             size_t length,
                             uint64_t offset,
                             loop_io_callback_t callback,
                             void *arg);

/**
 * Reads into `count` buffers, one after the other, as loop_read() does with one; at most 1024.
 */
loop_handle_t loop_readv(loop_t *loop,
                         int fd,
                         const struct iovec *iov,
                         size_t count,
                         uint64_t offset,
                         loop_io_callback_t callback,
                         void *arg);

/**
 * Writes from `count` buffers, one after the other, as loop_write() does with one; at most 1024.
 */
loop_handle_t loop_writev(loop_t *loop,
                          int fd,
                          const struct iovec *iov,
                          size_t count,
                          uint64_t offset,
                          loop_io_callback_t callback,
                          void *arg);

/**
 * Opens a file, as openat(2): the result is the descriptor. `dirfd` may be AT_FDCWD. A descriptor
 * that no callback has seen when the loop is closed is closed.
 */
loop_handle_t loop_openat(loop_t *loop,
                          int dirfd,
                          const char *path,
                          int flags,
                          mode_t mode,
                          loop_io_callback_t callback,
                          void *arg);

/**
 * Closes a descriptor, as close(2), on a thread of the kernel's, because closing may block
 * (SO_LINGER, a file on a network). The result is 0 or -errno, and the descriptor is gone either
 * way, but with -ECANCELED it is still open: it was cancelled before it had begun.
 */
loop_handle_t loop_close_fd(loop_t *loop, int fd, loop_io_callback_t callback, void *arg);

/**
 * Brings what was written to a file to its device, as fsync(2); with LOOP_DATASYNC in `flags`, as
 * fdatasync(2). The result is 0.
 */
loop_handle_t loop_fsync(loop_t *loop, int fd, uint32_t flags, loop_io_callback_t callback, void *arg);

/**
 * Asks about a file, as statx(2): the result is 0. `flags` are AT_*, `mask` is of STATX_*; `out`
 * belongs to the kernel until the final callback.
 */
loop_handle_t loop_statx(loop_t *loop,
                         int dirfd,
                         const char *path,
                         int flags,
                         uint32_t mask,
                         struct statx *out,
                         loop_io_callback_t callback,
                         void *arg);

/**
 * Renames a file, as renameat2(2): the result is 0. `flags` are RENAME_*. Since Linux 5.11.
 */
loop_handle_t loop_renameat(loop_t *loop,
                            int olddirfd,
                            const char *oldpath,
                            int newdirfd,
                            const char *newpath,
                            uint32_t flags,
                            loop_io_callback_t callback,
                            void *arg);

/**
 * Removes a file, as unlinkat(2): the result is 0. With AT_REMOVEDIR in `flags` it removes a
 * directory. Since Linux 5.11.
 */
loop_handle_t loop_unlinkat(loop_t *loop,
                            int dirfd,
                            const char *path,
                            int flags,
                            loop_io_callback_t callback,
                            void *arg);

/**
 * Makes a directory, as mkdirat(2): the result is 0. Since Linux 5.15.
 */
loop_handle_t loop_mkdirat(loop_t *loop,
                           int dirfd,
                           const char *path,
                           mode_t mode,
                           loop_io_callback_t callback,
                           void *arg);

/**
 * Makes a symbolic link, as symlinkat(2): the result is 0. Since Linux 5.15.
 */
loop_handle_t loop_symlinkat(loop_t *loop,
                             const char *target,
                             int newdirfd,
                             const char *linkpath,
                             loop_io_callback_t callback,
                             void *arg);

/**
 * Makes a hard link, as linkat(2): the result is 0. Since Linux 5.15.
 */
loop_handle_t loop_linkat(loop_t *loop,
                          int olddirfd,
                          const char *oldpath,
                          int newdirfd,
                          const char *newpath,
                          int flags,
                          loop_io_callback_t callback,
                          void *arg);

/**
 * Sets the size of a file, as ftruncate(2): the result is 0. Since Linux 6.9.
 */
loop_handle_t loop_ftruncate(loop_t *loop, int fd, uint64_t size, loop_io_callback_t callback, void *arg);

/**
 * Changes the room that a file has, as fallocate(2): the result is 0. `mode` is 0 or of
 * FALLOC_FL_*.
 */
loop_handle_t loop_fallocate(loop_t *loop,
                             int fd,
                             int mode,
                             uint64_t offset,
                             uint64_t length,
                             loop_io_callback_t callback,
                             void *arg);

/**
 * Moves up to `length` bytes between a pipe and another descriptor, as splice(2): the result is
 * their number, 0 at the end. The offset of a pipe is LOOP_CURRENT. `flags` are SPLICE_F_*.
 * -EAGAIN when it would have to wait for a pipe with O_NONBLOCK.
 */
loop_handle_t loop_splice(loop_t *loop,
                          int fd_in,
                          uint64_t offset_in,
                          int fd_out,
                          uint64_t offset_out,
                          size_t length,
                          uint32_t flags,
                          loop_io_callback_t callback,
                          void *arg);

/* ==== sockets ==== */

/*
 * The functions of sockets submit operations, as loop_submit() does; what is said of loop_read()
 * about failing, O_NONBLOCK and closing holds for them.
 *
 * Errors: those of loop_read(). The loop's thread.
 */

/**
 * Receives up to `length` bytes from a socket, as recv(2): the result is their number, 0 at the
 * end of a stream. `flags` may have MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_NOSIGNAL,
 * MSG_OOB, MSG_PEEK, MSG_TRUNC and MSG_WAITALL; others are -EINVAL: with MSG_SOCK_DEVMEM the data
 * would not be in the buffer. The buffer belongs to the kernel until the final callback.
 */
loop_handle_t loop_recv(loop_t *loop,
                        int fd,
                        void *buffer,
                        size_t length,
                        int flags,
                        loop_io_callback_t callback,
                        void *arg);

/**
 * Sends up to `length` bytes on a socket, as send(2): the result is the number of bytes sent,
 * which may be fewer; loop_send_all() goes on. No SIGPIPE is raised. The buffer belongs to the
 * kernel until the final callback.
 *
 * `flags` may have MSG_CONFIRM, MSG_DONTROUTE, MSG_DONTWAIT, MSG_EOR, MSG_FASTOPEN, MSG_MORE,
 * MSG_NOSIGNAL, MSG_OOB and MSG_WAITALL; others are -EINVAL. With MSG_ZEROCOPY the kernel would
 * use the buffer after the final callback (S13): to send without a copy, submit IORING_OP_SEND_ZC
 * by loop_submit(). Its final callback, the one without LOOP_MORE, says that the kernel has let
 * go.
 */
loop_handle_t loop_send(loop_t *loop,
                        int fd,
                        const void *buffer,
                        size_t length,
                        int flags,
                        loop_io_callback_t callback,
                        void *arg);

/**
 * Sends as loop_send() does, until all of it is sent. The result is `length`; fewer when an error,
 * a cancel or a deadline ended it after some were sent, as with write(2), with LOOP_TIMED_OUT if
 * it was the deadline; -errno only when none were. From Linux 6.1 the kernel goes on by itself;
 * before, each part costs an iteration.
 *
 * One that is submitted before another loop_send_all() or loop_write_all() on the same descriptor
 * has ended waits for that, in order, and begins in the iteration after, whatever came of the
 * other: their data does not mix. loop_send(), loop_sendmsg(), loop_write() and loop_shutdown_fd()
 * wait for nobody, and what they send may stand amid it.
 */
loop_handle_t loop_send_all(loop_t *loop,
                            int fd,
                            const void *buffer,
                            size_t length,
                            int flags,
                            loop_io_callback_t callback,
                            void *arg);

/**
 * Receives a message, as recvmsg(2): the result is a number of bytes. The array of buffers
 * (msg_iov) is copied; the buffers, msg_name and msg_control belong to the kernel until the final
 * callback. `message` itself must live until then as well: just before, msg_namelen,
 * msg_controllen and msg_flags are written to it, when the result is no error. `flags` are those
 * of loop_recv(). Descriptors that come with a message (SCM_RIGHTS, SCM_PIDFD) and that no
 * callback has seen when the loop is closed are closed.
 */
loop_handle_t loop_recvmsg(loop_t *loop,
                           int fd,
                           struct msghdr *message,
                           int flags,
                           loop_io_callback_t callback,
                           void *arg);

/**
 * Sends a message, as sendmsg(2): the result is the number of bytes sent. `message` and its array
 * of buffers (msg_iov) are copied; the buffers, msg_name and msg_control belong to the kernel
 * until the final callback. No SIGPIPE is raised. `flags` are those of loop_send().
 */
loop_handle_t loop_sendmsg(loop_t *loop,
                           int fd,
                           const struct msghdr *message,
                           int flags,
                           loop_io_callback_t callback,
                           void *arg);

/**
 * Accepts a connection, as accept4(2): the result is its descriptor. `flags` are SOCK_CLOEXEC,
 * SOCK_NONBLOCK. A connection that no callback has seen when the loop is closed is closed.
 */
loop_handle_t loop_accept(loop_t *loop, int fd, int flags, loop_io_callback_t callback, void *arg);

/**
 * Connects a socket, as connect(2): the result is 0. The address is copied.
 *
 * Errors: -EINVAL when `length` is more than that of a sockaddr_storage.
 */
loop_handle_t loop_connect(loop_t *loop,
                           int fd,
                           const struct sockaddr *address,
                           socklen_t length,
                           loop_io_callback_t callback,
                           void *arg);

/**
 * Makes a socket, as socket(2): the result is its descriptor; SOCK_CLOEXEC and SOCK_NONBLOCK may
 * be in `type`. One that no callback has seen when the loop is closed is closed. Since Linux 5.19.
 */
loop_handle_t loop_socket(loop_t *loop, int domain, int type, int protocol, loop_io_callback_t callback, void *arg);

/**
 * Shuts down a connection, or one direction of it, as shutdown(2): the result is 0. `how` is
 * SHUT_RD, SHUT_WR or SHUT_RDWR. Since Linux 5.11.
 */
loop_handle_t loop_shutdown_fd(loop_t *loop, int fd, int how, loop_io_callback_t callback, void *arg);

/* ==== operations with many results ==== */

/**
 * A ring of buffers that the kernel picks from when data has come: a connection that waits holds
 * none.
 */
typedef struct loop_buffers_t loop_buffers_t;

/**
 * Gets what loop_recv_multi() has received: `result` bytes at `data`, which are valid until the
 * callback returns, or as long as loop_buffer_keep() says. Without LOOP_MORE in `flags` it is the
 * final callback: 0 at the end of the stream, or -errno.
 */
typedef void (*loop_recv_callback_t)(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg);

/**
 * Accepts connections until it is cancelled: the result is a connection's descriptor, with
 * LOOP_MORE. `flags` are SOCK_CLOEXEC, SOCK_NONBLOCK. One entry for the kernel does for all from
 * Linux 5.19 on, one each before.
 *
 * When descriptors or memory have run out, the callback is told once (-EMFILE, -ENFILE, -ENOBUFS,
 * -ENOMEM, with LOOP_MORE), and accepting is tried again every 100 ms until it succeeds. A
 * connection that was aborted is passed over. After any other error, -ECANCELED included, it has
 * ended. A connection that no callback has seen when the loop is closed is closed.
 *
 * Returns a handle. Errors: those of loop_submit(). The loop's thread.
 */
loop_handle_t loop_accept_multi(loop_t *loop, int fd, int flags, loop_io_callback_t callback, void *arg);

/**
 * Makes a ring of `count` buffers (rounded up to a power of two, at most 32768) of `size` bytes,
 * for loop_recv_multi(). From Linux 6.12 on the kernel fills a buffer bit by bit, so that small
 * messages do not waste large buffers; on a kernel before 6.0 the loop fills them itself.
 *
 * They are freed by loop_buffers_free(), or with the loop, and `*out` is dead then. Returns 0, or
 * -EINVAL, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. The loop's thread.
 */
int loop_buffers_new(loop_t *loop, uint32_t count, uint32_t size, struct loop_buffers_t **out);

/**
 * Frees a ring of buffers. NULL is fine and does nothing. Returns 0, or -EBUSY while an operation
 * uses it or a part of a buffer is kept; -EPERM, -EOWNERDEAD. The loop's thread.
 */
int loop_buffers_free(struct loop_buffers_t *buffers);

/**
 * Keeps the data of the callback of loop_recv_multi() that is running: it stays valid, and its
 * buffer is not used for anything else, until loop_buffer_return(), once for each time it was
 * kept. Returns 0, or -EINVAL when `data` is not what a callback was given; -EPERM, -EOWNERDEAD.
 * O(1). The loop's thread.
 */
int loop_buffer_keep(struct loop_buffers_t *buffers, const void *data);

/**
 * Gives back what loop_buffer_keep() keeps; `data` may be any address in it. Returns 0, or -EINVAL
 * when nothing is kept there; -EPERM, -EOWNERDEAD. O(1), no system call. The loop's thread.
 */
int loop_buffer_return(struct loop_buffers_t *buffers, const void *data);

/**
 * Receives from a stream socket until it ends, into `buffers` (a pipe or a terminal ends it with
 * -ENOTSOCK: loop_read() is for those): data comes in order, with LOOP_MORE. A connection that
 * waits holds no buffer. Without a free buffer receiving stops, and goes on by itself when one has
 * been returned. One entry for the kernel does for all from Linux 6.0 on; before, a poll and a
 * recv(2) for each arrival.
 *
 * Of a socket of messages (datagrams, SOCK_SEQPACKET) each callback gets one message, an empty one
 * as 0 with LOOP_MORE. Receiving ends with an error, a cancel, or 0 when the peer of
 * SOCK_SEQPACKET has gone. Better use loop_recv() and loop_recvmsg() there: the kernel cuts a
 * message where the buffer ends, and from Linux 6.12 on a message may begin where the last one in
 * the buffer ended, with less room.
 *
 * Returns a handle. Errors: -EINVAL for NULL and for another loop's buffers; those of
 * loop_submit(). The loop's thread.
 */
loop_handle_t loop_recv_multi(loop_t *loop,
                              int fd,
                              struct loop_buffers_t *buffers,
                              loop_recv_callback_t callback,
                              void *arg);

/* ==== signals ==== */

/**
 * A signal handler: gets the signal's number, on the loop's thread, where it may call anything.
 */
typedef void (*loop_signal_callback_t)(loop_t *loop, int signum, void *arg);

/**
 * Runs `callback` whenever the process gets the signal `signum` (SIGTERM and so on), until it is
 * cancelled. Several handlers for a signal, on several loops, all run, those of one loop oldest
 * first. Like hooks, they keep no loop_run() going.
 *
 * A signal that comes again before the callback has run is one with the former, real-time signals
 * too. No signal mask is changed, so leave the signal unblocked in one thread at least.
 * sigaction() is called when the process's first handler for the signal is added; the former
 * disposition is back when the last one has gone (loop_cancel(), loop_close()), unless the program
 * has replaced it meanwhile. In a forked child the former disposition is in force at once.
 *
 * loop_cancel() of a handler waits until no thread is inside of the process's handler, some
 * microseconds.
 *
 * Returns a handle, or -EINVAL for a signal that cannot be caught and for SIGSEGV, SIGBUS, SIGFPE
 * and SIGILL; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. Two system calls at most. The loop's
 * thread.
 */
loop_handle_t loop_add_signal_handler(loop_t *loop, int signum, loop_signal_callback_t callback, void *arg);

/* ==== children ==== */

/**
 * Gets a child that has ended: `wait_status` is what waitpid() gave, for WIFEXITED() and the like;
 * -1 when another has waited for the child.
 */
typedef void (*loop_child_callback_t)(loop_t *loop, pid_t pid, int wait_status, void *arg);

/**
 * Runs `callback` once when the child process `pid` has ended. The loop waits for it (reaps it)
 * just before it calls back, and not when the watcher has been cancelled: then the child is left
 * to you. Let nobody else wait for it meanwhile, and have one watcher a child. Should another do
 * so all the same, the wait status is -1, and no child to which the number has come is taken for
 * it: the loop has a descriptor (a pidfd) for the child. No signal is used: SIGCHLD is yours to
 * handle or to block; where it is ignored, the wait status is -1.
 *
 * Returns a handle, or -ECHILD when `pid` is no child of this process or has been waited for;
 * -EINVAL when it is not positive; -EAGAIN when the kernel takes no operation at the moment;
 * -EMFILE, -ENFILE when there is no descriptor left; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. Two
 * system calls, and a descriptor until it has ended or is cancelled. The loop's thread.
 */
loop_handle_t loop_watch_child(loop_t *loop, pid_t pid, loop_child_callback_t callback, void *arg);

/* ==== work off the loop ==== */

/**
 * Work, which runs on another thread: it may block, and must not call functions of the loop but
 * those for any thread. A child that it forks ends with _exit(0) when it returns there.
 */
typedef void (*loop_work_t)(void *arg);

/**
 * Runs on the loop's thread when work has been done: `status` is 0; or -ECANCELED when it was
 * cancelled and never ran.
 */
typedef void (*loop_done_t)(loop_t *loop, int status, void *arg);

/**
 * Gets the addresses that loop_getaddrinfo() has found. `status` is 0, and `result` yours to free
 * with freeaddrinfo(); or EAI_*, for gai_strerror(), EAI_CANCELED (-101) among them, and `result`
 * is NULL. With EAI_SYSTEM, errno says more.
 */
typedef void (*loop_addrinfo_callback_t)(loop_t *loop, int status, struct addrinfo *result, void *arg);

/**
 * Runs `work` on another thread, and `done` on the loop's when it has returned; both get `arg`.
 * What the work has posted to the loop runs before `done`, which may free it. For what blocks or
 * takes long. Threads are started when they are needed, up to options.executor_threads; work that
 * finds none free waits for its turn. They block all signals, and end when the loop is closed.
 *
 * loop_cancel() is a request, as for operations: work that no thread has begun never runs, and
 * `done` gets -ECANCELED; what has begun ends by itself. `done` is called once, unless the loop is
 * closed before. loop_close() drops work that has not begun, and waits for the rest.
 *
 * Returns a handle, or -EAGAIN when there is no thread and none can be started; -EINVAL, -ENOMEM,
 * -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1), and a few microseconds. The loop's thread.
 */
loop_handle_t loop_run_in_executor(loop_t *loop, loop_work_t work, loop_done_t done, void *arg);

/**
 * Looks up a name as getaddrinfo(3) does, on a thread of loop_run_in_executor(): the same holds
 * for its handle, for cancelling and for closing. `node`, `service` and `hints` are copied, and
 * may be NULL as there. A result that no callback has seen when the loop is closed is freed.
 *
 * Returns a handle, or -EAGAIN when there is no thread and none can be started; -EINVAL, -ENOMEM,
 * -ESHUTDOWN, -EPERM, -EOWNERDEAD. What getaddrinfo() says comes to the callback. The loop's
 * thread.
 */
loop_handle_t loop_getaddrinfo(loop_t *loop,
                               const char *node,
                               const char *service,
                               const struct addrinfo *hints,
                               loop_addrinfo_callback_t callback,
                               void *arg);

/* ==== inside another loop ==== */

/**
 * A descriptor that is readable whenever loop_run_once(loop, 0) has work, timers included: for the
 * poll() or epoll of a host loop. The host waits until it is readable, calls loop_run_once(loop,
 * 0), and waits again. It may be readable with nothing to do, for a timer that was cancelled: then
 * loop_run_once() says 0.
 *
 * It stays the loop's: never read or close it. It is made when this is called first: an eventfd,
 * before Linux 5.19 an epoll. The clock of LOOP_VIRTUAL_TIME does not move while the host waits.
 *
 * Returns the descriptor, or -EMFILE, -ENFILE, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL.
 * The loop's thread.
 */
int loop_fd(loop_t *loop);

/**
 * Makes loop_fd() tell of what was scheduled since the last loop_run_once(). Call it before the
 * host sleeps when something was scheduled, cancelled or forgotten, or a buffer was returned; not
 * needed after loop_run_once(), nor inside callbacks.
 *
 * Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL; those of io_uring_enter(). At most two system
 * calls. The loop's thread.
 */
int loop_flush(loop_t *loop);

/* ==== seeing what happens ==== */

/**
 * A loop_call_soon().
 */
#define LOOP_KIND_CALL 1

/**
 * A loop_call_later() or loop_call_at().
 */
#define LOOP_KIND_TIMER 2

/**
 * A loop_call_every().
 */
#define LOOP_KIND_REPEAT 3

/**
 * A loop_add_hook().
 */
#define LOOP_KIND_HOOK 4

/**
 * A loop_add_signal_handler().
 */
#define LOOP_KIND_SIGNAL 5

/**
 * A loop_submit(), or one of the functions that submit.
 */
#define LOOP_KIND_OPERATION 6

/**
 * A loop_watch_fd().
 */
#define LOOP_KIND_WATCH 7

/**
 * A loop_run_in_executor() or loop_getaddrinfo().
 */
#define LOOP_KIND_WORK 8

/**
 * A loop_watch_child().
 */
#define LOOP_KIND_CHILD 9

/**
 * A task of a program in Rust.
 */
#define LOOP_KIND_TASK 10

/**
 * Counters since the loop was made. Set `size` to sizeof(loop_metrics_t) before the call; no more
 * than that is written.
 */
typedef struct loop_metrics_t {
    /**
     * sizeof(loop_metrics_t), set by the caller.
     */
    uint32_t size;
    /**
     * Iterations begun.
     */
    uint64_t iterations;
    /**
     * Callbacks begun, timers included, hooks not.
     */
    uint64_t callbacks;
    /**
     * Timer callbacks begun, every call of a repeating one.
     */
    uint64_t timers_fired;
    /**
     * Timers cancelled, those that close and shutdown cancel included.
     */
    uint64_t timers_cancelled;
    /**
     * Calls of repeating timers left out because the loop came too late.
     */
    uint64_t timers_skipped;
    /**
     * Nanoseconds asleep in the kernel, by the loop's clock.
     */
    uint64_t asleep_ns;
    /**
     * Submission queue entries that the kernel took.
     */
    uint64_t submitted;
    /**
     * Completions that the loop took.
     */
    uint64_t completed;
    /**
     * Calls of io_uring_enter().
     */
    uint64_t enters;
    /**
     * How often the completion queue was found to have overflowed: it costs system calls.
     */
    uint64_t overflows;
    /**
     * Callbacks posted by other threads.
     */
    uint64_t posts;
    /**
     * Times that another thread had to wake the loop.
     */
    uint64_t wakes;
    /**
     * How late timers became ready: late[i] counts those that were 2^i ns late or more and less
     * than 2^(i+1); late[0] has those under 2 ns, late[31] all from 2.1 s.
     */
    uint64_t late[32];
} loop_metrics_t;

/**
 * Gets the report of a slow callback: how long it held the loop, its kind (LOOP_KIND_CALL and so
 * on) and its address.
 */
typedef void (*loop_slow_callback_t)(loop_t *loop,
                                     uint64_t duration_ns,
                                     uint32_t kind,
                                     void *callback_address,
                                     void *arg);

/**
 * One pending thing, as loop_walk() shows it. `size` is what this library knows.
 */
typedef struct loop_info_t {
    /**
     * sizeof(loop_info_t) as the library knows it: fields beyond are not there.
     */
    uint32_t size;
    /**
     * LOOP_KIND_CALL and so on.
     */
    uint32_t kind;
    /**
     * Its handle.
     */
    loop_handle_t handle;
    /**
     * The callback's address; NULL for a closure in Rust.
     */
    void *callback_address;
    /**
     * The argument it gets.
     */
    void *arg;
    /**
     * When a timer is due, or the deadline of an operation; LOOP_NEVER for everything else.
     */
    uint64_t when_ns;
    /**
     * The descriptor it is about; -1 for what is about none.
     */
    int fd;
    /**
     * Whether it counts for loop_run().
     */
    bool referenced;
} loop_info_t;

/**
 * Gets each thing that is pending; `info` is valid during the call.
 */
typedef void (*loop_walk_callback_t)(loop_t *loop, const struct loop_info_t *info, void *arg);

/**
 * Writes the counters of the loop to `out`. They are exact. Set `out->size` first.
 *
 * Errors: -EINVAL `out` is NULL or `out->size` is less than 4; -ESHUTDOWN, -EPERM, -EOWNERDEAD.
 * The loop's thread.
 */
int loop_metrics(const loop_t *loop, struct loop_metrics_t *out);

/**
 * Calls `callback` after every callback that held the loop for `threshold_ns` or longer. Replaces
 * the one there was; a threshold of 0 or a NULL callback ends the reports. Costs a reading of the
 * clock a callback while set, nothing otherwise. With RINGLOOP_DEBUG=1 in the environment every
 * loop reports 100 ms and more on stderr, besides this.
 *
 * Errors: -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
 */
int loop_set_slow_callback(loop_t *loop, uint64_t threshold_ns, loop_slow_callback_t callback, void *arg);

/**
 * Shows everything that is pending to `callback`, in no order that is promised: finds what was
 * forgotten. The callback may call any function of the loop, loop_cancel() included, but
 * loop_close() and loop_shutdown(), which say -EBUSY; what it schedules may or may not be shown.
 * Posts of other threads have no handles and are not shown, but for delayed ones. O(n).
 *
 * Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
 */
int loop_walk(loop_t *loop, loop_walk_callback_t callback, void *arg);

/* ==== library ==== */

/**
 * The version of the library that runs, such as "1.2.3"; LOOP_VERSION_STRING is that of the
 * header. Any thread.
 */
const char *loop_version(void);

/**
 * The name and the meaning of an error, such as "EBUSY: Device or resource busy"; `error` may be
 * negative or positive. The string lives for ever. Any thread.
 */
const char *loop_strerror(int error);

/**
 * A sentence about what went wrong last on the calling thread, and what to do about it; "" when
 * nothing has. A call that succeeds leaves it as it was: ask after a failure alone. So do
 * loop_wakeup() and loop_remote_wakeup(), which are for signal handlers, also when they fail. The
 * string lives for ever. Any thread.
 */
const char *loop_last_error(void);

#ifdef __cplusplus
}
#endif

#endif /* RINGLOOP_H */
