/*
 * A repeating timer, which keeps its phase when a callback is late, and which
 * can be moved and cancelled. The loop reports slow callbacks and has metrics.
 */
#include <ringloop.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct metronome {
    loop_handle_t handle;
    int beats;
};

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "metronome: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

/* Blocks the whole loop, as no callback should. */
static void hold_up(loop_t *loop, uint64_t duration)
{
    uint64_t end = loop_time(loop) + duration;

    while (loop_time(loop) < end)
        ;
}

static void beat(loop_t *loop, void *arg)
{
    struct metronome *metronome = arg;
    uint64_t next, skipped;

    switch (++metronome->beats) {
    case 3:
        printf("beat 3: holds the loop for 250 ms\n");
        hold_up(loop, LOOP_MSEC(250));
        break;
    case 4:
        /* This beat is late. The beats that it missed are skipped and counted, not replayed. */
        expect(loop_skipped(loop, metronome->handle, &skipped));
        printf("beat 4: late, skipped so far: %" PRIu64 "\n", skipped);
        break;
    case 5:
        /* Moves the next beat, and the phase of all later beats. */
        expect(loop_when(loop, metronome->handle, &next));
        expect(loop_reschedule(loop, metronome->handle, next + LOOP_MSEC(30)));
        printf("beat 5: moves the next one by 30 ms\n");
        break;
    case 7:
        /* No call is left then, and loop_run() returns. */
        expect(loop_cancel(loop, metronome->handle));
        printf("beat 7: the last one\n");
        break;
    default:
        printf("beat %d\n", metronome->beats);
        break;
    }
}

static void report_slow(loop_t *loop, uint64_t duration, uint32_t kind, void *address, void *arg)
{
    (void)loop;
    (void)address; /* of the callback; dladdr() or a debugger gives the name */
    (void)arg;
    printf("slow: a %s held the loop for %" PRIu64 " ms\n",
           kind == LOOP_KIND_REPEAT ? "repeating timer" : "callback", duration / LOOP_MSEC(1));
}

int main(void)
{
    struct metronome metronome = {0, 0};
    loop_metrics_t metrics;
    loop_t *loop;

    expect(loop_new(NULL, &loop));
    expect(loop_set_slow_callback(loop, LOOP_MSEC(200), report_slow, NULL));
    metronome.handle = loop_call_every(loop, LOOP_MSEC(100), beat, &metronome);
    expect(metronome.handle);
    expect(loop_run(loop));

    metrics.size = sizeof metrics;
    expect(loop_metrics(loop, &metrics));
    printf("callbacks run:    %" PRIu64 "\n", metrics.callbacks);
    printf("timers fired:     %" PRIu64 "\n", metrics.timers_fired);
    printf("timers cancelled: %" PRIu64 "\n", metrics.timers_cancelled);
    expect(loop_close(loop));
    return EXIT_SUCCESS;
}
