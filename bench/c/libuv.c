/*
 * The cases with libuv. Handles are in an array that is allocated once. libuv counts in milliseconds: delays are
 * rounded up. libuv has no call_soon. The nearest is an idle handle, which runs in every iteration until it is stopped.
 */
#include "bench.h"
#include "queue.h"

#include <uv.h>

static uint64_t wanted, fired;

static void must(int result)
{
    if (result != 0) bench_fail(uv_strerror(result));
}

static uv_loop_t *new_loop(void)
{
    uv_loop_t *loop = bench_array(1, sizeof *loop);

    must(uv_loop_init(loop));
    return loop;
}

static uint64_t in_ms(uint64_t ns)
{
    return bench_round_up(ns, NS_PER_MS);
}

static void count(uv_timer_t *timer)
{
    ++*(uint64_t *)timer->data;
}

static uv_timer_t *new_timers(uv_loop_t *loop, uint64_t number)
{
    uv_timer_t *timers = bench_array(number, sizeof *timers);

    for (uint64_t i = 0; i < number; i++) {
        must(uv_timer_init(loop, &timers[i]));
        timers[i].data = &fired;
    }
    return timers;
}

static void again(uv_idle_t *idle)
{
    if (++fired < wanted) return;
    must(uv_idle_stop(idle));
    uv_stop(idle->loop);
}

static void soon_chain(void)
{
    uv_loop_t *loop = new_loop();
    uv_timer_t *far = new_timers(loop, 1);
    uv_idle_t idle;

    wanted = bench_option("n");
    if (bench_option("far")) must(uv_timer_start(far, count, in_ms(AN_HOUR), 0));
    bench_start();
    must(uv_idle_init(loop, &idle));
    must(uv_idle_start(&idle, again));
    uv_run(loop, UV_RUN_DEFAULT);
    bench_stop();
    bench_check(fired == wanted, "not all callbacks ran");
    bench_report(wanted, "");
}

static void once(uv_idle_t *idle)
{
    ++*(uint64_t *)idle->data;
    must(uv_idle_stop(idle));
}

static uv_idle_t *new_idles(uv_loop_t *loop, uint64_t number)
{
    uv_idle_t *idles = bench_array(number, sizeof *idles);

    for (uint64_t i = 0; i < number; i++) {
        must(uv_idle_init(loop, &idles[i]));
        idles[i].data = &fired;
    }
    return idles;
}

static void soon_bulk(void)
{
    uv_loop_t *loop = new_loop();
    uv_idle_t *idles = NULL;

    wanted = bench_option("n");
    for (uint64_t round = 0; round <= bench_option("again"); round++) {
        fired = 0;
        bench_start();
        if (!idles) idles = new_idles(loop, wanted);
        for (uint64_t i = 0; i < wanted; i++) must(uv_idle_start(&idles[i], once));
        uv_run(loop, UV_RUN_DEFAULT);
        bench_stop();
        bench_check(fired == wanted, "not all callbacks ran");
    }
    bench_report(wanted, "");
}

static void timers(void)
{
    uint64_t span = bench_option("span_ms");
    bool whole = bench_option("whole");
    uv_loop_t *loop = new_loop();
    uv_timer_t *timers;

    wanted = bench_option("n");
    bench_start();
    uv_update_time(loop);
    timers = new_timers(loop, wanted);
    for (uint64_t i = 0; i < wanted; i++) must(uv_timer_start(&timers[i], count, in_ms(bench_delay(span, whole)), 0));
    uv_run(loop, UV_RUN_DEFAULT);
    bench_stop();
    bench_check(fired == wanted, "not all timers fired");
    bench_report(wanted, "");
}

static void timers_cancel(void)
{
    uint64_t batches = bench_batches(bench_option("n")), pending = bench_option("pending");
    uv_loop_t *loop = new_loop();
    uv_timer_t *timers = new_timers(loop, pending);

    for (uint64_t i = 0; i < pending; i++) must(uv_timer_start(&timers[i], count, in_ms(bench_timeout()), 0));
    bench_start();
    for (uint64_t batch = 0; batch < batches; batch++) {
        for (int i = 0; i < BATCH; i++) {
            uv_timer_t *timer = &timers[bench_below(pending)];

            must(uv_timer_stop(timer));
            must(uv_timer_start(timer, count, in_ms(bench_timeout()), 0));
        }
        uv_run(loop, UV_RUN_NOWAIT);
    }
    bench_stop();
    for (uint64_t i = 0; i < pending; i++)
        bench_check(uv_is_active((uv_handle_t *)&timers[i]), "a timer was not pending");
    bench_check(fired == 0, "a timer fired");
    bench_report(batches * BATCH, "");
}

/* uv_timer_again() restarts with the repeat interval, so a one-shot timer stops itself. */
static void timed_out(uv_timer_t *timer)
{
    fired++;
    must(uv_timer_stop(timer));
}

static void timers_move(void)
{
    uint64_t batches = bench_batches(bench_option("n")), connections = bench_option("connections");
    uint64_t timeout = bench_option("timeout_ms");
    uv_loop_t *loop = new_loop();
    uv_timer_t *timers = new_timers(loop, connections);

    uv_update_time(loop);
    for (uint64_t i = 0; i < connections; i++) must(uv_timer_start(&timers[i], timed_out, timeout, timeout));
    bench_start();
    for (uint64_t batch = 0; batch < batches; batch++) {
        for (int i = 0; i < BATCH; i++) must(uv_timer_again(&timers[bench_below(connections)]));
        uv_run(loop, UV_RUN_NOWAIT);
    }
    bench_check(fired == 0, "a timer fired too soon");
    uv_run(loop, UV_RUN_DEFAULT);
    bench_stop();
    bench_check(fired == connections, "not all timers fired");
    bench_report(batches * BATCH, "");
}

static void timers_memory(void)
{
    uint64_t pending = bench_option("pending");
    uv_loop_t *loop = new_loop();
    struct bench_memory before;
    uv_timer_t *timers;

    uv_run(loop, UV_RUN_NOWAIT);
    before = bench_memory();
    timers = new_timers(loop, pending);
    for (uint64_t i = 0; i < pending; i++) must(uv_timer_start(&timers[i], count, in_ms(bench_timeout()), 0));
    uv_run(loop, UV_RUN_NOWAIT);
    bench_report_memory(pending, before);
    bench_check(fired == 0, "a timer fired");
}

static void late(uv_timer_t *timer)
{
    bool more = lateness_fired();

    uv_update_time(timer->loop);
    if (more) must(uv_timer_start(timer, late, in_ms(lateness_next_delay()), 0));
}

static void lateness(void)
{
    uv_loop_t *loop = new_loop();
    uv_timer_t *timer = new_timers(loop, 1);

    lateness_begin();
    uv_update_time(loop);
    must(uv_timer_start(timer, late, in_ms(lateness_next_delay()), 0));
    uv_run(loop, UV_RUN_DEFAULT);
    lateness_report();
}

static void dense_late(uv_timer_t *timer)
{
    dense_fired((uintptr_t)timer->data);
}

static void dense(void)
{
    uv_loop_t *loop = new_loop();
    uv_timer_t *timers;

    dense_begin();
    uv_update_time(loop);
    timers = new_timers(loop, bench_lateness.wanted);
    for (uint64_t i = 0; i < bench_lateness.wanted; i++) {
        uint64_t when = dense_next();

        timers[i].data = (void *)when;
        must(uv_timer_start(&timers[i], dense_late, in_ms(when - bench_begin.wall), 0));
    }
    dense_started();
    uv_run(loop, UV_RUN_DEFAULT);
    lateness_report();
}

static void idle(void)
{
    uint64_t pending = bench_option("pending");
    uv_loop_t *loop = new_loop();
    uv_timer_t *timers = new_timers(loop, pending);

    for (uint64_t i = 0; i < pending; i++)
        must(uv_timer_start(&timers[i], count, in_ms(AN_HOUR + bench_below(NS_PER_S)), 0));
    idle_begin();
    uv_run(loop, UV_RUN_DEFAULT);
}

static void start(void)
{
    uint64_t times = bench_option("n"), open = bench_option("open");
    struct bench_memory before;

    bench_start();
    for (uint64_t i = 0; i < times; i++) {
        uv_loop_t *loop = new_loop();

        must(uv_loop_close(loop));
        free(loop);
    }
    bench_stop();
    before = bench_memory();
    for (uint64_t i = 0; i < open; i++) new_loop();
    bench_report_memory(times, before);
}

/* ---- posts from other threads ---- */

struct peer {
    uv_loop_t *loop;
    uv_async_t wake;
    struct queue queue;
    bool allocates, each;
};

static void posted(uv_async_t *wake)
{
    struct peer *peer = wake->data;

    queue_run(&peer->queue);
}

static struct peer *peer_new(void)
{
    struct peer *peer = bench_array(1, sizeof *peer);

    peer->loop = new_loop();
    must(uv_async_init(peer->loop, &peer->wake, posted));
    peer->wake.data = peer;
    queue_init(&peer->queue);
    peer->allocates = bench_option("allocate");
    peer->each = bench_option("each");
    return peer;
}

static void run_allocated(void *arg)
{
    struct call call = *(struct call *)arg;

    free(arg);
    call.callback(call.arg);
}

/* allocate=1: each post is an allocation, as for a post with data. each=1: a send for each post. */
static void peer_post(struct peer *peer, void (*callback)(void *arg), void *arg)
{
    if (peer->allocates) {
        struct call *call = bench_array(1, sizeof *call);

        *call = (struct call){callback, arg};
        callback = run_allocated;
        arg = call;
    }
    if (queue_push(&peer->queue, callback, arg) || peer->each) must(uv_async_send(&peer->wake));
}

static void peer_run(struct peer *peer)
{
    uv_run(peer->loop, UV_RUN_DEFAULT);
}

static void peer_stop(struct peer *peer)
{
    uv_stop(peer->loop);
}

#include "threads.h"

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {LOOP_CASES, {NULL, NULL}};

    return bench_main(argc, argv, uv_version_string(), cases);
}
