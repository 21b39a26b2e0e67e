/*
 * Small fixed workloads for counting instructions: workload CASE N. With N = 0 a case does everything except the N
 * operations, so that the difference is the cost of the operations.
 *
 * Data for an I/O operation is present before its entry is submitted, so that the number of iterations does not depend
 * on time.
 */
#define _GNU_SOURCE
#include <ringloop.h>

#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static size_t left;
static int ends[2]; /* of a socket pair */
static char byte;
static const char *program;

static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "workload: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void expect_one(int64_t result)
{
    if (result != 1) {
        fprintf(stderr, "workload: %lld instead of 1\n", (long long)result);
        exit(EXIT_FAILURE);
    }
}

static void connect_ends(void)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        perror("workload: socketpair");
        exit(EXIT_FAILURE);
    }
}

static void count(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
}

static void again(loop_t *loop, void *arg)
{
    if (left > 0) {
        left--;
        expect(loop_call_soon(loop, again, arg));
    }
}

static uint64_t random_number(void)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* A callback that schedules itself again. */
static void soon_chain(loop_t *loop, size_t n)
{
    left = n;
    expect(loop_call_soon(loop, again, NULL));
    expect(loop_run(loop));
}

/* A callback that schedules itself while a timer waits: the loop has to read the clock. */
static void soon_chain_timer(loop_t *loop, size_t n)
{
    expect(loop_unref(loop, loop_call_later(loop, LOOP_SEC(3600), count, NULL)));
    soon_chain(loop, n);
}

/* Many calls, then a run. */
static void soon_bulk(loop_t *loop, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect(loop_call_soon(loop, count, NULL));
    expect(loop_run(loop));
}

/* Timers at random times within a second, all of which fire. */
static void timers(loop_t *loop, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect(loop_call_at(loop, random_number() % LOOP_SEC(1), count, NULL));
    expect(loop_run(loop));
}

/* Timers that are cancelled in random order and replaced. */
static void timers_cancel(loop_t *loop, size_t n)
{
    static loop_handle_t handles[1000];

    for (size_t i = 0; i < 1000; i++)
        handles[i] = loop_call_at(loop, random_number() % LOOP_SEC(1000), count, NULL);
    for (size_t i = 0; i < n; i++) {
        size_t which = random_number() % 1000;

        expect(loop_cancel(loop, handles[which]));
        expect(handles[which] = loop_call_at(loop, random_number() % LOOP_SEC(1000), count, NULL));
    }
}

/* Timers that are rescheduled to later times, in random order. */
static void timers_move(loop_t *loop, size_t n)
{
    static loop_handle_t handles[1000];

    for (size_t i = 0; i < 1000; i++)
        handles[i] = loop_call_at(loop, LOOP_SEC(60) + i, count, NULL);
    for (size_t i = 0; i < n; i++)
        expect(loop_reschedule(loop, handles[random_number() % 1000], LOOP_SEC(60) + 1000 + i));
}

/* A post that posts itself again. */
static void post_again(loop_t *loop, void *remote)
{
    (void)loop;
    if (left > 0) {
        left--;
        expect(loop_remote_call_soon(remote, post_again, remote, NULL));
    }
}

static void post(loop_t *loop, size_t n)
{
    loop_remote_t *remote;

    left = n;
    expect(loop_remote_new(loop, &remote));
    expect(loop_remote_call_soon(remote, post_again, remote, NULL));
    expect(loop_run(loop));
    loop_remote_release(remote);
}

/* Many posts, then a run. */
static void post_bulk(loop_t *loop, size_t n)
{
    loop_remote_t *remote;

    expect(loop_remote_new(loop, &remote));
    for (size_t i = 0; i < n; i++)
        expect(loop_remote_call_soon(remote, count, NULL, NULL));
    expect(loop_run(loop));
    loop_remote_release(remote);
}

static void sent(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop;
    (void)flags;
    (void)arg;
    expect_one(result);
}

static void send_and_receive(loop_t *loop);

static void received(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)flags;
    (void)arg;
    expect_one(result);
    send_and_receive(loop);
}

static void send_and_receive(loop_t *loop)
{
    static char there;

    if (left == 0)
        return;
    left--;
    expect(loop_send(loop, ends[0], &byte, 1, 0, sent, NULL));
    expect(loop_recv(loop, ends[1], &there, 1, 0, received, NULL));
}

/* A byte is sent, and received at the other end in the same iteration. */
static void recv_send(loop_t *loop, size_t n)
{
    connect_ends();
    left = n + 1;
    send_and_receive(loop);
    expect(loop_run(loop));
}

static void received_part(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    (void)loop;
    (void)data;
    (void)arg;
    if (left == 0) {
        if (result != 0 || (flags & LOOP_MORE) != 0)
            expect_one(result);
        return;
    }
    expect_one(result);
    left--;
    if (left == 0)
        expect(shutdown(ends[0], SHUT_WR));
    else
        expect_one(send(ends[0], &byte, 1, 0));
}

/* A multishot receive gets a byte in each iteration; its callback sends the next byte by send(2). */
static void recv_multi(loop_t *loop, size_t n)
{
    loop_buffers_t *buffers;

    connect_ends();
    left = n + 1;
    expect(loop_buffers_new(loop, 64, 4096, &buffers));
    expect(loop_recv_multi(loop, ends[1], buffers, received_part, NULL));
    expect_one(send(ends[0], &byte, 1, 0));
    expect(loop_run(loop));
    expect(loop_buffers_free(buffers));
}

static void ready(loop_t *loop, int fd, uint32_t events, void *arg)
{
    (void)fd;
    (void)arg;
    expect_one(events == POLLIN);
    if (left == 0)
        expect(loop_cancel(loop, loop_current(loop)));
    else
        left--;
}

/* A watcher is called in each iteration, for data that is never read. */
static void watcher(loop_t *loop, size_t n)
{
    connect_ends();
    left = n;
    expect_one(send(ends[0], &byte, 1, 0));
    expect(loop_watch_fd(loop, ends[1], POLLIN, ready, NULL));
    expect(loop_run(loop));
}

static void file_was_read(loop_t *loop, int32_t result, uint32_t flags, void *fd)
{
    (void)flags;
    expect_one(result);
    if (left > 0) {
        left--;
        expect(loop_read(loop, *(int *)fd, &byte, 1, 0, file_was_read, fd));
    }
}

/* The first byte of the program's file is read, one read after the other. */
static void file_read(loop_t *loop, size_t n)
{
    int fd = open(program, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        perror(program);
        exit(EXIT_FAILURE);
    }
    left = n;
    expect(loop_read(loop, fd, &byte, 1, 0, file_was_read, &fd));
    expect(loop_run(loop));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(loop_t *loop, size_t n);
        bool virtual_time; /* for cases that would sleep until a deadline */
    } cases[] = {
        {"soon-chain", soon_chain, false},
        {"soon-chain-timer", soon_chain_timer, false},
        {"soon-bulk", soon_bulk, true},
        {"timers", timers, true},
        {"timers-cancel", timers_cancel, true},
        {"timers-move", timers_move, true},
        {"post", post, false},
        {"post-bulk", post_bulk, false},
        {"recv-send", recv_send, false},
        {"recv-multi", recv_multi, false},
        {"watcher", watcher, false},
        {"file-read", file_read, false},
    };
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;

    if (argc != 3)
        return EXIT_FAILURE;
    program = argv[0];
    options.flags = LOOP_VIRTUAL_TIME;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].name, argv[1]) == 0) {
            expect(loop_new(cases[i].virtual_time ? &options : NULL, &loop));
            cases[i].run(loop, strtoul(argv[2], NULL, 10));
            expect(loop_close(loop));
            return EXIT_SUCCESS;
        }
    }
    return EXIT_FAILURE;
}
