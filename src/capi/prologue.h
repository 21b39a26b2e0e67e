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
#define LOOP_VERSION_NUMBER @VERSION_NUMBER@
#define LOOP_VERSION_STRING "@VERSION_STRING@"

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
