/*
 * The cases with GLib, on a GMainContext of their own. A timer with a deadline in microseconds is a GSource with a
 * ready time; g_timeout_source_new() counts in milliseconds. GLib checks every source in every iteration.
 */
#include "bench.h"

#include <glib.h>

static uint64_t wanted, fired;
static GMainContext *context;
static GMainLoop *loop;

static void new_loop(void)
{
    context = g_main_context_new();
    loop = g_main_loop_new(context, FALSE);
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer data)
{
    (void)source;
    return callback(data);
}

static void attach(GSource *source, GSourceFunc callback, void *data)
{
    g_source_set_callback(source, callback, data, NULL);
    g_source_attach(source, context);
}

/* Attaches a source and drops the reference to it. */
static void attach_new(GSource *source, GSourceFunc callback, void *data)
{
    attach(source, callback, data);
    g_source_unref(source);
}

/* A source with only a ready time. */
static GSource *new_timer(uint64_t when, GSourceFunc callback, void *data)
{
    static GSourceFuncs functions = {.dispatch = dispatch};
    GSource *source = g_source_new(&functions, sizeof *source);

    g_source_set_ready_time(source, (gint64)bench_round_up(when, NS_PER_US));
    attach(source, callback, data);
    return source;
}

/* Runs once for each source; the last call ends the run. */
static gboolean count(gpointer data)
{
    if (++*(uint64_t *)data == wanted) g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

static gboolean again(gpointer data)
{
    (void)data;
    if (++fired < wanted) return G_SOURCE_CONTINUE;
    g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

static void soon_chain(void)
{
    new_loop();
    wanted = bench_option("n");
    if (bench_option("far")) g_source_unref(new_timer(bench_now() + AN_HOUR, count, &fired));
    bench_start();
    attach_new(g_idle_source_new(), again, NULL);
    g_main_loop_run(loop);
    bench_stop();
    bench_check(fired == wanted, "not all callbacks ran");
    bench_report(wanted, "");
}

static void soon_bulk(void)
{
    new_loop();
    wanted = bench_option("n");
    for (uint64_t round = 0; round <= bench_option("again"); round++) {
        fired = 0;
        bench_start();
        for (uint64_t i = 0; i < wanted; i++) attach_new(g_idle_source_new(), count, &fired);
        g_main_loop_run(loop);
        bench_stop();
        bench_check(fired == wanted, "not all callbacks ran");
    }
    bench_report(wanted, "");
}

static void timers(void)
{
    uint64_t span = bench_option("span_ms"), base;
    bool whole = bench_option("whole");

    new_loop();
    wanted = bench_option("n");
    bench_start();
    base = bench_now();
    for (uint64_t i = 0; i < wanted; i++) {
        uint64_t delay = bench_delay(span, whole);

        if (whole)
            attach_new(g_timeout_source_new((guint)(delay / NS_PER_MS)), count, &fired);
        else
            g_source_unref(new_timer(base + delay, count, &fired));
    }
    g_main_loop_run(loop);
    bench_stop();
    bench_check(fired == wanted, "not all timers fired");
    bench_report(wanted, "");
}

static void timers_cancel(void)
{
    uint64_t batches = bench_batches(bench_option("n")), pending = bench_option("pending"), now = bench_now();
    GSource **sources = bench_array(pending, sizeof *sources);

    new_loop();
    for (uint64_t i = 0; i < pending; i++) sources[i] = new_timer(now + bench_timeout(), count, &fired);
    bench_start();
    for (uint64_t batch = 0; batch < batches; batch++) {
        now = bench_now();
        for (int i = 0; i < BATCH; i++) {
            GSource **source = &sources[bench_below(pending)];

            g_source_destroy(*source);
            g_source_unref(*source);
            *source = new_timer(now + bench_timeout(), count, &fired);
        }
        g_main_context_iteration(context, FALSE);
    }
    bench_stop();
    for (uint64_t i = 0; i < pending; i++) bench_check(!g_source_is_destroyed(sources[i]), "a timer was not pending");
    bench_check(fired == 0, "a timer fired");
    bench_report(batches * BATCH, "");
}

static void timers_move(void)
{
    uint64_t batches = bench_batches(bench_option("n")), connections = bench_option("connections");
    uint64_t timeout = bench_option("timeout_ms") * NS_PER_MS, now = bench_now();
    GSource **sources = bench_array(connections, sizeof *sources);

    new_loop();
    wanted = connections;
    for (uint64_t i = 0; i < connections; i++) sources[i] = new_timer(now + timeout, count, &fired);
    bench_start();
    for (uint64_t batch = 0; batch < batches; batch++) {
        gint64 when = (gint64)bench_round_up(bench_now() + timeout, NS_PER_US);

        for (int i = 0; i < BATCH; i++) g_source_set_ready_time(sources[bench_below(connections)], when);
        g_main_context_iteration(context, FALSE);
    }
    bench_check(fired == 0, "a timer fired too soon");
    g_main_loop_run(loop);
    bench_stop();
    bench_check(fired == connections, "not all timers fired");
    bench_report(batches * BATCH, "");
}

static void timers_memory(void)
{
    uint64_t pending = bench_option("pending"), now;
    struct bench_memory before;

    new_loop();
    g_main_context_iteration(context, FALSE);
    before = bench_memory();
    now = bench_now();
    for (uint64_t i = 0; i < pending; i++) g_source_unref(new_timer(now + bench_timeout(), count, &fired));
    g_main_context_iteration(context, FALSE);
    bench_report_memory(pending, before);
    bench_check(fired == 0, "a timer fired");
}

static gboolean late(gpointer data)
{
    GSource *source = *(GSource **)data;

    if (lateness_fired())
        g_source_set_ready_time(source, (gint64)bench_round_up(lateness_next(), NS_PER_US));
    else
        g_main_loop_quit(loop);
    return G_SOURCE_CONTINUE;
}

static void lateness(void)
{
    GSource *source;

    new_loop();
    lateness_begin();
    source = new_timer(lateness_next(), late, &source);
    g_main_loop_run(loop);
    lateness_report();
}

static gboolean dense_late(gpointer when)
{
    dense_fired((uintptr_t)when);
    if (bench_lateness.seen == bench_lateness.wanted) g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

static void dense(void)
{
    new_loop();
    dense_begin();
    for (uint64_t i = 0; i < bench_lateness.wanted; i++) {
        uint64_t when = dense_next();

        g_source_unref(new_timer(when, dense_late, (void *)when));
    }
    dense_started();
    g_main_loop_run(loop);
    lateness_report();
}

static void idle(void)
{
    uint64_t pending = bench_option("pending");

    new_loop();
    for (uint64_t i = 0; i < pending; i++)
        g_source_unref(new_timer(bench_now() + AN_HOUR + bench_below(NS_PER_S), count, &fired));
    idle_begin();
    g_main_loop_run(loop);
}

static void start(void)
{
    uint64_t times = bench_option("n"), open = bench_option("open");
    struct bench_memory before;

    bench_start();
    for (uint64_t i = 0; i < times; i++) {
        new_loop();
        g_main_loop_unref(loop);
        g_main_context_unref(context);
    }
    bench_stop();
    before = bench_memory();
    for (uint64_t i = 0; i < open; i++) new_loop();
    bench_report_memory(times, before);
}

/* ---- posts from other threads ---- */

struct peer {
    GMainContext *context;
    GMainLoop *loop;
};

static struct peer *peer_new(void)
{
    struct peer *peer = bench_array(1, sizeof *peer);

    peer->context = g_main_context_new();
    peer->loop = g_main_loop_new(peer->context, FALSE);
    return peer;
}

static void peer_post(struct peer *peer, GSourceFunc callback, void *arg)
{
    g_main_context_invoke_full(peer->context, G_PRIORITY_DEFAULT, callback, arg, NULL);
}

static void peer_run(struct peer *peer)
{
    g_main_loop_run(peer->loop);
}

static void peer_stop(struct peer *peer)
{
    g_main_loop_quit(peer->loop);
}

#define CALLBACK(name)                         \
    static gboolean name##_call(gpointer arg)  \
    {                                          \
        name(arg);                             \
        return G_SOURCE_REMOVE;                \
    }

#include "threads.h"

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {LOOP_CASES, {NULL, NULL}};
    char version[32];

    snprintf(version, sizeof version, "%u.%u.%u", glib_major_version, glib_minor_version, glib_micro_version);
    return bench_main(argc, argv, version, cases);
}
