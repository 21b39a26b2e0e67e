/*
 * c-ares on ringloop: looks up the IPv4 and IPv6 addresses of names
 * concurrently, with time limits that timers of the loop keep.
 *
 *     resolve SERVER[:PORT] NAME...
 *
 * c-ares names the sockets that it waits for, and the time limit. The program
 * reports ready sockets to c-ares. One timer serves all time limits of c-ares.
 */
#include <ringloop.h>

#include <sys/select.h> /* ares.h needs it and does not include it */

#include <ares.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

struct resolver {
    loop_t *loop;
    ares_channel channel;
    loop_handle_t timer;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "resolve: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) fail("ringloop", loop_last_error());
}

static void expect_ares(int status)
{
    if (status != ARES_SUCCESS) fail("c-ares", ares_strerror(status));
}

/* ---- requests of c-ares ---- */

static void on_time(loop_t *loop, void *arg);

/* Called after each event that may change the time limit of c-ares: a new query, an answer, a timeout. */
static void set_timer(struct resolver *resolver)
{
    struct timeval buffer, *left = ares_timeout(resolver->channel, NULL, &buffer);
    uint64_t delay;

    loop_cancel(resolver->loop, resolver->timer); /* -ENOENT if the timer has run: ignored */
    if (!left) return;
    delay = LOOP_SEC(left->tv_sec) + LOOP_USEC(left->tv_usec);
    resolver->timer = loop_call_later(resolver->loop, delay, on_time, resolver);
    expect(resolver->timer);
}

static void on_time(loop_t *loop, void *arg)
{
    struct resolver *resolver = arg;

    (void)loop;
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_timer(resolver);
}

static void on_ready(loop_t *loop, int fd, uint32_t events, void *arg)
{
    struct resolver *resolver = arg;

    (void)loop;
    /* Reading also reports errors and hang-ups. */
    ares_process_fd(resolver->channel, events & ~(uint32_t)POLLOUT ? fd : ARES_SOCKET_BAD,
                    events & POLLOUT ? fd : ARES_SOCKET_BAD);
    set_timer(resolver);
}

/*
 * c-ares calls this function inside ares_process_fd() and others: when it opens a socket, when it has data to write, and
 * with neither direction right before it closes the socket. In each case the kernel releases the socket, and the watcher
 * ends.
 */
static void on_socket(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct resolver *resolver = arg;
    uint32_t events = (readable ? POLLIN : 0) | (writable ? POLLOUT : 0);

    expect(loop_forget_fd(resolver->loop, fd));
    if (events) expect(loop_watch_fd(resolver->loop, fd, events, on_ready, resolver));
}

/* ---- the program ---- */

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *result)
{
    const struct ares_addrinfo_node *node;
    char text[INET6_ADDRSTRLEN];

    (void)timeouts;
    printf("%s:", (const char *)arg);
    if (status != ARES_SUCCESS) printf(" %s", ares_strerror(status));
    for (node = result ? result->nodes : NULL; node; node = node->ai_next) {
        const void *address = node->ai_family == AF_INET
                                  ? (const void *)&((const struct sockaddr_in *)(const void *)node->ai_addr)->sin_addr
                                  : (const void *)&((const struct sockaddr_in6 *)(const void *)node->ai_addr)->sin6_addr;

        printf(" %s", inet_ntop(node->ai_family, address, text, sizeof text));
    }
    printf("\n");
    ares_freeaddrinfo(result);
}

int main(int argc, char **argv)
{
    struct resolver resolver = {NULL, NULL, 0};
    struct ares_addrinfo_hints hints;
    struct ares_options options;
    int i;

    if (argc < 3) fail("usage", "resolve SERVER[:PORT] NAME...");
    expect(loop_new(NULL, &resolver.loop));
    expect_ares(ares_library_init(ARES_LIB_INIT_ALL));
    memset(&options, 0, sizeof options);
    options.sock_state_cb = on_socket;
    options.sock_state_cb_data = &resolver;
    options.flags = ARES_FLAG_NOSEARCH;
    options.timeout = 250; /* ms, for the first try */
    options.tries = 2;
    options.lookups = (char *)"b"; /* the server only, not /etc/hosts */
    expect_ares(ares_init_options(&resolver.channel, &options,
                                  ARES_OPT_SOCK_STATE_CB | ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                      ARES_OPT_LOOKUPS));
    expect_ares(ares_set_servers_ports_csv(resolver.channel, argv[1]));

    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    for (i = 2; i < argc; i++) ares_getaddrinfo(resolver.channel, argv[i], NULL, &hints, on_answer, argv[i]);
    set_timer(&resolver);
    expect(loop_run(resolver.loop)); /* until c-ares has no open socket and no time limit */

    ares_destroy(resolver.channel); /* may close sockets, through on_socket(): the loop is closed after */
    ares_library_cleanup();
    expect(loop_close(resolver.loop));
    return EXIT_SUCCESS;
}
