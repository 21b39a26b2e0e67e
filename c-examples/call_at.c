/*
 * Callbacks run at a time on the loop's clock, which is CLOCK_MONOTONIC in
 * nanoseconds. Setting the time of day does not change this clock.
 */
#define _POSIX_C_SOURCE 200809L

#include <ringloop.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "call_at: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void print_seconds(const char *label, uint64_t ns)
{
    printf("%s %" PRIu64 ".%09" PRIu64 "\n", label, ns / LOOP_SEC(1), ns % LOOP_SEC(1));
}

static void callback(loop_t *loop, void *arg)
{
    const int *number = arg;
    char label[32];

    snprintf(label, sizeof label, "callback %d invoked at", *number);
    print_seconds(label, loop_time(loop));
}

static void stop(loop_t *loop, void *arg)
{
    (void)arg;
    expect(loop_stop(loop));
}

int main(void)
{
    int numbers[] = {1, 2, 3};
    struct timespec wall;
    uint64_t now;
    loop_t *loop;

    expect(loop_new(NULL, &loop));
    clock_gettime(CLOCK_REALTIME, &wall);
    now = loop_time(loop);
    print_seconds("clock time:", LOOP_SEC(wall.tv_sec) + LOOP_NSEC(wall.tv_nsec));
    print_seconds("loop time:", now);

    expect(loop_call_at(loop, now + LOOP_MSEC(200), callback, &numbers[0]));
    expect(loop_call_at(loop, now + LOOP_MSEC(100), callback, &numbers[1]));
    expect(loop_call_soon(loop, callback, &numbers[2]));

    expect(loop_call_at(loop, now + LOOP_SEC(1), stop, NULL));
    expect(loop_run_forever(loop));
    expect(loop_close(loop));
    return EXIT_SUCCESS;
}
