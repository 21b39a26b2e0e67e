/* S10, S11, S13, S15, S16: handles, cancelling, rescheduling, repeating. */
#include "check.h"

/* Every function that takes a handle says that it is stale, and writes nothing. */
static void check_stale(loop_t *loop, loop_handle_t handle)
{
    uint64_t untouched = 4711;

    CHECK(loop_cancel(loop, handle), ==, -ENOENT);
    CHECK(loop_reschedule(loop, handle, 1), ==, -ENOENT);
    CHECK(loop_when(loop, handle, &untouched), ==, -ENOENT);
    CHECK(loop_skipped(loop, handle, &untouched), ==, -ENOENT);
    CHECK(untouched, ==, 4711);
    CHECK(loop_ref(loop, handle), ==, -ENOENT);
    CHECK(loop_unref(loop, handle), ==, -ENOENT);
    CHECK(loop_on_release(loop, handle, NULL), ==, -ENOENT);
    CHECK_TRUE(!loop_is_pending(loop, handle));
    CHECK_TRUE(!loop_has_ref(loop, handle));
}

static void s10_a_handle_that_has_run_is_stale(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t call = loop_call_soon(loop, do_nothing, NULL);
    loop_handle_t timer = loop_call_later(loop, 5, do_nothing, NULL);

    CHECK(call, >, 0);
    CHECK(timer, >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    check_stale(loop, call);
    check_stale(loop, timer);
    close_loop(loop);
}

static void s10_a_cancelled_handle_is_stale(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t handles[4];

    handles[0] = loop_call_soon(loop, do_nothing, NULL);
    handles[1] = loop_call_later(loop, 5, do_nothing, NULL);
    handles[2] = loop_call_every(loop, 5, do_nothing, NULL);
    handles[3] = loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, NULL);
    for (int i = 0; i < 4; i++) {
        CHECK(handles[i], >, 0);
        CHECK_TRUE(loop_is_pending(loop, handles[i]));
        CHECK(loop_cancel(loop, handles[i]), ==, 0);
        check_stale(loop, handles[i]);
    }
    close_loop(loop);
}

/* The slot of a cancelled timer is free for the next one: the old number must not reach it. */
static void s10_a_stale_handle_does_not_touch_its_successor(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    for (int i = 0; i < 1000; i++) {
        loop_handle_t old = loop_call_later(loop, 5, do_nothing, NULL), successor;

        CHECK(loop_cancel(loop, old), ==, 0);
        successor = loop_call_at(loop, 7, record, (void *)"s");
        CHECK(successor, !=, old);
        check_stale(loop, old);
        CHECK_TRUE(loop_is_pending(loop, successor));
        CHECK_TRUE(loop_has_ref(loop, successor));
        CHECK(loop_next_deadline(loop), ==, 7);
        CHECK(loop_cancel(loop, successor), ==, 0);
    }
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "");
    close_loop(loop);
}

enum { HANDLES = 300000 };

static int compare_handles(const void *left, const void *right)
{
    loop_handle_t a = *(const loop_handle_t *)left, b = *(const loop_handle_t *)right;

    return (a > b) - (a < b);
}

static void s10_no_handle_is_given_out_twice(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t *handles = malloc(HANDLES * sizeof *handles);
    size_t twice = 0, positive = 0;

    REQUIRE(handles != NULL, ==, 1);
    for (size_t i = 0; i < HANDLES; i++) {
        handles[i] = i % 2 ? loop_call_soon(loop, do_nothing, NULL) : loop_call_later(loop, 5, do_nothing, NULL);
        positive += handles[i] > 0;
        REQUIRE(loop_cancel(loop, handles[i]), ==, 0);
    }
    CHECK(positive, ==, HANDLES);
    qsort(handles, HANDLES, sizeof *handles, compare_handles);
    for (size_t i = 1; i < HANDLES; i++)
        twice += handles[i] == handles[i - 1];
    CHECK(twice, ==, 0);
    free(handles);
    close_loop(loop);
}

static void s10_a_handle_of_another_loop_does_no_harm(void)
{
    loop_t *loop = new_virtual_loop(0), *other = new_virtual_loop(0);
    loop_handle_t foreign[8];
    uint64_t when = 0;

    for (int i = 0; i < 8; i++)
        foreign[i] = loop_call_at(other, 100, do_nothing, NULL);
    for (int i = 0; i < 8; i++)
        check_stale(loop, foreign[i]);
    for (int i = 0; i < 8; i++) {
        CHECK_TRUE(loop_is_pending(other, foreign[i]));
        CHECK(loop_when(other, foreign[i], &when), ==, 0);
        CHECK(when, ==, 100);
    }
    close_loop(other);
    for (int i = 0; i < 8; i++)
        check_stale(loop, foreign[i]);
    close_loop(loop);
}

static void s10_made_up_handles_do_no_harm(void)
{
    static const loop_handle_t made_up[] = {0, -1, -ENOENT, INT64_MIN, INT64_MAX, 1, 2, 0x7fffffff, INT64_C(1) << 32,
                                            INT64_C(0x7fffffff00000000), INT64_C(0x00000001ffffffff)};
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t own[3];

    for (int i = 0; i < 3; i++)
        own[i] = loop_call_at(loop, 100, do_nothing, NULL);
    for (size_t i = 0; i < sizeof made_up / sizeof made_up[0]; i++) {
        if (made_up[i] == own[0] || made_up[i] == own[1] || made_up[i] == own[2])
            continue;
        CHECK(loop_cancel(loop, made_up[i]), <, 0);
        CHECK(loop_reschedule(loop, made_up[i], 5), <, 0);
        CHECK(loop_ref(loop, made_up[i]), <, 0);
        CHECK(loop_unref(loop, made_up[i]), <, 0);
        CHECK(loop_on_release(loop, made_up[i], NULL), <, 0);
        CHECK_TRUE(!loop_is_pending(loop, made_up[i]));
        CHECK_TRUE(!loop_has_ref(loop, made_up[i]));
    }
    for (int i = 0; i < 3; i++)
        CHECK_TRUE(loop_is_pending(loop, own[i]));
    close_loop(loop);
}

/* ---- S11 ---- */

static void s11_a_cancelled_call_does_not_run(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t call, timer;

    trace_clear();
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    call = loop_call_soon(loop, record, (void *)"x");
    CHECK(loop_call_soon(loop, record, (void *)"b"), >, 0);
    timer = loop_call_at(loop, 10, record, (void *)"y");
    CHECK(loop_call_at(loop, 10, record, (void *)"c"), >, 0);
    CHECK(loop_cancel(loop, call), ==, 0);
    CHECK(loop_cancel(loop, timer), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "abc");
    close_loop(loop);
}

static loop_handle_t victims[3];

static void cancel_victims(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("C");
    for (int i = 0; i < 3; i++)
        if (victims[i]) {
            CHECK_TRUE(loop_is_pending(loop, victims[i]));
            CHECK(loop_cancel(loop, victims[i]), ==, 0);
            CHECK_TRUE(!loop_is_pending(loop, victims[i]));
            CHECK(loop_cancel(loop, victims[i]), ==, -ENOENT);
        }
}

static void s11_cancelling_what_stands_in_the_same_batch(void)
{
    loop_t *loop = new_virtual_loop(1000);

    trace_clear();
    CHECK(loop_call_soon(loop, cancel_victims, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    victims[0] = loop_call_soon(loop, record, (void *)"x");
    victims[1] = loop_call_at(loop, 500, record, (void *)"y");
    victims[2] = loop_call_every(loop, 10, record, (void *)"z");
    CHECK(loop_reschedule(loop, victims[2], 600), ==, 0);
    CHECK(loop_call_at(loop, 700, record, (void *)"b"), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 3);
    CHECK_TEXT(trace, "Cab");
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "Cab");
    close_loop(loop);
}

static void s11_cancelling_two_timers_with_one_deadline(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_at(loop, 10, cancel_victims, NULL), >, 0);
    victims[0] = loop_call_at(loop, 10, record, (void *)"x");
    victims[1] = loop_call_at(loop, 10, record, (void *)"y");
    victims[2] = 0;
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "C");
    close_loop(loop);
}

static void cancel_current(loop_t *loop, void *arg)
{
    const int *expected = arg;
    loop_handle_t self = loop_current(loop);

    trace_add("S");
    CHECK(self, >, 0);
    CHECK(loop_cancel(loop, self), ==, *expected);
    CHECK(loop_cancel(loop, self), ==, -ENOENT);
}

static void s11_cancelling_oneself_is_harmless(void)
{
    static int stale = -ENOENT, gone = 0;
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, cancel_current, &stale), >, 0);
    CHECK(loop_call_later(loop, 1, cancel_current, &stale), >, 0);
    CHECK(loop_call_every(loop, 2, cancel_current, &gone), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "SSS");
    close_loop(loop);
}

/* A cancelled slot that serves a new call at once must not bring the old place in the batch back to life. */
static void replace_victim(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("R");
    CHECK(loop_cancel(loop, victims[0]), ==, 0);
    CHECK(loop_call_soon(loop, record, (void *)"n"), >, 0);
}

static void s11_a_reused_slot_does_not_run_in_its_predecessors_place(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, replace_victim, NULL), >, 0);
    victims[0] = loop_call_soon(loop, record, (void *)"x");
    CHECK(loop_call_soon(loop, record, (void *)"b"), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 2);
    CHECK_TEXT(trace, "Rb");
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TEXT(trace, "Rbn");
    close_loop(loop);
}

static void s11_cancelling_costs_no_system_call(void)
{
    loop_t *loop = new_loop();
    loop_metrics_t before, after;

    before = metrics_of(loop);
    for (int i = 0; i < 10000; i++)
        CHECK(loop_cancel(loop, loop_call_later(loop, LOOP_SEC(10 + i), do_nothing, NULL)), ==, 0);
    after = metrics_of(loop);
    CHECK(after.enters, ==, before.enters);
    CHECK(after.submitted, ==, before.submitted);
    CHECK(after.timers_cancelled - before.timers_cancelled, ==, 10000);
    close_loop(loop);
}

static loop_handle_t crowd[100000];

static void s11_cancelling_in_a_crowd_in_any_order(void)
{
    size_t count = sizeof crowd / sizeof crowd[0];
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    for (int order = 0; order < 3; order++) {
        for (size_t i = 0; i < count; i++)
            crowd[i] = loop_call_at(loop, 10 + i * 977 % 5000, do_nothing, NULL);
        CHECK(loop_call_at(loop, 5011, record, (void *)"e"), >, 0);
        for (size_t i = 0; i < count; i++) {
            size_t which = order == 0 ? i : order == 1 ? count - 1 - i : i * 7919 % count;

            REQUIRE(loop_cancel(loop, crowd[which]), ==, 0);
        }
        CHECK(loop_next_deadline(loop), ==, 5011);
    }
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "eee");
    close_loop(loop);
}

/* For calls and timers cancelling is never a request: nothing final is still to come. */
static void s13_cancelling_a_call_or_a_timer_says_gone(void)
{
    loop_t *loop = new_loop();

    CHECK(loop_cancel(loop, loop_call_soon(loop, do_nothing, NULL)), ==, 0);
    CHECK(loop_cancel(loop, loop_call_later(loop, LOOP_SEC(9), do_nothing, NULL)), ==, 0);
    CHECK(loop_cancel(loop, loop_call_every(loop, LOOP_SEC(9), do_nothing, NULL)), ==, 0);
    CHECK(loop_cancel(loop, loop_add_hook(loop, LOOP_AFTER_WAIT, do_nothing, NULL)), ==, 0);
    CHECK_TRUE(!loop_is_alive(loop));
    close_loop(loop);
}

/* The kernel holds a timeout for a timer that is cancelled: the next one must neither be lost nor early. */
static void s11_cancelling_the_timer_that_is_armed_in_the_kernel(void)
{
    loop_t *loop = new_loop();
    loop_handle_t first = loop_call_later(loop, LOOP_MSEC(10), record, (void *)"x");
    uint64_t when = loop_time(loop) + LOOP_MSEC(30);

    trace_clear();
    CHECK(loop_call_at(loop, when, record, (void *)"b"), >, 0);
    /* Arms the timeout, as for a host. */
    CHECK(loop_fd(loop), >=, 0);
    CHECK(metrics_of(loop).submitted, >, 0);
    CHECK(loop_cancel(loop, first), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_time(loop), >=, when);
    CHECK_TEXT(trace, "b");
    close_loop(loop);
}

/* ---- S15 ---- */

static void look_at_oneself(loop_t *loop, void *arg)
{
    bool repeating = arg != NULL;
    loop_handle_t self = loop_current(loop);
    uint64_t when = 0;

    trace_add("L");
    if (!repeating) {
        check_stale(loop, self);
        return;
    }
    CHECK_TRUE(loop_is_pending(loop, self));
    CHECK(loop_when(loop, self, &when), ==, 0);
    CHECK(when, ==, loop_time(loop) + 10);
    CHECK(loop_cancel(loop, self), ==, 0);
}

static void s15_a_one_shot_is_stale_in_its_callback_a_repeating_one_live(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, look_at_oneself, NULL), >, 0);
    CHECK(loop_call_later(loop, 5, look_at_oneself, NULL), >, 0);
    CHECK(loop_call_every(loop, 10, look_at_oneself, loop), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "LLL");
    close_loop(loop);
}

static void take_out_of_the_batch(loop_t *loop, void *arg)
{
    uint64_t when = 0;

    (void)arg;
    trace_add("T");
    CHECK_TRUE(loop_is_pending(loop, victims[0]));
    CHECK(loop_when(loop, victims[0], &when), ==, 0);
    CHECK(when, ==, 10);
    CHECK(loop_reschedule(loop, victims[0], 50), ==, 0);
    CHECK(loop_when(loop, victims[0], &when), ==, 0);
    CHECK(when, ==, 50);
    CHECK_TRUE(loop_is_pending(loop, victims[0]));
}

static void s15_reschedule_takes_a_timer_out_of_the_batch(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_at(loop, 10, take_out_of_the_batch, NULL), >, 0);
    victims[0] = loop_call_at(loop, 10, record, (void *)"v");
    CHECK(loop_call_at(loop, 10, record, (void *)"a"), >, 0);
    CHECK(loop_call_at(loop, 20, record, (void *)"b"), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "Tabv");
    CHECK(loop_time(loop), ==, 50);
    close_loop(loop);
}

static void move_to_the_past(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("P");
    CHECK(loop_reschedule(loop, victims[0], 0), ==, 0);
}

static void s15_rescheduled_from_the_batch_into_the_past_runs_in_the_next_iteration(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_at(loop, 10, move_to_the_past, NULL), >, 0);
    victims[0] = loop_call_at(loop, 10, record, (void *)"v");
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK_TEXT(trace, "P");
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TEXT(trace, "Pv");
    close_loop(loop);
}

static void s15_reschedule_keeps_the_handle_and_goes_behind_equals(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t first, second;

    trace_clear();
    first = loop_call_at(loop, 10, record, (void *)"1");
    second = loop_call_at(loop, 10, record, (void *)"2");
    CHECK(loop_call_at(loop, 10, record, (void *)"3"), >, 0);
    CHECK(loop_reschedule(loop, first, 10), ==, 0);
    CHECK_TRUE(loop_is_pending(loop, first));
    CHECK_TRUE(loop_is_pending(loop, second));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "231");
    close_loop(loop);
}

static void s15_reschedule_earlier_and_later(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t first, second;

    trace_clear();
    first = loop_call_at(loop, 100, record, (void *)"1");
    second = loop_call_at(loop, 200, record, (void *)"2");
    CHECK(loop_run_once(loop, 50), ==, 0);
    CHECK(loop_reschedule(loop, first, 300), ==, 0);
    CHECK(loop_reschedule(loop, second, 60), ==, 0);
    CHECK(loop_next_deadline(loop), ==, 60);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "21");
    CHECK(loop_time(loop), ==, 300);
    close_loop(loop);
}

/* The same against the kernel: the armed timeout has to follow. */
static void s15_reschedule_earlier_than_what_is_armed_in_the_kernel(void)
{
    loop_t *loop = new_loop();
    loop_handle_t timer = loop_call_later(loop, LOOP_SEC(1000), record, (void *)"t");
    uint64_t when;

    trace_clear();
    CHECK(loop_run_once(loop, LOOP_MSEC(2)), ==, 0);
    when = loop_time(loop) + LOOP_MSEC(5);
    CHECK(loop_reschedule(loop, timer, when), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_time(loop), >=, when);
    CHECK_TEXT(trace, "t");
    close_loop(loop);
}

static void s15_what_is_no_timer_has_no_deadline(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t others[2];
    uint64_t untouched = 4711;

    others[0] = loop_call_soon(loop, do_nothing, NULL);
    others[1] = loop_add_hook(loop, LOOP_AFTER_WAIT, do_nothing, NULL);
    for (int i = 0; i < 2; i++) {
        CHECK(loop_reschedule(loop, others[i], 5), ==, -EINVAL);
        CHECK(loop_when(loop, others[i], &untouched), ==, -EINVAL);
        CHECK(loop_skipped(loop, others[i], &untouched), ==, -EINVAL);
        CHECK_TRUE(loop_is_pending(loop, others[i]));
    }
    CHECK(untouched, ==, 4711);
    close_loop(loop);
}

static loop_handle_t current_seen;

static void note_current(loop_t *loop, void *arg)
{
    (void)arg;
    current_seen = loop_current(loop);
}

static void current_is_the_handle_of_what_runs(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t handle;

    CHECK(loop_current(loop), ==, 0);
    handle = loop_call_soon(loop, note_current, NULL);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(current_seen, ==, handle);
    handle = loop_call_later(loop, 1, note_current, NULL);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(current_seen, ==, handle);
    handle = loop_call_every(loop, 1, note_current, NULL);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(current_seen, ==, handle);
    CHECK(loop_current(loop), ==, 0);
    close_loop(loop);
}

/* ---- S16 ---- */

static uint64_t calls[16];
static size_t call_count;

static void note_time(loop_t *loop, void *arg)
{
    const size_t *last = arg;

    calls[call_count++ % 16] = loop_time(loop);
    if (last && call_count == *last)
        CHECK(loop_cancel(loop, loop_current(loop)), ==, 0);
}

static void s16_call_every_keeps_its_phase(void)
{
    static size_t last = 10;
    loop_t *loop = new_virtual_loop(1003);

    call_count = 0;
    CHECK(loop_call_every(loop, 7, note_time, &last), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(call_count, ==, 10);
    for (size_t k = 1; k <= 10; k++)
        CHECK(calls[k - 1], ==, 1003 + k * 7);
    close_loop(loop);
}

static void s16_reschedule_sets_the_next_call_and_the_phase(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t timer = loop_call_every(loop, 10, note_time, NULL);

    call_count = 0;
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(loop_reschedule(loop, timer, 13), ==, 0);
    for (int i = 0; i < 3; i++)
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(calls[0], ==, 10);
    CHECK(calls[1], ==, 13);
    CHECK(calls[2], ==, 23);
    CHECK(calls[3], ==, 33);
    close_loop(loop);
}

static void reschedule_oneself(loop_t *loop, void *arg)
{
    note_time(loop, arg);
    if (call_count == 1)
        CHECK(loop_reschedule(loop, loop_current(loop), 100), ==, 0);
}

static void s16_a_repeating_timer_may_reschedule_itself(void)
{
    static size_t last = 3;
    loop_t *loop = new_virtual_loop(0);

    call_count = 0;
    CHECK(loop_call_every(loop, 10, reschedule_oneself, &last), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(calls[0], ==, 10);
    CHECK(calls[1], ==, 100);
    CHECK(calls[2], ==, 110);
    close_loop(loop);
}

static void s16_missed_calls_are_skipped_and_counted(void)
{
    loop_t *loop = new_loop();
    uint64_t start, when = 0, skipped = 99, period = LOOP_MSEC(2);
    loop_handle_t timer;

    call_count = 0;
    timer = loop_call_every(loop, period, note_time, NULL);
    CHECK(loop_when(loop, timer, &start), ==, 0);
    start -= period;
    CHECK(loop_skipped(loop, timer, &skipped), ==, 0);
    CHECK(skipped, ==, 0);
    for (int i = 0; i < 10; i++) {
        CHECK(run_one_batch(loop), ==, 1);
        CHECK(loop_when(loop, timer, &when), ==, 0);
        CHECK((when - start) % period, ==, 0);
        CHECK(loop_skipped(loop, timer, &skipped), ==, 0);
        /* Each beat before the next one was either a call or a skip. */
        CHECK(call_count + skipped, ==, (when - start) / period - 1);
        if (i % 3 == 0)
            busy_wait(5 * period);
    }
    CHECK(skipped, >=, 4);
    CHECK(metrics_of(loop).timers_skipped, ==, skipped);
    close_loop(loop);
}

static void s16_a_one_shot_skips_nothing(void)
{
    loop_t *loop = new_virtual_loop(100);
    loop_handle_t timer = loop_call_at(loop, 1, do_nothing, NULL);
    uint64_t skipped = 99;

    CHECK(loop_skipped(loop, timer, &skipped), ==, 0);
    CHECK(skipped, ==, 0);
    close_loop(loop);
}

static void s16_a_zero_period_is_invalid(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_call_every(loop, 0, do_nothing, NULL), ==, -EINVAL);
    CHECK_TRUE(!loop_is_alive(loop));
    close_loop(loop);
}

static void s16_a_period_of_one_nanosecond_starves_nobody(void)
{
    loop_t *loop = new_loop();

    call_count = 0;
    CHECK(loop_call_every(loop, 1, note_time, NULL), >, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(5), do_stop, NULL), >, 0);
    CHECK(loop_run_forever(loop), ==, LOOP_STOPPED);
    CHECK(call_count, >, 0);
    close_loop(loop);
}

static void s16_the_longest_period_never_comes(void)
{
    loop_t *loop = new_virtual_loop(1);
    loop_handle_t timer = loop_call_every(loop, UINT64_MAX, do_nothing, NULL);
    uint64_t when = 0;

    CHECK(timer, >, 0);
    CHECK(loop_when(loop, timer, &when), ==, 0);
    CHECK(when, ==, LOOP_NEVER);
    CHECK(loop_run_once(loop, LOOP_SEC(1000)), ==, 0);
    CHECK_TRUE(loop_is_pending(loop, timer));
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s10_a_handle_that_has_run_is_stale),
    TEST(s10_a_cancelled_handle_is_stale),
    TEST(s10_a_stale_handle_does_not_touch_its_successor),
    TEST(s10_no_handle_is_given_out_twice),
    TEST(s10_a_handle_of_another_loop_does_no_harm),
    TEST(s10_made_up_handles_do_no_harm),
    TEST(s11_a_cancelled_call_does_not_run),
    TEST(s11_cancelling_what_stands_in_the_same_batch),
    TEST(s11_cancelling_two_timers_with_one_deadline),
    TEST(s11_cancelling_oneself_is_harmless),
    TEST(s11_a_reused_slot_does_not_run_in_its_predecessors_place),
    TEST(s11_cancelling_costs_no_system_call),
    TEST(s11_cancelling_in_a_crowd_in_any_order),
    TEST(s11_cancelling_the_timer_that_is_armed_in_the_kernel),
    TEST(s13_cancelling_a_call_or_a_timer_says_gone),
    TEST(s15_a_one_shot_is_stale_in_its_callback_a_repeating_one_live),
    TEST(s15_reschedule_takes_a_timer_out_of_the_batch),
    TEST(s15_rescheduled_from_the_batch_into_the_past_runs_in_the_next_iteration),
    TEST(s15_reschedule_keeps_the_handle_and_goes_behind_equals),
    TEST(s15_reschedule_earlier_and_later),
    TEST(s15_reschedule_earlier_than_what_is_armed_in_the_kernel),
    TEST(s15_what_is_no_timer_has_no_deadline),
    TEST(current_is_the_handle_of_what_runs),
    TEST(s16_call_every_keeps_its_phase),
    TEST(s16_reschedule_sets_the_next_call_and_the_phase),
    TEST(s16_a_repeating_timer_may_reschedule_itself),
    TEST(s16_missed_calls_are_skipped_and_counted),
    TEST(s16_a_one_shot_skips_nothing),
    TEST(s16_a_zero_period_is_invalid),
    TEST(s16_a_period_of_one_nanosecond_starves_nobody),
    TEST(s16_the_longest_period_never_comes),
};

CHECK_MAIN(tests)
