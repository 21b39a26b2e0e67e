/*
 * The cases in which other threads post to a loop: "posts", "post-latency", "token". A program includes this after it
 * has defined, for its library:
 *
 *   struct peer                       a loop, and what other threads need to post to it
 *   peer_new()                        makes one for the calling thread
 *   peer_run(peer)                    runs it until it is stopped
 *   peer_stop(peer)                   stops it; from one of its callbacks
 *   peer_post(peer, callback, arg)    posts a callback to it; from any thread
 *   CALLBACK(name)                    defines name_call(), a callback in the library's form that calls name(arg)
 *
 * All functions are static and in one file, so that the compiler can inline the steps between a library and its caller.
 * rust/src/threads.rs and python/loops.py have the same for their languages.
 */
#ifndef THREADS_H
#define THREADS_H

#include "bench.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

static struct peer *peers[2];
static pthread_barrier_t peers_ready;

static inline pthread_t new_thread(void *(*run)(void *arg), void *arg)
{
    pthread_t thread;

    bench_check(pthread_create(&thread, NULL, run, arg) == 0, "cannot start a thread");
    return thread;
}

static inline void wait_for_all(void)
{
    pthread_barrier_wait(&peers_ready);
}

/*
 * ---- posts: each thread posts a batch, waits until the loop has run the batch, and posts the next ----
 *
 * A thread waits once a batch, on a semaphore that the callback of the batch's last post raises: the same for all
 * systems. The loop stays on the second processor, the posters on the first and the second in turn; otherwise a wait
 * takes 5 us or 30 us by chance.
 */

#define MOST_POSTERS 64

static struct poster {
    /* Used only by the loop: the number of posts that have run, and the number at the end of the batch. */
    _Alignas(64) uint64_t ran;
    uint64_t due;
    sem_t batch_ran;
    pthread_t thread;
} posters[MOST_POSTERS];

static struct {
    uint64_t n, batch, threads, left;
} posts;

static inline uint64_t batch_end(uint64_t begin)
{
    return posts.n - begin < posts.batch ? posts.n : begin + posts.batch;
}

/* `arg` holds the poster and the number of the post. Each post must run once, in the order of its poster. */
static inline void posts_ran(void *arg)
{
    uint64_t ticket = (uintptr_t)arg;
    struct poster *poster = &posters[ticket % MOST_POSTERS];

    bench_check(ticket / MOST_POSTERS == poster->ran, "a post ran twice, out of order or not at all");
    if (++poster->ran < poster->due) return;
    poster->due = batch_end(poster->ran);
    if (poster->ran == posts.n && --posts.left == 0) peer_stop(peers[0]);
    sem_post(&poster->batch_ran);
}

CALLBACK(posts_ran)

static inline void *posts_thread(void *arg)
{
    struct poster *poster = arg;
    uint64_t who = (uint64_t)(poster - posters), i = 0;

    bench_pin((int)(who % 2));
    wait_for_all();
    while (i < posts.n) {
        for (uint64_t end = batch_end(i); i < end; i++)
            peer_post(peers[0], posts_ran_call, (void *)(uintptr_t)(i * MOST_POSTERS + who));
        while (sem_wait(&poster->batch_ran) != 0)
            ;
    }
    return NULL;
}

static inline void posts_run(void)
{
    posts.n = bench_option("n");
    posts.batch = bench_option("batch");
    posts.left = posts.threads = bench_option("threads");
    bench_check(posts.n && posts.batch && posts.threads && posts.threads <= MOST_POSTERS, "n, batch, threads");
    pthread_barrier_init(&peers_ready, NULL, (unsigned)posts.threads + 1);
    bench_pin(1);
    peers[0] = peer_new();
    for (uint64_t i = 0; i < posts.threads; i++) {
        posters[i].due = batch_end(0);
        sem_init(&posters[i].batch_ran, 0, 0);
        posters[i].thread = new_thread(posts_thread, &posters[i]);
    }
    bench_start();
    wait_for_all();
    peer_run(peers[0]);
    bench_stop();
    for (uint64_t i = 0; i < posts.threads; i++) {
        pthread_join(posters[i].thread, NULL);
        bench_check(posters[i].ran == posts.n, "not all posts ran");
    }
    bench_report(posts.n * posts.threads, "");
}

/* ---- post-latency: from right before a post to the callback, on a loop that sleeps on another processor ---- */

static struct {
    uint64_t *late, wanted;
    _Atomic uint64_t seen;
} latency;

/* `arg` is the time of the post. */
static inline void latency_ran(void *arg)
{
    uint64_t late = bench_now() - (uintptr_t)arg;
    uint64_t seen = atomic_load_explicit(&latency.seen, memory_order_relaxed);

    bench_check(seen < latency.wanted, "a post ran twice");
    latency.late[seen++] = late;
    atomic_store_explicit(&latency.seen, seen, memory_order_release);
    if (seen == latency.wanted) peer_stop(peers[0]);
}

CALLBACK(latency_ran)

static inline void *latency_thread(void *arg)
{
    bench_pin(0);
    wait_for_all();
    for (uint64_t i = 0; i < latency.wanted; i++) {
        /* Pauses again if the loop has not run the last post yet. */
        do bench_pause();
        while (atomic_load_explicit(&latency.seen, memory_order_acquire) < i);
        peer_post(peers[0], latency_ran_call, (void *)(uintptr_t)bench_now());
    }
    return arg;
}

static inline void latency_run(void)
{
    uint64_t *late, count;
    pthread_t thread;

    latency.wanted = count = bench_option("n");
    latency.late = late = bench_array(count, sizeof *late);
    pthread_barrier_init(&peers_ready, NULL, 2);
    bench_pin(1);
    peers[0] = peer_new();
    thread = new_thread(latency_thread, NULL);
    bench_start();
    wait_for_all();
    peer_run(peers[0]);
    bench_stop();
    pthread_join(thread, NULL);
    bench_check(latency.seen == count, "not all posts ran");
    bench_report_late(late, count, 0);
}

/* ---- token: two loops on two processors post to each other, back and forth ---- */

static struct {
    uint64_t wanted, hops;
} token;

static inline void token_hop(void *arg);
static inline void token_end(void *arg);

CALLBACK(token_hop)
CALLBACK(token_end)

/* `arg` is the number of the hop; even hops are for the first loop. */
static inline void token_hop(void *arg)
{
    uint64_t hop = (uintptr_t)arg;
    struct peer *here = peers[hop % 2], *there = peers[(hop + 1) % 2];

    bench_check(hop == token.hops, "a post ran twice or not at all");
    if (++token.hops < token.wanted) {
        peer_post(there, token_hop_call, (void *)(uintptr_t)token.hops);
    } else {
        peer_post(there, token_end_call, there);
        peer_stop(here);
    }
}

static inline void token_end(void *peer)
{
    peer_stop(peer);
}

static inline void *token_thread(void *arg)
{
    bench_pin(0);
    peers[1] = peer_new();
    wait_for_all();
    peer_run(peers[1]);
    return arg;
}

static inline void token_run(void)
{
    pthread_t thread;

    token.wanted = bench_option("n");
    pthread_barrier_init(&peers_ready, NULL, 2);
    bench_pin(1);
    peers[0] = peer_new();
    thread = new_thread(token_thread, NULL);
    wait_for_all();
    bench_start();
    peer_post(peers[0], token_hop_call, NULL);
    peer_run(peers[0]);
    bench_stop();
    pthread_join(thread, NULL);
    bench_check(token.hops == token.wanted, "not all posts ran");
    bench_report(token.wanted, "");
}

/* The cases of a loop: those of its program, and those of this file. */
#define LOOP_CASES                      \
    {"soon-chain", soon_chain},         \
    {"soon-bulk", soon_bulk},           \
    {"timers", timers},                 \
    {"timers-cancel", timers_cancel},   \
    {"timers-move", timers_move},       \
    {"timers-memory", timers_memory},   \
    {"lateness", lateness},             \
    {"dense", dense},                   \
    {"idle", idle},                     \
    {"start", start},                   \
    {"posts", posts_run},               \
    {"post-latency", latency_run},      \
    {"token", token_run}

#endif
