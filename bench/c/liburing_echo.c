/*
 * The case "echo" with liburing and no loop, as its manual pages suggest: a multishot accept, a multishot recv for each
 * connection with buffers from a ring, a send for each received piece, and one system call that submits all entries and
 * waits. A buffer returns to the ring when its piece has been sent. A connection without buffers receives again when a
 * buffer has returned.
 */
#include "echo.h"

#include <liburing.h>

/*
 * A power of two. The kernel fills about 20 buffers at a time, and the server sends them before the kernel fills more:
 * 128 buffers are enough for a thousand connections. More buffers leave the cache sooner: with messages of 16 KiB,
 * 1,024 buffers take a tenth more CPU time than 128.
 */
#define BUFFERS 256
#define GROUP 0

enum what { ACCEPT, RECEIVE, SEND };

/* A received piece. The first of its connection's list is being sent; the others wait. */
struct piece {
    struct piece *next;
    uint32_t length, sent;
};

struct connection {
    int fd;
    bool is_receiving, has_ended;
    struct piece *first, **last;
    struct connection *next_hungry;
};

static struct io_uring ring;
static struct io_uring_buf_ring *buffer_ring;
static char *buffers;
/* The piece in each buffer. */
static struct piece pieces[BUFFERS];
static struct connection *hungry;
static uint64_t open_connections;

static void must(int result, const char *what)
{
    if (result >= 0) return;
    errno = -result;
    bench_must(-1, what);
}

static struct io_uring_sqe *next_sqe(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

    if (!sqe) {
        must(io_uring_submit(&ring), "submit");
        sqe = io_uring_get_sqe(&ring);
        bench_check(sqe != NULL, "no room in the queue");
    }
    return sqe;
}

/* Sets user_data. Preparing an SQE clears user_data, so this call comes last. */
static void name(struct io_uring_sqe *sqe, void *data, enum what what)
{
    io_uring_sqe_set_data64(sqe, (uintptr_t)data | what);
}

static void accept_all(int listener)
{
    struct io_uring_sqe *sqe = next_sqe();

    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
    name(sqe, NULL, ACCEPT);
}

static void receive(struct connection *connection)
{
    struct io_uring_sqe *sqe = next_sqe();

    io_uring_prep_recv_multishot(sqe, connection->fd, NULL, 0, 0);
    name(sqe, connection, RECEIVE);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    connection->is_receiving = true;
}

static char *buffer_of(const struct piece *piece)
{
    return buffers + (size_t)(piece - pieces) * ECHO_CHUNK;
}

static void give_back(struct piece *piece)
{
    io_uring_buf_ring_add(buffer_ring, buffer_of(piece), ECHO_CHUNK, (unsigned short)(piece - pieces),
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(buffer_ring, 1);
    if (hungry) {
        struct connection *connection = hungry;

        hungry = connection->next_hungry;
        receive(connection);
    }
}

static void send_first(struct connection *connection)
{
    struct piece *piece = connection->first;
    struct io_uring_sqe *sqe = next_sqe();

    io_uring_prep_send(sqe, connection->fd, buffer_of(piece) + piece->sent, piece->length - piece->sent,
                       MSG_NOSIGNAL | MSG_WAITALL);
    name(sqe, connection, SEND);
}

static void close_if_done(struct connection *connection)
{
    if (!connection->has_ended || connection->is_receiving || connection->first) return;
    close(connection->fd);
    free(connection);
    open_connections--;
}

static void on_received(struct connection *connection, int result, unsigned flags)
{
    if (!(flags & IORING_CQE_F_MORE)) connection->is_receiving = false;
    if (result > 0) {
        struct piece *piece = &pieces[flags >> IORING_CQE_BUFFER_SHIFT];

        *piece = (struct piece){.length = (uint32_t)result};
        *connection->last = piece;
        connection->last = &piece->next;
        if (connection->first == piece) send_first(connection);
        if (!connection->is_receiving) receive(connection);
    } else if (result == -ENOBUFS) {
        connection->next_hungry = hungry;
        hungry = connection;
    } else {
        if (flags & IORING_CQE_F_BUFFER) give_back(&pieces[flags >> IORING_CQE_BUFFER_SHIFT]);
        connection->has_ended = true;
        close_if_done(connection);
    }
}

static void on_sent(struct connection *connection, int result)
{
    struct piece *piece = connection->first;

    if (result > 0) {
        piece->sent += (uint32_t)result;
    } else {
        /* The connection has ended; its recv ends as well. */
        piece->sent = piece->length;
    }
    if (piece->sent == piece->length) {
        connection->first = piece->next;
        if (!piece->next) connection->last = &connection->first;
        give_back(piece);
    }
    if (connection->first)
        send_first(connection);
    else
        close_if_done(connection);
}

static void on_accepted(int listener, int fd, unsigned flags)
{
    struct connection *connection = bench_array(1, sizeof *connection);

    must(fd, "accept");
    *connection = (struct connection){.fd = fd};
    connection->last = &connection->first;
    open_connections++;
    receive(connection);
    if (!(flags & IORING_CQE_F_MORE)) accept_all(listener);
}

static void new_buffers(void)
{
    struct io_uring_buf_reg registration = {.ring_entries = BUFFERS, .bgid = GROUP};
    void *memory;

    bench_check(posix_memalign(&memory, 4096, BUFFERS * sizeof(struct io_uring_buf)) == 0, "out of memory");
    buffer_ring = memory;
    bench_check(posix_memalign(&memory, 4096, (size_t)BUFFERS * ECHO_CHUNK) == 0, "out of memory");
    buffers = memory;
    registration.ring_addr = (uintptr_t)buffer_ring;
    must(io_uring_register_buf_ring(&ring, &registration, 0), "no ring of buffers");
    io_uring_buf_ring_init(buffer_ring);
    for (int i = 0; i < BUFFERS; i++) give_back(&pieces[i]);
}

static void serve(void)
{
    struct io_uring_params how = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE};
    int listener;

    echo_begin();
    how.cq_entries = 8192;
    must(io_uring_queue_init_params(1024, &ring, &how), "no ring");
    io_uring_register_ring_fd(&ring);
    new_buffers();
    listener = echo_listen(0);
    accept_all(listener);
    echo_ready(listener);
    do {
        struct io_uring_cqe *cqe;
        unsigned head, count = 0;
        int result = io_uring_submit_and_wait(&ring, 1);

        if (result != -EINTR) must(result, "io_uring_enter");
        io_uring_for_each_cqe(&ring, head, cqe) {
            void *data = (void *)(uintptr_t)(cqe->user_data & ~UINT64_C(3));

            count++;
            switch ((enum what)(cqe->user_data & 3)) {
            case ACCEPT: on_accepted(listener, cqe->res, cqe->flags); break;
            case RECEIVE: on_received(data, cqe->res, cqe->flags); break;
            case SEND: on_sent(data, cqe->res); break;
            }
        }
        io_uring_cq_advance(&ring, count);
    } while (open_connections);
}

int main(int argc, char **argv)
{
    return echo_main(argc, argv, "liburing", serve);
}
