/*
 * `refused EPERM`: io_uring is switched off, and loop_new() returns the error and names the switch. `refused`: it is on, and a
 * loop runs.
 */
#include "../c/check.h"

static void count(loop_t *loop, void *arg)
{
    (void)loop;
    ++*(int *)arg;
}

int main(int argc, char **argv)
{
    loop_t *loop = NULL;
    int result = loop_new(NULL, &loop), calls = 0;

    if (argc > 1) {
        CHECK_TEXT(argv[1], "EPERM");
        CHECK(result, ==, -EPERM);
        CHECK(loop == NULL, ==, true);
        CHECK(strstr(loop_last_error(), "kernel.io_uring_disabled") != NULL, ==, true);
        fprintf(stderr, "%s\n", loop_last_error());
    } else {
        REQUIRE(result, ==, 0);
        CHECK(loop_call_later(loop, LOOP_MSEC(1), count, &calls), >, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(calls, ==, 1);
        CHECK(loop_close(loop), ==, 0);
    }
    return check_failures > 0;
}
