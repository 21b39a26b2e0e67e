/*
 * A TCP proxy between a port and another address. The proxy closes a pair of
 * connections that has been idle for too long. Each transfer moves the timer of
 * its pair, which costs no system call.
 *
 *     build/examples/proxy PORT ADDRESS TARGET-PORT [IDLE-MILLISECONDS]
 *
 * listens on 127.0.0.1; port 0 is any free port. ADDRESS is an IPv4 address. The
 * default idle time is 60,000 ms. SIGINT and SIGTERM end the proxy.
 */
#define _GNU_SOURCE
#include <ringloop.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* One direction of a pair: data from one side is written to the other. */
struct way {
    struct pair *pair;
    int from, to;
    loop_handle_t operation;
    char buffer[16384];
};

struct pair {
    int client, target;
    int busy; /* ways that have not ended */
    loop_handle_t connecting, idle;
    struct way there, back;
};

static struct sockaddr_in target;
static uint64_t idle_ns = LOOP_SEC(60);
static unsigned served, timed_out;

static int64_t expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "proxy: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

static void close_pair(loop_t *loop, struct pair *pair)
{
    loop_cancel(loop, pair->idle);
    close(pair->client);
    close(pair->target);
    free(pair);
}

/* The pending operations get their final callbacks. The last of them closes the pair. */
static void cancel_pair(loop_t *loop, struct pair *pair)
{
    loop_cancel(loop, pair->connecting);
    loop_cancel(loop, pair->there.operation);
    loop_cancel(loop, pair->back.operation);
}

static void idle_for_too_long(loop_t *loop, void *arg)
{
    timed_out++;
    cancel_pair(loop, arg);
}

static void has_read(loop_t *loop, int32_t result, uint32_t flags, void *arg);

static void way_ends(loop_t *loop, struct way *way, bool at_end_of_stream)
{
    struct pair *pair = way->pair;

    way->operation = 0;
    /* The other side sees the end of the stream. After an error, the other way ends too. */
    if (at_end_of_stream)
        shutdown(way->to, SHUT_WR);
    else
        cancel_pair(loop, pair);
    if (--pair->busy == 0) close_pair(loop, pair);
}

/* A loop that is being shut down refuses new operations; a way then ends as after an error. */
static void go_on(loop_t *loop, struct way *way, loop_handle_t operation)
{
    way->operation = operation;
    if (operation < 0) way_ends(loop, way, false);
}

static void has_written(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct way *way = arg;

    (void)flags;
    way->operation = 0;
    if (result < 0) {
        way_ends(loop, way, false);
        return;
    }
    loop_reschedule(loop, way->pair->idle, loop_time(loop) + idle_ns);
    go_on(loop, way, loop_recv(loop, way->from, way->buffer, sizeof way->buffer, 0, has_read, way));
}

static void has_read(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct way *way = arg;

    (void)flags;
    way->operation = 0;
    if (result <= 0) {
        way_ends(loop, way, result == 0);
        return;
    }
    loop_reschedule(loop, way->pair->idle, loop_time(loop) + idle_ns);
    go_on(loop, way, loop_send_all(loop, way->to, way->buffer, (size_t)result, 0, has_written, way));
}

static void start_way(loop_t *loop, struct way *way, struct pair *pair, int from, int to)
{
    way->pair = pair;
    way->from = from;
    way->to = to;
    has_written(loop, 0, 0, way);
}

static void connected(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct pair *pair = arg;

    (void)flags;
    pair->connecting = 0;
    if (result < 0) {
        fprintf(stderr, "proxy: connect: %s\n", loop_strerror(result));
        close_pair(loop, pair);
        return;
    }
    served++;
    pair->busy = 3;
    start_way(loop, &pair->there, pair, pair->client, pair->target);
    start_way(loop, &pair->back, pair, pair->target, pair->client);
    if (--pair->busy == 0) close_pair(loop, pair);
}

static void accepted(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct pair *pair;

    (void)flags;
    (void)arg;
    if (result < 0) return;
    pair = calloc(1, sizeof *pair);
    if (!pair) {
        close(result);
        return;
    }
    pair->client = result;
    pair->target = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pair->idle = loop_call_later(loop, idle_ns, idle_for_too_long, pair);
    /* Fails without memory, without a free descriptor, and while the loop is being shut down. */
    if (pair->idle > 0)
        pair->connecting = loop_connect(loop, pair->target, (struct sockaddr *)&target, sizeof target, connected, pair);
    if (pair->connecting <= 0) close_pair(loop, pair);
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
        perror("proxy");
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

    if (argc < 4 || inet_pton(AF_INET, argv[2], &target.sin_addr) != 1) {
        fprintf(stderr, "usage: proxy PORT ADDRESS TARGET-PORT [IDLE-MILLISECONDS]\n");
        return EXIT_FAILURE;
    }
    target.sin_family = AF_INET;
    target.sin_port = htons((uint16_t)atoi(argv[3]));
    if (argc > 4) idle_ns = LOOP_MSEC(atoi(argv[4]));

    expect(loop_new(NULL, &loop));
    expect(loop_add_signal_handler(loop, SIGINT, stop, NULL));
    expect(loop_add_signal_handler(loop, SIGTERM, stop, NULL));
    listener = listen_on((uint16_t)atoi(argv[1]));
    expect(loop_accept_multi(loop, listener, SOCK_CLOEXEC, accepted, NULL));
    expect(loop_run_forever(loop));
    expect(loop_shutdown(loop));
    expect(loop_close(loop));
    close(listener);
    printf("%u connections, %u idle for too long\n", served, timed_out);
    return EXIT_SUCCESS;
}
