/* The case "echo" without a library: level-triggered epoll, read, write. The limit of readiness in the kernel. */
#include "echo.h"

#include <sys/epoll.h>

/* The unsent rest of a message. A connection has a buffer only while data waits. */
struct connection {
    int fd;
    char *rest;
    size_t begin, end;
};

static int epoll_fd;
static uint64_t open_connections;

static void watch(int how, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};

    bench_must(epoll_ctl(epoll_fd, how, fd, &event), "epoll_ctl");
}

static void close_connection(struct connection *connection)
{
    close(connection->fd);
    free(connection->rest);
    free(connection);
    open_connections--;
}

static void accept_all(int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = bench_array(1, sizeof *connection);

        *connection = (struct connection){.fd = fd};
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, connection);
        open_connections++;
    }
    bench_check(errno == EAGAIN || errno == ECONNABORTED, "accept");
}

static void keep_rest(struct connection *connection, const char *data, size_t length)
{
    connection->rest = bench_array(1, ECHO_CHUNK);
    memcpy(connection->rest, data, length);
    connection->begin = 0;
    connection->end = length;
    watch(EPOLL_CTL_MOD, connection->fd, EPOLLOUT, connection);
}

static void on_readable(struct connection *connection)
{
    static char buffer[ECHO_CHUNK];
    ssize_t got = recv(connection->fd, buffer, sizeof buffer, 0), sent;

    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        close_connection(connection);
        return;
    }
    sent = echo_send(connection->fd, buffer, (size_t)got);
    if (sent < 0)
        close_connection(connection);
    else if (sent < got)
        keep_rest(connection, buffer + sent, (size_t)(got - sent));
}

static void on_writable(struct connection *connection)
{
    ssize_t sent = echo_send(connection->fd, connection->rest + connection->begin, connection->end - connection->begin);

    if (sent < 0) {
        close_connection(connection);
        return;
    }
    connection->begin += (size_t)sent;
    if (connection->begin < connection->end) return;
    free(connection->rest);
    connection->rest = NULL;
    watch(EPOLL_CTL_MOD, connection->fd, EPOLLIN, connection);
}

static void serve(void)
{
    struct epoll_event events[1024];
    int listener;

    echo_begin();
    listener = echo_listen(SOCK_NONBLOCK);
    epoll_fd = bench_must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    echo_ready(listener);
    do {
        int ready = epoll_wait(epoll_fd, events, 1024, -1);

        if (ready < 0 && errno == EINTR) continue;
        bench_must(ready, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;

            if (!connection)
                accept_all(listener);
            else if (connection->rest)
                on_writable(connection);
            else
                on_readable(connection);
        }
    } while (open_connections);
}

int main(int argc, char **argv)
{
    return echo_main(argc, argv, "the kernel's", serve);
}
