/*
 * Callbacks run when their delay has passed, in any order of scheduling.
 */
#include <ringloop.h>

#include <stdio.h>
#include <stdlib.h>

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "call_later: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void callback(loop_t *loop, void *arg)
{
    const int *number = arg;

    (void)loop;
    printf("callback %d invoked\n", *number);
}

static void stop(loop_t *loop, void *arg)
{
    (void)arg;
    expect(loop_stop(loop));
}

int main(void)
{
    int numbers[] = {1, 2, 3};
    loop_t *loop;

    expect(loop_new(NULL, &loop));
    printf("entering event loop\n");

    printf("registering callbacks\n");
    expect(loop_call_later(loop, LOOP_MSEC(200), callback, &numbers[0]));
    expect(loop_call_later(loop, LOOP_MSEC(100), callback, &numbers[1]));
    expect(loop_call_soon(loop, callback, &numbers[2]));

    expect(loop_call_later(loop, LOOP_MSEC(400), stop, NULL));
    expect(loop_run_forever(loop));
    printf("closing event loop\n");
    expect(loop_close(loop));
    return EXIT_SUCCESS;
}
