/* S17 to S20: one pass through each way of running, stopping and breaking off, and the answers inside a run. */
#include "check.h"

static void stop_and_schedule(loop_t *loop, void *arg)
{
    trace_add("S");
    CHECK(loop_stop(loop), ==, 0);
    CHECK(loop_call_soon(loop, record, arg), >, 0);
}

static void break_and_schedule(loop_t *loop, void *arg)
{
    trace_add("B");
    CHECK(loop_break(loop), ==, 0);
    CHECK(loop_call_soon(loop, record, arg), >, 0);
}

static void s17_a_run_says_how_it_ended(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_break(loop), ==, -EINVAL);
    CHECK(loop_call_soon(loop, stop_and_schedule, (void *)"n"), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_run_forever(loop), ==, LOOP_STOPPED);
    CHECK_TEXT(trace, "Sa");
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "San");

    trace_clear();
    CHECK(loop_call_soon(loop, break_and_schedule, (void *)"n"), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"b"), >, 0);
    CHECK(loop_run_forever(loop), ==, LOOP_BROKEN);
    CHECK_TEXT(trace, "B");
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "Bbn");
    CHECK(loop_break(loop), ==, -EINVAL);
    close_loop(loop);
}

/* ---- S19 ---- */

static void s19_what_is_unreferenced_keeps_nothing_alive(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t every;

    trace_clear();
    every = loop_call_every(loop, 10, record, (void *)"e");
    CHECK_TRUE(loop_has_ref(loop, every));
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_unref(loop, every), ==, 0);
    CHECK_TRUE(!loop_has_ref(loop, every));
    CHECK_TRUE(loop_is_pending(loop, every));
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "");

    /* The loop runs while something else keeps it alive. */
    CHECK(loop_call_at(loop, 25, record, (void *)"t"), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "eet");

    CHECK(loop_ref(loop, every), ==, 0);
    CHECK_TRUE(loop_has_ref(loop, every));
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_cancel(loop, every), ==, 0);
    CHECK_TRUE(!loop_is_alive(loop));
    close_loop(loop);
}

static void s19_hooks_keep_nothing_alive_and_have_no_reference(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t hook = loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, NULL);

    CHECK(hook, >, 0);
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_ref(loop, hook), ==, -EINVAL);
    CHECK(loop_unref(loop, hook), ==, -EINVAL);
    CHECK_TRUE(!loop_has_ref(loop, hook));
    CHECK_TRUE(loop_is_pending(loop, hook));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(metrics_of(loop).iterations, ==, 0);
    close_loop(loop);
}

static void s19_run_once_sleeps_all_of_its_limit(void)
{
    loop_t *loop = new_loop();
    uint64_t begin = monotonic();

    CHECK(loop_run_once(loop, LOOP_MSEC(20)), ==, 0);
    CHECK(monotonic() - begin, >=, LOOP_MSEC(20));
    CHECK(monotonic() - begin, <, LOOP_SEC(500));
    close_loop(loop);
}

/* ---- S20 ---- */

static void run_again(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("r");
    CHECK_TRUE(loop_is_running(loop));
    CHECK_POINTER(loop_running(), loop);
    CHECK(loop_run(loop), ==, -EBUSY);
    CHECK(loop_run_forever(loop), ==, -EBUSY);
    CHECK(loop_run_once(loop, 0), ==, -EBUSY);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, -EBUSY);
}

static void s20_a_running_loop_cannot_be_run(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, run_again, NULL), >, 0);
    CHECK(loop_add_hook(loop, LOOP_AFTER_WAIT, run_again, NULL), >, 0);
    CHECK(loop_call_soon(loop, run_again, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 2);
    CHECK_TEXT(trace, "rrra");
    CHECK_TRUE(!loop_is_running(loop));
    close_loop(loop);
}

static loop_t *outer_loop;

static void break_outer(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    CHECK(loop_break(outer_loop), ==, 0);
}

static void run_inner(loop_t *loop, void *arg)
{
    loop_t *inner = arg;

    trace_add("<");
    outer_loop = loop;
    CHECK_POINTER(loop_running(), loop);
    CHECK(loop_call_later(inner, 5, record, (void *)"i"), >, 0);
    CHECK(loop_call_later(inner, 6, run_again, NULL), >, 0);
    CHECK(loop_run(inner), ==, LOOP_DONE);
    CHECK(loop_call_soon(inner, break_outer, NULL), >, 0);
    CHECK(loop_call_soon(inner, record, (void *)"j"), >, 0);
    CHECK(loop_run(inner), ==, LOOP_DONE);
    CHECK_POINTER(loop_running(), loop);
    CHECK_TRUE(loop_is_running(loop));
    CHECK_TRUE(!loop_is_running(inner));
    trace_add(">");
}

static void s20_another_loop_may_run_inside_a_callback(void)
{
    loop_t *loop = new_virtual_loop(0), *inner = new_virtual_loop(0);

    trace_clear();
    CHECK_POINTER(loop_running(), NULL);
    CHECK(loop_call_soon(loop, run_inner, inner), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"o"), >, 0);
    CHECK(loop_run(loop), ==, LOOP_BROKEN);
    CHECK_TEXT(trace, "<irj>");
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "<irj>o");
    CHECK_POINTER(loop_running(), NULL);
    close_loop(inner);
    close_loop(loop);
}

/* ---- hooks ---- */

static void note_hook(loop_t *loop, void *arg)
{
    loop_handle_t *handle = arg;

    CHECK_TRUE(loop_is_running(loop));
    CHECK_POINTER(loop_running(), loop);
    *handle = loop_current(loop);
}

static void hooks_run_where_they_are_told_to(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t seen = 0, first;

    trace_clear();
    CHECK(loop_add_hook(loop, LOOP_AFTER_WAIT, record, (void *)"B"), >, 0);
    first = loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"A");
    CHECK(loop_call_soon(loop, record, (void *)"x"), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TEXT(trace, "ABx");
    CHECK(loop_cancel(loop, first), ==, 0);
    first = loop_add_hook(loop, LOOP_BEFORE_WAIT, note_hook, &seen);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK_TEXT(trace, "ABxB");
    CHECK(seen, ==, first);
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s17_a_run_says_how_it_ended),
    TEST(s19_what_is_unreferenced_keeps_nothing_alive),
    TEST(s19_hooks_keep_nothing_alive_and_have_no_reference),
    TEST(s19_run_once_sleeps_all_of_its_limit),
    TEST(s20_a_running_loop_cannot_be_run),
    TEST(s20_another_loop_may_run_inside_a_callback),
    TEST(hooks_run_where_they_are_told_to),
};

CHECK_MAIN(tests)
