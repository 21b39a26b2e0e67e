/*
 * How best to wake a loop that sleeps in io_uring_enter() (`bench/wakes`): a thread on one processor waits for
 * completions of a ring with DEFER_TASKRUN, as ringloop does; one on another processor wakes it, after pauses of 0.2 to
 * 1 ms, by
 *
 *   eventfd         a write to an eventfd, for which a multishot, edge-triggered poll stands in the ring: as ringloop
 *   msg-ring        IORING_OP_MSG_RING, sent through a ring of the sender's own, with DEFER_TASKRUN too
 *   msg-ring-sync   the same without a ring: IORING_REGISTER_SEND_MSG_RING, since Linux 6.13
 *
 * Measured: the way, from right before the wake to right after io_uring_enter(); what the wake costs the sender, in
 * time and in CPU time; what sleeping and waking costs the other one.
 */
#include "bench.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#define REGISTER_SEND_MSG_RING 31

static uint64_t wanted, *way, *sending, sender_cpu, sleeper_cpu;
static _Atomic uint64_t sent_at, seen;
static int wake_fd = -1;
static struct io_uring sleeper, sender;
static pthread_barrier_t ready;

static int must(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "error: %s: %s\n", what, strerror(-result));
        exit(EXIT_FAILURE);
    }
    return result;
}

/* Keeps the calling thread on processor 0 or 1. */
static void pin(int cpu)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    bench_check(sched_setaffinity(0, sizeof one, &one) == 0, "cannot pin a thread: needs processors 0 and 1");
}

static void new_ring(struct io_uring *ring)
{
    must(io_uring_queue_init(8, ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN), "no ring");
}

/* ---- the one that sleeps ---- */

static void arm(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&sleeper);

    io_uring_prep_poll_multishot(sqe, wake_fd, POLLIN | EPOLLET);
}

static void *sleep_and_wake(void *arg)
{
    uint64_t count = 0, cpu;

    pin(1);
    new_ring(&sleeper);
    if (wake_fd >= 0) {
        arm();
        must(io_uring_submit(&sleeper), "no poll");
    }
    pthread_barrier_wait(&ready);
    cpu = bench_clock(CLOCK_THREAD_CPUTIME_ID);
    while (count < wanted) {
        struct io_uring_cqe *cqe;
        uint64_t now;
        int result = io_uring_submit_and_wait(&sleeper, 1);

        now = bench_now();
        if (result == -EINTR) continue;
        must(result, "io_uring_enter");
        must(io_uring_peek_cqe(&sleeper, &cqe), "awake for nothing");
        must(cqe->res, "the wake failed");
        if (wake_fd >= 0 && !(cqe->flags & IORING_CQE_F_MORE)) arm();
        io_uring_cqe_seen(&sleeper, cqe);
        bench_check(io_uring_cq_ready(&sleeper) == 0, "one wake came twice");
        way[count++] = now - atomic_load(&sent_at);
        atomic_store(&seen, count);
    }
    sleeper_cpu = bench_clock(CLOCK_THREAD_CPUTIME_ID) - cpu;
    return arg;
}

/* ---- the one that wakes ---- */

static void send_eventfd(void)
{
    bench_check(eventfd_write(wake_fd, 1) == 0, "cannot write the eventfd");
}

static void send_msg_ring(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&sender);
    struct io_uring_cqe *cqe;

    io_uring_prep_msg_ring(sqe, sleeper.ring_fd, 0, 1, 0);
    must(io_uring_submit_and_wait(&sender, 1), "cannot send");
    must(io_uring_peek_cqe(&sender, &cqe), "no answer");
    must(cqe->res, "not sent");
    io_uring_cqe_seen(&sender, cqe);
}

static void send_msg_ring_sync(void)
{
    struct io_uring_sqe sqe = {0};

    io_uring_prep_msg_ring(&sqe, sleeper.ring_fd, 0, 1, 0);
    if (syscall(SYS_io_uring_register, -1, REGISTER_SEND_MSG_RING, &sqe, 1) < 0) must(-errno, "not sent");
}

static void nothing(void)
{
}

/* Wakes so often; `of` gets the time of each wake. */
static uint64_t send_all(void (*send)(void), uint64_t *of)
{
    uint64_t cpu_in_all = 0;

    for (uint64_t i = 0; i < wanted; i++) {
        uint64_t cpu, begin;

        do bench_pause();
        while (send != nothing && atomic_load(&seen) < i);
        cpu = bench_clock(CLOCK_THREAD_CPUTIME_ID);
        begin = bench_now();
        atomic_store(&sent_at, begin);
        send();
        of[i] = bench_now() - begin;
        cpu_in_all += bench_clock(CLOCK_THREAD_CPUTIME_ID) - cpu;
    }
    return cpu_in_all;
}

static void measure(void (*send)(void))
{
    uint64_t cpu, clocks;
    pthread_t thread;

    wanted = bench_option("n");
    way = bench_array(wanted, sizeof *way);
    sending = bench_array(wanted, sizeof *sending);
    pthread_barrier_init(&ready, NULL, 2);
    bench_check(pthread_create(&thread, NULL, sleep_and_wake, NULL) == 0, "no thread");
    pin(0);
    if (send == send_msg_ring) new_ring(&sender);
    pthread_barrier_wait(&ready);
    /* What the clocks cost themselves, with the same pauses. */
    clocks = send_all(nothing, sending);
    bench_start();
    cpu = send_all(send, sending);
    pthread_join(thread, NULL);
    bench_stop();
    sender_cpu = cpu > clocks ? cpu - clocks : 0;
    qsort(way, wanted, sizeof *way, lateness_order);
    qsort(sending, wanted, sizeof *sending, lateness_order);
    bench_report(wanted,
                 ", \"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64 ", \"max_ns\": %" PRIu64
                 ", \"send_p50_ns\": %" PRIu64 ", \"sender_cpu_ns\": %" PRIu64 ", \"sleeper_cpu_ns\": %" PRIu64,
                 way[wanted / 2], way[wanted * 99 / 100], way[wanted - 1], sending[wanted / 2], sender_cpu,
                 sleeper_cpu);
}

static void by_eventfd(void)
{
    wake_fd = must(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "no eventfd");
    measure(send_eventfd);
}

static void by_msg_ring(void)
{
    measure(send_msg_ring);
}

static void by_msg_ring_sync(void)
{
    measure(send_msg_ring_sync);
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"eventfd", by_eventfd},
        {"msg-ring", by_msg_ring},
        {"msg-ring-sync", by_msg_ring_sync},
        {NULL, NULL},
    };

    return bench_main(argc, argv, "liburing", cases);
}
