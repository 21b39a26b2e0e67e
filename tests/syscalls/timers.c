/*
 * Fifty iterations that sleep; in each one the callback schedules a hundred timers
 * and cancels fifty of them, besides the one that is next. Prints what the loop
 * counted, for comparison with what strace saw, and how many iterations found
 * their timer due already, because the machine had held them up.
 */
#include <ringloop.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 50, TIMERS = 100 };

static int rounds, awake;
static uint64_t asleep;

static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "timers: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void far_away(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    abort();
}

static void on_timer(loop_t *loop, void *arg)
{
    loop_metrics_t metrics;

    metrics.size = sizeof metrics;
    expect(loop_metrics(loop, &metrics));
    awake += metrics.asleep_ns == asleep;
    asleep = metrics.asleep_ns;
    if (++rounds == ROUNDS) {
        expect(loop_stop(loop));
        return;
    }
    for (uint64_t i = 0; i < TIMERS; i++) {
        loop_handle_t timer = loop_call_later(loop, LOOP_SEC(3600 + i), far_away, NULL);

        expect(timer);
        if (i % 2)
            expect(loop_cancel(loop, timer));
    }
    expect(loop_call_later(loop, LOOP_MSEC(1), on_timer, arg));
}

int main(void)
{
    static loop_handle_t timers[ROUNDS * TIMERS];
    loop_metrics_t metrics;
    loop_t *loop;
    size_t i;

    expect(loop_new(NULL, &loop));
    /* All the memory that the rounds will need, so that malloc() makes no system call in them. */
    for (i = 0; i < ROUNDS * TIMERS; i++)
        expect(timers[i] = loop_call_later(loop, LOOP_SEC(3600), far_away, NULL));
    for (i = 0; i < ROUNDS * TIMERS; i++)
        expect(loop_cancel(loop, timers[i]));
    expect(loop_call_later(loop, LOOP_MSEC(1), on_timer, NULL));
    expect(loop_run_forever(loop));
    metrics.size = sizeof metrics;
    expect(loop_metrics(loop, &metrics));
    printf("iterations %" PRIu64 "\nenters %" PRIu64 "\ncallbacks %" PRIu64 "\nawake %d\n", metrics.iterations,
           metrics.enters, metrics.callbacks, awake);
    expect(loop_close(loop));
    return EXIT_SUCCESS;
}
