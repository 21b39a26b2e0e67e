/* The case "echo" with libev: an ev_io for each connection, recv and send; waits for room only after a partial send. */
#include "echo.h"

#include <ev.h>

/* `rest` has the unsent data, and is NULL if there is none. */
struct connection {
    ev_io io;
    char *rest;
    size_t begin, end;
};

static uint64_t open_connections;

static void close_connection(struct ev_loop *loop, struct connection *connection)
{
    ev_io_stop(loop, &connection->io);
    close(connection->io.fd);
    free(connection->rest);
    free(connection);
    if (--open_connections == 0) ev_break(loop, EVBREAK_ALL);
}

static void watch(struct ev_loop *loop, struct connection *connection, int events)
{
    ev_io_stop(loop, &connection->io);
    ev_io_set(&connection->io, connection->io.fd, events);
    ev_io_start(loop, &connection->io);
}

static void on_readable(struct ev_loop *loop, struct connection *connection)
{
    static char buffer[ECHO_CHUNK];
    ssize_t got = recv(connection->io.fd, buffer, sizeof buffer, 0), sent;

    if (got < 0 && errno == EAGAIN) return;
    sent = got > 0 ? echo_send(connection->io.fd, buffer, (size_t)got) : -1;
    if (sent < 0) {
        close_connection(loop, connection);
    } else if (sent < got) {
        connection->begin = 0;
        connection->end = (size_t)(got - sent);
        connection->rest = memcpy(bench_array(1, ECHO_CHUNK), buffer + sent, connection->end);
        watch(loop, connection, EV_WRITE);
    }
}

static void on_writable(struct ev_loop *loop, struct connection *connection)
{
    const char *rest = connection->rest + connection->begin;
    ssize_t sent = echo_send(connection->io.fd, rest, connection->end - connection->begin);

    if (sent < 0) {
        close_connection(loop, connection);
        return;
    }
    connection->begin += (size_t)sent;
    if (connection->begin < connection->end) return;
    free(connection->rest);
    connection->rest = NULL;
    watch(loop, connection, EV_READ);
}

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    struct connection *connection = (struct connection *)io;

    if (events & EV_WRITE)
        on_writable(loop, connection);
    else
        on_readable(loop, connection);
}

static void on_connection(struct ev_loop *loop, ev_io *listener, int events)
{
    int fd;

    (void)events;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = bench_array(1, sizeof *connection);

        connection->rest = NULL;
        ev_io_init(&connection->io, on_io, fd, EV_READ);
        ev_io_start(loop, &connection->io);
        open_connections++;
    }
    bench_check(errno == EAGAIN || errno == ECONNABORTED, "accept");
}

static void serve(void)
{
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    ev_io listener;

    bench_check(loop != NULL, "ev_loop_new");
    echo_begin();
    ev_io_init(&listener, on_connection, echo_listen(SOCK_NONBLOCK), EV_READ);
    ev_io_start(loop, &listener);
    echo_ready(listener.fd);
    ev_run(loop, 0);
    ev_io_stop(loop, &listener);
    ev_loop_destroy(loop);
}

int main(int argc, char **argv)
{
    static char version[32];

    snprintf(version, sizeof version, "%d.%d", ev_version_major(), ev_version_minor());
    return echo_main(argc, argv, version, serve);
}
