/*
 * A queue of posts for loops that other threads can wake, but not post to: an array of callbacks under a mutex, which
 * the loop swaps for the array that it has emptied. A post allocates nothing once the arrays have grown, and only a
 * post that finds the queue empty has to wake the loop.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "bench.h"

#include <pthread.h>

struct call {
    void (*callback)(void *arg);
    void *arg;
};

struct calls {
    struct call *all;
    size_t count, room;
};

struct queue {
    pthread_mutex_t lock;
    struct calls posted, running;
};

static inline void queue_init(struct queue *queue)
{
    *queue = (struct queue){.lock = PTHREAD_MUTEX_INITIALIZER};
}

/* Adds a call, from any thread. Returns whether the queue was empty, so that the caller must wake the loop. */
static inline bool queue_push(struct queue *queue, void (*callback)(void *arg), void *arg)
{
    struct calls *posted = &queue->posted;
    bool was_empty;

    pthread_mutex_lock(&queue->lock);
    if (posted->count == posted->room) {
        posted->room = posted->room ? 2 * posted->room : 64;
        posted->all = realloc(posted->all, posted->room * sizeof *posted->all);
        bench_check(posted->all != NULL, "out of memory");
    }
    was_empty = posted->count == 0;
    posted->all[posted->count++] = (struct call){callback, arg};
    pthread_mutex_unlock(&queue->lock);
    return was_empty;
}

/* Runs the posted calls. The loop's thread calls this after a wakeup. */
static inline void queue_run(struct queue *queue)
{
    struct calls taken;

    pthread_mutex_lock(&queue->lock);
    taken = queue->posted;
    queue->posted = queue->running;
    pthread_mutex_unlock(&queue->lock);
    for (size_t i = 0; i < taken.count; i++) taken.all[i].callback(taken.all[i].arg);
    taken.count = 0;
    queue->running = taken;
}

/* For threads.h: defines the callback of a post. */
#define CALLBACK(name) \
    static inline void name##_call(void *arg) { name(arg); }

#endif
