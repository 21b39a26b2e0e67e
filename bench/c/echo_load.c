/*
 * The client of the case "echo", the same for all servers: one thread, epoll, and on each of `connections` connections
 * one message of `size` bytes in flight. The client compares each received message byte by byte, and then sends a
 * different one. After `warm_ms` ms, the client counts requests for `ms` ms. At both ends of this time the client reads
 * the CPU time of the server, process `pid`, with all its threads. together=1: client and server run on one processor,
 * and neither interrupts the other. Each runs until it has nothing to do, so the server always finds all messages.
 */
#include "echo.h"

#include <sys/epoll.h>

struct connection {
    int fd;
    uint32_t sent, received;
    const char *message;
    uint64_t since;
    bool wants_room;
};

/* Messages are parts of this array, from different offsets. */
#define VARIETY 4096
static char pattern[ECHO_CHUNK + VARIETY];

/* Latencies: 64 classes for each power of two, each 1.6 % wide; exact below 64 ns. */
#define CLASSES (64 * 59)
static uint64_t seen[CLASSES];

static size_t size;
static int epoll_fd;
static clockid_t server_clock;
static struct connection *connections;
static uint64_t connected, requests;

static unsigned class_of(uint64_t ns)
{
    unsigned shift = ns < 64 ? 0 : 57 - (unsigned)__builtin_clzll(ns);

    return shift * 64 + (unsigned)(ns >> shift);
}

/* Returns the middle of the class that holds the quantile part/of of the latencies. */
static uint64_t quantile(uint64_t part, uint64_t of)
{
    uint64_t left = requests * part / of;
    unsigned i = 0;

    while (i < CLASSES - 1 && left >= seen[i]) left -= seen[i++];
    return i < 128 ? i : (uint64_t)((2 * (64 + i % 64) + 1)) << (i / 64 - 2);
}

static void watch(struct connection *connection, int how, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};

    bench_must(epoll_ctl(epoll_fd, how, connection->fd, &event), "epoll_ctl");
}

static void send_rest(struct connection *connection)
{
    ssize_t sent = echo_send(connection->fd, connection->message + connection->sent, size - connection->sent);

    connection->sent += (uint32_t)bench_must((int)sent, "send");
    if ((connection->sent < size) == connection->wants_room) return;
    connection->wants_room = !connection->wants_room;
    watch(connection, EPOLL_CTL_MOD, connection->wants_room ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void send_next(struct connection *connection, uint64_t now)
{
    connection->message = pattern + bench_below(VARIETY);
    connection->sent = connection->received = 0;
    connection->since = now;
    send_rest(connection);
}

static void receive(struct connection *connection)
{
    static char buffer[ECHO_CHUNK + 1];
    ssize_t got = recv(connection->fd, buffer, sizeof buffer, 0);
    uint64_t now;

    if (got < 0 && errno == EAGAIN) return;
    bench_must((int)got, "recv");
    bench_check(got > 0, "the server has closed a connection");
    bench_check(connection->received + (size_t)got <= connection->sent, "more came back than was sent");
    bench_check(memcmp(connection->message + connection->received, buffer, (size_t)got) == 0, "a wrong byte came back");
    connection->received += (uint32_t)got;
    if (connection->received < size) return;
    now = bench_now();
    seen[class_of(now - connection->since)]++;
    requests++;
    send_next(connection, now);
}

static void run_until(uint64_t end)
{
    struct epoll_event events[1024];

    while (bench_now() < end) {
        int ready = epoll_wait(epoll_fd, events, 1024, 100);

        if (ready < 0 && errno == EINTR) continue;
        bench_must(ready, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;

            if (events[i].events & EPOLLOUT) send_rest(connection);
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(connection);
        }
    }
}

static void connect_all(uint16_t port)
{
    struct sockaddr_in address = echo_address(port);

    for (uint64_t i = 0; i < connected; i++) {
        struct connection *connection = &connections[i];

        *connection = (struct connection){.fd = bench_must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")};
        echo_option(connection->fd, IPPROTO_TCP, TCP_NODELAY);
        bench_must(connect(connection->fd, (struct sockaddr *)&address, sizeof address), "connect");
        bench_must(fcntl(connection->fd, F_SETFL, O_NONBLOCK), "fcntl");
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
    for (uint64_t i = 0; i < connected; i++) send_next(&connections[i], bench_now());
}

/* The number of voluntary context switches of the server. */
static uint64_t server_sleeps(void)
{
    char path[64], line[256];
    unsigned long long sleeps = 0;
    FILE *status;

    snprintf(path, sizeof path, "/proc/%" PRIu64 "/status", bench_option("pid"));
    status = fopen(path, "r");
    bench_check(status != NULL, "the server has no status");
    while (fgets(line, sizeof line, status)) {
        if (sscanf(line, "voluntary_ctxt_switches: %llu", &sleeps) == 1) break;
    }
    fclose(status);
    return sleeps;
}

/* Sets the processor and the scheduling policy of client and server. */
static void place(void)
{
    struct sched_param none = {0};

    if (!bench_option("together")) {
        bench_pin(1);
        return;
    }
    bench_pin(0);
    /* A woken SCHED_BATCH process does not preempt the running process. */
    bench_must(sched_setscheduler(0, SCHED_BATCH, &none), "SCHED_BATCH");
    bench_must(sched_setscheduler((pid_t)bench_option("pid"), SCHED_BATCH, &none), "SCHED_BATCH");
}

static void load(void)
{
    uint64_t sleeps, cpu, wall, own;

    size = bench_option("size");
    connected = bench_option("connections");
    bench_check(size >= 1 && size <= ECHO_CHUNK, "size must be 1 to 16384");
    bench_check(connected >= 1 && connected <= 10000, "connections must be 1 to 10000");
    bench_check(bench_option("ms") + bench_option("warm_ms") < 1000 * (ECHO_PATIENCE - 10), "too long");
    bench_check(clock_getcpuclockid((pid_t)bench_option("pid"), &server_clock) == 0, "no such server");
    place();
    echo_raise_limit();
    alarm(ECHO_PATIENCE);
    for (size_t i = 0; i < sizeof pattern; i++) pattern[i] = (char)bench_random();
    connections = bench_array(connected, sizeof *connections);
    epoll_fd = bench_must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    connect_all((uint16_t)bench_option("port"));
    run_until(bench_now() + bench_option("warm_ms") * NS_PER_MS);

    memset(seen, 0, sizeof seen);
    requests = 0;
    sleeps = server_sleeps();
    own = bench_clock(CLOCK_PROCESS_CPUTIME_ID);
    wall = bench_now();
    cpu = bench_clock(server_clock);
    run_until(wall + bench_option("ms") * NS_PER_MS);
    bench_used.cpu = bench_clock(server_clock) - cpu;
    bench_used.wall = bench_now() - wall;
    own = bench_clock(CLOCK_PROCESS_CPUTIME_ID) - own;
    bench_used.sleeps = server_sleeps() - sleeps;
    bench_check(requests >= connected, "not every connection was served");
    bench_report(requests, ", \"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64 ", \"load_cpu_ns\": %" PRIu64,
                 quantile(50, 100), quantile(99, 100), own);
}

int main(int argc, char **argv)
{
    return echo_main(argc, argv, "epoll", load);
}
