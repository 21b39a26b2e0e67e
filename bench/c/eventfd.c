/*
 * The limit of the kernel, without a loop. A thread blocks in read() on an eventfd, and another thread writes the
 * eventfd. There is one post at a time; its callback is in a variable.
 */
#include "bench.h"

#include <sys/eventfd.h>

struct peer {
    int fd;
    bool is_stopped;
    void (*callback)(void *arg);
    void *arg;
};

static struct peer *peer_new(void)
{
    struct peer *peer = bench_array(1, sizeof *peer);

    *peer = (struct peer){.fd = eventfd(0, EFD_CLOEXEC)};
    bench_check(peer->fd >= 0, "no eventfd");
    return peer;
}

static void peer_post(struct peer *peer, void (*callback)(void *arg), void *arg)
{
    peer->callback = callback;
    peer->arg = arg;
    /* The system call orders these stores before the loads of the reader. */
    bench_check(eventfd_write(peer->fd, 1) == 0, "cannot write an eventfd");
}

static void peer_run(struct peer *peer)
{
    while (!peer->is_stopped) {
        eventfd_t posts;

        bench_check(eventfd_read(peer->fd, &posts) == 0 && posts == 1, "not one post");
        peer->callback(peer->arg);
    }
}

static void peer_stop(struct peer *peer)
{
    peer->is_stopped = true;
}

#define CALLBACK(name) \
    static inline void name##_call(void *arg) { name(arg); }

#include "threads.h"

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {{"post-latency", latency_run}, {"token", token_run}, {NULL, NULL}};

    return bench_main(argc, argv, "the kernel's", cases);
}
