/*
 * An adapter that runs hiredis' asynchronous connections on a ringloop loop, in
 * the manner of hiredis/adapters/. Attach a connection right after
 * redisAsyncConnect(), before its callbacks are set.
 *
 * Each connection has one watcher, which lives as long as the connection and
 * keeps loop_run() from returning. hiredis may free the connection inside its
 * calls. The watcher's handle never dangles, and shows if the connection exists.
 */
#ifndef RINGLOOP_HIREDIS_H
#define RINGLOOP_HIREDIS_H

#include <ringloop.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdlib.h>

struct ringloop_hiredis {
    loop_t *loop;
    redisAsyncContext *context;
    loop_handle_t watcher, timer;
    uint32_t events;
};

static void ringloop_hiredis_ready(loop_t *loop, int fd, uint32_t events, void *arg)
{
    struct ringloop_hiredis *adapter = arg;
    loop_handle_t watcher = adapter->watcher;

    (void)fd;
    /* Reading also reports errors and hang-ups. */
    if (events & ~(uint32_t)POLLOUT) redisAsyncHandleRead(adapter->context);
    /* redisAsyncHandleRead() may have freed the connection and the adapter. */
    if (events & POLLOUT && loop_is_pending(loop, watcher)) redisAsyncHandleWrite(adapter->context);
}

/* Changes the events of the watcher. The call needs no memory, so it does not fail. */
static void ringloop_hiredis_want(struct ringloop_hiredis *adapter, uint32_t events)
{
    if (events == adapter->events) return;
    adapter->events = events;
    loop_watch_update(adapter->loop, adapter->watcher, events);
}

static void ringloop_hiredis_add_read(void *arg)
{
    struct ringloop_hiredis *adapter = arg;

    ringloop_hiredis_want(adapter, adapter->events | POLLIN);
}

static void ringloop_hiredis_del_read(void *arg)
{
    struct ringloop_hiredis *adapter = arg;

    ringloop_hiredis_want(adapter, adapter->events & ~(uint32_t)POLLIN);
}

static void ringloop_hiredis_add_write(void *arg)
{
    struct ringloop_hiredis *adapter = arg;

    ringloop_hiredis_want(adapter, adapter->events | POLLOUT);
}

static void ringloop_hiredis_del_write(void *arg)
{
    struct ringloop_hiredis *adapter = arg;

    ringloop_hiredis_want(adapter, adapter->events & ~(uint32_t)POLLOUT);
}

/* hiredis closes the socket right after. The kernel has to release it first, so that the server sees the end. */
static void ringloop_hiredis_cleanup(void *arg)
{
    struct ringloop_hiredis *adapter = arg;

    loop_forget_fd(adapter->loop, adapter->context->c.fd);
    loop_cancel(adapter->loop, adapter->timer); /* -ENOENT without a timer */
    free(adapter);
}

#if HIREDIS_MAJOR >= 1
static void ringloop_hiredis_time(loop_t *loop, void *arg)
{
    struct ringloop_hiredis *adapter = arg;

    (void)loop;
    redisAsyncHandleTimeout(adapter->context);
}

static void ringloop_hiredis_timer(void *arg, struct timeval delay)
{
    struct ringloop_hiredis *adapter = arg;
    uint64_t delay_ns = LOOP_SEC(delay.tv_sec) + LOOP_USEC(delay.tv_usec);
    loop_t *loop = adapter->loop;

    if (loop_reschedule(loop, adapter->timer, loop_time(loop) + delay_ns) < 0)
        adapter->timer = loop_call_later(loop, delay_ns, ringloop_hiredis_time, adapter);
}
#endif

/* Returns REDIS_ERR if the connection is already attached, or without memory or a watcher: see loop_last_error(). */
static int ringloop_hiredis_attach(loop_t *loop, redisAsyncContext *context)
{
    struct ringloop_hiredis *adapter;

    if (context->ev.data) return REDIS_ERR;
    adapter = calloc(1, sizeof *adapter);
    if (!adapter) return REDIS_ERR;
    adapter->loop = loop;
    adapter->context = context;
    adapter->watcher = loop_watch_fd(loop, context->c.fd, 0, ringloop_hiredis_ready, adapter);
    if (adapter->watcher < 0) {
        free(adapter);
        return REDIS_ERR;
    }
    context->ev.data = adapter;
    context->ev.addRead = ringloop_hiredis_add_read;
    context->ev.delRead = ringloop_hiredis_del_read;
    context->ev.addWrite = ringloop_hiredis_add_write;
    context->ev.delWrite = ringloop_hiredis_del_write;
    context->ev.cleanup = ringloop_hiredis_cleanup;
#if HIREDIS_MAJOR >= 1
    context->ev.scheduleTimer = ringloop_hiredis_timer;
#endif
    return REDIS_OK;
}

#endif
