/*
 * The case "echo" with ringloop through its C API: a multishot accept, and a multishot recv on each connection, with
 * buffers that the kernel picks from a ring. The server sends each piece from the buffer that it was received in, and
 * keeps the buffer meanwhile. Pieces that arrive while another is being sent wait in their buffers.
 */
#include "echo.h"

#include <ringloop.h>

/* The same number as in liburing_echo.c, which gives the reason. */
#define BUFFERS 256

/* A received piece: sent from its buffer, which is then returned. */
struct piece {
    struct piece *next;
    struct connection *connection;
    const void *data;
    size_t length;
};

struct connection {
    int fd;
    bool is_receiving;
    struct piece *first, **last;
};

static uint64_t open_connections;
static loop_buffers_t *buffers;
static struct piece *spare;

static loop_handle_t must(loop_handle_t result)
{
    if (result < 0) bench_fail(loop_last_error());
    return result;
}

static struct piece *new_piece(struct connection *connection, const void *data, size_t length)
{
    struct piece *piece = spare;

    if (piece)
        spare = piece->next;
    else
        piece = bench_array(1, sizeof *piece);
    *piece = (struct piece){.connection = connection, .data = data, .length = length};
    return piece;
}

static void close_if_done(loop_t *loop, struct connection *connection)
{
    if (connection->is_receiving || connection->first) return;
    close(connection->fd);
    free(connection);
    if (--open_connections == 0) must(loop_stop(loop));
}

static void on_sent(loop_t *loop, int32_t result, uint32_t flags, void *arg);

static void send_piece(loop_t *loop, struct piece *piece)
{
    must(loop_send_all(loop, piece->connection->fd, piece->data, piece->length, MSG_NOSIGNAL, on_sent, piece));
}

/* If the connection has ended, the send fails here, and its recv ends as well. */
static void on_sent(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct piece *piece = arg;
    struct connection *connection = piece->connection;

    (void)result;
    (void)flags;
    must(loop_buffer_return(buffers, piece->data));
    connection->first = piece->next;
    if (!piece->next) connection->last = &connection->first;
    piece->next = spare;
    spare = piece;
    if (connection->first)
        send_piece(loop, connection->first);
    else
        close_if_done(loop, connection);
}

static void on_received(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    struct connection *connection = arg;

    if (!(flags & LOOP_MORE)) connection->is_receiving = false;
    if (result > 0) {
        struct piece *piece = new_piece(connection, data, (size_t)result);

        must(loop_buffer_keep(buffers, data));
        *connection->last = piece;
        connection->last = &piece->next;
        if (connection->first == piece) send_piece(loop, piece);
    }
    close_if_done(loop, connection);
}

static void on_accepted(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct connection *connection;

    (void)arg;
    if (result == -ECANCELED || result == -ECONNABORTED) return;
    bench_check(result >= 0 && (flags & LOOP_MORE), "accept");
    connection = bench_array(1, sizeof *connection);
    *connection = (struct connection){.fd = result, .is_receiving = true};
    connection->last = &connection->first;
    open_connections++;
    must(loop_recv_multi(loop, connection->fd, buffers, on_received, connection));
}

static void serve(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;
    int listener;

    echo_begin();
    must(loop_new(&options, &loop));
    must(loop_buffers_new(loop, BUFFERS, ECHO_CHUNK, &buffers));
    listener = echo_listen(0);
    must(loop_accept_multi(loop, listener, SOCK_CLOEXEC, on_accepted, NULL));
    echo_ready(listener);
    must(loop_run_forever(loop));
    must(loop_shutdown(loop));
    must(loop_close(loop));
    close(listener);
}

int main(int argc, char **argv)
{
    return echo_main(argc, argv, loop_version(), serve);
}
