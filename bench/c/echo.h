/*
 * What the servers of the case "echo" share. A server listens on a loopback port that the kernel chooses, says which in
 * one line of JSON, sends back what comes, and ends when its last connection has been closed. echo_load.c is the other
 * side; it watches the server's CPU time from there.
 */
#ifndef ECHO_H
#define ECHO_H

#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* The most that a server takes from a connection at once: a whole message of 16 KiB. */
#define ECHO_CHUNK 16384
#define ECHO_BACKLOG 4096
/* No run takes longer; a server that is left alone ends itself. */
#define ECHO_PATIENCE 60

static inline int echo_must(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "error: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
    return result;
}

/* Keeps the process on the first (0) or the second (1) processor that it may use. */
static inline void echo_pin(int which)
{
    cpu_set_t all, one;
    int cpu = 0;

    echo_must(sched_getaffinity(0, sizeof all, &all), "sched_getaffinity");
    bench_check(CPU_COUNT(&all) >= 2, "needs two processors");
    for (;; cpu++) {
        if (CPU_ISSET(cpu, &all) && which-- == 0) break;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    echo_must(sched_setaffinity(0, sizeof one, &one), "sched_setaffinity");
}

/* For a thousand connections and more. */
static inline void echo_raise_limit(void)
{
    struct rlimit limit;

    echo_must(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    echo_must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
    bench_check(limit.rlim_cur >= bench_option("connections") + 64, "too few descriptors are allowed");
}

static inline struct sockaddr_in echo_address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

static inline void echo_option(int fd, int level, int name)
{
    int on = 1;

    echo_must(setsockopt(fd, level, name, &on, sizeof on), "setsockopt");
}

static inline void echo_begin(void)
{
    echo_pin(0);
    echo_raise_limit();
    alarm(ECHO_PATIENCE);
}

/* Says where a listening socket listens. */
static inline void echo_ready(int fd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    echo_must(getsockname(fd, (struct sockaddr *)&address, &length), "getsockname");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
}

/* A listening socket; what is accepted has its TCP_NODELAY. `flags`: SOCK_NONBLOCK or 0. */
static inline int echo_listen(int flags)
{
    int fd = echo_must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), "socket");
    struct sockaddr_in address = echo_address(0);

    echo_option(fd, SOL_SOCKET, SO_REUSEADDR);
    echo_option(fd, IPPROTO_TCP, TCP_NODELAY);
    echo_must(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
    echo_must(listen(fd, ECHO_BACKLOG), "listen");
    return fd;
}

static inline int echo_main(int argc, char **argv, const char *version, void (*serve)(void))
{
    const struct bench_case cases[] = {{"echo", serve}, {NULL, NULL}};

    return bench_main(argc, argv, version, cases);
}

#endif
