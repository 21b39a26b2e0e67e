/*
 * The cases with libev. Watchers are in an array that is allocated once. libev has no call_soon. The nearest are an
 * idle watcher, which runs in every iteration, and ev_feed_event(), whose callback runs in the current iteration.
 */
#include "bench.h"
#include "queue.h"

#include <ev.h>

static uint64_t wanted, fired;

static struct ev_loop *new_loop(void)
{
    /* 128 is EVBACKEND_IOURING, which older headers lack. */
    struct ev_loop *loop = ev_loop_new(bench_option("uring") ? 128 : EVFLAG_AUTO);

    bench_check(loop != NULL, "ev_loop_new");
    if (bench_option("slack_us")) ev_set_timeout_collect_interval(loop, (double)bench_option("slack_us") / 1e6);
    return loop;
}

static double in_s(uint64_t ns)
{
    return (double)ns / 1e9;
}

static void count(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    ++*(uint64_t *)timer->data;
}

static void start_timer(struct ev_loop *loop, ev_timer *timer, uint64_t delay)
{
    ev_timer_init(timer, count, in_s(delay), 0.);
    timer->data = &fired;
    ev_timer_start(loop, timer);
}

static void again(struct ev_loop *loop, ev_idle *idle, int events)
{
    (void)events;
    if (++fired < wanted) return;
    ev_idle_stop(loop, idle);
    ev_break(loop, EVBREAK_ALL);
}

/* starve=1: all callbacks run within one iteration, without I/O and timers. */
static void again_now(struct ev_loop *loop, ev_idle *idle, int events)
{
    (void)events;
    if (++fired < wanted)
        ev_feed_event(loop, idle, EV_CUSTOM);
    else
        ev_break(loop, EVBREAK_ALL);
}

static void soon_chain(void)
{
    struct ev_loop *loop = new_loop();
    ev_timer far;
    ev_idle idle;

    wanted = bench_option("n");
    if (bench_option("far")) start_timer(loop, &far, AN_HOUR);
    bench_start();
    if (bench_option("starve")) {
        ev_idle_init(&idle, again_now);
        ev_feed_event(loop, &idle, EV_CUSTOM);
    } else {
        ev_idle_init(&idle, again);
        ev_idle_start(loop, &idle);
    }
    ev_run(loop, 0);
    bench_stop();
    bench_check(fired == wanted, "not all callbacks ran");
    bench_report(wanted, "");
}

static void once(struct ev_loop *loop, ev_watcher *watcher, int events)
{
    (void)loop;
    (void)events;
    ++*(uint64_t *)watcher->data;
}

static void soon_bulk(void)
{
    struct ev_loop *loop = new_loop();
    ev_watcher *watchers = NULL;

    wanted = bench_option("n");
    for (uint64_t round = 0; round <= bench_option("again"); round++) {
        fired = 0;
        bench_start();
        if (!watchers) watchers = bench_array(wanted, sizeof *watchers);
        for (uint64_t i = 0; i < wanted; i++) {
            ev_init(&watchers[i], once);
            watchers[i].data = &fired;
            ev_feed_event(loop, &watchers[i], EV_CUSTOM);
        }
        ev_run(loop, EVRUN_NOWAIT);
        bench_stop();
        bench_check(fired == wanted, "not all callbacks ran");
    }
    bench_report(wanted, "");
}

static void timers(void)
{
    uint64_t span = bench_option("span_ms");
    bool whole = bench_option("whole");
    struct ev_loop *loop = new_loop();
    ev_timer *timers;

    wanted = bench_option("n");
    bench_start();
    ev_now_update(loop);
    timers = bench_array(wanted, sizeof *timers);
    for (uint64_t i = 0; i < wanted; i++) start_timer(loop, &timers[i], bench_delay(span, whole));
    ev_run(loop, 0);
    bench_stop();
    bench_check(fired == wanted, "not all timers fired");
    bench_report(wanted, "");
}

static void timers_cancel(void)
{
    uint64_t batches = bench_batches(bench_option("n")), pending = bench_option("pending");
    ev_timer *timers = bench_array(pending, sizeof *timers);
    struct ev_loop *loop = new_loop();

    for (uint64_t i = 0; i < pending; i++) start_timer(loop, &timers[i], bench_timeout());
    bench_start();
    for (uint64_t batch = 0; batch < batches; batch++) {
        for (int i = 0; i < BATCH; i++) {
            ev_timer *timer = &timers[bench_below(pending)];

            ev_timer_stop(loop, timer);
            ev_timer_set(timer, in_s(bench_timeout()), 0.);
            ev_timer_start(loop, timer);
        }
        ev_run(loop, EVRUN_NOWAIT);
    }
    bench_stop();
    for (uint64_t i = 0; i < pending; i++) bench_check(ev_is_active(&timers[i]), "a timer was not pending");
    bench_check(fired == 0, "a timer fired");
    bench_report(batches * BATCH, "");
}

/* ev_timer_again() restarts with the repeat interval, so a one-shot timer stops itself. */
static void timed_out(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)events;
    fired++;
    ev_timer_stop(loop, timer);
}

static void timers_move(void)
{
    uint64_t batches = bench_batches(bench_option("n")), connections = bench_option("connections");
    uint64_t timeout = bench_option("timeout_ms") * NS_PER_MS;
    ev_timer *timers = bench_array(connections, sizeof *timers);
    struct ev_loop *loop = new_loop();

    ev_now_update(loop);
    for (uint64_t i = 0; i < connections; i++) {
        ev_timer_init(&timers[i], timed_out, 0., in_s(timeout));
        ev_timer_again(loop, &timers[i]);
    }
    bench_start();
    for (uint64_t batch = 0; batch < batches; batch++) {
        for (int i = 0; i < BATCH; i++) ev_timer_again(loop, &timers[bench_below(connections)]);
        ev_run(loop, EVRUN_NOWAIT);
    }
    bench_check(fired == 0, "a timer fired too soon");
    ev_run(loop, 0);
    bench_stop();
    bench_check(fired == connections, "not all timers fired");
    bench_report(batches * BATCH, "");
}

static void timers_memory(void)
{
    uint64_t pending = bench_option("pending");
    struct ev_loop *loop = new_loop();
    struct bench_memory before;
    ev_timer *timers;

    ev_run(loop, EVRUN_NOWAIT);
    before = bench_memory();
    timers = bench_array(pending, sizeof *timers);
    for (uint64_t i = 0; i < pending; i++) start_timer(loop, &timers[i], bench_timeout());
    ev_run(loop, EVRUN_NOWAIT);
    bench_report_memory(pending, before);
    bench_check(fired == 0, "a timer fired");
}

/* The delay counts from libev's cached time, which is that of the last wakeup unless it is updated. */
static void start_late(struct ev_loop *loop, ev_timer *timer)
{
    uint64_t delay = lateness_next_delay();

    ev_now_update(loop);
    ev_timer_set(timer, in_s(delay), 0.);
    ev_timer_start(loop, timer);
}

static void late(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)events;
    if (lateness_fired()) start_late(loop, timer);
}

static void lateness(void)
{
    struct ev_loop *loop = new_loop();
    ev_timer timer;

    lateness_begin();
    ev_init(&timer, late);
    start_late(loop, &timer);
    ev_run(loop, 0);
    lateness_report();
}

static void dense_late(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    dense_fired((uintptr_t)timer->data);
}

static void dense(void)
{
    struct ev_loop *loop = new_loop();
    ev_timer *timers;

    dense_begin();
    ev_now_update(loop);
    timers = bench_array(bench_lateness.wanted, sizeof *timers);
    for (uint64_t i = 0; i < bench_lateness.wanted; i++) {
        uint64_t when = dense_next();

        ev_timer_init(&timers[i], dense_late, in_s(when - bench_begin.wall), 0.);
        timers[i].data = (void *)when;
        ev_timer_start(loop, &timers[i]);
    }
    dense_started();
    ev_run(loop, 0);
    lateness_report();
}

static void idle(void)
{
    uint64_t pending = bench_option("pending");
    ev_timer *timers = bench_array(pending, sizeof *timers);
    struct ev_loop *loop = new_loop();

    for (uint64_t i = 0; i < pending; i++) start_timer(loop, &timers[i], AN_HOUR + bench_below(NS_PER_S));
    idle_begin();
    ev_run(loop, 0);
}

static void start(void)
{
    uint64_t times = bench_option("n"), open = bench_option("open");
    struct bench_memory before;

    bench_start();
    for (uint64_t i = 0; i < times; i++) ev_loop_destroy(new_loop());
    bench_stop();
    before = bench_memory();
    for (uint64_t i = 0; i < open; i++) new_loop();
    bench_report_memory(times, before);
}

/* ---- posts from other threads ---- */

struct peer {
    struct ev_loop *loop;
    ev_async wake;
    struct queue queue;
};

static void posted(struct ev_loop *loop, ev_async *wake, int events)
{
    struct peer *peer = wake->data;

    (void)loop;
    (void)events;
    queue_run(&peer->queue);
}

static struct peer *peer_new(void)
{
    struct peer *peer = bench_array(1, sizeof *peer);

    peer->loop = new_loop();
    ev_async_init(&peer->wake, posted);
    peer->wake.data = peer;
    ev_async_start(peer->loop, &peer->wake);
    queue_init(&peer->queue);
    return peer;
}

static void peer_post(struct peer *peer, void (*callback)(void *arg), void *arg)
{
    if (queue_push(&peer->queue, callback, arg)) ev_async_send(peer->loop, &peer->wake);
}

static void peer_run(struct peer *peer)
{
    ev_run(peer->loop, 0);
}

static void peer_stop(struct peer *peer)
{
    ev_break(peer->loop, EVBREAK_ALL);
}

#include "threads.h"

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {LOOP_CASES, {NULL, NULL}};
    char version[32];

    snprintf(version, sizeof version, "%d.%d", ev_version_major(), ev_version_minor());
    return bench_main(argc, argv, version, cases);
}
