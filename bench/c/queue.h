/*
 * The queue that a program puts beside a loop which other threads can wake but not post to: an array of callbacks under
 * a mutex, which the loop swaps for the one that it has emptied. A post allocates nothing once the arrays have grown,
 * and only the one that finds the queue empty has to wake the loop.
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

/* Adds a call; whether the queue was empty, so that the loop must be woken. Any thread. */
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

/* Runs what has been posted. The loop's thread, when it has been woken. */
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

/* For threads.h: what a post calls. */
#define CALLBACK(name) \
    static inline void name##_call(void *arg) { name(arg); }

#endif
