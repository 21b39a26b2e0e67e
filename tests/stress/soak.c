/*
 * A thousand connections over loopback, with both ends in one loop: random traffic, random cancels, deadlines and closes, for
 * SOAK_MS milliseconds. Every byte must be correct, and at the end no descriptor, handle or buffer may be left.
 *
 * The value of a byte follows from its position in its stream, so that the test detects each lost, doubled or torn byte, also
 * where an operation was cancelled, ran out of time, or was replaced by one of another kind. When both ends have seen the end of
 * a stream, all sent bytes have arrived.
 */
#include "stress.h"

#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { LARGEST = 20000, IN_SIZE = 8192, BUFFERS = 128, BUFFER_SIZE = 4096 };

struct connection;

/* One end of a connection. */
struct end {
    struct connection *connection;
    struct end *peer;
    int fd;
    uint32_t salt; /* determines the values of the bytes that this end sends */
    uint64_t sent, received, limit;
    loop_handle_t receiving, sending;
    int kept;
    bool has_sent_all, has_received_all, is_started, is_shutting_down;
    unsigned char in[IN_SIZE], out[LARGEST];
};

struct connection {
    struct end ends[2];
    uint16_t port;
    int pending; /* callbacks that have not run yet */
    bool is_torn; /* an end was closed, or failed, before all was sent */
    loop_handle_t tearing;
    struct connection *next, **link;
};

/* A part of a buffer that is kept for a while. */
struct kept {
    struct end *end;
    const void *data;
    unsigned char first;
};

static uint32_t seed = 0x50a4;
static struct connection *by_port[65536];
static struct connection *all;
static struct sockaddr_in server;
static loop_buffers_t *buffers;
static bool is_over;
static unsigned open_now;
static uint64_t opened, torn, whole, bytes, cancelled, timed_out, kept_parts;

static uint32_t below(uint32_t bound)
{
    return next_random(&seed) % bound;
}

static bool one_in(uint32_t bound)
{
    return below(bound) == 0;
}

static unsigned char value_at(const struct end *end, uint64_t at)
{
    return (unsigned char)((at ^ end->salt) * 167 + (at >> 8));
}

static void check_bytes(struct end *end, const unsigned char *data, size_t length)
{
    size_t wrong = 0;

    for (size_t i = 0; i < length; i++) wrong += data[i] != value_at(end->peer, end->received + i);
    CHECK(wrong, ==, 0);
    end->received += length;
    bytes += length;
}

static void receive(loop_t *loop, struct end *end);
static void send_some(loop_t *loop, struct end *end);
static void open_connection(loop_t *loop);

/* ---- the end of a connection ---- */

static void close_end(loop_t *loop, struct end *end)
{
    if (end->fd < 0) return;
    /* The kernel no longer uses the descriptor, except for a shutdown, which runs on a worker thread of the kernel. */
    CHECK(loop_forget_fd(loop, end->fd), <=, end->is_shutting_down);
    close(end->fd);
    end->fd = -1;
}

static void close_if_done(loop_t *loop, struct connection *connection)
{
    for (int i = 0; i < 2; i++) {
        struct end *end = &connection->ends[i];

        if (end->is_started && end->has_sent_all && end->has_received_all) close_end(loop, end);
    }
    if (connection->pending || connection->ends[0].fd >= 0 || connection->ends[1].fd >= 0) return;
    loop_cancel(loop, connection->tearing);
    if (connection->is_torn) {
        torn++;
    } else {
        whole++;
        for (int i = 0; i < 2; i++) CHECK(connection->ends[i].received, ==, connection->ends[!i].sent);
    }
    by_port[connection->port] = NULL;
    *connection->link = connection->next;
    if (connection->next) connection->next->link = connection->link;
    free(connection);
    open_now--;
    if (!is_over) open_connection(loop);
}

/* ---- interference ---- */

/* Sometimes cancels an operation that has just begun, or gives it a deadline within 3 ms. */
static void disturb(loop_t *loop, loop_handle_t handle)
{
    REQUIRE(handle, >, 0);
    if (one_in(12)) {
        CHECK(loop_cancel(loop, handle), ==, 1);
        cancelled++;
    } else if (one_in(8)) {
        CHECK(loop_set_deadline(loop, handle, loop_time(loop) + below(LOOP_MSEC(3))), ==, 0);
    }
}

static void tear(loop_t *loop, void *arg)
{
    struct connection *connection = arg;
    struct end *end = &connection->ends[below(2)];
    const struct linger at_once = {1, 0};

    connection->tearing = 0;
    if (end->fd < 0 || is_over) return;
    connection->is_torn = true;
    if (one_in(2)) setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    end->has_sent_all = end->has_received_all = true;
    close_end(loop, end);
    close_if_done(loop, connection);
}

static void cancel_again(loop_t *loop, void *arg)
{
    struct end *end = arg;

    end->connection->pending--;
    if (end->receiving) {
        CHECK(loop_cancel(loop, end->receiving), ==, 1);
        cancelled++;
    }
    close_if_done(loop, end->connection);
}

static bool is_interruption(int32_t result, uint32_t flags)
{
    timed_out += !!(flags & LOOP_TIMED_OUT);
    return result == -ECANCELED || result == -ETIMEDOUT;
}

/* ---- receiving ---- */

/* Handles a final result: begins another operation, or notes the end of the stream. */
static void go_on_receiving(loop_t *loop, struct end *end, int32_t result, uint32_t flags)
{
    end->receiving = 0;
    end->connection->pending--;
    if (end->fd < 0) {
        end->has_received_all = true;
    } else if (result > 0 || is_interruption(result, flags)) {
        receive(loop, end);
    } else {
        end->has_received_all = true;
        if (result < 0) end->connection->is_torn = true;
    }
    close_if_done(loop, end->connection);
}

static void on_received(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct end *end = arg;

    CHECK(flags & LOOP_MORE, ==, 0);
    if (result > 0) check_bytes(end, end->in, (size_t)result);
    go_on_receiving(loop, end, result, flags);
}

static void give_back(loop_t *loop, void *arg)
{
    struct kept *kept = arg;

    CHECK(*(const unsigned char *)kept->data, ==, kept->first);
    CHECK(loop_buffer_return(buffers, kept->data), ==, 0);
    kept->end->connection->pending--;
    close_if_done(loop, kept->end->connection);
    free(kept);
}

static void on_piece(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    struct end *end = arg;

    if (result > 0) {
        check_bytes(end, data, (size_t)result);
        if (one_in(16)) {
            struct kept *kept = malloc(sizeof *kept);

            REQUIRE(!!kept, ==, 1);
            *kept = (struct kept){end, data, *(const unsigned char *)data};
            CHECK(loop_buffer_keep(buffers, data), ==, 0);
            end->connection->pending++;
            kept_parts++;
            REQUIRE(loop_call_later(loop, below(LOOP_MSEC(2)), give_back, kept), >, 0);
        }
    }
    if (!(flags & LOOP_MORE)) go_on_receiving(loop, end, result, flags);
}

static void receive(loop_t *loop, struct end *end)
{
    if (one_in(3)) {
        end->receiving = loop_recv(loop, end->fd, end->in, 1 + below(IN_SIZE), 0, on_received, end);
        disturb(loop, end->receiving);
    } else {
        end->receiving = loop_recv_multi(loop, end->fd, buffers, on_piece, end);
        REQUIRE(end->receiving, >, 0);
        if (one_in(4)) {
            end->connection->pending++;
            REQUIRE(loop_call_later(loop, below(LOOP_MSEC(20)), cancel_again, end), >, 0);
        }
    }
    end->connection->pending++;
}

/* ---- sending ---- */

static void on_shut_down(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct end *end = arg;

    (void)flags;
    if (result < 0) end->connection->is_torn = true;
    end->connection->pending--;
    end->has_sent_all = true;
    end->is_shutting_down = false;
    close_if_done(loop, end->connection);
}

static void shut_down(loop_t *loop, void *arg)
{
    struct end *end = arg;

    on_shut_down(loop, end->fd < 0 ? 0 : shutdown(end->fd, SHUT_WR), 0, end);
}

static void send_later(loop_t *loop, void *arg)
{
    struct end *end = arg;

    end->connection->pending--;
    if (end->fd < 0)
        end->has_sent_all = true;
    else
        send_some(loop, end);
    close_if_done(loop, end->connection);
}

static void on_sent(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct end *end = arg;

    end->sending = 0;
    end->connection->pending--;
    if (result > 0) end->sent += (uint64_t)result;
    if (end->fd < 0) {
        end->has_sent_all = true;
    } else if (result < 0 && !is_interruption(result, flags)) {
        end->has_sent_all = true;
        end->connection->is_torn = true;
    } else if (one_in(4)) {
        end->connection->pending++;
        REQUIRE(loop_call_later(loop, below(LOOP_MSEC(20)), send_later, end), >, 0);
    } else {
        send_some(loop, end);
    }
    close_if_done(loop, end->connection);
}

static void send_some(loop_t *loop, struct end *end)
{
    size_t length = 1 + below(one_in(4) ? LARGEST : 500);

    end->connection->pending++;
    if (is_over || end->sent >= end->limit) {
        end->is_shutting_down = loop_supports(loop, IORING_OP_SHUTDOWN);
        if (end->is_shutting_down)
            REQUIRE(loop_shutdown_fd(loop, end->fd, SHUT_WR, on_shut_down, end), >, 0);
        else
            REQUIRE(loop_call_soon(loop, shut_down, end), >, 0);
        return;
    }
    for (size_t i = 0; i < length; i++) end->out[i] = value_at(end, end->sent + i);
    if (one_in(2))
        end->sending = loop_send_all(loop, end->fd, end->out, length, 0, on_sent, end);
    else
        end->sending = loop_send(loop, end->fd, end->out, length, 0, on_sent, end);
    disturb(loop, end->sending);
}

/* ---- the beginning of a connection ---- */

static void start_end(loop_t *loop, struct end *end)
{
    end->is_started = true;
    receive(loop, end);
    send_some(loop, end);
}

static void on_connected(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct connection *connection = arg;

    (void)flags;
    connection->pending--;
    if (connection->ends[0].fd >= 0) {
        REQUIRE(result, ==, 0);
        start_end(loop, &connection->ends[0]);
    }
    close_if_done(loop, connection);
}

static void on_accepted(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    struct connection *connection;

    (void)flags, (void)arg;
    if (result == -ECANCELED) return;
    REQUIRE(result, >=, 0);
    if (getpeername(result, (struct sockaddr *)&address, &length) < 0 || !by_port[ntohs(address.sin_port)]) {
        /* The connection was torn before it was accepted. */
        close(result);
        return;
    }
    connection = by_port[ntohs(address.sin_port)];
    connection->ends[1].fd = result;
    connection->pending--;
    start_end(loop, &connection->ends[1]);
    close_if_done(loop, connection);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    REQUIRE(getsockname(fd, (struct sockaddr *)&address, &length), ==, 0);
    return ntohs(address.sin_port);
}

/* Makes a socket with a port that no connection uses: the other end of a torn connection may still be open. */
static int bound_socket(void)
{
    struct sockaddr_in address;
    int fd, unsuitable[64], count = 0;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    for (;;) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE(fd, >=, 0);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + below(100));
        REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof address), ==, 0);
        if (!by_port[port_of(fd)]) break;
        REQUIRE(count, <, 64);
        unsuitable[count++] = fd;
    }
    while (count) close(unsuitable[--count]);
    return fd;
}

static void open_connection(loop_t *loop)
{
    struct connection *connection = calloc(1, sizeof *connection);
    int fd = bound_socket();

    REQUIRE(!!connection, ==, 1);
    for (int i = 0; i < 2; i++) {
        connection->ends[i].connection = connection;
        connection->ends[i].peer = &connection->ends[!i];
        connection->ends[i].fd = -1;
        connection->ends[i].salt = next_random(&seed);
        connection->ends[i].limit = below(100000);
    }
    connection->ends[0].fd = fd;
    connection->port = port_of(fd);
    connection->next = all;
    connection->link = &all;
    if (all) all->link = &connection->next;
    all = connection;
    by_port[connection->port] = connection;
    opened++;
    open_now++;
    /* One for the connect, one for the accept. */
    connection->pending = 2;
    REQUIRE(loop_connect(loop, connection->ends[0].fd, (struct sockaddr *)&server, sizeof server, on_connected,
                         connection),
            >, 0);
}

/* Sometimes closes an end while operations are pending. */
static void tear_some(loop_t *loop, void *arg)
{
    unsigned count = open_now / 100 + 1;

    (void)arg;
    for (struct connection *connection = all; connection && count; connection = connection->next) {
        if (connection->tearing || !connection->ends[1].is_started || !connection->ends[0].is_started || one_in(3))
            continue;
        connection->tearing = loop_call_later(loop, below(LOOP_MSEC(200)), tear, connection);
        REQUIRE(connection->tearing, >, 0);
        count--;
    }
}

static void end_all(loop_t *loop, void *arg)
{
    const loop_handle_t *handles = arg;

    is_over = true;
    CHECK(loop_cancel(loop, handles[0]), ==, 0);
}

static unsigned count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    REQUIRE(!!directory, ==, 1);
    while (readdir(directory)) count++;
    closedir(directory);
    return count;
}

static void count_pending(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)loop, (void)info;
    ++*(unsigned *)arg;
}

static void soak(void)
{
    uint64_t connections = scale("CONNECTIONS", 1000), duration = scale("SOAK_MS", 60000);
    unsigned pending = 0, descriptors = count_descriptors();
    struct rlimit limit;
    loop_handle_t handles[2];
    socklen_t length = sizeof server;
    loop_t *loop = new_loop();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    server.sin_family = AF_INET;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(listener, (struct sockaddr *)&server, sizeof server), ==, 0);
    REQUIRE(listen(listener, 4096), ==, 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&server, &length), ==, 0);
    REQUIRE(loop_buffers_new(loop, BUFFERS, BUFFER_SIZE, &buffers), ==, 0);
    handles[0] = loop_call_every(loop, LOOP_MSEC(20), tear_some, NULL);
    handles[1] = loop_accept_multi(loop, listener, SOCK_CLOEXEC, on_accepted, NULL);
    REQUIRE(loop_unref(loop, handles[1]), ==, 0);
    REQUIRE(loop_call_later(loop, LOOP_MSEC(duration), end_all, handles), >, 0);
    for (uint64_t i = 0; i < connections; i++) open_connection(loop);

    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(open_now, ==, 0);
    CHECK(loop_forget_fd(loop, listener), ==, 0);
    close(listener);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_walk(loop, count_pending, &pending), ==, 0);
    CHECK(pending, <=, 1); /* the unreferenced accept may be left, with its end before it */
    while (loop_is_pending(loop, handles[1])) CHECK(loop_run_once(loop, LOOP_SEC(1)), >=, 0);
    /* No part of a buffer is kept, and no operation uses the buffers. */
    CHECK(loop_buffers_free(buffers), ==, 0);
    CHECK(loop_close(loop), ==, 0);
    CHECK(count_descriptors(), ==, descriptors);
    CHECK(opened, ==, torn + whole);
    CHECK(whole, >, 0);
    CHECK(torn, >, 0);
    printf("%" PRIu64 " connections, %" PRIu64 " torn, %" PRIu64 " bytes, %" PRIu64 " cancels, %" PRIu64
           " deadlines, %" PRIu64 " parts kept\n",
           opened, torn, bytes, cancelled, timed_out, kept_parts);
}

static const struct check_test tests[] = {
    TEST(soak),
};

CHECK_MAIN(tests)
