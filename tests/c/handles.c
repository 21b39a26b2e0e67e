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

static const struct check_test tests[] = {
    TEST(s10_a_cancelled_handle_is_stale),
    TEST(s10_a_handle_of_another_loop_does_no_harm),
    TEST(s10_made_up_handles_do_no_harm),
    TEST(s15_a_one_shot_is_stale_in_its_callback_a_repeating_one_live),
    TEST(s15_what_is_no_timer_has_no_deadline),
    TEST(current_is_the_handle_of_what_runs),
    TEST(s16_reschedule_sets_the_next_call_and_the_phase),
    TEST(s16_missed_calls_are_skipped_and_counted),
};

CHECK_MAIN(tests)
