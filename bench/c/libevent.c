/*
 * The cases with libevent. Events are in an array that is allocated once. Callbacks start large numbers of timers:
 * inside a callback libevent's clock is cached, outside each evtimer_add() reads the clock.
 */
#include "bench.h"
#include "queue.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/thread.h>

static uint64_t wanted, fired;

static void must(int result)
{
    bench_check(result >= 0, "libevent refuses");
}

static struct event_base *checked(struct event_base *base)
{
    bench_check(base != NULL, "no event base");
    return base;
}

static struct event_base *new_base(void)
{
    return checked(event_base_new());
}

/* Makes a base with `config`, and frees `config`. */
static struct event_base *configured(struct event_config *config)
{
    struct event_base *base = checked(event_base_new_with_config(config));

    event_config_free(config);
    return base;
}

static struct timeval in_us(uint64_t ns)
{
    uint64_t us = bench_round_up(ns, NS_PER_US);
    struct timeval time = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};

    return time;
}

static void count(evutil_socket_t fd, short events, void *arg)
{
    (void)fd;
    (void)events;
    ++*(uint64_t *)arg;
}

static void add(struct event *event, uint64_t delay)
{
    struct timeval time = in_us(delay);

    must(evtimer_add(event, &time));
}

static void add_new(struct event_base *base, struct event *event, uint64_t delay)
{
    must(evtimer_assign(event, base, count, &fired));
    add(event, delay);
}

/* Runs the loop, with `callback` first, until a loopbreak or until no event is left. */
static void run_from(struct event_base *base, event_callback_fn callback, void *arg)
{
    must(event_base_once(base, -1, EV_TIMEOUT, callback, arg, NULL));
    must(event_base_dispatch(base));
}

/* ---- soon ---- */

static struct event chain;

static void again(evutil_socket_t fd, short events, void *base)
{
    (void)fd;
    (void)events;
    if (++fired < wanted)
        event_active(&chain, EV_TIMEOUT, 0);
    else
        must(event_base_loopbreak(base));
}

/* An event that a callback activates runs in the same iteration, unless the callbacks of an iteration are limited. */
static struct event_base *new_fair_base(void)
{
    struct event_config *config = event_config_new();

    must(event_config_set_max_dispatch_interval(config, NULL, 1, 0));
    return configured(config);
}

/* starve=1: all callbacks run within one iteration, without I/O and timers. */
static void soon_chain(void)
{
    struct event_base *base = bench_option("starve") ? new_base() : new_fair_base();
    struct event far;

    wanted = bench_option("n");
    if (bench_option("far")) add_new(base, &far, AN_HOUR);
    bench_start();
    must(evtimer_assign(&chain, base, again, base));
    event_active(&chain, EV_TIMEOUT, 0);
    must(event_base_dispatch(base));
    bench_stop();
    bench_check(fired == wanted, "not all callbacks ran");
    bench_report(wanted, "");
}

static struct event *new_events(struct event_base *base, uint64_t number)
{
    struct event *events = bench_array(number, sizeof *events);

    for (uint64_t i = 0; i < number; i++) must(evtimer_assign(&events[i], base, count, &fired));
    return events;
}

static void soon_bulk(void)
{
    struct event_base *base = new_base();
    struct event *events = NULL;

    wanted = bench_option("n");
    for (uint64_t round = 0; round <= bench_option("again"); round++) {
        fired = 0;
        bench_start();
        if (!events) events = new_events(base, wanted);
        for (uint64_t i = 0; i < wanted; i++) event_active(&events[i], EV_TIMEOUT, 0);
        must(event_base_dispatch(base));
        bench_stop();
        bench_check(fired == wanted, "not all callbacks ran");
    }
    bench_report(wanted, "");
}

/* ---- timers ---- */

static void start_all(evutil_socket_t fd, short events, void *base)
{
    uint64_t span = bench_option("span_ms");
    bool whole = bench_option("whole");
    struct event *timers = bench_array(wanted, sizeof *timers);

    (void)fd;
    (void)events;
    for (uint64_t i = 0; i < wanted; i++) add_new(base, &timers[i], bench_delay(span, whole));
}

static void timers(void)
{
    struct event_base *base = new_base();

    wanted = bench_option("n");
    bench_start();
    run_from(base, start_all, base);
    bench_stop();
    bench_check(fired == wanted, "not all timers fired");
    bench_report(wanted, "");
}

/* Batches of operations, one in each iteration. */
struct batches {
    struct event_base *base;
    struct event next, *timers;
    uint64_t left, number;
    const struct timeval *timeout;
};

static void cancel_batch(evutil_socket_t fd, short events, void *arg)
{
    struct batches *batches = arg;

    (void)fd;
    (void)events;
    for (int i = 0; i < BATCH; i++) {
        struct event *timer = &batches->timers[bench_below(batches->number)];

        must(evtimer_del(timer));
        add(timer, bench_timeout());
    }
    if (--batches->left)
        add(&batches->next, 0);
    else
        must(event_base_loopbreak(batches->base));
}

static void timers_cancel(void)
{
    uint64_t operations = bench_option("n"), pending = bench_option("pending");
    struct batches batches = {.base = new_base(), .left = bench_batches(operations), .number = pending};

    batches.timers = bench_array(pending, sizeof *batches.timers);
    for (uint64_t i = 0; i < pending; i++) add_new(batches.base, &batches.timers[i], bench_timeout());
    must(evtimer_assign(&batches.next, batches.base, cancel_batch, &batches));
    bench_start();
    add(&batches.next, 0);
    must(event_base_dispatch(batches.base));
    bench_stop();
    for (uint64_t i = 0; i < pending; i++)
        bench_check(evtimer_pending(&batches.timers[i], NULL), "a timer was not pending");
    bench_check(fired == 0, "a timer fired");
    bench_report(operations, "");
}

static void move_batch(evutil_socket_t fd, short events, void *arg)
{
    struct batches *batches = arg;

    (void)fd;
    (void)events;
    for (int i = 0; i < BATCH; i++) must(evtimer_add(&batches->timers[bench_below(batches->number)], batches->timeout));
    if (--batches->left)
        add(&batches->next, 0);
    else
        bench_check(fired == 0, "a timer fired too soon");
}

static void move_all(evutil_socket_t fd, short events, void *arg)
{
    struct batches *batches = arg;

    (void)fd;
    (void)events;
    for (uint64_t i = 0; i < batches->number; i++) {
        must(evtimer_assign(&batches->timers[i], batches->base, count, &fired));
        must(evtimer_add(&batches->timers[i], batches->timeout));
    }
    must(evtimer_assign(&batches->next, batches->base, move_batch, batches));
    bench_start();
    add(&batches->next, 0);
}

/* All timeouts are equal: event_base_init_common_timeout() makes libevent keep such timers in a separate list. */
static void timers_move(void)
{
    uint64_t operations = bench_option("n"), connections = bench_option("connections");
    struct timeval timeout = in_us(bench_option("timeout_ms") * NS_PER_MS);
    struct batches batches = {.base = new_base(), .left = bench_batches(operations), .number = connections};

    batches.timeout = event_base_init_common_timeout(batches.base, &timeout);
    bench_check(batches.timeout != NULL, "event_base_init_common_timeout");
    batches.timers = bench_array(connections, sizeof *batches.timers);
    run_from(batches.base, move_all, &batches);
    bench_stop();
    bench_check(fired == connections, "not all timers fired");
    bench_report(operations, "");
}

static void timers_memory(void)
{
    uint64_t pending = bench_option("pending");
    struct event_base *base = new_base();
    struct bench_memory before;
    struct event *timers;

    must(event_base_loop(base, EVLOOP_NONBLOCK));
    before = bench_memory();
    timers = bench_array(pending, sizeof *timers);
    for (uint64_t i = 0; i < pending; i++) add_new(base, &timers[i], bench_timeout());
    must(event_base_loop(base, EVLOOP_NONBLOCK));
    bench_report_memory(pending, before);
    bench_check(fired == 0, "a timer fired");
}

/* ---- lateness, idle, start ---- */

/* The delay counts from the cached time, which is that of the last wakeup unless it is updated. */
static void start_late(struct event *timer)
{
    uint64_t delay = lateness_next_delay();

    must(event_base_update_cache_time(event_get_base(timer)));
    add(timer, delay);
}

static void late(evutil_socket_t fd, short events, void *timer)
{
    (void)fd;
    (void)events;
    if (lateness_fired()) start_late(timer);
}

/* precise=1: the exact clock and timerfd, not the coarse clock and milliseconds. */
static struct event_base *new_precise_base(void)
{
    struct event_config *config = event_config_new();

    must(event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER));
    return configured(config);
}

static void lateness(void)
{
    struct event_base *base = bench_option("precise") ? new_precise_base() : new_base();
    struct event timer;

    must(evtimer_assign(&timer, base, late, &timer));
    lateness_begin();
    start_late(&timer);
    must(event_base_dispatch(base));
    lateness_report();
}

static void dense_late(evutil_socket_t fd, short events, void *when)
{
    (void)fd;
    (void)events;
    dense_fired((uintptr_t)when);
}

static void dense_start(evutil_socket_t fd, short events, void *base)
{
    struct event *timers = bench_array(bench_lateness.wanted, sizeof *timers);
    uint64_t now = bench_now();

    (void)fd;
    (void)events;
    must(event_base_update_cache_time(base));
    for (uint64_t i = 0; i < bench_lateness.wanted; i++) {
        uint64_t when = dense_next();

        must(evtimer_assign(&timers[i], base, dense_late, (void *)when));
        add(&timers[i], when - now);
    }
    dense_started();
}

static void dense(void)
{
    struct event_base *base = new_base();

    dense_begin();
    run_from(base, dense_start, base);
    lateness_report();
}

static void idle(void)
{
    uint64_t pending = bench_option("pending");
    struct event *timers = bench_array(pending, sizeof *timers);
    struct event_base *base = new_base();

    for (uint64_t i = 0; i < pending; i++) add_new(base, &timers[i], AN_HOUR + bench_below(NS_PER_S));
    idle_begin();
    must(event_base_dispatch(base));
}

static void start(void)
{
    uint64_t times = bench_option("n"), open = bench_option("open");
    struct bench_memory before;

    bench_start();
    for (uint64_t i = 0; i < times; i++) event_base_free(new_base());
    bench_stop();
    before = bench_memory();
    for (uint64_t i = 0; i < open; i++) new_base();
    bench_report_memory(times, before);
}

/* ---- posts from other threads ---- */

struct peer {
    struct event_base *base;
    struct event wake;
    struct queue queue;
};

static void posted(evutil_socket_t fd, short events, void *arg)
{
    struct peer *peer = arg;

    (void)fd;
    (void)events;
    queue_run(&peer->queue);
}

/* This base has locks; the base of the other cases has none. */
static struct peer *peer_new(void)
{
    struct peer *peer = bench_array(1, sizeof *peer);

    must(evthread_use_pthreads());
    peer->base = new_base();
    must(event_assign(&peer->wake, peer->base, -1, EV_PERSIST, posted, peer));
    queue_init(&peer->queue);
    return peer;
}

static void peer_post(struct peer *peer, void (*callback)(void *arg), void *arg)
{
    if (queue_push(&peer->queue, callback, arg)) event_active(&peer->wake, EV_READ, 0);
}

static void peer_run(struct peer *peer)
{
    must(event_base_loop(peer->base, EVLOOP_NO_EXIT_ON_EMPTY));
}

static void peer_stop(struct peer *peer)
{
    must(event_base_loopbreak(peer->base));
}

#include "threads.h"

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {LOOP_CASES, {NULL, NULL}};

    return bench_main(argc, argv, event_get_version(), cases);
}
