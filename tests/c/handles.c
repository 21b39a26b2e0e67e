/* S10, S15, S16: handles as integers in C, and the answers to handles that name nothing, or no timer. */
#include "check.h"

/* Every function that takes a handle reports a stale handle, and writes nothing. */
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

enum { HANDLES = 300000 };

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

/* ---- S15 ---- */

static loop_handle_t current_seen;

static void look_at_oneself(loop_t *loop, void *arg)
{
    uint64_t when = 0;

    current_seen = loop_current(loop);
    if (!arg) {
        check_stale(loop, current_seen);
        return;
    }
    CHECK_TRUE(loop_is_pending(loop, current_seen));
    CHECK(loop_when(loop, current_seen, &when), ==, 0);
    CHECK(when, ==, loop_time(loop) + 10);
    CHECK(loop_cancel(loop, current_seen), ==, 0);
}

static void s15_a_one_shot_is_stale_in_its_callback_a_repeating_one_live(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t handles[3];

    CHECK(loop_current(loop), ==, 0);
    for (int i = 0; i < 3; i++) {
        handles[i] = i == 0   ? loop_call_soon(loop, look_at_oneself, NULL)
                     : i == 1 ? loop_call_later(loop, 5, look_at_oneself, NULL)
                              : loop_call_every(loop, 10, look_at_oneself, loop);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(current_seen, ==, handles[i]);
        check_stale(loop, handles[i]);
    }
    CHECK(loop_current(loop), ==, 0);
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

/* ---- S16 ---- */

static void hold_it_up(loop_t *loop, void *arg)
{
    (void)loop;
    busy_wait(*(const uint64_t *)arg);
}

static void s16_missed_calls_are_skipped_and_counted(void)
{
    static uint64_t period = LOOP_MSEC(2), held = LOOP_MSEC(11);
    loop_t *loop = new_loop();
    loop_handle_t timer = loop_call_every(loop, period, hold_it_up, &held);
    uint64_t first = 0, when = 0, skipped = 99;

    CHECK(loop_skipped(loop, timer, &skipped), ==, 0);
    CHECK(skipped, ==, 0);
    CHECK(loop_when(loop, timer, &first), ==, 0);
    while (metrics_of(loop).callbacks < 2)
        CHECK(loop_run_once(loop, LOOP_NEVER), >=, 0);
    CHECK(loop_skipped(loop, timer, &skipped), ==, 0);
    CHECK(skipped, >=, 4);
    CHECK(metrics_of(loop).timers_skipped, ==, skipped);
    CHECK(loop_when(loop, timer, &when), ==, 0);
    /* Each beat before the next one was called or skipped. */
    CHECK(when - first, ==, (2 + skipped) * period);
    CHECK(loop_reschedule(loop, timer, when + 1), ==, 0);
    CHECK(loop_when(loop, timer, &when), ==, 0);
    CHECK((when - first) % period, ==, 1);
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s10_a_cancelled_handle_is_stale),
    TEST(s10_a_handle_of_another_loop_does_no_harm),
    TEST(s10_made_up_handles_do_no_harm),
    TEST(s15_a_one_shot_is_stale_in_its_callback_a_repeating_one_live),
    TEST(s15_what_is_no_timer_has_no_deadline),
    TEST(s16_missed_calls_are_skipped_and_counted),
};

CHECK_MAIN(tests)
