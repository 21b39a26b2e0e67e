/* S22: where a loop cannot be closed, and its state after loop_shutdown(). release.c tests the releases at close. */
#include "check.h"

static void close_oneself(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("c");
    CHECK(loop_close(loop), ==, -EBUSY);
    CHECK(loop_close_within(loop, 0), ==, -EBUSY);
    CHECK(loop_close_within(loop, LOOP_NEVER), ==, -EBUSY);
    CHECK(loop_shutdown(loop), ==, -EBUSY);
    CHECK(loop_shutdown_within(loop, LOOP_SEC(1)), ==, -EBUSY);
}

static void close_while_walking(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)info;
    close_oneself(loop, arg);
}

static void close_when_slow(loop_t *loop, uint64_t duration, uint32_t kind, void *address, void *arg)
{
    (void)duration;
    (void)kind;
    (void)address;
    CHECK(loop_set_slow_callback(loop, 0, NULL, NULL), ==, 0);
    close_oneself(loop, arg);
}

static void s22_closing_from_inside_is_busy_and_nothing_is_lost(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, close_oneself, NULL), >, 0);
    CHECK(loop_walk(loop, close_while_walking, NULL), ==, 0);
    CHECK(loop_set_slow_callback(loop, 1, close_when_slow, NULL), ==, 0);
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, close_oneself, NULL), >, 0);
    CHECK(loop_add_hook(loop, LOOP_AFTER_WAIT, close_oneself, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 2);
    /* The callbacks: the walk, both hooks, a report that the first hook is slow, and the call. */
    CHECK_TEXT(trace, "ccccca");
    close_loop(loop);
}

static void s22_close_leaves_no_descriptor_behind(void)
{
    int before = dup(STDERR_FILENO), after;

    close(before);
    for (int i = 0; i < 20; i++) {
        loop_t *loop = new_loop();

        CHECK(loop_fd(loop), >=, 0);
        CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
        CHECK(loop_run_once(loop, 0), ==, 0);
        close_loop(loop);
    }
    after = dup(STDERR_FILENO);
    close(after);
    CHECK(after, ==, before);
}

static void s22_close_within(void)
{
    static const uint64_t limits[] = {0, 1, LOOP_SEC(1), LOOP_NEVER};

    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        loop_t *loop = new_loop();
        int result;

        CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
        CHECK(loop_run_once(loop, 0), ==, 0);
        /* The kernel ends a timeout at once, but a limit of almost zero may pass before. */
        result = loop_close_within(loop, limits[i]);
        if (limits[i] >= LOOP_SEC(1))
            CHECK(result, ==, 0);
        if (result != 0) {
            CHECK(result, ==, -ETIMEDOUT);
            close_loop(loop);
        }
    }
}

static void s22_close_of_nothing_is_nothing(void)
{
    CHECK(loop_close(NULL), ==, 0);
    CHECK(loop_close_within(NULL, 0), ==, 0);
}

static void s22_shutdown_cancels_everything(void)
{
    loop_t *loop = new_loop();
    loop_handle_t call, timer;

    trace_clear();
    call = loop_call_soon(loop, record, (void *)"a");
    timer = loop_call_later(loop, LOOP_SEC(1000), record, (void *)"b");
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    call = loop_call_soon(loop, record, (void *)"x");
    CHECK(loop_shutdown(loop), ==, 0);
    CHECK_TEXT(trace, "a");

    /* wrong_calls.c checks the answers of all functions in this state. */
    CHECK(loop_cancel(loop, call), ==, -ENOENT);
    CHECK(loop_cancel(loop, timer), ==, -ENOENT);
    CHECK_TRUE(!loop_is_pending(loop, timer));
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_next_deadline(loop), ==, LOOP_NEVER);
    CHECK(loop_time(loop), >=, 1);
    CHECK(loop_walk(loop, close_while_walking, NULL), ==, 0);
    CHECK(metrics_of(loop).callbacks, ==, 1);
    CHECK(loop_shutdown(loop), ==, 0);
    CHECK_TEXT(trace, "a");
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s22_closing_from_inside_is_busy_and_nothing_is_lost),
    TEST(s22_close_leaves_no_descriptor_behind),
    TEST(s22_close_within),
    TEST(s22_close_of_nothing_is_nothing),
    TEST(s22_shutdown_cancels_everything),
};

CHECK_MAIN(tests)
