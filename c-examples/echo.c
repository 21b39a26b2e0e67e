/*
 * A TCP echo server: a multishot accept, a multishot receive for each connection,
 * and buffers that the kernel picks when data arrives. Data is sent back from the
 * buffer that it arrived in. For a client that sends and does not read, the server
 * keeps at most MAX_PIECES pieces; the client takes no buffers from the others.
 *
 *     build/examples/echo [PORT]      on 127.0.0.1; without a port, any that is free
 *
 * SIGINT and SIGTERM end the server.
 */
#define _GNU_SOURCE
#include <ringloop.h>

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BUFFERS = 256,
    BUFFER_SIZE = 16384,
    MAX_KEPT = BUFFERS / 2, /* buffers with data to send; above this limit, received data is copied */
    MAX_PIECES = 4          /* a connection with so many pieces to send stops receiving until they are sent */
};

/* Received data to send: a buffer that is kept, or a copy. */
struct piece {
    struct piece *next;
    const void *data;
    size_t length;
    char copy[];
};

struct connection {
    int fd;
    bool has_ended; /* the connection receives no more */
    loop_handle_t receiving; /* 0 while not receiving */
    int pieces;
    struct piece *first, **last; /* the first one is being sent */
};

static loop_buffers_t *buffers;
static int kept;
static uint64_t connections, bytes;

static int64_t expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "echo: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);

    if (!memory) {
        perror("echo");
        exit(EXIT_FAILURE);
    }
    return memory;
}

static void close_when_done(struct connection *connection)
{
    if (connection->receiving || connection->first) return;
    close(connection->fd);
    free(connection);
}

static void received(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg);
static void sent(loop_t *loop, int32_t result, uint32_t flags, void *arg);

/* A loop that is being shut down refuses new operations, and the connection ends. */
static bool begins(int64_t handle)
{
    return handle == -ESHUTDOWN ? false : expect(handle) > 0;
}

static void receive(loop_t *loop, struct connection *connection)
{
    loop_handle_t receiving = loop_recv_multi(loop, connection->fd, buffers, received, connection);

    if (begins(receiving))
        connection->receiving = receiving;
    else
        connection->has_ended = true;
}

static void add_piece(struct connection *connection, const void *data, size_t length)
{
    bool keeps = kept < MAX_KEPT;
    struct piece *piece = allocate(sizeof *piece + (keeps ? 0 : length));

    *piece = (struct piece){NULL, data, length};
    if (keeps) {
        expect(loop_buffer_keep(buffers, data));
        kept++;
    } else {
        piece->data = memcpy(piece->copy, data, length);
    }
    *connection->last = piece;
    connection->last = &piece->next;
    connection->pieces++;
}

static void drop_first(struct connection *connection)
{
    struct piece *piece = connection->first;

    if (piece->data != piece->copy) {
        expect(loop_buffer_return(buffers, piece->data));
        kept--;
    }
    connection->first = piece->next;
    if (!connection->first) connection->last = &connection->first;
    connection->pieces--;
    free(piece);
}

/* Sends one piece at a time, so that a piece can be dropped when it has been sent. */
static void send_first(loop_t *loop, struct connection *connection)
{
    struct piece *piece = connection->first;

    if (begins(loop_send_all(loop, connection->fd, piece->data, piece->length, 0, sent, connection))) return;
    while (connection->first) drop_first(connection);
}

static void sent(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct connection *connection = arg;

    (void)flags;
    if (result > 0) bytes += (uint64_t)result;
    drop_first(connection);
    /* If the peer has closed the connection, the remaining sends fail too, and the receive ends. */
    if (connection->first) send_first(loop, connection);
    if (!connection->first && !connection->receiving && !connection->has_ended) receive(loop, connection);
    close_when_done(connection);
}

static void received(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    struct connection *connection = arg;

    if (result > 0) {
        add_piece(connection, data, (size_t)result);
        if (connection->pieces == 1) send_first(loop, connection);
        /* sent() starts the receive again. */
        if (connection->pieces >= MAX_PIECES) loop_cancel(loop, connection->receiving);
    }
    if (!(flags & LOOP_MORE)) {
        connection->receiving = 0;
        if (result <= 0 && result != -ECANCELED) connection->has_ended = true;
        if (!connection->first && !connection->has_ended) receive(loop, connection);
    }
    close_when_done(connection);
}

static void accepted(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct connection *connection;
    const int on = 1;

    (void)flags;
    (void)arg;
    if (result < 0) {
        /* Without free descriptors, the loop tries again by itself. */
        if (result != -ECANCELED) fprintf(stderr, "echo: accept: %s\n", loop_strerror(result));
        return;
    }
    setsockopt(result, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection = allocate(sizeof *connection);
    *connection = (struct connection){.fd = result};
    connection->last = &connection->first;
    connections++;
    receive(loop, connection);
    close_when_done(connection);
}

static void stop(loop_t *loop, int signum, void *arg)
{
    (void)signum;
    (void)arg;
    expect(loop_stop(loop));
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof address;
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        perror("echo");
        exit(EXIT_FAILURE);
    }
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    loop_t *loop;
    int listener;

    expect(loop_new(NULL, &loop));
    expect(loop_buffers_new(loop, BUFFERS, BUFFER_SIZE, &buffers));
    expect(loop_add_signal_handler(loop, SIGINT, stop, NULL));
    expect(loop_add_signal_handler(loop, SIGTERM, stop, NULL));
    listener = listen_on(argc > 1 ? (uint16_t)atoi(argv[1]) : 0);
    expect(loop_accept_multi(loop, listener, SOCK_CLOEXEC, accepted, NULL));
    expect(loop_run_forever(loop));

    /* Cancels pending operations, and runs until their final callbacks have run, which close the connections. */
    expect(loop_shutdown(loop));
    expect(loop_close(loop));
    close(listener);
    printf("%" PRIu64 " connections, %" PRIu64 " bytes\n", connections, bytes);
    return EXIT_SUCCESS;
}
