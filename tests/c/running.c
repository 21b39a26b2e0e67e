/* S17 to S20: running, stopping, breaking off, nesting. */
#include "check.h"

static void stop_and_schedule(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("S");
    CHECK(loop_stop(loop), ==, 0);
    CHECK(loop_call_soon(loop, record, (void *)"n"), >, 0);
}

static void s17_stop_lets_the_batch_finish(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, stop_and_schedule, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"b"), >, 0);
    CHECK(loop_run_forever(loop), ==, LOOP_STOPPED);
    CHECK_TEXT(trace, "Sab");
    /* What the batch scheduled is for the next run. */
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "Sabn");
    close_loop(loop);
}

static void s17_stop_before_a_run_is_one_iteration_without_sleep(void)
{
    loop_t *loop = new_loop();
    uint64_t begin = monotonic();
    loop_metrics_t before, after;

    trace_clear();
    CHECK(loop_call_later(loop, LOOP_SEC(1000), record, (void *)"x"), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    for (int i = 0; i < 2; i++) {
        before = metrics_of(loop);
        CHECK(loop_stop(loop), ==, 0);
        CHECK(i == 0 ? loop_run_forever(loop) : loop_run(loop), ==, LOOP_STOPPED);
        after = metrics_of(loop);
        CHECK(after.iterations - before.iterations, ==, 1);
        CHECK(after.asleep_ns, ==, 0);
    }
    CHECK_TEXT(trace, "a");
    CHECK(monotonic() - begin, <, LOOP_SEC(500));
    close_loop(loop);
}

static void s17_the_flag_clears_when_a_run_returns(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_stop(loop), ==, 0);
    CHECK(loop_stop(loop), ==, 0);
    CHECK(loop_call_later(loop, 5, record, (void *)"t"), >, 0);
    CHECK(loop_run(loop), ==, LOOP_STOPPED);
    CHECK_TEXT(trace, "");
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "t");
    close_loop(loop);
}

static void s17_run_once_consumes_the_stop(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_later(loop, 5, record, (void *)"t"), >, 0);
    CHECK(loop_stop(loop), ==, 0);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 0);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK_TEXT(trace, "t");

    CHECK(loop_call_soon(loop, do_stop, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK(loop_call_later(loop, 5, record, (void *)"u"), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "tu");
    close_loop(loop);
}

static void s17_run_once_counts_callbacks_and_not_hooks(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"h"), >, 0);
    CHECK(loop_add_hook(loop, LOOP_AFTER_WAIT, record, (void *)"h"), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    for (int i = 0; i < 5; i++)
        CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 5);
    CHECK_TEXT(trace, "hhhh");
    close_loop(loop);
}

static void s17_run_clears_a_stop_though_nothing_is_left(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_stop(loop), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_call_later(loop, 5, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
}

/* ---- S18 ---- */

static void break_and_schedule(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("B");
    CHECK(loop_break(loop), ==, 0);
    CHECK(loop_call_soon(loop, record, (void *)"n"), >, 0);
}

static void s18_break_leaves_the_rest_of_the_batch_queued_in_order(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_call_soon(loop, break_and_schedule, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"b"), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"c"), >, 0);
    CHECK(loop_run_forever(loop), ==, LOOP_BROKEN);
    CHECK_TEXT(trace, "aB");
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "aBbcn");
    close_loop(loop);
}

static void s18_break_in_run_once(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, break_and_schedule, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TEXT(trace, "B");
    CHECK(loop_run_once(loop, 0), ==, 2);
    CHECK_TEXT(trace, "Ban");
    close_loop(loop);
}

static void stop_and_break(loop_t *loop, void *arg)
{
    trace_add("B");
    if (arg)
        CHECK(loop_stop(loop), ==, 0);
    CHECK(loop_break(loop), ==, 0);
    CHECK(loop_break(loop), ==, 0);
    CHECK(loop_stop(loop), ==, 0);
}

static void s18_break_wins_over_stop_and_clears_both(void)
{
    loop_t *loop = new_virtual_loop(0);

    for (int i = 0; i < 2; i++) {
        trace_clear();
        CHECK(loop_call_soon(loop, stop_and_break, i ? loop : NULL), >, 0);
        CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
        CHECK(loop_run_forever(loop), ==, LOOP_BROKEN);
        CHECK_TEXT(trace, "B");
        CHECK(loop_call_later(loop, 5, record, (void *)"t"), >, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK_TEXT(trace, "Bat");
    }
    close_loop(loop);
}

static void s18_outside_a_running_loop_break_is_invalid(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_break(loop), ==, -EINVAL);
    CHECK(loop_call_later(loop, 5, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_break(loop), ==, -EINVAL);
    close_loop(loop);
}

static loop_handle_t left_in_batch[2];

/* What break leaves queued can still be cancelled, and a timer there still has its deadline. */
static void s18_the_rest_of_the_batch_is_still_pending(void)
{
    loop_t *loop = new_virtual_loop(100);
    uint64_t when = 0;

    trace_clear();
    CHECK(loop_call_soon(loop, break_and_schedule, NULL), >, 0);
    left_in_batch[0] = loop_call_soon(loop, record, (void *)"x");
    left_in_batch[1] = loop_call_at(loop, 50, record, (void *)"t");
    CHECK(loop_run_forever(loop), ==, LOOP_BROKEN);
    CHECK(loop_cancel(loop, left_in_batch[0]), ==, 0);
    CHECK_TRUE(loop_is_pending(loop, left_in_batch[1]));
    CHECK(loop_when(loop, left_in_batch[1], &when), ==, 0);
    CHECK(when, ==, 50);
    CHECK(loop_reschedule(loop, left_in_batch[1], 200), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "Bnt");
    CHECK(loop_time(loop), ==, 200);
    close_loop(loop);
}

static void break_in_hook(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_cancel(loop, loop_current(loop)), ==, 0);
    CHECK(loop_break(loop), ==, 0);
}

static void s18_break_in_a_hook(void)
{
    static const uint32_t whens[] = {LOOP_BEFORE_WAIT, LOOP_AFTER_WAIT};
    loop_t *loop = new_virtual_loop(0);

    for (int i = 0; i < 2; i++) {
        trace_clear();
        CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
        CHECK(loop_add_hook(loop, whens[i], break_in_hook, NULL), >, 0);
        CHECK(loop_run_forever(loop), ==, LOOP_BROKEN);
        CHECK_TEXT(trace, "");
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK_TEXT(trace, "a");
    }
    close_loop(loop);
}

/* ---- S19 ---- */

static void s19_run_with_nothing_left_runs_no_iteration(void)
{
    loop_t *loop = new_loop();

    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(metrics_of(loop).iterations, ==, 0);
    CHECK(metrics_of(loop).enters, ==, 0);
    close_loop(loop);
}

static void s19_what_is_unreferenced_keeps_nothing_alive(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t every, timer;

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

    /* While something else keeps the loop, it runs. */
    timer = loop_call_at(loop, 25, record, (void *)"t");
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "eet");

    timer = loop_call_at(loop, 1000, record, (void *)"x");
    CHECK(loop_unref(loop, timer), ==, 0);
    CHECK(loop_unref(loop, timer), ==, 0);
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_ref(loop, timer), ==, 0);
    CHECK(loop_ref(loop, timer), ==, 0);
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_unref(loop, timer), ==, 0);
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_cancel(loop, timer), ==, 0);
    CHECK(loop_cancel(loop, every), ==, 0);
    CHECK_TRUE(!loop_is_alive(loop));
    timer = loop_call_at(loop, 1000, do_nothing, NULL);
    CHECK_TRUE(loop_is_alive(loop));
    close_loop(loop);
}

static void unref_oneself(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("u");
    CHECK(loop_unref(loop, loop_current(loop)), ==, 0);
}

static void s19_a_repeating_timer_that_unreferences_itself(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_every(loop, 10, unref_oneself, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "u");
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
    begin = monotonic();
    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_MSEC(20)), ==, 0);
    CHECK(monotonic() - begin, >=, LOOP_MSEC(20));
    CHECK(monotonic() - begin, <, LOOP_SEC(500));
    close_loop(loop);
}

static void s19_run_once_with_a_limit_past_the_timer(void)
{
    loop_t *loop = new_loop();
    uint64_t when = loop_time(loop) + LOOP_MSEC(5);

    CHECK(loop_call_at(loop, when, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_SEC(1000)), ==, 1);
    CHECK(loop_time(loop), >=, when);
    close_loop(loop);
}

static void s19_run_once_in_virtual_time_jumps_no_further_than_its_limit(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_call_at(loop, 100, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, 30), ==, 0);
    CHECK(loop_time(loop), ==, 30);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_time(loop), ==, 30);
    CHECK(loop_run_once(loop, 1000), ==, 1);
    CHECK(loop_time(loop), ==, 100);
    close_loop(loop);
}

static int rounds;

static void again(loop_t *loop, void *arg)
{
    if (++rounds < 100)
        CHECK(loop_call_soon(loop, again, arg), >, 0);
}

static void s19_run_goes_on_while_callbacks_schedule(void)
{
    loop_t *loop = new_virtual_loop(0);

    rounds = 0;
    CHECK(loop_call_soon(loop, again, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(rounds, ==, 100);
    CHECK(metrics_of(loop).iterations, ==, 100);
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

static void run_the_outer(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK_POINTER(loop_running(), loop);
    CHECK_TRUE(loop_is_running(outer_loop));
    CHECK(loop_run(outer_loop), ==, -EBUSY);
    CHECK(loop_close(outer_loop), ==, -EBUSY);
    trace_add("b");
}

static void make_and_run_inner(loop_t *loop, void *arg)
{
    loop_t *inner = new_loop();

    (void)arg;
    outer_loop = loop;
    CHECK(loop_call_soon(inner, run_the_outer, NULL), >, 0);
    CHECK(loop_run(inner), ==, LOOP_DONE);
    close_loop(inner);
}

static void s20_the_outer_loop_is_busy_while_the_inner_one_runs(void)
{
    loop_t *loop = new_loop();

    trace_clear();
    CHECK(loop_call_soon(loop, make_and_run_inner, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "b");
    close_loop(loop);
}

/* ---- hooks ---- */

static void hooks_run_once_an_iteration_in_order(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t first;

    trace_clear();
    CHECK(loop_add_hook(loop, LOOP_AFTER_WAIT, record, (void *)"C"), >, 0);
    first = loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"A");
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"B"), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"x"), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TEXT(trace, "ABCx");
    CHECK(loop_cancel(loop, first), ==, 0);
    CHECK(loop_call_later(loop, 5, record, (void *)"y"), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "ABCxBCy");
    close_loop(loop);
}

static void schedule_once(loop_t *loop, void *arg)
{
    CHECK(loop_cancel(loop, loop_current(loop)), ==, 0);
    CHECK(loop_call_soon(loop, record, arg), >, 0);
}

static void what_a_hook_schedules_keeps_the_loop_from_sleeping(void)
{
    loop_t *loop = new_loop();

    trace_clear();
    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, schedule_once, (void *)"b"), >, 0);
    while (trace[0] == '\0')
        CHECK(loop_run_once(loop, LOOP_SEC(100)), <=, 1);
    CHECK_TEXT(trace, "b");
    CHECK(metrics_of(loop).asleep_ns, ==, 0);
    close_loop(loop);
}

static loop_handle_t doomed_hooks[3];

static void cancel_hooks(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("K");
    for (int i = 0; i < 3; i++)
        CHECK(loop_cancel(loop, doomed_hooks[i]), ==, 0);
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"N"), >, 0);
}

static void hooks_may_cancel_and_add_hooks(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    doomed_hooks[0] = loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"p");
    doomed_hooks[1] = loop_add_hook(loop, LOOP_BEFORE_WAIT, cancel_hooks, NULL);
    doomed_hooks[2] = loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"x");
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(trace[0], ==, 'p');
    CHECK(trace[1], ==, 'K');
    CHECK_TRUE(strchr(trace, 'x') == NULL);
    trace_clear();
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK_TEXT(trace, "N");
    close_loop(loop);
}

static void note_hook(loop_t *loop, void *arg)
{
    loop_handle_t *handle = arg;

    CHECK_TRUE(loop_is_running(loop));
    CHECK_POINTER(loop_running(), loop);
    *handle = loop_current(loop);
}

static void current_in_a_hook_is_the_hook(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t seen = 0, hook = loop_add_hook(loop, LOOP_AFTER_WAIT, note_hook, &seen);

    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(seen, ==, hook);
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s17_stop_lets_the_batch_finish),
    TEST(s17_stop_before_a_run_is_one_iteration_without_sleep),
    TEST(s17_the_flag_clears_when_a_run_returns),
    TEST(s17_run_once_consumes_the_stop),
    TEST(s17_run_once_counts_callbacks_and_not_hooks),
    TEST(s17_run_clears_a_stop_though_nothing_is_left),
    TEST(s18_break_leaves_the_rest_of_the_batch_queued_in_order),
    TEST(s18_break_in_run_once),
    TEST(s18_break_wins_over_stop_and_clears_both),
    TEST(s18_outside_a_running_loop_break_is_invalid),
    TEST(s18_the_rest_of_the_batch_is_still_pending),
    TEST(s18_break_in_a_hook),
    TEST(s19_run_with_nothing_left_runs_no_iteration),
    TEST(s19_what_is_unreferenced_keeps_nothing_alive),
    TEST(s19_a_repeating_timer_that_unreferences_itself),
    TEST(s19_hooks_keep_nothing_alive_and_have_no_reference),
    TEST(s19_run_once_sleeps_all_of_its_limit),
    TEST(s19_run_once_with_a_limit_past_the_timer),
    TEST(s19_run_once_in_virtual_time_jumps_no_further_than_its_limit),
    TEST(s19_run_goes_on_while_callbacks_schedule),
    TEST(s20_a_running_loop_cannot_be_run),
    TEST(s20_another_loop_may_run_inside_a_callback),
    TEST(s20_the_outer_loop_is_busy_while_the_inner_one_runs),
    TEST(hooks_run_once_an_iteration_in_order),
    TEST(what_a_hook_schedules_keeps_the_loop_from_sleeping),
    TEST(hooks_may_cancel_and_add_hooks),
    TEST(current_in_a_hook_is_the_hook),
};

CHECK_MAIN(tests)
