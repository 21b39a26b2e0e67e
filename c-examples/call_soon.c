/*
 * Callbacks run in the order in which they were scheduled.
 *
 * A callback gets one pointer. Several arguments, such as the keyword arguments
 * of Python, are in a struct, which must live until the callback has run.
 */
#include <ringloop.h>

#include <stdio.h>
#include <stdlib.h>

struct arguments {
    int number;
    const char *word;
};

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "call_soon: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void callback(loop_t *loop, void *arg)
{
    const struct arguments *args = arg;

    (void)loop;
    printf("callback invoked with %d and %s\n", args->number, args->word);
}

static void stop(loop_t *loop, void *arg)
{
    (void)arg;
    expect(loop_stop(loop));
}

int main(void)
{
    struct arguments first = {1, "default"}, second = {2, "not default"};
    loop_t *loop;

    expect(loop_new(NULL, &loop));
    printf("entering event loop\n");

    printf("registering callbacks\n");
    expect(loop_call_soon(loop, callback, &first));
    expect(loop_call_soon(loop, callback, &second));

    expect(loop_call_later(loop, LOOP_MSEC(100), stop, NULL));
    expect(loop_run_forever(loop));
    printf("closing event loop\n");
    expect(loop_close(loop));
    return EXIT_SUCCESS;
}
