/*
 * A callback that schedules itself with loop_call_soon() a million times, and a
 * timer that becomes due meanwhile. Fails if the timer had to wait: once its time
 * has come, the iteration that runs then is the last one before its own.
 */
#include <ringloop.h>

#include <stdio.h>
#include <stdlib.h>

enum { CALLS = 1000000 };

static long calls, calls_before_timer = -1, calls_overdue;
static uint64_t when;

static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "busy: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void spin(loop_t *loop, void *arg)
{
    if (calls_before_timer < 0 && loop_time(loop) >= when)
        calls_overdue++;
    if (++calls < CALLS)
        expect(loop_call_soon(loop, spin, arg));
}

static void on_timer(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    calls_before_timer = calls;
}

int main(void)
{
    loop_t *loop;

    expect(loop_new(NULL, &loop));
    when = loop_time(loop) + LOOP_MSEC(3);
    expect(loop_call_at(loop, when, on_timer, NULL));
    expect(loop_call_soon(loop, spin, NULL));
    expect(loop_run(loop));
    expect(loop_close(loop));
    printf("%ld calls, the timer after %ld, overdue for %ld\n", calls, calls_before_timer, calls_overdue);
    /* Two: the call of the iteration in which the deadline passed, and the call before the timer in the ready queue. */
    return calls == CALLS && calls_before_timer > 0 && calls_before_timer < CALLS && calls_overdue <= 2
               ? EXIT_SUCCESS
               : EXIT_FAILURE;
}
