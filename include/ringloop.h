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
 * Rules for all functions:
 *
 *   Errors    An int or a loop_handle_t that is negative is -errno. A function that returns an int
 *             returns 0 on success, unless its description says otherwise. loop_strerror() names an
 *             error. loop_last_error() gives a sentence about its cause and remedy. A function that
 *             fails writes nothing to an out parameter, and loses nothing: the loop stays usable,
 *             and scheduled callbacks stay scheduled. Errors are checked in this order: -EINVAL,
 *             -EOWNERDEAD, -EPERM, the state of the loop (-EBUSY, -ESHUTDOWN, -EDEADLK). An error
 *             that is listed without a description means: -EINVAL an argument is NULL or out of
 *             range; -EOWNERDEAD the function was called in a forked child; -EPERM the function was
 *             called by the wrong thread; -ESHUTDOWN the loop has been shut down, or is being
 *             closed; -ENOENT the handle is stale; -ENOMEM no memory is left; -EMFILE, -ENFILE no
 *             descriptor is left. Functions that cannot return an error return false, 0, NULL or
 *             the time. An error in the result of an operation, which its callback gets, is only an
 *             errno: loop_strerror() names the errno, and loop_last_error() does not describe it.
 *   Time      uint64_t nanoseconds on CLOCK_MONOTONIC. No delay is rounded. A timer never runs
 *             early.
 *   Order     Ready callbacks are in one ready queue, first in, first out. An iteration appends the
 *             posts of other threads (the callbacks that they scheduled), then the completions of
 *             the kernel, then the timers that are due, and runs the queue. Therefore a post may
 *             overtake a completion that was there before it. Timers with the same deadline run in
 *             the order in which they were scheduled. Callbacks that a callback schedules run in a
 *             later iteration. The callbacks that one iteration runs are a batch.
 *   Threads   A loop belongs to the thread that made it, or that adopted it (loop_adopt()). "The
 *             loop's thread" marks functions that only this thread may call. "Any thread" marks
 *             functions that other threads may call.
 *   Ownership An `arg` belongs to the caller. The `arg` must live until its callback has returned
 *             for the last time, or was cancelled while it was not running; loop_on_release()
 *             reports that moment. For operations and work that have begun, a final callback is
 *             still to come after a cancel. A buffer of an operation belongs to the kernel until
 *             the final callback, or until the release hook of the operation. Addresses, paths and
 *             arrays are copied. Returned strings are valid until the process ends.
 *   Handles   A handle never dangles. The handle of something that has ended is stale: functions
 *             return -ENOENT for it. They also return -ENOENT for 0, for a negative number, and for
 *             the handle of another loop if the library can tell the difference.
 *   Fork      A loop belongs to the process that made it. In a forked child every function of the
 *             loop returns -EOWNERDEAD, except loop_close(), which only frees memory. If a child is
 *             forked in a callback, the run ends in the child with -EOWNERDEAD when the callback
 *             returns.
 *   Kernel    Linux 5.10 or later, unless a function names a later version.
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

/* The version of this header: 0xMMmmpp, and as text. */
#define LOOP_VERSION_NUMBER 0x000100
#define LOOP_VERSION_STRING "0.1.0"

/* Durations in nanoseconds, of whole numbers: use LOOP_USEC(500), since LOOP_MSEC(0.5) is 0. */
#define LOOP_NSEC(n) ((uint64_t)(n))
#define LOOP_USEC(n) ((uint64_t)(n) * UINT64_C(1000))
#define LOOP_MSEC(n) ((uint64_t)(n) * UINT64_C(1000000))
#define LOOP_SEC(n) ((uint64_t)(n) * UINT64_C(1000000000))

/* As a time: never. As a limit: none. */
#define LOOP_NEVER UINT64_MAX

/* The first value of options: loop_options_t options = LOOP_OPTIONS_INIT; */
#define LOOP_OPTIONS_INIT { sizeof(loop_options_t), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Types of other headers: <linux/io_uring.h>, <netdb.h>, <sys/uio.h>, <sys/stat.h>. */
struct addrinfo;
struct io_uring_sqe;
struct iovec;
struct msghdr;
struct sockaddr;
struct statx;

/* A loop. loop_new() makes it, and loop_close() frees it. */
typedef struct loop_t loop_t;


/* ==== handles and callbacks ==== */

/**
 * Names something that was scheduled. A handle is greater than 0. A handle never dangles: after
 * the thing that it names has ended, every function returns -ENOENT for it, even if its slot has
 * been used again.
 */
typedef int64_t loop_handle_t;

/**
 * A callback. It gets the loop on which it runs, so that it can schedule more, and the `arg` that
 * was passed with it.
 *
 * A callback must return: no longjmp, no pthread_exit. A C++ exception that leaves a callback
 * aborts the process with a message. The message does not name the exception, because the library
 * cannot call what(). A callback that was started with ringloop.hpp may throw: the exception
 * propagates out of the run, or what() is in the message.
 */
typedef void (*loop_callback_t)(loop_t *loop, void *arg);

/**
 * A release hook. It gets the `arg` of something that has ended, exactly once.
 */
typedef void (*loop_release_t)(void *arg);

/* ==== lifecycle ==== */

/**
 * The loop uses a virtual clock, which starts at `start_ns`. Whenever the loop would sleep, the
 * clock jumps to the next deadline, or to the limit of loop_run_once(): a test runs an hour of
 * timers in a millisecond. With no deadline and no limit the loop sleeps for real. While an
 * operation, work or the end of a child is pending, the loop also sleeps for real and the clock
 * stands still: no timer runs, and no deadline of an operation expires. Watchers of descriptors do
 * not stop the clock. loop_set_slow_callback() measures real time.
 */
#define LOOP_VIRTUAL_TIME 1

/**
 * The value of slack_ns for exact deadlines.
 */
#define LOOP_EXACT 1

/**
 * Settings for loop_new(). Start from LOOP_OPTIONS_INIT; 0 in a field selects the default.
 */
typedef struct loop_options_t {
    /**
     * sizeof(loop_options_t) when the program was compiled. Newer fields count as 0.
     */
    uint32_t size;
    /**
     * LOOP_VIRTUAL_TIME or 0.
     */
    uint32_t flags;
    /**
     * Entries of the submission queue: at most 32768. The default is 128, or cq_entries if that is
     * less. The kernel rounds the number up to a power of two.
     */
    uint32_t sq_entries;
    /**
     * Entries of the completion queue: at least sq_entries, at most 65536. The default is 8 *
     * sq_entries, or 65536 if that is less. Completions that do not fit wait in memory of the
     * kernel, which costs a system call. If the kernel has no memory for a completion, the
     * completion is lost, and a run returns -EBADR.
     */
    uint32_t cq_entries;
    /**
     * The loop polls the ring and the clock for this long before it sleeps. For this long before a
     * deadline, the loop also polls instead of sleeping. Polling lowers latency and keeps a
     * processor busy. With LOOP_VIRTUAL_TIME the option has no effect, since the virtual clock
     * stands still while the loop polls.
     */
    uint64_t spin_ns;
    /**
     * A timer may run this much late, and never early. A larger slack gives fewer wakeups. With
     * LOOP_EXACT each deadline is exact, whatever that costs. With 0, the default, a timer that
     * stands alone is exact. A timer in a dense stream, where deadlines follow each other closely,
     * is at most one gap late. The gap is four times the latency of a wakeup, which the loop
     * measures, within 10 and 200 us; see gap_ns in loop_metrics_t.
     */
    uint64_t slack_ns;
    /**
     * The time at which the clock of LOOP_VIRTUAL_TIME starts.
     */
    uint64_t start_ns;
    /**
     * The name of a file for trace events, which Perfetto and chrome://tracing show. With NULL the
     * name is that of RINGLOOP_TRACE in the environment, if that is set. `%p` in the name stands
     * for the number of the process. A file stays open until the process ends. See
     * docs/tracing.md.
     */
    const char *trace;
    /**
     * The maximum number of threads for loop_run_in_executor() and loop_getaddrinfo(); the default
     * is 4 threads. A thread is started when there is work for it. The default suits work that
     * waits. For work that computes, set one thread for each processor.
     */
    uint32_t executor_threads;
    /**
     * Must be 0.
     */
    uint32_t reserved;
} loop_options_t;

/**
 * Makes a loop, which belongs to the calling thread. `options` may be NULL: all defaults.
 *
 * Costs a few system calls. An operation has the credentials that the process has when the
 * operation goes to the kernel, not those at the time of loop_new(). A change of credentials
 * closes no descriptor. loop_close() frees the loop.
 *
 * Errors: -EPERM, -EACCES, -ENOSYS io_uring is disabled (by the sysctl kernel.io_uring_disabled,
 * or by the seccomp profile of a container), or only io_uring_enter() or io_uring_register() is
 * refused; -ENOSYS also if the kernel has no io_uring that is new enough (Linux 5.10); -EMFILE,
 * -ENFILE, -ENOMEM a limit was reached: some kernels (6.14 to 6.18) count the queues of a loop as
 * locked memory of the user (ulimit -l), 28 KiB by default, 8 KiB with sq_entries 64 and
 * cq_entries 128; -EINVAL `out` is NULL, a flag or a number of entries is out of range, or
 * RINGLOOP_KERNEL is not a version; -E2BIG the options use a feature that is newer than this
 * library; the errors of opening the trace file. loop_last_error() names the setting to change.
 *
 * Any thread. Since Linux 5.10; Linux 6.1 or later is recommended.
 */
int loop_new(const struct loop_options_t *options, loop_t **out);

/**
 * Makes the calling thread the owner of a loop that has not run yet. A program can make a loop in
 * main(), where a failure is easy to report, and run it in a worker thread. After the call the
 * former owner gets -EPERM. Everything that was scheduled stays scheduled.
 *
 * The caller must ensure that the last call of the former owner has returned before this call, for
 * example with pthread_create().
 *
 * Errors: -EBUSY the loop has run, or was bound to its thread by a system call on its ring:
 * loop_fd(), loop_flush(), loop_forget_fd(), or more operations than the submission queue holds;
 * -EDEADLK the caller is a thread of the loop's own executor; -EOWNERDEAD, -ESHUTDOWN, -ENOMEM,
 * -EINVAL. Any thread.
 */
int loop_adopt(loop_t *loop);

/**
 * Shuts a loop down: cancels everything that is pending, and runs until the last final callback
 * has run. The loop accepts nothing new afterwards (-ESHUTDOWN). Call loop_close() next.
 *
 * Errors: -EBUSY the call was made inside a run or a callback of this loop; the errors of
 * loop_run(), after which the function can be called again. The loop's thread.
 */
int loop_shutdown(loop_t *loop);

/**
 * Runs until nothing is left that counts for loop_run(), for at most `timeout_ns`, and then shuts
 * down as loop_shutdown() does. Everything that is pending has that time to end by itself. Cancel
 * listeners and similar operations before the call, since they never end by themselves.
 * loop_stop(), loop_break() and signals do not end the wait. With LOOP_VIRTUAL_TIME the timeout is
 * measured on the virtual clock, and on CLOCK_MONOTONIC while the loop sleeps for an operation,
 * since the virtual clock stands still then.
 *
 * Returns how many things that counted had to be cancelled: 0 if all ended by themselves. Errors:
 * the errors of loop_run() and of loop_shutdown(). The loop's thread.
 */
int loop_shutdown_within(loop_t *loop, uint64_t timeout_ns);

/**
 * Closes a loop and frees it. The call cancels everything that is pending and runs the release
 * hooks, but no callbacks. The pointer is invalid afterwards, as after free(). NULL is allowed and
 * does nothing.
 *
 * In a forked child the call frees the child's copy of the memory and does nothing else: no
 * release hook runs there, and later calls with the pointer still return -EOWNERDEAD. In a child
 * that was forked in a callback, the call returns -EOWNERDEAD until that callback has returned. In
 * a child that was forked by another thread than the loop's, the call returns 0 at once and leaks
 * the memory, which the loop's thread may have been changing.
 *
 * A thread that exits and leaves a loop open cancels the loop's reads and writes of files and its
 * sends without a copy, and waits for them for at most one second: after the exit, nothing can ask
 * the kernel whether a device still uses their buffers. All other operations of the loop in the
 * kernel end with the thread. loop_close() on another thread then runs the release hooks, except
 * those of operations that took longer than that second. A main thread that leaves by
 * pthread_exit() does not wait, since pthread_exit() calls no library there: the release hooks of
 * its reads and writes of files, and of its sends without a copy, do not run, unless the thread
 * waits for the end of these operations before it exits.
 *
 * A thread has exited when the kernel reports the exit. For a main thread that has left by
 * pthread_exit(), /proc reports the exit: without /proc, the loops of that thread stay open.
 *
 * The call also frees the loop if io_uring_enter() is refused, for example by a seccomp filter
 * that was installed after loop_new(). In that case the release hooks of operations that the
 * kernel has taken do not run, since the kernel may still use their memory.
 *
 * Errors, with nothing changed: -EBUSY the call was made inside a run or a callback of this loop;
 * -ESHUTDOWN the call was made in a release hook while the loop is being closed; -EDEADLK the
 * caller is a thread of the loop's own executor, for whose work the call would wait; -EPERM. The
 * loop's thread; any thread after the loop's thread has exited.
 */
int loop_close(loop_t *loop);

/**
 * Closes a loop as loop_close() does, but gives up after `timeout_ns`, if the kernel has not
 * released the loop's operations by then, or work of loop_run_in_executor() has not ended. Calls,
 * timers and hooks keep nothing in the kernel: a loop with only these is always closed.
 *
 * Errors: -ETIMEDOUT the call gave up: nothing was freed, and the function can be called again,
 * but operations and work were cancelled as by loop_cancel(), and a run brings their final
 * callbacks; -ENOMEM no memory is left for the results of operations, which loop_close() does not
 * need; the errors of io_uring_enter(), with nothing freed; the errors of loop_close(). The loop's
 * thread; any thread after the loop's thread has exited.
 */
int loop_close_within(loop_t *loop, uint64_t timeout_ns);

/**
 * Stores a pointer for the program; the pointer is NULL at first. A call from another thread does
 * nothing. The loop's thread.
 */
void loop_set_data(loop_t *loop, void *data);

/**
 * Gets the pointer that loop_set_data() has stored. The loop's thread; NULL on another thread.
 */
void *loop_data(const loop_t *loop);

/* ==== running ==== */

/**
 * The run returned because nothing that counts is left.
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
 * Runs the loop until loop_stop() or loop_break(). A signal does not end the run. The loop sleeps
 * in the kernel while nothing is ready. Costs one system call for each iteration that sleeps, and
 * seldom a second one for a timer that was cancelled in the meantime. An iteration that does not
 * sleep makes none, unless operations wait to be submitted or the kernel holds completions back.
 *
 * Returns LOOP_STOPPED or LOOP_BROKEN, or -EBUSY the loop is already running (a callback may run
 * another loop); -ENOMEM memory was refused, nothing is lost, run again; -EAGAIN the kernel has
 * accepted no submissions for one second, for lack of memory, nothing is lost, run again; -EBADR
 * the kernel had no memory to keep a completion: the operation of that completion ends with -EBADR
 * when it is cancelled; -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL; the errors of io_uring_enter().
 * The loop's thread.
 */
int loop_run_forever(loop_t *loop);

/**
 * Runs the loop until nothing is left that counts: no call, timer, post, watcher, operation, child
 * or work. loop_unref() makes one of these not count. In all other ways loop_run() works as
 * loop_run_forever() does. If nothing is left at the start, the call returns at once, without an
 * iteration. A remote does not keep a run going: if other threads may still post, use
 * loop_run_forever() and stop it.
 *
 * Returns LOOP_DONE, LOOP_STOPPED or LOOP_BROKEN. Errors: the errors of loop_run_forever(). The
 * loop's thread.
 */
int loop_run(loop_t *loop);

/**
 * Runs one iteration, which sleeps for at most `timeout_ns`. With 0 the iteration does not sleep;
 * with LOOP_NEVER it sleeps until something is ready.
 *
 * Returns how many callbacks ran, without hooks; the number may be 0. A loop_stop() or a
 * loop_break() ends with this iteration and does not show in the result. Errors: -EINTR a signal
 * ended the wait and no callback ran; otherwise the errors of loop_run_forever(). The loop's
 * thread.
 */
int loop_run_once(loop_t *loop, uint64_t timeout_ns);

/**
 * Makes the run return after the current batch of callbacks. Callbacks that the batch scheduled
 * stay for the next run. If the function is called before a run, that run does exactly one
 * iteration, which does not sleep. The request ends when a run returns. O(1).
 *
 * Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
 */
int loop_stop(loop_t *loop);

/**
 * Makes the run return after the current callback. The rest of the batch stays at the front of the
 * ready queue for the next run. loop_break() takes precedence over loop_stop(). O(1).
 *
 * Errors: -EINVAL the loop is not running; -EPERM, -EOWNERDEAD. The loop's thread.
 */
int loop_break(loop_t *loop);

/**
 * Tells whether the loop is inside a run. The loop's thread; false on another thread.
 */
bool loop_is_running(const loop_t *loop);

/**
 * Tells whether loop_run() would wait or work: something that counts is pending. The loop's
 * thread; false on another thread.
 */
bool loop_is_alive(const loop_t *loop);

/**
 * Gets the innermost loop that is running on the calling thread, or NULL. Any thread.
 */
loop_t *loop_running(void);

/* ==== calls ==== */

/**
 * loop_add_hook(): the hook runs in every iteration, before the loop submits and waits.
 */
#define LOOP_BEFORE_WAIT 1

/**
 * loop_add_hook(): the hook runs in every iteration, after the loop has collected what is ready,
 * before the loop runs it.
 */
#define LOOP_AFTER_WAIT 2

/**
 * Runs `callback` in the next iteration, after all callbacks that are already ready. For a call
 * inside a callback, the next iteration is a later one, never the current one: a callback that
 * schedules itself again starves nothing. `arg` belongs to the caller; see loop_on_release().
 *
 * Returns a handle, or -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1), no system call, no
 * allocation unless more is pending than ever before. The loop's thread.
 */
loop_handle_t loop_call_soon(loop_t *loop, loop_callback_t callback, void *arg);

/**
 * Runs `callback` once, `delay_ns` from now. The function is loop_call_at() with loop_time() +
 * delay_ns, which saturates at LOOP_NEVER.
 *
 * Returns a handle. Errors: the errors of loop_call_at(). O(1), no system call. The loop's thread.
 */
loop_handle_t loop_call_later(loop_t *loop, uint64_t delay_ns, loop_callback_t callback, void *arg);

/**
 * Runs `callback` once, at `when_ns` on the clock of loop_time(). The timer never runs early, not
 * by a nanosecond. It runs after timers that were scheduled earlier for the same time. A timer in
 * the past is due in the next iteration. A timer at LOOP_NEVER does not run, but can be
 * rescheduled.
 *
 * Returns a handle, or -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1), no system call.
 * The loop's thread.
 */
loop_handle_t loop_call_at(loop_t *loop, uint64_t when_ns, loop_callback_t callback, void *arg);

/**
 * Runs `callback` every `period_ns`, for the first time one period from now. The timer keeps its
 * phase: the k-th call is due at start + k * period_ns, however long the callbacks take. The loop
 * leaves out calls for which it is too late; loop_skipped() counts them. Inside the callback the
 * handle is live, and loop_when() gives the time of the next call.
 *
 * Returns a handle, or -EINVAL the period is 0, or `loop` or `callback` is NULL; -ENOMEM,
 * -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
loop_handle_t loop_call_every(loop_t *loop, uint64_t period_ns, loop_callback_t callback, void *arg);

/**
 * Gets the time in nanoseconds. Every call reads the clock: CLOCK_MONOTONIC, or the loop's own
 * clock if the loop was made with LOOP_VIRTUAL_TIME. With NULL the clock is CLOCK_MONOTONIC. About
 * 25 ns. Any thread, at any moment while the loop is open.
 */
uint64_t loop_time(const loop_t *loop);

/**
 * Gets the earliest deadline of the timers that are not in the ready queue, or LOOP_NEVER. O(1);
 * after the timer with that deadline was cancelled, O(log n) amortized. The loop's thread;
 * LOOP_NEVER on another thread.
 */
uint64_t loop_next_deadline(const loop_t *loop);

/**
 * Cancels the timer, operation or other thing that a handle names. Its callback does not run
 * again, even if the callback is in the current batch. Its release hook runs before loop_cancel()
 * returns. (The hook runs later in two cases. The hook of the running callback runs when that
 * callback returns. If loop_cancel() is called inside sixteen nested release hooks, the hook runs
 * when the innermost of these returns.) For operations and work that have begun, the final
 * callback and the release hook are still to come.
 *
 * Returns 0: the thing has ended; 1: an operation or work was asked to end, and its final callback
 * is still to come, or -ENOENT the handle is stale; -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL.
 * O(1), however many are pending; allocates nothing. No system call, except usually one for the
 * last watcher of a descriptor: the kernel releases the file before loop_cancel() returns, and
 * before the release hook. The loop's thread.
 */
int loop_cancel(loop_t *loop, loop_handle_t handle);

/**
 * Moves a timer to `when_ns`, behind the timers that are already due at that time. The handle
 * stays the same. A timer in the current batch is taken out of the batch. A repeating timer takes
 * its phase from the new time.
 *
 * Errors: -EINVAL the handle is not a timer's; -ENOENT the handle is stale; -ENOMEM, -ESHUTDOWN,
 * -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
int loop_reschedule(loop_t *loop, loop_handle_t handle, uint64_t when_ns);

/**
 * Writes the time at which a timer is due. For a repeating timer inside its callback, this is the
 * time of the next call.
 *
 * Errors: -EINVAL the handle is not a timer's, or `when_ns` is NULL; -ENOENT the handle is stale;
 * -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
int loop_when(const loop_t *loop, loop_handle_t handle, uint64_t *when_ns);

/**
 * Writes how many calls of a repeating timer were left out, because the loop was too late for
 * them. The number is 0 for other timers.
 *
 * Errors: the errors of loop_when(). O(1). The loop's thread.
 */
int loop_skipped(const loop_t *loop, loop_handle_t handle, uint64_t *count);

/**
 * Tells whether the callback of a handle is still to run. The loop's thread; false on another
 * thread.
 */
bool loop_is_pending(const loop_t *loop, loop_handle_t handle);

/**
 * Gets the handle of the callback that is running, or 0. The handle of a callback that runs once
 * is already stale then. A post of another thread has no handle. The loop's thread; 0 on another
 * thread.
 */
loop_handle_t loop_current(const loop_t *loop);

/**
 * Makes a handle count for loop_run(), as handles do from the start. loop_run() does not return
 * while a handle that counts is live.
 *
 * Errors: -EINVAL the handle is that of a hook or a signal handler, which never count; -ENOENT the
 * handle is stale; -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
int loop_ref(loop_t *loop, loop_handle_t handle);

/**
 * Makes a handle not count for loop_run(). loop_run() then returns even if the callback is still
 * pending. It also returns if the kernel still has the buffer of the operation, or if the
 * operation was cancelled and its final callback is still to come.
 *
 * Errors: the errors of loop_ref(). O(1). The loop's thread.
 */
int loop_unref(loop_t *loop, loop_handle_t handle);

/**
 * Tells whether a handle counts for loop_run(). The loop's thread; false on another thread.
 */
bool loop_has_ref(const loop_t *loop, loop_handle_t handle);

/**
 * Calls `release` with the `arg` of a handle, exactly once, after the thing that the handle names
 * has ended. The thing has ended when its callback has run for the last time, when the thing was
 * cancelled and no final callback is still to come, or when the loop is closed. `release` never
 * runs while the callback is on the stack. `release` is the place to free `arg`. A handle has one
 * release hook: a second one replaces the first, and NULL removes it.
 *
 * The hook may call any function of the loop. While the loop is being closed, these functions
 * return -ESHUTDOWN. The hook runs inside loop_cancel(). If hooks cancel one another in a chain,
 * at most sixteen are on the stack, however long the chain is: the others run when the sixteenth
 * returns.
 *
 * Errors: -ENOENT the handle is stale; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. O(1).
 * The loop's thread.
 */
int loop_on_release(loop_t *loop, loop_handle_t handle, loop_release_t release);

/**
 * Runs `callback` in every iteration, at the point that `when` names: LOOP_BEFORE_WAIT or
 * LOOP_AFTER_WAIT. Hooks are for embedding other loops. Hooks run in the order in which they were
 * added, and do not keep a run going. A callback that a hook schedules may run in the same
 * iteration.
 *
 * Returns a handle, or -EINVAL, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1). The loop's thread.
 */
loop_handle_t loop_add_hook(loop_t *loop, uint32_t when, loop_callback_t callback, void *arg);

/* ==== other threads ==== */

/**
 * A counted reference to a loop, for other threads. A remote may outlive its loop. After the end
 * of the loop every function returns -ESHUTDOWN for the remote.
 */
typedef struct loop_remote_t loop_remote_t;

/**
 * Runs `callback` on the loop's thread as soon as possible. Such a callback is called a post. The
 * post runs after earlier posts of the calling thread. Posts and the loop's own loop_call_soon()
 * run in the order of the calls. The post counts for loop_run().
 *
 * The loop must be open until the call returns: a thread that may be late uses a remote. When the
 * loop is closed, posts that have not run are dropped without notice; loop_remote_call_soon()
 * takes a release hook for that case. Costs a compare-and-swap, sometimes an allocation, and a
 * system call only if the loop sleeps.
 *
 * Errors: -ESHUTDOWN, -ENOMEM, -EOWNERDEAD, -EINVAL. Any thread.
 */
int loop_call_soon_threadsafe(loop_t *loop, loop_callback_t callback, void *arg);

/**
 * Makes the loop's sleep return at once, or its next sleep if the loop is awake. The function is
 * async-signal-safe and does not change errno. The loop must be open until the call returns.
 *
 * Errors: -ESHUTDOWN, -EOWNERDEAD, -EINVAL; loop_last_error() does not change, since a signal
 * handler must not touch thread-local storage. Any thread, and signal handlers.
 */
int loop_wakeup(loop_t *loop);

/**
 * Makes a remote of the loop, for other threads. loop_remote_release() ends it.
 *
 * Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. Allocates nothing. The loop's thread.
 */
int loop_remote_new(loop_t *loop, struct loop_remote_t **out);

/**
 * Adds one owner to a remote, and returns the remote. Each owner ends with loop_remote_release().
 * NULL is allowed. Any thread that holds the remote.
 */
struct loop_remote_t *loop_remote_retain(struct loop_remote_t *remote);

/**
 * Removes one owner of a remote; the end of the last owner frees the remote. NULL is allowed. Any
 * thread.
 */
void loop_remote_release(struct loop_remote_t *remote);

/**
 * Runs `callback` on the loop's thread as loop_call_soon_threadsafe() does, for a loop that may be
 * closed at any time. An accepted post runs and is then released, or is released without being run
 * when the loop is closed. `release`, which may be NULL, gets `arg` exactly once, on the thread
 * that runs or closes the loop. The `arg` of a refused post stays the caller's.
 *
 * The number of waiting posts has no limit: a thread that posts faster than the loop runs must
 * hold back, or memory and the lateness of timers grow. The function is not for signal handlers. A
 * signal handler notes the event and calls loop_remote_wakeup().
 *
 * Errors: -ESHUTDOWN the loop is shut down, is being closed, or was closed; -ENOMEM, -EOWNERDEAD,
 * -EINVAL. Any thread.
 */
int loop_remote_call_soon(struct loop_remote_t *remote, loop_callback_t callback, void *arg, loop_release_t release);

/**
 * Runs `callback` on the loop's thread `delay_ns` from now, as loop_remote_call_soon() does. On a
 * virtual clock the delay begins when the loop takes the post.
 *
 * Errors: the errors of loop_remote_call_soon(). Any thread.
 */
int loop_remote_call_later(struct loop_remote_t *remote,
                           uint64_t delay_ns,
                           loop_callback_t callback,
                           void *arg,
                           loop_release_t release);

/**
 * Wakes the loop as loop_wakeup() does, for a loop that may be closed at any time.
 *
 * Errors: the errors of loop_wakeup(). Any thread, and signal handlers.
 */
int loop_remote_wakeup(struct loop_remote_t *remote);

/**
 * Stops the loop as loop_stop() does, in order with other posts. Errors: the errors of
 * loop_remote_call_soon(). Any thread.
 */
int loop_remote_stop(struct loop_remote_t *remote);

/* ==== readiness ==== */

/**
 * A watcher's callback. `events` has the bits for which `fd` is ready: POLLIN, POLLOUT and others
 * of poll(2).
 */
typedef void (*loop_fd_callback_t)(loop_t *loop, int fd, uint32_t events, void *arg);

/**
 * Runs `callback` whenever `fd` is ready for one of `events` (POLLIN, POLLOUT and others of
 * poll(2)). The watcher is level-triggered: the callback runs as long as `fd` is ready. POLLERR,
 * POLLHUP and POLLNVAL are always reported. Several watchers of one descriptor run in the order in
 * which they were registered.
 *
 * Before the descriptor is closed, end its watchers with loop_cancel() or loop_forget_fd(). When
 * the last watcher has ended, the kernel has released the file: close() really closes it, the peer
 * sees the end, and a port is free. If a descriptor is closed nevertheless, or can no longer be
 * watched, its watcher is called a last time with POLLNVAL or POLLERR and ends, or it watches the
 * file that has the number now. The behaviour is never undefined.
 *
 * Returns a handle, or -EBADF `fd` is not open; -EPERM `fd` is a file or a directory, as with
 * epoll; -EINVAL the events have a bit that poll(2) does not have, or `loop` or `callback` is
 * NULL; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. About 1.3 us for a query to epoll. The loop's
 * thread.
 */
loop_handle_t loop_watch_fd(loop_t *loop, int fd, uint32_t events, loop_fd_callback_t callback, void *arg);

/**
 * Changes the events for which a watcher waits. A queued event that the watcher no longer waits
 * for is dropped. With 0 the watcher is paused: errors and hang-ups are still reported.
 *
 * Returns 0, or -EINVAL the handle is not a watcher's, or the events have a bit that poll(2) does
 * not have; -ENOENT, -ESHUTDOWN, -EPERM, -EOWNERDEAD. No system call. The loop's thread.
 */
int loop_watch_update(loop_t *loop, loop_handle_t handle, uint32_t events);

/**
 * Ends every watcher of `fd`, asks every operation on `fd` to end, and makes the kernel release
 * the file. Call the function before close(). The final callbacks of the operations are still to
 * come.
 *
 * Returns how many operations the kernel has not released: with 0, close(fd) really closes the
 * file, the peer sees the end of file and a port is free again. Operations that are not released
 * are file I/O that has begun, or wait in a chain. Errors: -EBADF the number is negative; -ENOMEM,
 * -ESHUTDOWN, -EPERM, -EOWNERDEAD; the errors of io_uring_enter(). One system call as a rule, or
 * none if nothing is on `fd`; one more for each time that the operations on `fd` fill the
 * submission queue. The loop's thread.
 */
int loop_forget_fd(loop_t *loop, int fd);

/* ==== completions ==== */

/**
 * A flag of a result: more results of the same operation will come. Without the flag, the callback
 * is the final one.
 */
#define LOOP_MORE 2

/**
 * A flag of the final result: the deadline came before the end of the operation, and has cut the
 * operation short if that was possible.
 */
#define LOOP_TIMED_OUT 8192

/**
 * Gets the result of an operation: the value that the kernel returned, often a number of bytes, or
 * -errno. `flags` has LOOP_MORE if this is not the final callback, LOOP_TIMED_OUT, and
 * IORING_CQE_F_* of the kernel.
 */
typedef void (*loop_io_callback_t)(loop_t *loop, int32_t result, uint32_t flags, void *arg);

/**
 * Submits any operation that the kernel knows, as filled in by liburing's io_uring_prep_*(). The
 * entry is copied, and the loop sets its user_data. `callback` gets every completion. Memory that
 * the entry points to must live until the final callback, or until the release hook has run.
 * Buffers that the entry gives to the kernel to keep (IORING_OP_PROVIDE_BUFFERS) must live for as
 * long as the kernel has them. IORING_OP_SEND_ZC and _SENDMSG_ZC send without a copy: the callback
 * gets the result with LOOP_MORE, and the final callback means that the kernel has released the
 * buffer.
 *
 * The operation goes to the kernel with the system call of the next iteration, or at once if the
 * queue is full. loop_cancel() asks the kernel to cancel the operation. loop_set_deadline() gives
 * the operation a deadline.
 *
 * Returns a handle, or -EINVAL the entry has a flag or an operation that the loop could not
 * control, which loop_last_error() names: IOSQE_IO_DRAIN, IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_LINK,
 * IOSQE_IO_HARDLINK, unknown flags, IORING_OP_ASYNC_CANCEL, _POLL_REMOVE, _TIMEOUT_REMOVE,
 * _LINK_TIMEOUT, _MSG_RING, entries of 128 bytes, and flags that let the kernel use a buffer after
 * the final callback: MSG_ZEROCOPY and MSG_SPLICE_PAGES of IORING_OP_SEND and _SENDMSG,
 * MSG_SOCK_DEVMEM of _RECV and _RECVMSG; -ENOSYS the kernel does not have the operation; -EAGAIN
 * the kernel accepts no submissions at the moment; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1).
 * The loop's thread.
 */
loop_handle_t loop_submit(loop_t *loop, const struct io_uring_sqe *sqe, loop_io_callback_t callback, void *arg);

/**
 * Submits a chain of `count` operations. Each operation begins when the one before it has
 * succeeded. If one fails, those after it end with -ECANCELED. The loop sets IOSQE_IO_LINK. An
 * entry may have IOSQE_IO_HARDLINK instead: the next operation then begins whatever the result is.
 * The chain is never split. `args[i]` is the argument of the i-th operation; `handles`, unless
 * NULL, gets the handles. All operations have the same callback. With a `count` of 0 the call does
 * nothing.
 *
 * The kernel does not know an operation of a chain until the one before it has ended. A cancel or
 * a deadline that comes earlier ends the operation when its turn comes.
 *
 * Errors, with nothing submitted: -E2BIG the chain is longer than the submission queue; the errors
 * of loop_submit(). O(count). The loop's thread.
 */
int loop_submit_chain(loop_t *loop,
                      const struct io_uring_sqe *sqes,
                      size_t count,
                      loop_io_callback_t callback,
                      void *const *args,
                      loop_handle_t *handles);

/**
 * Gets the descriptor of the ring, for io_uring_register() of files and buffers. Never submit on
 * the ring, never close the descriptor, and send no message to the ring (IORING_OP_MSG_RING): the
 * ring belongs to the loop. Completions of tags of registered resources are ignored. Tags below
 * 2^32 are never numbers that the loop itself uses.
 *
 * Returns the descriptor, or -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
 */
int loop_ring_fd(const loop_t *loop);

/**
 * Tells whether this kernel has an operation, an IORING_OP_*. The loop asks the kernel when the
 * loop is made, so that backports of distributions count. With RINGLOOP_KERNEL=5.10 in the
 * environment, a loop uses nothing that came later, to try a program as on that kernel. The loop's
 * thread.
 */
bool loop_supports(const loop_t *loop, uint8_t opcode);

/**
 * Cuts an operation short at `when_ns`. The final result then has LOOP_TIMED_OUT, and is the part
 * that the kernel has done, or -ETIMEDOUT if the kernel has done nothing. A new deadline replaces
 * an earlier one; LOOP_NEVER removes it. File I/O that has begun cannot be cancelled, and ends by
 * itself. An operation that waits in a chain ends when its turn comes.
 *
 * Errors: -EINVAL the handle is not an operation's; -ENOENT, -ENOMEM, -ESHUTDOWN, -EPERM,
 * -EOWNERDEAD. O(1): a deadline is a timer, as exact as any other. The loop's thread.
 */
int loop_set_deadline(loop_t *loop, loop_handle_t handle, uint64_t when_ns);

/* ==== files ==== */

/*
 * The functions for files submit operations, as loop_submit() does. An error that comes later goes
 * to the callback: the result is -errno, as the manual of the system call says. Operations also
 * wait on a descriptor with O_NONBLOCK, except loop_splice(), and loop_connect() of a Unix socket
 * to a listener whose queue is full: these end with -EAGAIN there, as the system calls do. (Reads
 * and writes before Linux 5.16, and loop_accept() before 5.18, also end with -EAGAIN if the kernel
 * lacks the fixes of its stable branch.) Do not close the descriptor before the final callback:
 * its number might name another file by then. Paths and arrays are copied.
 *
 * Errors: the errors of loop_submit(); -EINVAL a length is over INT32_MAX, or a pointer is NULL.
 * The loop's thread.
 */

/**
 * For loop_read(), loop_write() and similar functions: the file's own position. Pipes, sockets and
 * terminals have no position and also take LOOP_CURRENT.
 */
#define LOOP_CURRENT UINT64_MAX

/**
 * For loop_fsync(): the data, and what is needed to find the data, as fdatasync(2).
 */
#define LOOP_DATASYNC 1

/**
 * Reads up to `length` bytes at `offset` of a file, or at its own position with LOOP_CURRENT. The
 * result is the number of bytes, 0 at the end of the file. The buffer belongs to the kernel until
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
 * result is the number of bytes written, which may be less than `length`; loop_write_all() writes
 * all of them. A pipe or socket whose reader has gone raises SIGPIPE, as with write(2).
 */
loop_handle_t loop_write(loop_t *loop,
                         int fd,
                         const void *buffer,
                         size_t length,
                         uint64_t offset,
                         loop_io_callback_t callback,
                         void *arg);

/**
 * Writes as loop_write() does, until all bytes are written. The result is `length`. If an error, a
 * cancel or a deadline ended the operation after some bytes were written, the result is their
 * number, with LOOP_TIMED_OUT after a deadline. The result is -errno only if no bytes were
 * written. With LOOP_CURRENT the operations on one descriptor take turns, as those of
 * loop_send_all() do.
 */
loop_handle_t loop_write_all(loop_t *loop,
                             int fd,
                             const void *buffer,
                             size_t length,
                             uint64_t offset,
                             loop_io_callback_t callback,
                             void *arg);

/**
 * Reads into `count` buffers in order, as loop_read() does into one. `count` is at most 1024.
 */
loop_handle_t loop_readv(loop_t *loop,
                         int fd,
                         const struct iovec *iov,
                         size_t count,
                         uint64_t offset,
                         loop_io_callback_t callback,
                         void *arg);

/**
 * Writes from `count` buffers in order, as loop_write() does from one. `count` is at most 1024.
 */
loop_handle_t loop_writev(loop_t *loop,
                          int fd,
                          const struct iovec *iov,
                          size_t count,
                          uint64_t offset,
                          loop_io_callback_t callback,
                          void *arg);

/**
 * Opens a file, as openat(2): the result is the descriptor. `dirfd` may be AT_FDCWD. If the loop
 * is closed before a callback has got the descriptor, the descriptor is closed.
 */
loop_handle_t loop_openat(loop_t *loop,
                          int dirfd,
                          const char *path,
                          int flags,
                          mode_t mode,
                          loop_io_callback_t callback,
                          void *arg);

/**
 * Closes a descriptor, as close(2), on a thread of the kernel, because closing may block
 * (SO_LINGER, a file on a network). The result is 0 or -errno. The descriptor is closed in both
 * cases, except with -ECANCELED: the operation was then cancelled before it had begun, and the
 * descriptor is still open.
 */
loop_handle_t loop_close_fd(loop_t *loop, int fd, loop_io_callback_t callback, void *arg);

/**
 * Writes the data of a file to its device, as fsync(2); with LOOP_DATASYNC in `flags`, as
 * fdatasync(2). The result is 0.
 */
loop_handle_t loop_fsync(loop_t *loop, int fd, uint32_t flags, loop_io_callback_t callback, void *arg);

/**
 * Gets the status of a file, as statx(2): the result is 0. `flags` are AT_*, `mask` is of STATX_*.
 * `out` belongs to the kernel until the final callback.
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
 * Changes the space that is allocated to a file, as fallocate(2): the result is 0. `mode` is 0 or
 * of FALLOC_FL_*.
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
 * the number of bytes, 0 at the end. The offset of a pipe is LOOP_CURRENT. `flags` are SPLICE_F_*.
 * The result is -EAGAIN if the operation would have to wait for a pipe with O_NONBLOCK.
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
 * The functions for sockets submit operations, as loop_submit() does. The rules of loop_read() for
 * errors, O_NONBLOCK and closing hold for them too.
 *
 * Errors: the errors of loop_read(). The loop's thread.
 */

/**
 * Receives up to `length` bytes from a socket, as recv(2): the result is the number of bytes, 0 at
 * the end of a stream. `flags` may have MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE,
 * MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC and MSG_WAITALL. Other flags are refused with
 * -EINVAL: with MSG_SOCK_DEVMEM the data would not be in the buffer. The buffer belongs to the
 * kernel until the final callback.
 */
loop_handle_t loop_recv(loop_t *loop,
                        int fd,
                        void *buffer,
                        size_t length,
                        int flags,
                        loop_io_callback_t callback,
                        void *arg);

/**
 * Sends up to `length` bytes on a socket, as send(2): the result is the number of bytes sent. It
 * may be less than `length`; loop_send_all() sends all of them. No SIGPIPE is raised. The buffer
 * belongs to the kernel until the final callback.
 *
 * `flags` may have MSG_CONFIRM, MSG_DONTROUTE, MSG_DONTWAIT, MSG_EOR, MSG_FASTOPEN, MSG_MORE,
 * MSG_NOSIGNAL, MSG_OOB and MSG_WAITALL. Other flags are refused with -EINVAL. With MSG_ZEROCOPY
 * the kernel would use the buffer after the final callback (rule S13 of docs/semantics.md). To
 * send without a copy, submit IORING_OP_SEND_ZC with loop_submit(): its final callback, without
 * LOOP_MORE, means that the kernel has released the buffer.
 */
loop_handle_t loop_send(loop_t *loop,
                        int fd,
                        const void *buffer,
                        size_t length,
                        int flags,
                        loop_io_callback_t callback,
                        void *arg);

/**
 * Sends as loop_send() does, until all bytes are sent. The result is `length`. If an error, a
 * cancel or a deadline ended the operation after some bytes were sent, the result is their number,
 * as with write(2), with LOOP_TIMED_OUT after a deadline. The result is -errno only if no bytes
 * were sent. From Linux 6.1 the kernel itself sends the rest; before, each part costs an
 * iteration.
 *
 * The operations of loop_send_all() and loop_write_all() on one descriptor take turns in the order
 * of their submission, so that their data does not mix. Each begins in the iteration after the end
 * of the one before it, whatever its result was. loop_send(), loop_sendmsg(), loop_write() and
 * loop_shutdown_fd() do not wait for a turn, and may take effect in the middle of such data.
 */
loop_handle_t loop_send_all(loop_t *loop,
                            int fd,
                            const void *buffer,
                            size_t length,
                            int flags,
                            loop_io_callback_t callback,
                            void *arg);

/**
 * Receives a message, as recvmsg(2): the result is the number of bytes. The array of buffers
 * (msg_iov) is copied. The buffers, msg_name and msg_control belong to the kernel until the final
 * callback. `message` itself must also live until then: if the result is no error, msg_namelen,
 * msg_controllen and msg_flags are written to it just before the callback. `flags` are those of
 * loop_recv(). If the loop is closed before a callback has got the message, the descriptors in the
 * message (SCM_RIGHTS, SCM_PIDFD) are closed.
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
 * SOCK_NONBLOCK. If the loop is closed before a callback has got the connection, the connection is
 * closed.
 */
loop_handle_t loop_accept(loop_t *loop, int fd, int flags, loop_io_callback_t callback, void *arg);

/**
 * Connects a socket, as connect(2): the result is 0. The address is copied.
 *
 * Errors: -EINVAL `length` is more than the size of a sockaddr_storage.
 */
loop_handle_t loop_connect(loop_t *loop,
                           int fd,
                           const struct sockaddr *address,
                           socklen_t length,
                           loop_io_callback_t callback,
                           void *arg);

/**
 * Makes a socket, as socket(2): the result is its descriptor. `type` may include SOCK_CLOEXEC and
 * SOCK_NONBLOCK. If the loop is closed before a callback has got the socket, the socket is closed.
 * Since Linux 5.19.
 */
loop_handle_t loop_socket(loop_t *loop, int domain, int type, int protocol, loop_io_callback_t callback, void *arg);

/**
 * Shuts down a connection, or one direction of it, as shutdown(2): the result is 0. `how` is
 * SHUT_RD, SHUT_WR or SHUT_RDWR. Since Linux 5.11.
 */
loop_handle_t loop_shutdown_fd(loop_t *loop, int fd, int how, loop_io_callback_t callback, void *arg);

/* ==== operations with many results ==== */

/**
 * A ring of buffers. The kernel takes a buffer from the ring when data has come: a connection that
 * waits holds none.
 */
typedef struct loop_buffers_t loop_buffers_t;

/**
 * Gets the data that loop_recv_multi() has received: `result` bytes at `data`. The data is valid
 * until the callback returns, or longer with loop_buffer_keep(). Without LOOP_MORE in `flags`, the
 * callback is the final one, and `result` is 0 at the end of the stream, or -errno.
 */
typedef void (*loop_recv_callback_t)(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg);

/**
 * Accepts connections until it is cancelled: each result is the descriptor of a connection, with
 * LOOP_MORE. `flags` are SOCK_CLOEXEC, SOCK_NONBLOCK. From Linux 5.19, one entry for the kernel
 * accepts all connections; before, each connection takes one entry.
 *
 * If descriptors or memory run out, the callback gets the error once (-EMFILE, -ENFILE, -ENOBUFS,
 * -ENOMEM, with LOOP_MORE), and the loop tries to accept again every 100 ms until that succeeds.
 * Connections that were aborted are skipped. Any other error, -ECANCELED included, ends the
 * operation. If the loop is closed before a callback has got a connection, the connection is
 * closed.
 *
 * Returns a handle. Errors: the errors of loop_submit(). The loop's thread.
 */
loop_handle_t loop_accept_multi(loop_t *loop, int fd, int flags, loop_io_callback_t callback, void *arg);

/**
 * Makes a ring of `count` buffers of `size` bytes each, for loop_recv_multi(). `count` is rounded
 * up to a power of two, and is at most 32768. From Linux 6.12 the kernel fills a buffer part by
 * part, so that small messages do not waste large buffers. Before Linux 6.0 the loop itself fills
 * the buffers.
 *
 * The buffers are freed by loop_buffers_free(), or with the loop; `*out` is invalid afterwards.
 * Returns 0, or -EINVAL, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. The loop's thread.
 */
int loop_buffers_new(loop_t *loop, uint32_t count, uint32_t size, struct loop_buffers_t **out);

/**
 * Frees a ring of buffers. NULL is allowed and does nothing. Returns 0, or -EBUSY an operation
 * uses the ring, or a part of a buffer is kept; -EPERM, -EOWNERDEAD. The loop's thread.
 */
int loop_buffers_free(struct loop_buffers_t *buffers);

/**
 * Keeps the data of the running callback of loop_recv_multi(). The data stays valid, and its
 * buffer is not used for anything else, until loop_buffer_return() was called once for each
 * loop_buffer_keep(). Returns 0, or -EINVAL `data` is not the data of a callback; -EPERM,
 * -EOWNERDEAD. O(1). The loop's thread.
 */
int loop_buffer_keep(struct loop_buffers_t *buffers, const void *data);

/**
 * Gives back the data that loop_buffer_keep() keeps; `data` may be any address in it. Returns 0,
 * or -EINVAL nothing is kept at `data`; -EPERM, -EOWNERDEAD. O(1), no system call. The loop's
 * thread.
 */
int loop_buffer_return(struct loop_buffers_t *buffers, const void *data);

/**
 * Receives from a stream socket until the stream ends, into `buffers`. Data comes in order, with
 * LOOP_MORE. On a pipe or a terminal the operation ends with -ENOTSOCK: use loop_read() there. A
 * connection that waits holds no buffer. If no buffer is free, receiving stops, and continues by
 * itself after a buffer has been returned. From Linux 6.0, one entry for the kernel receives all
 * data; before, each arrival takes a poll and a recv(2).
 *
 * On a socket of messages (datagrams, SOCK_SEQPACKET) each callback gets one message; an empty
 * message is 0 with LOOP_MORE. Receiving ends with an error, a cancel, or 0 after the peer of a
 * SOCK_SEQPACKET socket has gone. Prefer loop_recv() and loop_recvmsg() there: the kernel cuts a
 * message at the end of the buffer, and from Linux 6.12 a message may begin where the last message
 * in the buffer ended, with less room.
 *
 * Returns a handle. Errors: -EINVAL a pointer is NULL, or the buffers belong to another loop; the
 * errors of loop_submit(). The loop's thread.
 */
loop_handle_t loop_recv_multi(loop_t *loop,
                              int fd,
                              struct loop_buffers_t *buffers,
                              loop_recv_callback_t callback,
                              void *arg);

/* ==== signals ==== */

/**
 * A handler of loop_add_signal_handler(). The handler gets the number of the signal. Unlike a
 * handler of sigaction(2), this handler runs as a callback on the loop's thread, and may call any
 * function there.
 */
typedef void (*loop_signal_callback_t)(loop_t *loop, int signum, void *arg);

/**
 * Runs `callback` whenever the process gets the signal `signum` (SIGTERM and so on), until the
 * handler is cancelled. A signal may have several handlers, on several loops: all of them run,
 * those of one loop oldest first. Signal handlers, like hooks, do not keep loop_run() going.
 *
 * If a signal comes again before the callback has run, the callback runs once for both, also for
 * real-time signals. The loop changes no signal mask, so leave the signal unblocked in at least
 * one thread. The process's first handler for a signal calls sigaction(). The former disposition
 * is restored when the last handler has ended (loop_cancel(), loop_close()), unless the program
 * has replaced the disposition in the meantime. In a forked child the former disposition is in
 * force at once.
 *
 * loop_cancel() of a handler waits until no thread is inside the process's handler, which takes
 * some microseconds.
 *
 * Returns a handle, or -EINVAL the signal cannot be caught, or is SIGSEGV, SIGBUS, SIGFPE or
 * SIGILL, or `loop` or `callback` is NULL; -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD. Two system
 * calls at most. The loop's thread.
 */
loop_handle_t loop_add_signal_handler(loop_t *loop, int signum, loop_signal_callback_t callback, void *arg);

/* ==== children ==== */

/**
 * Gets the end of a child. `wait_status` is the value from waitpid(), for WIFEXITED() and the
 * like; it is -1 if something other than the loop has waited for the child.
 */
typedef void (*loop_child_callback_t)(loop_t *loop, pid_t pid, int wait_status, void *arg);

/**
 * Runs `callback` once when the child process `pid` has ended. The loop waits for the child (reaps
 * it) just before the callback. After a cancel of the watcher the loop does not wait: the program
 * must wait for the child. While the watcher is there, no other code may wait for the child, and
 * each child has at most one watcher. If other code nevertheless waits for the child, the wait
 * status is -1, and the loop does not mistake another child with the same number for it, since the
 * loop has a descriptor (a pidfd) for the child. The loop uses no signal: the program may handle
 * or block SIGCHLD. If SIGCHLD is ignored, the wait status is -1.
 *
 * Returns a handle, or -ECHILD `pid` is no child of this process, or was already waited for;
 * -EINVAL `pid` is not positive, or `loop` or `callback` is NULL; -EAGAIN the kernel accepts no
 * submissions at the moment; -EMFILE, -ENFILE no descriptor is left; -ENOMEM, -ESHUTDOWN, -EPERM,
 * -EOWNERDEAD. Two system calls, and a descriptor until the child has ended or the watcher is
 * cancelled. The loop's thread.
 */
loop_handle_t loop_watch_child(loop_t *loop, pid_t pid, loop_child_callback_t callback, void *arg);

/* ==== work off the loop ==== */

/**
 * Work, which runs on another thread. It may block, and must not call functions of the loop,
 * except those for any thread. If the work forks, the child process ends with _exit(0) when the
 * work returns there.
 */
typedef void (*loop_work_t)(void *arg);

/**
 * Runs on the loop's thread after the work has ended. `status` is 0, or -ECANCELED if the work was
 * cancelled and never ran.
 */
typedef void (*loop_done_t)(loop_t *loop, int status, void *arg);

/**
 * Gets the addresses that loop_getaddrinfo() has found. If `status` is 0, `result` belongs to the
 * callback, which frees it with freeaddrinfo(). Otherwise `status` is one of EAI_*, for
 * gai_strerror(), EAI_CANCELED (-101) among them, and `result` is NULL. With EAI_SYSTEM, errno
 * says more.
 */
typedef void (*loop_addrinfo_callback_t)(loop_t *loop, int status, struct addrinfo *result, void *arg);

/**
 * Runs `work` on another thread, and `done` on the loop's thread after the work has returned; both
 * get `arg`. The function is for work that blocks or takes long. Posts that the work makes to the
 * loop without a delay run before `done`, so that `done` may free the `arg` of these posts. The
 * loop starts threads when they are needed, up to options.executor_threads. Work that finds no
 * free thread waits. The threads block all signals, and end when the loop is closed.
 *
 * loop_cancel() is a request, as for operations. Work that has not begun never runs, and `done`
 * gets -ECANCELED. Work that has begun runs to its end. `done` is called once, unless the loop is
 * closed before. loop_close() drops work that has not begun, and waits for the rest.
 *
 * Returns a handle, or -EAGAIN there is no thread, and none can be started; -EINVAL, -ENOMEM,
 * -ESHUTDOWN, -EPERM, -EOWNERDEAD. O(1), and a few microseconds. The loop's thread.
 */
loop_handle_t loop_run_in_executor(loop_t *loop, loop_work_t work, loop_done_t done, void *arg);

/**
 * Looks up a name as getaddrinfo(3) does, on a thread of loop_run_in_executor(). The handle,
 * cancelling and closing follow the rules of loop_run_in_executor(). `node`, `service` and `hints`
 * are copied, and may be NULL as in getaddrinfo(3). If the loop is closed before a callback has
 * got the result, the result is freed.
 *
 * Returns a handle, or -EAGAIN there is no thread, and none can be started; -EINVAL, -ENOMEM,
 * -ESHUTDOWN, -EPERM, -EOWNERDEAD. The callback gets the errors of getaddrinfo(). The loop's
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
 * Gets a descriptor that is readable whenever the loop has work. Work is anything that
 * loop_run_once(loop, 0) would run, timers included. The descriptor is for the poll() or epoll of
 * a host loop: the host waits until it is readable, calls loop_run_once(loop, 0), and waits again.
 * After a timer was cancelled, the descriptor may be readable with nothing to do: loop_run_once()
 * then returns 0.
 *
 * The descriptor belongs to the loop: never read or close it. The first call makes the descriptor:
 * an eventfd, or an epoll before Linux 5.19. The clock of LOOP_VIRTUAL_TIME does not move while
 * the host waits.
 *
 * Returns the descriptor, or -EMFILE, -ENFILE, -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL.
 * The loop's thread.
 */
int loop_fd(loop_t *loop);

/**
 * Makes loop_fd() include what was scheduled since the last loop_run_once(). Call it before the
 * host sleeps, if something was scheduled, cancelled or forgotten, or a buffer was returned. The
 * call is not needed after loop_run_once() or inside callbacks.
 *
 * Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL; the errors of io_uring_enter(). At most two
 * system calls. The loop's thread.
 */
int loop_flush(loop_t *loop);

/* ==== seeing what happens ==== */

/**
 * A callback of loop_call_soon().
 */
#define LOOP_KIND_CALL 1

/**
 * A timer of loop_call_later() or loop_call_at().
 */
#define LOOP_KIND_TIMER 2

/**
 * A repeating timer of loop_call_every().
 */
#define LOOP_KIND_REPEAT 3

/**
 * A hook of loop_add_hook().
 */
#define LOOP_KIND_HOOK 4

/**
 * A handler of loop_add_signal_handler().
 */
#define LOOP_KIND_SIGNAL 5

/**
 * An operation of loop_submit(), or of a function that submits.
 */
#define LOOP_KIND_OPERATION 6

/**
 * A watcher of loop_watch_fd().
 */
#define LOOP_KIND_WATCH 7

/**
 * Work of loop_run_in_executor() or loop_getaddrinfo().
 */
#define LOOP_KIND_WORK 8

/**
 * A watcher of loop_watch_child().
 */
#define LOOP_KIND_CHILD 9

/**
 * A task of a program in Rust.
 */
#define LOOP_KIND_TASK 10

/**
 * Counters since the loop was made, and two measurements. Set `size` to sizeof(loop_metrics_t)
 * before the call; no more than that is written.
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
     * Callbacks begun, including timers, without hooks.
     */
    uint64_t callbacks;
    /**
     * Timer callbacks begun, including every call of repeating timers.
     */
    uint64_t timers_fired;
    /**
     * Timers cancelled, including those that close and shutdown cancel.
     */
    uint64_t timers_cancelled;
    /**
     * Calls of repeating timers that were left out because the loop was too late.
     */
    uint64_t timers_skipped;
    /**
     * Nanoseconds asleep in the kernel, by the loop's clock.
     */
    uint64_t asleep_ns;
    /**
     * Submission queue entries that the kernel has taken.
     */
    uint64_t submitted;
    /**
     * Completions that the loop has taken.
     */
    uint64_t completed;
    /**
     * Calls of io_uring_enter().
     */
    uint64_t enters;
    /**
     * How often the loop found that the completion queue had overflowed, which costs system calls.
     */
    uint64_t overflows;
    /**
     * Callbacks that other threads posted.
     */
    uint64_t posts;
    /**
     * How often another thread had to wake the loop.
     */
    uint64_t wakes;
    /**
     * How late timers became ready. late[i] counts the timers that were at least 2^i ns and less
     * than 2^(i+1) ns late; late[0] counts those under 2 ns, late[31] all from 2.1 s.
     */
    uint64_t late[32];
    /**
     * How late the kernel ends a sleep, in nanoseconds: the median of the last 64 sleeps that
     * ended at a deadline, computed after each 16. The value is 50,000 before the first 16 sleeps,
     * with a slack_ns other than LOOP_EXACT, and with spin_ns.
     */
    uint64_t wake_latency_ns;
    /**
     * The time that a timer in a dense stream may be late, in nanoseconds, in addition to
     * wake_latency_ns; 0 where each deadline is exact. See slack_ns in loop_options_t.
     */
    uint64_t gap_ns;
} loop_metrics_t;

/**
 * Gets the report of a slow callback: how long the callback held the loop, its kind
 * (LOOP_KIND_CALL and so on) and its address.
 */
typedef void (*loop_slow_callback_t)(loop_t *loop,
                                     uint64_t duration_ns,
                                     uint32_t kind,
                                     void *callback_address,
                                     void *arg);

/**
 * Something that is pending, as loop_walk() shows it. `size` is the size that this library knows.
 */
typedef struct loop_info_t {
    /**
     * sizeof(loop_info_t) in the library: fields beyond it do not exist.
     */
    uint32_t size;
    /**
     * LOOP_KIND_CALL and so on.
     */
    uint32_t kind;
    /**
     * The handle.
     */
    loop_handle_t handle;
    /**
     * The address of the callback; NULL for a closure in Rust.
     */
    void *callback_address;
    /**
     * The argument of the callback.
     */
    void *arg;
    /**
     * The time at which a timer is due, or the deadline of an operation; otherwise LOOP_NEVER.
     */
    uint64_t when_ns;
    /**
     * The descriptor that it uses; -1 if there is none.
     */
    int fd;
    /**
     * Whether it counts for loop_run().
     */
    bool referenced;
} loop_info_t;

/**
 * Gets each thing that is pending. `info` is valid during the call.
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
 * Calls `callback` after every callback that held the loop for `threshold_ns` or longer. A new
 * `callback` replaces the former one. A threshold of 0 or a NULL callback ends the reports. Costs
 * one reading of the clock for each callback while it is set, nothing otherwise. With
 * RINGLOOP_DEBUG=1 in the environment, every loop also reports callbacks of 100 ms and longer on
 * stderr.
 *
 * Errors: -ENOMEM, -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
 */
int loop_set_slow_callback(loop_t *loop, uint64_t threshold_ns, loop_slow_callback_t callback, void *arg);

/**
 * Shows everything that is pending to `callback`, in no order that is promised. It finds forgotten
 * callbacks. The callback may call any function of the loop, loop_cancel() included, except
 * loop_close() and loop_shutdown(), which return -EBUSY. Callbacks that it schedules may or may
 * not be shown. Posts of other threads have no handles and are not shown, except delayed ones.
 * O(n).
 *
 * Errors: -ESHUTDOWN, -EPERM, -EOWNERDEAD, -EINVAL. The loop's thread.
 */
int loop_walk(loop_t *loop, loop_walk_callback_t callback, void *arg);

/* ==== library ==== */

/**
 * Gets the version of the running library, such as "1.2.3". LOOP_VERSION_STRING is the version of
 * the header. Any thread.
 */
const char *loop_version(void);

/**
 * Gets the name and the meaning of an error, such as "EBUSY: Device or resource busy". `error` may
 * be negative or positive. The string is valid until the process ends. Any thread.
 */
const char *loop_strerror(int error);

/**
 * Gets a sentence about the last error on the calling thread: its cause and its remedy. The
 * sentence is "" if there was no error. A call that succeeds does not change the sentence, so ask
 * only after a failure. loop_wakeup() and loop_remote_wakeup(), which are for signal handlers, do
 * not change the sentence even if they fail. The string is valid until the process ends. Any
 * thread.
 */
const char *loop_last_error(void);

#ifdef __cplusplus
}
#endif

#endif /* RINGLOOP_H */
