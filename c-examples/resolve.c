/*
 * c-ares on ringloop: looks up names, all at once, their IPv4 and IPv6
 * addresses, with time limits that timers of the loop keep.
 *
 *     resolve SERVER[:PORT] NAME...
 *
 * c-ares says which sockets it waits for, and how long; we tell it what is
 * ready. One timer for all of its time limits.
 */
#include <ringloop.h>

#include <sys/select.h> /* ares.h takes it for granted */

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

/* A negative result is -errno; loop_last_error() says in a sentence what went wrong. */
static void expect(int64_t result)
{
    if (result < 0) fail("ringloop", loop_last_error());
}

static void expect_ares(int status)
{
    if (status != ARES_SUCCESS) fail("c-ares", ares_strerror(status));
}

/* ---- what c-ares asks for ---- */

static void on_time(loop_t *loop, void *arg);

/* After everything that may have changed how long c-ares waits: a query begun, an answer, a time limit. */
static void set_timer(struct resolver *resolver)
{
    struct timeval buffer, *left = ares_timeout(resolver->channel, NULL, &buffer);
    uint64_t delay;

    loop_cancel(resolver->loop, resolver->timer); /* -ENOENT when it has run: that is fine */
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
    /* Errors and hang-ups too: reading finds out what they are. */
    ares_process_fd(resolver->channel, events & ~(uint32_t)POLLOUT ? fd : ARES_SOCKET_BAD,
                    events & POLLOUT ? fd : ARES_SOCKET_BAD);
    set_timer(resolver);
}

/*
 * c-ares calls this from inside of ares_process_fd() and others. It says little: when it opens a socket, when it has
 * something to write on it, and with neither when it closes it right after. The kernel releases it in each case, which
 * ends the watcher as well.
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
    expect(loop_run(resolver.loop)); /* until c-ares has no socket open and waits for no time limit */

    ares_destroy(resolver.channel); /* would close its sockets, through on_socket(): the loop goes last */
    ares_library_cleanup();
    expect(loop_close(resolver.loop));
    return EXIT_SUCCESS;
}
