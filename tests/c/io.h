/* Shared by the tests of operations and watchers: descriptors to work on, and the outcome of an operation. */
#ifndef RINGLOOP_TESTS_IO_H
#define RINGLOOP_TESTS_IO_H

#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* Makes a connected pair of stream sockets. */
static inline void make_pair(int fds[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
}

static inline void close_pair(const int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

/* Makes a listener on the loopback address with a free port. */
static inline int listen_on_loopback(struct sockaddr_in *address)
{
    socklen_t length = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(fd, >=, 0);
    REQUIRE(bind(fd, (struct sockaddr *)address, sizeof *address), ==, 0);
    REQUIRE(listen(fd, 128), ==, 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)address, &length), ==, 0);
    return fd;
}

static inline int connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd, >=, 0);
    REQUIRE(connect(fd, (const struct sockaddr *)address, sizeof *address), ==, 0);
    return fd;
}

/* The outcome of an operation. */
struct outcome {
    int times, finals;
    int32_t result;
    uint32_t flags;
    int released;
};

static inline void note_outcome(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct outcome *outcome = arg;

    (void)loop;
    CHECK(outcome->finals, ==, 0);
    CHECK(outcome->released, ==, 0);
    outcome->times++;
    outcome->finals += !(flags & LOOP_MORE);
    outcome->result = result;
    outcome->flags = flags;
}

static inline void release_outcome(void *arg)
{
    struct outcome *outcome = arg;

    outcome->released++;
}

/* Runs to the only callback of the operation. */
static inline void see(loop_t *loop, loop_handle_t handle, struct outcome *outcome, int32_t result)
{
    REQUIRE(handle, >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(outcome->times, ==, 1);
    CHECK(outcome->finals, ==, 1);
    CHECK(outcome->result, ==, result);
    memset(outcome, 0, sizeof *outcome);
}

#endif
