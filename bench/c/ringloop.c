/* The cases with ringloop through its C API. */
#include "bench.h"

#include <ringloop.h>

static uint64_t wanted, fired;

static loop_handle_t must(loop_handle_t result)
{
    if (result < 0) bench_fail(loop_last_error());
    return result;
}

static loop_t *new_loop(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;

    options.slack_ns = bench_option("exact") ? LOOP_EXACT : LOOP_USEC(bench_option("slack_us"));
    options.spin_ns = LOOP_USEC(bench_option("spin_us"));
    must(loop_new(&options, &loop));
    return loop;
}

static void count(loop_t *loop, void *arg)
{
    (void)loop;
    ++*(uint64_t *)arg;
}

static void again(loop_t *loop, void *arg)
{
    if (++fired < wanted)
        must(loop_call_soon(loop, again, arg));
    else
        must(loop_stop(loop));
}

static void soon_chain(void)
{
    loop_t *loop = new_loop();

    wanted = bench_option("n");
    if (bench_option("far")) must(loop_call_later(loop, AN_HOUR, count, &fired));
    bench_start();
    must(loop_call_soon(loop, again, NULL));
    must(loop_run_forever(loop));
    bench_stop();
    bench_check(fired == wanted, "not all callbacks ran");
    must(loop_close(loop));
    bench_report(wanted, "");
}

static void soon_bulk(void)
{
    loop_t *loop = new_loop();

    wanted = bench_option("n");
    for (uint64_t round = 0; round <= bench_option("again"); round++) {
        fired = 0;
        bench_start();
        for (uint64_t i = 0; i < wanted; i++) must(loop_call_soon(loop, count, &fired));
        must(loop_run(loop));
        bench_stop();
        bench_check(fired == wanted, "not all callbacks ran");
    }
    must(loop_close(loop));
    bench_report(wanted, "");
}

static void timers(void)
{
    uint64_t span = bench_option("span_ms"), base;
    bool whole = bench_option("whole");
    loop_t *loop = new_loop();

    wanted = bench_option("n");
    bench_start();
    base = loop_time(loop);
    for (uint64_t i = 0; i < wanted; i++) must(loop_call_at(loop, base + bench_delay(span, whole), count, &fired));
    must(loop_run(loop));
    bench_stop();
    bench_check(fired == wanted, "not all timers fired");
    must(loop_close(loop));
    bench_report(wanted, "");
}

static void timers_cancel(void)
{
    uint64_t batches = bench_batches(bench_option("n")), pending = bench_option("pending"), now;
    loop_handle_t *handles = bench_array(pending, sizeof *handles);
    loop_t *loop = new_loop();

    now = loop_time(loop);
    for (uint64_t i = 0; i < pending; i++) handles[i] = must(loop_call_at(loop, now + bench_timeout(), count, &fired));
    bench_start();
    for (uint64_t batch = 0; batch < batches; batch++) {
        now = loop_time(loop);
        for (int i = 0; i < BATCH; i++) {
            loop_handle_t *handle = &handles[bench_below(pending)];

            must(loop_cancel(loop, *handle));
            *handle = must(loop_call_at(loop, now + bench_timeout(), count, &fired));
        }
        must(loop_run_once(loop, 0));
    }
    bench_stop();
    for (uint64_t i = 0; i < pending; i++) bench_check(loop_cancel(loop, handles[i]) == 0, "a timer was not pending");
    bench_check(fired == 0, "a timer fired");
    must(loop_close(loop));
    bench_report(batches * BATCH, "");
}

static void timers_move(void)
{
    uint64_t batches = bench_batches(bench_option("n")), connections = bench_option("connections");
    uint64_t timeout = LOOP_MSEC(bench_option("timeout_ms"));
    loop_handle_t *handles = bench_array(connections, sizeof *handles);
    loop_t *loop = new_loop();

    for (uint64_t i = 0; i < connections; i++) handles[i] = must(loop_call_later(loop, timeout, count, &fired));
    bench_start();
    for (uint64_t batch = 0; batch < batches; batch++) {
        uint64_t when = loop_time(loop) + timeout;

        for (int i = 0; i < BATCH; i++) must(loop_reschedule(loop, handles[bench_below(connections)], when));
        must(loop_run_once(loop, 0));
    }
    bench_check(fired == 0, "a timer fired too soon");
    must(loop_run(loop));
    bench_stop();
    bench_check(fired == connections, "not all timers fired");
    must(loop_close(loop));
    bench_report(batches * BATCH, "");
}

static void timers_memory(void)
{
    uint64_t pending = bench_option("pending"), now;
    loop_t *loop = new_loop();
    struct bench_memory before;

    must(loop_run_once(loop, 0));
    before = bench_memory();
    now = loop_time(loop);
    for (uint64_t i = 0; i < pending; i++) must(loop_call_at(loop, now + bench_timeout(), count, &fired));
    must(loop_run_once(loop, 0));
    bench_report_memory(pending, before);
    bench_check(fired == 0, "a timer fired");
}

static void late(loop_t *loop, void *arg)
{
    if (lateness_fired()) must(loop_call_at(loop, lateness_next(), late, arg));
}

static void lateness(void)
{
    loop_t *loop = new_loop();

    lateness_begin();
    must(loop_call_at(loop, lateness_next(), late, NULL));
    must(loop_run(loop));
    lateness_report();
    must(loop_close(loop));
}

static void dense_late(loop_t *loop, void *when)
{
    (void)loop;
    dense_fired((uintptr_t)when);
}

static void dense(void)
{
    loop_t *loop = new_loop();

    dense_begin();
    for (uint64_t i = 0; i < bench_lateness.wanted; i++) {
        uint64_t when = dense_next();

        must(loop_call_at(loop, when, dense_late, (void *)when));
    }
    dense_started();
    must(loop_run(loop));
    lateness_report();
    must(loop_close(loop));
}

static void idle(void)
{
    uint64_t pending = bench_option("pending");
    loop_t *loop = new_loop();

    for (uint64_t i = 0; i < pending; i++) must(loop_call_later(loop, AN_HOUR + bench_below(NS_PER_S), count, &fired));
    idle_begin();
    must(loop_run(loop));
}

static void start(void)
{
    uint64_t times = bench_option("n"), open = bench_option("open");
    struct bench_memory before;

    bench_start();
    for (uint64_t i = 0; i < times; i++) must(loop_close(new_loop()));
    bench_stop();
    before = bench_memory();
    for (uint64_t i = 0; i < open; i++) new_loop();
    bench_report_memory(times, before);
}

/* ---- posts from other threads ---- */

struct peer {
    loop_t *loop;
    loop_remote_t *remote;
};

static struct peer *peer_new(void)
{
    struct peer *peer = bench_array(1, sizeof *peer);

    peer->loop = new_loop();
    must(loop_remote_new(peer->loop, &peer->remote));
    return peer;
}

static void peer_post(struct peer *peer, loop_callback_t callback, void *arg)
{
    must(loop_remote_call_soon(peer->remote, callback, arg, NULL));
}

static void peer_run(struct peer *peer)
{
    must(loop_run_forever(peer->loop));
}

static void peer_stop(struct peer *peer)
{
    must(loop_stop(peer->loop));
}

#define CALLBACK(name)                                 \
    static void name##_call(loop_t *loop, void *arg)   \
    {                                                  \
        (void)loop;                                    \
        name(arg);                                     \
    }

#include "threads.h"

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {LOOP_CASES, {NULL, NULL}};

    return bench_main(argc, argv, loop_version(), cases);
}
