/*
 * Parts of all servers of the case "echo". A server listens on a loopback port that the kernel chooses, prints the port
 * in one line of JSON, sends back the received data, and ends when its last connection has been closed. echo_load.c is
 * the client, which also reads the server's CPU time.
 */
#ifndef ECHO_H
#define ECHO_H

#include "bench.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/* The size of a receive: a whole message of 16 KiB. */
#define ECHO_CHUNK 16384
#define ECHO_BACKLOG 4096
/* The longest run, in seconds: the alarm ends a server without a client. */
#define ECHO_PATIENCE 60

/* Allows a thousand connections and more. */
static inline void echo_raise_limit(void)
{
    struct rlimit limit;

    bench_must(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    bench_must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
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

    bench_must(setsockopt(fd, level, name, &on, sizeof on), "setsockopt");
}

static inline void echo_begin(void)
{
    bench_pin(0);
    echo_raise_limit();
    alarm(ECHO_PATIENCE);
}

/* Returns the number of bytes sent, 0 without room in the socket buffer, or -1 if the connection has ended. */
static inline ssize_t echo_send(int fd, const char *data, size_t length)
{
    ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);

    return sent < 0 && errno == EAGAIN ? 0 : sent;
}

/* Prints the port of a listening socket. */
static inline void echo_ready(int fd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    bench_must(getsockname(fd, (struct sockaddr *)&address, &length), "getsockname");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
}

/* Makes a listening socket; accepted connections inherit its TCP_NODELAY. `flags`: SOCK_NONBLOCK or 0. */
static inline int echo_listen(int flags)
{
    int fd = bench_must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), "socket");
    struct sockaddr_in address = echo_address(0);

    echo_option(fd, SOL_SOCKET, SO_REUSEADDR);
    echo_option(fd, IPPROTO_TCP, TCP_NODELAY);
    bench_must(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
    bench_must(listen(fd, ECHO_BACKLOG), "listen");
    return fd;
}

static inline int echo_main(int argc, char **argv, const char *version, void (*serve)(void))
{
    const struct bench_case cases[] = {{"echo", serve}, {NULL, NULL}};

    return bench_main(argc, argv, version, cases);
}

#endif
