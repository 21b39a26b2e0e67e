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
#define LOOP_VERSION_NUMBER @VERSION_NUMBER@
#define LOOP_VERSION_STRING "@VERSION_STRING@"

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
